//! Replies of the transmission phase: what was found out about a request, as bytes for the socket.

use bytes::{BufMut, Bytes, BytesMut};

use crate::export::{Extent, Failure};
use crate::limits::EXTENTS_MAX;
use crate::wire::{Errno, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk, state};

/// Context id given out for `base:allocation`. Any number would do; clients treat it as opaque.
pub(crate) const ALLOCATION_ID: u32 = 1;

/// What a reply needs to know of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) cookie: u64,
    pub(crate) shape: Shape,
}

/// The form of the reply to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Success or an error, nothing else. `payload` is what the request brought along.
    Status { payload: u32, write: bool },
    /// Data from `offset`, `len` bytes.
    Read { offset: u64, len: u32 },
    /// Extents that cover up to `len` bytes.
    BlockStatus { len: u32, extents_max: usize },
}

impl Tag {
    /// Bytes of memory that the request holds until its reply is on its way.
    pub(crate) fn charge(self) -> u64 {
        match self.shape {
            Shape::Status { payload, .. } => u64::from(payload),
            Shape::Read { len, .. } => u64::from(len),
            Shape::BlockStatus { .. } => 0,
        }
    }
}

/// The good end of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Done, nothing to send but that.
    Done,
    /// Data of a read.
    Data(Bytes),
    /// Extents of a block status.
    Extents(Vec<Extent>),
}

/// Which replies were negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Simple,
    Structured,
}

/// One whole reply: a short head and a payload that is never copied.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    head: [u8; HEAD_BYTES_MAX],
    head_len: u8,
    payload: Bytes,
    /// Memory that the connection gets back once the reply is sent, in bytes.
    charge: u64,
}

/// A structured chunk header (20) with the offset of its data (8).
const HEAD_BYTES_MAX: usize = 28;

impl Reply {
    pub(crate) fn head(&self) -> &[u8] {
        &self.head[..usize::from(self.head_len)]
    }

    pub(crate) fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Bytes on the wire.
    pub(crate) fn len(&self) -> usize {
        usize::from(self.head_len) + self.payload.len()
    }

    pub(crate) fn charge(&self) -> u64 {
        self.charge
    }

    /// The reply to `tag` in the negotiated style.
    ///
    /// An answer of the wrong form, such as too few bytes, becomes NBD_EIO: after it the stream
    /// would be out of step, and the client would take one request's data for another's.
    pub(crate) fn new(style: Style, tag: Tag, result: Result<Answer, Errno>) -> Self {
        let answer = match result {
            Ok(answer) => answer,
            Err(errno) => return Self::error(style, tag, errno),
        };
        match (tag.shape, answer) {
            (Shape::Status { .. }, Answer::Done) => Self::simple(tag, 0, Bytes::new()),
            (Shape::Read { offset, len }, Answer::Data(data)) if data.len() == len as usize => {
                Self::data(style, tag, offset, len, data)
            }
            (Shape::BlockStatus { len, extents_max }, Answer::Extents(extents)) => {
                match descriptors(&extents, len, extents_max) {
                    Some((payload, len)) => {
                        let head = |mut head: &mut [u8]| head.put_u32(ALLOCATION_ID);
                        Self::chunk(tag, chunk::BLOCK_STATUS, 4 + len, head, payload)
                    }
                    None => Self::malformed(style, tag),
                }
            }
            _ => Self::malformed(style, tag),
        }
    }

    fn malformed(style: Style, tag: Tag) -> Self {
        tracing::error!(?tag, "export answered a request in the wrong form");
        Self::error(style, tag, Errno::Io)
    }

    fn data(style: Style, tag: Tag, offset: u64, len: u32, data: Bytes) -> Self {
        match (style, len) {
            (Style::Simple, _) => Self::simple(tag, 0, data),
            // NBD_REPLY_TYPE_OFFSET_DATA must describe at least one byte.
            (Style::Structured, 0) => Self::chunk(tag, chunk::NONE, 0, |_| (), data),
            (Style::Structured, _) => {
                let head = |mut head: &mut [u8]| head.put_u64(offset);
                Self::chunk(tag, chunk::OFFSET_DATA, 8 + len, head, data)
            }
        }
    }

    fn error(style: Style, tag: Tag, errno: Errno) -> Self {
        if style == Style::Simple {
            return Self::simple(tag, errno as u32, Bytes::new());
        }
        let message = errno.message();
        let message_len = u16::try_from(message.len()).expect("messages are short");
        let head = |mut head: &mut [u8]| {
            head.put_u32(errno as u32);
            head.put_u16(message_len);
        };
        let payload = Bytes::from_static(message.as_bytes());
        Self::chunk(tag, chunk::ERROR, 6 + u32::from(message_len), head, payload)
    }

    /// "Simple reply message". Allowed for success without payload in either style.
    fn simple(tag: Tag, error: u32, payload: Bytes) -> Self {
        let mut head = [0; HEAD_BYTES_MAX];
        let mut fields = &mut head[..];
        fields.put_u32(SIMPLE_REPLY_MAGIC);
        fields.put_u32(error);
        fields.put_u64(tag.cookie);
        Self { head, head_len: 16, payload, charge: tag.charge() }
    }

    /// "Structured reply chunk message", the only one of its reply. `len` counts what `put` adds
    /// to the head and the payload.
    fn chunk(tag: Tag, kind: u16, len: u32, put: impl Fn(&mut [u8]), payload: Bytes) -> Self {
        let mut head = [0; HEAD_BYTES_MAX];
        let mut fields = &mut head[..];
        fields.put_u32(STRUCTURED_REPLY_MAGIC);
        fields.put_u16(chunk::FLAG_DONE);
        fields.put_u16(kind);
        fields.put_u64(tag.cookie);
        fields.put_u32(len);
        put(fields);
        let head_len = 20 + len as usize - payload.len();
        let head_len = u8::try_from(head_len).expect("at most HEAD_BYTES_MAX");
        Self { head, head_len, payload, charge: tag.charge() }
    }
}

/// The error value for a failed request.
pub(crate) fn errno_of(tag: Tag, failure: Failure) -> Errno {
    match failure {
        Failure::Invalid => Errno::Invalid,
        Failure::NoSpace => Errno::NoSpace,
        Failure::Io => Errno::Io,
        Failure::ReadOnly => Errno::Perm,
        Failure::ShuttingDown => Errno::Shutdown,
        Failure::OutOfRange => match tag.shape {
            Shape::Status { write: true, .. } => Errno::NoSpace,
            _ => Errno::Invalid,
        },
    }
}

/// Descriptors of NBD_REPLY_TYPE_BLOCK_STATUS with their length in bytes: neighbours in the same
/// state merged, cut at `len_max` bytes of the export and at `extents_max` in number. `None` if
/// nothing is left, which the protocol does not allow.
fn descriptors(extents: &[Extent], len_max: u32, extents_max: usize) -> Option<(Bytes, u32)> {
    let extents_max = extents_max.min(EXTENTS_MAX);
    let mut merged: Vec<(u32, u32)> = Vec::with_capacity(extents.len().min(extents_max));
    let mut rest = len_max;
    for extent in extents {
        let len = u32::try_from(extent.len).unwrap_or(u32::MAX).min(rest);
        if len == 0 {
            continue;
        }
        let flags =
            if extent.hole { state::HOLE } else { 0 } | if extent.zero { state::ZERO } else { 0 };
        let is_full = merged.len() == extents_max;
        match merged.last_mut() {
            Some(last) if last.1 == flags => last.0 += len,
            _ if is_full => break,
            _ => merged.push((len, flags)),
        }
        rest -= len;
    }
    if merged.is_empty() {
        return None;
    }
    let bytes = merged.len() * 8;
    let mut payload = BytesMut::with_capacity(bytes);
    for (len, flags) in merged {
        payload.put_u32(len);
        payload.put_u32(flags);
    }
    Some((payload.freeze(), u32::try_from(bytes).expect("bounded by EXTENTS_MAX")))
}

#[cfg(test)]
mod test {
    use super::*;

    const COOKIE: u64 = 0x1122_3344_5566_7788;

    fn bytes(reply: &Reply) -> Vec<u8> {
        [reply.head(), reply.payload()].concat()
    }

    fn tag(shape: Shape) -> Tag {
        Tag { cookie: COOKIE, shape }
    }

    fn status() -> Tag {
        tag(Shape::Status { payload: 0, write: true })
    }

    fn extent(len: u64, hole: bool, zero: bool) -> Extent {
        Extent { len, hole, zero }
    }

    #[test]
    fn simple_success_is_sixteen_bytes_in_either_style() {
        for style in [Style::Simple, Style::Structured] {
            let reply = Reply::new(style, status(), Ok(Answer::Done));
            let expected = [
                0x67, 0x44, 0x66, 0x98, // magic
                0, 0, 0, 0, // no error
                0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, // cookie
            ];
            assert_eq!(bytes(&reply), expected);
        }
    }

    #[test]
    fn simple_error_has_no_payload() {
        let tag = tag(Shape::Read { offset: 0, len: 512 });
        let reply = Reply::new(Style::Simple, tag, Err(Errno::Io));
        let expected = [
            0x67, 0x44, 0x66, 0x98, // magic
            0, 0, 0, 5, // NBD_EIO
            0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, // cookie
        ];
        assert_eq!(bytes(&reply), expected);
        assert_eq!(reply.charge(), 512);
    }

    #[test]
    fn simple_read_puts_data_behind_the_head() {
        let tag = tag(Shape::Read { offset: 9, len: 3 });
        let reply = Reply::new(Style::Simple, tag, Ok(Answer::Data(Bytes::from_static(b"abc"))));
        assert_eq!(reply.head().len(), 16);
        assert_eq!(&bytes(&reply)[16..], b"abc");
    }

    #[test]
    fn structured_read_is_one_final_chunk_with_its_offset() {
        let tag = tag(Shape::Read { offset: 0x0102_0304_0506_0708, len: 3 });
        let data = Answer::Data(Bytes::from_static(b"abc"));
        let reply = Reply::new(Style::Structured, tag, Ok(data));
        let expected = [
            0x66, 0x8e, 0x33, 0xef, // magic
            0, 1, // flags: DONE
            0, 1, // type: OFFSET_DATA
            0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, // cookie
            0, 0, 0, 11, // length: offset and data
            1, 2, 3, 4, 5, 6, 7, 8, // offset
            b'a', b'b', b'c',
        ];
        assert_eq!(bytes(&reply), expected);
    }

    #[test]
    fn structured_read_of_nothing_has_no_content_chunk() {
        let tag = tag(Shape::Read { offset: 0, len: 0 });
        let reply = Reply::new(Style::Structured, tag, Ok(Answer::Data(Bytes::new())));
        let expected = [
            0x66, 0x8e, 0x33, 0xef, // magic
            0, 1, // flags: DONE
            0, 0, // type: NONE
            0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, // cookie
            0, 0, 0, 0, // length
        ];
        assert_eq!(bytes(&reply), expected);
    }

    #[test]
    fn structured_error_carries_a_message() {
        let reply = Reply::new(Style::Structured, status(), Err(Errno::Perm));
        let mut expected = vec![
            0x66, 0x8e, 0x33, 0xef, // magic
            0, 1, // flags: DONE
            0x80, 0x01, // type: ERROR
            0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, // cookie
            0, 0, 0, 25, // length: error, message length, message
            0, 0, 0, 1, // NBD_EPERM
            0, 19, // message length
        ];
        expected.extend_from_slice(b"export is read-only");
        assert_eq!(bytes(&reply), expected);
    }

    #[test]
    fn block_status_merges_cuts_and_counts() {
        let tag = tag(Shape::BlockStatus { len: 1000, extents_max: 2 });
        let extents = vec![
            extent(100, false, false),
            extent(0, true, true),
            extent(200, false, false),
            extent(1 << 40, true, true),
            extent(5, false, false),
        ];
        let reply = Reply::new(Style::Structured, tag, Ok(Answer::Extents(extents)));
        let expected = [
            0x66, 0x8e, 0x33, 0xef, // magic
            0, 1, // flags: DONE
            0, 5, // type: BLOCK_STATUS
            0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, // cookie
            0, 0, 0, 20, // length: context id and two descriptors
            0, 0, 0, 1, // context id
            0, 0, 1, 44, 0, 0, 0, 0, // 300 bytes of data
            0, 0, 2, 188, 0, 0, 0, 3, // 700 bytes of hole that reads as zeros
        ];
        assert_eq!(bytes(&reply), expected);
    }

    #[test]
    fn block_status_stops_at_the_number_of_extents_but_still_merges_into_the_last() {
        let extents = [
            extent(10, false, false),
            extent(10, true, false),
            extent(10, true, false),
            extent(10, false, false),
        ];
        let (payload, len) = descriptors(&extents, 1000, 2).unwrap();
        assert_eq!(&payload[..], [0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 1]);
        assert_eq!(len, 16);
    }

    #[test]
    fn block_status_is_bounded_whatever_the_export_says() {
        let extents: Vec<_> = (0..10 * EXTENTS_MAX).map(|i| extent(1, i % 2 == 0, false)).collect();
        let (payload, _) = descriptors(&extents, u32::MAX, usize::MAX).unwrap();
        assert_eq!(payload.len(), EXTENTS_MAX * 8);
    }

    #[test]
    fn answer_of_the_wrong_form_is_an_error_not_a_stream_out_of_step() {
        let read = tag(Shape::Read { offset: 0, len: 4 });
        let short = Answer::Data(Bytes::from_static(b"abc"));
        let reply = Reply::new(Style::Simple, read, Ok(short));
        assert_eq!(&bytes(&reply)[4..8], [0, 0, 0, 5]);
        let reply = Reply::new(Style::Simple, read, Ok(Answer::Done));
        assert_eq!(&bytes(&reply)[4..8], [0, 0, 0, 5]);
        let extents = tag(Shape::BlockStatus { len: 4, extents_max: 1 });
        let reply = Reply::new(Style::Structured, extents, Ok(Answer::Extents(Vec::new())));
        assert_eq!(&bytes(&reply)[6..8], [0x80, 0x01]);
    }

    #[test]
    fn beyond_the_end_is_no_space_for_writes_only() {
        assert_eq!(errno_of(status(), Failure::OutOfRange), Errno::NoSpace);
        let trim = tag(Shape::Status { payload: 0, write: false });
        assert_eq!(errno_of(trim, Failure::OutOfRange), Errno::Invalid);
        assert_eq!(errno_of(status(), Failure::ShuttingDown), Errno::Shutdown);
    }
}
