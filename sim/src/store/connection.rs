//! A gateway's connection to the simulated store.
//!
//! Concurrency: any number of requests at a time; dropping the future of one leaves its outcome
//! open.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use lsvd_common::name::ObjectName;
use lsvd_store::{
    ErrorKind, Listing, MemStore, Meta, Object, ObjectStore, Op, Payload, PutMode, Result,
    StoreError, Version,
};
use parking_lot::Mutex;

use super::{Change, Fate, Pending, SimStore, at_once};
use crate::world::SimTime;

/// One gateway's connection to the store.
#[derive(Debug)]
pub(crate) struct Connection {
    store: Arc<SimStore>,
    /// The term of the gateway, once it has one.
    epoch: AtomicU64,
    view: Mutex<View>,
}

#[derive(Debug)]
struct View {
    /// The gateway is the image's writer, as far as the scenario knows.
    is_writer: bool,
    /// The last request about the superblock was a put. A layer that retries reads back what became
    /// of it; what that says never gets to the gateway.
    wrote: bool,
    /// When the gateway was told of a superblock of a later term.
    fence_seen: Option<SimTime>,
}

impl Connection {
    pub(super) fn new(store: &Arc<SimStore>) -> Arc<Self> {
        let view = View { is_writer: true, wrote: false, fence_seen: None };
        Arc::new(Self {
            store: Arc::clone(store),
            epoch: AtomicU64::new(0),
            view: Mutex::new(view),
        })
    }

    pub(crate) fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Relaxed);
    }

    /// From now on what the store acknowledges to this gateway is no part of the image.
    pub(crate) fn depose(&self) {
        self.view.lock().is_writer = false;
    }

    pub(crate) fn fence_seen(&self) -> Option<SimTime> {
        self.view.lock().fence_seen
    }

    /// Sends a request: draws its fate, and traces it.
    fn send(&self, verb: &'static str, name: &str, numbers: [u64; 2], op: Op) -> Fate {
        let store = &self.store;
        store.advance();
        let now = store.world.now();
        let fate = store.state.lock().fate(now, op);
        let hash = u64::from(crc32c::crc32c(name.as_bytes()));
        let ms = |time: SimTime| (time - now).as_millis();
        store.world.trace(
            verb,
            [hash, numbers[0], numbers[1]],
            format_args!(
                "{name} (epoch {}) answers in {} ms, lands in {:?}{}",
                self.epoch.load(Ordering::Relaxed),
                ms(fate.answers),
                fate.lands.map(ms),
                if fate.error.is_some() { " FAILS" } else { "" },
            ),
        );
        fate
    }

    fn error(&self, kind: ErrorKind, op: Op, name: &str) -> StoreError {
        StoreError::new(kind, op, name).at(self.store.describe()).because("simulated")
    }

    async fn change(&self, op: Op, change: Change, fate: Fate) -> Result<Option<Version>> {
        let (store, world) = (&self.store, &self.store.world);
        let name = match &change {
            Change::Put { name, .. } | Change::Delete { name } => name.clone(),
        };
        let id = {
            let mut state = store.state.lock();
            let id = state.next_id;
            state.next_id += 1;
            if let Some(at) = fate.lands {
                state.pending.insert((at, id), Pending { change, is_orphan: false });
            }
            id
        };
        world.wait_until(fate.answers).await;
        store.advance();
        let mut state = store.state.lock();
        let result = state.results.remove(&id);
        if let Some(kind) = fate.error {
            if let Some(pending) = fate.lands.and_then(|at| state.pending.get_mut(&(at, id))) {
                pending.is_orphan = true;
            }
            return Err(self.error(kind, op, &name));
        }
        result.unwrap_or_else(|| Err(self.error(ErrorKind::Ambiguous, op, &name)))
    }

    /// Answers a request that changes nothing.
    async fn ask<T>(
        &self,
        op: Op,
        name: &str,
        fate: Fate,
        answer: impl FnOnce(&MemStore) -> Result<T>,
    ) -> Result<T> {
        let (store, world) = (&self.store, &self.store.world);
        let is_superblock = name == store.image.superblock();
        let after_put = {
            let mut view = self.view.lock();
            // Only a head ends the suspicion: the gateway itself sends one, a layer that retries
            // does not.
            view.wrote &= !(is_superblock && op == Op::Head);
            view.wrote || !is_superblock
        };
        let Some(at) = fate.lands else {
            world.wait_until(fate.answers).await;
            return Err(self.error(fate.error.unwrap_or(ErrorKind::Unavailable), op, name));
        };
        world.wait_until(at.min(fate.answers)).await;
        store.advance();
        let answer = answer(&store.objects);
        let epoch = store.superblock().map_or(0, |superblock| superblock.epoch.0);
        world.wait_until(fate.answers).await;
        match fate.error {
            Some(kind) => Err(self.error(kind, op, name)),
            None => {
                let ours = self.epoch.load(Ordering::Relaxed);
                if op == Op::Get && !after_put && ours > 0 && epoch > ours {
                    self.view.lock().fence_seen.get_or_insert(world.now());
                }
                answer
            }
        }
    }
}

#[async_trait]
impl ObjectStore for Connection {
    async fn put(&self, name: &str, body: Payload, mode: PutMode) -> Result<Version> {
        let body = body.into_bytes();
        let crc = u64::from(crc32c::crc32c(&body));
        let fate = self.send("put", name, [body.len() as u64, crc], Op::Put);
        if name == self.store.image.superblock() {
            self.view.lock().wrote = true;
        }
        let change = Change::Put { name: name.to_owned(), body, mode };
        let version = self.change(Op::Put, change, fate).await?;
        let version = version.expect("a put that is done has a version");
        if let Some(ObjectName::Numbered(_, seq)) = ObjectName::parse(name)
            && self.view.lock().is_writer
        {
            self.store.state.lock().acknowledged.insert(seq, version.clone());
        }
        Ok(version)
    }

    async fn get(&self, name: &str) -> Result<Object> {
        let fate = self.send("get", name, [0, 0], Op::Get);
        self.ask(Op::Get, name, fate, |objects| at_once(objects.get(name))).await
    }

    async fn get_range(&self, name: &str, offset: u64, len: u64) -> Result<Bytes> {
        let fate = self.send("get range", name, [offset, len], Op::GetRange);
        let answer = |objects: &MemStore| at_once(objects.get_range(name, offset, len));
        self.ask(Op::GetRange, name, fate, answer).await
    }

    async fn head(&self, name: &str) -> Result<Meta> {
        let fate = self.send("head", name, [0, 0], Op::Head);
        self.ask(Op::Head, name, fate, |objects| at_once(objects.head(name))).await
    }

    async fn list(
        &self,
        prefix: &str,
        delimiter: Option<char>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Listing> {
        let fate = self.send("list", prefix, [limit as u64, 0], Op::List);
        let answer = |objects: &MemStore| at_once(objects.list(prefix, delimiter, after, limit));
        self.ask(Op::List, prefix, fate, answer).await
    }

    async fn delete(&self, name: &str) -> Result<()> {
        let fate = self.send("delete", name, [0, 0], Op::Delete);
        self.change(Op::Delete, Change::Delete { name: name.to_owned() }, fate).await.map(|_| ())
    }

    fn describe(&self) -> String {
        self.store.describe()
    }
}
