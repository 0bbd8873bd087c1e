//! A store in memory, for tests and simulation: deterministic, and strict about the contract.
//!
//! Does not: survive its last handle. Clones share the objects, as several gateways share a pool.
//! Invariants: 1. A version number is given once in the life of the store. 2. No name is another's
//! directory.
//! Concurrency: one lock, held for one map operation and never over an await.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::name::{self, Refused};
use crate::page::Page;
use crate::{
    ErrorKind, Listing, Meta, Object, ObjectStore, Op, Payload, PutMode, Result, StoreError,
    Version,
};

/// A store in memory. Cloning gives another handle to the same objects.
#[derive(Clone, Debug, Default)]
pub struct MemStore {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Entry>,
    versions_given: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    body: Bytes,
    version: u64,
}

impl MemStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces a stored body behind everybody's back, keeping its version: media damage, for
    /// tests. `false` when there is no such object.
    pub fn corrupt(&self, name: &str, damage: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut state = self.state.lock();
        let Some(entry) = state.objects.get_mut(name) else { return false };
        let mut body = entry.body.to_vec();
        damage(&mut body);
        entry.body = body.into();
        true
    }

    fn error(&self, kind: ErrorKind, op: Op, name: &str) -> StoreError {
        StoreError::new(kind, op, name).at(self.describe())
    }

    fn refuse(&self, op: Op, name: &str) -> impl FnOnce(Refused) -> StoreError {
        let error = self.error(ErrorKind::Invalid, op, name);
        |why| error.because(why)
    }

    fn entry(&self, op: Op, name: &str) -> Result<Entry> {
        name::check(name).map_err(self.refuse(op, name))?;
        let entry = self.state.lock().objects.get(name).cloned();
        entry.ok_or_else(|| self.error(ErrorKind::NotFound, op, name))
    }
}

impl State {
    fn is_nested(&self, name: &str) -> bool {
        let directory = format!("{name}/");
        let below = self.objects.range(directory.clone()..).next();
        below.is_some_and(|(other, _)| other.starts_with(&directory))
            || name.match_indices('/').any(|(at, _)| self.objects.contains_key(&name[..at]))
    }
}

impl Entry {
    fn version(&self) -> Version {
        Version::new(self.version.to_string())
    }
}

#[async_trait]
impl ObjectStore for MemStore {
    async fn put(&self, name: &str, body: Payload, mode: PutMode) -> Result<Version> {
        name::check(name).map_err(self.refuse(Op::Put, name))?;
        // Before the lock: joining the parts may take as long as everything else together.
        let body = body.into_bytes();
        let mut state = self.state.lock();
        let found = state.objects.get(name).map(Entry::version);
        match mode {
            PutMode::Create if found.is_some() => {
                return Err(self.error(ErrorKind::AlreadyExists, Op::Put, name));
            }
            PutMode::Create if state.is_nested(name) => {
                return Err(self.refuse(Op::Put, name)(Refused::Nested));
            }
            PutMode::IfMatch(version) if found.as_ref() != Some(&version) => {
                return Err(self.error(ErrorKind::PreconditionFailed, Op::Put, name));
            }
            PutMode::Create | PutMode::IfMatch(_) => {}
        }
        state.versions_given += 1;
        let entry = Entry { body, version: state.versions_given };
        let version = entry.version();
        state.objects.insert(name.to_owned(), entry);
        Ok(version)
    }

    async fn get(&self, name: &str) -> Result<Object> {
        let entry = self.entry(Op::Get, name)?;
        Ok(Object { version: entry.version(), body: entry.body })
    }

    async fn get_range(&self, name: &str, offset: u64, len: u64) -> Result<Bytes> {
        let body = self.entry(Op::GetRange, name)?.body;
        name::check_range(offset, len, body.len() as u64)
            .map_err(self.refuse(Op::GetRange, name))?;
        let index = |at| usize::try_from(at).expect("the range lies within a body in memory");
        Ok(body.slice(index(offset)..index(offset + len)))
    }

    async fn head(&self, name: &str) -> Result<Meta> {
        let entry = self.entry(Op::Head, name)?;
        Ok(Meta { size: entry.body.len() as u64, version: entry.version() })
    }

    async fn list(
        &self,
        prefix: &str,
        delimiter: Option<char>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Listing> {
        name::check_prefix(prefix).map_err(self.refuse(Op::List, prefix))?;
        if limit == 0 {
            return Err(self.refuse(Op::List, prefix)(Refused::Limit));
        }
        let mut page = Page::new(prefix, delimiter, after, limit);
        let state = self.state.lock();
        let start = after.map_or(prefix, |after| after.max(prefix));
        for (name, entry) in
            state.objects.range::<str, _>((Bound::Included(start), Bound::Unbounded))
        {
            if !name.starts_with(prefix) {
                break;
            }
            if page.wants_object(name) && !page.take(name, entry.body.len() as u64) {
                break;
            }
        }
        Ok(page.finish())
    }

    async fn delete(&self, name: &str) -> Result<()> {
        name::check(name).map_err(self.refuse(Op::Delete, name))?;
        match self.state.lock().objects.remove(name) {
            Some(_) => Ok(()),
            None => Err(self.error(ErrorKind::NotFound, Op::Delete, name)),
        }
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}
