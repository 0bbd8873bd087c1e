//! One generation: open, check what was recovered, let clients work, and end.

mod check;
mod end;

use std::sync::Arc;
use std::time::Duration;

use lsvd_common::ids::Uuid;
use lsvd_common::log::header::LogSuperblock;
use lsvd_common::units::PAGE_LEN;
use lsvd_engine::cache::{CacheConfig, ReadCache};
use lsvd_engine::disk::{BufPool, DiskDir};
use lsvd_engine::{Error, ErrorKind, Places, Volume, VolumeOptions, World, log_name};
use lsvd_store::{ObjectStore, RetryPolicy, RetryingStore};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use crate::disk::Crash;
use crate::run::{Context, Heritage};
use crate::store::Connection;

/// Opens that may fail in a row while there are faults; afterwards there are none.
const OPENS_WITH_FAULTS: u32 = 6;

/// Opens that may fail in a row without faults: requests of a crashed gateway may still come
/// between.
const OPENS_MAX: u32 = 60;

/// The file of the read cache on an SSD.
const CACHE_FILE: &str = "cache";

/// How a generation ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// The run is over.
    Over,
    /// The machine stopped.
    Stopped { how: Crash, wiped: bool },
}

/// See the module.
pub(crate) struct Generation {
    context: Arc<Context>,
    random: fastrand::Rng,
    heritage: Heritage,
    is_last: bool,
}

/// An open volume and what it needs.
struct Opened {
    volume: Volume,
    cache: Arc<ReadCache>,
    connection: Arc<Connection>,
}

impl Generation {
    pub(crate) fn new(
        context: &Arc<Context>,
        random: fastrand::Rng,
        heritage: Heritage,
        is_last: bool,
    ) -> Self {
        Self { context: Arc::clone(context), random, heritage, is_last }
    }

    pub(crate) fn into_heritage(self) -> Heritage {
        self.heritage
    }

    pub(crate) async fn run(&mut self) -> End {
        self.context.begin_faults();
        let cut = self.random.f64() < self.context.plan.ends.open_cut && !self.is_last;
        let opened = if cut {
            let patience = Duration::from_millis(self.random.u64(0..400));
            match timeout(patience, self.open()).await {
                Ok(opened) => opened,
                Err(_) => {
                    self.context.count(|coverage| coverage.open_cuts += 1);
                    if self.random.u8(0..3) != 0 {
                        return self.crash();
                    }
                    // Whoever wanted to open gave up; the process lives on and tries again.
                    self.open().await
                }
            }
        } else {
            self.open().await
        };
        let Some(opened) = opened else { return End::Over };
        let gateway = match self.recovered(opened, None).await {
            Ok(gateway) => gateway,
            Err(end) => return end,
        };
        if self.is_last {
            self.close_for_good(&gateway).await;
            return End::Over;
        }
        gateway.start();
        self.work().await;
        let end = self.end(gateway).await;
        if self.context.has_failed() { End::Over } else { end }
    }

    /// Time passes, or something goes wrong.
    async fn work(&mut self) {
        let length = self.random.u64(0..=self.context.plan.generation_max_ms);
        let passes = sleep(Duration::from_millis(length));
        let fails = self.context.failed.notified();
        tokio::select! {
            biased;
            () = fails => {}
            () = passes => {}
        }
    }

    /// A crash of either kind.
    fn crash(&mut self) -> End {
        let how = if self.random.bool() { Crash::Process } else { Crash::Power };
        End::Stopped { how, wiped: false }
    }

    /// Opens the image on the heritage's machine, as often as it takes.
    async fn open(&mut self) -> Option<Opened> {
        for attempt in 0..OPENS_MAX {
            if attempt == OPENS_WITH_FAULTS {
                self.context.end_faults();
            }
            let machine = self.heritage.machine;
            let takeover = self.heritage.log_lost && self.random.u8(0..4) != 0;
            let held = self.is_held_elsewhere(machine);
            // Nothing but a takeover gets around an owner; sometimes one that is not needed does no
            // harm.
            let takeover = takeover || (attempt > OPENS_WITH_FAULTS && held);
            let takeover = takeover || self.random.u8(0..10) == 0;
            let durable = self.context.store.durable_write().0 as usize;
            self.heritage.model.store(durable);
            if takeover && self.heritage.log_damaged {
                // A takeover accepts the loss of a log that cannot be read, even if it fails later.
                self.lose_log();
            }
            let error = match self.open_once(machine, takeover).await {
                Ok(opened) => {
                    self.context.count(|coverage| coverage.takeovers += u64::from(takeover));
                    return Some(opened);
                }
                Err(error) => error,
            };
            self.context.count(|coverage| coverage.failed_opens += 1);
            if !self.may_fail(&error, held) {
                return None;
            }
            sleep(Duration::from_millis(self.random.u64(1..2000))).await;
        }
        self.context.violation(format_args!("the image cannot be opened, for no reason"));
        None
    }

    /// Judges a failed open. False if the run is over.
    fn may_fail(&mut self, error: &Error, held: bool) -> bool {
        let context = Arc::clone(&self.context);
        match error.kind() {
            ErrorKind::InUse => {
                context.count(|coverage| coverage.refused_opens += u64::from(held));
                true
            }
            ErrorKind::Unavailable | ErrorKind::Fenced => true,
            ErrorKind::Corrupt if self.heritage.log_damaged => {
                // Refused, as it should be. What the store has is all that is left.
                context.count(|coverage| coverage.log_damage_refused += 1);
                self.lose_log();
                true
            }
            ErrorKind::Corrupt if context.is_damaged() => {
                context.count(|coverage| coverage.store_damage_reported += 1);
                false
            }
            _ => {
                context.violation(format_args!("open: {error:?}"));
                false
            }
        }
    }

    fn lose_log(&mut self) {
        self.heritage.log_lost = true;
        self.heritage.required = self.heritage.required.min(self.heritage.model.stored());
    }

    /// True if the superblock names a log that is not on this machine.
    fn is_held_elsewhere(&self, machine: usize) -> bool {
        let Some(superblock) = self.context.store.superblock() else { return false };
        let Some(owner) = superblock.owner else { return false };
        let file = log_name(superblock.image);
        let pages = self.context.machines[machine].head(&file, 2 * PAGE_LEN);
        let found = pages.and_then(|pages| {
            let (first, second) = pages.split_at(PAGE_LEN);
            LogSuperblock::newest(first, second).ok()
        });
        found.is_none_or(|log| log.log != owner.log)
    }

    async fn open_once(&mut self, machine: usize, takeover: bool) -> Result<Opened, Error> {
        let context = &self.context;
        let directory = &context.machines[machine];
        let connection = context.store.connect();
        let mut store: Arc<dyn ObjectStore> = Arc::clone(&connection) as _;
        if context.plan.retries {
            let policy = RetryPolicy {
                pause_first: Duration::from_millis(20),
                pause_max: Duration::from_secs(1),
                attempt_max: Duration::from_secs(3),
                deadline: Duration::from_secs(20),
                seed: self.random.u64(..),
            };
            store = Arc::new(RetryingStore::new(store, policy));
        }
        let config = CacheConfig {
            ram_bytes: context.plan.cache_ram_bytes,
            new_cache: Uuid::from_u128(self.random.u128(..)),
            runtime: Handle::current(),
        };
        let cache_disk = match context.plan.cache_ssd_bytes {
            None => None,
            Some(bytes) => match directory.open(CACHE_FILE).await {
                Ok(None) => directory.create(CACHE_FILE, bytes).await.ok(),
                Ok(found) => found,
                Err(_) => None,
            },
        };
        let cache = ReadCache::open(config, cache_disk).await;
        let mut options = VolumeOptions::new(Handle::current(), Handle::current());
        context.plan.set(&mut options);
        options.owner_host = format!("machine-{machine}");
        options.owner_pid = 1;
        options.world = Arc::clone(&context.world) as Arc<dyn World>;
        let logs = Arc::clone(directory) as Arc<dyn DiskDir>;
        let places = Places { store, logs, cache: Arc::clone(&cache), buffers: BufPool::default() };
        context.world.trace(
            "opens",
            [machine as u64, u64::from(takeover), 0],
            format_args!("machine {machine}, takeover {takeover}"),
        );
        let opened = Volume::open(places, &context.name, options, takeover).await;
        context.world.trace(
            "opened",
            [u64::from(opened.is_ok()), 0, 0],
            format_args!("{:?}", opened.as_ref().map(Volume::recovered)),
        );
        let volume = opened?;
        connection.set_epoch(volume.epoch().0);
        context.store.term_began(volume.status().retired_object);
        Ok(Opened { volume, cache, connection })
    }
}
