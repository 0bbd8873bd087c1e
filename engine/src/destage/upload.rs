//! Putting one numbered object, whatever it takes: create-only, settled by what is found under the
//! name.
//!
//! Something may be there already. Our own bytes, from an attempt whose answer was lost: done. An
//! older epoch, or another image of the same name: a leftover that no recovery counts, replaced by
//! compare-and-swap. A newer epoch: we are fenced. While the store does not answer, this waits and
//! tries again for ever; the log fills up meanwhile and writes slow down, nothing is lost, and the
//! log says once what is wrong and since when.

use std::sync::Arc;

use lsvd_common::ids::ObjectSeq;
use lsvd_common::object::prefix;
use lsvd_store::{ErrorKind as StoreKind, Payload, PutMode, StoreError};
use tokio::time::{Instant, sleep};

use crate::destage::TROUBLE_PAUSE;
use crate::error::{Error, ErrorKind, Result};
use crate::state::Shared;

/// Puts `body` as object `seq`.
///
/// # Errors
/// `Fenced`, or the volume failed meanwhile.
pub(crate) async fn put(shared: &Arc<Shared>, seq: ObjectSeq, body: Payload) -> Result<()> {
    let key = shared.name.numbered(seq);
    let mut mode = PutMode::Create;
    loop {
        let error = match shared.store.put(&key, body.clone(), mode.clone()).await {
            Ok(_) => {
                trouble_over(shared);
                return Ok(());
            }
            Err(error) => error,
        };
        let settled = match error.kind() {
            StoreKind::AlreadyExists | StoreKind::PreconditionFailed => {
                match settle(shared, &key, &body).await {
                    Ok(settled) => settled,
                    Err(Settle::Store(error)) => {
                        trouble(shared, &Error::store(format!("read object {key}"), error)).await?;
                        continue;
                    }
                    Err(Settle::Final(error)) => return Err(error),
                }
            }
            _ => {
                trouble(shared, &Error::store(format!("put object {key}"), error)).await?;
                continue;
            }
        };
        match settled {
            None => return Ok(()),
            Some(next) => mode = next,
        }
    }
}

enum Settle {
    Store(StoreError),
    Final(Error),
}

/// Looks at what is under the name. None if it is ours; else how to put again.
async fn settle(
    shared: &Arc<Shared>,
    key: &str,
    body: &Payload,
) -> std::result::Result<Option<PutMode>, Settle> {
    let found = match shared.store.get(key).await {
        Ok(found) => found,
        Err(error) if error.kind() == StoreKind::NotFound => return Ok(Some(PutMode::Create)),
        Err(error) => return Err(Settle::Store(error)),
    };
    if body.eq_bytes(&found.body) {
        return Ok(None);
    }
    // Only a whole header of a newer epoch of this image can fence us; anything else is in the way.
    let newer = prefix::identify(&found.body)
        .is_ok_and(|id| id.image == shared.image && id.epoch > shared.term.epoch());
    if newer {
        let context = format!(
            "image {} was taken over: its object {key} is of a newer epoch than ours",
            shared.name
        );
        return Err(Settle::Final(Error::new(ErrorKind::Fenced, context)));
    }
    tracing::info!(image = %shared.name, object = key, "replaced a leftover of an earlier term");
    Ok(Some(PutMode::IfMatch(found.version)))
}

/// Notes that the store does not take our objects, once, and waits a little.
///
/// # Errors
/// The volume failed meanwhile.
pub(crate) async fn trouble(shared: &Arc<Shared>, error: &Error) -> Result<()> {
    let first = {
        let mut state = shared.state.lock();
        let first = state.store_trouble.is_none();
        state.store_trouble.get_or_insert_with(Instant::now);
        first
    };
    if first {
        let (image, error) = (&shared.name, error.report());
        tracing::warn!(%image, error, "the store does not take objects; writes go on into the log");
    }
    sleep(TROUBLE_PAUSE).await;
    match shared.failure() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn trouble_over(shared: &Arc<Shared>) {
    let since = shared.state.lock().store_trouble.take();
    if let Some(since) = since {
        let seconds = since.elapsed().as_secs();
        tracing::warn!(image = %shared.name, seconds, "the store takes objects again");
    }
}
