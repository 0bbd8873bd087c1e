//! I/O commands: those of the NVM command set, and reservations (section 7).

use super::reservation::Reservation;
use crate::wire::pdu::Direction;
use crate::wire::sgl::DataRule;
use crate::wire::sqe::Sqe;
use crate::wire::status::Status;

/// Opcodes of the I/O commands that are known here (NVM section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum IoOpcode {
    /// Flush.
    Flush = 0x00,
    /// Write.
    Write = 0x01,
    /// Read.
    Read = 0x02,
    /// Compare.
    Compare = 0x05,
    /// Write Zeroes.
    WriteZeroes = 0x08,
    /// Dataset Management.
    DatasetManagement = 0x09,
    /// Verify.
    Verify = 0x0c,
    /// Reservation Register.
    ReservationRegister = 0x0d,
    /// Reservation Report.
    ReservationReport = 0x0e,
    /// Reservation Acquire.
    ReservationAcquire = 0x11,
    /// Reservation Release.
    ReservationRelease = 0x15,
}

impl IoOpcode {
    /// `None` for a command that is not known here.
    #[must_use]
    pub const fn parse(opcode: u8) -> Option<Self> {
        Some(match opcode {
            0x00 => Self::Flush,
            0x01 => Self::Write,
            0x02 => Self::Read,
            0x05 => Self::Compare,
            0x08 => Self::WriteZeroes,
            0x09 => Self::DatasetManagement,
            0x0c => Self::Verify,
            0x0d => Self::ReservationRegister,
            0x0e => Self::ReservationReport,
            0x11 => Self::ReservationAcquire,
            0x15 => Self::ReservationRelease,
            _ => return None,
        })
    }
}

/// A range of logical blocks; any value, checked against no namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    /// Starting LBA (SLBA).
    pub start: u64,
    /// Number of blocks, counted from 1: 1 to 65536 in commands, 0 to `u32::MAX` in the ranges of
    /// Dataset Management.
    pub count: u32,
}

impl Blocks {
    /// The LBA after the last one; `None` beyond 64 bits.
    #[must_use]
    pub const fn end(self) -> Option<u64> {
        self.start.checked_add(self.count as u64)
    }

    /// Length in bytes, with blocks of 2^`block_bytes_log2` bytes; `u32::MAX` for what is longer,
    /// which no SGL can describe.
    fn bytes(self, block_bytes_log2: u8) -> u32 {
        u32::try_from(u64::from(self.count) << block_bytes_log2).unwrap_or(u32::MAX)
    }
}

/// A command on an I/O queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoCommand {
    /// Namespace Identifier (NSID); any value.
    pub nsid: u32,
    /// What to do.
    pub operation: IoOperation,
}

/// What an I/O command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoOperation {
    /// NVM section 3.2.4.
    Read {
        /// Dwords 10 to 12: SLBA and NLB.
        blocks: Blocks,
        /// Force Unit Access (FUA), dword 12 bit 30.
        fua: bool,
    },
    /// NVM section 3.2.6.
    Write {
        /// Dwords 10 to 12: SLBA and NLB.
        blocks: Blocks,
        /// Force Unit Access (FUA), dword 12 bit 30.
        fua: bool,
    },
    /// NVM section 3.2.1; the data is the host's to compare with.
    Compare {
        /// Dwords 10 to 12: SLBA and NLB.
        blocks: Blocks,
        /// Force Unit Access (FUA), dword 12 bit 30.
        fua: bool,
    },
    /// NVM section 3.2.5.
    Verify {
        /// Dwords 10 to 12: SLBA and NLB.
        blocks: Blocks,
        /// Force Unit Access (FUA), dword 12 bit 30.
        fua: bool,
    },
    /// NVM section 3.2.8.
    WriteZeroes {
        /// Dwords 10 to 12: SLBA and NLB.
        blocks: Blocks,
        /// Force Unit Access (FUA), dword 12 bit 30.
        fua: bool,
        /// Deallocate (DEAC), dword 12 bit 25: the blocks should be deallocated.
        deallocate: bool,
    },
    /// Section 7.1.
    Flush,
    /// NVM section 3.2.3; the data are [`ranges`].
    DatasetManagement {
        /// Number of Ranges (NR), dword 10 bits 7:0, here counted from 1: 1 to 256.
        ranges: u16,
        /// Attribute Deallocate (AD), dword 11 bit 2. The other attributes are hints.
        deallocate: bool,
    },
    /// Sections 7.2 to 7.5.
    Reservation(Reservation),
}

/// Bytes of one range of Dataset Management.
pub const RANGE_BYTES: usize = 16;
/// Most bytes of ranges, and what Linux sends always.
pub const RANGES_BYTES_MAX: u32 = 256 * RANGE_BYTES as u32;

const FUA: u32 = 1 << 30;
const DEALLOCATE: u32 = 1 << 25;
/// DTYPE, dword 12 bits 23:20 of Write: a directive, none of which is supported.
const DIRECTIVE: u32 = 0xf << 20;
/// Reserved bits 23:16 of Write Zeroes. Later versions have a bit in them that zeroes the whole
/// namespace; to ignore it would be to report zeroes that are not there.
const WRITE_ZEROES_LATER: u32 = 0xff << 16;
const DSM_DEALLOCATE: u32 = 1 << 2;

impl IoCommand {
    /// Reads a command that is not a fabrics command.
    ///
    /// # Errors
    /// All with do not retry: Invalid Opcode, and Invalid Field for directives, for attributes of
    /// later versions and for reservation codes that do not exist.
    pub fn parse(sqe: &Sqe) -> Result<Self, Status> {
        let opcode = IoOpcode::parse(sqe.opcode).ok_or(Status::INVALID_OPCODE.dnr())?;
        let cdw12 = sqe.cdw12.get();
        let blocks = Blocks { start: sqe.cdw10_11(), count: (cdw12 & 0xffff) + 1 };
        let fua = cdw12 & FUA != 0;
        let refuse_any = |bits: u32| match cdw12 & bits {
            0 => Ok(()),
            _ => Err(Status::INVALID_FIELD.dnr()),
        };
        let operation = match opcode {
            IoOpcode::Read => IoOperation::Read { blocks, fua },
            IoOpcode::Write => {
                refuse_any(DIRECTIVE)?;
                IoOperation::Write { blocks, fua }
            }
            IoOpcode::Compare => IoOperation::Compare { blocks, fua },
            IoOpcode::Verify => IoOperation::Verify { blocks, fua },
            IoOpcode::WriteZeroes => {
                refuse_any(WRITE_ZEROES_LATER)?;
                let deallocate = cdw12 & DEALLOCATE != 0;
                IoOperation::WriteZeroes { blocks, fua, deallocate }
            }
            IoOpcode::Flush => IoOperation::Flush,
            IoOpcode::DatasetManagement => IoOperation::DatasetManagement {
                ranges: (sqe.cdw10.get() & 0xff) as u16 + 1,
                deallocate: sqe.cdw11.get() & DSM_DEALLOCATE != 0,
            },
            IoOpcode::ReservationRegister
            | IoOpcode::ReservationReport
            | IoOpcode::ReservationAcquire
            | IoOpcode::ReservationRelease => {
                IoOperation::Reservation(Reservation::parse(opcode, sqe)?)
            }
        };
        Ok(Self { nsid: sqe.nsid.get(), operation })
    }

    /// The entry that [`Self::parse`] reads, for hosts; the caller adds the SGL.
    #[must_use]
    pub fn to_sqe(&self, cid: u16) -> Sqe {
        let mut sqe = Sqe::new(self.operation.opcode() as u8, cid, self.nsid);
        let mut transfer = |blocks: Blocks, flags: u32| {
            sqe.set_cdw10_11(blocks.start);
            sqe.cdw12 = (blocks.count.saturating_sub(1) & 0xffff | flags).into();
        };
        let fua_flag = |fua: bool| if fua { FUA } else { 0 };
        match self.operation {
            IoOperation::Read { blocks, fua }
            | IoOperation::Write { blocks, fua }
            | IoOperation::Compare { blocks, fua }
            | IoOperation::Verify { blocks, fua } => transfer(blocks, fua_flag(fua)),
            IoOperation::WriteZeroes { blocks, fua, deallocate } => {
                transfer(blocks, fua_flag(fua) | if deallocate { DEALLOCATE } else { 0 });
            }
            IoOperation::Flush => {}
            IoOperation::DatasetManagement { ranges, deallocate } => {
                sqe.cdw10 = (u32::from(ranges).saturating_sub(1) & 0xff).into();
                sqe.cdw11 = (if deallocate { DSM_DEALLOCATE } else { 0 }).into();
            }
            IoOperation::Reservation(reservation) => reservation.write(&mut sqe),
        }
        sqe
    }
}

impl IoOperation {
    /// Opcode of this operation.
    #[must_use]
    pub const fn opcode(&self) -> IoOpcode {
        match self {
            Self::Read { .. } => IoOpcode::Read,
            Self::Write { .. } => IoOpcode::Write,
            Self::Compare { .. } => IoOpcode::Compare,
            Self::Verify { .. } => IoOpcode::Verify,
            Self::WriteZeroes { .. } => IoOpcode::WriteZeroes,
            Self::Flush => IoOpcode::Flush,
            Self::DatasetManagement { .. } => IoOpcode::DatasetManagement,
            Self::Reservation(reservation) => reservation.opcode(),
        }
    }

    /// What the operation demands of its data, on a namespace with blocks of 2^`block_bytes_log2`
    /// bytes.
    #[must_use]
    pub fn data_rule(&self, block_bytes_log2: u8) -> DataRule {
        match self {
            Self::Read { blocks, .. } => {
                DataRule::Exact(Direction::ControllerToHost, blocks.bytes(block_bytes_log2))
            }
            Self::Write { blocks, .. } | Self::Compare { blocks, .. } => {
                DataRule::Exact(Direction::HostToController, blocks.bytes(block_bytes_log2))
            }
            Self::Verify { .. } | Self::WriteZeroes { .. } | Self::Flush => DataRule::None,
            Self::DatasetManagement { ranges, .. } => DataRule::FromHost {
                min: u32::from(*ranges) * RANGE_BYTES as u32,
                max: RANGES_BYTES_MAX,
            },
            Self::Reservation(reservation) => reservation.data_rule(),
        }
    }

    /// The blocks that a command addresses by SLBA and NLB.
    #[must_use]
    pub const fn blocks(&self) -> Option<Blocks> {
        match self {
            Self::Read { blocks, .. }
            | Self::Write { blocks, .. }
            | Self::Compare { blocks, .. }
            | Self::Verify { blocks, .. }
            | Self::WriteZeroes { blocks, .. } => Some(*blocks),
            Self::Flush | Self::DatasetManagement { .. } | Self::Reservation(_) => None,
        }
    }
}

/// The first `count` ranges of the data of Dataset Management (NVM section 3.2.3): context
/// attributes (hints, ignored), length in blocks, starting LBA. Fewer if the data is too short.
pub fn ranges(data: &[u8], count: u16) -> impl Iterator<Item = Blocks> {
    let (ranges, _) = data.as_chunks::<RANGE_BYTES>();
    ranges.iter().take(usize::from(count)).map(|range| {
        let [_, _, _, _, n0, n1, n2, n3, s0, s1, s2, s3, s4, s5, s6, s7] = *range;
        Blocks {
            start: u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
            count: u32::from_le_bytes([n0, n1, n2, n3]),
        }
    })
}

#[cfg(test)]
mod test;
