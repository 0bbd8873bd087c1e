//! The file of a gateway's read cache: one superblock page, an index of claims, and slots for
//! frames.
//!
//! | Part       | Offset                                | Size                          |
//! |------------|---------------------------------------|-------------------------------|
//! | superblock | 0                                     | 4,096, of which 64 are used   |
//! | index      | 4,096                                 | 128 for each slot, whole pages |
//! | slots      | end of the index, rounded up to 65,536 | 65,536 for each slot          |
//!
//! A slot holds one decoded frame from its first byte on; the rest of the frame's last page is
//! zeros, pages behind it are of no meaning. Everything here may be lost: a reader that cannot use
//! the file starts an empty one.
//!
//! Invariants: 1. An entry is a *claim*, never a fact: the index is written later than the slots,
//! so after a crash an entry may describe what its slot held before. 2. The checksum of an entry
//! covers the file's identity and the slot's number, so that neither a file made anew nor a
//! misplaced index page revives old claims, and making a file need not clear its index. 3. A claim
//! is proved by the checksums of all its pages *and* by a digest that is no CRC: two frames that
//! differ in one page only would otherwise be told apart by 32 bits.

use uuid::Uuid;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::header_crc;
use crate::codec::{DecodeError, DecodeKind, Reader};
use crate::ids::{ImageId, ObjectSeq};
use crate::layout::layout;
use crate::limits::FRAME_BYTES;
use crate::units::{PAGE_BYTES, PAGE_LEN, SECTOR_BYTES};

/// The first bytes of a cache file.
pub const MAGIC: [u8; 8] = *b"LSVDRCCH";
/// The version that is written, and the only one that is read: an unknown file is a cold start, not
/// a loss. 1: first.
pub const VERSION: u16 = 1;
/// Bytes in a slot: the longest frame.
pub const SLOT_BYTES: u64 = FRAME_BYTES as u64;
/// Pages in a slot.
pub const SLOT_PAGES: usize = FRAME_BYTES / PAGE_LEN;
/// Bytes in an index entry.
pub const ENTRY_BYTES: usize = 128;
/// Entries in a page of the index.
pub const ENTRIES_PER_PAGE: u32 = 32;
/// Most slots of one file (1 TiB): each takes about 124 bytes of a gateway's memory, 2 GiB in all.
pub const SLOTS_MAX: u64 = 1 << 24;

/// Where the index begins.
const INDEX_OFFSET: u64 = PAGE_BYTES;

/// Which frame of which object, for ever: objects are immutable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FrameKey {
    /// The image whose object it is; a clone reads its base's objects under the base's identity.
    pub image: ImageId,
    /// The object.
    pub object: ObjectSeq,
    /// The CRC of the object's header: an object put again under the same sequence, as after
    /// restoring a pool from a backup, is another object.
    pub fingerprint: u32,
    /// Index of the frame in the object's payload.
    pub frame: u32,
}

impl FrameKey {
    /// A well mixed hash of all fields. The same in every process, so that what a cache keeps is
    /// reproducible.
    #[must_use]
    pub fn hash64(&self) -> u64 {
        let (high, low) = self.image.0.as_u64_pair();
        let place = (u64::from(self.fingerprint) << 32) | u64::from(self.frame);
        let image = fold(low ^ MIX[0], high ^ MIX[1]);
        let frame = fold(image ^ self.object.0, place ^ MIX[2]);
        fold(frame ^ MIX[3], MIX[0])
    }
}

impl std::hash::Hash for FrameKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash64());
    }
}

/// Where things are in a file with a given number of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    slots: u32,
}

impl Geometry {
    /// The most slots that fit `file_bytes`, at most `SLOTS_MAX`. `None` if not even one does.
    #[must_use]
    pub fn of_file(file_bytes: u64) -> Option<Self> {
        // The estimate ignores rounding, which costs less than two slots.
        let estimate = file_bytes.saturating_sub(INDEX_OFFSET) / (SLOT_BYTES + ENTRY_BYTES as u64);
        let slots = u32::try_from(estimate.min(SLOTS_MAX)).expect("SLOTS_MAX fits 32 bits");
        (slots.saturating_sub(2)..=slots)
            .rev()
            .map(|slots| Self { slots })
            .find(|geometry| geometry.slots > 0 && geometry.file_bytes() <= file_bytes)
    }

    /// Number of slots, at least 1.
    #[must_use]
    pub fn slots(self) -> u32 {
        self.slots
    }

    /// Number of index pages.
    #[must_use]
    pub fn index_pages(self) -> u32 {
        self.slots.div_ceil(ENTRIES_PER_PAGE)
    }

    /// Byte offset of an index page.
    #[must_use]
    pub fn index_page_offset(self, page: u32) -> u64 {
        INDEX_OFFSET + u64::from(page) * PAGE_BYTES
    }

    /// Byte offset of the first slot.
    #[must_use]
    pub fn slots_offset(self) -> u64 {
        self.index_page_offset(self.index_pages()).next_multiple_of(SLOT_BYTES)
    }

    /// Byte offset of a slot.
    #[must_use]
    pub fn slot_offset(self, slot: u32) -> u64 {
        self.slots_offset() + u64::from(slot) * SLOT_BYTES
    }

    /// Bytes that the file needs.
    #[must_use]
    pub fn file_bytes(self) -> u64 {
        self.slot_offset(self.slots)
    }
}

/// What a cache file says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSuperblock {
    /// Identity of this cache, made anew whenever the file is started empty.
    pub cache: Uuid,
    /// Where things are.
    pub geometry: Geometry,
}

impl CacheSuperblock {
    /// The 64 used bytes of the superblock page; the rest of the page is zeros.
    #[must_use]
    pub fn encode(&self) -> [u8; 64] {
        let mut raw = CacheSuperblockFields {
            magic: MAGIC,
            version: U16::new(VERSION),
            entry_bytes: U16::new(u16::try_from(ENTRY_BYTES).expect("an entry has 128 bytes")),
            crc: U32::ZERO,
            cache: self.cache.into_bytes(),
            slot_bytes: U64::new(SLOT_BYTES),
            slots: U64::new(u64::from(self.geometry.slots)),
            slots_offset: U64::new(self.geometry.slots_offset()),
            reserved: [0; 8],
        };
        raw.crc = U32::new(header_crc(raw.as_bytes(), SUPERBLOCK_CRC_AT));
        zerocopy::transmute!(raw)
    }

    /// Reads the superblock of a file of `file_bytes`.
    ///
    /// # Errors
    /// What is wrong; `OutOfRange` at `slots` if the file was made for another size or by other
    /// rules.
    pub fn decode(page: &[u8], file_bytes: u64) -> Result<Self, DecodeError> {
        let raw: &CacheSuperblockFields = Reader::new(page).one("cache superblock")?;
        let error = |what, at, kind| Err(DecodeError::new(what, at, kind));
        if raw.magic != MAGIC {
            return error("cache superblock magic", 0, DecodeKind::BadMagic);
        }
        let found = raw.version.get();
        if found != VERSION {
            let kind = DecodeKind::UnsupportedVersion { found, known: VERSION };
            return error("cache superblock version", 8, kind);
        }
        let (expected, found) = (raw.crc.get(), header_crc(raw.as_bytes(), SUPERBLOCK_CRC_AT));
        if expected != found {
            let kind = DecodeKind::BadChecksum { expected, found };
            return error("cache superblock", SUPERBLOCK_CRC_AT, kind);
        }
        let Some(geometry) = Geometry::of_file(file_bytes) else {
            return error("cache file", 0, DecodeKind::OutOfRange);
        };
        let same = usize::from(raw.entry_bytes.get()) == ENTRY_BYTES
            && raw.slot_bytes.get() == SLOT_BYTES
            && raw.slots.get() == u64::from(geometry.slots)
            && raw.slots_offset.get() == geometry.slots_offset();
        if !same {
            return error("cache geometry", 40, DecodeKind::OutOfRange);
        }
        Ok(Self { cache: Uuid::from_bytes(raw.cache), geometry })
    }
}

/// What an index entry says that its slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameClaim {
    /// The frame.
    pub key: FrameKey,
    /// Its length in bytes: a multiple of 512, 512 to 65,536.
    pub frame_bytes: u32,
    /// `frame_digest` of the key and the pages.
    pub digest: u64,
    /// CRC-32C of each page of the frame, the last one padded with zeros; 0 for pages behind the
    /// frame.
    pub page_crcs: [u32; SLOT_PAGES],
}

impl FrameClaim {
    /// The claim about a frame of `frame_bytes` that is in `pages`, padded with zeros to whole
    /// pages.
    ///
    /// # Panics
    /// If the length is none of a frame, or `pages` has another number of pages than it needs.
    #[must_use]
    pub fn about(key: FrameKey, frame_bytes: u32, pages: &[u8]) -> Self {
        assert!(is_frame_length(frame_bytes), "the length is one of a frame");
        assert_eq!(pages.len(), pages_of(frame_bytes) * PAGE_LEN, "pages hold the frame exactly");
        let mut page_crcs = [0; SLOT_PAGES];
        for (crc, page) in page_crcs.iter_mut().zip(pages.chunks_exact(PAGE_LEN)) {
            *crc = crc32c::crc32c(page);
        }
        Self { key, frame_bytes, digest: frame_digest(&key, pages), page_crcs }
    }

    /// Number of pages that the frame takes, 1 to 16.
    #[must_use]
    pub fn pages(&self) -> usize {
        pages_of(self.frame_bytes)
    }

    /// True if `pages` are the pages of the frame from page `first` on, as far as their checksums
    /// tell.
    #[must_use]
    pub fn matches(&self, first: usize, pages: &[u8]) -> bool {
        let count = pages.len() / PAGE_LEN;
        let Some(crcs) = self.page_crcs[..self.pages()].get(first..).and_then(|c| c.get(..count))
        else {
            return false;
        };
        pages.len().is_multiple_of(PAGE_LEN)
            && pages
                .chunks_exact(PAGE_LEN)
                .zip(crcs)
                .all(|(page, crc)| crc32c::crc32c(page) == *crc)
    }

    /// True if `pages` are all pages of the frame: checksums and digest agree.
    #[must_use]
    pub fn proved_by(&self, pages: &[u8]) -> bool {
        pages.len() == self.pages() * PAGE_LEN
            && self.matches(0, pages)
            && frame_digest(&self.key, pages) == self.digest
    }
}

/// The index entry of slot `slot` of the cache `cache`; an empty slot's entry is all zeros.
#[must_use]
pub fn encode_entry(claim: Option<&FrameClaim>, cache: Uuid, slot: u32) -> [u8; ENTRY_BYTES] {
    let Some(claim) = claim else {
        return [0; ENTRY_BYTES];
    };
    let mut raw = CacheEntryFields {
        image: claim.key.image.0.into_bytes(),
        object: U64::new(claim.key.object.0),
        fingerprint: U32::new(claim.key.fingerprint),
        frame: U32::new(claim.key.frame),
        digest: U64::new(claim.digest),
        frame_bytes: U32::new(claim.frame_bytes),
        page_crcs: claim.page_crcs.map(U32::new),
        reserved: [0; 16],
        crc: U32::ZERO,
    };
    raw.crc = U32::new(entry_crc(&raw, cache, slot));
    zerocopy::transmute!(raw)
}

/// Reads the entry of slot `slot`. `None` if the slot is empty.
///
/// # Errors
/// `BadChecksum` for everything that was not written for this slot of this cache, the leftovers of
/// an earlier cache in the same file among it; `OutOfRange` for an impossible length.
pub fn decode_entry(
    bytes: &[u8],
    cache: Uuid,
    slot: u32,
) -> Result<Option<FrameClaim>, DecodeError> {
    let raw: &CacheEntryFields = Reader::new(bytes).one("cache entry")?;
    if raw.as_bytes().iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let (expected, found) = (raw.crc.get(), entry_crc(raw, cache, slot));
    if expected != found {
        let kind = DecodeKind::BadChecksum { expected, found };
        return Err(DecodeError::new("cache entry", ENTRY_CRC_AT, kind));
    }
    if !is_frame_length(raw.frame_bytes.get()) {
        return Err(DecodeError::range("cache entry frame_bytes", 40));
    }
    Ok(Some(FrameClaim {
        key: FrameKey {
            image: ImageId(Uuid::from_bytes(raw.image)),
            object: ObjectSeq(raw.object.get()),
            fingerprint: raw.fingerprint.get(),
            frame: raw.frame.get(),
        },
        frame_bytes: raw.frame_bytes.get(),
        digest: raw.digest.get(),
        page_crcs: raw.page_crcs.map(U32::get),
    }))
}

/// A 64-bit digest of a frame's key and pages, independent of CRC-32C: products of 64-bit words, 16
/// bytes a step, the halves folded together. It guards against accidents, not against someone who
/// forges frames.
fn frame_digest(key: &FrameKey, pages: &[u8]) -> u64 {
    let mut digest = key.hash64();
    let (words, _) = pages.as_chunks::<16>();
    for word in words {
        let word = u128::from_le_bytes(*word);
        let (high, low) = halves(word);
        digest = fold(low ^ MIX[1], high ^ digest);
    }
    fold(digest ^ MIX[2], pages.len() as u64 ^ MIX[3])
}

/// Odd constants without structure: the first digits of pi in hexadecimal.
const MIX: [u64; 4] =
    [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7345, 0xa409_3822_299f_31d1, 0x082e_fa98_ec4e_6c89];

fn fold(a: u64, b: u64) -> u64 {
    let (high, low) = halves(u128::from(a) * u128::from(b));
    high ^ low
}

fn halves(word: u128) -> (u64, u64) {
    Uuid::from_u128(word).as_u64_pair()
}

fn is_frame_length(frame_bytes: u32) -> bool {
    let bytes = u64::from(frame_bytes);
    (SECTOR_BYTES..=SLOT_BYTES).contains(&bytes) && bytes.is_multiple_of(SECTOR_BYTES)
}

fn pages_of(frame_bytes: u32) -> usize {
    (frame_bytes as usize).div_ceil(PAGE_LEN)
}

fn entry_crc(raw: &CacheEntryFields, cache: Uuid, slot: u32) -> u32 {
    let crc = crc32c::crc32c(cache.as_bytes());
    let crc = crc32c::crc32c_append(crc, &slot.to_le_bytes());
    crc32c::crc32c_append(crc, &raw.as_bytes()[..ENTRY_CRC_AT])
}

/// At byte 0 of the file.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct CacheSuperblockFields {
    /// `MAGIC`: catches a file of another kind.
    magic: [u8; 8],
    /// `VERSION`.
    version: U16,
    /// Bytes in an index entry, 128.
    entry_bytes: U16,
    /// CRC-32C of these 64 bytes, this field as zero.
    crc: U32,
    /// Identity of the cache; part of every entry's checksum.
    cache: [u8; 16],
    /// Bytes in a slot, 65,536.
    slot_bytes: U64,
    /// Number of slots, the most that fit the file: catches a file that was resized.
    slots: U64,
    /// Byte offset of the first slot.
    slots_offset: U64,
    /// Zeros.
    reserved: [u8; 8],
}

/// One per slot, 32 to a page.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct CacheEntryFields {
    /// Identity of the image.
    image: [u8; 16],
    /// Sequence of the object.
    object: U64,
    /// CRC of the object's header.
    fingerprint: U32,
    /// Index of the frame in the object.
    frame: U32,
    /// `frame_digest`: catches a claim about what the slot held before.
    digest: U64,
    /// Bytes of the frame, 512 to 65,536 in steps of 512.
    frame_bytes: U32,
    /// CRC-32C of each page; 0 behind the frame. Catches damage within the pages that a read
    /// touches.
    page_crcs: [U32; SLOT_PAGES],
    /// Zeros.
    reserved: [u8; 16],
    /// CRC-32C of the cache's identity, the slot's number (32 bits) and the bytes before this
    /// field.
    crc: U32,
}

layout!(
    CACHE_SUPERBLOCK_LAYOUT,
    CacheSuperblockFields,
    64,
    [magic, version, entry_bytes, crc, cache, slot_bytes, slots, slots_offset, reserved]
);
layout!(
    CACHE_ENTRY_LAYOUT,
    CacheEntryFields,
    128,
    [image, object, fingerprint, frame, digest, frame_bytes, page_crcs, reserved, crc]
);

const SUPERBLOCK_CRC_AT: usize = std::mem::offset_of!(CacheSuperblockFields, crc);
const ENTRY_CRC_AT: usize = std::mem::offset_of!(CacheEntryFields, crc);

const _: () = {
    assert!(size_of::<CacheEntryFields>() == ENTRY_BYTES && ENTRY_CRC_AT == 124);
    assert!(ENTRIES_PER_PAGE as usize * ENTRY_BYTES == PAGE_LEN, "no entry crosses a page");
    assert!(SUPERBLOCK_CRC_AT == 12 && std::mem::offset_of!(CacheEntryFields, frame_bytes) == 40);
};

#[cfg(test)]
mod test {
    use super::*;
    use proptest::prelude::*;

    fn key(frame: u32) -> FrameKey {
        let image = ImageId(Uuid::from_u128(0x0102_0304));
        FrameKey { image, object: ObjectSeq(7), fingerprint: 0xdead_beef, frame }
    }

    fn claim(frame_bytes: u32) -> (FrameClaim, Vec<u8>) {
        let mut pages: Vec<u8> = (0..frame_bytes).map(|i| (i / 7 % 251) as u8).collect();
        pages.resize(pages.len().next_multiple_of(PAGE_LEN), 0);
        (FrameClaim::about(key(3), frame_bytes, &pages), pages)
    }

    const CACHE: Uuid = Uuid::from_u128(0xcafe);

    #[test]
    fn an_entry_comes_back_and_its_fields_are_where_the_table_says() {
        let (claim, pages) = claim(5120);
        let bytes = encode_entry(Some(&claim), CACHE, 9);
        assert_eq!(decode_entry(&bytes, CACHE, 9), Ok(Some(claim)));
        assert_eq!(bytes[12..16], [1, 2, 3, 4], "image");
        assert_eq!(bytes[16..24], [7, 0, 0, 0, 0, 0, 0, 0], "object");
        assert_eq!(bytes[24..28], [0xef, 0xbe, 0xad, 0xde], "fingerprint");
        assert_eq!(bytes[28..32], [3, 0, 0, 0], "frame");
        assert_eq!(bytes[40..44], [0, 0x14, 0, 0], "length");
        assert_eq!(bytes[48..52], crc32c::crc32c(&pages[4096..]).to_le_bytes(), "second page");
        assert_eq!(bytes[52..124], [0; 72], "no third page, reserved");
    }

    #[test]
    fn an_empty_slot_has_no_claim() {
        let bytes = encode_entry(None, CACHE, 9);
        assert_eq!(decode_entry(&bytes, CACHE, 9), Ok(None));
    }

    #[test]
    fn an_entry_counts_only_for_its_own_slot_and_cache() {
        let bytes = encode_entry(Some(&claim(4096).0), CACHE, 9);
        assert!(decode_entry(&bytes, CACHE, 8).is_err());
        assert!(decode_entry(&bytes, Uuid::from_u128(0xcaff), 9).is_err());
        assert!(decode_entry(&bytes[..127], CACHE, 9).is_err());
    }

    #[test]
    fn an_impossible_length_is_refused_although_the_checksum_is_right() {
        for frame_bytes in [0, 100, 65_536 + 512, u32::MAX] {
            let mut claim = claim(4096).0;
            claim.frame_bytes = frame_bytes;
            let entry = decode_entry(&encode_entry(Some(&claim), CACHE, 0), CACHE, 0);
            assert_eq!(entry, Err(DecodeError::range("cache entry frame_bytes", 40)));
        }
    }

    #[test]
    fn the_digest_sees_what_the_checksums_of_pages_cannot() {
        let (mut claim, mut pages) = claim(8192);
        assert!(claim.proved_by(&pages));
        // As if the changed page had the same CRC by accident.
        pages[5000] ^= 0x10;
        claim.page_crcs[1] = crc32c::crc32c(&pages[4096..]);
        assert!(claim.matches(0, &pages));
        assert!(!claim.proved_by(&pages));
    }

    #[test]
    fn part_of_a_frame_is_checked_against_its_own_pages() {
        let (claim, pages) = claim(3 * 4096);
        assert!(claim.matches(1, &pages[4096..]));
        assert!(!claim.matches(0, &pages[4096..]));
        assert!(!claim.matches(2, &pages[4096..]), "beyond the frame");
        assert!(!claim.matches(usize::MAX, &pages[4096..]));
        assert!(!claim.proved_by(&pages[4096..]));
    }

    #[test]
    fn a_superblock_is_for_one_size_of_file() {
        let geometry = Geometry::of_file(64 << 20).expect("large enough");
        let bytes = CacheSuperblock { cache: CACHE, geometry }.encode();
        let back = CacheSuperblock::decode(&bytes, 64 << 20).expect("unchanged");
        assert_eq!((back.cache, back.geometry), (CACHE, geometry));
        let grown = CacheSuperblock::decode(&bytes, 65 << 20).expect_err("another size");
        assert_eq!(grown.kind, DecodeKind::OutOfRange);
        assert_eq!(bytes[..10], *b"LSVDRCCH\x01\0");
    }

    #[test]
    fn every_damaged_byte_of_a_superblock_is_noticed() {
        let geometry = Geometry::of_file(1 << 30).expect("large enough");
        let bytes = CacheSuperblock { cache: CACHE, geometry }.encode();
        for at in 0..bytes.len() {
            let mut damaged = bytes;
            damaged[at] ^= 0x40;
            assert!(CacheSuperblock::decode(&damaged, 1 << 30).is_err(), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn a_geometry_fits_its_file_and_wastes_less_than_two_slots(file_bytes in 0_u64..(1 << 33)) {
            match Geometry::of_file(file_bytes) {
                None => prop_assert!(file_bytes < 2 * SLOT_BYTES),
                Some(geometry) => {
                    prop_assert!(geometry.file_bytes() <= file_bytes);
                    let next = Geometry { slots: geometry.slots + 2 };
                    prop_assert!(next.file_bytes() > file_bytes);
                    let last = geometry.index_page_offset(geometry.index_pages() - 1);
                    prop_assert!(last + PAGE_BYTES <= geometry.slots_offset());
                }
            }
        }

        #[test]
        fn a_changed_entry_is_never_believed(at in 0_usize..ENTRY_BYTES, flip in 1_u8..) {
            let mut bytes = encode_entry(Some(&claim(9 * 512).0), CACHE, 1);
            bytes[at] ^= flip;
            prop_assert!(decode_entry(&bytes, CACHE, 1).is_err());
        }

        #[test]
        fn a_changed_page_is_never_believed(at in 0_usize..3 * 4096, flip in 1_u8..) {
            let (claim, mut pages) = claim(2 * 4096 + 512);
            pages[at] ^= flip;
            prop_assert!(!claim.matches(0, &pages));
        }

        #[test]
        fn wild_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_entry(&bytes, CACHE, 0);
            let _ = CacheSuperblock::decode(&bytes, 1 << 30);
        }
    }
}
