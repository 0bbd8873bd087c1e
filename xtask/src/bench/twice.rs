//! What the disk could do at best for a stream of writes that is logged first and stored then: the
//! same bytes twice, written by nobody in particular.
//!
//! One side overwrites a file in large records, as a write log does; the other writes them again
//! as new files of 8 MiB that are made durable, as the embedded store does, and is never far
//! behind. The figure is what came in, and so half of what the disk took: the yardstick for our
//! sequential writes where log and store share a disk.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use lsvd_buf::AlignedBuf;

use crate::bench::servers::write_file;

/// Bytes of a record, and of an object.
const RECORD: u64 = 4 << 20;
const OBJECT: u64 = 8 << 20;

/// How many of each are written at a time.
const RECORDS: u64 = 2;
const OBJECTS: u64 = 4;

/// Bytes by which the objects may be behind.
const AHEAD_MAX: u64 = 64 << 20;

const LOG_MIB: u32 = 1024;

/// Pause of a side that waits for the other.
const WAIT: Duration = Duration::from_micros(200);

/// The two sides and their files.
pub(crate) struct Twice {
    log: File,
    dir: PathBuf,
}

/// What both sides know.
struct Progress {
    end: Instant,
    records: AtomicU64,
    objects: AtomicU64,
    stored: AtomicU64,
}

impl Twice {
    /// Makes the log in `dir`.
    pub(crate) fn new(dir: &Path) -> anyhow::Result<Self> {
        let path = write_file(&dir.join("twice.log"), LOG_MIB)?;
        let dir = dir.join("twice");
        std::fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
        let log = direct(OpenOptions::new().write(true), &path)?;
        Ok(Self { log, dir })
    }

    /// Writes for so long; bytes in a second of one of the two sides.
    pub(crate) fn measure(&self, seconds: u32) -> anyhow::Result<f64> {
        let begin = Instant::now();
        let progress = Progress {
            end: begin + Duration::from_secs(u64::from(seconds)),
            records: AtomicU64::new(0),
            objects: AtomicU64::new(0),
            stored: AtomicU64::new(0),
        };
        let written = std::thread::scope(|scope| {
            let records: Vec<_> =
                (0..RECORDS).map(|_| scope.spawn(|| self.log(&progress))).collect();
            let objects: Vec<_> =
                (0..OBJECTS).map(|_| scope.spawn(|| self.store(&progress))).collect();
            let mut written = 0;
            for side in records.into_iter().chain(objects) {
                written += side.join().expect("a writer does not panic")?;
            }
            anyhow::Ok(written)
        })?;
        let rate = written as f64 / 2.0 / begin.elapsed().as_secs_f64();
        for object in 0..progress.objects.into_inner() {
            // Those beyond the end of the measurement do not exist.
            drop(std::fs::remove_file(self.dir.join(object.to_string())));
        }
        Ok(rate)
    }

    /// Writes records; returns their bytes.
    fn log(&self, progress: &Progress) -> anyhow::Result<u64> {
        let data = data(RECORD)?;
        let mut written = 0;
        while Instant::now() < progress.end {
            let at = progress.records.load(Ordering::Relaxed) * RECORD;
            if at > progress.stored.load(Ordering::Relaxed) + AHEAD_MAX {
                std::thread::sleep(WAIT);
                continue;
            }
            let at = progress.records.fetch_add(1, Ordering::Relaxed) * RECORD;
            let offset = at % (u64::from(LOG_MIB) << 20);
            self.log.write_all_at(&data, offset).context("write the log")?;
            written += RECORD;
        }
        Ok(written)
    }

    /// Writes objects; returns their bytes.
    fn store(&self, progress: &Progress) -> anyhow::Result<u64> {
        let data = data(OBJECT)?;
        let dir = File::open(&self.dir).context("open the directory")?;
        let mut written = 0;
        let mut object = progress.objects.fetch_add(1, Ordering::Relaxed);
        while Instant::now() < progress.end {
            if (object + 1) * OBJECT > progress.records.load(Ordering::Relaxed) * RECORD {
                std::thread::sleep(WAIT);
                continue;
            }
            let path = self.dir.join(object.to_string());
            let file = direct(OpenOptions::new().write(true).create_new(true), &path)?;
            file.write_all_at(&data, 0).context("write an object")?;
            file.sync_all().context("sync an object")?;
            dir.sync_all().context("sync the directory")?;
            written += OBJECT;
            progress.stored.fetch_add(OBJECT, Ordering::Relaxed);
            object = progress.objects.fetch_add(1, Ordering::Relaxed);
        }
        Ok(written)
    }
}

fn direct(options: &mut OpenOptions, path: &Path) -> anyhow::Result<File> {
    let flags = rustix::fs::OFlags::DIRECT.bits();
    let file = options.custom_flags(flags.cast_signed()).open(path);
    file.with_context(|| format!("open {}", path.display()))
}

/// Bytes that do not compress.
fn data(bytes: u64) -> anyhow::Result<AlignedBuf> {
    let mut buffer = AlignedBuf::with_capacity(usize::try_from(bytes)?);
    let mut word = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..bytes / 8 {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        buffer.extend_from_slice(&word.to_le_bytes());
    }
    Ok(buffer)
}
