//! Listings of a pool, whose objects come in the order of their hashes.
//!
//! RADOS can neither sort nor select by prefix, so each listing walks the whole pool once, keeps
//! what belongs to it, rolled up already, and sorts. What is left behind a page stays for the next
//! one: a listing in a thousand pages walks the pool once.
//!
//! Does not: show objects of other namespaces; librados leaves those out.
//! Invariants: a page that starts a listing (no `after`) never comes from an older walk.
//! Concurrency: walks block a thread of the runtime that is there for it; the lock is held for a
//! look at the table only.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lsvd_rados::{Error, Pool};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::Listing;
use crate::name;

/// Listings that are remembered between two pages.
const WALKS_MAX: usize = 4;

/// A walk that is older tells too little of what is there now.
const AGE_MAX: Duration = Duration::from_secs(60);

/// Objects whose sizes are asked for at the same time.
const STATS_IN_FLIGHT: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Walks(Mutex<Vec<Walk>>);

/// What one walk of the pool found.
#[derive(Clone, Debug)]
struct Walk {
    prefix: String,
    delimiter: Option<char>,
    /// Names and rolled-up prefixes in byte order.
    entries: Arc<[Box<str>]>,
    begun: Instant,
}

impl Walks {
    /// One page; see [`ObjectStore::list`](crate::ObjectStore::list).
    pub(super) async fn page(
        &self,
        pool: &Arc<Pool>,
        prefix: &str,
        delimiter: Option<char>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Listing, Error> {
        let known = after.and_then(|_| self.find(prefix, delimiter));
        let walk = match known {
            Some(walk) => walk,
            None => Walk::begin(Arc::clone(pool), prefix.to_owned(), delimiter).await?,
        };
        let entries = &walk.entries;
        let start = after.map_or(0, |after| entries.partition_point(|entry| **entry <= *after));
        let end = entries.len().min(start.saturating_add(limit));
        let mut listing = Listing::default();
        let mut names = Vec::new();
        for entry in &entries[start..end] {
            if walk.is_rolled_up(entry) {
                listing.prefixes.push(String::from(&**entry));
            } else {
                names.push(String::from(&**entry));
            }
        }
        listing.objects = sizes(pool, names).await?;
        if end < entries.len() {
            listing.next = entries[..end].last().map(|entry| String::from(&**entry));
            self.keep(walk);
        } else {
            self.forget(prefix, delimiter);
        }
        Ok(listing)
    }

    fn find(&self, prefix: &str, delimiter: Option<char>) -> Option<Walk> {
        let walks = self.0.lock();
        let found = walks.iter().find(|walk| walk.is_of(prefix, delimiter));
        found.filter(|walk| walk.begun.elapsed() < AGE_MAX).cloned()
    }

    fn keep(&self, walk: Walk) {
        let mut walks = self.0.lock();
        walks.retain(|known| !known.is_of(&walk.prefix, walk.delimiter));
        if walks.len() >= WALKS_MAX {
            walks.remove(0);
        }
        walks.push(walk);
    }

    fn forget(&self, prefix: &str, delimiter: Option<char>) {
        self.0.lock().retain(|known| !known.is_of(prefix, delimiter));
    }
}

impl Walk {
    async fn begin(
        pool: Arc<Pool>,
        prefix: String,
        delimiter: Option<char>,
    ) -> Result<Self, Error> {
        let begun = Instant::now();
        let walked = tokio::task::spawn_blocking(move || {
            let mut entries = BTreeSet::new();
            pool.list(|name| {
                // What somebody else keeps in the pool may have names that no object of ours has.
                if name.starts_with(&prefix) && name::check(name).is_ok() {
                    let entry = rolled_up(&prefix, delimiter, name).unwrap_or(name);
                    if !entries.contains(entry) {
                        entries.insert(Box::from(entry));
                    }
                }
                true
            })?;
            Ok(Self { prefix, delimiter, entries: entries.into_iter().collect(), begun })
        });
        match walked.await {
            Ok(result) => result,
            Err(gone) if gone.is_panic() => std::panic::resume_unwind(gone.into_panic()),
            Err(_) => Err(Error::Closed { what: "list the pool" }),
        }
    }

    fn is_of(&self, prefix: &str, delimiter: Option<char>) -> bool {
        self.prefix == prefix && self.delimiter == delimiter
    }

    /// A name that is rolled up ends with the delimiter; one that is not has none behind the
    /// prefix.
    fn is_rolled_up(&self, entry: &str) -> bool {
        rolled_up(&self.prefix, self.delimiter, entry).is_some()
    }
}

/// The entry that stands for `name` and others, which starts with `prefix`.
fn rolled_up<'n>(prefix: &str, delimiter: Option<char>, name: &'n str) -> Option<&'n str> {
    let delimiter = delimiter?;
    let found = name[prefix.len()..].find(delimiter)?;
    Some(&name[..prefix.len() + found + delimiter.len_utf8()])
}

/// The sizes of objects, in the same order; those that are gone are left out.
async fn sizes(pool: &Arc<Pool>, names: Vec<String>) -> Result<Vec<(String, u64)>, Error> {
    let mut found: Vec<Option<(String, u64)>> = vec![None; names.len()];
    let mut names = names.into_iter().enumerate();
    let mut asked = JoinSet::new();
    loop {
        while asked.len() < STATS_IN_FLIGHT
            && let Some((at, name)) = names.next()
        {
            let pool = Arc::clone(pool);
            asked.spawn(async move { (at, pool.stat(&name).await, name) });
        }
        let Some(answer) = asked.join_next().await else { break };
        let Ok((at, stat, name)) = answer else {
            return Err(Error::Closed { what: "ask for an object's size" });
        };
        match stat {
            Ok(stat) => found[at] = Some((name, stat.size)),
            Err(error) if error.code() == Some(super::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found.into_iter().flatten().collect())
}
