//! The transmission phase without sockets: bytes in, checked requests out.
//!
//! Does not: execute anything, or send anything (`driver`). Replies are made by `reply`.
//! Invariants: 1. Every request that leaves here is inside the export, aligned, allowed and within
//! the payload limit. 2. Exactly `len` bytes follow the header of a WRITE, and all of them are
//! consumed, whatever is wrong with the request. 3. Memory held is one payload at most.

use bytes::{Buf, Bytes, BytesMut};
use lsvd_buf::{AlignedBuf, BufPool};

use crate::error::Violation;
use crate::export::ExportInfo;
use crate::limits::{EXTENTS_MAX, LARGE_PAYLOAD};
use crate::reply::{Answer, Shape, Style, Tag};
use crate::wire::{CommandKind, Errno, RequestHeader, command_flag as flag};

/// What the handshake settled for the transmission phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) info: ExportInfo,
    pub(crate) style: Style,
    /// `base:allocation` was selected for this export.
    pub(crate) allocation: bool,
}

/// What the client wants, next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A checked request, to be executed and answered.
    Request(Tag, Command),
    /// A request whose answer needs no export: refused, or about nothing.
    Settled(Tag, Result<Answer, Errno>),
    /// NBD_CMD_DISC: answer what is in flight, then close. Nothing follows.
    Disconnect,
}

/// A request to execute. Offsets and lengths in bytes; no length is zero.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Read { offset: u64, len: u32 },
    Write { offset: u64, data: Bytes, fua: bool },
    Flush,
    Trim { offset: u64, len: u32, fua: bool },
    Cache { offset: u64, len: u32 },
    WriteZeroes { offset: u64, len: u32, fua: bool, no_hole: bool },
    BlockStatus { offset: u64, len: u32, extents_max: usize },
}

/// Decoder of one connection's requests.
#[derive(Debug)]
pub(crate) struct Session {
    terms: Terms,
    state: State,
    /// Memory for large payloads.
    buffers: BufPool,
}

#[derive(Debug)]
enum State {
    Header,
    /// A small payload, to be sliced out of the receive buffer when it is all there.
    Small(Write),
    /// A large payload, collected in its own buffer.
    Large(Write, AlignedBuf),
    /// The payload of a refused write.
    Skip {
        left: u32,
        cookie: u64,
        errno: Errno,
    },
}

#[derive(Debug, Clone, Copy)]
struct Write {
    tag: Tag,
    offset: u64,
    len: u32,
    fua: bool,
}

impl Session {
    pub(crate) fn new(terms: Terms, buffers: BufPool) -> Self {
        Self { terms, state: State::Header, buffers }
    }

    pub(crate) fn style(&self) -> Style {
        self.terms.style
    }

    /// Whether the stream is between two requests, as far as it has been consumed.
    pub(crate) fn is_between_requests(&self) -> bool {
        matches!(self.state, State::Header)
    }

    /// Consumes from `input` until there is an event. `None`: more bytes are needed.
    pub(crate) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Event>, Violation> {
        loop {
            match &mut self.state {
                State::Header => {
                    let Some(head) = input.first_chunk() else { return Ok(None) };
                    let header = RequestHeader::parse(head)
                        .map_err(|found| Violation::RequestMagic { found })?;
                    input.advance(RequestHeader::BYTES);
                    if let Some(event) = self.begin(header) {
                        return Ok(Some(event));
                    }
                }
                State::Small(write) => {
                    if input.len() < write.len as usize {
                        return Ok(None);
                    }
                    let write = *write;
                    let data = input.split_to(write.len as usize).freeze();
                    return Ok(Some(self.written(write, data)));
                }
                State::Large(write, data) => {
                    let left = write.len as usize - data.len();
                    let take = left.min(input.len());
                    data.extend_from_slice(&input[..take]);
                    input.advance(take);
                    if take < left {
                        return Ok(None);
                    }
                    let (write, data) = (*write, std::mem::take(data).freeze());
                    return Ok(Some(self.written(write, data)));
                }
                State::Skip { left, cookie, errno } => {
                    let take = (*left as usize).min(input.len());
                    input.advance(take);
                    *left -= u32::try_from(take).expect("no more than left");
                    if *left > 0 {
                        return Ok(None);
                    }
                    let event = refused(*cookie, *errno);
                    self.state = State::Header;
                    return Ok(Some(event));
                }
            }
        }
    }

    /// Where the bytes that come next should go, if that is not the receive buffer. Only after
    /// `next` has asked for more bytes, which leaves the receive buffer empty. What was filled is
    /// told to [`payload_arrived`](Self::payload_arrived).
    pub(crate) fn payload_target(&mut self) -> Option<&mut [u8]> {
        match &mut self.state {
            State::Large(write, data) => {
                let left = write.len as usize - data.len();
                Some(&mut data.spare_mut()[..left])
            }
            _ => None,
        }
    }

    /// The first `bytes` of the payload target were filled.
    pub(crate) fn payload_arrived(&mut self, bytes: usize) {
        if let State::Large(_, data) = &mut self.state {
            data.advance(bytes);
        }
    }

    fn written(&mut self, write: Write, data: Bytes) -> Event {
        self.state = State::Header;
        Event::Request(write.tag, Command::Write { offset: write.offset, data, fua: write.fua })
    }

    /// What a header asks for. `None`: its payload comes first.
    fn begin(&mut self, header: RequestHeader) -> Option<Event> {
        let cookie = header.cookie;
        match self.accept(header) {
            Ok(Accepted::Event(event)) => return Some(event),
            Ok(Accepted::Write(write)) if write.len < LARGE_PAYLOAD => {
                self.state = State::Small(write);
            }
            Ok(Accepted::Write(write)) => {
                self.state = State::Large(write, self.buffers.take(write.len as usize));
            }
            Err(errno) if CommandKind::parse(header.kind) == Some(CommandKind::Write) => {
                self.state = State::Skip { left: header.len, cookie, errno };
            }
            Err(errno) => return Some(refused(cookie, errno)),
        }
        None
    }

    /// The checks behind invariant 1, with the errors that "Error values" names.
    fn accept(&self, header: RequestHeader) -> Result<Accepted, Errno> {
        let RequestHeader { flags, cookie, offset, len, .. } = header;
        let kind = CommandKind::parse(header.kind).ok_or(Errno::Invalid)?;
        self.check_flags(kind, flags)?;
        let (shape, command) = match kind {
            CommandKind::Disconnect => return Ok(Accepted::Event(Event::Disconnect)),
            CommandKind::Write => {
                self.check_writable()?;
                self.check_payload(flags, len)?;
                self.check_range(offset, len, Errno::NoSpace)?;
                let tag = Tag { cookie, shape: Shape::Status { payload: len, write: true } };
                if len > 0 {
                    let fua = flags & flag::FUA != 0;
                    return Ok(Accepted::Write(Write { tag, offset, len, fua }));
                }
                return Ok(Accepted::Event(Event::Settled(tag, Ok(Answer::Done))));
            }
            CommandKind::Read => {
                self.check_payload(flags, len)?;
                self.check_range(offset, len, Errno::Invalid)?;
                (Shape::Read { offset, len }, Command::Read { offset, len })
            }
            CommandKind::BlockStatus => {
                // A reply without a descriptor does not exist, so there is none for no bytes.
                if !self.terms.allocation || len == 0 {
                    return Err(Errno::Invalid);
                }
                self.check_range(offset, len, Errno::Invalid)?;
                let extents_max = if flags & flag::REQ_ONE != 0 { 1 } else { EXTENTS_MAX };
                let command = Command::BlockStatus { offset, len, extents_max };
                (Shape::BlockStatus { len, extents_max }, command)
            }
            CommandKind::Flush | CommandKind::Trim | CommandKind::Cache => {
                (Shape::Status { payload: 0, write: false }, self.plain(kind, header)?)
            }
            CommandKind::WriteZeroes => {
                (Shape::Status { payload: 0, write: true }, self.plain(kind, header)?)
            }
        };
        let tag = Tag { cookie, shape };
        // The protocol leaves a length of zero open: here it succeeds and does nothing.
        Ok(Accepted::Event(match shape {
            Shape::Read { len: 0, .. } => Event::Settled(tag, Ok(Answer::Data(Bytes::new()))),
            _ if len == 0 && command != Command::Flush => Event::Settled(tag, Ok(Answer::Done)),
            _ => Event::Request(tag, command),
        }))
    }

    /// Commands without payload in either direction.
    fn plain(&self, kind: CommandKind, header: RequestHeader) -> Result<Command, Errno> {
        let RequestHeader { flags, offset, len, .. } = header;
        let fua = flags & flag::FUA != 0;
        match kind {
            CommandKind::Trim => {
                self.check_writable()?;
                self.check_range(offset, len, Errno::Invalid)?;
                Ok(Command::Trim { offset, len, fua })
            }
            CommandKind::WriteZeroes => {
                self.check_writable()?;
                self.check_range(offset, len, Errno::NoSpace)?;
                let no_hole = flags & flag::NO_HOLE != 0;
                if no_hole && flags & flag::FAST_ZERO != 0 {
                    // Space that must stay reserved may have to be written; we cannot promise
                    // speed, and the client learns so before anything has changed.
                    return Err(Errno::NotSupported);
                }
                Ok(Command::WriteZeroes { offset, len, fua, no_hole })
            }
            CommandKind::Cache => {
                self.check_range(offset, len, Errno::Invalid)?;
                Ok(Command::Cache { offset, len })
            }
            // "For a flush request, length and offset are reserved, and MUST be set to all-zero."
            _ if offset == 0 && len == 0 => Ok(Command::Flush),
            _ => Err(Errno::Invalid),
        }
    }

    /// "Command flags": one that is not documented for the command is refused; FUA is for all.
    fn check_flags(&self, kind: CommandKind, flags: u16) -> Result<(), Errno> {
        let allowed = match kind {
            CommandKind::Read if self.terms.style == Style::Structured => flag::DF,
            CommandKind::WriteZeroes if self.terms.info.fast_zero => {
                flag::NO_HOLE | flag::FAST_ZERO
            }
            CommandKind::WriteZeroes => flag::NO_HOLE,
            CommandKind::BlockStatus => flag::REQ_ONE,
            // It has no reply that could refuse it.
            CommandKind::Disconnect => u16::MAX,
            _ => 0,
        };
        if flags & !(allowed | flag::FUA) == 0 { Ok(()) } else { Err(Errno::Invalid) }
    }

    fn check_writable(&self) -> Result<(), Errno> {
        if self.terms.info.read_only { Err(Errno::Perm) } else { Ok(()) }
    }

    fn check_payload(&self, flags: u16, len: u32) -> Result<(), Errno> {
        if len <= self.terms.info.block_sizes.payload_max() {
            Ok(())
        } else if flags & flag::DF != 0 {
            Err(Errno::Overflow)
        } else {
            Err(Errno::Invalid)
        }
    }

    fn check_range(&self, offset: u64, len: u32, beyond: Errno) -> Result<(), Errno> {
        let unit = u64::from(self.terms.info.block_sizes.minimum());
        if !offset.is_multiple_of(unit) || !u64::from(len).is_multiple_of(unit) {
            return Err(Errno::Invalid);
        }
        match offset.checked_add(u64::from(len)) {
            Some(end) if end <= self.terms.info.size => Ok(()),
            _ => Err(beyond),
        }
    }
}

enum Accepted {
    Event(Event),
    Write(Write),
}

fn refused(cookie: u64, errno: Errno) -> Event {
    let shape = Shape::Status { payload: 0, write: false };
    Event::Settled(Tag { cookie, shape }, Err(errno))
}

#[cfg(test)]
mod test;
