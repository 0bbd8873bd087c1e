//! Runs a connection: moves bytes between a stream and the sans-IO session, and keeps its time.
//!
//! Does not: parse, decide or encode (`session`), or choose threads. One future serves one
//! connection; it spawns nothing and can run on any tokio runtime.
//! Invariants: 1. Without pressure on memory, bytes are read only when the session has used up what
//! is here. 2. An operation of a namespace is polled to its end, whatever happens to the socket.
//! Concurrency: dropping the future closes the socket, gives the queue back to its controller and
//! drops the pending operations.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use lsvd_buf::BufPool;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Sleep, sleep, timeout};

use crate::error::Error;
use crate::limits::{
    DRAIN_MAX, HANDSHAKE_MAX, KEEP_ALIVE_GRANULARITY, LINGER_MAX, RECEIVE_AFTER_LARGE,
    RECEIVE_BYTES, RECEIVE_BYTES_CONNECTING, RECEIVE_SPARE_MIN,
};
use crate::session::Session;
use crate::target::{Origin, Target};

/// A connection whose host has connected a queue, and which waits to be served.
///
/// A tokio socket belongs to one runtime. To serve the connection on another thread, take it off
/// here and register it there, with [`map_stream`](Self::map_stream).
pub struct Accepted<S>(Connection<S>);

impl<S> Accepted<S> {
    /// Name of the subsystem.
    #[must_use]
    pub fn subsystem(&self) -> &str {
        self.0.session.member().map_or("", |member| &member.subsystem.nqn)
    }

    /// Queue ID; 0 is the admin queue.
    #[must_use]
    pub fn qid(&self) -> u16 {
        self.0.session.member().map_or(0, |member| member.qid)
    }

    /// NQN of the host.
    #[must_use]
    pub fn host_nqn(&self) -> &str {
        self.0.session.member().map_or("", |member| &member.controller.host_nqn)
    }

    /// The same connection on another stream, or the same stream in another form.
    pub fn map_stream<T>(
        self,
        replace: impl FnOnce(S) -> io::Result<T>,
    ) -> io::Result<Accepted<T>> {
        // A timer belongs to its runtime, like a socket. The next poll makes a new one.
        let Connection { stream, session, input, follows_large, .. } = self.0;
        let stream = replace(stream)?;
        let (drain, keep_alive) = (None, None);
        Ok(Accepted(Connection { stream, session, input, follows_large, drain, keep_alive }))
    }
}

/// How a served connection ended in good order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The host said so with a Disconnect command.
    Disconnected,
    /// The host hung up between two PDUs.
    HungUp,
    /// The association ended elsewhere: at its admin queue, or at the control socket.
    Removed,
    /// We were asked to stop.
    Stopped,
}

/// Talks to the peer until it has connected a queue.
///
/// `None` if the peer left, or was turned away, before that. The peer has [`HANDSHAKE_MAX`] for all
/// of it. Dropping the future closes the connection and leaves nothing behind. Write payloads are
/// received into memory of `buffers`.
pub async fn accept<S>(
    stream: S,
    origin: Origin,
    target: Arc<Target>,
    buffers: BufPool,
) -> Result<Option<Accepted<S>>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    target.stats.connections.fetch_add(1, Ordering::Relaxed);
    let mut connection = Connection::new(stream, Session::new(target, origin, buffers));
    let connecting = std::future::poll_fn(|context| connection.poll_connecting(context));
    match timeout(HANDSHAKE_MAX, connecting).await {
        Err(_) => Err(Error::HandshakeTimeout),
        Ok(None) => Ok(Some(Accepted(connection))),
        Ok(Some(result)) => {
            connection.leave(&result).await;
            result.map(|_| None)
        }
    }
}

/// Serves a connection until the peer leaves, breaks the protocol or falls silent, its association
/// ends, or `stop` turns true or loses its sender.
///
/// A stop takes no further commands, finishes those in flight and sends their replies. Commands
/// that were not taken get no reply: the host reconnects and repeats them.
pub async fn serve<S>(
    accepted: Accepted<S>,
    mut stop: watch::Receiver<bool>,
) -> Result<Ended, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = accepted.0;
    let mut stopped = pin!(stop.wait_for(|stop| *stop));
    let result = std::future::poll_fn(|context| {
        if connection.session.is_running() && stopped.as_mut().poll(context).is_ready() {
            connection.session.close(Ok(Ended::Stopped));
        }
        connection.poll(context)
    })
    .await;
    connection.leave(&result).await;
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
    session: Session,
    input: BytesMut,
    /// The last payload went past the receive buffer; see `RECEIVE_AFTER_LARGE`.
    follows_large: bool,
    drain: Option<Pin<Box<Sleep>>>,
    keep_alive: Option<KeepAlive>,
}

/// The timer of an admin connection whose host asked for one.
struct KeepAlive {
    timeout_ms: u32,
    timer: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn new(stream: S, session: Session) -> Self {
        let input = BytesMut::with_capacity(RECEIVE_BYTES_CONNECTING);
        Self { stream, session, input, follows_large: false, drain: None, keep_alive: None }
    }

    /// Lets go of everything but the stream, and closes that.
    async fn leave(self, result: &Result<Ended, Error>) {
        let Self { stream, session, .. } = self;
        // The controller must be free before the peer sees the end and comes back.
        drop(session);
        if matches!(result, Ok(_) | Err(Error::Violation(_))) {
            // A peer that does not close in time is closed on, which harms nobody but itself.
            let _ = timeout(LINGER_MAX, linger(stream)).await;
        }
    }

    /// Ready with `None` once a queue is connected and the host has been told.
    fn poll_connecting(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Ended, Error>>> {
        match self.poll(context) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending if self.session.is_connected() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Goes round until nothing moves: take all commands that are here, run them, send all replies
    /// that are ready in one write, and only then look for more.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Ended, Error>> {
        loop {
            let mut moved = self.session.take_commands(&mut self.input);
            moved |= self.session.poll(context);
            moved |= self.poll_send(context);
            if self.session.is_running() {
                self.poll_keep_alive(context);
                if self.session.is_starved() {
                    moved |= self.poll_receive(context);
                }
            } else {
                if let Some(result) = self.session.take_end() {
                    return Poll::Ready(result);
                }
                moved |= self.poll_drain(context);
            }
            if !moved {
                return Poll::Pending;
            }
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> bool {
        let mut moved = false;
        while !self.session.outbox.is_empty() {
            match self.session.outbox.poll_send(context, &mut self.stream) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => self.session.break_off(error.into()),
            }
            moved = true;
        }
        moved
    }

    fn poll_receive(&mut self, context: &mut Context<'_>) -> bool {
        let read = match self.session.payload_target(&self.input) {
            Some(target) => {
                let mut target = ReadBuf::new(target);
                let read = Pin::new(&mut self.stream).poll_read(context, &mut target);
                let arrived = target.filled().len();
                self.follows_large = true;
                self.session.payload_arrived(arrived);
                read.map_ok(|()| arrived)
            }
            None => {
                self.make_room();
                let spare = self.input.capacity() - self.input.len();
                let most = if self.follows_large { RECEIVE_AFTER_LARGE } else { spare };
                let mut target = (&mut self.input).limit(most);
                let read = pin!(self.stream.read_buf(&mut target)).poll(context);
                self.follows_large &= read.is_pending();
                read
            }
        };
        match read {
            Poll::Pending => return false,
            Poll::Ready(Ok(0)) => {
                let is_clean = self.input.is_empty() && self.session.is_between_pdus();
                self.session.close(if is_clean {
                    Ok(Ended::HungUp)
                } else {
                    Err(Error::Truncated)
                });
            }
            Poll::Ready(Ok(_)) => self.session.bytes_arrived(),
            Poll::Ready(Err(error)) => self.session.break_off(error.into()),
        }
        true
    }

    /// What is left in the receive buffer is part of one PDU, and a short one.
    fn make_room(&mut self) {
        let (spare_min, bytes) = if self.session.member().is_some() {
            (RECEIVE_SPARE_MIN, RECEIVE_BYTES)
        } else {
            (1, RECEIVE_BYTES_CONNECTING)
        };
        if self.input.capacity() - self.input.len() < spare_min {
            self.input.reserve(bytes - self.input.len());
        }
    }

    /// Ends the association of a host that was silent for one and a half times its timeout: with
    /// the timeout alone, a sign of life that is a little late would be fatal.
    fn poll_keep_alive(&mut self, context: &mut Context<'_>) {
        let wanted = self.session.keep_alive_ms();
        if self.keep_alive.as_ref().map_or(0, |known| known.timeout_ms) != wanted {
            let arm =
                |timeout_ms| KeepAlive { timeout_ms, timer: Box::pin(sleep(window(timeout_ms))) };
            self.keep_alive = (wanted > 0).then(|| arm(wanted));
        }
        let Some(keep_alive) = &mut self.keep_alive else { return };
        while self.session.is_running() && keep_alive.timer.as_mut().poll(context).is_ready() {
            if self.session.take_traffic() {
                keep_alive.timer.set(sleep(window(keep_alive.timeout_ms)));
            } else {
                self.session.host_is_silent(keep_alive.timeout_ms);
            }
        }
    }

    /// Gives up on a peer that does not read its last replies.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> bool {
        if self.session.outbox.is_empty() {
            // Operations that take their time are not the peer's fault.
            self.drain = None;
            return false;
        }
        let drain = self.drain.get_or_insert_with(|| Box::pin(sleep(DRAIN_MAX)));
        if drain.as_mut().poll(context).is_pending() {
            return false;
        }
        self.session.break_off(Error::Stalled);
        true
    }
}

fn window(timeout_ms: u32) -> Duration {
    let granularity_ms = u64::from(KEEP_ALIVE_GRANULARITY) * 100;
    Duration::from_millis(u64::from(timeout_ms).next_multiple_of(granularity_ms) * 3 / 2)
}

#[cfg(test)]
mod test;
