//! One connection: an [`Exchange`] and its socket.
//!
//! Owns the socket and the bytes that have arrived. Does not: start tasks or measure time. A caller
//! that wants a time-out wraps a call: one that is dropped loses no bytes, but the command of a
//! dropped [`Queue::execute`] stays outstanding.
//! Invariants: nothing is read before all that could be sent was offered to the socket, so a
//! caller that submits and takes completions in turn sends in batches without asking for them.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;

use crate::command::{Command, Completion, Tag};
use crate::error::{Error, Violation};
use crate::exchange::{Agreement, Exchange};
use crate::pdu::{self, Frame, Shape, kind};

/// In-capsule data of admin and fabrics commands, whatever the controller says, in bytes.
const ADMIN_IN_CAPSULE_MAX: u32 = 8192;
/// Room made before each read: some 30 completed reads of 4 KiB.
const RECEIVE_BYTES: usize = 128 << 10;
/// MAXH2CDATA should be no less than this (NVMe/TCP 1.0, section 3.6.2.3).
const DATA_PDU_MIN: u32 = 4096;

/// What this host asks for on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueOptions {
    /// CRC-32C on headers.
    pub header_digest: bool,
    /// CRC-32C on data.
    pub data_digest: bool,
    /// Data from the target starts at a multiple of this many bytes: 4 to 128.
    pub alignment: usize,
    /// R2Ts of one command that the target may have outstanding, at least 1.
    pub r2ts: u32,
    /// Whether the target reports the submission queue head.
    pub flow_control: bool,
    /// Look for completions without sleeping: costs a core, and leaves the time that it takes to
    /// wake up out of the latency.
    pub spin: bool,
}

impl Default for QueueOptions {
    /// What Linux asks for: no digests, no padding, one R2T, flow control.
    fn default() -> Self {
        Self {
            header_digest: false,
            data_digest: false,
            alignment: 4,
            r2ts: 1,
            flow_control: true,
            spin: false,
        }
    }
}

/// A queue pair.
#[derive(Debug)]
pub struct Queue {
    stream: TcpStream,
    exchange: Exchange,
    inbox: BytesMut,
    spin: bool,
    /// Completions that came while [`Self::execute`] waited for another.
    passed_over: VecDeque<Completion>,
}

impl Queue {
    /// Opens a connection and agrees on its parameters; the first command must be
    /// [`Command::connect`]. A queue of `entries` (2 to 65535) holds one command less.
    ///
    /// # Errors
    /// The socket's, and what the target does wrong.
    pub async fn open(
        address: SocketAddr,
        entries: u16,
        options: QueueOptions,
    ) -> Result<Self, Error> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut shape = Shape {
            header_digest: options.header_digest,
            data_digest: options.data_digest,
            alignment: 4,
            peer_alignment: options.alignment,
        };
        let mut out = BytesMut::new();
        pdu::put_initialize(&mut out, shape, options.r2ts);
        stream.write_all(&out).await?;
        let mut inbox = BytesMut::with_capacity(RECEIVE_BYTES);
        let answer = loop {
            if let Some(frame) = pdu::take(&mut inbox, Shape::default(), 152)? {
                break frame;
            }
            receive(&stream, &mut inbox).await?;
        };
        let data_pdu_max = check_initialized(&answer, &mut shape)?;
        let exchange = Exchange::new(Agreement {
            shape,
            entries,
            data_pdu_max,
            r2ts: options.r2ts.max(1),
            in_capsule_max: ADMIN_IN_CAPSULE_MAX,
            flow_control: options.flow_control,
        });
        Ok(Self { stream, exchange, inbox, spin: options.spin, passed_over: VecDeque::new() })
    }

    /// Longest data in bytes that is sent along with a command, instead of on request.
    pub fn set_in_capsule_max(&mut self, bytes: u32) {
        self.exchange.set_in_capsule_max(bytes);
    }

    /// Commands without a completion, and completions that nobody has taken.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.exchange.outstanding() + self.passed_over.len()
    }

    /// Queues a command. It is sent by the next call that waits, or by [`Self::flush`].
    ///
    /// # Errors
    /// [`Error::QueueFull`].
    pub fn submit(&mut self, command: Command) -> Result<Tag, Error> {
        self.exchange.submit(command)
    }

    /// Sends what is queued, without reading.
    ///
    /// # Errors
    /// The socket's.
    pub async fn flush(&mut self) -> Result<(), Error> {
        while !self.exchange.unsent().is_empty() {
            self.stream.writable().await?;
            self.send()?;
        }
        Ok(())
    }

    /// The next completion, in the target's order. Waits forever if nothing is outstanding and the
    /// target stays silent.
    ///
    /// # Errors
    /// The socket's, and what the target does wrong. The status of the command is no error here.
    pub async fn next_completion(&mut self) -> Result<Completion, Error> {
        match self.passed_over.pop_front() {
            Some(completion) => Ok(completion),
            None => self.receive_completion().await,
        }
    }

    /// Sends `command` and waits for its completion; others stay for [`Self::next_completion`].
    ///
    /// # Errors
    /// As [`Self::next_completion`], and [`Error::QueueFull`].
    pub async fn execute(&mut self, command: Command) -> Result<Completion, Error> {
        let tag = self.submit(command)?;
        loop {
            let completion = self.receive_completion().await?;
            if completion.tag == tag {
                return Ok(completion);
            }
            self.passed_over.push_back(completion);
        }
    }

    async fn receive_completion(&mut self) -> Result<Completion, Error> {
        loop {
            if let Some(completion) = self.exchange.receive(&mut self.inbox)? {
                return Ok(completion);
            }
            self.send()?;
            if self.spin {
                try_receive(&self.stream, &mut self.inbox)?;
                // The runtime looks at the socket without waiting, as there is a task to run.
                tokio::task::yield_now().await;
                continue;
            }
            let interest = if self.exchange.unsent().is_empty() {
                Interest::READABLE
            } else {
                Interest::READABLE | Interest::WRITABLE
            };
            let ready = self.stream.ready(interest).await?;
            if ready.is_readable() {
                try_receive(&self.stream, &mut self.inbox)?;
            }
        }
    }

    /// Writes as much as the socket takes.
    fn send(&mut self) -> Result<(), Error> {
        while !self.exchange.unsent().is_empty() {
            match self.stream.try_write(self.exchange.unsent()) {
                Ok(sent) => self.exchange.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

async fn receive(stream: &TcpStream, inbox: &mut BytesMut) -> Result<(), Error> {
    stream.readable().await?;
    try_receive(stream, inbox)
}

fn try_receive(stream: &TcpStream, inbox: &mut BytesMut) -> Result<(), Error> {
    inbox.reserve(RECEIVE_BYTES / 4);
    match stream.try_read_buf(inbox) {
        Ok(0) if inbox.is_empty() => Err(Error::Closed),
        Ok(0) => Err(Violation::CutOff.into()),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Holds ICResp against what was asked for; returns MAXH2CDATA and fills in CPDA.
fn check_initialized(answer: &Frame, shape: &mut Shape) -> Result<u32, Error> {
    if answer.kind == kind::C2H_TERM {
        return Err(Error::Terminated { status: answer.u16_at(8), info: answer.u32_at(10) });
    }
    if answer.kind != kind::ICRESP {
        return Err(Violation::Kind(answer.kind).into());
    }
    let [units, digests] = [answer.header[10], answer.header[11]];
    if answer.u16_at(8) != 0 {
        return Err(Violation::Icresp("format version").into());
    }
    if units > 31 {
        return Err(Violation::Icresp("data alignment").into());
    }
    if digests != u8::from(shape.header_digest) | u8::from(shape.data_digest) << 1 {
        return Err(Violation::Icresp("choice of digests").into());
    }
    let data_pdu_max = answer.u32_at(12);
    if data_pdu_max < DATA_PDU_MIN || !data_pdu_max.is_multiple_of(4) {
        return Err(Violation::Icresp("maximum of data").into());
    }
    shape.alignment = (usize::from(units) + 1) * 4;
    Ok(data_pdu_max)
}
