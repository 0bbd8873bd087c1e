//! How generations end: crashes, closes, damage, loss of the SSD, and takeovers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lsvd_common::log::header::{LogSuperblock, RING_START_PAGE};
use lsvd_common::units::{PAGE_BYTES, PAGE_LEN};
use lsvd_engine::{ErrorKind, log_name};
use tokio::time::{sleep, timeout};

use super::{End, Generation};
use crate::disk::Crash;
use crate::gateway::Gateway;
use crate::plan::pick_weighted;
use crate::run::{MACHINES, SETTLE_MAX};

impl Generation {
    /// Ends the generation one way or another.
    pub(super) async fn end(&mut self, gateway: Arc<Gateway>) -> End {
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
    pub(super) fn note(&mut self, gateway: &Gateway) {
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
        let file = log_name(superblock.image);
        let ssd = &self.context.machines[self.heritage.machine];
        let pages = ssd.head(&file, 2 * PAGE_LEN).unwrap_or_default();
        let known = pages.split_at_checked(PAGE_LEN);
        let log = known.and_then(|(first, second)| LogSuperblock::newest(first, second).ok());
        let bit = match log {
            // Mostly where it hurts: in the records behind the tail.
            Some(log) if self.random.u8(0..4) != 0 => {
                let page = (log.tail_page + self.random.u64(0..24)) % log.ring_pages;
                ((RING_START_PAGE + page) * PAGE_BYTES + self.random.u64(0..PAGE_BYTES)) * 8
            }
            _ => self.random.u64(..) & !7,
        };
        self.heritage.log_damaged = ssd.flip(&file, bit + self.random.u64(0..8));
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
            Ok(Ok(())) => self.closed(gateway).await,
            Ok(Err(error)) => {
                let store = error.kind() == ErrorKind::Unavailable && self.context.store_fails();
                if !store {
                    gateway.refused("close", &error);
                }
            }
            Err(_) if patience.is_none() => {
                self.context.violation(format_args!("a close without faults does not end"));
            }
            Err(_) => {
                self.context.count(|coverage| coverage.close_cuts += 1);
                if self.random.u8(0..3) == 0 {
                    self.close_again(gateway).await;
                }
            }
        }
        self.crash()
    }

    /// A close ended well.
    async fn closed(&mut self, gateway: &Arc<Gateway>) {
        self.context.count(|coverage| coverage.closes += 1);
        // Let the clients hear of what was acknowledged.
        sleep(Duration::from_millis(1)).await;
        gateway.model.lock().store_all();
        if self.random.bool() {
            gateway.cache.close().await;
        }
        // The next gateway may be anywhere: nobody has the image.
        if self.random.u8(0..4) == 0 {
            self.note(gateway);
            self.heritage.machine = (self.heritage.machine + 1) % MACHINES;
        }
    }

    /// A close was given up by its caller, who tries again: it goes on, or says that it cannot.
    async fn close_again(&mut self, gateway: &Arc<Gateway>) {
        self.context.end_faults();
        match timeout(SETTLE_MAX, gateway.volume.close()).await {
            Ok(Ok(())) => self.closed(gateway).await,
            Ok(Err(error)) if error.kind() == ErrorKind::Unavailable => {}
            Ok(Err(error)) => {
                gateway.refused("close", &error);
            }
            Err(_) => self.context.violation(format_args!("a second close does not end")),
        }
    }

    /// The last generation: everything works, and closes.
    pub(super) async fn close_for_good(&mut self, gateway: &Arc<Gateway>) {
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
