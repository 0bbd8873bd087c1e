//! Submission queue entry (section 3.3.3.1; of fabrics commands, sections 3.3.2.1.1 and 6).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::sgl::Sgl;
use super::status::Status;

/// Opcode of every fabrics command (section 6).
pub const OPCODE_FABRICS: u8 = 0x7f;

/// The 64 bytes of a command. Any bytes are one; [`Sqe::check`] comes before belief.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Sqe {
    /// Opcode (OPC), CDW0 7:0.
    pub opcode: u8,
    /// FUSE in bits 1:0, PSDT in bits 7:6 of this byte (CDW0 15:8); reserved in fabrics commands.
    pub flags: u8,
    /// Command Identifier (CID), CDW0 31:16; any value that is not outstanding.
    pub cid: U16,
    /// Namespace Identifier (NSID); for fabrics commands the low byte is FCTYPE.
    pub nsid: U32,
    /// Command dword 2.
    pub cdw2: U32,
    /// Command dword 3.
    pub cdw3: U32,
    /// Metadata pointer; no namespace here has metadata.
    pub mptr: U64,
    /// SGL entry 1, see [`Sqe::sgl`].
    pub sgl1: [u8; 16],
    /// Command dword 10.
    pub cdw10: U32,
    /// Command dword 11.
    pub cdw11: U32,
    /// Command dword 12.
    pub cdw12: U32,
    /// Command dword 13.
    pub cdw13: U32,
    /// Command dword 14.
    pub cdw14: U32,
    /// Command dword 15.
    pub cdw15: U32,
}

const _: () = assert!(size_of::<Sqe>() == Sqe::BYTES);
const _: () = assert!(std::mem::offset_of!(Sqe, sgl1) == 24);
const _: () = assert!(std::mem::offset_of!(Sqe, cdw10) == 40);

const FUSE: u8 = 0b11;
const PSDT: u8 = 0b1100_0000;
/// PSDT 01b: SGLs, and MPTR is the address of a contiguous buffer.
const PSDT_SGL: u8 = 0b0100_0000;

impl Sqe {
    /// Size in bytes.
    pub const BYTES: usize = 64;

    /// A command without data and with all dwords 0.
    #[must_use]
    pub fn new(opcode: u8, cid: u16, nsid: u32) -> Self {
        let mut sqe = Self::read_from_bytes(&[0; Self::BYTES]).expect("any 64 bytes are an entry");
        sqe.opcode = opcode;
        sqe.flags = PSDT_SGL;
        sqe.cid = cid.into();
        sqe.nsid = nsid.into();
        sqe.sgl1 = Sgl::Transport { len: 0 }.to_bytes();
        sqe
    }

    /// The same command with this data descriptor.
    #[must_use]
    pub fn with_sgl(mut self, sgl: Sgl) -> Self {
        self.sgl1 = sgl.to_bytes();
        self
    }

    /// Refuses fused commands, PRPs and metadata SGLs: none of them exists over TCP here. Fabrics
    /// commands always use SGLs, and their byte of flags is reserved.
    ///
    /// # Errors
    /// Invalid Field, do not retry.
    pub fn check(&self) -> Result<(), Status> {
        if !self.is_fabrics() && (self.flags & FUSE != 0 || self.flags & PSDT != PSDT_SGL) {
            return Err(Status::INVALID_FIELD.dnr());
        }
        Ok(())
    }

    /// Where the data of this command is.
    ///
    /// # Errors
    /// See [`Sgl::parse`].
    pub fn sgl(&self) -> Result<Sgl, Status> {
        Sgl::parse(&self.sgl1)
    }

    /// Whether this is a fabrics command.
    #[must_use]
    pub fn is_fabrics(&self) -> bool {
        self.opcode == OPCODE_FABRICS
    }

    /// Fabrics Command Type (FCTYPE), byte 4 of a fabrics command.
    #[must_use]
    pub fn fctype(&self) -> u8 {
        self.nsid.get() as u8
    }

    /// Dwords 10 and 11 as one number: the starting LBA of most I/O commands.
    #[must_use]
    pub fn cdw10_11(&self) -> u64 {
        u64::from(self.cdw11.get()) << 32 | u64::from(self.cdw10.get())
    }

    /// Dwords 12 and 13 as one number.
    #[must_use]
    pub fn cdw12_13(&self) -> u64 {
        u64::from(self.cdw13.get()) << 32 | u64::from(self.cdw12.get())
    }

    /// Sets dwords 10 and 11.
    pub(crate) fn set_cdw10_11(&mut self, value: u64) {
        self.cdw10 = (value as u32).into();
        self.cdw11 = ((value >> 32) as u32).into();
    }

    /// Sets dwords 12 and 13.
    pub(crate) fn set_cdw12_13(&mut self, value: u64) {
        self.cdw12 = (value as u32).into();
        self.cdw13 = ((value >> 32) as u32).into();
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn fused_commands_prps_and_metadata_sgls_are_refused() {
        let mut sqe = Sqe::new(2, 7, 1);
        assert_eq!(sqe.check(), Ok(()));
        for flags in [0x00, 0x41, 0x42, 0x80, 0xc0] {
            sqe.flags = flags;
            assert_eq!(sqe.check(), Err(Status::INVALID_FIELD.dnr()), "{flags:#x}");
        }
        // Bits 5:2 of the byte are reserved.
        sqe.flags = 0x7c;
        assert_eq!(sqe.check(), Ok(()));
    }

    #[test]
    fn flags_of_a_fabrics_command_are_reserved_and_ignored() {
        let mut sqe = Sqe::new(OPCODE_FABRICS, 7, 1);
        for flags in 0..=u8::MAX {
            sqe.flags = flags;
            assert_eq!(sqe.check(), Ok(()), "{flags:#x}");
        }
    }

    #[test]
    fn a_captured_read_has_its_fields_in_place() {
        // Linux 6.12: Read cid=4128 nsid=1 slba=0 nlb=3 cdw12[31:16]=0x8000 cdw13=7, 16384 B.
        let mut bytes = [0; 64];
        bytes[..8].copy_from_slice(&[0x02, 0x40, 0x20, 0x10, 1, 0, 0, 0]);
        bytes[32..40].copy_from_slice(&[0x00, 0x40, 0, 0, 0, 0, 0, 0x5a]);
        bytes[48..56].copy_from_slice(&[3, 0, 0x00, 0x80, 7, 0, 0, 0]);
        let sqe = Sqe::read_from_bytes(&bytes).expect("64 bytes");
        assert_eq!((sqe.opcode, sqe.cid.get(), sqe.nsid.get()), (2, 4128, 1));
        assert_eq!(sqe.sgl(), Ok(Sgl::Transport { len: 16384 }));
        assert_eq!(sqe.cdw12_13(), 0x7_8000_0003);
    }
}
