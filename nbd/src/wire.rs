//! Numbers of the NBD protocol and the fixed parts of its messages.
//!
//! Section names in this crate refer to `doc/proto.md` of the NBD project. Everything on the wire
//! is in network byte order.

use bytes::{Buf, BufMut};

/// "NBDMAGIC", the first eight bytes from the server ("Newstyle negotiation").
pub(crate) const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// "IHAVEOPT", before the handshake flags and before each option.
pub(crate) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Before each reply to an option ("Fixed newstyle negotiation").
pub(crate) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Before each request ("Request message").
pub(crate) const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Before each simple reply ("Simple reply message").
pub(crate) const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Before each chunk of a structured reply ("Structured reply chunk message").
pub(crate) const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// "Handshake flags" of the server and "Client flags", which use the same two bits.
pub(crate) mod handshake_flag {
    pub(crate) const FIXED_NEWSTYLE: u16 = 1 << 0;
    pub(crate) const NO_ZEROES: u16 = 1 << 1;
}

/// "Transmission flags".
pub(crate) mod transmission_flag {
    pub(crate) const HAS_FLAGS: u16 = 1 << 0;
    pub(crate) const READ_ONLY: u16 = 1 << 1;
    pub(crate) const SEND_FLUSH: u16 = 1 << 2;
    pub(crate) const SEND_FUA: u16 = 1 << 3;
    pub(crate) const ROTATIONAL: u16 = 1 << 4;
    pub(crate) const SEND_TRIM: u16 = 1 << 5;
    pub(crate) const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub(crate) const SEND_DF: u16 = 1 << 7;
    pub(crate) const CAN_MULTI_CONN: u16 = 1 << 8;
    pub(crate) const SEND_CACHE: u16 = 1 << 10;
    pub(crate) const SEND_FAST_ZERO: u16 = 1 << 11;
}

/// "Command flags".
pub(crate) mod command_flag {
    pub(crate) const FUA: u16 = 1 << 0;
    pub(crate) const NO_HOLE: u16 = 1 << 1;
    pub(crate) const DF: u16 = 1 << 2;
    pub(crate) const REQ_ONE: u16 = 1 << 3;
    pub(crate) const FAST_ZERO: u16 = 1 << 4;
}

/// "Structured reply flags" and "Structured reply types".
pub(crate) mod chunk {
    pub(crate) const FLAG_DONE: u16 = 1 << 0;
    pub(crate) const NONE: u16 = 0;
    pub(crate) const OFFSET_DATA: u16 = 1;
    pub(crate) const BLOCK_STATUS: u16 = 5;
    pub(crate) const ERROR: u16 = (1 << 15) + 1;
}

/// States of the metadata context `base:allocation`.
pub(crate) mod state {
    pub(crate) const HOLE: u32 = 1 << 0;
    pub(crate) const ZERO: u32 = 1 << 1;
}

/// "Option reply types".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum OptionReply {
    Ack = 1,
    Server = 2,
    Info = 3,
    MetaContext = 4,
    Unsupported = (1 << 31) + 1,
    Invalid = (1 << 31) + 3,
    Unknown = (1 << 31) + 6,
    TooBig = (1 << 31) + 9,
}

/// Information types of NBD_OPT_INFO and NBD_OPT_GO.
pub(crate) mod info {
    pub(crate) const EXPORT: u16 = 0;
    pub(crate) const NAME: u16 = 1;
    pub(crate) const DESCRIPTION: u16 = 2;
    pub(crate) const BLOCK_SIZE: u16 = 3;
}

/// "Option types" that this server knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OptionKind {
    ExportName,
    Abort,
    List,
    Info,
    Go,
    StructuredReply,
    ListMetaContext,
    SetMetaContext,
}

impl OptionKind {
    /// `None` for what this server does not know or not do, NBD_OPT_STARTTLS (5) among it.
    pub(crate) fn parse(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::ExportName,
            2 => Self::Abort,
            3 => Self::List,
            6 => Self::Info,
            7 => Self::Go,
            8 => Self::StructuredReply,
            9 => Self::ListMetaContext,
            10 => Self::SetMetaContext,
            _ => return None,
        })
    }
}

/// "Error values".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Errno {
    Perm = 1,
    Io = 5,
    Invalid = 22,
    NoSpace = 28,
    Overflow = 75,
    NotSupported = 95,
    Shutdown = 108,
}

impl Errno {
    /// For the person behind the client; travels in error chunks.
    pub(crate) const fn message(self) -> &'static str {
        match self {
            Self::Perm => "export is read-only",
            Self::Io => "input or output error",
            Self::Invalid => "invalid request",
            Self::NoSpace => "no space left or beyond the end",
            Self::Overflow => "too long for one reply",
            Self::NotSupported => "not possible faster than by writing",
            Self::Shutdown => "server is shutting down",
        }
    }
}

/// "Request types".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommandKind {
    Read,
    Write,
    Disconnect,
    Flush,
    Trim,
    Cache,
    WriteZeroes,
    BlockStatus,
}

impl CommandKind {
    pub(crate) fn parse(number: u16) -> Option<Self> {
        Some(match number {
            0 => Self::Read,
            1 => Self::Write,
            2 => Self::Disconnect,
            3 => Self::Flush,
            4 => Self::Trim,
            5 => Self::Cache,
            6 => Self::WriteZeroes,
            7 => Self::BlockStatus,
            _ => return None,
        })
    }
}

/// The fixed part of a request, believed in nothing but its magic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestHeader {
    pub(crate) flags: u16,
    pub(crate) kind: u16,
    /// Chosen by the client, opaque here, returned in the reply.
    pub(crate) cookie: u64,
    /// Bytes from the start of the export; any value.
    pub(crate) offset: u64,
    /// Bytes; any value. For a WRITE this many follow the header, valid or not.
    pub(crate) len: u32,
}

impl RequestHeader {
    pub(crate) const BYTES: usize = 28;

    /// Fails with the magic that was found instead of ours: the stream is out of step, and no
    /// field of it can be believed.
    pub(crate) fn parse(bytes: &[u8; Self::BYTES]) -> Result<Self, u32> {
        let mut fields = &bytes[..];
        let magic = fields.get_u32();
        if magic != REQUEST_MAGIC {
            return Err(magic);
        }
        Ok(Self {
            flags: fields.get_u16(),
            kind: fields.get_u16(),
            cookie: fields.get_u64(),
            offset: fields.get_u64(),
            len: fields.get_u32(),
        })
    }
}

/// The fixed part of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OptionHeader {
    pub(crate) number: u32,
    /// Bytes of data behind the header; any value.
    pub(crate) len: u32,
}

impl OptionHeader {
    pub(crate) const BYTES: usize = 16;

    /// Fails with the magic that was found instead of ours.
    pub(crate) fn parse(bytes: &[u8; Self::BYTES]) -> Result<Self, u64> {
        let mut fields = &bytes[..];
        let magic = fields.get_u64();
        if magic != OPTION_MAGIC {
            return Err(magic);
        }
        Ok(Self { number: fields.get_u32(), len: fields.get_u32() })
    }
}

/// Appends one reply to the option called `number`.
pub(crate) fn put_option_reply(
    out: &mut impl BufMut,
    number: u32,
    reply: OptionReply,
    data: &[&[u8]],
) {
    let len: usize = data.iter().map(|part| part.len()).sum();
    out.put_u64(OPTION_REPLY_MAGIC);
    out.put_u32(number);
    out.put_u32(reply as u32);
    out.put_u32(u32::try_from(len).expect("names and descriptions are far below 4 GiB"));
    for part in data {
        out.put_slice(part);
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn request_header_is_parsed_field_by_field() {
        let bytes = [
            0x25, 0x60, 0x95, 0x13, // magic
            0x00, 0x05, // flags: FUA, DF
            0x00, 0x07, // type: BLOCK_STATUS
            1, 2, 3, 4, 5, 6, 7, 8, // cookie
            0, 0, 0, 1, 0, 0, 0, 2, // offset
            0xff, 0xff, 0xff, 0xfe, // length
        ];
        let header = RequestHeader::parse(&bytes).unwrap();
        assert_eq!(header.flags, command_flag::FUA | command_flag::DF);
        assert_eq!(CommandKind::parse(header.kind), Some(CommandKind::BlockStatus));
        assert_eq!(header.cookie, 0x0102_0304_0506_0708);
        assert_eq!(header.offset, 0x1_0000_0002);
        assert_eq!(header.len, u32::MAX - 1);
    }

    #[test]
    fn wrong_magic_is_reported_with_what_was_found() {
        assert_eq!(RequestHeader::parse(&[0xab; 28]), Err(0xabab_abab));
        assert_eq!(OptionHeader::parse(&[0xcd; 16]), Err(0xcdcd_cdcd_cdcd_cdcd));
    }

    #[test]
    fn option_reply_carries_all_parts_behind_one_length() {
        let mut out = Vec::new();
        put_option_reply(&mut out, 3, OptionReply::Server, &[&[0, 0, 0, 2], b"ab"]);
        let expected = [
            0x00, 0x03, 0xe8, 0x89, 0x04, 0x55, 0x65, 0xa9, // reply magic
            0, 0, 0, 3, // option LIST
            0, 0, 0, 2, // NBD_REP_SERVER
            0, 0, 0, 6, // length
            0, 0, 0, 2, b'a', b'b',
        ];
        assert_eq!(out, expected);
    }

    #[test]
    fn error_replies_have_the_top_bit() {
        assert_eq!(OptionReply::Unsupported as u32, 0x8000_0001);
        assert_eq!(OptionReply::Invalid as u32, 0x8000_0003);
        assert_eq!(OptionReply::Unknown as u32, 0x8000_0006);
        assert_eq!(OptionReply::TooBig as u32, 0x8000_0009);
    }
}
