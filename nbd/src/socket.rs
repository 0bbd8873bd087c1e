//! Where clients come from: loopback TCP and unix sockets.
//!
//! NBD as served here has neither encryption nor authentication, so nothing but this machine may
//! connect: TCP addresses must be loopback ones, and a socket file belongs to its user alone.
//!
//! Crash: a killed server leaves its socket file. The next `bind` finds that nobody answers there
//! and replaces it; one that answers is left alone.

use std::fmt;
use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixSocket, UnixStream};

/// Connections that the kernel keeps for us before `accept`.
const BACKLOG: u32 = 128;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A loopback address; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// The path of a socket file.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    /// `HOST:PORT` or `unix:PATH`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Other machines could reach this address.
    #[error("{0} is not a loopback address")]
    NotLoopback(SocketAddr),
    /// Another server answers on this socket file.
    #[error("{} is in use by another server", .0.display())]
    InUse(PathBuf),
    /// Something that is not a socket has this name.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot listen")]
    Io(#[from] io::Error),
}

/// Accepts connections. Dropping it removes its socket file.
#[derive(Debug)]
pub struct Listener {
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    Tcp(TcpListener),
    Unix { listener: UnixListener, file: SocketFile },
}

impl Listener {
    /// Listens on `address`. A socket file that nobody serves is replaced.
    pub async fn bind(address: &Address) -> Result<Self, BindError> {
        let inner = match address {
            Address::Tcp(address) if !address.ip().is_loopback() => {
                return Err(BindError::NotLoopback(*address));
            }
            Address::Tcp(address) => Inner::Tcp(TcpListener::bind(address).await?),
            Address::Unix(path) => {
                remove_stale(path).await?;
                let socket = UnixSocket::new_stream()?;
                socket.bind(path)?;
                let file = SocketFile::at(path)?;
                // Before `listen`, so that there is no moment in which others could connect.
                std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
                Inner::Unix { listener: socket.listen(BACKLOG)?, file }
            }
        };
        Ok(Self { inner })
    }

    /// The next connection. An error concerns one connection or, when descriptors run out, passes;
    /// wait a little before the next call.
    pub async fn accept(&self) -> io::Result<Socket> {
        match &self.inner {
            Inner::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Replies are gathered before they are written; Nagle would only delay them.
                stream.set_nodelay(true)?;
                Ok(Socket::Tcp(stream))
            }
            Inner::Unix { listener, .. } => Ok(Socket::Unix(listener.accept().await?.0)),
        }
    }

    /// The address that clients connect to, with the port that the kernel chose.
    pub fn address(&self) -> io::Result<Address> {
        match &self.inner {
            Inner::Tcp(listener) => Ok(Address::Tcp(listener.local_addr()?)),
            Inner::Unix { file, .. } => Ok(Address::Unix(file.path.clone())),
        }
    }
}

/// Removes a socket file that nobody listens on.
async fn remove_stale(path: &Path) -> Result<(), BindError> {
    let metadata = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(BindError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Ok(std::fs::remove_file(path)?)
        }
        // A full backlog, for one: somebody is there.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(BindError::InUse(path.to_owned()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Our socket file, known by its inode: the path may belong to a successor by the time we go.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if is_ours {
            // A file that stays behind is stale, which the next `bind` knows how to handle.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A client's connection, registered with the runtime it was accepted or attached on.
#[derive(Debug)]
pub enum Socket {
    /// Loopback TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
}

/// A connection that belongs to no runtime, on its way from one to another.
#[derive(Debug)]
pub enum DetachedSocket {
    /// Loopback TCP.
    Tcp(std::net::TcpStream),
    /// Unix.
    Unix(std::os::unix::net::UnixStream),
}

impl Socket {
    /// Takes the connection off its runtime.
    pub fn detach(self) -> io::Result<DetachedSocket> {
        Ok(match self {
            Self::Tcp(stream) => DetachedSocket::Tcp(stream.into_std()?),
            Self::Unix(stream) => DetachedSocket::Unix(stream.into_std()?),
        })
    }
}

impl DetachedSocket {
    /// Registers the connection with the current runtime.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn attach(self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(stream) => Socket::Tcp(TcpStream::from_std(stream)?),
            Self::Unix(stream) => Socket::Unix(UnixStream::from_std(stream)?),
        })
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, data),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, data),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Neither kind of socket keeps data back in this process.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn unix(dir: &tempfile::TempDir) -> (PathBuf, Address) {
        let path = dir.path().join("s");
        (path.clone(), Address::Unix(path))
    }

    #[tokio::test]
    async fn socket_file_is_private_and_goes_with_its_listener() {
        let dir = tempfile::tempdir().unwrap();
        let (path, address) = unix(&dir);
        let listener = Listener::bind(&address).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(listener.address().unwrap(), address);
        UnixStream::connect(&path).await.unwrap();
        assert!(matches!(listener.accept().await.unwrap(), Socket::Unix(_)));
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn stale_socket_file_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (path, address) = unix(&dir);
        // The standard library leaves the file behind, as a killed server does.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = Listener::bind(&address).await.unwrap();
        let second = Listener::bind(&address).await;
        assert!(matches!(second, Err(BindError::InUse(_))), "{second:?}");
        assert!(path.exists());
        drop(listener);
    }

    #[tokio::test]
    async fn file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (path, address) = unix(&dir);
        std::fs::write(&path, b"precious").unwrap();
        assert!(matches!(Listener::bind(&address).await, Err(BindError::NotASocket(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn listener_does_not_remove_the_file_of_its_successor() {
        let dir = tempfile::tempdir().unwrap();
        let (path, address) = unix(&dir);
        let first = Listener::bind(&address).await.unwrap();
        std::fs::rename(&path, dir.path().join("moved")).unwrap();
        let _second = Listener::bind(&address).await.unwrap();
        drop(first);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn only_loopback_is_listened_on() {
        let everywhere = Address::Tcp("0.0.0.0:0".parse().unwrap());
        assert!(matches!(Listener::bind(&everywhere).await, Err(BindError::NotLoopback(_))));
        let listener = Listener::bind(&Address::Tcp("127.0.0.1:0".parse().unwrap())).await.unwrap();
        let Address::Tcp(address) = listener.address().unwrap() else { panic!("TCP") };
        let _client = TcpStream::connect(address).await.unwrap();
        let Socket::Tcp(socket) = listener.accept().await.unwrap() else { panic!("TCP") };
        assert!(socket.nodelay().unwrap());
    }
}
