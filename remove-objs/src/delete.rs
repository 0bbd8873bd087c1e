//! Deletes what a plan names, many objects at a time.
//!
//! Crash: superblocks are gone before anything else is touched, so an image is there as a whole or
//! not at all; the rest is found again by the same prefix.

use std::sync::Arc;

use lsvd_cli::{Pool, Progress, Talk};
use lsvd_store::{ErrorKind, StoreError};
use tokio::task::JoinSet;

/// Deletes at one time.
const PARALLEL: usize = 16;

/// How far it came.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) deleted: u64,
    /// The first of them; nothing new is begun after it.
    pub(crate) error: Option<StoreError>,
}

/// Deletes all keys of the first list before any of the second.
pub(crate) async fn delete(pool: &Pool, lists: [Vec<String>; 2], talk: Talk) -> Outcome {
    let total = lists.iter().map(Vec::len).sum::<usize>();
    let progress = Progress::new(talk, "deleting", total as u64);
    let mut outcome = Outcome::default();
    for keys in lists {
        all(pool, keys, &progress, &mut outcome).await;
        if outcome.error.is_some() {
            break;
        }
    }
    outcome
}

async fn all(pool: &Pool, keys: Vec<String>, progress: &Progress, outcome: &mut Outcome) {
    let mut waiting = keys.into_iter();
    let mut running = JoinSet::new();
    loop {
        while running.len() < PARALLEL
            && outcome.error.is_none()
            && let Some(key) = waiting.next()
        {
            let store = Arc::clone(&pool.store);
            running.spawn(async move { store.delete(&key).await });
        }
        let Some(result) = running.join_next().await else { return };
        match result.expect("deletes are not cancelled, and a panic in one is ours") {
            Ok(()) => outcome.deleted += 1,
            // Another run, or a gateway, was faster.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                outcome.error.get_or_insert(error);
            }
        }
        progress.step();
    }
}
