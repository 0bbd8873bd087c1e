//! One generation: open, check what was recovered, let clients work, and end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lsvd_common::ids::Uuid;
use lsvd_common::log::header::LogSuperblock;
use lsvd_common::units::PAGE_LEN;
use lsvd_engine::cache::{CacheConfig, ReadCache};
use lsvd_engine::disk::DiskDir;
use lsvd_engine::{Error, ErrorKind, Places, Volume, VolumeOptions, World, log_name};
use lsvd_store::{ObjectStore, RetryPolicy, RetryingStore};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use crate::disk::Crash;
use crate::gateway::Gateway;
use crate::model::{Model, Stamp, stamp_of};
use crate::plan::pick_weighted;
use crate::run::{Context, Heritage, MACHINES, SETTLE_MAX};
use crate::store::Connection;

/// Opens that may fail in a row while there are faults; afterwards there are none.
const OPENS_WITH_FAULTS: u32 = 6;

/// Opens that may fail in a row without faults: requests of a crashed gateway may still come between.
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
                    return self.crash();
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
            // Nothing but a takeover gets around an owner; sometimes one that is not needed does no harm.
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
        let places = Places { store, logs, cache: Arc::clone(&cache) };
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

    /// Checks what was recovered and makes it the new beginning. `zombie` is the gateway that was taken over.
    async fn recovered(
        &mut self,
        opened: Opened,
        zombie: Option<&Arc<Gateway>>,
    ) -> Result<Arc<Gateway>, End> {
        let Opened { volume, cache, connection } = opened;
        let context = Arc::clone(&self.context);
        let count = volume.status().applied_write.0 as usize;
        let mut model = match zombie {
            None => self.heritage.model.clone(),
            Some(zombie) => {
                let mut model = zombie.model.lock();
                self.heritage.required = model.stored();
                model.take_over(count);
                model.clone()
            }
        };
        self.note_recovery(&volume, count, &model);
        let required = self.heritage.required.max(model.stored());
        if count < required || count > model.operations() {
            context.violation(format_args!(
                "recovery found {count} operations of {}; at least {required} must be there \
                 (flushed {}, in the store {}); {:?}",
                model.operations(),
                model.flushed(),
                model.stored(),
                volume.recovered()
            ));
            return Err(End::Over);
        }
        if self.heritage.log_damaged {
            context.count(|coverage| coverage.log_damage += 1);
        }
        let full = model.clone();
        model.recovered(count);
        self.heritage.model = model.clone();
        self.heritage.required = count;
        self.heritage.log_lost = false;
        self.heritage.log_damaged = false;
        self.heritage.checkpoint_damaged = false;
        let machine = self.heritage.machine;
        let gateway = Gateway::new(&context, machine, volume, cache, connection, model);
        for _ in 0..2 {
            self.whole_image_is(&gateway, count, &full).await?;
        }
        Ok(gateway)
    }

    fn note_recovery(&self, volume: &Volume, count: usize, model: &Model) {
        let found = volume.recovered();
        let fell_back = self.heritage.checkpoint_damaged;
        self.context.count(|coverage| {
            coverage.opens += 1;
            coverage.shorter_recoveries += u64::from(count < model.applied());
            coverage.log_replays += u64::from(found.records > 0);
            coverage.replayed_records += found.records;
            coverage.object_replays += u64::from(found.objects > 0 && found.checkpoint.is_some());
            coverage.leftovers += found.leftovers;
            coverage.checkpoint_fallbacks += u64::from(fell_back);
            coverage.stranded_logs += u64::from(found.set_aside.is_some());
        });
    }

    /// Reads the whole image in random pieces and compares it with the state after `count` operations.
    async fn whole_image_is(
        &mut self,
        gateway: &Gateway,
        count: usize,
        full: &Model,
    ) -> Result<(), End> {
        let expected = full.contents_at(count);
        let sectors = full.sectors();
        let mut found: Vec<Option<Stamp>> = Vec::with_capacity(expected.len());
        let unit = self.context.plan.unit();
        let mut at = 0;
        while at < sectors {
            let len = (self.random.u32(1..=1024) * unit).min(sectors - at);
            match self.read_whatever_it_takes(gateway, at, len).await? {
                Some(data) => found.extend(
                    data.chunks(512).zip(at..).map(|(bytes, sector)| stamp_of(bytes, sector)),
                ),
                // Reported as damaged, which is right if it is.
                None => {
                    found.extend(expected[at as usize..][..len as usize].iter().map(|s| Some(*s)))
                }
            }
            at += len;
        }
        let wrong =
            found.iter().zip(&expected).position(|(found, expected)| *found != Some(*expected));
        let Some(sector) = wrong else { return Ok(()) };
        let known: Option<Vec<Stamp>> = found.iter().copied().collect();
        let like = known.map(|found| full.states_like(&found));
        let different = found.iter().zip(&expected).filter(|(f, e)| **f != Some(**e)).count();
        self.context.violation(format_args!(
            "the recovered image is not the state after {count} operations of {}: {different} \
             sectors differ, the first is {sector}, which holds {:?} instead of {:?}; it is the \
             state after {like:?}; {:?}",
            full.operations(),
            found[sector],
            expected[sector],
            gateway.volume.recovered()
        ));
        Err(End::Over)
    }

    /// Reads; tries again while the store is away. `None` is damage that was reported.
    async fn read_whatever_it_takes(
        &mut self,
        gateway: &Gateway,
        start: u32,
        len: u32,
    ) -> Result<Option<bytes::Bytes>, End> {
        for attempt in 0..40 {
            if attempt == 10 {
                self.context.end_faults();
            }
            let answer = gateway.volume.read(u64::from(start) * 512, u64::from(len) * 512).await;
            let error = match answer {
                Ok(data) => return Ok(Some(data)),
                Err(error) => error,
            };
            if !gateway.refused("read", &error) {
                return Err(End::Over);
            }
            if error.kind() == ErrorKind::Corrupt {
                return Ok(None);
            }
            sleep(Duration::from_millis(500)).await;
        }
        if self.context.disk_failed(gateway.machine) {
            // The volume itself failed meanwhile. The next recovery has to cope.
            self.context.count(|coverage| coverage.failed_volumes += 1);
            return Err(self.crash());
        }
        self.context.violation(format_args!("a read does not succeed although no fault is left"));
        Err(End::Over)
    }

    /// Ends the generation one way or another.
    async fn end(&mut self, gateway: Arc<Gateway>) -> End {
        let ends = self.context.plan.ends.clone();
        if self.random.f64() < ends.settle && !self.settles(&gateway).await {
            return End::Over;
        }
        let weights = [
            ends.close,
            ends.close_cut,
            ends.process_crash,
            ends.power_crash,
            ends.wiped,
            ends.moved,
            ends.taken_over,
            ends.log_damage,
            ends.store_damage,
            ends.checkpoint_damage,
        ];
        let stopped = |how| End::Stopped { how, wiped: false };
        let end = match pick_weighted(&mut self.random, &weights) {
            Some(0) => self.close(&gateway, None).await,
            Some(1) => {
                let patience = Duration::from_millis(self.random.u64(0..500));
                self.close(&gateway, Some(patience)).await
            }
            Some(2) => stopped(Crash::Process),
            Some(4) => {
                let end = self.crash();
                match end {
                    End::Stopped { how, .. } => End::Stopped { how, wiped: true },
                    End::Over => end,
                }
            }
            Some(5) => {
                self.note(&gateway);
                self.heritage.machine = (self.heritage.machine + 1) % MACHINES;
                self.heritage.log_lost = true;
                return stopped(Crash::Process);
            }
            Some(6) => return self.taken_over(gateway).await,
            Some(7) => {
                self.note(&gateway);
                self.damage_log();
                return stopped(Crash::Process);
            }
            Some(8) => {
                if self.context.store.flip(&mut self.random).is_some() {
                    self.context.set_damaged();
                    self.context.count(|coverage| coverage.store_damage += 1);
                }
                stopped(Crash::Process)
            }
            Some(9) => {
                self.heritage.checkpoint_damaged = self.context.store.damage_checkpoint();
                stopped(Crash::Process)
            }
            _ => stopped(Crash::Power),
        };
        self.note(&gateway);
        end
    }

    /// Takes over what the gateway knows at its end.
    fn note(&mut self, gateway: &Gateway) {
        let context = &self.context;
        let status = gateway.volume.status();
        let mut model = gateway.model.lock();
        // The engine's own word: retired is in the store for good.
        model.store(status.retired_write.0 as usize);
        model.store(context.store.durable_write().0 as usize);
        self.heritage.required = model.applied().max(model.flushed());
        self.heritage.model = model.clone();
        drop(model);
        let stats = gateway.volume.stats();
        let cache = gateway.cache.stats();
        context.count(|coverage| {
            coverage.checkpoints += stats.checkpoints.load(Ordering::Relaxed);
            coverage.objects += stats.objects.load(Ordering::Relaxed);
            coverage.log_wraps += stats.log_bytes.load(Ordering::Relaxed) / status.log_bytes;
            coverage.cache_hits += cache.ssd_hits;
            coverage.cache_damage += cache.corrupt_dropped;
        });
    }

    /// Turns a bit of the log over. What no record speaks of as durable may be lost without a word.
    fn damage_log(&mut self) {
        let model = &self.heritage.model;
        self.heritage.required = model.witnessed().max(model.stored());
        let Some(superblock) = self.context.store.superblock() else { return };
        let bit = self.random.u64(..);
        let file = log_name(superblock.image);
        self.heritage.log_damaged = self.context.machines[self.heritage.machine].flip(&file, bit);
    }

    /// Closes; with `patience` a crash comes after that time.
    async fn close(&mut self, gateway: &Arc<Gateway>, patience: Option<Duration>) -> End {
        let limit = patience.unwrap_or(SETTLE_MAX);
        if patience.is_none() {
            self.context.end_faults();
        }
        gateway.closing.store(true, Ordering::Relaxed);
        gateway.stop.store(true, Ordering::Relaxed);
        match timeout(limit, gateway.volume.close()).await {
            Ok(Ok(())) => {
                self.context.count(|coverage| coverage.closes += 1);
                // Let the clients hear of what was acknowledged.
                sleep(Duration::from_millis(1)).await;
                let mut model = gateway.model.lock();
                let applied = model.applied();
                model.store(applied);
                drop(model);
                if self.random.bool() {
                    gateway.cache.close().await;
                }
                // The next gateway may be anywhere: nobody has the image.
                if self.random.u8(0..4) == 0 {
                    self.note(gateway);
                    self.heritage.machine = (self.heritage.machine + 1) % MACHINES;
                }
            }
            Ok(Err(error)) => {
                let store = error.kind() == ErrorKind::Unavailable && self.context.store_fails();
                if !store {
                    gateway.refused("close", &error);
                }
            }
            Err(_) if patience.is_none() => {
                self.context.violation(format_args!("a close without faults does not end"));
            }
            Err(_) => self.context.count(|coverage| coverage.close_cuts += 1),
        }
        self.crash()
    }

    /// The last generation: everything works, and closes.
    async fn close_for_good(&mut self, gateway: &Arc<Gateway>) {
        if self.settles(gateway).await && !gateway.has_failed() {
            self.close(gateway, None).await;
        }
    }

    /// Faults stop: a write, a flush, and then silence.
    async fn settles(&mut self, gateway: &Arc<Gateway>) -> bool {
        let context = Arc::clone(&self.context);
        context.end_faults();
        gateway.stop.store(true, Ordering::Relaxed);
        let unit = context.plan.unit();
        let write = timeout(SETTLE_MAX, gateway.write(0, unit, true)).await;
        if write.is_err() {
            context.violation(format_args!(
                "a write with FUA is not acknowledged although no fault is left: {:?}",
                gateway.volume.status()
            ));
            return false;
        }
        sleep(Duration::from_secs(120)).await;
        let operations = || {
            let disks = context.machines.iter().map(|machine| machine.operations().0).sum::<u64>();
            disks + context.store.counts().requests
        };
        let before = operations();
        sleep(Duration::from_secs(300)).await;
        let idle = operations() - before;
        if idle > 0 {
            context.violation(format_args!("an idle volume made {idle} requests in five minutes"));
            return false;
        }
        let status = gateway.volume.status();
        if !gateway.has_failed() && status.retired_write != status.applied_write {
            context.violation(format_args!("an idle volume keeps data from the store: {status:?}"));
            return false;
        }
        context.count(|coverage| coverage.settled += 1);
        !context.has_failed()
    }

    /// Another machine takes the image over while this gateway goes on.
    async fn taken_over(&mut self, zombie: Arc<Gateway>) -> End {
        let context = Arc::clone(&self.context);
        context.set_being_taken(true);
        self.heritage.machine = (zombie.machine + 1) % MACHINES;
        self.heritage.log_lost = true;
        let durable = context.store.durable_write().0 as usize;
        zombie.model.lock().store(durable);
        zombie.connection.depose();
        self.heritage.model = zombie.model.lock().clone();
        let Some(opened) = self.open().await else { return End::Over };
        let gateway = self.recovered(opened, Some(&zombie)).await;
        context.set_being_taken(false);
        let gateway = match gateway {
            Ok(gateway) => gateway,
            Err(end) => return end,
        };
        gateway.start();
        self.work().await;
        if self.random.bool() && !self.zombie_stops(&zombie).await {
            return End::Over;
        }
        self.note(&gateway);
        self.crash()
    }

    /// A gateway that was taken over and has something to store must learn it and stop.
    async fn zombie_stops(&mut self, zombie: &Arc<Gateway>) -> bool {
        let context = Arc::clone(&self.context);
        context.end_faults();
        let unit = context.plan.unit();
        let first = timeout(SETTLE_MAX, zombie.write(0, unit, false)).await;
        sleep(Duration::from_secs(120)).await;
        let second = timeout(SETTLE_MAX, zombie.write(0, unit, false)).await;
        if first.is_err() || second != Ok(false) {
            context.violation(format_args!(
                "a gateway that was taken over still acknowledges writes minutes later"
            ));
        }
        !context.has_failed()
    }
}
