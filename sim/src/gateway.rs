//! One gateway of the scenario: an open volume, its clients, and what they know of the image.
//!
//! Concurrency: clients are tasks of the generation's runtime. A write is noted in the model in the
//! same step in which the engine is asked, so the order of the model is the order of calls. Writes
//! above the record size exclude others until they are acknowledged: their parts would mix.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lsvd_engine::cache::ReadCache;
use lsvd_engine::{Error, ErrorKind, FlushPolicy, Volume};
use parking_lot::Mutex;
use tokio::sync::RwLock;
use tokio::time::{sleep, timeout};

use crate::model::Model;
use crate::plan::{SECTORS_MAX, pick_weighted};
use crate::run::Context;
use crate::store::Connection;
use crate::world::SimTime;

/// Answers that were on their way when the volume failed, or was told that it is fenced, may arrive
/// this much later.
const GRACE: Duration = Duration::from_millis(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) context: Arc<Context>,
    pub(crate) machine: usize,
    pub(crate) volume: Volume,
    pub(crate) cache: Arc<ReadCache>,
    pub(crate) connection: Arc<Connection>,
    pub(crate) model: Mutex<Model>,
    /// Clients stop at their next step.
    pub(crate) stop: AtomicBool,
    /// A close began: requests may be refused as closed.
    pub(crate) closing: AtomicBool,
    /// When the volume failed, for a reason that is part of the plan.
    failed: Mutex<Option<SimTime>>,
    order: RwLock<()>,
    /// Steps that the clients may still take.
    steps: AtomicU64,
}

impl Gateway {
    pub(crate) fn new(
        context: &Arc<Context>,
        machine: usize,
        volume: Volume,
        cache: Arc<ReadCache>,
        connection: Arc<Connection>,
        model: Model,
    ) -> Arc<Self> {
        Arc::new(Self {
            context: Arc::clone(context),
            machine,
            volume,
            cache,
            connection,
            model: Mutex::new(model),
            stop: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            failed: Mutex::new(None),
            order: RwLock::new(()),
            steps: AtomicU64::new(context.plan.generation_steps),
        })
    }

    fn now(&self) -> SimTime {
        self.context.world.now()
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.lock().is_some()
    }

    /// Notes that the volume failed. True for the first time.
    fn fails(&self) -> bool {
        let now = self.now();
        let mut failed = self.failed.lock();
        let is_first = failed.is_none();
        failed.get_or_insert(now);
        is_first
    }

    /// Starts the clients.
    pub(crate) fn start(self: &Arc<Self>) {
        for _ in 0..self.context.plan.work.clients {
            let (gateway, random) = (Arc::clone(self), self.context.world.fork());
            tokio::spawn(async move { gateway.client(random).await });
        }
    }

    async fn client(&self, mut random: fastrand::Rng) {
        let work = &self.context.plan.work;
        let weights = [
            work.write,
            work.large_write,
            work.discard,
            work.flush,
            work.read,
            work.resize,
            work.sleep,
        ];
        while !self.stop.load(Ordering::Relaxed) && !self.context.has_failed() {
            let steps = self.steps.load(Ordering::Relaxed);
            if steps == 0 {
                return;
            }
            self.steps.store(steps - 1, Ordering::Relaxed);
            let step = pick_weighted(&mut random, &weights);
            let fua = random.f64() < work.fua;
            let goes_on = match step {
                Some(0) => {
                    let (start, len) = self.extent(&mut random, self.record_sectors());
                    self.write(start, len, fua).await
                }
                Some(1) => {
                    let (start, len) = self.extent(&mut random, 4 * self.record_sectors());
                    self.write(start, len, fua).await
                }
                Some(2) => {
                    let most = if random.u8(..) < 20 { self.sectors() } else { 64 };
                    let (start, len) = self.extent(&mut random, most);
                    self.discard(start, len, fua).await
                }
                Some(3) => self.flush(&mut random).await,
                Some(4) => {
                    let (start, len) = self.extent(&mut random, 128);
                    self.read(start, len, &mut random).await
                }
                Some(5) => self.resize(&mut random).await,
                _ => {
                    sleep(Duration::from_millis(random.u64(0..=work.sleep_max_ms))).await;
                    true
                }
            };
            if !goes_on {
                return;
            }
        }
    }

    fn sectors(&self) -> u32 {
        (self.volume.size_bytes() / 512) as u32
    }

    fn record_sectors(&self) -> u32 {
        (self.context.plan.sizes.record_bytes / 512) as u32
    }

    /// A random extent of whole sectors as clients see them: often small, at times up to `most`.
    fn extent(&self, random: &mut fastrand::Rng, most: u32) -> (u32, u32) {
        let unit = self.context.plan.unit();
        let most = (most / unit).max(1);
        let small = most.min(8);
        let len = if random.u8(..) < 200 { random.u32(1..=small) } else { random.u32(1..=most) };
        let all = self.sectors() / unit;
        let hot = if random.u8(..) < 230 { self.context.plan.work.hot_sectors / unit } else { all };
        let space = hot.max(len).min(all);
        let len = len.min(space);
        let start = random.u32(0..=space - len);
        (start * unit, len * unit)
    }

    /// Writes, and notes what that means. False if the client should end.
    pub(crate) async fn write(&self, start: u32, len: u32, fua: bool) -> bool {
        let parts = len.div_ceil(self.record_sectors());
        if parts > 1 {
            let _alone = self.order.write().await;
            return self.write_parts(start, len, fua).await;
        }
        let _shared = self.order.read().await;
        self.write_parts(start, len, fua).await
    }

    async fn write_parts(&self, start: u32, len: u32, fua: bool) -> bool {
        let mut data = Vec::new();
        let (mut at, end) = (start, start + len);
        let (mut last, flushed) = (0, self.model.lock().flushed());
        while at < end {
            let part = (end - at).min(self.record_sectors());
            let (operation, bytes) = self.model.lock().write(at, part);
            (last, at) = (operation, at + part);
            data.push(bytes);
        }
        let data = match <[Bytes; 1]>::try_from(data) {
            Ok([only]) => only,
            Err(parts) => parts.concat().into(),
        };
        let answer = self.volume.write(u64::from(start) * 512, data, fua).await;
        self.written(last, flushed, fua, answer.map(|write| write.0))
    }

    async fn discard(&self, start: u32, len: u32, fua: bool) -> bool {
        let _shared = self.order.read().await;
        let (operation, flushed) = {
            let mut model = self.model.lock();
            (model.discard(start, len), model.flushed())
        };
        let bytes = u64::from(len) * 512;
        let answer = self.volume.discard(u64::from(start) * 512, bytes, fua).await;
        self.written(operation, flushed, fua, answer.map(|write| write.0))
    }

    fn written(
        &self,
        operation: usize,
        flushed: usize,
        fua: bool,
        answer: Result<u64, Error>,
    ) -> bool {
        self.context.count(|coverage| coverage.writes += 1);
        let write = match answer {
            Ok(write) => write,
            Err(error) => return self.refused("write", &error),
        };
        if write != operation as u64 {
            self.context.violation(format_args!(
                "operation {operation} was acknowledged as write {write}: the order of calls is \
                 not the order of writes"
            ));
            return false;
        }
        self.acknowledged("write");
        let mut model = self.model.lock();
        model.apply(operation);
        model.witness(flushed);
        if fua {
            drop(model);
            self.flushed(operation);
        }
        true
    }

    /// An acknowledged flush covers `count` operations.
    fn flushed(&self, count: usize) {
        let mut model = self.model.lock();
        if self.context.plan.sizes.flush == FlushPolicy::Local {
            model.flush(count);
            return;
        }
        if let Some(kept) = model.taken_over().filter(|kept| count > *kept) {
            drop(model);
            self.context.violation(format_args!(
                "a gateway whose image was taken over with {kept} operations acknowledged that \
                 the store has {count}"
            ));
            return;
        }
        model.store(count);
    }

    async fn flush(&self, random: &mut fastrand::Rng) -> bool {
        let before = self.model.lock().applied();
        let patience = if random.u8(..) < 16 { random.u64(0..50) } else { 10_000_000 };
        let Ok(answer) = timeout(Duration::from_millis(patience), self.volume.flush()).await else {
            return true;
        };
        match answer {
            Ok(write) if (write.0 as usize) < before => {
                self.context.violation(format_args!(
                    "a flush covers {write} operations, {before} were acknowledged before it"
                ));
                false
            }
            Ok(write) => {
                self.context.count(|coverage| coverage.flushes += 1);
                self.acknowledged("flush");
                self.model.lock().apply(write.0 as usize);
                self.flushed(write.0 as usize);
                true
            }
            Err(error) => self.refused("flush", &error),
        }
    }

    async fn read(&self, start: u32, len: u32, random: &mut fastrand::Rng) -> bool {
        let check = self.model.lock().begin_read(start, len);
        let (offset, bytes) = (u64::from(start) * 512, u64::from(len) * 512);
        let in_memory = if random.bool() { self.volume.try_read(offset, bytes) } else { None };
        let patience = if random.u8(..) < 16 { random.u64(0..50) } else { 10_000_000 };
        let answer = match in_memory {
            Some(data) => Ok(data),
            None => {
                let read = self.volume.read(offset, bytes);
                match timeout(Duration::from_millis(patience), read).await {
                    Ok(answer) => answer,
                    Err(_) => return true,
                }
            }
        };
        match answer {
            Ok(data) => {
                self.context.count(|coverage| coverage.reads += 1);
                let checked = self.model.lock().end_read(&check, &data);
                if let Err(wrong) = checked {
                    let text =
                        format_args!("a read of {start}+{len} returned wrong bytes: {wrong}")
                            .to_string();
                    self.context.violation(format_args!("{text}"));
                    return false;
                }
                true
            }
            Err(error) => self.refused("read", &error),
        }
    }

    /// Grows the image, or asks for the size that it has, and writes at the end that it got.
    async fn resize(&self, random: &mut fastrand::Rng) -> bool {
        let unit = self.context.plan.unit();
        let (resize, sectors) = {
            let mut model = self.model.lock();
            let sectors = model.sectors() + random.u32(0..=256) * unit;
            let sectors = sectors.min(SECTORS_MAX);
            (model.ask_size(sectors), sectors)
        };
        let patience = if random.u8(..) < 64 { random.u64(0..50) } else { 10_000_000 };
        let asked = self.volume.resize(u64::from(sectors) * 512);
        let Ok(answer) = timeout(Duration::from_millis(patience), asked).await else {
            return true;
        };
        let (now, is_taken) = {
            let model = self.model.lock();
            (model.sectors(), model.taken_over().is_some())
        };
        match answer {
            // An answer may be late; what it says was found by whoever took over.
            Ok(()) if is_taken && sectors != now => {
                self.context.violation(format_args!(
                    "a gateway whose image was taken over with {now} sectors acknowledged that it \
                     has {sectors}"
                ));
                return false;
            }
            Ok(()) => {
                self.context.count(|coverage| coverage.resizes += 1);
                self.model.lock().resize(resize, sectors);
            }
            Err(error) if error.kind() == ErrorKind::Invalid && sectors < now => {
                self.model.lock().refuse_size(resize);
                return true;
            }
            Err(error) if error.kind() == ErrorKind::Unavailable && self.context.store_fails() => {
                return true;
            }
            Err(error) => return self.refused("resize", &error),
        }
        self.write(sectors - unit, unit, false).await
    }

    /// Something was acknowledged: a gateway that was told of its fence must not do that.
    fn acknowledged(&self, what: &str) {
        let seen = self.connection.fence_seen();
        if let Some(seen) = seen.filter(|seen| self.now() > *seen + GRACE) {
            self.context.violation(format_args!(
                "a {what} was acknowledged at {:?}, the gateway was told at {seen:?} that it is \
                 fenced",
                self.now()
            ));
        }
        let failed = *self.failed.lock();
        if failed.is_some_and(|failed| self.now() > failed + GRACE) {
            self.context.violation(format_args!("a {what} was acknowledged after the failure"));
        }
    }

    /// Judges an error. True if the client may go on.
    pub(crate) fn refused(&self, what: &str, error: &Error) -> bool {
        let context = &self.context;
        let is_expected = match error.kind() {
            ErrorKind::Closed => self.closing.load(Ordering::Relaxed),
            ErrorKind::Fenced => {
                let fenced = self.model.lock().taken_over().is_some() || context.is_being_taken();
                if fenced && self.fails() {
                    context.count(|coverage| coverage.fenced += 1);
                }
                fenced
            }
            ErrorKind::Corrupt => {
                context.count(|coverage| coverage.store_damage_reported += 1);
                context.is_damaged()
            }
            ErrorKind::Unavailable if what == "read" => {
                return if context.store_fails() || context.disk_failed(self.machine) {
                    true
                } else {
                    context.violation(format_args!("read: {error:?}"));
                    false
                };
            }
            ErrorKind::Unavailable | ErrorKind::Failed => context.disk_failed(self.machine),
            _ => false,
        };
        if !is_expected || error.report().contains("panicked") {
            context.violation(format_args!("{what}: {error:?}"));
        } else if !matches!(error.kind(), ErrorKind::Closed | ErrorKind::Fenced)
            && what != "read"
            && self.fails()
        {
            context.count(|coverage| coverage.failed_volumes += 1);
        }
        what == "read" && error.kind() == ErrorKind::Corrupt
    }
}
