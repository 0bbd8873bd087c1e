use std::sync::Arc;

use tokio::io::DuplexStream;

use super::*;
use crate::namespace::{ByteRange, Failure, Namespace, NamespaceInfo, Outcome};
use crate::testing::{NQN, Reply, Script, origin, replies, target};
use crate::wire::command::{Blocks, IoOperation, SetFeatures};
use crate::wire::features::Feature;
use crate::wire::{AdminCommand, Digests, Status};
use crate::{NamespaceOptions, RamNamespace};

const PLAIN: Digests = Digests { header: false, data: false };

struct Peer {
    stream: DuplexStream,
    stop: watch::Sender<bool>,
    served: tokio::task::JoinHandle<Result<Option<Ended>, Error>>,
    connected: bool,
}

impl Peer {
    fn new(target: &Arc<Target>) -> Self {
        let (stream, theirs) = tokio::io::duplex(8 << 10);
        let (stop, stopped) = watch::channel(false);
        let target = Arc::clone(target);
        let served = tokio::spawn(async move {
            match accept(theirs, origin(), target, BufPool::new(0)).await? {
                Some(accepted) => serve(accepted, stopped).await.map(Some),
                None => Ok(None),
            }
        });
        Self { stream, stop, served, connected: false }
    }

    async fn send(&mut self, script: &mut Script) {
        self.stream.write_all(&script.take()).await.unwrap();
    }

    async fn receive(&mut self, bytes: usize) -> Vec<Reply> {
        let mut received = vec![0; bytes];
        self.stream.read_exact(&mut received).await.unwrap();
        let replies = replies(&received, PLAIN, self.connected);
        self.connected |= replies.contains(&Reply::IcResp);
        replies
    }

    /// An enabled controller.
    async fn connect(&mut self, script: &mut Script) {
        self.send(script.connect(0, 31, 0xffff).enable()).await;
        assert_eq!(self.receive(128 + 24 + 24).await[2].status(), Status::SUCCESS);
    }

    async fn ended(self) -> Result<Option<Ended>, Error> {
        drop(self.stream);
        self.served.await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn peer_that_leaves_between_pdus_ends_in_good_order() {
    let (target, _) = target();
    let mut peer = Peer::new(&target);
    peer.connect(&mut Script::new(PLAIN)).await;
    assert_eq!(target.controllers(NQN).unwrap().len(), 1);
    assert!(matches!(peer.ended().await, Ok(Some(Ended::HungUp))));
    assert_eq!(target.controllers(NQN).unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn peer_that_never_connects_a_queue_is_given_up() {
    let (target, _) = target();
    let mut peer = Peer::new(&target);
    peer.send(&mut Script::new(PLAIN)).await;
    peer.receive(128).await;
    peer.stream.write_all(&[4, 0, 72]).await.unwrap();
    let Peer { served, stream, .. } = peer;
    assert!(matches!(served.await.unwrap(), Err(Error::HandshakeTimeout)));
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn peer_that_leaves_within_a_pdu_is_noticed() {
    let (target, _) = target();
    let mut peer = Peer::new(&target);
    peer.connect(&mut Script::new(PLAIN)).await;
    peer.stream.write_all(&[4, 0, 72]).await.unwrap();
    assert!(matches!(peer.ended().await, Err(Error::Truncated)));
}

#[tokio::test(start_paused = true)]
async fn silent_host_loses_its_association_and_a_talking_one_keeps_it() {
    let (target, _) = target();
    let mut peer = Peer::new(&target);
    let mut script = Script::new(PLAIN);
    peer.connect(&mut script).await;
    let set = SetFeatures { feature: Feature::KeepAliveTimer { ms: 2000 }, save: false, nsid: 0 };
    peer.send(script.admin(3, AdminCommand::SetFeatures(set), 0)).await;
    peer.receive(24).await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(1900)).await;
        peer.send(script.admin(4, AdminCommand::KeepAlive, 0)).await;
        assert_eq!(peer.receive(24).await[0].status(), Status::SUCCESS);
    }
    let Peer { served, stream, .. } = peer;
    let result = served.await.unwrap();
    assert!(matches!(result, Err(Error::KeepAlive { timeout_ms: 2000 })), "{result:?}");
    assert_eq!(target.controllers(NQN).unwrap(), []);
    assert_eq!(target.stats().keep_alive_timeouts, 1);
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn broken_protocol_is_told_before_the_connection_closes() {
    let (target, _) = target();
    let mut peer = Peer::new(&target);
    peer.connect(&mut Script::new(PLAIN)).await;
    peer.stream.write_all(&[0x42; 4000]).await.unwrap();
    let replies = peer.receive(24 + 0x42).await;
    assert!(matches!(replies[..], [Reply::Term(term)] if term.fes == 1));
    assert!(matches!(peer.ended().await, Err(Error::Violation(_))));
}

/// A namespace whose operations take their time.
struct Slow(RamNamespace);

async fn later<T>(outcome: Outcome<T>) -> Result<T, Failure> {
    tokio::time::sleep(Duration::from_millis(100)).await;
    match outcome {
        Outcome::Ready(result) => result,
        Outcome::Pending(future) => future.await,
    }
}

fn slow<T: Send + 'static>(outcome: Outcome<T>) -> Outcome<T> {
    Outcome::Pending(Box::pin(later(outcome)))
}

impl Namespace for Slow {
    fn info(&self) -> NamespaceInfo {
        self.0.info()
    }

    fn read(&self, offset: u64, len: u32) -> Outcome<bytes::Bytes> {
        slow(self.0.read(offset, len))
    }

    fn write(&self, offset: u64, data: bytes::Bytes, fua: bool) -> Outcome<()> {
        slow(self.0.write(offset, data, fua))
    }

    fn flush(&self) -> Outcome<()> {
        slow(self.0.flush())
    }

    fn write_zeroes(&self, range: ByteRange, deallocate: bool, fua: bool) -> Outcome<()> {
        slow(self.0.write_zeroes(range, deallocate, fua))
    }

    fn deallocate(&self, ranges: Vec<ByteRange>) -> Outcome<()> {
        slow(self.0.deallocate(ranges))
    }
}

#[tokio::test(start_paused = true)]
async fn stop_finishes_what_is_in_flight() {
    let (target, _) = target();
    target.remove_namespace(NQN, 1).unwrap();
    let ram = RamNamespace::new(uuid::Uuid::from_u128(5), crate::LbaSize::B512, 64);
    target.add_namespace(NQN, Arc::new(Slow(ram)), NamespaceOptions::default()).unwrap();
    let mut admin = Peer::new(&target);
    admin.connect(&mut Script::new(PLAIN)).await;
    let cntlid = target.controllers(NQN).unwrap()[0].cntlid;
    let mut io = Peer::new(&target);
    let mut script = Script::new(PLAIN);
    io.send(script.connect(1, 127, cntlid)).await;
    io.receive(128 + 24).await;
    let blocks = Blocks { start: 3, count: 1 };
    let write = IoOperation::Write { blocks, fua: true };
    io.send(script.io_with(1, write, &[7; 512])).await;
    assert_eq!(io.receive(24).await[0].status(), Status::SUCCESS);
    io.send(script.io(2, IoOperation::Read { blocks, fua: false }, 512)).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    io.stop.send(true).unwrap();
    let sent = io.receive(24 + 512 + 24).await;
    assert!(matches!(&sent[0], Reply::Data(_, data) if data[..] == [7; 512]));
    assert!(matches!(io.ended().await, Ok(Some(Ended::Stopped))));
}

#[tokio::test(start_paused = true)]
async fn host_that_never_reads_is_held_back_and_then_given_up() {
    let (target, _) = target();
    let mut admin = Peer::new(&target);
    admin.connect(&mut Script::new(PLAIN)).await;
    let cntlid = target.controllers(NQN).unwrap()[0].cntlid;
    let mut io = Peer::new(&target);
    let mut script = Script::new(PLAIN);
    io.send(script.connect(1, 127, cntlid)).await;
    io.receive(128 + 24).await;
    let blocks = Blocks { start: 0, count: 2048 };
    let read = IoOperation::Read { blocks, fua: false };
    for cid in 0..100 {
        script.io(cid, read, 1 << 20);
    }
    // The replies are a hundred times what the pipe takes.
    let bytes = script.take();
    assert!(tokio::time::timeout(DRAIN_MAX, io.stream.write_all(&bytes)).await.is_ok());
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(target.subsystems()[1].namespaces[0].counters.reads, 1, "the gate is closed");
    io.stop.send(true).unwrap();
    let Peer { served, stream, .. } = io;
    let result = served.await.unwrap();
    assert!(matches!(result, Err(Error::Stalled)), "{result:?}");
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_peers_that_stop_midway_disturb_no_one_and_are_given_up() {
    let (target, _) = target();
    let mut idle = Vec::new();
    for at in 0..1000 {
        let mut peer = Peer::new(&target);
        let mut bytes = Script::new(PLAIN).connect(0, 31, 0xffff).take();
        // Each stops at another byte of ICReq and Connect.
        bytes.truncate(at);
        peer.stream.write_all(&bytes).await.unwrap();
        idle.push(peer);
    }
    let mut host = Peer::new(&target);
    host.connect(&mut Script::new(PLAIN)).await;
    assert_eq!(target.controllers(NQN).unwrap().len(), 1);
    for peer in idle {
        let Peer { served, stream, .. } = peer;
        assert!(matches!(served.await.unwrap(), Err(Error::HandshakeTimeout)));
        drop(stream);
    }
    assert_eq!(target.controllers(NQN).unwrap().len(), 1);
}
