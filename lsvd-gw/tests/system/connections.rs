//! Several connections, exports and addresses.

use std::net::TcpListener;
use std::process::Command;

use crate::gateway::{IMAGE, Site};
use crate::model::{self, PAGE};
use crate::tools;

#[test]
fn connections_to_one_export_see_each_others_writes() {
    let site = Site::new();
    let gateway = site.new_image("64m");
    let (mut writer, mut reader, mut flusher) =
        (gateway.client(), gateway.client(), gateway.client());
    for round in 1..200 {
        let page = round as usize % 64;
        writer.write((page * PAGE) as u64, &model::data(round, page..page + 1), false).unwrap();
        assert_eq!(model::read_stamps(&mut reader, page..page + 1), [round]);
    }
    // A flush on any connection covers what was acknowledged on all: that is what multi-conn means.
    flusher.flush().unwrap();
    gateway.kill();
    let gateway = site.mount();
    let stamps = model::read_stamps(&mut gateway.client(), 0..64);
    assert_eq!(
        stamps,
        (0..64).map(|page| if page < 8 { 192 + page } else { 128 + page }).collect::<Vec<_>>()
    );
    gateway.stop();
}

#[test]
fn every_export_is_listed_and_served() {
    let Some(nbdinfo) = tools::find("nbdinfo") else { return };
    let site = Site::new();
    let gateway = site.new_images(3, "32m", "4096");
    let list = tools::run(Command::new(nbdinfo).args(["--list", &gateway.uri("")]));
    for image in ["auto_lsvddev_0", "auto_lsvddev_1", "auto_lsvddev_2"] {
        assert!(list.contains(&format!("export=\"{image}\"")), "{list}");
        let stamp = image.bytes().last().map_or(1, u64::from);
        let mut client = gateway.client_of(image);
        client.write(0, &model::data(stamp, 0..4), false).unwrap();
        assert_eq!(model::read_stamps(&mut client, 0..4), [stamp; 4]);
    }
    assert_eq!(model::read_stamps(&mut gateway.client(), 0..1), [u64::from(b'0')]);
    let unknown = crate::client::Client::connect(gateway.socket(), "nothing");
    assert!(matches!(unknown, Err(crate::client::Failure::Refused(_))), "{unknown:?}");
    gateway.stop();
}

#[test]
fn a_unix_socket_and_a_port_serve_the_same_image() {
    let Some(qemu_io) = tools::find("qemu-io") else { return };
    let site = Site::new();
    // Free a moment ago; another program may take it, but hardly in this moment.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let unix = format!("unix:{}", site.path("nbd.sock").display());
    let words = ["new", &site.pool_text(), "1", "--size", "64m", "--nbd", &address, "--nbd", &unix];
    let gateway = site.start(&words);
    let uri = format!("nbd://{address}/{IMAGE}");
    tools::run(Command::new(qemu_io).args(["-f", "raw", "-c", "write -P 7 8k 4k", &uri]));
    assert_eq!(gateway.client().read(8 << 10, PAGE).unwrap(), [7; PAGE]);
    gateway.stop();
}

#[test]
fn a_socket_left_by_a_killed_gateway_is_replaced() {
    let site = Site::new();
    let gateway = site.new_image("64m");
    gateway.kill();
    assert!(site.path("nbd.sock").exists(), "a kill leaves it");
    site.mount().stop();
}
