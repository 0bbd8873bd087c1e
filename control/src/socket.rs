//! The socket file: who may listen at a path, and what a dead predecessor left there.
//!
//! Invariants: while a listener lives, it holds an exclusive lock on `PATH.lock`, as SPDK does, so
//! of two programs that start at once only one gets the path. The file is ours alone (0600).
//! Crash: a killed program leaves both files. Its lock went with it, nobody answers at the socket,
//! and the next `bind` replaces it.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{
    FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use tokio::net::{UnixListener, UnixSocket, UnixStream};

use crate::limits::BACKLOG;

/// Where clients look if they are not told.
pub const DEFAULT_PATH: &str = "/var/tmp/spdk.sock";

/// Why a path cannot be listened at.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has the path's lock, or answers at the socket.
    #[error("{} is in use by another program; stop it, or choose another path", .0.display())]
    InUse(PathBuf),
    /// Something that is not a socket has this name.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot listen at {}", path.display())]
    Io {
        /// The socket, or its lock file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Accepts control connections. Dropping it removes its files.
#[derive(Debug)]
pub struct Listener {
    // Dropped in this order: the socket file must be gone before another may have the lock.
    listener: UnixListener,
    _file: OwnFile,
    _lock: Lock,
}

impl Listener {
    /// Listens at `path`. A socket file that nobody serves is replaced.
    pub async fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |source| BindError::Io { path: path.to_owned(), source };
        let lock = Lock::take(path)?;
        remove_stale(path).await?;
        let socket = UnixSocket::new_stream().map_err(failed)?;
        socket.bind(path).map_err(failed)?;
        let file = OwnFile::at(path).map_err(failed)?;
        // Before `listen`, so that there is no moment in which others could connect.
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
        let listener = socket.listen(BACKLOG).map_err(failed)?;
        Ok(Self { listener, _file: file, _lock: lock })
    }

    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

/// Removes a socket file that nobody listens on. A server that takes no lock may be there.
async fn remove_stale(path: &Path) -> Result<(), BindError> {
    let failed = |source| BindError::Io { path: path.to_owned(), source };
    let metadata = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata.map_err(failed)?,
    };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)
        }
        // A full backlog, for one: somebody is there.
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(failed(error)),
        _ => Err(BindError::InUse(path.to_owned())),
    }
}

/// The lock on a path. Freed by the system when the process ends, however it ends.
#[derive(Debug)]
struct Lock {
    // Dropped in this order: whoever removes the file must hold the lock, or two could have it.
    _file: OwnFile,
    _held: File,
}

impl Lock {
    fn take(socket: &Path) -> Result<Self, BindError> {
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let failed = |source| BindError::Io { path: path.clone(), source };
        loop {
            let held = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                // Others may put links into a directory as public as the default one.
                .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                .open(&path)
                .map_err(failed)?;
            match flock(&held, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(BindError::InUse(socket.to_owned()));
                }
                Err(error) => return Err(failed(error.into())),
            }
            let ours = held.metadata().map_err(failed)?;
            let file = OwnFile { path: path.clone(), device: ours.dev(), inode: ours.ino() };
            // The previous holder may have removed the file between our `open` and our lock.
            if file.is_there() {
                return Ok(Self { _file: file, _held: held });
            }
        }
    }
}

/// A file of ours, known by its inode: the path may belong to a successor by the time we go.
#[derive(Debug)]
struct OwnFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl OwnFile {
    fn at(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }

    fn is_there(&self) -> bool {
        std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode))
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        if self.is_there() {
            // A file that stays behind is stale, which the next `bind` knows how to handle.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn lock_of(path: &Path) -> PathBuf {
        path.with_extension("sock.lock")
    }

    #[tokio::test]
    async fn socket_is_private_and_both_files_go_with_the_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let listener = Listener::bind(&path).await.unwrap();
        for file in [&path, &lock_of(&path)] {
            assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        UnixStream::connect(&path).await.unwrap();
        listener.accept().await.unwrap();
        drop(listener);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn stale_socket_is_replaced_and_a_live_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        // The standard library leaves the file behind, as a killed server does.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        std::fs::write(lock_of(&path), b"").unwrap();
        let listener = Listener::bind(&path).await.unwrap();
        let second = Listener::bind(&path).await;
        assert!(matches!(second, Err(BindError::InUse(_))), "{second:?}");
        assert!(path.exists() && lock_of(&path).exists());
        drop(listener);
        Listener::bind(&path).await.unwrap();
    }

    #[tokio::test]
    async fn server_without_a_lock_is_refused_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(matches!(Listener::bind(&path).await, Err(BindError::InUse(_))));
        assert!(path.exists());
        drop(other);
    }

    #[tokio::test]
    async fn file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        std::fs::write(&path, b"precious").unwrap();
        assert!(matches!(Listener::bind(&path).await, Err(BindError::NotASocket(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        assert!(!lock_of(&path).exists());
    }

    #[tokio::test]
    async fn link_in_place_of_the_lock_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let target = dir.path().join("target");
        std::os::unix::fs::symlink(&target, lock_of(&path)).unwrap();
        assert!(matches!(Listener::bind(&path).await, Err(BindError::Io { .. })));
        assert!(!target.exists());
    }

    #[tokio::test]
    async fn listener_does_not_remove_the_file_of_its_successor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let first = Listener::bind(&path).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::remove_file(lock_of(&path)).unwrap();
        let _second = Listener::bind(&path).await.unwrap();
        drop(first);
        assert!(path.exists() && lock_of(&path).exists());
    }
}
