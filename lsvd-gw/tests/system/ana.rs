//! Paths of different quality to one volume, as a host with two connections sees them.

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lsvd_initiator::{Command, Completion, Controller, Options, Queue, Tag};
use lsvd_nvmet::wire::Status;
use lsvd_nvmet::wire::log_page::{AnaLog, AnaState};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::gateway::{Gateway, IMAGE, Site};
use crate::tools;

const NQN: &str = "nqn.2019-05.io.lsvd:paths";

const BLOCK: u32 = 4096;

/// An event that takes longer than this does not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// CMIC of Identify Controller, and its bit for ANA (NVMe base 2.0, 5.17.2.1).
const CMIC: usize = 76;
const CMIC_ANA: u8 = 1 << 3;

/// Feature and mask of the event, the event itself, and its log page with one group of one
/// namespace (NVMe base 2.0, 5.27.1.8, 5.2.1 and 5.16.1.13).
const ASYNC_EVENTS: u8 = 0x0b;
const ANA_EVENTS: u32 = 1 << 11;
const ANA_CHANGED: u64 = 0x000c_0302;
const ANA_LOG: u8 = 0x0c;
const ANA_LOG_BYTES: u32 = 16 + 32 + 4;

/// Calls a method of the gateway behind a control socket. Returns its answer.
fn call(socket: &Path, method: &str, params: &Value) -> Value {
    let mut stream = UnixStream::connect(socket).expect("the gateway listens");
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    stream.write_all(call.to_string().as_bytes()).expect("the gateway reads");
    let mut answers = serde_json::Deserializer::from_reader(stream).into_iter::<Value>();
    answers.next().expect("an answer").expect("the answer is JSON")
}

fn listener(at: SocketAddr) -> Value {
    let (ip, port) = (at.ip().to_string(), at.port().to_string());
    let address = json!({ "trtype": "TCP", "traddr": ip, "trsvcid": port });
    json!({ "nqn": NQN, "listen_address": address })
}

fn set_state(socket: &Path, at: SocketAddr, state: &str, group: u32) -> Value {
    let mut params = listener(at);
    params["ana_state"] = state.into();
    params["anagrpid"] = group.into();
    call(socket, "nvmf_subsystem_listener_set_ana_state", &params)
}

/// A gateway that shows an image in a subsystem with ANA, and its control socket.
fn start(site: &Site, listeners: &[SocketAddr]) -> (Gateway, PathBuf) {
    let (pool, socket) = (site.pool_text(), site.path("rpc.sock"));
    let rpc = socket.display().to_string();
    let gateway = site.start(&["new", &pool, "1", "--size", "64m", "--rpc-socket", &rpc]);
    let ok = |method, params| {
        let answer = call(&socket, method, &params);
        assert!(answer["error"].is_null(), "{method}: {answer}");
    };
    ok("nvmf_create_transport", json!({ "trtype": "TCP" }));
    let new = json!({ "nqn": NQN, "allow_any_host": true, "ana_reporting": true });
    ok("nvmf_create_subsystem", new);
    ok("nvmf_subsystem_add_ns", json!({ "nqn": NQN, "namespace": { "bdev_name": IMAGE } }));
    for at in listeners {
        ok("nvmf_subsystem_add_listener", listener(*at));
    }
    (gateway, socket)
}

/// A host's way to the volume through one listener.
struct Way {
    controller: Controller,
    queue: Queue,
}

impl Way {
    async fn connect(at: SocketAddr) -> Self {
        let controller = Controller::connect(at, Options::new(NQN)).await.expect("hosts may come");
        let queue = controller.open_queue(1, 8).await.expect("a queue");
        Self { controller, queue }
    }

    async fn execute(&mut self, command: Command) -> Completion {
        self.queue.execute(command).await.expect("the connection stays")
    }

    async fn write(&mut self, lba: u64, data: &[u8]) -> Status {
        self.execute(Command::write(1, lba, BLOCK, data.to_vec().into())).await.status
    }

    async fn read(&mut self, lba: u64) -> Vec<u8> {
        let read = self.execute(Command::read(1, lba, 1, BLOCK)).await;
        read.ok().expect("it can be read").data.to_vec()
    }

    /// What the log page says about the only group. The event for it may come again.
    async fn state(&mut self) -> AnaState {
        let log = self.controller.read_log_page(ANA_LOG, u32::MAX, ANA_LOG_BYTES, ANA_LOG_BYTES);
        let log = AnaLog::parse(&log.await.expect("the log page")).expect("it is well formed");
        assert_eq!(log.groups.len(), 1, "{log:?}");
        assert_eq!((log.groups[0].id, &log.groups[0].namespaces[..]), (1, &[1][..]));
        log.groups[0].state
    }

    async fn ask_for_event(&mut self) -> Tag {
        let event = self.controller.admin().submit(Command::async_event_request());
        self.controller.admin().flush().await.expect("connected");
        event.expect("a place")
    }

    /// Waits for the event that was asked for.
    async fn event(&mut self, asked: Tag) -> u64 {
        let told = timeout(PATIENCE, self.controller.admin().next_completion()).await;
        let told = told.expect("the host is told").expect("connected");
        assert_eq!(told.tag, asked);
        told.result & 0xffff_ffff
    }
}

/// A host loses one of two paths and gets it back. Block 0 and 1 are written and flushed then.
async fn lose_a_path(rpc: &Path, first: SocketAddr, second: SocketAddr, data: &[u8]) {
    let (mut way, mut other) = (Way::connect(first).await, Way::connect(second).await);
    let identity = way.controller.command(Command::identify(0x01, 0)).await.expect("identify");
    assert_eq!(identity.data[CMIC] & CMIC_ANA, CMIC_ANA);
    assert_eq!(way.state().await, AnaState::Optimized);
    let feature = Command::set_feature(ASYNC_EVENTS, 0, ANA_EVENTS);
    way.controller.command(feature).await.expect("events are known");
    let asked = way.ask_for_event().await;
    assert_eq!(way.write(0, data).await, Status::SUCCESS);

    assert_eq!(set_state(rpc, first, "inaccessible", 0)["result"], true);
    assert_eq!(way.event(asked).await, ANA_CHANGED);
    assert_eq!(way.state().await, AnaState::Inaccessible);
    for command in [Command::read(1, 0, 1, BLOCK), Command::flush(1)] {
        assert_eq!(way.execute(command).await.status.code(), Status::ANA_INACCESSIBLE);
    }
    assert_eq!(way.write(0, &[0xff; BLOCK as usize]).await.code(), Status::ANA_INACCESSIBLE);

    // The other path goes on, and leads to what was written through the first.
    assert_eq!(other.state().await, AnaState::Optimized);
    assert!(other.read(0).await == data, "what was acknowledged, and not what was refused");
    assert_eq!(other.write(1, data).await, Status::SUCCESS);

    let asked = way.ask_for_event().await;
    assert_eq!(set_state(rpc, first, "optimized", 1)["result"], true);
    assert_eq!(way.event(asked).await, ANA_CHANGED);
    assert_eq!(way.state().await, AnaState::Optimized);
    assert!(way.read(1).await == data, "written through the other path");
    assert_eq!(set_state(rpc, first, "inaccessible", 1)["result"], true);
    assert_eq!(other.execute(Command::flush(1)).await.status, Status::SUCCESS);
}

#[test]
fn a_host_goes_another_way_and_comes_back_and_a_flush_there_covers_both() {
    let site = Site::new();
    let (first, second) = (tools::free_address(), tools::free_address());
    let (gateway, rpc) = start(&site, &[first, second]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let data = tools::noise(7, BLOCK as usize);
    runtime
        .expect("the system has what a runtime needs")
        .block_on(lose_a_path(&rpc, first, second, &data));
    gateway.kill();
    let gateway = site.mount();
    let mut client = gateway.client();
    for block in [0, 1] {
        let found = client.read(block * u64::from(BLOCK), data.len()).expect("it can be read");
        assert!(found == data, "block {block}");
    }
    gateway.stop();
}

#[test]
fn a_state_that_cannot_be_set_is_refused_with_the_reason() {
    let site = Site::new();
    let (first, unknown) = (tools::free_address(), tools::free_address());
    let (gateway, rpc) = start(&site, &[first]);
    let plain = json!({ "nqn": "nqn.2019-05.io.lsvd:plain" });
    assert_eq!(call(&rpc, "nvmf_create_subsystem", &plain)["result"], true);
    let refused = |answer: Value, why: &str| {
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(why), "{answer}");
    };
    refused(set_state(&rpc, unknown, "inaccessible", 0), "has no listener at");
    refused(set_state(&rpc, first, "inaccessible", 2), "no ANA group 2");
    let mut params = listener(first);
    params["nqn"] = plain["nqn"].clone();
    params["ana_state"] = "inaccessible".into();
    let set = call(&rpc, "nvmf_subsystem_listener_set_ana_state", &params);
    refused(set, "created without ana_reporting");
    let add = call(&rpc, "nvmf_subsystem_add_listener", &params);
    refused(add, "Invalid parameters");
    let of = |nqn: &Value| call(&rpc, "nvmf_subsystem_get_listeners", &json!({ "nqn": nqn }));
    assert_eq!(of(&plain["nqn"])["result"], json!([]), "no listener is left behind");
    assert_eq!(of(&NQN.into())["result"][0]["ana_states"][0]["ana_state"], "optimized");

    // A listener may begin with a state.
    let mut params = listener(unknown);
    params["ana_state"] = "non_optimized".into();
    assert_eq!(call(&rpc, "nvmf_subsystem_add_listener", &params)["result"], true);
    assert_eq!(of(&NQN.into())["result"][1]["ana_states"][0]["ana_state"], "non_optimized");
    gateway.stop();
}
