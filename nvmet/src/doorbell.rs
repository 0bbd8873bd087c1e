//! How one connection is told, by others, that something concerns it.
//!
//! Concurrency: any thread may ring; the connection's task listens. Ringing sets the flag before it
//! wakes, and listening stores the waker before it looks at the flag, so that no ring is lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};

use parking_lot::Mutex;

#[derive(Debug, Default)]
pub(crate) struct Doorbell {
    is_rung: AtomicBool,
    is_closed: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Doorbell {
    /// Makes the connection look around.
    pub(crate) fn ring(&self) {
        self.is_rung.store(true, Ordering::Release);
        // Woken outside of the lock: a runtime may poll the task in here.
        let task = self.task.lock().clone();
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Ends the connection: its queue is gone.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.ring();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Whether it was rung since the last time; if not, the task is woken at the next ring.
    pub(crate) fn listen(&self, context: &Context<'_>) -> bool {
        let mut task = self.task.lock();
        match &mut *task {
            Some(known) => known.clone_from(context.waker()),
            None => *task = Some(context.waker().clone()),
        }
        drop(task);
        // The load spares the cache line a write in the usual case.
        self.is_rung.load(Ordering::Acquire) && self.is_rung.swap(false, Ordering::AcqRel)
    }
}
