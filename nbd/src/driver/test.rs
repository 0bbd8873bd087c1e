use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::io::DuplexStream;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::*;
use crate::error::Violation;
use crate::export::{BlockSizes, ExportInfo, Extent};
use crate::limits::PAYLOAD_MAX;
use crate::socket::{Address, Listener};

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISC: u16 = 2;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const WRITE_ZEROES: u16 = 6;
const BLOCK_STATUS: u16 = 7;

/// A RAM disk; its operations are pending and wait for a permit each, if it has `permits`.
struct Ram {
    data: Mutex<Vec<u8>>,
    permits: Option<Arc<Semaphore>>,
    started: AtomicUsize,
    finished: Arc<AtomicUsize>,
}

impl Ram {
    fn new(size: usize) -> Arc<Self> {
        Self::with(size, None)
    }

    fn slow(size: usize) -> (Arc<Self>, Arc<Semaphore>) {
        let permits = Arc::new(Semaphore::new(0));
        (Self::with(size, Some(Arc::clone(&permits))), permits)
    }

    fn with(size: usize, permits: Option<Arc<Semaphore>>) -> Arc<Self> {
        let data = Mutex::new(vec![0; size]);
        Arc::new(Self { data, permits, started: Default::default(), finished: Default::default() })
    }

    fn outcome<T: Send + 'static>(&self, value: T) -> Outcome<T> {
        self.started.fetch_add(1, Ordering::SeqCst);
        let finished = Arc::clone(&self.finished);
        let Some(permits) = self.permits.clone() else {
            finished.fetch_add(1, Ordering::SeqCst);
            return Outcome::Ready(Ok(value));
        };
        Outcome::Pending(Box::pin(async move {
            permits.acquire().await.unwrap().forget();
            finished.fetch_add(1, Ordering::SeqCst);
            Ok(value)
        }))
    }

    fn range(&self, offset: u64, len: usize, apply: impl FnOnce(&mut [u8])) {
        let offset = usize::try_from(offset).unwrap();
        apply(&mut self.data.lock()[offset..offset + len]);
    }
}

impl Export for Ram {
    fn info(&self) -> ExportInfo {
        ExportInfo {
            name: "ram".into(),
            description: String::new(),
            size: self.data.lock().len() as u64,
            block_sizes: BlockSizes::new(1, 4096, PAYLOAD_MAX).unwrap(),
            read_only: false,
            rotational: false,
            fast_zero: true,
            multi_conn: true,
        }
    }

    fn read(&self, offset: u64, len: u32) -> Outcome<Bytes> {
        let mut data = Bytes::new();
        self.range(offset, len as usize, |range| data = Bytes::copy_from_slice(range));
        self.outcome(data)
    }

    fn write(&self, offset: u64, data: Bytes, _fua: bool) -> Outcome<()> {
        self.range(offset, data.len(), |range| range.copy_from_slice(&data));
        self.outcome(())
    }

    fn flush(&self) -> Outcome<()> {
        self.outcome(())
    }

    fn trim(&self, offset: u64, len: u32, _fua: bool) -> Outcome<()> {
        self.range(offset, len as usize, |range| range.fill(0));
        self.outcome(())
    }

    fn write_zeroes(&self, offset: u64, len: u32, fua: bool, _no_hole: bool) -> Outcome<()> {
        self.trim(offset, len, fua)
    }

    /// A byte is a hole if it is zero.
    fn block_status(&self, offset: u64, len: u32, _extents_max: usize) -> Outcome<Vec<Extent>> {
        let mut extents = Vec::new();
        self.range(offset, len as usize, |range| {
            extents.extend(range.iter().map(|b| Extent { len: 1, hole: *b == 0, zero: *b == 0 }));
        });
        self.outcome(extents)
    }
}

struct Only(Arc<Ram>);

impl Exports for Only {
    fn list(&self) -> Vec<String> {
        vec!["ram".into()]
    }
    fn open(&self, name: &str) -> Option<Arc<dyn Export>> {
        (name == "ram").then(|| Arc::clone(&self.0) as Arc<dyn Export>)
    }
}

/// A client with no wish but to test.
struct Client<S> {
    stream: S,
    input: BytesMut,
    cookie: u64,
    /// Length of the data of each read without a reply.
    reads: BTreeMap<u64, usize>,
}

#[derive(Debug, PartialEq)]
struct Answered {
    cookie: u64,
    error: u32,
    /// Of a read; of a block status without the context id.
    data: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    fn new(stream: S) -> Self {
        Self { stream, input: BytesMut::new(), cookie: 0, reads: BTreeMap::new() }
    }

    async fn take(&mut self, len: usize) -> BytesMut {
        while self.input.len() < len {
            let read = self.stream.read_buf(&mut self.input).await.unwrap();
            assert!(read > 0, "server hung up");
        }
        self.input.split_to(len)
    }

    async fn option(&mut self, number: u32, data: &[u8]) {
        let len = u32::try_from(data.len()).unwrap();
        let fields = [number, len].map(u32::to_be_bytes).concat();
        self.stream.write_all(&[b"IHAVEOPT", &fields[..], data].concat()).await.unwrap();
        loop {
            let mut head = self.take(20).await;
            head.advance(12);
            let (kind, len) = (head.get_u32(), head.get_u32());
            self.take(len as usize).await;
            if kind == 1 {
                return;
            }
            assert!(kind < 1 << 31, "option {number} got {kind:#x}");
        }
    }

    async fn haggle(&mut self, structured: bool) {
        assert_eq!(&self.take(18).await[..16], b"NBDMAGICIHAVEOPT");
        self.stream.write_all(&[0, 0, 0, 3]).await.unwrap();
        if structured {
            self.option(8, &[]).await;
            let query = b"\x00\x00\x00\x03ram\x00\x00\x00\x01\x00\x00\x00\x0fbase:allocation";
            self.option(10, query).await;
        }
        self.option(7, b"\x00\x00\x00\x03ram\x00\x00").await;
    }

    fn request(&mut self, kind: u16, offset: u64, len: usize) -> Vec<u8> {
        self.cookie += 1;
        if kind == READ {
            self.reads.insert(self.cookie, len);
        }
        let len = u32::try_from(len).unwrap();
        [
            &[0x25, 0x60, 0x95, 0x13, 0, 0][..],
            &kind.to_be_bytes(),
            &self.cookie.to_be_bytes(),
            &offset.to_be_bytes(),
            &len.to_be_bytes(),
        ]
        .concat()
    }

    async fn send(&mut self, kind: u16, offset: u64, len: usize) {
        let request = self.request(kind, offset, len);
        self.stream.write_all(&request).await.unwrap();
    }

    async fn write(&mut self, offset: u64, data: &[u8]) {
        self.send(WRITE, offset, data.len()).await;
        self.stream.write_all(data).await.unwrap();
    }

    async fn reply(&mut self) -> Answered {
        let magic = self.take(4).await.get_u32();
        if magic == 0x6744_6698 {
            let mut head = self.take(12).await;
            let (error, cookie) = (head.get_u32(), head.get_u64());
            let len = self.reads.remove(&cookie).filter(|_| error == 0).unwrap_or(0);
            return Answered { cookie, error, data: self.take(len).await.to_vec() };
        }
        assert_eq!(magic, 0x668e_33ef);
        let mut head = self.take(16).await;
        assert_eq!(head.get_u16(), 1, "one chunk a reply");
        let kind = head.get_u16();
        let (cookie, len) = (head.get_u64(), head.get_u32());
        let mut data = self.take(len as usize).await;
        self.reads.remove(&cookie);
        let error = if kind == 0x8001 { data.get_u32() } else { 0 };
        match kind {
            0x8001 => data.clear(),
            1 => data.advance(8),
            5 => assert_eq!(data.get_u32(), 1),
            _ => assert_eq!(kind, 0),
        }
        Answered { cookie, error, data: data.to_vec() }
    }

    async fn closes(mut self) -> bool {
        self.input.is_empty() && self.stream.read_buf(&mut self.input).await.unwrap() == 0
    }
}

type Served = JoinHandle<Result<Ended, Error>>;

/// A client in transmission phase, the server behind it, and what stops the server.
async fn connect(
    export: &Arc<Ram>,
    structured: bool,
    pipe: usize,
) -> (Client<DuplexStream>, Served, watch::Sender<bool>) {
    let (ours, theirs) = tokio::io::duplex(pipe);
    let (stop, stopped) = watch::channel(false);
    let exports = Only(Arc::clone(export));
    let served = tokio::spawn(async move {
        let negotiated = negotiate(theirs, &exports).await?.expect("the client chooses");
        assert_eq!(negotiated.export_name(), "ram");
        serve(negotiated, BufPool::default(), stopped).await
    });
    let mut client = Client::new(ours);
    client.haggle(structured).await;
    (client, served, stop)
}

/// Lets the server run until it waits.
async fn settle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

#[tokio::test]
async fn each_request_is_answered_in_both_styles() {
    for structured in [false, true] {
        let (mut client, served, _stop) = connect(&Ram::new(1 << 20), structured, 256).await;
        client.write(1000, b"hello").await;
        assert_eq!(client.reply().await, Answered { cookie: 1, error: 0, data: vec![] });
        client.send(READ, 999, 7).await;
        let expected = b"\0hello\0".to_vec();
        assert_eq!(client.reply().await, Answered { cookie: 2, error: 0, data: expected });
        client.send(FLUSH, 0, 0).await;
        assert_eq!(client.reply().await, Answered { cookie: 3, error: 0, data: vec![] });
        client.send(WRITE_ZEROES, 1000, 2).await;
        assert_eq!(client.reply().await.error, 0);
        client.send(TRIM, 1004, 1).await;
        assert_eq!(client.reply().await.error, 0);
        client.send(READ, 1000, 5).await;
        assert_eq!(client.reply().await.data, b"\0\0ll\0");
        client.send(READ, 1 << 20, 1).await;
        assert_eq!(client.reply().await, Answered { cookie: 7, error: 22, data: vec![] });
        client.send(BLOCK_STATUS, 1000, 100).await;
        let extents: &[u8] = &[0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 96];
        let expected = if structured { [extents, &[0, 0, 0, 3]].concat() } else { vec![] };
        let error = if structured { 0 } else { 22 };
        assert_eq!(client.reply().await, Answered { cookie: 8, error, data: expected });
        client.send(DISC, 0, 0).await;
        assert!(client.closes().await);
        assert_eq!(served.await.unwrap().unwrap(), Ended::Disconnected);
    }
}

#[tokio::test]
async fn payloads_of_every_size_arrive_whole() {
    let (mut client, _served, _stop) = connect(&Ram::new(8 << 20), true, 50_000).await;
    for len in [1, 4096, 65_535, 65_536, 65_537, 200_000, 4 << 20] {
        let data = pattern(len);
        client.write(5, &data).await;
        // Several in a row take the path around the receive buffer and back.
        client.write(5, &data).await;
        client.send(READ, 5, len).await;
        assert_eq!(client.reply().await.error, 0);
        assert_eq!(client.reply().await.error, 0);
        assert!(client.reply().await.data == data, "{len}");
    }
}

#[tokio::test]
async fn pending_operations_are_answered_as_they_finish() {
    let (ram, permits) = Ram::slow(4096);
    let (mut client, served, _stop) = connect(&ram, true, 4096).await;
    for offset in 0..10 {
        client.send(READ, offset, 8).await;
    }
    settle().await;
    assert_eq!(ram.started.load(Ordering::SeqCst), 10);
    permits.add_permits(3);
    let mut cookies = Vec::new();
    for _ in 0..3 {
        cookies.push(client.reply().await.cookie);
    }
    permits.add_permits(7);
    for _ in 0..7 {
        cookies.push(client.reply().await.cookie);
    }
    cookies.sort_unstable();
    assert_eq!(cookies, (1..=10).collect::<Vec<_>>());
    drop(client);
    assert_eq!(served.await.unwrap().unwrap(), Ended::HungUp);
}

#[tokio::test]
async fn disconnect_waits_for_what_is_in_flight() {
    let (ram, permits) = Ram::slow(4096);
    let (mut client, served, _stop) = connect(&ram, true, 4096).await;
    client.write(0, b"abc").await;
    client.send(DISC, 0, 0).await;
    settle().await;
    assert!(!served.is_finished());
    permits.add_permits(1);
    assert_eq!(client.reply().await, Answered { cookie: 1, error: 0, data: vec![] });
    assert!(client.closes().await);
    assert_eq!(served.await.unwrap().unwrap(), Ended::Disconnected);
}

#[tokio::test]
async fn requests_before_a_hang_up_are_answered() {
    let (mut client, served, _stop) = connect(&Ram::new(4096), true, 1 << 20).await;
    let requests: Vec<u8> = (0..300).flat_map(|i| client.request(READ, i, 100)).collect();
    client.stream.write_all(&requests).await.unwrap();
    client.stream.shutdown().await.unwrap();
    for cookie in 1..=300 {
        assert_eq!(client.reply().await.cookie, cookie);
    }
    assert!(client.closes().await);
    assert_eq!(served.await.unwrap().unwrap(), Ended::HungUp);
}

#[tokio::test]
async fn hang_up_inside_a_request_is_told_apart() {
    for cut in [1, 27, 28, 29] {
        let (mut client, served, _stop) = connect(&Ram::new(4096), true, 4096).await;
        let request = [client.request(WRITE, 0, 2), vec![1, 2]].concat();
        client.stream.write_all(&request[..cut]).await.unwrap();
        drop(client);
        assert!(matches!(served.await.unwrap(), Err(Error::Truncated)), "{cut}");
    }
}

#[tokio::test]
async fn operations_outlive_a_broken_socket() {
    let (ram, permits) = Ram::slow(4096);
    let (mut client, served, _stop) = connect(&ram, true, 4096).await;
    client.write(0, b"abc").await;
    client.send(READ, 0, 3).await;
    client.stream.write_all(&[0]).await.unwrap();
    settle().await;
    drop(client);
    settle().await;
    assert!(!served.is_finished());
    permits.add_permits(2);
    assert!(served.await.unwrap().is_err());
    assert_eq!(ram.finished.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn wrong_magic_ends_the_connection_after_what_came_before() {
    let (mut client, served, _stop) = connect(&Ram::new(4096), true, 4096).await;
    client.send(READ, 0, 3).await;
    client.stream.write_all(&[0xab; 28]).await.unwrap();
    assert_eq!(client.reply().await.cookie, 1);
    assert!(client.closes().await);
    let found = Violation::RequestMagic { found: 0xabab_abab };
    assert!(
        matches!(served.await.unwrap(), Err(Error::Violation(violation)) if violation == found)
    );
}

#[tokio::test]
async fn peer_that_does_not_read_gets_no_more_than_the_limit_of_replies() {
    let (ram, pipe) = (Ram::new(4096), 1 << 20);
    let (mut client, _served, _stop) = connect(&ram, true, pipe).await;
    let requests: Vec<u8> = (0..10_000).flat_map(|_| client.request(READ, 0, 4096)).collect();
    client.stream.write_all(&requests).await.unwrap();
    settle().await;
    // Replies that fit into the pipe are done with; the rest waits here.
    let started = ram.started.load(Ordering::SeqCst);
    assert!((pipe / 4096..=(pipe + REPLIES_GATE) / 4096 + 1).contains(&started), "{started}");
    for cookie in 1..=10_000 {
        assert_eq!(client.reply().await.cookie, cookie);
    }
    assert_eq!(ram.started.load(Ordering::SeqCst), 10_000);
}

#[tokio::test]
async fn no_more_requests_are_taken_than_the_limit() {
    let (ram, permits) = Ram::slow(4096);
    let (mut client, _served, _stop) = connect(&ram, true, 1 << 20).await;
    let requests: Vec<u8> = (0..1000).flat_map(|_| client.request(READ, 0, 16)).collect();
    client.stream.write_all(&requests).await.unwrap();
    settle().await;
    assert_eq!(ram.started.load(Ordering::SeqCst), REQUESTS_MAX);
    permits.add_permits(10);
    settle().await;
    assert_eq!(ram.started.load(Ordering::SeqCst), REQUESTS_MAX + 10);
    permits.add_permits(990);
    let mut cookies = Vec::new();
    for _ in 0..1000 {
        cookies.push(client.reply().await.cookie);
    }
    cookies.sort_unstable();
    assert_eq!(cookies, (1..=1000).collect::<Vec<_>>());
}

#[tokio::test]
async fn no_more_payload_is_taken_than_the_limit() {
    let (ram, permits) = Ram::slow(PAYLOAD_MAX as usize);
    let (mut client, _served, _stop) = connect(&ram, true, 4096).await;
    for _ in 0..5 {
        client.send(READ, 0, PAYLOAD_MAX as usize).await;
    }
    settle().await;
    assert_eq!(ram.started.load(Ordering::SeqCst), 2);
    permits.add_permits(2);
    settle().await;
    assert_eq!(ram.started.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn slow_writes_hold_no_more_than_the_limit_of_payload() {
    let (ram, permits) = Ram::slow(PAYLOAD_MAX as usize);
    let (mut client, _served, _stop) = connect(&ram, true, 1 << 20).await;
    let data = vec![1; 1 << 20];
    let writer = async {
        for _ in 0..100 {
            client.write(0, &data).await;
        }
    };
    // The server stops reading, so that the client cannot go on; nothing moves but the clock.
    assert!(timeout(DRAIN_MAX, writer).await.is_err());
    let started = ram.started.load(Ordering::SeqCst) as u64;
    assert_eq!(started, PAYLOAD_GATE / (1 << 20) + 1);
    permits.add_permits(1);
    settle().await;
    assert!(ram.started.load(Ordering::SeqCst) as u64 <= started + 1);
}

#[tokio::test]
async fn stop_finishes_what_is_in_flight_and_takes_nothing_new() {
    let (ram, permits) = Ram::slow(4096);
    let (mut client, served, stop) = connect(&ram, true, 4096).await;
    client.send(READ, 0, 3).await;
    client.send(READ, 0, 4).await;
    settle().await;
    stop.send(true).unwrap();
    settle().await;
    client.send(READ, 0, 5).await;
    settle().await;
    assert_eq!(ram.started.load(Ordering::SeqCst), 2);
    permits.add_permits(2);
    assert_eq!(client.reply().await.data.len(), 3);
    assert_eq!(client.reply().await.data.len(), 4);
    assert!(client.closes().await);
    assert_eq!(served.await.unwrap().unwrap(), Ended::Stopped);
}

#[tokio::test]
async fn losing_the_stop_handle_stops() {
    let (client, served, stop) = connect(&Ram::new(4096), true, 4096).await;
    drop(stop);
    assert!(client.closes().await);
    assert_eq!(served.await.unwrap().unwrap(), Ended::Stopped);
}

#[tokio::test(start_paused = true)]
async fn stop_does_not_wait_for_ever_for_a_peer_that_does_not_read() {
    let (mut client, served, stop) = connect(&Ram::new(4096), true, 64).await;
    client.send(READ, 0, 4096).await;
    settle().await;
    stop.send(true).unwrap();
    assert!(matches!(served.await.unwrap(), Err(Error::Stalled)));
}

#[tokio::test(start_paused = true)]
async fn slow_operations_are_not_blamed_on_the_peer() {
    let (ram, permits) = Ram::slow(4096);
    let (mut client, served, stop) = connect(&ram, true, 4096).await;
    client.send(READ, 0, 3).await;
    settle().await;
    stop.send(true).unwrap();
    tokio::time::sleep(DRAIN_MAX * 10).await;
    permits.add_permits(1);
    assert_eq!(client.reply().await.data.len(), 3);
    assert_eq!(served.await.unwrap().unwrap(), Ended::Stopped);
}

#[tokio::test(start_paused = true)]
async fn idle_connection_stays_and_a_slow_handshake_does_not() {
    let (mut client, served, _stop) = connect(&Ram::new(4096), true, 4096).await;
    tokio::time::sleep(HANDSHAKE_MAX * 1000).await;
    client.send(READ, 0, 3).await;
    assert_eq!(client.reply().await.data.len(), 3);
    assert!(!served.is_finished());

    let (_ours, theirs) = tokio::io::duplex(64);
    let result = negotiate(theirs, &Only(Ram::new(1))).await;
    assert!(matches!(result, Err(Error::HandshakeTimeout)));
}

#[tokio::test]
async fn peer_that_leaves_while_haggling_is_no_error() {
    for bytes in [&[][..], &[0, 0, 0, 3], b"\0\0\0\x03IHAVEOPT\0\0\0\x02\0\0\0\0"] {
        let (mut ours, theirs) = tokio::io::duplex(4096);
        ours.write_all(bytes).await.unwrap();
        ours.shutdown().await.unwrap();
        assert!(negotiate(theirs, &Only(Ram::new(1))).await.unwrap().is_none());
    }
    let (mut ours, theirs) = tokio::io::duplex(4096);
    ours.write_all(&[0, 0]).await.unwrap();
    ours.shutdown().await.unwrap();
    assert!(matches!(negotiate(theirs, &Only(Ram::new(1))).await, Err(Error::Truncated)));
}

#[tokio::test]
async fn requests_right_behind_the_handshake_are_served() {
    let (ours, theirs) = tokio::io::duplex(4096);
    let (_stop, stopped) = watch::channel(false);
    let mut client = Client::new(ours);
    // NBD_OPT_EXPORT_NAME has a reply of known length, so a client may run ahead.
    let request = client.request(READ, 0, 3);
    let ahead = [b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\x03ram", &request[..]].concat();
    client.stream.write_all(&ahead).await.unwrap();
    let served = tokio::spawn(async move {
        let negotiated = negotiate(theirs, &Only(Ram::new(4096))).await?.unwrap();
        serve(negotiated, BufPool::default(), stopped).await
    });
    client.take(18 + 10).await;
    assert_eq!(client.reply().await.data, [0, 0, 0]);
    drop(client);
    assert_eq!(served.await.unwrap().unwrap(), Ended::HungUp);
}

#[tokio::test]
async fn negotiated_connection_moves_to_another_runtime() {
    let address = Address::Tcp("127.0.0.1:0".parse().unwrap());
    let listener = Listener::bind(&address).await.unwrap();
    let Address::Tcp(address) = listener.address().unwrap() else { panic!("TCP") };
    let client = tokio::spawn(async move {
        let mut client = Client::new(TcpStream::connect(address).await.unwrap());
        client.haggle(true).await;
        client.write(7, b"moved").await;
        client.send(READ, 7, 5).await;
        client.reply().await;
        let data = client.reply().await.data;
        client.send(DISC, 0, 0).await;
        data
    });
    let exports = Only(Ram::new(4096));
    let socket = listener.accept().await.unwrap();
    let negotiated = negotiate(socket, &exports).await.unwrap().unwrap().detach().unwrap();
    let (_stop, stopped) = watch::channel(false);
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            serve(negotiated.attach().unwrap(), BufPool::default(), stopped).await
        })
    });
    assert_eq!(client.await.unwrap(), b"moved");
    assert_eq!(server.join().unwrap().unwrap(), Ended::Disconnected);
}

#[test]
fn futures_can_move_between_threads() {
    fn is_send<T: Send>(_: &T) {}
    let (_, stopped) = watch::channel(false);
    let (stream, _other) = tokio::io::duplex(1);
    let exports = Only(Ram::new(1));
    let task = async {
        let negotiated = negotiate(stream, &exports).await.unwrap().unwrap();
        serve(negotiated, BufPool::default(), stopped).await
    };
    is_send(&task);
}

#[derive(Debug, Clone)]
enum Action {
    Write(u64, Vec<u8>),
    Read(u64, usize),
    Zero(u64, usize),
}

fn any_action() -> impl Strategy<Value = Action> {
    let range = (0u64..3000, 1usize..1000);
    prop_oneof![
        (0u64..3000, prop::collection::vec(any::<u8>(), 1..1000))
            .prop_map(|(offset, data)| Action::Write(offset, data)),
        range.clone().prop_map(|(offset, len)| Action::Read(offset, len)),
        range.prop_map(|(offset, len)| Action::Zero(offset, len)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// All requests go out without waiting; a RAM disk answers in order, so the twin is a vector.
    #[test]
    fn pipelined_requests_agree_with_a_vector(
        actions in prop::collection::vec(any_action(), 1..60),
        pipe in 1usize..5000,
        structured in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut client, _served, _stop) = connect(&Ram::new(4096), structured, pipe).await;
            let (mut bytes, mut twin, mut expected) = (Vec::new(), vec![0; 4096], Vec::new());
            for action in actions {
                match action {
                    Action::Write(offset, data) => {
                        bytes.extend(client.request(WRITE, offset, data.len()));
                        twin.splice(offset as usize..offset as usize + data.len(), data.clone());
                        bytes.extend(data);
                        expected.push(Vec::new());
                    }
                    Action::Read(offset, len) => {
                        bytes.extend(client.request(READ, offset, len));
                        expected.push(twin[offset as usize..offset as usize + len].to_vec());
                    }
                    Action::Zero(offset, len) => {
                        bytes.extend(client.request(WRITE_ZEROES, offset, len));
                        twin[offset as usize..offset as usize + len].fill(0);
                        expected.push(Vec::new());
                    }
                }
            }
            let (mut from_server, mut to_server) = tokio::io::split(client.stream);
            let sender = async move { to_server.write_all(&bytes).await.unwrap() };
            let stream = tokio::io::join(&mut from_server, tokio::io::sink());
            let mut client = Client { stream, input: client.input, cookie: 0, reads: client.reads };
            let receiver = async {
                for (index, data) in expected.into_iter().enumerate() {
                    let cookie = index as u64 + 1;
                    assert_eq!(client.reply().await, Answered { cookie, error: 0, data });
                }
            };
            tokio::join!(sender, receiver);
        });
    }

    #[test]
    fn arbitrary_requests_never_panic_and_always_end(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        kind in 0u8..10,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut client, served, _stop) = connect(&Ram::new(4096), true, 4096).await;
            let mut head = client.request(u16::from(kind), 0, 16);
            head[7] = kind;
            client.stream.write_all(&[&head[..], &bytes].concat()).await.unwrap();
            client.stream.shutdown().await.unwrap();
            let mut rest = Vec::new();
            client.stream.read_to_end(&mut rest).await.unwrap();
            let _ = served.await.unwrap();
        });
    }
}
