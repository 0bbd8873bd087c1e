//! The directories of a pool: opened, created, made durable, and removed when empty.
//!
//! Invariants: 1. Every path is resolved from the root's descriptor, so that the pool can be moved,
//! and cannot be unmounted under a gateway without force. 2. A pinned directory's name, and those
//! of all above it, were synced while it was pinned.
//! Concurrency: removing a directory (rmdir(2) takes only empty ones) races with putting into it;
//! the put sees ENOENT and starts again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

/// Directories held open to remember that they are durable. One descriptor each; past the limit all
/// are forgotten, which costs one sync per directory and nothing else.
const PINS_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Directories {
    root: Arc<File>,
    /// Holding the descriptor keeps the inode number from being used again, so that equal numbers
    /// mean the same directory and not a successor that some other process has yet to sync.
    pinned: Mutex<BTreeMap<PathBuf, File>>,
}

impl Directories {
    pub(super) fn new(root: Arc<File>) -> Self {
        Self { root, pinned: Mutex::default() }
    }

    /// Opens a file or directory below the root.
    pub(super) fn open_file(&self, path: impl AsRef<Path>, flags: OFlags) -> io::Result<File> {
        Ok(rustix::fs::openat(&self.root, path.as_ref(), flags, Mode::empty())?.into())
    }

    /// Opens a directory; the empty path is the root.
    pub(super) fn open(&self, path: &Path) -> io::Result<File> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        self.open_file(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC)
    }

    /// Opens a directory, creating it and its parents but never the root. Nothing is durable yet.
    pub(super) fn create(&self, path: &Path) -> io::Result<File> {
        match self.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
        let above: Vec<&Path> = path.ancestors().collect();
        for path in above.into_iter().rev().filter(|path| !path.as_os_str().is_empty()) {
            match rustix::fs::mkdirat(&self.root, path, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        self.open(path)
    }

    /// Makes the entries of `directory`, which was opened at `path`, durable up to the root.
    pub(super) fn sync(&self, path: &Path, directory: &File) -> io::Result<()> {
        directory.sync_all()?;
        let found = directory.metadata()?;
        let is_pinned = |pin: &File| {
            pin.metadata().is_ok_and(|pin| pin.ino() == found.ino() && pin.dev() == found.dev())
        };
        if self.pinned.lock().get(path).is_some_and(is_pinned) {
            return Ok(());
        }
        let pin = directory.try_clone()?;
        // Not only what we created: another process may have, and not have come to its sync yet.
        for above in path.ancestors().skip(1) {
            match self.open(above) {
                Ok(above) => above.sync_all()?,
                // Pruned: what was to become durable has been deleted in the meantime.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        let mut pinned = self.pinned.lock();
        if pinned.len() >= PINS_MAX {
            pinned.clear();
        }
        pinned.insert(path.to_owned(), pin);
        Ok(())
    }

    /// Removes a directory and its parents as far as they are empty.
    pub(super) fn prune(&self, path: &Path) {
        for path in path.ancestors().filter(|path| !path.as_os_str().is_empty()) {
            if !self.remove(path) {
                return;
            }
        }
    }

    /// Removes one directory; `false` if it was not empty, or could not be removed.
    pub(super) fn remove(&self, path: &Path) -> bool {
        let removed = rustix::fs::unlinkat(&self.root, path, AtFlags::REMOVEDIR).is_ok();
        if removed {
            self.pinned.lock().remove(path);
        }
        removed
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn pinned(directories: &Directories, path: &Path) -> Option<u64> {
        directories.pinned.lock().get(path).map(|pin| pin.metadata().unwrap().ino())
    }

    #[test]
    fn a_directory_that_another_process_created_anew_is_not_taken_for_durable() {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories::new(Arc::new(File::open(root.path()).unwrap()));
        let path = Path::new("a/b");
        let first = directories.create(path).unwrap();
        directories.sync(path, &first).unwrap();
        assert_eq!(pinned(&directories, path), Some(first.metadata().unwrap().ino()));
        drop(first);

        std::fs::remove_dir(root.path().join(path)).unwrap();
        std::fs::create_dir(root.path().join(path)).unwrap();
        let second = directories.open(path).unwrap();
        assert_ne!(pinned(&directories, path), Some(second.metadata().unwrap().ino()));
        directories.sync(path, &second).unwrap();
        assert_eq!(pinned(&directories, path), Some(second.metadata().unwrap().ino()));
    }

    #[test]
    fn pins_are_few_and_go_with_their_directories() {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories::new(Arc::new(File::open(root.path()).unwrap()));
        let paths: Vec<PathBuf> = (0..=PINS_MAX).map(|n| n.to_string().into()).collect();
        for path in &paths {
            directories.sync(path, &directories.create(path).unwrap()).unwrap();
            assert!(pinned(&directories, path).is_some());
            assert!(directories.pinned.lock().len() <= PINS_MAX);
        }
        let last = &paths[PINS_MAX];
        directories.prune(last);
        assert_eq!(pinned(&directories, last), None);
    }

    #[test]
    fn an_object_that_is_pruned_before_its_directory_is_synced_is_no_failure() {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories::new(Arc::new(File::open(root.path()).unwrap()));
        let path = Path::new("a/b");
        let directory = directories.create(path).unwrap();
        directories.prune(path);
        directories.sync(path, &directory).unwrap();
        assert_eq!(pinned(&directories, path), None);
    }
}
