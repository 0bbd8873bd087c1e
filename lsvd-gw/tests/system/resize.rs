//! An image that grows while hosts use it.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command as Process;
use std::time::Duration;

use lsvd_initiator::{Command, Controller, Error, Options, Queue};
use lsvd_nvmet::wire::Status;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::gateway::{IMAGE, Site};
use crate::tools;

const SUBSYSTEM: &str = "nqn.2019-05.io.lsvd:cnode1";

const BLOCK: u32 = 4096;

/// An event that takes longer than this does not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Feature and mask of the event, the event itself, and the log page with the namespaces that it is
/// about (NVMe base 2.0, 5.27.1.8 and 5.2.1).
const ASYNC_EVENTS: u8 = 0x0b;
const NAMESPACE_EVENTS: u32 = 1 << 8;
const NAMESPACE_CHANGED: u64 = 0x0004_0002;
const CHANGED_NAMESPACES: u8 = 0x04;

/// Asks the gateway behind a control socket to resize an image. Returns its answer.
pub(crate) fn ask(socket: &Path, image: &str, mib: u64) -> Value {
    let mut stream = UnixStream::connect(socket).expect("the gateway listens");
    let params = json!({ "name": image, "new_size": mib });
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "bdev_lsvd_resize", "params": params });
    stream.write_all(call.to_string().as_bytes()).expect("the gateway reads");
    let mut answers = serde_json::Deserializer::from_reader(stream).into_iter::<Value>();
    answers.next().expect("an answer").expect("the answer is JSON")
}

async fn connect(address: SocketAddr) -> Controller {
    let options = Options::new(SUBSYSTEM);
    Controller::connect(address, options).await.expect("the gateway lets hosts in")
}

async fn read(queue: &mut Queue, lba: u64) -> Vec<u8> {
    let answer = queue.execute(Command::read(1, lba, 1, BLOCK)).await.and_then(|read| read.ok());
    answer.expect("it can be read").data.to_vec()
}

/// Connects, is told of the new size, and writes at the new end.
async fn use_growing_image(address: SocketAddr, rpc: &Path, old: u64, new: u64, data: &[u8]) {
    let write = |lba| Command::write(1, lba, BLOCK, data.to_vec().into());
    let mut controller = connect(address).await;
    assert_eq!(controller.identify_namespace(1).await.expect("it is there").blocks, old);
    let feature = Command::set_feature(ASYNC_EVENTS, 0, NAMESPACE_EVENTS);
    controller.command(feature).await.expect("events are known");
    let mut queue = controller.open_queue(1, 8).await.expect("a queue");
    let beyond = queue.execute(write(old)).await.and_then(|written| written.ok());
    assert!(
        matches!(beyond, Err(Error::Status(status)) if status.code() == Status::LBA_OUT_OF_RANGE)
    );
    let event = controller.admin().submit(Command::async_event_request()).expect("a place");
    controller.admin().flush().await.expect("connected");
    let smaller = ask(rpc, IMAGE, 32);
    let why = smaller["error"]["message"].as_str().unwrap_or_default();
    assert!(why.contains("shrinking is not supported"), "{smaller}");
    assert_eq!(ask(rpc, IMAGE, 96)["result"], true);
    let told = timeout(PATIENCE, controller.admin().next_completion()).await;
    let told = told.expect("the host is told").expect("connected");
    assert_eq!((told.tag, told.result & 0xffff_ffff), (event, NAMESPACE_CHANGED));
    let list = controller.read_log_page(CHANGED_NAMESPACES, u32::MAX, 4096, 4096).await;
    assert_eq!(list.expect("the list")[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(controller.identify_namespace(1).await.expect("it is there").blocks, new);
    for lba in [old, new - 1] {
        assert!(read(&mut queue, lba).await.iter().all(|byte| *byte == 0), "block {lba}");
        queue.execute(write(lba)).await.and_then(|written| written.ok()).expect("it is inside");
    }
}

#[test]
fn a_connected_host_is_told_of_the_new_size_and_it_survives_a_kill() {
    let site = Site::new();
    let (old, new) = ((64 << 20) / u64::from(BLOCK), (96 << 20) / u64::from(BLOCK));
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = address.expect("loopback has free ports");
    let (pool, nvme, rpc) = (site.pool_text(), address.to_string(), site.path("rpc.sock"));
    let socket = rpc.display().to_string();
    let flags = ["--nvme", &nvme, "--rpc-socket", &socket];
    let gateway = site.start(&[&["new", &pool, "1", "--size", "64m"], &flags[..]].concat());
    let mut early = gateway.client();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("the system has what a runtime needs");
    let data = tools::noise(1, BLOCK as usize);
    runtime.block_on(use_growing_image(address, &rpc, old, new, &data));
    // A client that was connected goes on with the size that it was told, a later one has the new.
    early.write(0, &data, false).expect("it goes on");
    assert_eq!((early.size(), gateway.client().size()), (64 << 20, 96 << 20));
    if let Some(imgtool) = tools::ours("imgtool") {
        let resize = ["resize", &pool, IMAGE, "--size", "1g"];
        let refused = tools::run_refused(Process::new(imgtool).args(resize));
        assert!(refused.contains("in use by") && refused.contains("bdev_lsvd_resize"), "{refused}");
    }
    gateway.kill();
    let gateway = site.start(&[&["mount", &pool, IMAGE], &flags[..]].concat());
    runtime.block_on(async {
        let mut controller = connect(address).await;
        assert_eq!(controller.identify_namespace(1).await.expect("it is there").blocks, new);
        let mut queue = controller.open_queue(1, 8).await.expect("a queue");
        for lba in [old, new - 1] {
            assert!(read(&mut queue, lba).await == data, "block {lba}");
        }
        controller.disconnect().await.expect("it goes in good order");
    });
    gateway.stop();
}
