//! The tail of the write log: moved when an object is retired, and durable before the space behind
//! it is used again.
//!
//! Crash: the two superblock pages are written in turn, each followed by a sync. Whichever is lost,
//! torn or damaged, the other one still points at a record that was not overwritten: space is freed
//! only up to the older of the two tails.

use std::sync::Arc;

use lsvd_common::ids::ObjectSeq;
use lsvd_common::log::header::LogSuperblock;
use lsvd_common::units::PAGE_BYTES;
use tokio::time::Instant;

use crate::batch::Batch;
use crate::disk::{AlignedBuf, Disk};
use crate::error::{Error, Result};
use crate::state::Shared;

/// See the module.
#[derive(Debug)]
pub(crate) struct Tail {
    superblock: LogSuperblock,
    /// The tail in the older of the two copies.
    older_tail: u64,
}

/// Writes a log superblock to the page whose turn it is, and syncs.
pub(crate) async fn write_superblock(
    log: &dyn Disk,
    superblock: &LogSuperblock,
) -> std::io::Result<()> {
    let mut page = AlignedBuf::with_capacity(PAGE_BYTES as usize);
    page.extend_from_slice(&superblock.encode());
    log.write_at(superblock.generation % 2 * PAGE_BYTES, page.freeze()).await?;
    log.sync().await
}

impl Tail {
    /// Writes both copies, so that neither says anything of before.
    pub(crate) async fn start(
        log: &dyn Disk,
        mut superblock: LogSuperblock,
    ) -> std::io::Result<Self> {
        write_superblock(log, &superblock).await?;
        superblock.generation += 1;
        write_superblock(log, &superblock).await?;
        Ok(Self { superblock, older_tail: superblock.tail_page })
    }

    /// The records of `batch` are not needed any more, once no reader uses them.
    pub(crate) async fn retired(
        &mut self,
        shared: &Arc<Shared>,
        batch: &Arc<Batch>,
        object: ObjectSeq,
    ) -> Result<()> {
        batch.unpinned().await;
        self.older_tail = self.superblock.tail_page;
        self.superblock.tail_page = batch.end.page;
        self.superblock.tail_record = batch.end.record;
        self.superblock.tail_previous_crc = batch.end.previous_crc;
        self.superblock.retired_object = object;
        self.superblock.retired_write = batch.last_write;
        self.store(shared).await?;
        self.free(shared);
        // What only the older copy keeps would come free with the next batch. In a log that is full
        // of it there is none.
        let is_stuck = {
            let state = shared.state.lock();
            state.sealed.is_empty() && state.ring.used() * 2 >= state.ring.pages()
        };
        if is_stuck {
            self.older_tail = self.superblock.tail_page;
            self.store(shared).await?;
            self.free(shared);
        }
        Ok(())
    }

    /// Frees what neither copy points at.
    fn free(&self, shared: &Arc<Shared>) {
        #[cfg(feature = "canary")]
        if shared.options.canary == Some(crate::options::Canary::TailBeforeRetire) {
            return;
        }
        let freed = {
            let mut state = shared.state.lock();
            let before = state.ring.used();
            state.ring.free_to(self.older_tail);
            (before - state.ring.used()) * PAGE_BYTES
        };
        shared.admission.freed(freed, Instant::now());
        shared.space.notify_waiters();
        // A record may wait for space.
        shared.log_wake.notify_one();
    }

    /// Marks the log clean: nothing in it is needed.
    pub(crate) async fn close(&mut self, shared: &Arc<Shared>) -> Result<()> {
        self.superblock.clean = true;
        self.store(shared).await
    }

    async fn store(&mut self, shared: &Arc<Shared>) -> Result<()> {
        self.superblock.generation += 1;
        write_superblock(&*shared.log, &self.superblock).await.map_err(|error| {
            Error::disk(format!("write the log superblock of image {}", shared.name), error)
        })
    }
}
