//! Puts and deletes: the only places that change what a name means.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;

use super::fault::{Fault, Unfit};
use super::staging::Staged;
use super::{Pool, version_of};
use crate::name::Refused;
use crate::{ErrorKind, Payload, PutMode, Version};

/// Attempts to link into a directory that others keep removing because it is empty.
const RACES_MAX: u32 = 1_000;

impl Pool {
    pub(super) fn put(&self, name: &str, body: &Payload, mode: &PutMode) -> Result<Version, Fault> {
        let (parent, leaf) = split(name);
        let staged = self.staging.write(body)?;
        let version = staged.version();
        match mode {
            PutMode::Create => self.create(&staged, parent, leaf)?,
            PutMode::IfMatch(expected) => self.replace(staged, parent, leaf, expected)?,
        }
        Ok(version)
    }

    pub(super) fn delete(&self, name: &str) -> Result<(), Fault> {
        let (parent, leaf) = split(name);
        let lock = self.staging.lock()?;
        let directory = match self.directories.open(parent).map_err(Fault::from) {
            Err(fault) if fault.is_missing() => return Err(Fault::Kind(ErrorKind::NotFound)),
            opened => opened?,
        };
        let Some((file, _)) = look_up(&directory, leaf)? else {
            drop(lock);
            // This answer may be to the retry of a delete whose sync failed.
            directory.sync_all()?;
            return Err(Fault::Kind(ErrorKind::NotFound));
        };
        rustix::fs::unlinkat(&directory, leaf, AtFlags::empty())?;
        drop(lock);
        // The last descriptor gives the space back, which takes milliseconds: not under the lock.
        drop(file);
        directory.sync_all().map_err(Fault::Landed)?;
        self.directories.prune(parent);
        Ok(())
    }

    fn create(&self, staged: &Staged<'_>, parent: &Path, leaf: &str) -> Result<(), Fault> {
        for _ in 0..RACES_MAX {
            let directory = match self.directories.create(parent) {
                Ok(directory) => directory,
                Err(error) if Errno::from_io_error(&error) == Some(Errno::NOTDIR) => {
                    return Err(Refused::Nested.into());
                }
                // A part of it was removed while we created the next. The root is never created, so
                // a pool that is gone for good ends this loop too.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            match staged.link_to(&directory, leaf) {
                Ok(()) => {
                    return self.directories.sync(parent, &directory).map_err(Fault::Landed);
                }
                Err(Errno::NOENT) => {}
                Err(Errno::EXIST) => match look_up(&directory, leaf)? {
                    Some(_) => {
                        // The caller may find its own earlier put in there and rely on it.
                        self.directories.sync(parent, &directory)?;
                        return Err(Fault::Kind(ErrorKind::AlreadyExists));
                    }
                    // Deleted again, or an empty directory that a crash or a race left here.
                    None if self.directories.remove(&parent.join(leaf)) => {}
                    None if self.directories.open(&parent.join(leaf)).is_err() => {}
                    None => return Err(Refused::Nested.into()),
                },
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(Fault::Unfit(Unfit::Churn))
    }

    fn replace(
        &self,
        staged: Staged<'_>,
        parent: &Path,
        leaf: &str,
        expected: &Version,
    ) -> Result<(), Fault> {
        let lock = self.staging.lock()?;
        let directory = match self.directories.open(parent).map_err(Fault::from) {
            Err(fault) if fault.is_missing() => {
                return Err(Fault::Kind(ErrorKind::PreconditionFailed));
            }
            opened => opened?,
        };
        let found = look_up(&directory, leaf)?;
        if found.as_ref().is_none_or(|(_, meta)| version_of(meta) != *expected) {
            drop(lock);
            // As in `create`: what the caller reads next must not vanish.
            self.directories.sync(parent, &directory)?;
            return Err(Fault::Kind(ErrorKind::PreconditionFailed));
        }
        staged.rename_to(&directory, leaf)?;
        drop(lock);
        drop(found);
        self.directories.sync(parent, &directory).map_err(Fault::Landed)
    }
}

fn split(name: &str) -> (&Path, &str) {
    match name.rsplit_once('/') {
        Some((parent, leaf)) => (Path::new(parent), leaf),
        None => (Path::new(""), name),
    }
}

/// The object's file, if there is one, held so that its inode cannot go away.
fn look_up(directory: &File, leaf: &str) -> Result<Option<(File, Metadata)>, Fault> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(directory, leaf, flags, rustix::fs::Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let meta = file.metadata()?;
    Ok(meta.is_file().then_some((file, meta)))
}
