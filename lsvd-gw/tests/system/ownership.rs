//! One writer: who is refused, what takes an image back without a word, and what a takeover does.

use crate::client::{EIO, Failure};
use crate::gateway::{IMAGE, Site};
use crate::model;

/// Another machine, as far as the engine can tell: a state directory and socket of its own.
fn elsewhere(site: &Site, words: &[&str]) -> Vec<String> {
    let state = site.path("elsewhere").display().to_string();
    let socket = format!("unix:{}", site.path("elsewhere.sock").display());
    let mut all: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    all.extend(["--state-dir".to_owned(), state, "--nbd".to_owned(), socket]);
    all
}

fn words(all: &[String]) -> Vec<&str> {
    all.iter().map(String::as_str).collect()
}

#[test]
fn an_image_in_use_is_refused_with_the_name_of_its_owner() {
    let site = Site::new();
    let gateway = site.new_image("64m");
    let other = elsewhere(&site, &["mount", &site.pool_text(), IMAGE]);
    let (code, text) = site.refused(&words(&other));
    assert_eq!(code, 1, "{text}");
    let pid = gateway.pid().to_string();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    for part in ["in use", IMAGE, &pid, &host, "--takeover"] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    gateway.client().write(0, &model::data(1, 0..1), true).unwrap();
    gateway.stop();
}

#[test]
fn new_does_not_recreate_an_image_that_is_in_use() {
    let site = Site::new();
    let gateway = site.new_image("64m");
    gateway.client().write(0, &model::data(1, 0..1), true).unwrap();
    let other = elsewhere(&site, &["new", &site.pool_text(), "1"]);
    let (code, text) = site.refused(&words(&other));
    assert_eq!(code, 1, "{text}");
    assert_eq!(model::read_stamps(&mut gateway.client(), 0..1), [1]);
    gateway.stop();
}

#[test]
fn a_takeover_fences_the_old_gateway() {
    let site = Site::new();
    let mut old = site.new_image("64m");
    old.expect_trouble("volume failed");
    old.expect_trouble("close failed");
    let mut before = old.client();
    before.write(0, &model::data(1, 0..16), false).unwrap();
    let log = {
        let other = elsewhere(&site, &["mount", &site.pool_text(), IMAGE, "--takeover"]);
        let socket = site.path("elsewhere.sock");
        let new = site.start(&words(&other));
        let mut client = crate::client::Client::connect(&socket, IMAGE).unwrap();
        client.write(1 << 20, &model::data(2, 256..257), true).unwrap();
        // The old one learns it at its next contact with the store, and acknowledges nothing after
        // that.
        let mut refused = false;
        for write in 0..600 {
            match before.write(2 << 20, &model::data(3 + write, 512..513), false) {
                Ok(()) => std::thread::sleep(std::time::Duration::from_millis(50)),
                Err(Failure::Refused(EIO)) => {
                    refused = true;
                    break;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        assert!(refused, "{}", old.log());
        assert!(matches!(before.flush(), Err(Failure::Refused(EIO))));
        assert_eq!(model::read_stamps(&mut client, 256..257), [2]);
        assert_eq!(model::read_stamps(&mut client, 512..513), [0]);
        new.stop()
    };
    assert!(log.contains("image closed"), "{log}");
    old.signal(rustix::process::Signal::TERM);
    assert_eq!(old.wait().code(), Some(2), "it could not close: {}", old.log());
}

#[test]
fn the_same_state_directory_takes_its_image_back_after_a_kill() {
    let site = Site::new();
    let gateway = site.new_image("64m");
    let mut client = gateway.client();
    client.write(0, &model::data(9, 0..64), false).unwrap();
    client.flush().unwrap();
    gateway.kill();
    let gateway = site.mount();
    assert_eq!(model::read_stamps(&mut gateway.client(), 0..64), [9; 64]);
    gateway.stop();
}

#[test]
fn without_its_log_an_open_image_needs_a_takeover() {
    let site = Site::new();
    let gateway = site.new_image("64m");
    gateway.client().write(0, &model::data(9, 0..64), true).unwrap();
    gateway.kill();
    std::fs::remove_dir_all(site.state()).unwrap();
    let (code, text) = site.refused(&["mount", &site.pool_text(), IMAGE]);
    assert_eq!(code, 1, "{text}");
    let gateway = site.start(&["mount", &site.pool_text(), IMAGE, "--takeover"]);
    let stamps = model::read_stamps(&mut gateway.client(), 0..64);
    assert!(stamps.iter().all(|stamp| *stamp == 0 || *stamp == 9), "{stamps:?}");
    gateway.stop();
}

#[test]
fn a_state_directory_serves_one_gateway() {
    let site = Site::new();
    let gateway = site.new_image("64m");
    let socket = format!("unix:{}", site.path("second.sock").display());
    let (code, text) = site.refused(&["--nbd", &socket]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("another gateway uses the state directory"), "{text}");
    gateway.stop();
}
