//! A store in a directory: one file per object, atomic and durable with nothing but POSIX.
//!
//! Does not: keep an index, a marker or a server. Any directory is a pool; `ls`, `cp` and `rsync`
//! work on it. Symbolic links in it are not objects, and listings do not follow them.
//! Invariants: 1. A file under an object's name is whole and synced before it gets that name, and
//! never written again. 2. What is answered `Ok` is synced up to the pool's root. 3. Files of our
//! own live in `.lsvd-staging`, where no object's name can lead.
//! Crash: before the link or rename nothing happened but a leftover in staging, which the next open
//! sweeps. After it the object is there, whole; whether a host's crash takes it away again is open
//! until the directory is synced, and so is our answer.
//! Concurrency: threads and processes alike. Creating needs no lock (link(2) has one winner).
//! Replacing and deleting hold the pool's flock while they look and act, for microseconds and over
//! no sync. On NFS that is only as good as the mount: attribute caching (no `noac`) can defeat
//! compare-and-swap.
//!
//! **Version** = modification time and inode number. The kernel's own times are too coarse (all
//! files of one timer tick look alike), so every file is stamped from the nanosecond clock before
//! it is named. A file and its successor exist side by side while one replaces the other, so their
//! inodes differ. An inode that is used again belongs to a file stamped at least a few system calls
//! later. Reading the content back could not tell A from A after B, and would cost 8 MiB per put.

mod change;
mod directories;
mod fault;
mod fill;
mod staging;
mod walk;

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{Mode, OFlags};

use crate::name::{self, Refused};
use crate::page::Page;
use crate::{
    ErrorKind, Listing, Meta, Object, ObjectStore, Op, Payload, PutMode, Result, StoreError,
    Version,
};
use directories::Directories;
use fault::Fault;
use staging::Staging;

/// A store in a directory of the local file system. Cloning gives another handle to the same pool.
#[derive(Clone, Debug)]
pub struct FileStore {
    pool: Arc<Pool>,
}

/// The blocking half: everything that makes system calls.
#[derive(Debug)]
struct Pool {
    directories: Directories,
    staging: Staging,
    /// The root as messages name it.
    place: Arc<str>,
}

impl FileStore {
    /// Opens the pool in directory `root`, creating it and its parents if `create` says so. Sweeps
    /// what writers that died have left in staging. Blocks on the file system; call it before
    /// serving.
    ///
    /// # Errors
    /// `NotFound` without `create`, `Invalid` if `root` is not a directory, `Denied`,
    /// `Unavailable`.
    pub fn open(root: impl AsRef<Path>, create: bool) -> Result<Self> {
        let root = root.as_ref();
        let place: Arc<str> = root.display().to_string().into();
        let open = || -> std::result::Result<Pool, Fault> {
            if create {
                create_durably(root)?;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = Arc::new(File::from(rustix::fs::open(root, flags, Mode::empty())?));
            let staging = Staging::new(Arc::clone(&root));
            staging.sweep();
            Ok(Pool { directories: Directories::new(root), staging, place: Arc::clone(&place) })
        };
        match open() {
            Ok(pool) => Ok(Self { pool: Arc::new(pool) }),
            Err(fault) => Err(fault.into_error(Op::Open, "", &place)),
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        op: Op,
        name: &str,
        work: impl FnOnce(&Pool, &str) -> std::result::Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let (pool, owned) = (Arc::clone(&self.pool), name.to_owned());
        let task = tokio::task::spawn_blocking(move || {
            work(&pool, &owned).map_err(|fault| fault.into_error(op, &owned, &pool.place))
        });
        match task.await {
            Ok(result) => result,
            Err(gone) if gone.is_panic() => std::panic::resume_unwind(gone.into_panic()),
            // The runtime is shutting down and may or may not have let the work finish.
            Err(gone) => {
                let kind =
                    if op.is_mutation() { ErrorKind::Ambiguous } else { ErrorKind::Unavailable };
                Err(StoreError::new(kind, op, name).at(Arc::clone(&self.pool.place)).because(gone))
            }
        }
    }
}

#[async_trait]
impl ObjectStore for FileStore {
    async fn put(&self, name: &str, body: Payload, mode: PutMode) -> Result<Version> {
        self.run(Op::Put, name, move |pool, name| {
            name::check(name)?;
            pool.put(name, &body, &mode)
        })
        .await
    }

    async fn get(&self, name: &str) -> Result<Object> {
        self.run(Op::Get, name, |pool, name| {
            let (file, meta) = pool.open(name)?;
            let body = read_exactly(&file, 0, meta.len())?;
            Ok(Object { body, version: version_of(&meta) })
        })
        .await
    }

    async fn get_range(&self, name: &str, offset: u64, len: u64) -> Result<Bytes> {
        self.run(Op::GetRange, name, move |pool, name| {
            let (file, meta) = pool.open(name)?;
            name::check_range(offset, len, meta.len())?;
            read_exactly(&file, offset, len)
        })
        .await
    }

    async fn head(&self, name: &str) -> Result<Meta> {
        self.run(Op::Head, name, |pool, name| {
            let (_, meta) = pool.open(name)?;
            Ok(Meta { size: meta.len(), version: version_of(&meta) })
        })
        .await
    }

    async fn list(
        &self,
        prefix: &str,
        delimiter: Option<char>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Listing> {
        let after = after.map(str::to_owned);
        self.run(Op::List, prefix, move |pool, prefix| {
            name::check_prefix(prefix)?;
            if limit == 0 {
                return Err(Refused::Limit.into());
            }
            let mut page = Page::new(prefix, delimiter, after.as_deref(), limit);
            // Everything that starts with the prefix lies in its deepest whole directory.
            let start = prefix.rfind('/').map_or("", |at| &prefix[..=at]);
            walk::walk(&pool.directories, start, &mut page)?;
            Ok(page.finish())
        })
        .await
    }

    async fn delete(&self, name: &str) -> Result<()> {
        self.run(Op::Delete, name, |pool, name| {
            name::check(name)?;
            pool.delete(name)
        })
        .await
    }

    fn describe(&self) -> String {
        self.pool.place.to_string()
    }
}

impl Pool {
    fn open(&self, name: &str) -> std::result::Result<(File, Metadata), Fault> {
        name::check(name)?;
        // NONBLOCK: a pipe somebody left in the pool must not hold a thread for ever.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = self.directories.open_file(name, flags)?;
        let meta = file.metadata()?;
        if meta.is_file() { Ok((file, meta)) } else { Err(Fault::Kind(ErrorKind::NotFound)) }
    }
}

fn version_of(meta: &Metadata) -> Version {
    Version::new(format!("{:x}.{:09}-{:x}", meta.mtime(), meta.mtime_nsec(), meta.ino()))
}

/// Reads a range that `fstat` says is there, without zeroing the buffer first.
fn read_exactly(file: &File, offset: u64, len: u64) -> std::result::Result<Bytes, Fault> {
    let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    let mut body = Vec::new();
    body.try_reserve_exact(len).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    while body.len() < len {
        let at = offset + body.len() as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut body), at) {
            // Invariant 1 is broken: somebody else cut the file.
            Ok(0) => return Err(Fault::Kind(ErrorKind::Corrupt)),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    // The allocator may have given more room than asked for, and the file may have had bytes for
    // it.
    body.truncate(len);
    Ok(body.into())
}

/// Creates a directory and its parents, and makes their names durable.
fn create_durably(root: &Path) -> io::Result<()> {
    let missing: Vec<PathBuf> = std::path::absolute(root)?
        .ancestors()
        .take_while(|path| !path.exists())
        .map(Path::to_owned)
        .collect();
    std::fs::create_dir_all(root)?;
    for created in missing {
        if let Some(parent) = created.parent() {
            File::open(parent)?.sync_all()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod test;
