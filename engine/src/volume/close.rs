//! The clean end of a volume.
//!
//! Crash: nothing here is needed for recovery. Until the superblock is released, the next open with
//! the same log goes on from the log; after it, everything is in the store.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::error::{Error, ErrorKind, Result};
use crate::state::Phase;
use crate::volume::Volume;

/// How long the drain sleeps at most before it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How often a close that waits for the store says so.
const CLOSE_REPORT: Duration = Duration::from_secs(10);

impl Volume {
    /// Closes the volume: refuses new writes, drains to the store, writes a checkpoint, releases
    /// the image. Reads go on until the end. Waits for the store for as long as it takes;
    /// dropping the future leaves a volume that a later open recovers, with nothing lost.
    ///
    /// # Errors
    /// `Fenced`, `Failed`; then the image was not released. `Closed` if it was closed before.
    pub async fn close(&self) -> Result<()> {
        let mut tasks = self.tasks.lock().await;
        if tasks.is_none() {
            return Err(Error::new(ErrorKind::Closed, "the volume is closed"));
        }
        {
            let mut state = self.shared.state.lock();
            if let Phase::Failed(error) = &state.phase {
                return Err(error.clone());
            }
            state.phase = Phase::Closing;
        }
        self.drain().await?;
        // From here on there is no way back: whatever interrupts this leaves a volume to be
        // recovered.
        let Some(mut running) = tasks.take() else {
            return Err(Error::new(ErrorKind::Closed, "the volume is closed"));
        };
        self.shared.state.lock().stop = true;
        self.shared.log_wake.notify_one();
        self.shared.destage_wake.notify_one();
        let ended = |error| Error::with(ErrorKind::Failed, "a task of the volume ended", error);
        (&mut running.writer).await.map_err(ended)?;
        let mut destager = (&mut running.destager).await.map_err(ended)?;
        if let Some(error) = self.shared.failure() {
            return Err(error);
        }
        destager.close().await?;
        self.shared.term.release().await?;
        self.shared.state.lock().phase = Phase::Closed;
        Ok(())
    }

    /// Waits until nothing is queued, open or on its way.
    async fn drain(&self) -> Result<()> {
        let mut report = Instant::now() + CLOSE_REPORT;
        loop {
            let mut retired = std::pin::pin!(self.shared.retired.notified());
            retired.as_mut().enable();
            self.shared.destage_wake.notify_one();
            {
                let state = self.shared.state.lock();
                if let Phase::Failed(error) = &state.phase {
                    return Err(error.clone());
                }
                // The head of the ring says nothing of a record that is just being put together on
                // another thread.
                let applied = state.writing == 0;
                let batches = state.open.is_none() && state.sealed.is_empty();
                if state.queue.is_empty() && applied && batches {
                    return Ok(());
                }
                if report <= Instant::now() {
                    let bytes = state.dirty_bytes();
                    tracing::warn!(image = %self.shared.name, bytes, "close waits for the store");
                    report = Instant::now() + CLOSE_REPORT;
                }
            }
            drop(timeout(LOOK_AGAIN, retired).await);
        }
    }
}
