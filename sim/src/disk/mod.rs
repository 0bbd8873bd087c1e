//! A simulated SSD: a directory of disks that forget what was not synced, tear what was in flight,
//! and fail on request.
//!
//! Each disk has its contents as reads see them (`volatile`) and as they are on the medium
//! (`durable`). A completed write waits, sector by sector, for a sync that was called after it.
//! Names change atomically and durably, at one moment between the call and its answer.
//!
//! Crash: see [`SimDir::crash`].
//! Concurrency: one thread; an operation starts when it is called and completes at its time, also
//! if nobody waits.

mod media;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lsvd_engine::disk::{AlignedBuf, Disk, DiskDir, DiskFuture};
use parking_lot::Mutex;

use crate::world::{SimTime, SimWorld};
use media::{Media, Pending, injected};

/// How an SSD behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiskRates {
    /// Latencies are drawn from 0 to this, in milliseconds.
    pub(crate) latency_max_ms: u64,
    /// Probability that a read, a write, a sync fails.
    pub(crate) read_error: f64,
    pub(crate) write_error: f64,
    pub(crate) sync_error: f64,
}

impl DiskRates {
    /// Fast, and without a fault.
    pub(crate) const CALM: Self =
        Self { latency_max_ms: 1, read_error: 0.0, write_error: 0.0, sync_error: 0.0 };
}

/// How a machine stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// The process is killed: what had completed stays as it was, what was in flight happened in
    /// any part.
    Process,
    /// Power is cut: of everything that no sync covered any part is there.
    Power,
}

/// What a crash did, for the coverage summary.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CrashReport {
    /// Writes of which some sectors were kept and some lost.
    pub(crate) torn: u64,
    /// Writes that were lost as a whole.
    pub(crate) lost: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct SimDir {
    world: Arc<SimWorld>,
    place: String,
    shared: Arc<Mutex<Shared>>,
    files: Mutex<BTreeMap<String, File>>,
}

/// What all disks of an SSD share.
#[derive(Debug)]
struct Shared {
    random: fastrand::Rng,
    rates: DiskRates,
    operations: u64,
    errors: u64,
}

#[derive(Debug)]
struct File {
    media: Arc<Mutex<Media>>,
    handle: Weak<SimDisk>,
}

/// A disk that is open.
#[derive(Debug)]
struct SimDisk {
    world: Arc<SimWorld>,
    shared: Arc<Mutex<Shared>>,
    media: Arc<Mutex<Media>>,
    name: String,
    len: u64,
}

impl SimDir {
    pub(crate) fn new(world: &Arc<SimWorld>, place: &str) -> Arc<Self> {
        let shared =
            Shared { random: world.fork(), rates: DiskRates::CALM, operations: 0, errors: 0 };
        Arc::new(Self {
            world: Arc::clone(world),
            place: place.to_owned(),
            shared: Arc::new(Mutex::new(shared)),
            files: Mutex::default(),
        })
    }

    pub(crate) fn set_rates(&self, rates: DiskRates) {
        self.shared.lock().rates = rates;
    }

    /// Operations so far, and how many of them failed.
    pub(crate) fn operations(&self) -> (u64, u64) {
        let shared = self.shared.lock();
        (shared.operations, shared.errors)
    }

    /// Stops the machine. All handles must be gone: the runtime that held them was dropped.
    pub(crate) fn crash(&self, how: Crash) -> CrashReport {
        let mut report = CrashReport::default();
        let now = self.world.now();
        let mut random = self.shared.lock().random.fork();
        for file in self.files.lock().values_mut() {
            file.handle = Weak::new();
            let mut media = file.media.lock();
            media.advance(now);
            media.crash(how, &mut random, &mut report);
        }
        self.world.trace(
            "crash",
            [report.torn, report.lost, 0],
            format_args!("{} {how:?} {report:?}", self.place),
        );
        report
    }

    /// The SSD is replaced by an empty one.
    pub(crate) fn wipe(&self) {
        self.files.lock().clear();
    }

    /// Turns one bit over, on the medium and for every reader. False if there is no such disk.
    pub(crate) fn flip(&self, name: &str, bit: u64) -> bool {
        let files = self.files.lock();
        let Some(file) = files.get(name) else { return false };
        let mut media = file.media.lock();
        let at = (bit / 8) as usize % media.volatile.len();
        media.flip(at, bit);
        self.world.trace("flip", [at as u64, bit % 8, 0], format_args!("{name} byte {at}"));
        true
    }

    /// The first `len` bytes of a disk as a reader would see them.
    pub(crate) fn head(&self, name: &str, len: usize) -> Option<Vec<u8>> {
        let files = self.files.lock();
        files.get(name).map(|file| file.media.lock().volatile[..len].to_vec())
    }

    /// Half of the time that a change of names takes.
    async fn pause(&self) {
        let latency = {
            let mut shared = self.shared.lock();
            shared.operations += 1;
            shared.latency()
        };
        self.world.wait_until(self.world.now() + latency).await;
    }

    fn trace(&self, what: &'static str, name: &str) {
        let hash = u64::from(crc32c::crc32c(name.as_bytes()));
        self.world.trace(what, [hash, 0, 0], format_args!("{} {name}", self.place));
    }

    fn hand_out(&self, name: &str, file: &mut File) -> Arc<dyn Disk> {
        let disk = Arc::new(SimDisk {
            world: Arc::clone(&self.world),
            shared: Arc::clone(&self.shared),
            media: Arc::clone(&file.media),
            name: format!("{}/{name}", self.place),
            len: file.media.lock().volatile.len() as u64,
        });
        file.handle = Arc::downgrade(&disk);
        disk
    }
}

impl File {
    fn check_unused(&self, now: SimTime) -> io::Result<()> {
        let mut media = self.media.lock();
        media.advance(now);
        if self.handle.strong_count() == 0 && !media.is_busy() {
            Ok(())
        } else {
            Err(io::ErrorKind::ResourceBusy.into())
        }
    }
}

impl Shared {
    fn latency(&mut self) -> Duration {
        // A disk that is slow at times: one operation in fifty takes ten times as long.
        let factor = if self.random.u8(..) < 5 { 10 } else { 1 };
        Duration::from_millis(self.random.u64(0..=self.rates.latency_max_ms * factor))
    }

    /// True with probability `rate`.
    fn fails(&mut self, rate: f64) -> Option<fastrand::Rng> {
        let fails = self.random.f64() < rate;
        self.errors += u64::from(fails);
        fails.then(|| self.random.fork())
    }
}

#[async_trait]
impl DiskDir for SimDir {
    async fn open(&self, name: &str) -> io::Result<Option<Arc<dyn Disk>>> {
        self.pause().await;
        self.trace("open", name);
        let mut files = self.files.lock();
        let Some(file) = files.get_mut(name) else { return Ok(None) };
        file.check_unused(self.world.now())?;
        Ok(Some(self.hand_out(name, file)))
    }

    async fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn Disk>> {
        self.pause().await;
        self.trace("create", name);
        let disk = {
            let mut files = self.files.lock();
            if files.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let media = Media::new(len as usize);
            let mut file = File { media: Arc::new(Mutex::new(media)), handle: Weak::new() };
            let disk = self.hand_out(name, &mut file);
            files.insert(name.to_owned(), file);
            disk
        };
        self.pause().await;
        Ok(disk)
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.pause().await;
        self.trace("rename", from);
        {
            let mut files = self.files.lock();
            if let Some(target) = files.get(to).filter(|_| from != to) {
                target.check_unused(self.world.now())?;
            }
            let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
            files.insert(to.to_owned(), file);
        }
        self.pause().await;
        Ok(())
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        self.pause().await;
        self.trace("remove", name);
        {
            let mut files = self.files.lock();
            files.get(name).ok_or(io::ErrorKind::NotFound)?.check_unused(self.world.now())?;
            files.remove(name);
        }
        self.pause().await;
        Ok(())
    }

    async fn list(&self) -> io::Result<Vec<String>> {
        self.pause().await;
        Ok(self.files.lock().keys().cloned().collect())
    }

    fn describe(&self) -> String {
        self.place.clone()
    }
}

impl SimDisk {
    /// Queues a change and returns the wait for its outcome.
    fn start(&self, pending: Pending, latency: Duration) -> DiskFuture<()> {
        let at = self.world.now() + latency;
        let id = self.media.lock().start(at, pending);
        let (world, media) = (Arc::clone(&self.world), Arc::clone(&self.media));
        Box::pin(async move {
            world.wait_until(at).await;
            let mut media = media.lock();
            media.advance(world.now());
            media.outcome(id)
        })
    }

    fn write(&self, offset: u64, data: Bytes, durable: bool) -> DiskFuture<()> {
        let offset = match self.check(offset, data.len()) {
            Ok(offset) => offset,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let (latency, fails) = {
            let mut shared = self.shared.lock();
            shared.operations += 1;
            let rate = shared.rates.write_error;
            (shared.latency(), shared.fails(rate))
        };
        let crc = u64::from(crc32c::crc32c(&data)) << 1 | u64::from(durable);
        self.world.trace(
            if durable { "write durably" } else { "write" },
            [offset as u64, data.len() as u64, crc],
            format_args!("{} {offset}+{} in {latency:?}{}", self.name, data.len(), mark(&fails)),
        );
        self.start(Pending::Write { offset, data, durable, fails }, latency)
    }

    fn check(&self, offset: u64, len: usize) -> io::Result<usize> {
        let page = lsvd_engine::disk::PAGE;
        assert!(offset.is_multiple_of(page as u64) && len.is_multiple_of(page), "whole pages");
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.len => Ok(offset as usize),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

impl Disk for SimDisk {
    fn len(&self) -> u64 {
        self.len
    }

    fn write_at(&self, offset: u64, data: Bytes) -> DiskFuture<()> {
        self.write(offset, data, false)
    }

    fn write_durable_at(&self, offset: u64, data: Bytes) -> DiskFuture<()> {
        self.write(offset, data, true)
    }

    fn read_at(&self, offset: u64, len: usize) -> DiskFuture<AlignedBuf> {
        let start = match self.check(offset, len) {
            Ok(start) => start,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let (latency, fails) = {
            let mut shared = self.shared.lock();
            shared.operations += 1;
            let rate = shared.rates.read_error;
            (shared.latency(), shared.fails(rate))
        };
        let at = self.world.now() + latency;
        self.world.trace(
            "read",
            [offset, len as u64, u64::from(fails.is_some())],
            format_args!("{} {offset}+{len}{}", self.name, mark(&fails)),
        );
        let (world, media) = (Arc::clone(&self.world), Arc::clone(&self.media));
        Box::pin(async move {
            world.wait_until(at).await;
            if fails.is_some() {
                return Err(injected());
            }
            let mut media = media.lock();
            media.advance(world.now());
            let mut buffer = AlignedBuf::with_capacity(len);
            buffer.extend_from_slice(&media.volatile[start..start + len]);
            Ok(buffer)
        })
    }

    fn sync(&self) -> DiskFuture<()> {
        let (latency, fails) = {
            let mut shared = self.shared.lock();
            shared.operations += 1;
            let rate = shared.rates.sync_error;
            (shared.latency(), shared.fails(rate))
        };
        let covers = {
            let mut media = self.media.lock();
            media.advance(self.world.now());
            media.completed
        };
        self.world.trace(
            "sync",
            [covers, 0, u64::from(fails.is_some())],
            format_args!("{} up to write {covers} in {latency:?}{}", self.name, mark(&fails)),
        );
        self.start(Pending::Sync { covers, fails }, latency)
    }

    fn describe(&self) -> String {
        self.name.clone()
    }
}

fn mark(fails: &Option<fastrand::Rng>) -> &'static str {
    if fails.is_some() { " FAILS" } else { "" }
}
