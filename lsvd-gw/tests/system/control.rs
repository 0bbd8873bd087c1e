//! The control socket with SPDK's own client, on a gateway with real images.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FlockOperation, flock};

use crate::gateway::{Gateway, Site};
use crate::tools;

const NQN: &str = "nqn.2019-05.io.lsvd:cnode1";

/// The client of a version; none, said aloud, if it cannot be installed.
fn client(version: &str) -> Option<PathBuf> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("spdk-{version}"));
    let lock = File::create(place.with_file_name(format!("spdk-{version}.lock")));
    let lock = lock.expect("a place for tests");
    flock(&lock, FlockOperation::LockExclusive).expect("a file can be locked");
    let program = place.join("bin/spdk-rpc");
    if program.is_file() {
        return Some(program);
    }
    let package = format!("spdk=={version}");
    let mut make = Command::new("python3");
    make.args(["-m", "venv"]).arg(&place);
    let mut install = Command::new(place.join("bin/pip"));
    install.args(["install", "--quiet", &package]);
    let is_done = [make, install]
        .iter_mut()
        .all(|command| command.stdin(Stdio::null()).status().is_ok_and(|status| status.success()));
    if !is_done || !program.is_file() {
        tools::skip(format!("{package} cannot be installed with Python's venv and pip"));
        return None;
    }
    Some(program)
}

struct Rpc {
    program: PathBuf,
    socket: PathBuf,
}

impl Rpc {
    fn command(&self, words: &[&str]) -> Command {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the project's root");
        let mut command = Command::new(&self.program);
        command.arg("-s").arg(&self.socket).args(["--plugin", "rpc_plugin"]).args(words);
        command.env("PYTHONPATH", root).env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null());
        command
    }

    /// Runs a command that must succeed. Returns what it printed.
    fn ok(&self, words: &[&str]) -> String {
        tools::run(&mut self.command(words))
    }

    fn refused(&self, words: &[&str]) -> String {
        tools::run_refused(&mut self.command(words))
    }
}

fn started(site: &Site, program: PathBuf) -> (Gateway, Rpc) {
    let socket = site.path("rpc.sock");
    let words = ["--rpc-socket", &socket.display().to_string(), "--nbd", "none"];
    (site.start(&words), Rpc { program, socket })
}

fn new_image(site: &Site, name: &str) -> bool {
    let Some(imgtool) = tools::ours("imgtool") else { return false };
    tools::run(Command::new(imgtool).args(["create", &site.pool_text(), name, "--size", "64m"]));
    true
}

/// A port that nobody listens on.
fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("it is bound").port().to_string()
}

fn documented_session(version: &str, transport: &[&str]) {
    let Some(program) = client(version) else { return };
    let site = Site::new();
    if !new_image(&site, "disk1") {
        return;
    }
    let (mut gateway, rpc) = started(&site, program);
    let (pool, port) = (site.pool_text(), free_port());
    assert_eq!(rpc.ok(transport), "");
    let subsystem = ["nvmf_create_subsystem", NQN, "-a", "-s", "SPDK_000001", "-d", "LSVD"];
    assert_eq!(rpc.ok(&subsystem), "");
    let listener =
        ["nvmf_subsystem_add_listener", NQN, "-t", "tcp", "-a", "127.0.0.1", "-s", &port];
    assert_eq!(rpc.ok(&listener), "");
    let config = r#"{"wlog_size":"64m"}"#;
    assert_eq!(rpc.ok(&["bdev_lsvd_create", &pool, "disk1", "-c", config]), "true\n");
    assert_eq!(rpc.ok(&["nvmf_subsystem_add_ns", NQN, "disk1"]), "");
    assert!(rpc.ok(&["nvmf_get_subsystems"]).contains("\"bdev_name\": \"disk1\""));
    assert!(rpc.ok(&["bdev_get_bdevs"]).contains("\"claimed\": true"));
    std::net::TcpStream::connect(format!("127.0.0.1:{port}")).expect("hosts can come");
    assert!(rpc.refused(&["bdev_lsvd_create", &pool, "disk1"]).contains("File exists"));
    assert!(rpc.refused(&["bdev_lsvd_create", &pool, "none"]).contains("none"));
    assert_eq!(rpc.ok(&["bdev_lsvd_delete", "disk1"]), "true\n");
    assert!(!rpc.ok(&["nvmf_get_subsystems"]).contains("disk1"), "its namespace went with it");
    assert_eq!(rpc.ok(&["spdk_kill_instance", "SIGTERM"]), "");
    assert!(gateway.wait().success());
    assert!(!rpc.socket.exists(), "the socket is removed");
}

#[test]
fn the_documented_session_of_the_newest_client() {
    let transport = ["nvmf_create_transport", "-t", "TCP", "-m", "8", "-c", "8192"];
    documented_session("26.9", &transport);
}

#[test]
fn the_documented_session_of_an_older_client_with_an_io_unit_size() {
    let transport = ["nvmf_create_transport", "-t", "TCP", "-u", "16384", "-m", "8", "-c", "8192"];
    documented_session("26.5", &transport);
}

#[test]
fn a_saved_configuration_brings_everything_back_after_a_kill() {
    let Some(program) = client("26.9") else { return };
    let site = Site::new();
    if !new_image(&site, "disk1") || !new_image(&site, "disk2") {
        return;
    }
    let (gateway, rpc) = started(&site, program);
    let (pool, port) = (site.pool_text(), free_port());
    rpc.ok(&["nvmf_create_transport", "-t", "TCP"]);
    rpc.ok(&["nvmf_create_subsystem", NQN, "-s", "S1", "-d", "LSVD"]);
    rpc.ok(&["nvmf_subsystem_add_host", NQN, "nqn.2014-08.org.example:host"]);
    rpc.ok(&["nvmf_subsystem_add_listener", NQN, "-t", "tcp", "-a", "127.0.0.1", "-s", &port]);
    for image in ["disk1", "disk2"] {
        rpc.ok(&["bdev_lsvd_create", &pool, image]);
        rpc.ok(&["nvmf_subsystem_add_ns", NQN, image]);
    }
    let (subsystems, saved) = (rpc.ok(&["nvmf_get_subsystems", NQN]), rpc.ok(&["save_config"]));
    gateway.kill();
    let file = site.path("saved.json");
    std::fs::write(&file, &saved).expect("tests may write");
    let (file, socket) = (file.display().to_string(), rpc.socket.display().to_string());
    let words = ["--config", &file, "--rpc-socket", &socket, "--nbd", "none"];
    let gateway = site.start(&words);
    assert_eq!(rpc.ok(&["nvmf_get_subsystems", NQN]), subsystems);
    assert_eq!(rpc.ok(&["save_config"]), saved);
    std::net::TcpStream::connect(format!("127.0.0.1:{port}")).expect("hosts can come");
    gateway.stop();
}

#[test]
fn a_second_gateway_does_not_take_the_socket_of_a_live_one() {
    let (site, other) = (Site::new(), Site::new());
    let socket = site.path("rpc.sock").display().to_string();
    let gateway = site.start(&["--rpc-socket", &socket]);
    let (code, text) = other.refused(&["--rpc-socket", &socket]);
    assert!(code == 2 && text.contains(&socket), "{code}: {text}");
    gateway.kill();
    site.start(&["--rpc-socket", &socket]).stop();
}
