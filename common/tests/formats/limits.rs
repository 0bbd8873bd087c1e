//! At its limit a value still comes back; above it, it is not written: what nobody can read is
//! lost, and may have been acknowledged.

use lsvd_common::ids::{Epoch, ImageId, LogId, ObjectSeq, RecordSeq, WriteSeq};
use lsvd_common::limits::{
    IMAGE_SECTORS_MAX, OBJECT_HEADER_MAX, RECORD_DATA_MAX, RECORD_ENTRIES_MAX, RECORD_HEADER_MAX,
    REGIONS_MAX, RING_PAGES_MAX, SUPERBLOCK_BYTES_MAX, region_shift_for,
};
use lsvd_common::log::header::LogSuperblock;
use lsvd_common::log::record::{Entry, EntryKind, RecordHeader, RecordKind};
use lsvd_common::object::checkpoint::Checkpoint;
use lsvd_common::object::data::{Codec, DataHeader, FrameInfo};
use lsvd_common::object::map_part::{
    MapPartHeader, MappedExtent, SectionKey, decode_region, encode_region,
};
use lsvd_common::object::superblock::{Snapshot, Superblock};
use lsvd_common::units::{Sector, SectorRange, Sectors};

fn data_header(extent_sectors: u64) -> DataHeader {
    let (mut header, _) =
        DataHeader::decode(&lsvd_fixtures::data_object()).expect("a whole header");
    header.extents = vec![SectorRange::new(Sector(0), Sectors(extent_sectors))];
    header.discards.clear();
    let frames = u32::try_from(extent_sectors.div_ceil(128)).expect("few frames");
    let frame = |index: u32| FrameInfo {
        stored_offset: index << 16,
        stored_len: 1 << 16,
        crc: index,
        codec: Codec::Plain,
    };
    header.frames = (0..frames).map(frame).collect();
    header
}

#[test]
fn the_largest_payload_comes_back() {
    let header = data_header(24 << 11);
    let mut bytes = vec![0; header.header_len()];
    header.encode_into(&mut bytes);
    assert_eq!(DataHeader::decode(&bytes).map(|(header, _)| header), Ok(header));
}

#[test]
#[should_panic = "a batch is smaller than an object"]
fn a_larger_payload_is_not_written() {
    let header = data_header(25 << 11);
    header.encode_into(&mut vec![0; header.header_len()]);
}

#[test]
#[should_panic = "the writer keeps headers below their limit"]
fn a_longer_header_is_not_written() {
    let mut header = data_header(128);
    let discard = |index| SectorRange::new(Sector(1000 + 2 * index), Sectors(1));
    header.discards = (0..OBJECT_HEADER_MAX as u64 / 16).map(discard).collect();
    header.encode_into(&mut vec![0; header.header_len()]);
}

#[test]
fn a_region_with_as_many_objects_as_sectors_fits_a_map_part() {
    let extent = |sector| MappedExtent {
        start: Sector(sector),
        len: Sectors(1),
        object: ObjectSeq(1 + sector),
        offset: Sectors(0),
    };
    let extents: Vec<_> = (0..1 << 20).map(extent).collect();
    let region = encode_region(0, 20, &extents);
    let (id, key) = (data_header(1).id, SectionKey::Region(0));
    let (_, bytes) = MapPartHeader::build(id, &[(key, region)]);
    let header = MapPartHeader::decode(&bytes).unwrap();
    let (at, len) = (MapPartHeader::encoded_len(1), header.sections[0].len as usize);
    assert_eq!(decode_region(0, 20, &bytes[at..at + len]), Ok(extents));
}

#[test]
#[should_panic = "the writer keeps objects below their limit"]
fn a_larger_map_part_is_not_written() {
    let sections = [(SectionKey::Region(0), vec![0; 32 << 20])];
    let _ = MapPartHeader::build(data_header(1).id, &sections);
}

#[test]
#[should_panic = "a map is written in the order of its keys"]
fn a_map_part_with_a_key_twice_is_not_written() {
    let sections = [(SectionKey::Region(0), vec![0; 8]), (SectionKey::Region(0), vec![0; 8])];
    let _ = MapPartHeader::build(data_header(1).id, &sections);
}

#[test]
fn an_index_of_all_regions_of_the_largest_image_fits_and_twice_as_many_do_not() {
    let mut checkpoint = Checkpoint::decode(&lsvd_fixtures::checkpoint()).unwrap();
    let mut section = checkpoint.sections[0];
    let mut with = |regions: u64| {
        checkpoint.sections = (0..u32::try_from(regions).unwrap())
            .map(|index| {
                section.key = SectionKey::Region(index);
                section
            })
            .collect();
        checkpoint.encode().map(|bytes| Checkpoint::decode(&bytes) == Ok(checkpoint.clone()))
    };
    assert_eq!(with(REGIONS_MAX), Some(true));
    assert_eq!(with(2 * REGIONS_MAX), None);
}

#[test]
fn regions_are_as_small_as_their_number_allows() {
    for (sectors, shift) in [
        (0, 17),
        (1, 17),
        (8192 << 17, 17),
        (8192 << 18, 18),
        ((8193 << 18) - 1, 18),
        (8193 << 18, 19),
        (IMAGE_SECTORS_MAX, 20),
    ] {
        assert_eq!(region_shift_for(sectors), shift, "{sectors} sectors");
        assert!(sectors.div_ceil(1 << shift) <= REGIONS_MAX);
    }
}

#[test]
fn a_superblock_that_nobody_could_read_is_not_written() {
    let right = Superblock::decode(&lsvd_fixtures::superblock()).unwrap();
    let refuses = |what: &str, change: &dyn Fn(&mut Superblock)| {
        let mut superblock = right.clone();
        change(&mut superblock);
        assert_eq!(superblock.encode().expect_err(what).what, what);
    };
    refuses("image size", &|s| s.size = Sectors(IMAGE_SECTORS_MAX + 8));
    refuses("image size", &|s| s.size.0 += 1);
    refuses("region size", &|s| s.region_shift = 21);
    refuses("region size", &|s| (s.size, s.region_shift) = (Sectors(IMAGE_SECTORS_MAX), 19));
    refuses("fence epoch", &|s| s.fence.epoch = Epoch(4));
    refuses("checkpoint count", &|s| s.checkpoints.push(s.checkpoints[0]));
    refuses("snapshot", &|s| s.snapshots[0].name = "a/b".into());
    refuses("base", &|s| s.lineage[0].name.clear());
    refuses("owner host", &|s| {
        s.owner.as_mut().expect("has an owner").host = "h".repeat(65_536);
    });
    refuses("superblock length", &|s| {
        let snapshot = Snapshot { name: "n".repeat(96), ..s.snapshots[0].clone() };
        s.snapshots = vec![snapshot; SUPERBLOCK_BYTES_MAX / 128];
    });
}

#[test]
#[should_panic = "a log is made and kept within the limits"]
fn a_log_superblock_that_nobody_could_read_is_not_written() {
    let right = LogSuperblock::decode(&lsvd_fixtures::log_superblock()).unwrap();
    let _ = LogSuperblock { ring_pages: RING_PAGES_MAX + 1, ..right }.encode();
}

fn record(entries: usize) -> RecordHeader {
    let entry = |write| Entry {
        range: SectorRange::new(Sector(write), Sectors(1)),
        write: WriteSeq(write),
        kind: EntryKind::Data(7),
        last: true,
    };
    RecordHeader {
        image: ImageId::default(),
        log: LogId::default(),
        epoch: Epoch(1),
        record: RecordSeq(1),
        page: 0,
        previous_crc: 0,
        synced_page: 0,
        kind: RecordKind::Writes,
        entries: (1..=entries as u64).map(entry).collect(),
        data_len: entries * 512,
    }
}

fn encoded(header: &RecordHeader) -> Vec<u8> {
    let mut bytes = vec![0; header.header_len()];
    header.encode_into(&mut bytes);
    bytes
}

#[test]
fn the_largest_record_comes_back() {
    let header = record(RECORD_ENTRIES_MAX);
    assert_eq!(header.data_len, RECORD_DATA_MAX);
    assert_eq!(header.header_len(), RECORD_HEADER_MAX);
    assert_eq!(RecordHeader::decode(&encoded(&header)).map(|(header, _)| header), Ok(header));
}

#[test]
#[should_panic = "the writer ends a record at its limit"]
fn a_larger_record_is_not_written() {
    let _ = encoded(&record(RECORD_ENTRIES_MAX + 1));
}

#[test]
#[should_panic = "the writer makes records that recovery takes"]
fn a_record_that_skips_a_write_is_not_written() {
    let mut header = record(3);
    header.entries.remove(1);
    header.data_len -= 512;
    let _ = encoded(&header);
}
