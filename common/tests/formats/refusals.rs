//! Every error that a decoder gives for bytes whose checksum is right: which field, where, and
//! what is wrong with it. Each case is a golden file with one field replaced.

use lsvd_common::cache_file::CacheSuperblock;
use lsvd_common::codec::DecodeKind::{
    self, BadMagic, Misplaced, OutOfRange, Overlap, UnknownFeature, UnsupportedVersion,
};
use lsvd_common::codec::{DecodeError, DecodeKind::Truncated};
use lsvd_common::ids::{ImageId, ObjectSeq, Uuid};
use lsvd_common::limits::{
    COUNTER_MAX, IMAGE_SECTORS_MAX, OBJECT_BYTES_MAX, OBJECT_SEQ_MAX, RING_PAGES_MAX,
    SUPERBLOCK_BYTES_MAX,
};
use lsvd_common::log::header::LogSuperblock;
use lsvd_common::log::record::RecordHeader;
use lsvd_common::object::checkpoint::Checkpoint;
use lsvd_common::object::data::{DataHeader, check_frame};
use lsvd_common::object::map_part::{MapPartHeader, check_section, decode_region, decode_table};
use lsvd_common::object::prefix::{check_place, identify, peek};
use lsvd_common::object::superblock::Superblock;

use crate::fix_crc;

/// What is put where, and the error that it gives: `what`, `at`, kind.
type Case = (usize, Vec<u8>, &'static str, usize, DecodeKind);

fn case(at: usize, put: impl Into<Vec<u8>>, what: &'static str, kind: DecodeKind) -> Case {
    (at, put.into(), what, at, kind)
}

fn u16_(value: u16) -> [u8; 2] {
    value.to_le_bytes()
}

fn u32_(value: u32) -> [u8; 4] {
    value.to_le_bytes()
}

fn u64_(value: u64) -> [u8; 8] {
    value.to_le_bytes()
}

/// Applies every case to `bytes`, whose header of `header_len` bytes gets a right checksum.
fn refused<T: std::fmt::Debug>(
    bytes: &[u8],
    header_len: usize,
    cases: &[Case],
    decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
) {
    assert!(decode(bytes).is_ok(), "the bytes are right as they are");
    for (put_at, put, what, at, kind) in cases {
        let mut bytes = bytes.to_vec();
        bytes[*put_at..put_at + put.len()].copy_from_slice(put);
        fix_crc(&mut bytes, header_len);
        let error = decode(&bytes).expect_err(what);
        assert_eq!(error, DecodeError::new(what, *at, *kind), "{put:x?} at {put_at}");
    }
}

/// Every prefix of the covered bytes is refused as too short.
fn too_short<T: std::fmt::Debug>(
    bytes: &[u8],
    covered: usize,
    decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
) {
    for len in (0..covered).step_by(7).chain([covered - 1]) {
        let error = decode(&bytes[..len]).expect_err("too short");
        let Truncated { needed, found } = error.kind else { panic!("{len} bytes: {error}") };
        assert!(error.at + found <= len && found < needed && needed <= covered, "{error}");
    }
}

/// The cases of the prefix, the same for every kind of object.
fn prefix_cases() -> Vec<Case> {
    vec![
        case(0, *b"LSVDobj\x02", "object magic", BadMagic),
        case(8, u16_(0), "object version", UnsupportedVersion { found: 0, known: 1 }),
        case(8, u16_(2), "object version", UnsupportedVersion { found: 2, known: 1 }),
        case(10, [0], "object kind", OutOfRange),
        case(10, [5], "object kind", OutOfRange),
        case(32, u64_(COUNTER_MAX + 1), "object epoch", OutOfRange),
        case(40, u64_(0), "object sequence", OutOfRange),
        case(40, u64_(OBJECT_SEQ_MAX + 1), "object sequence", OutOfRange),
        case(48, u32_(0), "object header length", OutOfRange),
        case(48, u32_(4097), "object header length", OutOfRange),
        case(48, u32_((8 << 20) + 4096), "object header length", OutOfRange),
        case(52, u32_((32 << 20) - 4095), "object body length", OutOfRange),
        case(52, u32_(u32::MAX), "object body length", OutOfRange),
    ]
}

#[test]
fn prefixes() {
    let bytes = lsvd_fixtures::data_object();
    refused(&bytes, 4096, &prefix_cases(), identify);
    too_short(&bytes, 4096, identify);
    let wrong_kind = |kind: u8| vec![case(10, [kind], "object kind", OutOfRange)];
    refused(&bytes, 4096, &wrong_kind(3), DataHeader::decode);
    refused(&lsvd_fixtures::map_part(), 4096, &wrong_kind(4), MapPartHeader::decode);
    refused(&lsvd_fixtures::checkpoint(), 4096, &wrong_kind(1), Checkpoint::decode);
    // Lengths are within the limits before anything is verified.
    assert!(peek(&bytes[..64]).is_ok());
    assert!(matches!(peek(&bytes[..63]).unwrap_err().kind, Truncated { needed: 64, found: 63 }));
}

#[test]
fn a_damaged_header_names_both_checksums() {
    let mut bytes = lsvd_fixtures::data_object();
    let expected = u32::from_le_bytes(bytes[12..16].try_into().unwrap());
    bytes[200] ^= 1;
    let error = DataHeader::decode(&bytes).unwrap_err();
    fix_crc(&mut bytes, 4096);
    let found = u32::from_le_bytes(bytes[12..16].try_into().unwrap());
    let kind = DecodeKind::BadChecksum { expected, found };
    assert_eq!(error, DecodeError::new("object header", 12, kind));
}

#[test]
fn objects_in_the_wrong_place() {
    let id = identify(&lsvd_fixtures::data_object()).unwrap();
    assert_eq!(check_place(&id, id.image, id.seq), Ok(()));
    let other = check_place(&id, ImageId(Uuid::from_u128(1)), id.seq);
    assert_eq!(other, Err(DecodeError::new("object image", 16, Misplaced)));
    let other = check_place(&id, id.image, ObjectSeq(8));
    assert_eq!(other, Err(DecodeError::new("object sequence", 40, Misplaced)));
}

#[test]
fn data_objects() {
    let bytes = lsvd_fixtures::data_object();
    let (extents, discards, frames) = (128, 160, 192);
    let beyond = u64_(IMAGE_SECTORS_MAX);
    let mut cases = vec![
        case(64, u64_(45), "write sequences", OutOfRange),
        (72, u64_(COUNTER_MAX + 1).into(), "write sequences", 64, OutOfRange),
        (80, u32_(66_047).into(), "frame codec or length", frames + 16, OutOfRange),
        (80, u32_(u32::MAX).into(), "frame count", 96, OutOfRange),
        (84, u32_(1).into(), "discards", 160, Overlap),
        (84, u32_(u32::MAX).into(), "extents", 128, {
            Truncated { needed: 16 * u32::MAX as usize, found: 3968 }
        }),
        (88, u32_(1 << 20).into(), "discards", 160, Truncated { needed: 16 << 20, found: 3936 }),
        case(92, u32_(1), "source count", OutOfRange),
        case(96, u32_(1), "frame count", OutOfRange),
        case(96, u32_(3), "frame count", OutOfRange),
        case(100, u32_(32 << 10), "frame size", OutOfRange),
        case(extents, beyond, "extents", OutOfRange),
        case(extents, u64_(u64::MAX), "extents", OutOfRange),
        (extents + 8, u32_(0).into(), "extents", extents, OutOfRange),
        (extents + 8, u32_(985).into(), "extents", extents + 16, Overlap),
        (extents + 16, u64_(100).into(), "extents", extents + 16, Overlap),
        // Apart from each other, but together longer than the payload says.
        (extents + 24, u32_(2).into(), "payload length", 80, OutOfRange),
        (extents + 24, u32_(1 << 20).into(), "payload length", 80, OutOfRange),
        case(discards, u64_(143), "discards", Overlap),
        case(discards, u64_(145), "discards", Overlap),
        (discards + 8, u64_(0).into(), "discards", discards, OutOfRange),
        (discards + 8, u64_(857).into(), "discards", discards, Overlap),
        (discards + 8, u64_(u64::MAX).into(), "discards", discards, OutOfRange),
        (discards + 16, u64_(999).into(), "discards", discards + 16, Overlap),
        (discards + 24, u64_(2).into(), "discards", discards + 16, OutOfRange),
        case(frames, u32_(1), "frame offset", Overlap),
        (frames + 4, u32_(65_535).into(), "frame codec or length", frames, OutOfRange),
        (frames + 12, vec![1], "frame codec or length", frames, OutOfRange),
        (frames + 16, u32_(65_535).into(), "frame offset", frames + 16, Overlap),
        (frames + 20, u32_(513).into(), "frame codec or length", frames + 16, OutOfRange),
        case(52, u32_(66_047), "body length", OutOfRange),
    ];
    cases.extend(prefix_cases());
    refused(&bytes, 4096, &cases, DataHeader::decode);
    too_short(&bytes, 4096, DataHeader::decode);
    // A header that is longer than its tables.
    let mut longer = bytes[..8192].to_vec();
    longer[48..52].copy_from_slice(&u32_(8192));
    fix_crc(&mut longer, 8192);
    let error = DataHeader::decode(&longer).unwrap_err();
    assert_eq!(error, DecodeError::range("header length", 48));
}

#[test]
fn moved_objects() {
    let sources = 160;
    let cases = [
        (10, vec![1], "source count", 92, OutOfRange),
        case(92, u32_(0), "source count", OutOfRange),
        case(sources, u64_(0), "sources", OutOfRange),
        case(sources, u64_(9), "sources", OutOfRange),
        (sources + 8, u32_((24 << 11) - 7).into(), "sources", sources, OutOfRange),
        (sources + 24, u32_(u32::MAX).into(), "sources", sources + 16, OutOfRange),
    ];
    refused(&lsvd_fixtures::moved_object(), 4096, &cases, DataHeader::decode);
}

#[test]
fn frames() {
    let bytes = lsvd_fixtures::data_object();
    let (header, _) = DataHeader::decode(&bytes).unwrap();
    let (frame, stored) = (header.frames[1], &bytes[4096 + 65536..]);
    assert_eq!(check_frame(&frame, &stored[..512]), Ok(()));
    let error = check_frame(&frame, &stored[..511]).unwrap_err();
    assert_eq!(error, DecodeError::new("frame", 65536, Truncated { needed: 512, found: 511 }));
    let error = check_frame(&frame, &[0; 512]).unwrap_err();
    assert!(
        matches!(error.kind, DecodeKind::BadChecksum { expected, .. } if expected == frame.crc)
    );
    assert_eq!((error.what, error.at), ("frame", 65536));
}

#[test]
fn map_parts() {
    let bytes = lsvd_fixtures::map_part();
    let mut cases = vec![
        (64, u32_(3).into(), "section kind", 176, OutOfRange),
        (64, u32_(1).into(), "body length", 52, OutOfRange),
        (64, u32_(166).into(), "sections", 128, Truncated { needed: 3984, found: 3968 }),
        case(128, [0], "section kind", OutOfRange),
        (128, vec![2], "section key", 152, Overlap),
        (152, vec![1], "section key", 152, Overlap),
        (136, u32_(1).into(), "section offset", 128, Overlap),
        (140, u32_(u32::MAX).into(), "section length", 128, OutOfRange),
        (140, u32_(61).into(), "section offset", 152, Overlap),
        (164, u32_(65).into(), "section length", 152, OutOfRange),
        (164, u32_(63).into(), "body length", 52, OutOfRange),
        case(52, u32_(125), "body length", OutOfRange),
    ];
    cases.extend(prefix_cases());
    refused(&bytes, 4096, &cases, MapPartHeader::decode);
    too_short(&bytes, 4096, MapPartHeader::decode);
    let mut longer = bytes.clone();
    longer[48..52].copy_from_slice(&u32_(8192));
    fix_crc(&mut longer, 8192);
    let error = MapPartHeader::decode(&longer).unwrap_err();
    assert_eq!(error, DecodeError::range("header length", 48));
    let error = check_section(1, b"section").unwrap_err();
    assert!(matches!(error.kind, DecodeKind::BadChecksum { expected: 1, .. }));
    assert_eq!((error.what, error.at), ("map section", 0));
}

/// As `refused`, for sections, which hold no checksum of their own.
fn section_refused<T: std::fmt::Debug>(
    bytes: &[u8],
    cases: &[Case],
    decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
) {
    assert!(decode(bytes).is_ok(), "the bytes are right as they are");
    for (put_at, put, what, at, kind) in cases {
        let mut bytes = bytes.to_vec();
        bytes[*put_at..put_at + put.len()].copy_from_slice(put);
        let error = decode(&bytes).expect_err(what);
        assert_eq!(error, DecodeError::new(what, *at, *kind), "{put:x?} at {put_at}");
    }
}

#[test]
fn regions() {
    let part = lsvd_fixtures::map_part();
    let bytes = &part[4096..4156];
    let last_sector = u32_((1 << 17) - 1);
    let cases = [
        (0, u32_(u32::MAX).into(), "region objects", 8, {
            Truncated { needed: 8 * u32::MAX as usize, found: 52 }
        }),
        (4, u32_(4).into(), "region entries", 24, Truncated { needed: 48, found: 36 }),
        (4, u32_(2).into(), "region length", 48, OutOfRange),
        case(8, u64_(0), "region objects", OutOfRange),
        (8, u64_(7).into(), "region objects", 16, Overlap),
        case(16, u64_(OBJECT_SEQ_MAX + 1), "region objects", OutOfRange),
        (24, u32_(873).into(), "region entry", 36, Overlap),
        (28, u32_(2).into(), "region entry", 24, OutOfRange),
        (34, u16_(u16::MAX).into(), "region entry", 24, OutOfRange),
        (44, u16_(1 << 15).into(), "region entry", 48, Overlap),
        (48, u32_(1 << 17).into(), "region entry", 48, OutOfRange),
        (48, u32_(u32::MAX).into(), "region entry", 48, OutOfRange),
    ];
    section_refused(bytes, &cases, |bytes| decode_region(0, 17, bytes));
    section_refused(bytes, &[], |bytes| decode_region((1 << 20) - 1, 17, bytes));
    let error = decode_region(1 << 20, 17, bytes).unwrap_err();
    assert_eq!(error, DecodeError::range("region entry", 24));
    assert!(decode_region(u32::MAX, 20, bytes).is_err());
    too_short(bytes, bytes.len(), |bytes| decode_region(0, 17, bytes));
    let mut last = bytes.to_vec();
    last[48..52].copy_from_slice(&last_sector);
    assert!(decode_region(0, 17, &last).is_ok());
    last[56..58].copy_from_slice(&u16_(1));
    assert_eq!(decode_region(0, 17, &last), Err(DecodeError::range("region entry", 48)));
}

#[test]
fn object_tables() {
    let part = lsvd_fixtures::map_part();
    let bytes = &part[4156..4220];
    let cases = [
        case(0, u64_(0), "object row sequence", OutOfRange),
        (0, u64_(7).into(), "object rows", 32, Overlap),
        case(32, u64_(OBJECT_SEQ_MAX + 1), "object row sequence", OutOfRange),
        case(8, u32_(8191), "object row length", OutOfRange),
        case(8, u32_(OBJECT_BYTES_MAX as u32 + 1), "object row length", OutOfRange),
        case(12, u32_(0), "object row header length", OutOfRange),
        case(12, u32_(4095), "object row header length", OutOfRange),
        case(12, u32_((8 << 20) + 4096), "object row header length", OutOfRange),
        case(20, u32_((24 << 11) + 1), "payload sectors", OutOfRange),
        case(24, u32_(157), "live sectors", OutOfRange),
        case(28, [3], "object row kind", OutOfRange),
        case(60, [0], "object row kind", OutOfRange),
    ];
    section_refused(bytes, &cases, decode_table);
    assert_eq!(decode_table(&bytes[..63]), Err(DecodeError::range("object rows", 32)));
    assert_eq!(decode_table(&[]), Ok(Vec::new()));
}

#[test]
fn checkpoints() {
    let bytes = lsvd_fixtures::checkpoint();
    let (sections, pending) = (128, 192);
    let mut cases = vec![
        case(64, u64_(11), "covered sequence", OutOfRange),
        case(72, u64_(COUNTER_MAX + 1), "last write", OutOfRange),
        case(80, u64_(IMAGE_SECTORS_MAX + 1), "live sectors", OutOfRange),
        (88, u32_(125).into(), "sections", 128, Truncated { needed: 4000, found: 3968 }),
        (92, u32_(500).into(), "pending deletes", 192, Truncated { needed: 4000, found: 3904 }),
        case(96, [9], "region size", OutOfRange),
        case(96, [21], "region size", OutOfRange),
        case(sections, [3], "section kind", OutOfRange),
        (sections, vec![2], "sections", sections + 32, Overlap),
        case(sections + 8, u64_(0), "section object", OutOfRange),
        case(sections + 8, u64_(11), "section object", OutOfRange),
        case(sections + 16, u32_(4095), "section place", OutOfRange),
        case(sections + 16, u32_(u32::MAX), "section place", OutOfRange),
        (sections + 20, u32_((32 << 20) - 4095).into(), "section place", 144, OutOfRange),
        case(pending, u64_(0), "pending deletes", OutOfRange),
        case(pending + 8, u64_(11), "pending deletes", OutOfRange),
        case(52, u32_(1), "body length", OutOfRange),
    ];
    cases.extend(prefix_cases());
    refused(&bytes, 4096, &cases, Checkpoint::decode);
    too_short(&bytes, 4096, Checkpoint::decode);
    let mut longer = bytes.clone();
    longer.resize(8192, 0);
    longer[48..52].copy_from_slice(&u32_(8192));
    fix_crc(&mut longer, 8192);
    let error = Checkpoint::decode(&longer).unwrap_err();
    assert_eq!(error, DecodeError::range("header length", 48));
}

#[test]
fn superblocks() {
    let bytes = lsvd_fixtures::superblock();
    let len = bytes.len();
    let (owner, checkpoints, snapshot, lineage, child) = (192, 240, 272, 310, 348);
    let cases = [
        case(0, *b"LSVDobj\x01", "superblock magic", BadMagic),
        case(8, u16_(0), "superblock version", UnsupportedVersion { found: 0, known: 1 }),
        case(8, u16_(2), "superblock version", UnsupportedVersion { found: 2, known: 1 }),
        (32, u32_(380).into(), "superblock", 0, Truncated { needed: 380, found: 379 }),
        case(32, u32_(378), "superblock length", OutOfRange),
        case(32, u32_(SUPERBLOCK_BYTES_MAX as u32 + 1), "superblock length", OutOfRange),
        case(36, u32_(1024), "sector size", OutOfRange),
        case(40, u64_(2047), "image size", OutOfRange),
        case(40, u64_(IMAGE_SECTORS_MAX + 8), "image size", OutOfRange),
        case(40, u64_(2_097_153), "image size", OutOfRange),
        (40, u64_(IMAGE_SECTORS_MAX).into(), "region size", 112, OutOfRange),
        (64, u64_(6).into(), "superblock", 64, UnknownFeature { bits: 6 }),
        case(72, u64_(COUNTER_MAX + 1), "epoch", OutOfRange),
        (72, u64_(1).into(), "fence epoch", 80, OutOfRange),
        case(88, u64_(OBJECT_SEQ_MAX + 1), "fence sequence", OutOfRange),
        case(96, u64_(0), "floor sequence", OutOfRange),
        case(96, u64_(OBJECT_SEQ_MAX + 1), "floor sequence", OutOfRange),
        case(112, [9], "region size", OutOfRange),
        case(112, [21], "region size", OutOfRange),
        case(113, [2], "owner present", OutOfRange),
        case(116, u32_(3), "checkpoint count", OutOfRange),
        (128, u32_(0).into(), "superblock length", 32, OutOfRange),
        (128, u32_(2).into(), "child", len, Truncated { needed: 24, found: 0 }),
        (owner + 28, u16_(200).into(), "owner host", 224, Truncated { needed: 200, found: 155 }),
        (owner + 30, u16_(200).into(), "owner place", 227, Truncated { needed: 200, found: 152 }),
        case(owner + 32, [0xff], "owner host", OutOfRange),
        (checkpoints + 8, u64_(11).into(), "checkpoint", 116, OutOfRange),
        (checkpoints, u64_(OBJECT_SEQ_MAX + 1).into(), "checkpoint", 116, OutOfRange),
        (snapshot, u64_(OBJECT_SEQ_MAX + 1).into(), "snapshot", 120, OutOfRange),
        (snapshot + 8, u64_(COUNTER_MAX + 1).into(), "snapshot", 120, OutOfRange),
        (snapshot + 32, b"/".into(), "snapshot", 120, OutOfRange),
        (snapshot + 24, u16_(99).into(), "snapshot name", 304, {
            Truncated { needed: 99, found: 75 }
        }),
        (lineage + 16, u64_(OBJECT_SEQ_MAX + 1).into(), "base", 124, OutOfRange),
        (lineage + 32, b"../../".into(), "base", 124, OutOfRange),
        (child + 24, b".".into(), "child", 128, OutOfRange),
    ];
    refused(&bytes, len, &cases, Superblock::decode);
    too_short(&bytes, len, Superblock::decode);
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(Superblock::decode(&longer), Err(DecodeError::range("superblock length", 32)));
    // Another byte that no section accounts for.
    longer[32..36].copy_from_slice(&u32_(380));
    fix_crc(&mut longer, 380);
    assert_eq!(Superblock::decode(&longer), Err(DecodeError::range("superblock length", 32)));
}

#[test]
fn log_superblocks() {
    let bytes = lsvd_fixtures::log_superblock();
    let cases = [
        case(0, *b"LSVDlog\x00", "log magic", BadMagic),
        case(8, u16_(0), "log version", UnsupportedVersion { found: 0, known: 1 }),
        case(8, u16_(9), "log version", UnsupportedVersion { found: 9, known: 1 }),
        case(10, [2], "clean", OutOfRange),
        case(48, u64_(COUNTER_MAX + 1), "generation", OutOfRange),
        case(56, u64_(COUNTER_MAX + 1), "log epoch", OutOfRange),
        case(64, u64_(0), "ring size", OutOfRange),
        case(64, u64_(RING_PAGES_MAX + 1), "ring size", OutOfRange),
        case(72, u64_(u64::MAX), "tail page", OutOfRange),
        case(80, u64_(0), "tail record", OutOfRange),
        case(80, u64_(u64::MAX), "tail record", OutOfRange),
        case(88, u64_(OBJECT_SEQ_MAX + 1), "retired object", OutOfRange),
        case(96, u64_(COUNTER_MAX + 1), "retired write", OutOfRange),
    ];
    refused(&bytes, 4096, &cases, LogSuperblock::decode);
    too_short(&bytes, 4096, LogSuperblock::decode);
}

#[test]
fn the_newer_whole_copy_of_a_log_superblock_counts() {
    let bytes = lsvd_fixtures::log_superblock();
    let older = LogSuperblock::decode(&bytes).unwrap();
    let newer = LogSuperblock { generation: older.generation + 1, ..older };
    let (a, b, torn) = (older.encode(), newer.encode(), [0; 4096]);
    assert_eq!(LogSuperblock::newest(&a, &b), Ok(newer));
    assert_eq!(LogSuperblock::newest(&b, &a), Ok(newer));
    assert_eq!(LogSuperblock::newest(&a, &torn), Ok(older));
    assert_eq!(LogSuperblock::newest(&torn, &b), Ok(newer));
    let neither = LogSuperblock::newest(&torn, &torn).unwrap_err();
    assert_eq!(neither, DecodeError::new("log magic", 0, BadMagic));
}

#[test]
fn record_headers() {
    let bytes = lsvd_fixtures::record_writes();
    let entries = 128;
    let cases = [
        case(0, *b"LSVDlog\x01", "record magic", BadMagic),
        case(8, u16_(0), "record version", UnsupportedVersion { found: 0, known: 1 }),
        case(8, u16_(2), "record version", UnsupportedVersion { found: 2, known: 1 }),
        case(10, [3], "record kind", OutOfRange),
        (10, vec![2], "record entry count", 100, OutOfRange),
        case(48, u64_(COUNTER_MAX + 1), "record epoch", OutOfRange),
        case(56, u64_(COUNTER_MAX + 1), "record sequence", OutOfRange),
        case(64, u64_(COUNTER_MAX + 1), "record page", OutOfRange),
        case(72, u64_(44), "first write", OutOfRange),
        case(80, u64_(47), "last write", OutOfRange),
        case(92, u32_(0), "record header length", OutOfRange),
        case(92, u32_(4095), "record header length", OutOfRange),
        case(92, u32_(1 << 20), "record header length", OutOfRange),
        case(96, u32_((4 << 20) + 1), "record data length", OutOfRange),
        case(96, u32_(66_047), "record data length", OutOfRange),
        case(100, u32_(0), "record entry count", OutOfRange),
        (100, u32_(4).into(), "record entry", 224, OutOfRange),
        (100, u32_(u32::MAX).into(), "record entries", 128, {
            Truncated { needed: 32 * u32::MAX as usize, found: 3968 }
        }),
        case(104, u64_(u64::MAX), "synced page", OutOfRange),
        case(entries, u64_(IMAGE_SECTORS_MAX), "record entry", OutOfRange),
        case(entries, u64_(u64::MAX), "record entry", OutOfRange),
        (entries + 8, u64_(0).into(), "record entry", entries, OutOfRange),
        (entries + 8, u64_(129).into(), "record entry", entries, OutOfRange),
        (entries + 28, vec![3], "record entry", entries, OutOfRange),
        case(entries + 16, u64_(0), "entry write sequence", OutOfRange),
        case(entries + 16, u64_(44), "entry write sequence", Overlap),
        (entries + 29, vec![1], "entry write sequence", entries + 16, Overlap),
        (entries + 61, vec![0], "entry write sequence", entries + 48, Overlap),
        (entries + 93, vec![0], "entry write sequence", entries + 80, Overlap),
        (entries + 80, u64_(47).into(), "entry write sequence", entries + 48, Overlap),
    ];
    refused(&bytes, 4096, &cases, RecordHeader::decode);
    too_short(&bytes, 4096, RecordHeader::decode);
    let cases = [
        (10, vec![1], "record entry count", 100, OutOfRange),
        case(96, u32_(512), "record data length", OutOfRange),
    ];
    refused(&lsvd_fixtures::record_skip(), 4096, &cases, RecordHeader::decode);
    let mut longer = bytes.clone();
    longer[92..96].copy_from_slice(&u32_(8192));
    fix_crc(&mut longer, 8192);
    let error = RecordHeader::decode(&longer).unwrap_err();
    assert_eq!(error, DecodeError::range("record header length", 92));
}

#[test]
fn record_data() {
    let bytes = lsvd_fixtures::record_writes();
    let (header, _) = RecordHeader::decode(&bytes).unwrap();
    let mut data = bytes[4096..].to_vec();
    let error = header.check_data(&data[..66_047]).unwrap_err();
    let kind = Truncated { needed: 512, found: 511 };
    assert_eq!(error, DecodeError::new("record data", 65_536, kind));
    data[65_536] ^= 1;
    let error = header.check_data(&data).unwrap_err();
    assert!(matches!(error.kind, DecodeKind::BadChecksum { .. }));
    assert_eq!((error.what, error.at), ("record data", 65_536));
}

#[test]
fn cache_superblocks() {
    let bytes = lsvd_fixtures::cache_file();
    let cases = [
        case(0, *b"LSVDRCCX", "cache superblock magic", BadMagic),
        case(8, u16_(2), "cache superblock version", UnsupportedVersion { found: 2, known: 1 }),
        (10, u16_(64).into(), "cache geometry", 40, OutOfRange),
        (32, u64_(4096).into(), "cache geometry", 40, OutOfRange),
        case(40, u64_(2), "cache geometry", OutOfRange),
        case(40, u64_(u64::MAX), "cache geometry", OutOfRange),
        (48, u64_(131_072).into(), "cache geometry", 40, OutOfRange),
    ];
    let decode = |bytes: &[u8]| CacheSuperblock::decode(bytes, 131_072);
    refused(&bytes, 64, &cases, decode);
    too_short(&bytes, 64, decode);
    let error = CacheSuperblock::decode(&bytes, 131_071).unwrap_err();
    assert_eq!(error, DecodeError::range("cache file", 0));
}
