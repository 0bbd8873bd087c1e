//! The directory in which new files are written before they get their names, and the pool's lock.
//!
//! Does not: name objects. [`Staged::link_to`] and [`Staged::rename_to`] do one system call each;
//! what must hold before and after is the caller's business.
//! Invariants: a staged file is flocked by its writer from creation until it has left staging.
//! Crash: what a dead writer left is a file that nobody has locked; [`Staging::sweep`] removes it.
//! A file that was linked but not yet unlinked loses only its second name.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, Timestamps};
use rustix::io::Errno;
use rustix::time::ClockId;

use super::fault::{Fault, Unfit};
use super::fill::fill;
use super::version_of;
use crate::{Payload, Version};

const STAGING: &str = ".lsvd-staging";
const LOCK: &str = ".lsvd-staging/lock";

/// Attempts to get a file to ourselves, against sweepers and equal process ids in other containers.
const NAMES_MAX: u32 = 10_000;

/// Coarsest step of file times that still tells a file from the next user of its inode.
const STAMP_STEP_NS: i64 = 1_000;

#[derive(Debug)]
pub(super) struct Staging {
    root: Arc<File>,
}

/// A synced file without an object's name; leaves staging when dropped.
#[derive(Debug)]
pub(super) struct Staged<'a> {
    root: &'a File,
    path: PathBuf,
    file: File,
    version: Option<Version>,
}

/// The pool's exclusive lock, given back when dropped.
#[derive(Debug)]
pub(super) struct PoolLock {
    _file: File,
}

impl Staging {
    pub(super) fn new(root: Arc<File>) -> Self {
        Self { root }
    }

    /// Writes, stamps and syncs a new file.
    pub(super) fn write(&self, body: &Payload) -> Result<Staged<'_>, Fault> {
        let mut staged = self.create()?;
        fill(&staged.file, body)?;
        staged.version = Some(stamp(&staged.file)?);
        // Not fdatasync: the times are part of the version.
        staged.file.sync_all()?;
        Ok(staged)
    }

    /// Waits for the pool's lock. flock(2) belongs to the open file, so that a descriptor of its
    /// own makes this work between threads as well as between processes.
    pub(super) fn lock(&self) -> Result<PoolLock, Fault> {
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
            let file = match rustix::fs::openat(&self.root, LOCK, flags, mode()) {
                Ok(file) => File::from(file),
                Err(Errno::NOENT) => {
                    self.create_directory()?;
                    continue;
                }
                Err(errno) => return Err(errno.into()),
            };
            loop {
                match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
                    Err(Errno::INTR) => {}
                    result => break result?,
                }
            }
            // A lock on a file that was deleted meanwhile keeps nobody out.
            if file.metadata()?.nlink() > 0 {
                return Ok(PoolLock { _file: file });
            }
        }
    }

    /// Removes what dead writers left. Failing is harmless: the pool works with leftovers in it.
    pub(super) fn sweep(&self) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let entries = rustix::fs::openat(&self.root, STAGING, flags, Mode::empty())
            .and_then(rustix::fs::Dir::new);
        let Ok(entries) = entries else { return };
        let mut swept = 0_u64;
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().to_str() else { continue };
            let path = Path::new(STAGING).join(name);
            if matches!(name, "." | "..") || path == Path::new(LOCK) {
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let Ok(file) = rustix::fs::openat(&self.root, &path, flags, Mode::empty()) else {
                continue;
            };
            // Unlinked while locked: a writer that comes between sees either the lock or no link.
            if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
                && rustix::fs::unlinkat(&self.root, &path, AtFlags::empty()).is_ok()
            {
                swept += 1;
            }
        }
        if swept > 0 {
            tracing::info!(files = swept, "removed unfinished puts of writers that died");
        }
    }

    fn create(&self) -> Result<Staged<'_>, Fault> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        for _ in 0..NAMES_MAX {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = Path::new(STAGING).join(format!("{}-{number}", std::process::id()));
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let file = match rustix::fs::openat(&self.root, &path, flags, mode()) {
                Ok(file) => File::from(file),
                Err(Errno::EXIST) => continue,
                Err(Errno::NOENT) => {
                    self.create_directory()?;
                    continue;
                }
                Err(errno) => return Err(errno.into()),
            };
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // A sweeper came between creating and locking, and has it or has had it.
                Err(Errno::WOULDBLOCK) => continue,
                Ok(()) if file.metadata()?.nlink() == 0 => continue,
                Ok(()) => return Ok(Staged { root: &self.root, path, file, version: None }),
                Err(errno) => {
                    drop(Staged { root: &self.root, path, file, version: None });
                    return Err(errno.into());
                }
            }
        }
        Err(Fault::Unfit(Unfit::Churn))
    }

    fn create_directory(&self) -> Result<(), Fault> {
        match rustix::fs::mkdirat(&self.root, STAGING, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Staged<'_> {
    pub(super) fn version(&self) -> Version {
        self.version.clone().expect("`Staging::write` stamps every file before it hands it out")
    }

    /// Gives the file a name that must be free.
    pub(super) fn link_to(&self, directory: &File, leaf: &str) -> rustix::io::Result<()> {
        rustix::fs::linkat(self.root, &self.path, directory, leaf, AtFlags::empty())
    }

    /// Gives the file a name in place of the file that has it.
    pub(super) fn rename_to(mut self, directory: &File, leaf: &str) -> rustix::io::Result<()> {
        rustix::fs::renameat(self.root, &self.path, directory, leaf)?;
        // The name in staging is free from now on and may become somebody else's.
        self.path.clear();
        Ok(())
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if self.path.as_os_str().is_empty() {
            return;
        }
        if let Err(errno) = rustix::fs::unlinkat(self.root, &self.path, AtFlags::empty()) {
            let path = self.path.display();
            tracing::debug!(%path, %errno, "staged file left for the next sweep");
        }
    }
}

/// The umask decides, as with any file a program creates.
fn mode() -> Mode {
    Mode::from_raw_mode(0o666)
}

/// Gives the file a modification time that no file of the same inode has had (see the version's
/// definition in `file/mod.rs`).
fn stamp(file: &File) -> Result<Version, Fault> {
    let now = rustix::time::clock_gettime(ClockId::Realtime);
    rustix::fs::futimens(file, &Timestamps { last_access: now, last_modification: now })?;
    let meta = file.metadata()?;
    if meta.mtime() != now.tv_sec || (now.tv_nsec - meta.mtime_nsec()).abs() >= STAMP_STEP_NS {
        return Err(Fault::Unfit(Unfit::CoarseTimes));
    }
    Ok(version_of(&meta))
}

#[cfg(test)]
mod test {
    use super::*;

    /// Kernels since 6.13 give fine times of their own to files that are looked at, so that no test
    /// from outside shows whether the stamp is there.
    #[test]
    fn every_stamp_is_new_without_the_kernels_help() {
        let file = tempfile::tempfile().unwrap();
        let mut last = version_of(&file.metadata().unwrap());
        for _ in 0..1_000 {
            let version = stamp(&file).unwrap();
            assert_ne!(version, last);
            assert_eq!(version, version_of(&file.metadata().unwrap()), "the stamp stays");
            last = version;
        }
    }
}
