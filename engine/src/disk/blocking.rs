//! A few threads that execute operations where no ring can.
//!
//! Invariants: 1. At most [`WORKERS_MAX`] workers run. 2. While operations wait, at least one
//! worker runs or is about to, so none waits for ever. 3. What was taken on is done, even when the
//! runtime shuts down meanwhile.
//! Concurrency: any thread; the lock is held to push or pop.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::op::Op;
use super::{QUEUED_OPS_MAX, Refused};

/// Threads that may block on one directory's device at the same time: enough depth for the rate of
/// an SSD, and few enough that the threads of a process without a ring stay countable.
const WORKERS_MAX: usize = 32;

#[derive(Default)]
pub(super) struct Blocking {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Op>,
    workers: usize,
}

impl Blocking {
    /// Takes `op` on and returns at once, except outside of a runtime: there is nobody to hold up,
    /// and `op` is executed here.
    pub(super) fn submit(self: &Arc<Self>, op: Op) {
        {
            let mut state = self.state.lock();
            if state.waiting.len() >= QUEUED_OPS_MAX {
                drop(state);
                return op.finish(Err(Refused::QueueFull.into()));
            }
            state.waiting.push_back(op);
            if state.workers == WORKERS_MAX {
                return;
            }
            state.workers += 1;
        }
        let worker = Worker(Arc::clone(self));
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn_blocking(move || drop(worker));
        }
    }
}

/// Works in its drop, which is also what becomes of it when a runtime shuts down before it was
/// started: the work is then done by the thread that shuts down, and invariants 2 and 3 hold.
struct Worker(Arc<Blocking>);

impl Drop for Worker {
    fn drop(&mut self) {
        loop {
            let op = {
                let mut state = self.0.state.lock();
                let op = state.waiting.pop_front();
                if op.is_none() {
                    state.workers -= 1;
                }
                op
            };
            match op {
                Some(op) => op.run(),
                None => return,
            }
        }
    }
}

/// Runs `work` on a thread that may block, or here if there is no runtime.
pub(super) async fn run<T, F>(work: F) -> io::Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> io::Result<T> + Send + 'static,
{
    match Handle::try_current() {
        Ok(runtime) => {
            runtime.spawn_blocking(work).await.unwrap_or_else(|_| Err(Refused::Dropped.into()))
        }
        Err(_) => work(),
    }
}
