//! The control socket with SPDK's own client, on a gateway with real images.

use std::path::Path;
use std::process::Command;

use lsvd_fixtures::spdk::{NEWEST, OLDEST, SpdkClient, WITH_IO_UNITS};

use crate::gateway::{Gateway, Site};
use crate::tools;

const NQN: &str = "nqn.2019-05.io.lsvd:cnode1";

/// A client of a gateway.
struct Rpc(SpdkClient);

impl Rpc {
    /// The client of a version for the gateway of a site; none, said aloud, if it cannot be
    /// installed.
    fn install(version: &str, site: &Site) -> Option<Self> {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
        match SpdkClient::install(version, place, site.path("rpc.sock")) {
            Ok(client) => Some(Self(client)),
            Err(error) => {
                tools::skip(error);
                None
            }
        }
    }

    /// Runs a command that must succeed. Returns what it printed.
    fn ok(&self, words: &[&str]) -> String {
        tools::run(&mut self.0.command(words))
    }

    fn refused(&self, words: &[&str]) -> String {
        tools::run_refused(&mut self.0.command(words))
    }

    fn socket(&self) -> String {
        self.0.socket().display().to_string()
    }

    fn start(&self, site: &Site) -> Gateway {
        site.start(&["--rpc-socket", &self.socket(), "--nbd", "none"])
    }
}

fn new_image(site: &Site, name: &str) -> bool {
    let Some(imgtool) = tools::ours("imgtool") else { return false };
    tools::run(Command::new(imgtool).args(["create", &site.pool_text(), name, "--size", "64m"]));
    true
}

fn documented_session(version: &str, transport: &[&str]) {
    let site = Site::new();
    let Some(rpc) = Rpc::install(version, &site) else { return };
    if !new_image(&site, "disk1") {
        return;
    }
    let mut gateway = rpc.start(&site);
    let (pool, port) = (site.pool_text(), tools::free_address().port().to_string());
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
    assert_eq!(rpc.ok(&["bdev_lsvd_resize", "disk1", "96"]), "true\n");
    assert!(rpc.ok(&["bdev_get_bdevs"]).contains("\"num_blocks\": 24576"));
    assert!(rpc.refused(&["bdev_lsvd_resize", "disk1", "64"]).contains("shrinking is not"));
    assert_eq!(rpc.ok(&["bdev_lsvd_delete", "disk1"]), "true\n");
    assert!(!rpc.ok(&["nvmf_get_subsystems"]).contains("disk1"), "its namespace went with it");
    assert_eq!(rpc.ok(&["spdk_kill_instance", "SIGTERM"]), "");
    assert!(gateway.wait().success());
    assert!(!rpc.0.socket().exists(), "the socket is removed");
}

#[test]
fn the_documented_session_of_the_newest_client() {
    let transport = ["nvmf_create_transport", "-t", "TCP", "-m", "8", "-c", "8192"];
    documented_session(NEWEST, &transport);
}

#[test]
fn the_documented_session_of_an_older_client_with_an_io_unit_size() {
    let transport = ["nvmf_create_transport", "-t", "TCP", "-u", "16384", "-m", "8", "-c", "8192"];
    documented_session(WITH_IO_UNITS, &transport);
}

#[test]
fn the_documented_session_of_the_oldest_client() {
    let transport = ["nvmf_create_transport", "-t", "TCP", "-u", "16384", "-m", "8", "-c", "8192"];
    documented_session(OLDEST, &transport);
}

#[test]
fn a_saved_configuration_brings_everything_back_after_a_kill() {
    let site = Site::new();
    let Some(rpc) = Rpc::install(NEWEST, &site) else { return };
    if !new_image(&site, "disk1") || !new_image(&site, "disk2") {
        return;
    }
    let gateway = rpc.start(&site);
    let (pool, port) = (site.pool_text(), tools::free_address().port().to_string());
    let other_port = tools::free_address().port().to_string();
    rpc.ok(&["nvmf_create_transport", "-t", "TCP"]);
    rpc.ok(&["nvmf_create_subsystem", NQN, "-s", "S1", "-d", "LSVD", "-r"]);
    rpc.ok(&["nvmf_subsystem_add_host", NQN, "nqn.2014-08.org.example:host"]);
    for port in [&port, &other_port] {
        rpc.ok(&["nvmf_subsystem_add_listener", NQN, "-t", "tcp", "-a", "127.0.0.1", "-s", port]);
    }
    let at = ["-t", "tcp", "-a", "127.0.0.1", "-s", &other_port];
    for state in [["-n", "non_optimized"], ["-n", "inaccessible"]] {
        let words = [&["nvmf_subsystem_listener_set_ana_state", NQN, "-g", "1"], &state[..], &at];
        assert_eq!(rpc.ok(&words.concat()), "");
        assert!(rpc.ok(&["nvmf_subsystem_get_listeners", NQN]).contains(state[1]));
    }
    for image in ["disk1", "disk2"] {
        rpc.ok(&["bdev_lsvd_create", &pool, image]);
        rpc.ok(&["nvmf_subsystem_add_ns", NQN, image]);
    }
    let (subsystems, saved) = (rpc.ok(&["nvmf_get_subsystems", NQN]), rpc.ok(&["save_config"]));
    let listeners = rpc.ok(&["nvmf_subsystem_get_listeners", NQN]);
    gateway.kill();
    let file = site.path("saved.json");
    std::fs::write(&file, &saved).expect("tests may write");
    let (file, socket) = (file.display().to_string(), rpc.socket());
    let words = ["--config", &file, "--rpc-socket", &socket, "--nbd", "none"];
    let gateway = site.start(&words);
    assert_eq!(rpc.ok(&["nvmf_get_subsystems", NQN]), subsystems);
    assert_eq!(rpc.ok(&["nvmf_subsystem_get_listeners", NQN]), listeners);
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
