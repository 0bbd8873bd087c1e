//! Counts what passes through: operations, errors by kind, bytes, time.
//!
//! Does not: export anything. A snapshot is plain numbers; the gateway names and publishes them.
//! Concurrency: plain relaxed atomics. A snapshot taken during an operation may show its count and
//! not yet its bytes.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use crate::{ErrorKind, Listing, Meta, Object, ObjectStore, Op, Payload, PutMode, Result, Version};

/// A store that counts. Under paused tokio time, latencies are those of the simulated clock.
#[derive(Debug)]
pub struct MeteredStore {
    inner: Arc<dyn ObjectStore>,
    counters: [Counters; Op::ALL.len()],
}

#[derive(Debug, Default)]
struct Counters {
    ok: AtomicU64,
    errors: [AtomicU64; ErrorKind::ALL.len()],
    bytes: AtomicU64,
    nanos_sum: AtomicU64,
    nanos_max: AtomicU64,
    in_flight: AtomicU64,
}

/// The counters of all operations at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    ops: [OpSnapshot; Op::ALL.len()],
}

/// The counters of one operation at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpSnapshot {
    /// Operations that succeeded.
    pub ok: u64,
    /// Operations that failed, in the order of [`ErrorKind::ALL`]. Answers such as `NotFound`
    /// included.
    pub errors: [u64; ErrorKind::ALL.len()],
    /// Bytes of bodies sent or received by operations that succeeded.
    pub bytes: u64,
    /// Time that finished operations took, succeeded or not, summed up.
    pub latency_sum: Duration,
    /// The longest of them.
    pub latency_max: Duration,
    /// Operations started and neither finished nor dropped.
    pub in_flight: u64,
}

impl Snapshot {
    /// The counters of one operation.
    #[must_use]
    pub fn op(&self, op: Op) -> &OpSnapshot {
        &self.ops[op as usize]
    }
}

impl OpSnapshot {
    /// How many operations failed with this kind.
    #[must_use]
    pub fn errors_of(&self, kind: ErrorKind) -> u64 {
        self.errors[kind as usize]
    }

    /// How many operations finished.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.ok + self.errors.iter().sum::<u64>()
    }
}

impl MeteredStore {
    /// Wraps `inner`, counting from zero.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, counters: Default::default() }
    }

    /// The counters as they are.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { ops: self.counters.each_ref().map(Counters::snapshot) }
    }

    async fn count<T>(
        &self,
        op: Op,
        work: impl Future<Output = Result<T>> + Send,
        bytes: impl FnOnce(&T) -> u64 + Send,
    ) -> Result<T> {
        let counters = &self.counters[op as usize];
        let _in_flight = InFlight::new(&counters.in_flight);
        let started = Instant::now();
        let result = work.await;
        let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        counters.nanos_sum.fetch_add(nanos, Ordering::Relaxed);
        counters.nanos_max.fetch_max(nanos, Ordering::Relaxed);
        match &result {
            Ok(done) => {
                counters.ok.fetch_add(1, Ordering::Relaxed);
                counters.bytes.fetch_add(bytes(done), Ordering::Relaxed);
            }
            Err(error) => {
                counters.errors[error.kind() as usize].fetch_add(1, Ordering::Relaxed);
            }
        }
        result
    }
}

impl Counters {
    fn snapshot(&self) -> OpSnapshot {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        OpSnapshot {
            ok: load(&self.ok),
            errors: self.errors.each_ref().map(load),
            bytes: load(&self.bytes),
            latency_sum: Duration::from_nanos(load(&self.nanos_sum)),
            latency_max: Duration::from_nanos(load(&self.nanos_max)),
            in_flight: load(&self.in_flight),
        }
    }
}

/// Counts down when the operation ends, also when its caller drops it.
struct InFlight<'a>(&'a AtomicU64);

impl<'a> InFlight<'a> {
    fn new(gauge: &'a AtomicU64) -> Self {
        gauge.fetch_add(1, Ordering::Relaxed);
        Self(gauge)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl ObjectStore for MeteredStore {
    async fn put(&self, name: &str, body: Payload, mode: PutMode) -> Result<Version> {
        let sent = body.len() as u64;
        self.count(Op::Put, self.inner.put(name, body, mode), |_| sent).await
    }

    async fn get(&self, name: &str) -> Result<Object> {
        self.count(Op::Get, self.inner.get(name), |object| object.body.len() as u64).await
    }

    async fn get_range(&self, name: &str, offset: u64, len: u64) -> Result<Bytes> {
        let work = self.inner.get_range(name, offset, len);
        self.count(Op::GetRange, work, |body| body.len() as u64).await
    }

    async fn head(&self, name: &str) -> Result<Meta> {
        self.count(Op::Head, self.inner.head(name), |_| 0).await
    }

    async fn list(
        &self,
        prefix: &str,
        delimiter: Option<char>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Listing> {
        self.count(Op::List, self.inner.list(prefix, delimiter, after, limit), |_| 0).await
    }

    async fn delete(&self, name: &str) -> Result<()> {
        self.count(Op::Delete, self.inner.delete(name), |()| 0).await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::{Fault, FaultyStore, MemStore};

    #[tokio::test(start_paused = true)]
    async fn counts_bytes_errors_and_simulated_time() {
        let faulty = Arc::new(FaultyStore::scripted(Arc::new(MemStore::new())));
        let store = MeteredStore::new(Arc::clone(&faulty) as Arc<dyn ObjectStore>);
        faulty.next(Op::Put, Fault::Delay(Duration::from_millis(70)));
        let body = Payload::from_iter(["sev", "", "en77"].map(Bytes::from));
        store.put("a", body.clone(), PutMode::Create).await.unwrap();
        store.put("a", body, PutMode::Create).await.unwrap_err();
        store.get_range("a", 1, 3).await.unwrap();

        let snapshot = store.snapshot();
        let put = snapshot.op(Op::Put);
        assert_eq!((put.ok, put.count(), put.bytes), (1, 2, 7));
        assert_eq!(put.errors_of(ErrorKind::AlreadyExists), 1);
        assert_eq!(put.latency_max.as_millis(), 70);
        assert_eq!(put.latency_sum.as_millis(), 70);
        assert_eq!(snapshot.op(Op::GetRange).bytes, 3);
        assert_eq!(snapshot.op(Op::Get), &OpSnapshot::default());
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_operation_is_no_longer_in_flight() {
        let faulty = Arc::new(FaultyStore::scripted(Arc::new(MemStore::new())));
        let store = MeteredStore::new(Arc::clone(&faulty) as Arc<dyn ObjectStore>);
        faulty.next(Op::Head, Fault::Delay(Duration::from_secs(9)));
        let head = tokio::time::timeout(Duration::from_secs(1), store.head("a"));
        assert_eq!(store.snapshot().op(Op::Head).in_flight, 0);
        head.await.unwrap_err();
        assert_eq!(store.snapshot().op(Op::Head).in_flight, 0);
        assert_eq!(store.snapshot().op(Op::Head).count(), 0);
    }
}
