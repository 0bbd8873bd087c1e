//! Injects faults from a script, a seed, or an outage. Test support; stack it below the layer under
//! test.
//!
//! Does not: damage bytes (see `MemStore::corrupt`), or touch the wrapped store's own promises.
//! Invariants: the same seed and the same order of calls give the same faults.
//! Concurrency: one short lock to choose a fault. Late puts run as tasks of the caller's runtime.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::time::Instant;

use crate::{
    ErrorKind, Listing, Meta, Object, ObjectStore, Op, Payload, PutMode, Result, StoreError,
    Version,
};

/// What happens to one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: a place holder that lets one operation of a script pass.
    Pass,
    /// Fails with this kind, and the store never hears of it.
    Before(ErrorKind),
    /// Is done, and then reported as failed with this kind unless it failed by itself.
    After(ErrorKind),
    /// Is done after a pause.
    Delay(Duration),
    /// For puts: reported as `Ambiguous` at once and done after a pause, when nobody expects it any
    /// more. Other operations are delayed.
    Late(Duration),
}

/// How likely the faults of a seeded store are, each from 0 to 1 and independent of the others.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultRates {
    /// `Unavailable` before anything happened.
    pub before: f64,
    /// `Ambiguous` after a put or delete was done, `Unavailable` after a read.
    pub after: f64,
    /// A pause of up to `delay_max`.
    pub delay: f64,
    /// A put that lands up to `delay_max` after it was reported as `Ambiguous`.
    pub late: f64,
    /// Longest pause.
    pub delay_max: Duration,
}

/// A store with faults.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    plan: Mutex<Plan>,
}

#[derive(Debug)]
struct Plan {
    script: BTreeMap<Op, VecDeque<Fault>>,
    rates: FaultRates,
    random: fastrand::Rng,
    outage: Option<Outage>,
}

#[derive(Clone, Copy, Debug)]
struct Outage {
    kind: ErrorKind,
    /// `None`: until it is ended.
    until: Option<Instant>,
}

#[derive(Debug, Error)]
#[error("injected fault")]
struct Injected;

impl FaultyStore {
    /// Faults come only from [`FaultyStore::next`] and the outages.
    #[must_use]
    pub fn scripted(inner: Arc<dyn ObjectStore>) -> Self {
        Self::seeded(inner, 0, FaultRates::default())
    }

    /// Faults come at random besides.
    #[must_use]
    pub fn seeded(inner: Arc<dyn ObjectStore>, seed: u64, rates: FaultRates) -> Self {
        let plan = Plan {
            script: BTreeMap::new(),
            rates,
            random: fastrand::Rng::with_seed(seed),
            outage: None,
        };
        Self { inner, plan: Mutex::new(plan) }
    }

    /// Appends to the script of `op`: its next call, behind those that are scripted already, meets
    /// `fault`.
    pub fn next(&self, op: Op, fault: Fault) {
        self.plan.lock().script.entry(op).or_default().push_back(fault);
    }

    /// Replaces the rates of the random faults from now on.
    pub fn set_rates(&self, rates: FaultRates) {
        self.plan.lock().rates = rates;
    }

    /// From now on everything fails with `kind`, for a while or until [`FaultyStore::end_outage`].
    /// `Full` fails puts only, as a full store does.
    pub fn begin_outage(&self, kind: ErrorKind, lasting: Option<Duration>) {
        let until = lasting.map(|lasting| Instant::now() + lasting);
        self.plan.lock().outage = Some(Outage { kind, until });
    }

    /// Ends an outage.
    pub fn end_outage(&self) {
        self.plan.lock().outage = None;
    }

    fn fault(&self, op: Op) -> Fault {
        let mut plan = self.plan.lock();
        if let Some(outage) = plan.outage {
            let is_over = outage.until.is_some_and(|until| Instant::now() >= until);
            if !is_over && (outage.kind != ErrorKind::Full || op == Op::Put) {
                return Fault::Before(outage.kind);
            }
        }
        match plan.script.get_mut(&op).and_then(VecDeque::pop_front) {
            Some(fault) => fault,
            None => plan.random_fault(op),
        }
    }

    fn error(&self, kind: ErrorKind, op: Op, name: &str) -> StoreError {
        StoreError::new(kind, op, name).at(self.inner.describe()).because(Injected)
    }

    async fn meet<T>(
        &self,
        fault: Fault,
        op: Op,
        name: &str,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        match fault {
            Fault::Pass => work.await,
            Fault::Before(kind) => Err(self.error(kind, op, name)),
            Fault::After(kind) => {
                work.await?;
                Err(self.error(kind, op, name))
            }
            Fault::Delay(pause) | Fault::Late(pause) => {
                tokio::time::sleep(pause).await;
                work.await
            }
        }
    }
}

impl Plan {
    fn random_fault(&mut self, op: Op) -> Fault {
        let rates = self.rates;
        // Always the same number of draws, so that one rate does not shift the others' dice.
        let [before, after, delay, late, pause] = std::array::from_fn(|_| self.random.f64());
        let pause = rates.delay_max.mul_f64(pause);
        if before < rates.before {
            Fault::Before(ErrorKind::Unavailable)
        } else if after < rates.after && op.is_mutation() {
            Fault::After(ErrorKind::Ambiguous)
        } else if after < rates.after {
            Fault::After(ErrorKind::Unavailable)
        } else if late < rates.late && op == Op::Put {
            Fault::Late(pause)
        } else if delay < rates.delay {
            Fault::Delay(pause)
        } else {
            Fault::Pass
        }
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put(&self, name: &str, body: Payload, mode: PutMode) -> Result<Version> {
        let fault = self.fault(Op::Put);
        if let Fault::Late(pause) = fault {
            let (inner, late_name) = (Arc::clone(&self.inner), name.to_owned());
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                // Nobody waits for the outcome: that is the fault.
                let _ = inner.put(&late_name, body, mode).await;
            });
            return Err(self.error(ErrorKind::Ambiguous, Op::Put, name));
        }
        self.meet(fault, Op::Put, name, self.inner.put(name, body, mode)).await
    }

    async fn get(&self, name: &str) -> Result<Object> {
        self.meet(self.fault(Op::Get), Op::Get, name, self.inner.get(name)).await
    }

    async fn get_range(&self, name: &str, offset: u64, len: u64) -> Result<Bytes> {
        let work = self.inner.get_range(name, offset, len);
        self.meet(self.fault(Op::GetRange), Op::GetRange, name, work).await
    }

    async fn head(&self, name: &str) -> Result<Meta> {
        self.meet(self.fault(Op::Head), Op::Head, name, self.inner.head(name)).await
    }

    async fn list(
        &self,
        prefix: &str,
        delimiter: Option<char>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Listing> {
        let work = self.inner.list(prefix, delimiter, after, limit);
        self.meet(self.fault(Op::List), Op::List, prefix, work).await
    }

    async fn delete(&self, name: &str) -> Result<()> {
        self.meet(self.fault(Op::Delete), Op::Delete, name, self.inner.delete(name)).await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::MemStore;

    #[tokio::test(start_paused = true)]
    async fn equal_seeds_give_equal_faults() {
        async fn trace(seed: u64) -> Vec<Option<ErrorKind>> {
            let rates = FaultRates { before: 0.2, after: 0.2, ..FaultRates::default() };
            let store = FaultyStore::seeded(Arc::new(MemStore::new()), seed, rates);
            let mut kinds = Vec::new();
            for n in 0..200 {
                let put = store.put(&n.to_string(), Bytes::new().into(), PutMode::Create).await;
                kinds.push(put.err().map(|error| error.kind()));
            }
            kinds
        }
        let first = trace(7).await;
        assert_eq!(first, trace(7).await);
        assert_ne!(first, trace(8).await);
        assert!(first.contains(&Some(ErrorKind::Unavailable)));
        assert!(first.contains(&Some(ErrorKind::Ambiguous)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_put_lands_after_it_was_reported_lost() {
        let store = FaultyStore::scripted(Arc::new(MemStore::new()));
        store.next(Op::Put, Fault::Late(Duration::from_secs(3)));
        let error = store.put("a", Bytes::new().into(), PutMode::Create).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Ambiguous);
        assert!(store.head("a").await.unwrap_err().is_not_found());
        tokio::time::sleep(Duration::from_secs(4)).await;
        store.head("a").await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_ends_by_itself() {
        let store = FaultyStore::scripted(Arc::new(MemStore::new()));
        store.begin_outage(ErrorKind::Full, Some(Duration::from_secs(3)));
        let error = store.put("a", Bytes::new().into(), PutMode::Create).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full);
        assert!(store.head("a").await.unwrap_err().is_not_found(), "reads go on");
        tokio::time::sleep(Duration::from_secs(3)).await;
        store.put("a", Bytes::new().into(), PutMode::Create).await.unwrap();
    }
}
