//! Runs a connection: moves bytes between a stream and the sans-IO core, and requests between the
//! core and an export.
//!
//! Does not: parse (`handshake`, `session`), encode (`reply`), or choose threads. One future serves
//! one connection; it spawns nothing and can run on any tokio runtime.
//! Invariants: 1. A request is counted from the moment it is taken until the last byte of its reply
//! is sent, and none is taken beyond the limits; so a peer that does not read cannot make us hold
//! more. 2. The socket is read only when the core has asked for more bytes. 3. No operation is
//! dropped before it is done, whatever happens to the socket.
//! Concurrency: dropping the future closes the socket and drops the pending operations.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BufMut;
use bytes::BytesMut;
use lsvd_buf::BufPool;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Sleep, sleep, timeout};

use crate::error::Error;
use crate::export::{BoxFuture, Export, Exports, Failure, Outcome};
use crate::handshake::{Handshake, Progress};
use crate::limits::{
    DRAIN_MAX, HANDSHAKE_MAX, LINGER_MAX, PAYLOAD_GATE, RECEIVE_AFTER_LARGE, RECEIVE_BYTES,
    RECEIVE_SPARE_MIN, REPLIES_GATE, REQUESTS_MAX,
};
use crate::operations::{Operation, Operations};
use crate::outbox::Outbox;
use crate::reply::{Answer, Reply, Tag, errno_of};
use crate::session::{Command, Event, Session, Terms};
use crate::socket::{DetachedSocket, Socket};

/// A connection that has agreed on an export and waits to be served.
///
/// A tokio socket belongs to one runtime. To serve the connection on another thread, `detach` it
/// here and `attach` it there.
pub struct Negotiated<S> {
    stream: S,
    export: Arc<dyn Export>,
    terms: Terms,
    /// What the client sent behind its last option.
    input: BytesMut,
}

impl<S> Negotiated<S> {
    /// The name of the export, as the export gives it.
    #[must_use]
    pub fn export_name(&self) -> &str {
        &self.terms.info.name
    }

    fn replace_stream<T>(
        self,
        replace: impl FnOnce(S) -> io::Result<T>,
    ) -> io::Result<Negotiated<T>> {
        let Self { stream, export, terms, input } = self;
        Ok(Negotiated { stream: replace(stream)?, export, terms, input })
    }
}

impl Negotiated<Socket> {
    /// Takes the connection off its runtime.
    pub fn detach(self) -> io::Result<Negotiated<DetachedSocket>> {
        self.replace_stream(Socket::detach)
    }
}

impl Negotiated<DetachedSocket> {
    /// Registers the connection with the current runtime.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn attach(self) -> io::Result<Negotiated<Socket>> {
        self.replace_stream(DetachedSocket::attach)
    }
}

/// How a served connection ended in good order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The client said so (NBD_CMD_DISC).
    Disconnected,
    /// The client hung up between two requests.
    HungUp,
    /// We were asked to stop.
    Stopped,
}

/// Haggles with the peer until it has chosen one of `exports`.
///
/// `None` if the peer left without choosing. The peer has [`HANDSHAKE_MAX`] for all of it. Dropping
/// the future closes the connection and leaves nothing behind.
pub async fn negotiate<S>(stream: S, exports: &dyn Exports) -> Result<Option<Negotiated<S>>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let haggle = haggle(stream, exports);
    timeout(HANDSHAKE_MAX, haggle).await.map_err(|_| Error::HandshakeTimeout)?
}

async fn haggle<S>(mut stream: S, exports: &dyn Exports) -> Result<Option<Negotiated<S>>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut input, mut output) = (BytesMut::with_capacity(4096), BytesMut::new());
    let mut handshake = Handshake::start(&mut output);
    loop {
        stream.write_all_buf(&mut output).await?;
        match handshake.advance(&mut input, exports, &mut output)? {
            Progress::Moved => {}
            Progress::Starved => {
                if stream.read_buf(&mut input).await? == 0 {
                    let is_clean = input.is_empty() && handshake.is_between_messages();
                    return if is_clean { Ok(None) } else { Err(Error::Truncated) };
                }
            }
            Progress::Agreed(export, terms) => {
                stream.write_all_buf(&mut output).await?;
                return Ok(Some(Negotiated { stream, export, terms, input }));
            }
            Progress::Aborted => {
                // The peer may be gone without waiting for this reply; that is its right.
                let _ = stream.write_all_buf(&mut output).await;
                return Ok(None);
            }
        }
    }
}

/// Serves a connection until the peer leaves, breaks the protocol, or `stop` turns true or loses
/// its sender.
///
/// A stop takes no further requests, finishes those in flight and sends their replies. Requests
/// that were not taken get no reply: a client that reconnects repeats them, while NBD_ESHUTDOWN
/// would reach its user as an I/O error.
///
/// Large payloads are received into memory of `buffers`.
pub async fn serve<S>(
    negotiated: Negotiated<S>,
    buffers: BufPool,
    mut stop: watch::Receiver<bool>,
) -> Result<Ended, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = Connection::new(negotiated, buffers);
    let mut stopped = pin!(stop.wait_for(|stop| *stop));
    let result = std::future::poll_fn(|context| {
        if connection.end.is_none() && stopped.as_mut().poll(context).is_ready() {
            connection.close(Ok(Ended::Stopped));
        }
        connection.poll(context)
    })
    .await;
    if result.is_ok() {
        // A peer that does not close in time is closed on, which harms nobody but itself.
        let _ = timeout(LINGER_MAX, linger(connection.into_stream())).await;
    }
    result
}

/// Tells the peer that nothing follows and waits until it has closed its side, too.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<()> {
    stream.shutdown().await?;
    let mut ignored = BytesMut::with_capacity(RECEIVE_SPARE_MIN);
    while stream.read_buf(&mut ignored).await? > 0 {
        ignored.clear();
    }
    Ok(())
}

struct Connection<S> {
    stream: S,
    export: Arc<dyn Export>,
    session: Session,
    input: BytesMut,
    /// The core has consumed what it can and waits for more bytes.
    is_starved: bool,
    /// The last payload went past the receive buffer; see `RECEIVE_AFTER_LARGE`.
    follows_large: bool,
    operations: Operations,
    outbox: Outbox,
    admission: Admission,
    /// Set once no more requests are taken: what `serve` will return.
    end: Option<Result<Ended, Error>>,
    /// The socket does not take replies any more.
    is_broken: bool,
    drain: Option<Pin<Box<Sleep>>>,
}

/// Counts what is in flight (invariant 1).
#[derive(Debug, Default)]
struct Admission {
    requests: usize,
    payload: u64,
}

impl Admission {
    fn is_open(&self) -> bool {
        self.requests < REQUESTS_MAX && self.payload <= PAYLOAD_GATE
    }

    fn take(&mut self, tag: Tag) {
        self.requests += 1;
        self.payload += tag.charge();
    }

    fn release(&mut self, reply: &Reply) {
        self.requests -= 1;
        self.payload -= reply.charge();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn new(negotiated: Negotiated<S>, buffers: BufPool) -> Self {
        let Negotiated { stream, export, terms, input } = negotiated;
        Self {
            stream,
            export,
            session: Session::new(terms, buffers),
            input,
            is_starved: false,
            follows_large: false,
            operations: Operations::new(),
            outbox: Outbox::default(),
            admission: Admission::default(),
            end: None,
            is_broken: false,
            drain: None,
        }
    }

    /// Lets go of everything else, the export in particular.
    fn into_stream(self) -> S {
        self.stream
    }

    /// Takes no more requests; the first reason counts.
    fn close(&mut self, end: Result<Ended, Error>) {
        self.end.get_or_insert(end);
    }

    /// The socket failed: replies have no receiver, but the operations go on to their end.
    fn break_off(&mut self, error: Error) {
        if !matches!(self.end, Some(Err(_))) {
            self.end = Some(Err(error));
        }
        self.is_broken = true;
        self.outbox.discard(|reply| self.admission.release(reply));
    }

    /// Goes round until nothing moves: take all requests that are here, run them, send all replies
    /// that are ready in one write, and only then look for more.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Ended, Error>> {
        loop {
            let mut moved = self.take_requests();
            moved |= self.poll_operations(context);
            moved |= self.poll_send(context);
            if self.end.is_some() {
                if self.operations.is_empty() && self.outbox.is_empty() {
                    return Poll::Ready(self.end.take().expect("it is some"));
                }
                moved |= self.poll_drain(context);
            } else if self.is_starved && self.is_open() {
                moved |= self.poll_receive(context);
            }
            if !moved {
                return Poll::Pending;
            }
        }
    }

    /// Whether another request may be taken.
    fn is_open(&self) -> bool {
        self.admission.is_open() && self.outbox.bytes() < REPLIES_GATE
    }

    fn take_requests(&mut self) -> bool {
        let mut moved = false;
        while self.end.is_none() && !self.is_starved && self.is_open() {
            match self.session.next(&mut self.input) {
                Ok(None) => {
                    self.is_starved = true;
                    break;
                }
                Ok(Some(Event::Request(tag, command))) => {
                    self.admission.take(tag);
                    self.execute(tag, command);
                }
                Ok(Some(Event::Settled(tag, result))) => {
                    self.admission.take(tag);
                    self.outbox.push(Reply::new(self.session.style(), tag, result));
                }
                Ok(Some(Event::Disconnect)) => self.close(Ok(Ended::Disconnected)),
                Err(violation) => self.close(Err(violation.into())),
            }
            moved = true;
        }
        moved
    }

    fn execute(&mut self, tag: Tag, command: Command) {
        let outcome = match command {
            Command::Read { offset, len } => {
                let outcome = self.export.read(offset, len);
                return self.settle(tag, outcome, Answer::Data, Operation::Data);
            }
            Command::BlockStatus { offset, len, extents_max } => {
                let outcome = self.export.block_status(offset, len, extents_max);
                return self.settle(tag, outcome, Answer::Extents, Operation::Extents);
            }
            Command::Write { offset, data, fua } => self.export.write(offset, data, fua),
            Command::Flush => self.export.flush(),
            Command::Trim { offset, len, fua } => self.export.trim(offset, len, fua),
            Command::Cache { offset, len } => self.export.cache(offset, len),
            Command::WriteZeroes { offset, len, fua, no_hole } => {
                self.export.write_zeroes(offset, len, fua, no_hole)
            }
        };
        self.settle(tag, outcome, |()| Answer::Done, Operation::Done);
    }

    fn settle<T>(
        &mut self,
        tag: Tag,
        outcome: Outcome<T>,
        answer: impl FnOnce(T) -> Answer,
        pending: impl FnOnce(BoxFuture<Result<T, Failure>>) -> Operation,
    ) {
        match outcome {
            Outcome::Ready(result) => {
                let result = result.map(answer).map_err(|failure| errno_of(tag, failure));
                self.outbox.push(Reply::new(self.session.style(), tag, result));
            }
            Outcome::Pending(future) => self.operations.push(tag, pending(future)),
        }
    }

    fn poll_operations(&mut self, context: &Context<'_>) -> bool {
        let mut moved = false;
        let style = self.session.style();
        self.operations.poll(context, |tag, result| {
            let result = result.map_err(|failure| errno_of(tag, failure));
            let reply = Reply::new(style, tag, result);
            if self.is_broken {
                self.admission.release(&reply);
            } else {
                self.outbox.push(reply);
            }
            moved = true;
        });
        moved
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> bool {
        let mut moved = false;
        while !self.outbox.is_empty() {
            let released = |reply: &Reply| self.admission.release(reply);
            match self.outbox.poll_send(context, &mut self.stream, released) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => self.break_off(error.into()),
            }
            moved = true;
        }
        moved
    }

    fn poll_receive(&mut self, context: &mut Context<'_>) -> bool {
        let read = match self.session.payload_target() {
            Some(target) => {
                self.follows_large = true;
                let mut target = ReadBuf::new(target);
                let read = Pin::new(&mut self.stream).poll_read(context, &mut target);
                let arrived = target.filled().len();
                self.session.payload_arrived(arrived);
                read.map_ok(|()| arrived)
            }
            None => {
                if self.input.capacity() - self.input.len() < RECEIVE_SPARE_MIN {
                    // What is left is part of one request, and a small one.
                    self.input.reserve(RECEIVE_BYTES - self.input.len());
                }
                let most = if self.follows_large { RECEIVE_AFTER_LARGE } else { usize::MAX };
                let mut target = (&mut self.input).limit(most);
                let read = pin!(self.stream.read_buf(&mut target)).poll(context);
                self.follows_large &= read.is_pending();
                read
            }
        };
        match read {
            Poll::Pending => return false,
            Poll::Ready(Ok(0)) => {
                let is_clean = self.input.is_empty() && self.session.is_between_requests();
                self.close(if is_clean { Ok(Ended::HungUp) } else { Err(Error::Truncated) });
            }
            Poll::Ready(Ok(_)) => self.is_starved = false,
            Poll::Ready(Err(error)) => self.break_off(error.into()),
        }
        true
    }

    /// Gives up on a peer that does not read its last replies.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> bool {
        if self.outbox.is_empty() {
            // Operations that take their time are not the peer's fault.
            self.drain = None;
            return false;
        }
        let drain = self.drain.get_or_insert_with(|| Box::pin(sleep(DRAIN_MAX)));
        if drain.as_mut().poll(context).is_pending() {
            return false;
        }
        self.break_off(Error::Stalled);
        true
    }
}

#[cfg(test)]
mod test;
