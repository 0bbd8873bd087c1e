//! Many namespaces and many hosts at once, over NVMe/TCP.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use lsvd_initiator::{Command, Controller, Options};
use serde_json::json;

use crate::gateway::{Gateway, Site};
use crate::tools;

/// As in the configuration of the gateway.
const NQN: &str = "nqn.2019-05.io.lsvd:cnode1";
/// Every gateway answers to it.
const DISCOVERY: &str = "nqn.2014-08.org.nvmexpress.discovery";

const NAMESPACES: u32 = 300;
const CONTROLLERS: usize = 64;
const PAGE: u32 = 4096;

/// Log pages (NVMe base 2.0, figure 202), and bytes of each that are looked at: all that hosts
/// read, and a number that no piece divides.
const SUPPORTED: (u8, u32) = (0x00, 1024);
const ERRORS: (u8, u32) = (0x01, 64 * 64);
const HEALTH: (u8, u32) = (0x02, 512);
const FIRMWARE: (u8, u32) = (0x03, 512);
const CHANGED_NAMESPACES: (u8, u32) = (0x04, 4096);
const EFFECTS: (u8, u32) = (0x05, 4096);
const DISCOVERY_LOG: (u8, u32) = (0x70, 3072);

/// Bytes of memory that an open image costs that holds next to nothing (its map and its log writer
/// with them), and that a connection without work costs: a receive buffer of 128 KiB and its task.
const IMAGE_COST: u64 = 64 << 10;
const CONNECTION_COST: u64 = 192 << 10;
/// What a gateway takes without images, with the RAM tier of the read cache of these tests.
const GATEWAY_COST: u64 = 64 << 20;

/// A gateway with so many images, and the address of its NVMe target.
fn start(site: &Site, images: u32) -> (Gateway, SocketAddr) {
    let address = tools::free_address();
    let (pool, count) = (site.pool_text(), images.to_string());
    let (nvme, rpc) = (address.to_string(), rpc_socket(site).display().to_string());
    let words = ["new", &pool, &count, "--size", "1m", "--nvme", &nvme, "--rpc-socket", &rpc];
    (site.start(&words), address)
}

fn rpc_socket(site: &Site) -> PathBuf {
    site.path("rpc.sock")
}

/// A log page in one piece, which is as in pieces that do not divide it.
async fn assert_whole(controller: &mut Controller, (page, bytes): (u8, u32)) -> Bytes {
    let nsid = if page == HEALTH.0 { u32::MAX } else { 0 };
    // The page stays as it is until its last piece is read without Retain Asynchronous Event.
    let keep = Command::get_log_page(page, nsid, 0, bytes, true);
    let whole = controller.command(keep).await.expect("the page in one piece").data;
    let pieces = controller.read_log_page(page, nsid, bytes, 20).await;
    let pieces = pieces.unwrap_or_else(|error| panic!("page {page:#x} in pieces: {error}"));
    assert!(pieces == whole, "page {page:#x}");
    whole
}

/// Takes a namespace away, as an operator does.
fn remove_namespace(socket: &Path, nsid: u32) {
    let mut stream = UnixStream::connect(socket).expect("the control socket");
    let params = json!({"nqn": NQN, "nsid": nsid});
    let request =
        json!({"jsonrpc": "2.0", "id": 1, "method": "nvmf_subsystem_remove_ns", "params": params});
    write!(stream, "{request}").expect("the gateway listens");
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).expect("the gateway answers");
    assert!(answer.contains("\"result\":true"), "{answer}");
}

#[tokio::test]
async fn three_hundred_namespaces_and_sixty_four_hosts_see_the_same() {
    let site = Site::new().with("--log-size", "32m");
    let (gateway, address) = start(&site, NAMESPACES);
    let mut controllers = Vec::new();
    for _ in 0..CONTROLLERS {
        let controller = Controller::connect(address, Options::new(NQN)).await;
        controllers.push(controller.expect("there is room for this host"));
    }
    let expected: Vec<u32> = (1..=NAMESPACES).collect();
    for controller in &mut controllers {
        assert_eq!(controller.active_namespaces().await.unwrap(), expected);
    }
    let ids: BTreeSet<u16> = controllers.iter().map(Controller::id).collect();
    assert_eq!(ids.len(), CONTROLLERS, "every association has an id of its own");

    // Every host writes to the first and the last namespace, and reads what its neighbour wrote.
    let mut queues = Vec::new();
    for controller in &mut controllers {
        assert!(controller.set_queues(1).await.unwrap() >= 1);
        queues.push(controller.open_queue(1, 32).await.unwrap());
    }
    for (host, queue) in queues.iter_mut().enumerate() {
        for nsid in [1, NAMESPACES] {
            let data = Bytes::from(tools::noise(host as u64 * 1000 + u64::from(nsid), 4096));
            let write = Command::write(nsid, host as u64, PAGE, data);
            queue.execute(write).await.unwrap().ok().unwrap();
        }
    }
    for (host, queue) in queues.iter_mut().enumerate() {
        let neighbour = (host + 1) % CONTROLLERS;
        for nsid in [1, NAMESPACES] {
            let read = Command::read(nsid, neighbour as u64, 1, PAGE);
            let data = queue.execute(read).await.unwrap().ok().unwrap().data;
            let written = tools::noise(neighbour as u64 * 1000 + u64::from(nsid), 4096);
            assert!(data == written, "host {host} reads namespace {nsid}");
        }
    }

    for page in [SUPPORTED, ERRORS, HEALTH, FIRMWARE, EFFECTS] {
        assert_whole(&mut controllers[0], page).await;
    }
    let gone = 101..=140;
    gone.clone().for_each(|nsid| remove_namespace(&rpc_socket(&site), nsid));
    let left: Vec<u32> = expected.into_iter().filter(|nsid| !gone.contains(nsid)).collect();
    let mut listed: Vec<u8> = gone.flat_map(u32::to_le_bytes).collect();
    listed.resize(CHANGED_NAMESPACES.1 as usize, 0);
    for controller in [0, CONTROLLERS - 1] {
        let controller = &mut controllers[controller];
        assert_eq!(assert_whole(controller, CHANGED_NAMESPACES).await, listed);
    }
    for controller in &mut controllers {
        assert_eq!(controller.active_namespaces().await.unwrap(), left);
    }
    let (resident, connections) = (gateway.resident_bytes(), 2 * CONTROLLERS as u64);
    let bound = GATEWAY_COST + u64::from(NAMESPACES) * IMAGE_COST + connections * CONNECTION_COST;
    eprintln!("{NAMESPACES} images, {connections} queues: {} MiB resident", resident >> 20);
    assert!(resident < bound, "{} MiB of {} MiB", resident >> 20, bound >> 20);
    drop(queues);
    for controller in controllers {
        controller.disconnect().await.unwrap();
    }
    gateway.stop();
}

#[tokio::test]
async fn the_discovery_log_in_pieces_is_the_discovery_log() {
    let site = Site::new();
    let (gateway, address) = start(&site, 1);
    let mut discovery = Controller::connect(address, Options::new(DISCOVERY)).await.unwrap();
    let log = assert_whole(&mut discovery, DISCOVERY_LOG).await;
    let records = u64::from_le_bytes(log[8..16].try_into().expect("eight bytes"));
    assert_eq!(records, 2, "the subsystem and the discovery subsystem itself");
    let name = &log[1024 + 1024 + 256..][..NQN.len()];
    assert_eq!(name, NQN.as_bytes());
    let port = &log[1024 + 1024 + 32..][..address.port().to_string().len()];
    assert_eq!(port, address.port().to_string().as_bytes());
    discovery.disconnect().await.unwrap();
    gateway.stop();
}
