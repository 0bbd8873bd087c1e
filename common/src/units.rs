//! Units as types: sectors, pages and bytes are never mixed up, and every conversion is checked.
//!
//! A *sector* is 512 bytes everywhere in this project, whatever sector size an image shows to its
//! clients; a *page* is 4 KiB, the unit of the write log and of direct I/O.

use std::fmt;
use std::ops::{Add, AddAssign, Range, Sub, SubAssign};

/// Bytes in a sector, the unit of the map.
pub const SECTOR_BYTES: u64 = 512;
/// Bytes in a page, the unit of the write log and of direct I/O.
pub const PAGE_BYTES: u64 = 4096;
/// Bytes in a sector, as a length in memory.
pub const SECTOR_LEN: usize = 512;
/// Bytes in a page, as a length in memory.
pub const PAGE_LEN: usize = 4096;
/// Sectors in a page.
pub const PAGE_SECTORS: u64 = PAGE_BYTES / SECTOR_BYTES;

/// Address of a sector on an image, counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sector(pub u64);

/// A number of sectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sectors(pub u64);

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

/// A contiguous range of sectors; may be empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SectorRange {
    /// First sector.
    pub start: Sector,
    /// Number of sectors.
    pub len: Sectors,
}

impl Sector {
    /// The byte address of this sector. `None` past 2^64 bytes.
    #[must_use]
    pub fn checked_bytes(self) -> Option<u64> {
        self.0.checked_mul(SECTOR_BYTES)
    }

    /// The sector that starts at `byte`. `None` if `byte` is not a multiple of 512.
    #[must_use]
    pub fn from_bytes(byte: u64) -> Option<Self> {
        byte.is_multiple_of(SECTOR_BYTES).then_some(Self(byte / SECTOR_BYTES))
    }
}

impl Sectors {
    /// No sectors.
    pub const ZERO: Self = Self(0);

    /// The length in bytes. `None` past 2^64.
    #[must_use]
    pub fn checked_bytes(self) -> Option<u64> {
        self.0.checked_mul(SECTOR_BYTES)
    }

    /// The length in bytes of something that is in memory, or was checked to be.
    ///
    /// # Panics
    /// If the product does not fit; nothing that long exists in memory.
    #[must_use]
    pub fn bytes_usize(self) -> usize {
        self.checked_bytes()
            .and_then(|bytes| usize::try_from(bytes).ok())
            .expect("a length in memory fits the address space")
    }

    /// How many sectors `bytes` are. `None` if it is not a multiple of 512.
    #[must_use]
    pub fn from_bytes(bytes: u64) -> Option<Self> {
        bytes.is_multiple_of(SECTOR_BYTES).then_some(Self(bytes / SECTOR_BYTES))
    }

    /// True if there are none.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl Bytes {
    /// The number of pages that hold this many bytes.
    #[must_use]
    pub fn pages_ceil(self) -> u64 {
        self.0.div_ceil(PAGE_BYTES)
    }
}

impl SectorRange {
    /// A range of `len` sectors from `start`.
    #[must_use]
    pub fn new(start: Sector, len: Sectors) -> Self {
        Self { start, len }
    }

    /// The range that covers the byte range `offset..offset + bytes`. `None` unless both are
    /// multiples of 512 and the end fits 64 bits.
    #[must_use]
    pub fn from_bytes(offset: u64, bytes: u64) -> Option<Self> {
        offset.checked_add(bytes)?;
        Some(Self { start: Sector::from_bytes(offset)?, len: Sectors::from_bytes(bytes)? })
    }

    /// The first sector behind the range.
    ///
    /// # Panics
    /// If the end does not fit 64 bits: ranges are checked against an image's size before they are
    /// used.
    #[must_use]
    pub fn end(self) -> Sector {
        Sector(self.start.0.checked_add(self.len.0).expect("a checked range ends below 2^64"))
    }

    /// The first sector behind the range, `None` if that does not fit.
    #[must_use]
    pub fn checked_end(self) -> Option<Sector> {
        self.start.0.checked_add(self.len.0).map(Sector)
    }

    /// True if the range has no sector.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len.is_zero()
    }

    /// The part that both ranges share; empty at the larger start if they share nothing.
    #[must_use]
    pub fn intersect(self, other: Self) -> Self {
        let start = self.start.max(other.start);
        let end = self.end().min(other.end());
        Self { start, len: Sectors(end.0.saturating_sub(start.0)) }
    }

    /// As a range of raw sector numbers.
    #[must_use]
    pub fn as_range(self) -> Range<u64> {
        self.start.0..self.end().0
    }
}

impl From<Range<u64>> for SectorRange {
    fn from(range: Range<u64>) -> Self {
        Self { start: Sector(range.start), len: Sectors(range.end.saturating_sub(range.start)) }
    }
}

impl Add<Sectors> for Sector {
    type Output = Self;
    fn add(self, rhs: Sectors) -> Self {
        Self(self.0 + rhs.0)
    }
}

impl Sub for Sector {
    type Output = Sectors;
    fn sub(self, rhs: Self) -> Sectors {
        Sectors(self.0 - rhs.0)
    }
}

impl Add for Sectors {
    type Output = Self;
    fn add(self, rhs: Self) -> Self {
        Self(self.0 + rhs.0)
    }
}

impl Sub for Sectors {
    type Output = Self;
    fn sub(self, rhs: Self) -> Self {
        Self(self.0 - rhs.0)
    }
}

impl AddAssign for Sectors {
    fn add_assign(&mut self, rhs: Self) {
        self.0 += rhs.0;
    }
}

impl SubAssign for Sectors {
    fn sub_assign(&mut self, rhs: Self) {
        self.0 -= rhs.0;
    }
}

impl fmt::Display for Sector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sector {}", self.0)
    }
}

impl fmt::Display for Sectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sectors", self.0)
    }
}

impl fmt::Display for SectorRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sectors {}..{}", self.start.0, self.start.0.saturating_add(self.len.0))
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn only_whole_sectors_convert() {
        assert_eq!(Sector::from_bytes(1024), Some(Sector(2)));
        assert_eq!(Sector::from_bytes(1025), None);
        assert_eq!(SectorRange::from_bytes(512, 1024), Some(SectorRange::from(1..3)));
        assert_eq!(SectorRange::from_bytes(u64::MAX - 511, 1024), None);
        assert_eq!(Sectors(u64::MAX).checked_bytes(), None);
    }

    #[test]
    fn ranges_that_do_not_meet_share_nothing() {
        let shared = SectorRange::from(0..4).intersect(SectorRange::from(8..12));
        assert!(shared.is_empty());
        assert_eq!(SectorRange::from(0..9).intersect((4..20).into()), SectorRange::from(4..9));
    }
}
