//! Peers that lie, flood, fall silent or come in crowds: each costs a bounded amount of memory, and
//! a host beside them goes on reading what it wrote.

#![expect(clippy::unwrap_used, reason = "an error here is a failed test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use lsvd_initiator::pdu::{self, Shape, kind};
use lsvd_initiator::{Command, Controller, Ended, Error, Options, Queue, RawPeer};
use lsvd_nvmet::limits::{PAYLOAD_IN_FLIGHT_MAX, RECEIVE_BYTES};
use lsvd_nvmet::wire::Sqe;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use zerocopy::IntoBytes as _;

use crate::gateway::{Gateway, Site};
use crate::tools;

/// As in the configuration of the gateway.
const NQN: &str = "nqn.2019-05.io.lsvd:cnode1";
const PAGE: u32 = 4096;

/// Rounds of the honest host that an attack must last for.
const ROUNDS: u64 = 40;

/// Queues that attack at a time.
const ATTACKERS: u16 = 8;

/// What one attacking queue may cost: the payload that its commands may have in flight, in buffers
/// that are up to a quarter larger than what they hold; its receive buffer, and another that a
/// command with data in its capsule still refers to.
const QUEUE_COST: u64 = (PAYLOAD_IN_FLIGHT_MAX / 4 * 5 + 2 * RECEIVE_BYTES) as u64;

/// What the gateway may take besides, whoever attacks: the read cache's RAM, of which recent writes
/// are a part (`Site`: 32 MiB), its log buffers, and what the allocator keeps.
const OWN_COST: u64 = 96 << 20;

/// Connections of a crowd, and what all of them may cost: the 256 that are kept have 4 KiB of
/// receive buffer and a task each, measured as 40 KiB together; the others leave nothing behind but
/// what the allocator keeps.
const CROWD: usize = 1000;
const CROWD_COST: u64 = 24 << 20;

fn start(site: &Site) -> (Gateway, SocketAddr) {
    let address = tools::free_address();
    let words = ["new", &site.pool_text(), "1", "--size", "256m", "--nvme", &address.to_string()];
    let mut gateway = site.start(&words);
    // How a connection of an attacker ends; the honest host's is looked at below.
    for trouble in ["an NVMe/TCP connection failed", "an NVMe queue ended"] {
        gateway.expect_trouble(trouble);
    }
    (gateway, address)
}

/// A host that writes, reads back and compares until it is stopped.
struct Honest {
    rounds: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Honest {
    async fn start(address: SocketAddr) -> Self {
        let rounds = Arc::new(AtomicU64::new(0));
        let mut controller = Controller::connect(address, Options::new(NQN)).await.unwrap();
        assert!(controller.set_queues(1).await.unwrap() >= 1);
        let queue = controller.open_queue(1, 32).await.unwrap();
        let task = tokio::spawn(Self::work(controller, queue, Arc::clone(&rounds)));
        Self { rounds, task }
    }

    async fn work(_controller: Controller, mut queue: Queue, rounds: Arc<AtomicU64>) {
        for round in 0.. {
            // A page in the capsule, and half a MiB that the target asks for.
            for (lba, len) in [(round % 1000, 4096), (2048 + round % 100 * 128, 512 << 10)] {
                let data = Bytes::from(tools::noise(round * 2 + u64::from(len > 4096), len));
                let blocks = u32::try_from(len).expect("short") / PAGE;
                let write = Command::write(1, lba, PAGE, data.clone());
                queue.execute(write).await.unwrap().ok().unwrap();
                let read = Command::read(1, lba, blocks, PAGE);
                let found = queue.execute(read).await.unwrap().ok().unwrap().data;
                assert!(found == data, "round {round}: {len} bytes at {lba}");
            }
            rounds.store(round + 1, Ordering::Relaxed);
        }
    }

    /// Waits for some more rounds.
    async fn goes_on(&self) {
        let wanted = self.rounds.load(Ordering::Relaxed) + ROUNDS;
        while self.rounds.load(Ordering::Relaxed) < wanted {
            assert!(!self.task.is_finished(), "the honest host gave up");
            tokio::task::yield_now().await;
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    async fn stop(self) {
        self.goes_on().await;
        self.task.abort();
        let ended = self.task.await;
        assert!(ended.is_err_and(|error| error.is_cancelled()));
    }
}

fn assert_within(gateway: &Gateway, bound: u64, who: &str) {
    let resident = gateway.resident_bytes();
    eprintln!("{who}: {} of {} MiB resident", resident >> 20, bound >> 20);
    assert!(resident < bound, "{who}: {} MiB, more than {}", resident >> 20, bound >> 20);
}

/// The first eight bytes of a PDU, made up.
fn head(kind: u8, flags: u8, header: u8, offset: u8, all: u32) -> Vec<u8> {
    let mut bytes = vec![kind, flags, header, offset];
    bytes.extend_from_slice(&all.to_le_bytes());
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lie_about_a_length_ends_the_connection_that_tells_it() {
    let site = Site::new();
    let (gateway, address) = start(&site);
    let honest = Honest::start(address).await;
    let lies = [
        ("shorter than its header", head(kind::COMMAND, 0, 72, 0, 71)),
        ("as long as a length can be", head(kind::COMMAND, 0, 72, 72, u32::MAX)),
        ("more data than a capsule may have", head(kind::COMMAND, 0, 72, 72, 72 + (1 << 20))),
        ("a header of another length", head(kind::COMMAND, 0, 73, 0, 73)),
        ("no header", head(kind::COMMAND, 0, 0, 0, 72)),
        ("data inside the header", head(kind::COMMAND, 0, 72, 8, 72 + 512)),
        ("data behind the end", head(kind::COMMAND, 0, 72, 255, 80)),
        ("data for nobody", head(kind::H2C_DATA, 4, 24, 24, 24 + 512)),
        ("more data than was agreed on", head(kind::H2C_DATA, 4, 24, 24, u32::MAX)),
        ("a digest that was not agreed on", head(kind::COMMAND, 3, 72, 76, 76 + 512)),
        ("a PDU of the other side", head(kind::C2H_DATA, 4, 24, 24, 24 + 512)),
        ("a second beginning", head(kind::ICREQ, 0, 128, 0, 128)),
    ];
    for (what, mut lie) in lies {
        let mut peer = RawPeer::connect(address).await.unwrap();
        assert_eq!(peer.initialize().await.unwrap().kind, kind::ICRESP);
        lie.resize(256, 0);
        peer.send(&lie).await.unwrap();
        let ended = peer.ended(Shape::default()).await.unwrap();
        assert!(matches!(ended, Ended::Terminated { .. }), "{what}: {ended:?}");
    }
    honest.stop().await;
    assert_within(&gateway, OWN_COST, "liars");
    gateway.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_descriptor_that_does_not_fit_its_command_is_refused_and_the_queue_lives() {
    let site = Site::new();
    let (gateway, address) = start(&site);
    let controller = Controller::connect(address, Options::new(NQN)).await.unwrap();
    let mut queue = controller.open_queue(1, 32).await.unwrap();
    let data = |pages: usize| Bytes::from(vec![7; pages * PAGE as usize]);
    // Eight pages by their number, and one, nine or two hundred and fifty six by their bytes.
    let write = |pages| Command::new(0x01, 1).dword(12, 7).writing(data(pages));
    let read = |bytes| Command::new(0x02, 1).dword(12, 7).reading(bytes);
    let lies = [write(1), write(9), write(256), read(PAGE), read(9 * PAGE), read(u32::MAX)];
    for lie in lies {
        let name = format!("{lie:?}");
        let completion = queue.execute(lie).await.unwrap();
        assert!(matches!(completion.ok(), Err(Error::Status(_))), "{name}");
    }
    let honest = Command::write(1, 0, PAGE, data(8));
    queue.execute(honest).await.unwrap().ok().unwrap();
    let found = queue.execute(Command::read(1, 0, 8, PAGE)).await.unwrap().ok().unwrap().data;
    assert_eq!(found, data(8));
    drop(queue);
    controller.disconnect().await.unwrap();
    gateway.stop();
}

/// First of the pages with data that attackers read: what was never written costs nothing to read.
const FILLED: u64 = 32_768;

async fn fill(address: SocketAddr) {
    let controller = Controller::connect(address, Options::new(NQN)).await.unwrap();
    let mut queue = controller.open_queue(1, 32).await.unwrap();
    for at in 0..8 {
        let data = Bytes::from(tools::noise(at, 1 << 20));
        let write = Command::write(1, FILLED + at * 256, PAGE, data);
        queue.execute(write).await.unwrap().ok().unwrap();
    }
    controller.disconnect().await.unwrap();
}

/// Queues of one host, each with as many commands as it holds, and nobody who looks at answers.
async fn flood(address: SocketAddr, command: impl Fn(u64) -> Command) -> (Controller, Vec<Queue>) {
    let mut controller = Controller::connect(address, Options::new(NQN)).await.unwrap();
    controller.set_queues(ATTACKERS).await.unwrap();
    let entries = controller.entries_max();
    let mut queues = Vec::new();
    for number in 1..=ATTACKERS {
        let mut queue = controller.open_queue(number, entries).await.unwrap();
        for at in 0..u64::from(entries) - 1 {
            queue.submit(command(at)).unwrap();
        }
        queue.flush().await.unwrap();
        queues.push(queue);
    }
    (controller, queues)
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_whose_data_never_comes_hold_a_bounded_amount_of_memory() {
    let site = Site::new();
    let (gateway, address) = start(&site);
    let honest = Honest::start(address).await;
    // Below the size from which a buffer is a mapping that costs nothing until it is filled.
    let data = Bytes::from(vec![1; 200 << 10]);
    let command = |at| Command::write(1, 32_768 + at * 64, PAGE, data.clone());
    let attackers = flood(address, command).await;
    honest.goes_on().await;
    assert_within(&gateway, OWN_COST + u64::from(ATTACKERS) * QUEUE_COST, "no data");
    drop(attackers);
    honest.stop().await;
    gateway.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_hold_a_bounded_amount_of_memory() {
    let site = Site::new();
    let (gateway, address) = start(&site);
    let honest = Honest::start(address).await;
    fill(address).await;
    let command = |at| Command::read(1, FILLED + at % 8 * 256, 256, PAGE);
    let attackers = flood(address, command).await;
    honest.goes_on().await;
    assert_within(&gateway, OWN_COST + u64::from(ATTACKERS) * QUEUE_COST, "no reader");
    drop(attackers);
    honest.stop().await;
    gateway.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_before_connect_are_refused_however_many_there_are() {
    let site = Site::new();
    let (gateway, address) = start(&site);
    let honest = Honest::start(address).await;
    let mut out = BytesMut::new();
    for cid in 0..10_000 {
        let command = Sqe::new(0x7f, cid, 0x04);
        pdu::put(&mut out, Shape::default(), kind::COMMAND, 0, command.as_bytes(), &[]);
    }
    let mut peers = Vec::new();
    for _ in 0..ATTACKERS {
        let mut peer = RawPeer::connect(address).await.unwrap();
        peer.initialize().await.unwrap();
        peer.send(&out).await.unwrap();
        peers.push(peer);
    }
    let answer = peers[0].receive(Shape::default()).await.unwrap();
    assert_eq!(answer.kind, kind::RESPONSE);
    honest.goes_on().await;
    assert_within(&gateway, OWN_COST, "commands before Connect");
    drop(peers);
    honest.stop().await;
    gateway.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_stop_in_the_middle_of_a_pdu_keep_nobody_waiting() {
    let site = Site::new();
    let (gateway, address) = start(&site);
    let honest = Honest::start(address).await;
    let mut peers = Vec::new();
    let mut begin = BytesMut::new();
    pdu::put_initialize(&mut begin, Shape::default(), 1);
    for cut in [0, 1, 7, 8, 64, 127] {
        let mut peer = RawPeer::connect(address).await.unwrap();
        peer.send(&begin[..cut]).await.unwrap();
        peers.push(peer);
    }
    // A Connect command with 1,024 bytes of data, of which some never come.
    let mut command = head(kind::COMMAND, 0, 72, 72, 72 + 1024);
    command.extend_from_slice(Sqe::new(0x7f, 1, 0x01).as_bytes());
    command.resize(72 + 1024, 0);
    for cut in [1, 8, 71, 72, 73, 1095] {
        let mut peer = RawPeer::connect(address).await.unwrap();
        peer.initialize().await.unwrap();
        peer.send(&command[..cut]).await.unwrap();
        peers.push(peer);
    }
    honest.goes_on().await;
    // Another host is not kept out, either.
    Honest::start(address).await.stop().await;
    assert_within(&gateway, OWN_COST, "stopped in a PDU");
    drop(peers);
    honest.stop().await;
    gateway.stop();
}

/// Room for the sockets of a crowd in this process.
fn allow_files(count: u64) -> bool {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= count) {
        return true;
    }
    let wanted = Rlimit { current: Some(count), maximum };
    let is_allowed = setrlimit(Resource::Nofile, wanted).is_ok();
    if !is_allowed {
        tools::skip(format!("a process may not open {count} files"));
    }
    is_allowed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_connects_and_says_nothing_does_not_keep_a_host_out() {
    if !allow_files(CROWD as u64 + 200) {
        return;
    }
    let site = Site::new();
    let (gateway, address) = start(&site);
    let honest = Honest::start(address).await;
    honest.goes_on().await;
    let before = gateway.resident_bytes();
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(TcpStream::connect(address).await.unwrap());
    }
    // The oldest had to make room: it sees a clean end.
    let mut byte = [0];
    assert_eq!(crowd[0].read(&mut byte).await.unwrap(), 0);
    assert_within(&gateway, before + CROWD_COST, "a crowd");
    Honest::start(address).await.stop().await;
    honest.goes_on().await;
    drop(crowd);
    honest.stop().await;
    gateway.stop();
}
