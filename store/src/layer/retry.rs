//! Retries what may pass, and finds out whether a put that failed has landed.
//!
//! Does not: retry answers (`NotFound`, `AlreadyExists`, ..), or refusals that need a human.
//! Invariants: 1. `AlreadyExists` and `PreconditionFailed` are returned only for what others did,
//! never for an earlier attempt of the same call. They say that the object is not ours now, not
//! that it never was: where an answer was lost, somebody may have replaced what we had put. 2. Once
//! an attempt to change something had no answer, the call ends in a definite answer or in
//! `Ambiguous`; no later failure may claim that nothing happened.
//! Concurrency: calls share only the generator of jitter. An attempt that is given up at its time
//! limit may still land: a put beside its own retry has one winner, and both carry the same bytes.
//! A delete given up may also hit what is created under the name *afterwards*: names of deleted
//! objects are not to be used again.

use std::future::Future;
use std::pin::Pin;
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

/// How often and how long to try.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Longest pause after the first failure. Doubles with every further one.
    pub pause_first: Duration,
    /// Longest pause at all.
    pub pause_max: Duration,
    /// An attempt without an answer by then is given up and counts as failed.
    pub attempt_max: Duration,
    /// The whole call, all attempts and pauses together, ends by then.
    pub deadline: Duration,
    /// Seed of the jitter. Gateways should differ in it, or they come back from an outage in step.
    pub seed: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            pause_first: Duration::from_millis(50),
            pause_max: Duration::from_secs(5),
            // An 8 MiB put over a slow or recovering store takes seconds, not tens of them.
            attempt_max: Duration::from_secs(20),
            deadline: Duration::from_secs(120),
            seed: 0,
        }
    }
}

/// A store that retries; see the module's header for what it promises beyond that.
#[derive(Debug)]
pub struct RetryingStore {
    inner: Arc<dyn ObjectStore>,
    policy: RetryPolicy,
    jitter: Mutex<fastrand::Rng>,
}

/// What the trait's methods return before they are awaited.
type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

#[derive(Debug, Error)]
#[error("no answer within {0:?}")]
struct NoAnswer(Duration);

/// The state of one call.
#[derive(Debug)]
struct Call<'a> {
    store: &'a RetryingStore,
    op: Op,
    name: &'a str,
    started: Instant,
    failures: u32,
    /// Some attempt may have changed something without our knowing.
    in_doubt: bool,
}

impl RetryingStore {
    /// Wraps `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>, policy: RetryPolicy) -> Self {
        Self { inner, policy, jitter: Mutex::new(fastrand::Rng::with_seed(policy.seed)) }
    }

    fn call<'a>(&'a self, op: Op, name: &'a str) -> Call<'a> {
        Call { store: self, op, name, started: Instant::now(), failures: 0, in_doubt: false }
    }
}

impl Call<'_> {
    /// One attempt, cut off at its time limit.
    async fn attempt<T>(&self, op: Op, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let policy = &self.store.policy;
        let limit = policy.attempt_max.min(policy.deadline.saturating_sub(self.started.elapsed()));
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
            let kind = if op.is_mutation() { ErrorKind::Ambiguous } else { ErrorKind::Unavailable };
            Err(StoreError::new(kind, op, self.name)
                .at(self.store.inner.describe())
                .because(NoAnswer(limit)))
        })
    }

    /// Notes a failure and pauses. Gives the error back if there is to be no further attempt.
    async fn pause(&mut self, error: StoreError) -> Result<()> {
        self.in_doubt |= error.kind() == ErrorKind::Ambiguous;
        let policy = &self.store.policy;
        let longest = policy
            .pause_first
            .saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX))
            .min(policy.pause_max);
        // Full jitter over the upper half: spreads the herd and still backs off.
        let pause = longest.mul_f64(0.5 + 0.5 * self.store.jitter.lock().f64());
        if !error.is_retryable() || self.started.elapsed() + pause >= policy.deadline {
            return Err(self.last_word(error));
        }
        self.failures += 1;
        if self.failures == 1 {
            tracing::warn!(%error, ?pause, "store operation failed, trying again");
        } else {
            tracing::debug!(%error, ?pause, failures = self.failures, "failed again");
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Invariant 2.
    fn last_word(&self, error: StoreError) -> StoreError {
        if !self.in_doubt || error.kind() == ErrorKind::Ambiguous {
            return error;
        }
        StoreError::new(ErrorKind::Ambiguous, self.op, self.name).because(error)
    }

    /// Runs a call that changes nothing until it has an answer.
    async fn read<'s, T>(mut self, mut work: impl FnMut() -> Pending<'s, T> + Send) -> Result<T> {
        loop {
            match self.attempt(self.op, work()).await {
                Err(error) => self.pause(error).await?,
                done => return done,
            }
        }
    }

    /// Reads the object until there is an answer; `None` when it is not there.
    async fn read_back(&mut self) -> Result<Option<Object>> {
        loop {
            match self.attempt(Op::Get, self.store.inner.get(self.name)).await {
                Ok(object) => return Ok(Some(object)),
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) => self.pause(error).await?,
            }
        }
    }
}

#[async_trait]
impl ObjectStore for RetryingStore {
    async fn put(&self, name: &str, body: Payload, mode: PutMode) -> Result<Version> {
        let mut call = self.call(Op::Put, name);
        loop {
            let attempt = self.inner.put(name, body.clone(), mode.clone());
            let error = match call.attempt(Op::Put, attempt).await {
                Ok(version) => return Ok(version),
                Err(error) => error,
            };
            let taken =
                matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::PreconditionFailed);
            if !taken {
                call.pause(error).await?;
                continue;
            }
            if call.failures == 0 {
                return Err(error);
            }
            // Invariant 1. The content decides: whoever stored exactly our bytes did our work.
            match call.read_back().await? {
                Some(object) if body.eq_bytes(&object.body) => return Ok(object.version),
                Some(_) => return Err(error),
                // Landed or not, it is gone again; only a create may have another go.
                None if mode == PutMode::Create => {
                    let gone = StoreError::new(ErrorKind::Unavailable, Op::Put, name);
                    call.pause(gone.because(error)).await?;
                }
                None => return Err(error),
            }
        }
    }

    async fn get(&self, name: &str) -> Result<Object> {
        self.call(Op::Get, name).read(|| self.inner.get(name)).await
    }

    async fn get_range(&self, name: &str, offset: u64, len: u64) -> Result<Bytes> {
        self.call(Op::GetRange, name).read(|| self.inner.get_range(name, offset, len)).await
    }

    async fn head(&self, name: &str) -> Result<Meta> {
        self.call(Op::Head, name).read(|| self.inner.head(name)).await
    }

    async fn list(
        &self,
        prefix: &str,
        delimiter: Option<char>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Listing> {
        self.call(Op::List, prefix).read(|| self.inner.list(prefix, delimiter, after, limit)).await
    }

    async fn delete(&self, name: &str) -> Result<()> {
        let mut call = self.call(Op::Delete, name);
        loop {
            match call.attempt(Op::Delete, self.inner.delete(name)).await {
                // An earlier attempt may have done it, and gone is what was asked for.
                Err(error) if error.is_not_found() && call.in_doubt => return Ok(()),
                Err(error) => call.pause(error).await?,
                done => return done,
            }
        }
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[cfg(test)]
mod test;
