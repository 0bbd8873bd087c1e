//! Properties: every valid value comes back from its bytes; no bytes at all make a decoder panic,
//! not even valid ones that somebody changed and gave a right checksum; and what a decoder accepts
//! can be written again and is the same.

use lsvd_common::cache_file::{
    CacheSuperblock, FrameClaim, FrameKey, Geometry, decode_entry, encode_entry,
};
use lsvd_common::ids::{ImageId, ObjectSeq};
use lsvd_common::log::header::LogSuperblock;
use lsvd_common::log::record::RecordHeader;
use lsvd_common::object::checkpoint::Checkpoint;
use lsvd_common::object::data::DataHeader;
use lsvd_common::object::map_part::{
    MapPartHeader, check_section, decode_region, decode_table, encode_region, encode_table,
};
use lsvd_common::object::prefix::{identify, peek};
use lsvd_common::object::superblock::Superblock;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::{fix_crc, values};

/// Changes of bytes: where (in the first part of the bytes, or anywhere), and what.
type Changes = Vec<(bool, Index, Vec<u8>)>;

/// Single bytes, and whole fields with the values at which arithmetic goes wrong.
fn changes() -> impl Strategy<Value = Changes> {
    let wild = [0, 1, 2, 127, 4096, 1 << 16, 1 << 31, u64::from(u32::MAX), 1 << 37, 1 << 63];
    let wild = proptest::sample::select(wild.to_vec());
    let wild = prop_oneof![wild, Just(u64::MAX), Just(u64::MAX - 1), any::<u64>()];
    let put = prop_oneof![
        vec(any::<u8>(), 1..3),
        (wild, 0..4_u32).prop_map(|(value, log)| value.to_le_bytes()[..1 << log].to_vec()),
    ];
    vec((any::<bool>(), any::<Index>(), put), 0..5)
}

/// Applies changes, mostly to where the fields are. Fields are aligned to their size.
fn change(bytes: &mut [u8], changes: &Changes) {
    for (near, index, put) in changes {
        let among = if *near { bytes.len().min(320) } else { bytes.len() };
        if among == 0 {
            continue;
        }
        let at = index.index(among) / put.len() * put.len();
        let end = bytes.len().min(at + put.len());
        bytes[at..end].copy_from_slice(&put[..end - at]);
    }
}

/// Changes a header and makes its checksum right for the length that it claims.
fn change_header(bytes: &mut [u8], changes: &Changes, len: impl Fn(&[u8]) -> usize) {
    change(bytes, changes);
    let len = len(bytes).min(bytes.len());
    if len >= 16 {
        fix_crc(bytes, len);
    }
}

fn object_header_len(bytes: &[u8]) -> usize {
    peek(bytes).map_or(0, |peeked| peeked.header_len)
}

fn encoded(header: &DataHeader) -> Vec<u8> {
    let mut bytes = vec![0xee; header.header_len()];
    header.encode_into(&mut bytes);
    bytes
}

fn encoded_record(header: &RecordHeader) -> Vec<u8> {
    let mut bytes = vec![0xee; header.header_len()];
    header.encode_into(&mut bytes);
    bytes
}

/// Cuts bytes off, sometimes.
fn cut(bytes: &[u8], at: Option<Index>) -> &[u8] {
    match at {
        Some(at) if !bytes.is_empty() => &bytes[..at.index(bytes.len())],
        _ => bytes,
    }
}

/// The magic of every format, and one of none.
const MAGICS: &[[u8; 8]] = &[
    *b"LSVDobj\x01",
    *b"LSVDsup\x01",
    *b"LSVDlog\x01",
    *b"LSVDrec\x01",
    *b"LSVDRCCH",
    *b"12345678",
];

proptest! {
    #[test]
    fn data_headers_come_back(header in values::data_header()) {
        let bytes = encoded(&header);
        let fingerprint = u32::from_le_bytes(bytes[12..16].try_into().unwrap());
        prop_assert_eq!(identify(&bytes), Ok(header.id));
        prop_assert_eq!(DataHeader::decode(&bytes), Ok((header, fingerprint)));
    }

    #[test]
    fn changed_data_headers_do_no_harm(
        header in values::data_header(),
        changes in changes(),
        at: Option<Index>,
    ) {
        let mut bytes = encoded(&header);
        change_header(&mut bytes, &changes, object_header_len);
        if let Ok((header, _)) = DataHeader::decode(cut(&bytes, at)) {
            let again = DataHeader::decode(&encoded(&header)).map(|(header, _)| header);
            prop_assert_eq!(again, Ok(header));
        }
    }

    #[test]
    fn map_parts_come_back(id in values::object_id(), sections in values::sections()) {
        let (header, bytes) = MapPartHeader::build(id, &sections);
        let body = MapPartHeader::encoded_len(sections.len());
        prop_assert_eq!(header.sections.len(), sections.len());
        for (place, (key, section)) in header.sections.iter().zip(&sections) {
            let at = body + place.offset as usize;
            let stored = &bytes[at..at + place.len as usize];
            prop_assert_eq!((place.key, stored), (*key, &section[..]));
            prop_assert_eq!(check_section(place.crc, stored), Ok(()));
        }
        prop_assert_eq!(MapPartHeader::decode(&bytes), Ok(header));
    }

    #[test]
    fn changed_map_parts_do_no_harm(
        id in values::object_id(),
        sections in values::sections(),
        changes in changes(),
        at: Option<Index>,
    ) {
        let (_, mut bytes) = MapPartHeader::build(id, &sections);
        change_header(&mut bytes, &changes, object_header_len);
        if let Ok(header) = MapPartHeader::decode(cut(&bytes, at)) {
            let end = header.sections.iter().map(|s| u64::from(s.offset) + u64::from(s.len)).max();
            prop_assert!(end.unwrap_or(0) <= 32 << 20);
        }
    }

    #[test]
    fn regions_come_back((index, shift, extents) in values::region()) {
        let bytes = encode_region(index, shift, &extents);
        prop_assert_eq!(decode_region(index, shift, &bytes), Ok(extents));
    }

    #[test]
    fn changed_regions_do_no_harm(
        (index, shift, extents) in values::region(),
        other in any::<Option<u32>>(),
        changes in changes(),
        at: Option<Index>,
    ) {
        let mut bytes = encode_region(index, shift, &extents);
        change(&mut bytes, &changes);
        let index = other.unwrap_or(index);
        if let Ok(extents) = decode_region(index, shift, cut(&bytes, at)) {
            let again = encode_region(index, shift, &extents);
            prop_assert_eq!(decode_region(index, shift, &again), Ok(extents));
        }
    }

    #[test]
    fn object_tables_come_back(rows in values::table()) {
        prop_assert_eq!(decode_table(&encode_table(&rows)), Ok(rows));
    }

    #[test]
    fn changed_object_tables_do_no_harm(
        rows in values::table(),
        changes in changes(),
        at: Option<Index>,
    ) {
        let mut bytes = encode_table(&rows);
        change(&mut bytes, &changes);
        if let Ok(rows) = decode_table(cut(&bytes, at)) {
            prop_assert_eq!(decode_table(&encode_table(&rows)), Ok(rows));
        }
    }

    #[test]
    fn checkpoints_come_back(checkpoint in values::checkpoint()) {
        let bytes = checkpoint.encode().expect("a small index");
        prop_assert_eq!(Checkpoint::decode(&bytes), Ok(checkpoint));
    }

    #[test]
    fn changed_checkpoints_do_no_harm(
        checkpoint in values::checkpoint(),
        changes in changes(),
        at: Option<Index>,
    ) {
        let mut bytes = checkpoint.encode().expect("a small index");
        change_header(&mut bytes, &changes, object_header_len);
        if let Ok(checkpoint) = Checkpoint::decode(cut(&bytes, at)) {
            let again = checkpoint.encode().expect("a small index");
            prop_assert_eq!(Checkpoint::decode(&again), Ok(checkpoint));
        }
    }

    #[test]
    fn superblocks_come_back(superblock in values::superblock()) {
        let bytes = superblock.encode().expect("a small superblock");
        prop_assert_eq!(Superblock::decode(&bytes), Ok(superblock));
    }

    #[test]
    fn changed_superblocks_do_no_harm(
        superblock in values::superblock(),
        changes in changes(),
        at: Option<Index>,
    ) {
        let mut bytes = superblock.encode().expect("a small superblock");
        change_header(&mut bytes, &changes, <[u8]>::len);
        if let Ok(superblock) = Superblock::decode(cut(&bytes, at)) {
            let again = superblock.encode().expect("what is accepted can be written");
            prop_assert_eq!(Superblock::decode(&again), Ok(superblock));
        }
    }

    #[test]
    fn log_superblocks_come_back(superblock in values::log_superblock()) {
        prop_assert_eq!(LogSuperblock::decode(&superblock.encode()), Ok(superblock));
    }

    #[test]
    fn changed_log_superblocks_do_no_harm(
        superblock in values::log_superblock(),
        changes in changes(),
        at: Option<Index>,
    ) {
        let mut bytes = superblock.encode();
        change_header(&mut bytes, &changes, <[u8]>::len);
        if let Ok(superblock) = LogSuperblock::decode(cut(&bytes, at)) {
            prop_assert_eq!(LogSuperblock::decode(&superblock.encode()), Ok(superblock));
        }
    }

    #[test]
    fn records_come_back(header in values::record()) {
        let bytes = encoded_record(&header);
        let crc = u32::from_le_bytes(bytes[12..16].try_into().unwrap());
        prop_assert_eq!(RecordHeader::decode(&bytes), Ok((header, crc)));
    }

    #[test]
    fn changed_records_do_no_harm(
        header in values::record(),
        changes in changes(),
        at: Option<Index>,
        data in vec(any::<u8>(), 0..5000),
    ) {
        let mut bytes = encoded_record(&header);
        change_header(&mut bytes, &changes, |bytes| {
            RecordHeader::peek(bytes).map_or(0, |peeked| peeked.header_len)
        });
        if let Ok((header, _)) = RecordHeader::decode(cut(&bytes, at)) {
            let _ = header.check_data(&data);
            let again = RecordHeader::decode(&encoded_record(&header)).map(|(header, _)| header);
            prop_assert_eq!(again, Ok(header));
        }
    }

    #[test]
    fn cache_superblocks_come_back(cache in values::uuid(), file_bytes in 1_u64 << 17..1 << 41) {
        let geometry = Geometry::of_file(file_bytes).expect("room for a slot");
        let superblock = CacheSuperblock { cache, geometry };
        let back = CacheSuperblock::decode(&superblock.encode(), file_bytes);
        prop_assert_eq!(back, Ok(superblock));
    }

    #[test]
    fn changed_cache_superblocks_do_no_harm(
        file_bytes: u64,
        changes in changes(),
        at: Option<Index>,
    ) {
        let mut bytes = lsvd_fixtures::cache_file()[..64].to_vec();
        change_header(&mut bytes, &changes, <[u8]>::len);
        if let Ok(superblock) = CacheSuperblock::decode(cut(&bytes, at), file_bytes) {
            prop_assert!(superblock.geometry.file_bytes() <= file_bytes);
        }
    }

    #[test]
    fn cache_entries_come_back(
        image in values::uuid(),
        cache in values::uuid(),
        (object, fingerprint, frame, slot) in any::<(u64, u32, u32, u32)>(),
        sectors in 1..=128_u32,
        byte: u8,
    ) {
        let key = FrameKey { image: ImageId(image), object: ObjectSeq(object), fingerprint, frame };
        let mut pages = vec![byte; sectors as usize * 512];
        pages.resize(pages.len().next_multiple_of(4096), 0);
        let claim = FrameClaim::about(key, sectors * 512, &pages);
        prop_assert!(claim.proved_by(&pages));
        let bytes = encode_entry(Some(&claim), cache, slot);
        prop_assert_eq!(decode_entry(&bytes, cache, slot), Ok(Some(claim)));
    }

    #[test]
    fn any_bytes_behind_any_magic_do_no_harm(
        magic in proptest::sample::select(MAGICS),
        version in prop_oneof![4 => Just(1_u16), 1 => any::<u16>()],
        kind in 0..6_u8,
        mut bytes in vec(any::<u8>(), 0..9000),
        lengths in any::<[u16; 2]>(),
        repair: bool,
    ) {
        let mut head = [&magic[..], &version.to_le_bytes(), &[kind]].concat();
        head.truncate(bytes.len());
        bytes[..head.len()].copy_from_slice(&head);
        if let Some(place) = bytes.get_mut(48..56) {
            place[..4].copy_from_slice(&(u32::from(lengths[0] % 4) * 4096).to_le_bytes());
            place[4..].copy_from_slice(&u32::from(lengths[1]).to_le_bytes());
        }
        if repair {
            let all = bytes.len();
            let len = peek(&bytes).map_or(all, |peeked| peeked.header_len.min(all));
            if len >= 16 {
                fix_crc(&mut bytes, len);
            }
        }
        let _ = identify(&bytes);
        let _ = DataHeader::decode(&bytes);
        let _ = MapPartHeader::decode(&bytes);
        let _ = Checkpoint::decode(&bytes);
        let _ = Superblock::decode(&bytes);
        let _ = LogSuperblock::decode(&bytes);
        let _ = RecordHeader::decode(&bytes);
        let _ = CacheSuperblock::decode(&bytes, 1 << 30);
        let _ = decode_region(u32::from(lengths[0]) << 16, 20, &bytes);
        let _ = decode_table(&bytes);
    }
}
