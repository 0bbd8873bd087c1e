//! Completion queue entry (section 3.3.3.2; over fabrics without phase bit, section 3.3.2.1.2).

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::status::Status;

/// The 16 bytes at the end of a response capsule.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Cqe {
    /// Bytes 0 to 7, command specific: the low half is DW0; Property Get uses all of it.
    pub result: U64,
    /// SQ Head Pointer (SQHD); meaningless when flow control is off.
    pub sqhd: U16,
    /// SQ Identifier (SQID), reserved over fabrics; measured targets send the queue's number.
    pub sqid: U16,
    /// Command Identifier (CID) of the command that this answers.
    pub cid: U16,
    /// Status Field (bits 15:1) over the phase bit, see [`Cqe::status`].
    pub status: U16,
}

const _: () = assert!(size_of::<Cqe>() == Cqe::BYTES);

impl Cqe {
    /// Size in bytes.
    pub const BYTES: usize = 16;

    /// An answer to command `cid` of queue `sqid`.
    #[must_use]
    pub fn new(cid: u16, sqid: u16, sqhd: u16, result: u64, status: Status) -> Self {
        Self {
            result: result.into(),
            sqhd: sqhd.into(),
            sqid: sqid.into(),
            cid: cid.into(),
            status: status.to_field().into(),
        }
    }

    /// Status without the phase bit.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::from_field(self.status.get())
    }

    /// Low half of the result.
    #[must_use]
    pub fn dw0(&self) -> u32 {
        self.result.get() as u32
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn an_entry_has_its_fields_in_place() {
        let cqe =
            Cqe::new(0x1122, 0x3344, 0x5566, 0x0000_0082_00f0_003f, Status::INVALID_FIELD.dnr());
        let bytes = [
            0x3f, 0x00, 0xf0, 0x00, 0x82, 0x00, 0x00, 0x00, // result
            0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x04, 0x80, // sqhd, sqid, cid, status
        ];
        assert_eq!(cqe.as_bytes(), bytes);
        assert_eq!(Cqe::read_from_bytes(&bytes), Ok(cqe));
        assert_eq!(cqe.status(), Status::INVALID_FIELD.dnr());
        assert_eq!(cqe.dw0(), 0x00f0_003f);
    }
}
