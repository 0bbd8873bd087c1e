//! A simulated SSD: a directory of disks that forget what was not synced, tear what was in flight, and fail on request.
//!
//! Each disk has its contents as reads see them (`volatile`) and as they are on the medium (`durable`). A completed
//! write waits, sector by sector, for a sync that was called after it. Names change atomically and durably, at one
//! moment between the call and its answer.
//!
//! Crash: see [`SimDir::crash`].
//! Concurrency: one thread; an operation starts when it is called and completes at its time, also if nobody waits.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lsvd_common::units::SECTOR_LEN;
use lsvd_engine::disk::{AlignedBuf, Disk, DiskDir, DiskFuture};
use parking_lot::Mutex;

use crate::world::{SimTime, SimWorld};

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
    /// The process is killed: what had completed stays as it was, what was in flight happened in any part.
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

#[derive(Debug, Default)]
struct Media {
    volatile: Vec<u8>,
    durable: Vec<u8>,
    /// Completed writes that no sync covers, in order of completion.
    unsynced: Vec<Completed>,
    /// Completed writes so far.
    completed: u64,
    pending: BTreeMap<(SimTime, u64), Pending>,
    results: BTreeMap<u64, io::Result<()>>,
    next_id: u64,
}

#[derive(Debug)]
struct Completed {
    number: u64,
    offset: usize,
    data: Bytes,
    /// It is on the medium already. It stays in the list because older writes to its place are.
    durable: bool,
}

#[derive(Debug)]
enum Pending {
    Write { offset: usize, data: Bytes, durable: bool, fails: Option<fastrand::Rng> },
    Sync { covers: u64, fails: Option<fastrand::Rng> },
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
        let mut guard = file.media.lock();
        let media = &mut *guard;
        let at = (bit / 8) as usize % media.volatile.len();
        let turn = 1 << (bit % 8);
        media.volatile[at] ^= turn;
        media.durable[at] ^= turn;
        // Damage stays: a write that waits for its sync must not heal it.
        for write in &mut media.unsynced {
            if (write.offset..write.offset + write.data.len()).contains(&at) {
                let mut data = write.data.to_vec();
                data[at - write.offset] ^= turn;
                write.data = data.into();
            }
        }
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
        if self.handle.strong_count() == 0 && media.pending.is_empty() {
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
            let contents = vec![0; len as usize];
            let media = Media { volatile: contents.clone(), durable: contents, ..Media::default() };
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
        let id = {
            let mut media = self.media.lock();
            let id = media.next_id;
            media.next_id += 1;
            media.pending.insert((at, id), pending);
            id
        };
        let (world, media) = (Arc::clone(&self.world), Arc::clone(&self.media));
        Box::pin(async move {
            world.wait_until(at).await;
            let mut media = media.lock();
            media.advance(world.now());
            media.results.remove(&id).unwrap_or_else(|| Err(io::ErrorKind::BrokenPipe.into()))
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

fn injected() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl Media {
    /// Completes everything whose time has come.
    fn advance(&mut self, now: SimTime) {
        while let Some(entry) = self.pending.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, id), pending) = entry.remove_entry();
            let result = match pending {
                Pending::Write { offset, data, durable, fails: None } => {
                    self.complete(offset, data, durable);
                    Ok(())
                }
                Pending::Write { offset, data, fails: Some(mut random), .. } => {
                    let mut keep = Keep::choose(&mut random, 1, sectors(&data));
                    for (sector, piece) in pieces(offset, &data).enumerate() {
                        if keep.keeps(&mut random, 0, sector) {
                            self.complete(piece.0, piece.1, false);
                        }
                    }
                    Err(injected())
                }
                Pending::Sync { covers, fails } => self.synced(covers, fails),
            };
            self.results.insert(id, result);
        }
    }

    fn complete(&mut self, offset: usize, data: Bytes, durable: bool) {
        self.volatile[offset..offset + data.len()].copy_from_slice(&data);
        self.completed += 1;
        self.unsynced.push(Completed { number: self.completed, offset, data, durable });
    }

    fn synced(&mut self, covers: u64, fails: Option<fastrand::Rng>) -> io::Result<()> {
        let behind = self.unsynced.partition_point(|write| write.number <= covers);
        let covered = self.unsynced.drain(..behind);
        let Some(mut random) = fails else {
            for write in covered {
                self.durable[write.offset..][..write.data.len()].copy_from_slice(&write.data);
            }
            return Ok(());
        };
        // What a failed sync did not get to the medium never gets there: a later sync does not try again.
        for write in covered {
            for (at, piece) in pieces(write.offset, &write.data) {
                if write.durable || random.bool() {
                    self.durable[at..at + piece.len()].copy_from_slice(&piece);
                }
            }
        }
        Err(injected())
    }

    fn crash(&mut self, how: Crash, random: &mut fastrand::Rng, report: &mut CrashReport) {
        let mut in_flight = Vec::new();
        for pending in std::mem::take(&mut self.pending).into_values() {
            if let Pending::Write { offset, data, .. } = pending {
                in_flight.push((offset, data, false));
            }
        }
        self.results.clear();
        random.shuffle(&mut in_flight);
        let mut writes = Vec::new();
        if how == Crash::Power {
            let unsynced = self.unsynced.drain(..);
            writes.extend(unsynced.map(|write| (write.offset, write.data, write.durable)));
        }
        writes.append(&mut in_flight);
        let count = writes.iter().map(|(_, data, _)| sectors(data)).sum();
        let mut keep = Keep::choose(random, writes.len(), count);
        let mut sector = 0;
        for (index, (offset, data, durable)) in writes.into_iter().enumerate() {
            let mut kept = 0;
            for (at, piece) in pieces(offset, &data) {
                if keep.keeps(random, index, sector) || durable {
                    kept += 1;
                    match how {
                        Crash::Process => self.complete(at, piece, false),
                        Crash::Power => {
                            self.durable[at..at + piece.len()].copy_from_slice(&piece);
                        }
                    }
                }
                sector += 1;
            }
            report.torn += u64::from(kept > 0 && kept < sectors(&data));
            report.lost += u64::from(kept == 0);
        }
        if how == Crash::Power {
            self.volatile.clone_from(&self.durable);
        }
    }
}

/// Which sectors of the writes that a crash hit are kept.
#[derive(Debug)]
enum Keep {
    All,
    None,
    /// Each sector on its own.
    Sectors(f64),
    /// Each write as a whole.
    Writes {
        share: f64,
        index: usize,
        kept: bool,
    },
    /// The first so many sectors.
    Prefix(usize),
    AllBut(usize),
    Only(usize),
}

impl Keep {
    fn choose(random: &mut fastrand::Rng, writes: usize, sectors: usize) -> Self {
        let any = sectors.max(1);
        match random.u8(0..8) {
            0 => Self::All,
            1 => Self::None,
            2 => Self::Prefix(random.usize(0..any)),
            3 => Self::AllBut(random.usize(0..any)),
            4 => Self::Only(random.usize(0..any)),
            5 => Self::Sectors(random.f64()),
            _ => Self::Writes { share: random.f64(), index: writes, kept: false },
        }
    }

    fn keeps(&mut self, random: &mut fastrand::Rng, write: usize, sector: usize) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Sectors(share) => random.f64() < *share,
            Self::Writes { share, index, kept } => {
                if *index != write {
                    (*index, *kept) = (write, random.f64() < *share);
                }
                *kept
            }
            Self::Prefix(count) => sector < *count,
            Self::AllBut(one) => sector != *one,
            Self::Only(one) => sector == *one,
        }
    }
}

fn sectors(data: &Bytes) -> usize {
    data.len() / SECTOR_LEN
}

/// The sectors of a write: byte offset and data of each.
fn pieces(offset: usize, data: &Bytes) -> impl Iterator<Item = (usize, Bytes)> {
    let data = data.clone();
    (0..sectors(&data)).map(move |sector| {
        let from = sector * SECTOR_LEN;
        (offset + from, data.slice(from..from + SECTOR_LEN))
    })
}
