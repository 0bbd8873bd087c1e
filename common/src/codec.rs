//! Bounded reading of untrusted bytes, and the error that says what was wrong and where.
//!
//! Invariants: a decoder looks at magic, version, checksum, ranges and cross-references in that
//! order; no length is believed before the checksum that covers it, other than to find the end of
//! what is checksummed, and then only within a named limit and the bytes at hand. No input panics.

use std::fmt;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::units::PAGE_LEN;

/// Why bytes are not what they should be. `Copy` and free of text: the caller knows object and
/// image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}: {kind}")]
pub struct DecodeError {
    /// The structure or field that was being read.
    pub what: &'static str,
    /// Byte offset from the start of the input.
    pub at: usize,
    /// What is wrong with it.
    pub kind: DecodeKind,
}

/// The ways in which bytes can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeKind {
    /// The input ends before the field does.
    Truncated {
        /// Bytes needed from `at` on.
        needed: usize,
        /// Bytes there are.
        found: usize,
    },
    /// Not this format at all.
    BadMagic,
    /// Written by a later version of this software.
    UnsupportedVersion {
        /// The version in the bytes.
        found: u16,
        /// The newest version that this software reads.
        known: u16,
    },
    /// The content was changed after it was written.
    BadChecksum {
        /// The checksum stored with the content.
        expected: u32,
        /// The checksum of the content as it is.
        found: u32,
    },
    /// A field holds a value that it must not.
    OutOfRange,
    /// Ranges that must be ascending and apart are not.
    Overlap,
    /// An incompatible feature that this software does not know.
    UnknownFeature {
        /// The unknown bits.
        bits: u64,
    },
    /// The object belongs to another image or place than the one it was read for.
    Misplaced,
}

impl fmt::Display for DecodeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { needed, found } => {
                write!(f, "truncated, {needed} bytes needed and {found} there")
            }
            Self::BadMagic => f.write_str("not this format (wrong magic)"),
            Self::UnsupportedVersion { found, known } => {
                write!(f, "format version {found}, this software reads up to {known}")
            }
            Self::BadChecksum { expected, found } => {
                write!(f, "checksum mismatch, expected {expected:08x}, found {found:08x}")
            }
            Self::OutOfRange => f.write_str("value out of range"),
            Self::Overlap => f.write_str("ranges out of order or overlapping"),
            Self::UnknownFeature { bits } => {
                write!(f, "needs features {bits:#x} that this software does not have")
            }
            Self::Misplaced => f.write_str("belongs to another image or position"),
        }
    }
}

impl DecodeError {
    /// An error about `what` at `at`.
    #[must_use]
    pub const fn new(what: &'static str, at: usize, kind: DecodeKind) -> Self {
        Self { what, at, kind }
    }

    /// A field whose value is not allowed.
    #[must_use]
    pub const fn range(what: &'static str, at: usize) -> Self {
        Self::new(what, at, DecodeKind::OutOfRange)
    }
}

/// Reads plain structures from the front of a slice; running out is an error that says where.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the beginning of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, at: 0 }
    }

    /// Bytes read so far.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// `Truncated` if there are fewer.
    pub fn bytes(&mut self, what: &'static str, len: usize) -> Result<&'a [u8], DecodeError> {
        let Some((head, rest)) = self.rest.split_at_checked(len) else {
            let kind = DecodeKind::Truncated { needed: len, found: self.rest.len() };
            return Err(DecodeError::new(what, self.at, kind));
        };
        self.rest = rest;
        self.at += len;
        Ok(head)
    }

    /// One structure.
    ///
    /// # Errors
    /// `Truncated` if there are too few bytes.
    pub fn one<T>(&mut self, what: &'static str) -> Result<&'a T, DecodeError>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        let at = self.at;
        let bytes = self.bytes(what, size_of::<T>())?;
        T::ref_from_bytes(bytes).map_err(|_| DecodeError::range(what, at))
    }

    /// `count` structures in a row.
    ///
    /// # Errors
    /// `Truncated` if there are too few bytes, `OutOfRange` if the length does not fit memory.
    pub fn many<T>(&mut self, what: &'static str, count: usize) -> Result<&'a [T], DecodeError>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        let at = self.at;
        let len = count.checked_mul(size_of::<T>()).ok_or(DecodeError::range(what, at))?;
        let bytes = self.bytes(what, len)?;
        <[T]>::ref_from_bytes(bytes).map_err(|_| DecodeError::range(what, at))
    }

    /// A UTF-8 string of `len` bytes.
    ///
    /// # Errors
    /// `Truncated`, or `OutOfRange` if it is not UTF-8.
    pub fn text(&mut self, what: &'static str, len: usize) -> Result<&'a str, DecodeError> {
        let at = self.at;
        let bytes = self.bytes(what, len)?;
        std::str::from_utf8(bytes).map_err(|_| DecodeError::range(what, at))
    }
}

/// `len` rounded up to whole pages.
#[must_use]
pub fn page_ceil(len: usize) -> usize {
    len.next_multiple_of(PAGE_LEN)
}

/// A count or length from a 32-bit field; `usize` has at least 32 bits on every supported machine.
#[must_use]
pub(crate) fn to_usize(value: u32) -> usize {
    usize::try_from(value).expect("a 32-bit length fits the address space")
}

/// A length that a named limit keeps far below 2^32, as the 32-bit field that stores it.
#[must_use]
pub(crate) fn to_u32(value: usize) -> u32 {
    u32::try_from(value).expect("limits keep every stored length below 2^32")
}
