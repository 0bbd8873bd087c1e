//! Debian's kernel as a host: a guest under qemu connects to the gateway over NVMe/TCP. The scripts
//! that run in it are in `tests/guest`.
//!
//! A guest reaches our loopback as 10.0.2.2. Without hardware virtualisation it is slow, so the
//! loads are small.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::gateway::{IMAGE, Site};
use crate::{resize, tools};

const SUBSYSTEM: &str = "nqn.2019-05.io.lsvd:cnode1";

/// The size that an image grows to.
const GROWN_MIB: u64 = 96;

/// What the guest script says with its exit status when a guest cannot be built here.
const NO_GUEST: i32 = 126;

/// A port that nobody listens on. Another process may take it before the gateway does, which would
/// fail the test by name.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("it is bound").port()
}

/// Starts a script in a guest; its output comes through the pipe.
fn start(script: &str, port: u16) -> Child {
    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/guest");
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest");
    let mut command = Command::new(guest);
    command.args(["--timeout", "270", "--cpus", "2", "--env", "TARGET=10.0.2.2"]);
    command.args(["--env", &format!("PORT={port}"), "--env", &format!("SUBSYSTEM={SUBSYSTEM}")]);
    command.args(["--env", "SERIAL=SPDK_000001", "--env", "MODEL=LSVD NVMe controller"]);
    command.args(["--env", &format!("SECTORS={}", GROWN_MIB * 2048)]);
    command.arg(script).env("LSVD_GUEST_CACHE", cache);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("bash is there")
}

/// Waits for a guest, telling each line to `seen`. False if there is no guest to be had here.
fn follow(mut guest: Child, mut seen: impl FnMut(&str)) -> bool {
    let output = BufReader::new(guest.stdout.take().expect("it is piped"));
    let mut all = String::new();
    for line in output.lines() {
        let line = line.expect("scripts print text");
        seen(&line);
        all += &line;
        all.push('\n');
    }
    let status = guest.wait().expect("it is our child");
    if status.code() == Some(NO_GUEST) {
        tools::skip("no guest can be built here");
        return false;
    }
    assert!(status.success(), "{status}\n{all}");
    true
}

fn run(script: &str, sector_size: &str, size: &str) {
    let Some(_) = tools::find("qemu-system-x86_64") else { return };
    let port = free_port();
    let site = Site::new();
    let (address, pool) = (format!("127.0.0.1:{port}"), site.pool_text());
    let words =
        ["new", &pool, "1", "--size", size, "--sector-size", sector_size, "--nvme", &address];
    let gateway = site.start(&words);
    follow(start(script, port), |_| ());
    gateway.stop();
}

#[test]
fn a_session_of_nvme_cli() {
    run("nvme-session.sh", "4096", "1g");
}

#[test]
fn file_systems_keep_their_files() {
    run("filesystems.sh", "512", "2g");
}

#[test]
fn fio_verifies_with_one_queue_and_four_and_digests() {
    run("fio-verify.sh", "512", "512m");
}

#[test]
fn a_gateway_that_dies_and_comes_back_is_no_error_to_applications() {
    let Some(_) = tools::find("qemu-system-x86_64") else { return };
    let port = free_port();
    let site = Site::new();
    let (address, pool) = (format!("127.0.0.1:{port}"), site.pool_text());
    let words = ["new", &pool, "1", "--size", "512m", "--nvme", &address];
    let mut gateway = Some(site.start(&words));
    let was_run = follow(start("restart.sh", port), |line| {
        if line.contains("MARK writing")
            && let Some(victim) = gateway.take()
        {
            victim.kill();
            // Long enough for the host to notice, and to be refused at least once.
            std::thread::sleep(Duration::from_secs(3));
            gateway = Some(site.start(&["mount", &pool, IMAGE, "--nvme", &address]));
        }
    });
    let gateway = gateway.expect("it was started again");
    assert!(!was_run || gateway.log().contains("connected a queue"), "the host came back");
    gateway.stop();
}

#[test]
fn a_disk_grows_by_itself_under_its_host() {
    let Some(_) = tools::find("qemu-system-x86_64") else { return };
    let port = free_port();
    let site = Site::new();
    let (address, pool) = (format!("127.0.0.1:{port}"), site.pool_text());
    let rpc = site.path("rpc.sock");
    let socket = rpc.display().to_string();
    let words = ["new", &pool, "1", "--size", "64m", "--nvme", &address, "--rpc-socket", &socket];
    let gateway = site.start(&words);
    follow(start("resize.sh", port), |line| {
        if line.contains("MARK connected") {
            assert_eq!(resize::ask(&rpc, IMAGE, GROWN_MIB)["result"], true);
        }
    });
    gateway.stop();
}
