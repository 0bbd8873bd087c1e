//! Disks that are files of one directory of a local file system.
//!
//! Does not: open, make or remove the files, see [`super::locked`].
//! Invariants: an open disk holds an exclusive `flock` on its file until its last operation is
//! over.
//! Concurrency: any thread. Calls that may wait for the file system run where blocking is allowed.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::blocking::{self, Blocking};
use super::locked::{self, Creation, IoMode};
use super::op::{Op, OpenFile};
use super::ring;
use super::{
    AlignedBuf, BufPool, Disk, DiskDir, DiskFuture, PAGE, Refused, check_len, check_name,
    check_range,
};

/// A disk that is one file, open exclusively.
pub struct FileDisk {
    file: Arc<OpenFile>,
    len: u64,
    mode: IoMode,
    shared: Arc<Shared>,
}

/// What all disks of a directory use together, as they are on one device.
#[derive(Default)]
struct Shared {
    pool: BufPool,
    blocking: Arc<Blocking>,
}

impl FileDisk {
    /// How the file is read and written, which may be less than what was asked for.
    #[must_use]
    pub fn mode(&self) -> IoMode {
        self.mode
    }

    fn start(&self, op: Op) {
        if let Err(op) = ring::submit(op) {
            self.shared.blocking.submit(op);
        }
    }

    /// Direct I/O wants memory that starts at a page boundary.
    fn aligned(&self, data: Bytes) -> Bytes {
        if self.mode == IoMode::Buffered || data.as_ptr().addr().is_multiple_of(PAGE) {
            return data;
        }
        let mut copy = self.shared.pool.take(data.len());
        copy.extend_from_slice(&data);
        copy.freeze()
    }
}

impl Disk for FileDisk {
    fn len(&self) -> u64 {
        self.len
    }

    fn write_at(&self, offset: u64, data: Bytes) -> DiskFuture<()> {
        if let Err(refused) = check_range(self.len, offset, data.len()) {
            return refuse(refused);
        }
        let (op, outcome) = Op::write(Arc::clone(&self.file), offset, self.aligned(data), false);
        self.start(op);
        outcome
    }

    fn write_durable_at(&self, offset: u64, data: Bytes) -> DiskFuture<()> {
        if let Err(refused) = check_range(self.len, offset, data.len()) {
            return refuse(refused);
        }
        let (op, outcome) = Op::write(Arc::clone(&self.file), offset, self.aligned(data), true);
        self.start(op);
        outcome
    }

    fn read_at(&self, offset: u64, len: usize) -> DiskFuture<AlignedBuf> {
        if let Err(refused) = check_range(self.len, offset, len) {
            return refuse(refused);
        }
        let pool = self.shared.pool.clone();
        let (op, outcome) = Op::read(Arc::clone(&self.file), offset, len, pool);
        self.start(op);
        outcome
    }

    fn sync(&self) -> DiskFuture<()> {
        let (op, outcome) = Op::sync(Arc::clone(&self.file));
        self.start(op);
        outcome
    }

    fn describe(&self) -> String {
        format!("{}, {} bytes, {}", self.file.path.display(), self.len, self.mode)
    }
}

impl fmt::Debug for FileDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileDisk({})", self.describe())
    }
}

fn refuse<T: Send + 'static>(refused: Refused) -> DiskFuture<T> {
    Box::pin(std::future::ready(Err(refused.into())))
}

/// A directory of [`FileDisk`]s.
pub struct FileDir {
    path: PathBuf,
    mode: IoMode,
    shared: Arc<Shared>,
}

/// What was tried with which path; the kind stays that of the cause.
#[derive(Debug, thiserror::Error)]
#[error("{verb} {}", path.display())]
struct PathFailed {
    verb: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Adds what was tried with `path`.
fn at(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    let path = path.to_owned();
    move |source| io::Error::new(source.kind(), PathFailed { verb, path, source })
}

impl FileDir {
    /// Opens the directory `path`, which must exist, and removes what a crash left of disks under
    /// construction. Files are opened for direct I/O where `mode` says so and they can. Blocks.
    pub fn open_path(path: &Path, mode: IoMode) -> io::Result<Self> {
        locked::remove_leftovers(path).map_err(at("remove leftovers in", path))?;
        Ok(Self { path: path.to_owned(), mode, shared: Arc::default() })
    }

    /// The same with a pool that others use too.
    #[must_use]
    pub fn with_pool(self, pool: BufPool) -> Self {
        let blocking = Arc::clone(&self.shared.blocking);
        Self { shared: Arc::new(Shared { pool, blocking }), ..self }
    }

    /// The memory that reads come from, and that records may be built in: a write of a buffer of
    /// this pool is not copied.
    #[must_use]
    pub fn pool(&self) -> &BufPool {
        &self.shared.pool
    }

    fn path_of(&self, name: &str) -> io::Result<PathBuf> {
        check_name(name)?;
        Ok(self.path.join(name))
    }

    fn disk(&self, file: File, path: PathBuf, mode: IoMode) -> io::Result<Arc<dyn Disk>> {
        let len = file.metadata()?.len();
        let file = Arc::new(OpenFile { file, path });
        Ok(Arc::new(FileDisk { file, len, mode, shared: Arc::clone(&self.shared) }))
    }
}

#[async_trait]
impl DiskDir for FileDir {
    async fn open(&self, name: &str) -> io::Result<Option<Arc<dyn Disk>>> {
        let path = self.path_of(name)?;
        let wanted = self.mode;
        let found = blocking::run({
            let path = path.clone();
            move || locked::open_file(&path, wanted).map_err(at("open", &path))
        });
        match found.await? {
            Some((file, mode)) => self.disk(file, path, mode).map(Some),
            None => Ok(None),
        }
    }

    async fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn Disk>> {
        let path = self.path_of(name)?;
        check_len(len)?;
        // Whoever drops this future does not want the disk any more, and filling it takes long.
        let wanted = Arc::new(());
        let creation = Creation::new(&self.path, name, len, self.mode, Arc::downgrade(&wanted));
        let (file, mode) = blocking::run({
            let path = path.clone();
            move || creation.run().map_err(at("create", &path))
        })
        .await?;
        drop(wanted);
        self.disk(file, path, mode)
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.path_of(from)?, self.path_of(to)?);
        let dir = self.path.clone();
        blocking::run(move || {
            locked::rename(&from, &to)
                .and_then(|()| locked::sync_dir(&dir))
                .map_err(at("rename to", &to))
                .map_err(at("rename", &from))
        })
        .await
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path_of(name)?;
        let dir = self.path.clone();
        blocking::run(move || {
            let remove = || {
                if locked::remove_unused(&path)? {
                    locked::sync_dir(&dir)
                } else {
                    Err(Refused::Missing.into())
                }
            };
            remove().map_err(at("remove", &path))
        })
        .await
    }

    async fn list(&self) -> io::Result<Vec<String>> {
        let dir = self.path.clone();
        blocking::run(move || {
            let list = || {
                let mut names = Vec::new();
                for entry in fs::read_dir(&dir)? {
                    let entry = entry?;
                    // A name that is not UTF-8 cannot be one of ours.
                    let name = entry.file_name().into_string().unwrap_or_default();
                    if check_name(&name).is_ok() && entry.file_type()?.is_file() {
                        names.push(name);
                    }
                }
                names.sort_unstable();
                Ok(names)
            };
            list().map_err(at("list", &dir))
        })
        .await
    }

    fn describe(&self) -> String {
        let reach = match ring::support() {
            Ok(mode) => mode.to_string(),
            Err(refused) => format!("blocking threads, {refused}"),
        };
        format!("{}, {} where possible, {reach}", self.path.display(), self.mode)
    }
}

impl fmt::Debug for FileDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileDir").field("path", &self.path).field("mode", &self.mode).finish()
    }
}

#[cfg(test)]
mod test {
    use std::io::ErrorKind;
    use std::os::unix::fs::MetadataExt;

    use super::super::conformance::{Reach, run, scratch};
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_disk_that_does_not_fit_leaves_nothing() {
        let scratch = scratch(IoMode::Direct);
        run(Reach::Threads, async {
            let dir = FileDir::open_path(scratch.path(), IoMode::Direct).unwrap();
            let error = dir.create("a", 1 << 43).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
            assert!(error.to_string().starts_with("create /"));
            assert!(names(scratch.path()).is_empty());
            dir.create("a", PAGE as u64).await.unwrap();
        });
    }

    #[test]
    fn a_creation_that_nobody_waits_for_leaves_nothing_or_a_whole_disk() {
        let scratch = scratch(IoMode::Buffered);
        let len = 256 << 20;
        run(Reach::Threads, async {
            let dir = FileDir::open_path(scratch.path(), IoMode::Buffered).unwrap();
            let mut creation = dir.create("a", len);
            let started = std::future::poll_fn(|context| {
                std::task::Poll::Ready(creation.as_mut().poll(context).is_pending())
            });
            assert!(started.await);
            drop(creation);
        });
        let dir = FileDir::open_path(scratch.path(), IoMode::Buffered).unwrap();
        match names(scratch.path()).as_slice() {
            [] => {}
            [name] => {
                assert_eq!(name, "a");
                assert_eq!(fs::metadata(dir.path_of("a").unwrap()).unwrap().len(), len);
            }
            more => panic!("{more:?}"),
        }
    }

    #[test]
    fn a_leftover_of_a_crash_is_removed_and_a_disk_in_the_making_is_not() {
        let scratch = scratch(IoMode::Buffered);
        let at = |name| scratch.path().join(name);
        fs::write(at(".old.creating"), b"half").unwrap();
        fs::write(at("keep.creating"), vec![0; PAGE]).unwrap();
        let busy = File::create(at(".busy.creating")).unwrap();
        locked::lock(&busy).unwrap();
        let dir = FileDir::open_path(scratch.path(), IoMode::Buffered).unwrap();
        let mut left = names(scratch.path());
        left.sort();
        assert_eq!(left, [".busy.creating", "keep.creating"]);
        run(Reach::Threads, async {
            assert_eq!(dir.list().await.unwrap(), ["keep.creating"]);
            let error = dir.create("busy", PAGE as u64).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ResourceBusy);
            drop(busy);
            dir.create("busy", PAGE as u64).await.unwrap();
        });
    }

    #[test]
    fn a_disk_in_use_is_refused_to_another_gateway_with_its_path() {
        let scratch = scratch(IoMode::Direct);
        run(Reach::Threads, async {
            let ours = FileDir::open_path(scratch.path(), IoMode::Direct).unwrap();
            let theirs = FileDir::open_path(scratch.path(), IoMode::Direct).unwrap();
            let disk = ours.create("a", PAGE as u64).await.unwrap();
            let error = theirs.open("a").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ResourceBusy);
            assert!(error.to_string().ends_with("/a"), "{error}");
            drop(disk);
            theirs.open("a").await.unwrap().unwrap();
        });
    }

    #[test]
    fn a_file_that_cannot_be_a_disk_is_refused() {
        let scratch = scratch(IoMode::Direct);
        fs::write(scratch.path().join("cut"), vec![0; PAGE + 1]).unwrap();
        fs::write(scratch.path().join("empty"), b"").unwrap();
        fs::create_dir(scratch.path().join("dir")).unwrap();
        run(Reach::Threads, async {
            let dir = FileDir::open_path(scratch.path(), IoMode::Direct).unwrap();
            for name in ["cut", "empty"] {
                assert_eq!(dir.open(name).await.unwrap_err().kind(), ErrorKind::InvalidData);
            }
            assert!(dir.open("dir").await.is_err());
            assert_eq!(dir.list().await.unwrap(), ["cut", "empty"]);
        });
    }

    #[test]
    fn space_of_a_new_disk_is_written_and_not_only_reserved() {
        let scratch = scratch(IoMode::Direct);
        run(Reach::Threads, async {
            let dir = FileDir::open_path(scratch.path(), IoMode::Direct).unwrap();
            dir.create("a", 1 << 20).await.unwrap();
            let allocated = fs::metadata(scratch.path().join("a")).unwrap().blocks() * 512;
            assert!(allocated >= 1 << 20);
        });
    }
}
