//! A peer that need not behave: sends any bytes, and sees how the target ends the connection.

use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::error::Error;
use crate::pdu::{self, Frame, Shape, kind};

/// A connection without any rules of ours. Build PDUs with [`pdu::put`].
#[derive(Debug)]
pub struct RawPeer {
    stream: TcpStream,
    inbox: BytesMut,
}

/// How a target ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// A termination request, with its status (FES) and information (FEI).
    Terminated {
        /// Fatal Error Status (FES).
        status: u16,
        /// Fatal Error Information (FEI).
        info: u32,
    },
    /// The connection was closed.
    Closed,
    /// The connection was reset.
    Reset,
}

/// PDUs of a target that sends what it likes are taken up to this length, in bytes.
const DATA_MAX: u32 = 64 << 20;

impl RawPeer {
    /// Connects and sends nothing.
    ///
    /// # Errors
    /// The socket's.
    pub async fn connect(address: SocketAddr) -> Result<Self, Error> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, inbox: BytesMut::new() })
    }

    /// Sends these bytes.
    ///
    /// # Errors
    /// The socket's.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// Ends this side of the connection; the target's answers can still be read.
    ///
    /// # Errors
    /// The socket's.
    pub async fn finish(&mut self) -> Result<(), Error> {
        Ok(self.stream.shutdown().await?)
    }

    /// ICReq without digests, and the answer to it.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub async fn initialize(&mut self) -> Result<Frame, Error> {
        let mut out = BytesMut::new();
        pdu::put_initialize(&mut out, Shape::default(), 1);
        self.send(&out).await?;
        self.receive(Shape::default()).await
    }

    /// The next PDU.
    ///
    /// # Errors
    /// The socket's, [`Error::Closed`] at its end, and what the target does wrong.
    pub async fn receive(&mut self, shape: Shape) -> Result<Frame, Error> {
        loop {
            if let Some(frame) = pdu::take(&mut self.inbox, shape, DATA_MAX)? {
                return Ok(frame);
            }
            if self.stream.read_buf(&mut self.inbox).await? == 0 {
                return Err(Error::Closed);
            }
        }
    }

    /// Reads to the end of the connection. PDUs before a termination request are skipped.
    ///
    /// # Errors
    /// The socket's other than a reset, and what the target does wrong.
    pub async fn ended(mut self, shape: Shape) -> Result<Ended, Error> {
        loop {
            match self.receive(shape).await {
                Ok(frame) if frame.kind == kind::C2H_TERM => {
                    let (status, info) = (frame.u16_at(8), frame.u32_at(10));
                    return Ok(Ended::Terminated { status, info });
                }
                Ok(_) => {}
                Err(Error::Closed) => return Ok(Ended::Closed),
                Err(Error::Io(error)) if is_reset(&error) => return Ok(Ended::Reset),
                Err(error) => return Err(error),
            }
        }
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}
