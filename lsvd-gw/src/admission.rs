//! Places for NVMe/TCP connections: how many there may be, and who is turned away.
//!
//! Does not: know what a connection does with its place, or how long it may take.
//! Invariants: 1. No more connections are open than there are places. 2. No more connections are
//! without a queue than `CONNECTING_MAX`: the one that has been so for longest makes room for the
//! next. So peers that connect and say nothing cannot keep a host out, which is connected within
//! milliseconds.
//! Concurrency: any task; places and handshakes are given back when they are dropped.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Connections of all hosts together: 64 hosts with 63 I/O queues each. An idle one costs a receive
/// buffer of 128 KiB at most, so all of them half a GiB.
pub(crate) const CONNECTIONS_MAX: usize = 4096;

/// Connections that have not connected a queue yet. Each costs a few KiB; a host with 64 queues
/// opens all of them at once, and four such hosts may come together.
pub(crate) const CONNECTING_MAX: usize = 256;

/// See the module.
pub(crate) struct Admission {
    places: Arc<Semaphore>,
    connecting_max: usize,
    connecting: Mutex<Connecting>,
    /// The last connection was turned away; what is logged is when that begins.
    is_full: AtomicBool,
}

/// Handshakes under way by their number, which grows. Dropping the sender ends one.
#[derive(Default)]
struct Connecting {
    next: u64,
    under_way: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Admission {
    /// As many places as the limits allow, and half of the files that the process may open: the
    /// store, the logs and the other front end need theirs, whatever comes over the network.
    pub(crate) fn new() -> Arc<Self> {
        let files = usize::try_from(files_max()).unwrap_or(usize::MAX);
        Self::with(CONNECTIONS_MAX.min(files / 2), CONNECTING_MAX)
    }

    fn with(places: usize, connecting_max: usize) -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(places)),
            connecting_max,
            connecting: Mutex::default(),
            is_full: AtomicBool::new(false),
        })
    }

    /// A place for a connection; none if it is one too many, which is to be closed at once: its
    /// host tries again, and hears at once that it has to.
    pub(crate) fn admit(&self, peer: SocketAddr) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        let was_full = self.is_full.swap(place.is_none(), Ordering::Relaxed);
        if place.is_none() && !was_full {
            tracing::warn!(%peer, "no place for another NVMe/TCP connection; it is closed");
        }
        place
    }

    /// Begins a handshake. If there are too many, the oldest ends.
    pub(crate) fn begin(self: &Arc<Self>) -> Handshake {
        let (sender, superseded) = oneshot::channel();
        let mut connecting = self.connecting.lock();
        let number = connecting.next;
        connecting.next += 1;
        connecting.under_way.insert(number, sender);
        if connecting.under_way.len() > self.connecting_max {
            connecting.under_way.pop_first();
        }
        Handshake { number, superseded, admission: Arc::clone(self) }
    }
}

/// A connection without a queue.
pub(crate) struct Handshake {
    number: u64,
    superseded: oneshot::Receiver<()>,
    admission: Arc<Admission>,
}

impl Handshake {
    /// Returns when the connection has to make room.
    pub(crate) async fn superseded(&mut self) {
        // Nothing is ever sent: the end of the channel is the message.
        let _closed = (&mut self.superseded).await;
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.admission.connecting.lock().under_way.remove(&self.number);
    }
}

/// Files that the process may open. Many systems start programs with room for 1,024, which are
/// theirs to raise.
fn files_max() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current.unwrap_or(u64::MAX);
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum.unwrap_or(u64::MAX),
        Err(error) => {
            tracing::info!(%error, "the limit of open files stays");
            current.unwrap_or(u64::MAX)
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    const PEER: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

    #[test]
    fn a_connection_beyond_the_last_place_is_turned_away_until_one_is_free() {
        let admission = Admission::with(2, 1);
        let (first, second) = (admission.admit(PEER), admission.admit(PEER));
        assert!(first.is_some() && second.is_some());
        assert!(admission.admit(PEER).is_none());
        drop(first);
        assert!(admission.admit(PEER).is_some());
    }

    #[test]
    fn the_oldest_handshake_makes_room_and_one_that_is_over_does_not() {
        let admission = Admission::with(9, 2);
        let (mut first, second, mut third) =
            (admission.begin(), admission.begin(), admission.begin());
        let is_superseded = |handshake: &mut Handshake| {
            handshake.superseded.try_recv() == Err(oneshot::error::TryRecvError::Closed)
        };
        assert!(is_superseded(&mut first) && !is_superseded(&mut third));
        drop(second);
        let mut fourth = admission.begin();
        assert!(!is_superseded(&mut third) && !is_superseded(&mut fourth));
    }
}
