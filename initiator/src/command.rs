//! Commands as values: the submission queue entry, and the data that goes with it.

use bytes::{BufMut, Bytes, BytesMut};
use lsvd_nvmet::wire::{Sqe, Status};
use uuid::Uuid;

use crate::error::Error;

/// A command that a [`Queue`](crate::Queue) can send.
#[derive(Debug, Clone)]
pub struct Command {
    /// The entry; its identifier and data descriptor are filled in by the queue.
    pub(crate) entry: Sqe,
    pub(crate) transfer: Transfer,
}

/// The data of a command.
#[derive(Debug, Clone, Default)]
pub(crate) enum Transfer {
    #[default]
    None,
    /// This many bytes from the target.
    ToHost(u32),
    /// These bytes to the target.
    FromHost(Bytes),
}

/// A command under way on one queue: its command identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag(pub u16);

/// What the target answered.
#[derive(Debug, Clone)]
pub struct Completion {
    /// The command that is through.
    pub tag: Tag,
    /// Its status.
    pub status: Status,
    /// The first two dwords of the completion; what they mean depends on the command.
    pub result: u64,
    /// What it read.
    pub data: Bytes,
}

impl Completion {
    /// The completion if the command succeeded.
    ///
    /// # Errors
    /// [`Error::Status`] otherwise.
    pub fn ok(self) -> Result<Self, Error> {
        if self.status == Status::SUCCESS { Ok(self) } else { Err(Error::Status(self.status)) }
    }
}

/// An extent of a Dataset Management command, in logical blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First logical block.
    pub lba: u64,
    /// Number of logical blocks.
    pub blocks: u32,
}

const FUA: u32 = 1 << 30;
const DEALLOCATE: u32 = 1 << 25;
const FABRICS: u8 = 0x7f;

impl Command {
    /// Any command without data; see [`Self::reading`] and [`Self::writing`].
    #[must_use]
    pub fn new(opcode: u8, nsid: u32) -> Self {
        Self { entry: Sqe::new(opcode, 0, nsid), transfer: Transfer::None }
    }

    /// The same command, for which the target sends `bytes` bytes.
    #[must_use]
    pub fn reading(mut self, bytes: u32) -> Self {
        self.transfer = if bytes == 0 { Transfer::None } else { Transfer::ToHost(bytes) };
        self
    }

    /// The same command with this data for the target.
    #[must_use]
    pub fn writing(mut self, data: Bytes) -> Self {
        self.transfer = if data.is_empty() { Transfer::None } else { Transfer::FromHost(data) };
        self
    }

    /// The same command with another `value` in command dword `number` (10 to 15).
    ///
    /// # Panics
    /// If there is no such dword.
    #[must_use]
    pub fn dword(mut self, number: u8, value: u32) -> Self {
        let entry = &mut self.entry;
        let field = match number {
            10 => &mut entry.cdw10,
            11 => &mut entry.cdw11,
            12 => &mut entry.cdw12,
            13 => &mut entry.cdw13,
            14 => &mut entry.cdw14,
            15 => &mut entry.cdw15,
            _ => panic!("command dwords are 10 to 15"),
        };
        *field = value.into();
        self
    }

    /// A write or read of `blocks` (1 to 65536) logical blocks from `lba`.
    fn on_blocks(opcode: u8, nsid: u32, lba: u64, blocks: u32) -> Self {
        debug_assert!((1..=1 << 16).contains(&blocks), "the field has 16 bits and is 0-based");
        Self::new(opcode, nsid)
            .dword(10, low(lba))
            .dword(11, high(lba))
            .dword(12, blocks.wrapping_sub(1) & 0xffff)
    }

    /// Read of `blocks` (1 to 65536) logical blocks of `block_bytes`.
    #[must_use]
    pub fn read(nsid: u32, lba: u64, blocks: u32, block_bytes: u32) -> Self {
        Self::on_blocks(0x02, nsid, lba, blocks).reading(blocks * block_bytes)
    }

    /// Write of `data`, 1 to 65536 logical blocks of `block_bytes`.
    #[must_use]
    pub fn write(nsid: u32, lba: u64, block_bytes: u32, data: Bytes) -> Self {
        Self::on_blocks(0x01, nsid, lba, blocks_of(&data, block_bytes)).writing(data)
    }

    /// Compare with `data`, 1 to 65536 logical blocks of `block_bytes`.
    #[must_use]
    pub fn compare(nsid: u32, lba: u64, block_bytes: u32, data: Bytes) -> Self {
        Self::on_blocks(0x05, nsid, lba, blocks_of(&data, block_bytes)).writing(data)
    }

    /// The same command with Force Unit Access.
    #[must_use]
    pub fn force_unit_access(mut self) -> Self {
        self.entry.cdw12 |= FUA;
        self
    }

    /// Flush of one namespace, or of all with NSID ffffffffh.
    #[must_use]
    pub fn flush(nsid: u32) -> Self {
        Self::new(0x00, nsid)
    }

    /// Write Zeroes; `deallocate` sets DEAC.
    #[must_use]
    pub fn write_zeroes(nsid: u32, lba: u64, blocks: u32, deallocate: bool) -> Self {
        let mut command = Self::on_blocks(0x08, nsid, lba, blocks);
        if deallocate {
            command.entry.cdw12 |= DEALLOCATE;
        }
        command
    }

    /// Verify of `blocks` (1 to 65536) logical blocks.
    #[must_use]
    pub fn verify(nsid: u32, lba: u64, blocks: u32) -> Self {
        Self::on_blocks(0x0c, nsid, lba, blocks)
    }

    /// Dataset Management, deallocate: 1 to 256 ranges. Like Linux it sends 4096 bytes always.
    #[must_use]
    pub fn deallocate(nsid: u32, ranges: &[Range]) -> Self {
        debug_assert!((1..=256).contains(&ranges.len()), "the field has 8 bits and is 0-based");
        let mut list = BytesMut::with_capacity(4096);
        for range in ranges {
            list.put_u32_le(0);
            list.put_u32_le(range.blocks);
            list.put_u64_le(range.lba);
        }
        list.resize(4096, 0);
        let count = u32::try_from(ranges.len()).unwrap_or(u32::MAX).wrapping_sub(1) & 0xff;
        Self::new(0x09, nsid).dword(10, count).dword(11, 1 << 2).writing(list.freeze())
    }

    /// Identify: the structure `structure` (CNS), always 4096 bytes.
    #[must_use]
    pub fn identify(structure: u8, nsid: u32) -> Self {
        Self::new(0x06, nsid).dword(10, structure.into()).reading(4096)
    }

    /// Get Log Page: `bytes` (a multiple of 4) of log `page` from `offset`; `retain` keeps the
    /// asynchronous event that the page belongs to.
    #[must_use]
    pub fn get_log_page(page: u8, nsid: u32, offset: u64, bytes: u32, retain: bool) -> Self {
        let dwords = (bytes / 4).wrapping_sub(1);
        Self::new(0x02, nsid)
            .dword(10, u32::from(page) | u32::from(retain) << 15 | dwords << 16)
            .dword(11, dwords >> 16)
            .dword(12, low(offset))
            .dword(13, high(offset))
            .reading(bytes)
    }

    /// Get Features, current value.
    #[must_use]
    pub fn get_feature(feature: u8, nsid: u32) -> Self {
        Self::new(0x0a, nsid).dword(10, feature.into())
    }

    /// Set Features with a value in dword 11.
    #[must_use]
    pub fn set_feature(feature: u8, nsid: u32, value: u32) -> Self {
        Self::new(0x09, nsid).dword(10, feature.into()).dword(11, value)
    }

    /// Keep Alive.
    #[must_use]
    pub fn keep_alive() -> Self {
        Self::new(0x18, 0)
    }

    /// Asynchronous Event Request; its completion is the event.
    #[must_use]
    pub fn async_event_request() -> Self {
        Self::new(0x0c, 0)
    }

    /// Abort of command `tag` of queue `queue`.
    #[must_use]
    pub fn abort(queue: u16, tag: Tag) -> Self {
        Self::new(0x08, 0).dword(10, u32::from(queue) | u32::from(tag.0) << 16)
    }

    /// A fabrics command of `kind` (FCTYPE).
    #[must_use]
    pub fn fabrics(kind: u8) -> Self {
        Self::new(FABRICS, kind.into())
    }

    /// Property Get of the register at `offset`; `wide` ones have 8 bytes, others 4.
    #[must_use]
    pub fn property_get(offset: u32, wide: bool) -> Self {
        Self::fabrics(0x04).dword(10, u32::from(wide)).dword(11, offset)
    }

    /// Property Set of the 4-byte register at `offset`.
    #[must_use]
    pub fn property_set(offset: u32, value: u32) -> Self {
        Self::fabrics(0x00).dword(11, offset).dword(12, value)
    }

    /// Connect of queue `queue` with `entries` entries. `controller` is ffffh for a new controller;
    /// `keep_alive_ms` counts for queue 0 only; `flow_control` off gives up SQHD.
    #[must_use]
    pub fn connect(parameters: &ConnectParameters<'_>) -> Self {
        let mut data = BytesMut::with_capacity(1024);
        data.extend_from_slice(parameters.host_id.as_bytes());
        data.extend_from_slice(&parameters.controller.to_le_bytes());
        data.resize(256, 0);
        put_name(&mut data, parameters.subsystem, 512);
        put_name(&mut data, parameters.host, 768);
        data.resize(1024, 0);
        let attributes = if parameters.flow_control { 0 } else { 1 << 2 };
        let entries = u32::from(parameters.entries.wrapping_sub(1));
        Self::fabrics(0x01)
            .dword(10, u32::from(parameters.queue) << 16)
            .dword(11, entries | attributes << 16)
            .dword(12, parameters.keep_alive_ms)
            .writing(data.freeze())
    }
}

/// What [`Command::connect`] says.
#[derive(Debug, Clone, Copy)]
pub struct ConnectParameters<'a> {
    /// Queue number, 0 for the admin queue.
    pub queue: u16,
    /// Entries of the queue, not 0-based.
    pub entries: u16,
    /// CNTLID, ffffh for a new controller.
    pub controller: u16,
    /// Keep-alive timeout in milliseconds, 0 for none.
    pub keep_alive_ms: u32,
    /// Whether SQHD is used.
    pub flow_control: bool,
    /// SUBNQN, cut at 255 bytes.
    pub subsystem: &'a str,
    /// HOSTNQN, cut at 255 bytes.
    pub host: &'a str,
    /// HOSTID.
    pub host_id: Uuid,
}

/// Appends a name and fills with zeros to `end`, a zero byte at least.
fn put_name(data: &mut BytesMut, name: &str, end: usize) {
    let len = name.len().min(end - data.len() - 1);
    data.extend_from_slice(&name.as_bytes()[..len]);
    data.resize(end, 0);
}

fn blocks_of(data: &Bytes, block_bytes: u32) -> u32 {
    u32::try_from(data.len()).unwrap_or(u32::MAX) / block_bytes
}

fn low(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).expect("32 bits")
}

fn high(value: u64) -> u32 {
    low(value >> 32)
}

#[cfg(test)]
mod test {
    use zerocopy::IntoBytes;

    use super::*;

    #[test]
    fn a_write_with_fua_is_laid_out_as_linux_sends_it() {
        let data = Bytes::from(vec![0; 8192]);
        let command = Command::write(3, 0x1_0000_0002, 4096, data).force_unit_access();
        let entry = command.entry.as_bytes();
        assert_eq!((entry[0], entry[1], entry[4]), (0x01, 0x40, 3));
        assert_eq!(entry[40..52], [2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0x40]);
    }

    #[test]
    fn deallocate_carries_4096_bytes_and_its_ranges() {
        let range = Range { lba: 256, blocks: 16 };
        let command = Command::deallocate(1, &[range, range]);
        assert_eq!(command.entry.as_bytes()[40..48], [1, 0, 0, 0, 4, 0, 0, 0]);
        let Transfer::FromHost(data) = command.transfer else { panic!("no data") };
        assert_eq!(data.len(), 4096);
        assert_eq!(data[16..32], [0, 0, 0, 0, 16, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert!(data[32..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn connect_has_its_names_and_numbers_in_place() {
        let command = Command::connect(&ConnectParameters {
            queue: 2,
            entries: 128,
            controller: 0xffff,
            keep_alive_ms: 5000,
            flow_control: false,
            subsystem: "nqn.a",
            host: "nqn.b",
            host_id: Uuid::from_bytes([9; 16]),
        });
        let entry = command.entry.as_bytes();
        assert_eq!((entry[0], entry[4]), (0x7f, 1));
        assert_eq!(entry[40..52], [0, 0, 2, 0, 127, 0, 4, 0, 0x88, 0x13, 0, 0]);
        let Transfer::FromHost(data) = command.transfer else { panic!("no data") };
        assert_eq!(data[..18], [9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 0xff, 0xff]);
        assert_eq!((&data[256..262], &data[512..518]), (&b"nqn.a\0"[..], &b"nqn.b\0"[..]));
        assert_eq!(data.len(), 1024);
    }

    #[test]
    fn a_log_page_is_asked_for_in_dwords_with_a_64_bit_offset() {
        let command = Command::get_log_page(0x70, 0, 0x1_0000_0000, 1 << 20, true);
        let entry = command.entry.as_bytes();
        // 262144 dwords, 0-based: 3ffffh.
        assert_eq!(entry[40..48], [0x70, 0x80, 0xff, 0xff, 3, 0, 0, 0]);
        assert_eq!(entry[48..56], [0, 0, 0, 0, 1, 0, 0, 0]);
    }
}
