//! Error information, health and firmware: pages 01h, 02h and 03h (sections 5.16.1.2 to 5.16.1.4).

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::status::Status;
use crate::wire::text::padded;

/// An entry of the error log, page 01h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorEntry {
    /// Error Count: number of this error since the controller exists, from 1.
    pub count: u64,
    /// Submission Queue ID.
    pub sqid: u16,
    /// Command ID.
    pub cid: u16,
    /// Status Field of the completion.
    pub status: Status,
    /// Parameter Error Location: byte in bits 7:0, bit in 10:8; FFFFh is no certain one.
    pub location: u16,
    /// First LBA that the error concerns.
    pub lba: u64,
    /// Namespace.
    pub nsid: u32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ErrorBytes {
    error_count: U64,
    sqid: U16,
    cid: U16,
    status: U16,
    location: U16,
    lba: U64,
    nsid: U32,
    vendor_info: u8,
    trtype: u8,
    reserved30: [u8; 2],
    command_info: U64,
    transport_info: U16,
    reserved42: [u8; 22],
}

const _: () = assert!(size_of::<ErrorBytes>() == ErrorEntry::BYTES);

/// TRTYPE of TCP.
const TRTYPE_TCP: u8 = 3;

impl ErrorEntry {
    /// Size in bytes.
    pub const BYTES: usize = 64;

    /// Page 01h: the latest error first, then unused entries up to `entries_max` (ELPE + 1).
    #[must_use]
    pub fn log<'a>(
        latest_first: impl IntoIterator<Item = &'a Self>,
        entries_max: usize,
    ) -> Vec<u8> {
        let mut log = Vec::with_capacity(Self::BYTES * entries_max);
        for entry in latest_first.into_iter().take(entries_max) {
            log.extend_from_slice(entry.to_bytes().as_bytes());
        }
        log.resize(Self::BYTES * entries_max, 0);
        log
    }

    fn to_bytes(self) -> ErrorBytes {
        ErrorBytes {
            error_count: self.count.into(),
            sqid: self.sqid.into(),
            cid: self.cid.into(),
            status: self.status.to_field().into(),
            location: self.location.into(),
            lba: self.lba.into(),
            nsid: self.nsid.into(),
            vendor_info: 0,
            trtype: TRTYPE_TCP,
            reserved30: [0; 2],
            command_info: U64::ZERO,
            transport_info: U16::ZERO,
            reserved42: [0; 22],
        }
    }
}

/// SMART / Health Information, page 02h; fields without mention are 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SmartInfo {
    /// Critical Warning: bit 2 reliability is degraded, bit 3 the media is read-only.
    pub critical_warning: u8,
    /// Composite Temperature in kelvins.
    pub temperature_kelvins: u16,
    /// Available Spare in percent.
    pub spare_percent: u8,
    /// Available Spare Threshold in percent.
    pub spare_threshold_percent: u8,
    /// Percentage Used of the life of the media.
    pub used_percent: u8,
    /// Data Units Read, each 1000 times 512 bytes, rounded up.
    pub units_read: u128,
    /// Data Units Written, each 1000 times 512 bytes, rounded up.
    pub units_written: u128,
    /// Host Read Commands.
    pub reads: u128,
    /// Host Write Commands.
    pub writes: u128,
    /// Controller Busy Time in minutes.
    pub busy_minutes: u128,
    /// Power Cycles.
    pub power_cycles: u128,
    /// Power On Hours.
    pub power_on_hours: u128,
    /// Unsafe Shutdowns.
    pub unsafe_shutdowns: u128,
    /// Media and Data Integrity Errors.
    pub media_errors: u128,
    /// Number of Error Information Log Entries.
    pub error_entries: u128,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SmartBytes {
    critical_warning: u8,
    temperature: U16,
    spare: u8,
    spare_threshold: u8,
    used: u8,
    reserved6: [u8; 26],
    units_read: U128,
    units_written: U128,
    reads: U128,
    writes: U128,
    busy_minutes: U128,
    power_cycles: U128,
    power_on_hours: U128,
    unsafe_shutdowns: U128,
    media_errors: U128,
    error_entries: U128,
    reserved192: [u8; 320],
}

const _: () = assert!(size_of::<SmartBytes>() == SmartInfo::BYTES);

impl SmartInfo {
    /// Size in bytes.
    pub const BYTES: usize = 512;

    /// The page.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        SmartBytes {
            critical_warning: self.critical_warning,
            temperature: self.temperature_kelvins.into(),
            spare: self.spare_percent,
            spare_threshold: self.spare_threshold_percent,
            used: self.used_percent,
            reserved6: [0; 26],
            units_read: self.units_read.into(),
            units_written: self.units_written.into(),
            reads: self.reads.into(),
            writes: self.writes.into(),
            busy_minutes: self.busy_minutes.into(),
            power_cycles: self.power_cycles.into(),
            power_on_hours: self.power_on_hours.into(),
            unsafe_shutdowns: self.unsafe_shutdowns.into(),
            media_errors: self.media_errors.into(),
            error_entries: self.error_entries.into(),
            reserved192: [0; 320],
        }
        .as_bytes()
        .to_vec()
    }
}

/// Page 03h: slot 1 is active and holds `revision`, of which 8 bytes fit.
#[must_use]
pub fn firmware_slots(revision: &str) -> Vec<u8> {
    let mut log = vec![0; 512];
    log[0] = 1;
    log[8..16].copy_from_slice(&padded::<8>(revision, b' '));
    log
}
