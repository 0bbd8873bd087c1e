//! Threads that serve connections: each runs a single-threaded tokio runtime and owns an io_uring
//! for the SSD.
//!
//! A volume has a home thread. Its log writer and its connections run there, so a write crosses no
//! thread between the socket and the SSD. A volume's state has a lock of its own all the same:
//! other front ends may come from elsewhere.

use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use lsvd_engine::disk::ring;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use crate::polling;

/// The threads. Dropping it stops them once their tasks are gone.
#[derive(Debug)]
pub(crate) struct Workers {
    handles: Vec<Handle>,
    threads: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl Workers {
    /// Starts `count` threads that poll for so long before they sleep.
    pub(crate) fn start(count: usize, poll: Duration) -> anyhow::Result<Self> {
        match ring::support() {
            Ok(mode) => tracing::info!(?mode, "the SSD is reached through io_uring"),
            Err(refused) => tracing::warn!(%refused, "the SSD is reached through blocking threads"),
        }
        let (stop, _) = watch::channel(false);
        let mut workers = Self { handles: Vec::new(), threads: Vec::new(), stop };
        for index in 0..count {
            let runtime = Builder::new_current_thread().enable_all().build();
            let runtime = runtime.context("start a worker's runtime")?;
            workers.handles.push(runtime.handle().clone());
            let mut stopped = workers.stop.subscribe();
            let thread = std::thread::Builder::new().name(format!("lsvd-{index}"));
            let thread = thread.spawn(move || {
                let local = LocalSet::new();
                local.block_on(&runtime, async {
                    let ring = ring::install();
                    let guard = ring.map(|(guard, driver)| {
                        tokio::task::spawn_local(driver);
                        guard
                    });
                    tokio::task::spawn_local(polling::install(poll));
                    // A closed channel is a stop as well.
                    drop(stopped.wait_for(|stop| *stop).await);
                    drop(guard);
                });
            });
            workers.threads.push(thread.context("start a worker thread")?);
        }
        Ok(workers)
    }

    /// The threads, to run tasks on.
    pub(crate) fn homes(&self) -> Vec<Handle> {
        self.handles.clone()
    }

    /// Ends all threads and waits for them.
    pub(crate) fn stop(mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
    }
}

/// Counts what is running: everybody holds a clone of the sender, the receiver learns when all are
/// gone.
pub(crate) type Running = mpsc::Sender<()>;
