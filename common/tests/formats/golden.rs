//! Golden bytes: decoding gives these values, encoding these values gives those bytes, and no bit
//! of them can change unnoticed.

use lsvd_common::cache_file::{
    CacheSuperblock, FrameClaim, FrameKey, Geometry, decode_entry, encode_entry,
};
use lsvd_common::ids::{Epoch, ImageId, LogId, ObjectSeq, RecordSeq, Uuid, WriteSeq};
use lsvd_common::log::header::LogSuperblock;
use lsvd_common::log::record::{Entry, EntryKind, RecordHeader, RecordKind};
use lsvd_common::object::checkpoint::{Checkpoint, SectionRef};
use lsvd_common::object::data::{
    Codec, DataHeader, FrameInfo, SourcePlace, check_frame, plain_frames,
};
use lsvd_common::object::map_part::{
    MapPartHeader, MappedExtent, SectionKey, TableRow, check_section, decode_region, decode_table,
    encode_region, encode_table,
};
use lsvd_common::object::prefix::{ObjectId, ObjectKind, identify};
use lsvd_common::object::superblock::{
    CheckpointName, Child, Features, Fence, Lineage, Owner, SectorSize, Snapshot, Superblock,
};
use lsvd_common::units::{Sector, SectorRange, Sectors};

const IMAGE: ImageId = ImageId(Uuid::from_u128(0x0f1e_2d3c_4b5a_6978_8796_a5b4_c3d2_e1f0));
const LOG: LogId = LogId(Uuid::from_u128(0xc0c1_c2c3_c4c5_c6c7_c8c9_cacb_cccd_cecf));
const CACHE: Uuid = Uuid::from_u128(0xf0f1_f2f3_f4f5_f6f7_f8f9_fafb_fcfd_feff);

fn id(seq: u64, created_ms: u64) -> ObjectId {
    ObjectId { image: IMAGE, epoch: Epoch(3), seq: ObjectSeq(seq), created_ms }
}

fn range(start: u64, len: u64) -> SectorRange {
    SectorRange::new(Sector(start), Sectors(len))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn frame(stored_offset: u32, stored_len: u32, crc: u32) -> FrameInfo {
    FrameInfo { stored_offset, stored_len, crc, codec: Codec::Plain }
}

/// Flips bits of `bytes[covered]`, one at a time; `accepts` must not be true for any. All eight
/// bits of a byte, or one of them in turn when there are many bytes.
fn no_flip_passes(
    bytes: &[u8],
    covered: std::ops::Range<usize>,
    mut accepts: impl FnMut(&[u8]) -> bool,
) {
    assert!(accepts(bytes), "the bytes are right as they are");
    let every_bit = covered.len() <= 8192;
    let mut damaged = bytes.to_vec();
    for at in covered {
        for bit in (0..8).filter(|bit| every_bit || at % 8 == *bit) {
            damaged[at] ^= 1 << bit;
            assert!(!accepts(&damaged), "bit {bit} of byte {at}");
            damaged[at] ^= 1 << bit;
        }
    }
}

fn data_object() -> DataHeader {
    DataHeader {
        id: id(7, 1_700_000_000_000),
        kind: ObjectKind::Data,
        first_write: WriteSeq(41),
        last_write: WriteSeq(44),
        extents: vec![range(16, 128), range(1000, 1)],
        discards: vec![range(144, 856), range((1 << 37) - 1, 1)],
        sources: Vec::new(),
        frames: vec![frame(0, 65536, 0), frame(65536, 512, 0)],
        salt: [0; 16],
    }
}

fn moved_object() -> DataHeader {
    DataHeader {
        id: id(9, 1_700_000_000_001),
        kind: ObjectKind::Moved,
        first_write: WriteSeq(0),
        last_write: WriteSeq(0),
        extents: vec![range(24, 8), range(4096, 1)],
        discards: Vec::new(),
        sources: vec![
            SourcePlace { seq: ObjectSeq(7), offset: Sectors(8) },
            SourcePlace { seq: ObjectSeq(3), offset: Sectors(77) },
        ],
        frames: vec![frame(0, 4608, 0)],
        salt: std::array::from_fn(|index| 0xa0 + u8::try_from(index).expect("below 16")),
    }
}

/// Checks a data object both ways; its frames' checksums are taken from the bytes, and proved by
/// the payload.
fn check_data_object(bytes: &[u8], mut expected: DataHeader) {
    let rows = expected.extents.len() + expected.discards.len() + expected.sources.len();
    for (index, frame) in expected.frames.iter_mut().enumerate() {
        frame.crc = u32_at(bytes, 128 + 16 * (rows + index) + 8);
    }
    let (header, fingerprint) = DataHeader::decode(bytes).expect("a whole header");
    assert_eq!(header, expected);
    assert_eq!(fingerprint, u32_at(bytes, 12));
    assert_eq!(header.object_len(), bytes.len());
    assert_eq!(identify(bytes), Ok(expected.id));
    let payload = &bytes[4096..4096 + header.payload_len()];
    assert_eq!(plain_frames(payload), header.frames);
    let mut encoded = vec![0xff; header.header_len()];
    assert_eq!(expected.encode_into(&mut encoded), fingerprint);
    assert_eq!(encoded, bytes[..4096]);
    no_flip_passes(bytes, 0..4096, |bytes| DataHeader::decode(bytes).is_ok());
    no_flip_passes(payload, 0..payload.len(), |payload| {
        let frame = |(frame, chunk)| check_frame(frame, chunk).is_ok();
        header.frames.iter().zip(payload.chunks(65536)).all(frame)
    });
}

#[test]
fn data_objects_are_as_documented() {
    check_data_object(&lsvd_fixtures::data_object(), data_object());
    check_data_object(&lsvd_fixtures::moved_object(), moved_object());
}

fn region() -> Vec<MappedExtent> {
    let extent = |start, len, object, offset| MappedExtent {
        start: Sector(start),
        len: Sectors(len),
        object: ObjectSeq(object),
        offset: Sectors(offset),
    };
    vec![extent(16, 128, 7, 0), extent(1000, 1, 7, 128), extent(4096, 1, 3, 77)]
}

fn table() -> Vec<TableRow> {
    let moved = TableRow {
        seq: ObjectSeq(3),
        object_bytes: 90_112,
        header_bytes: 8192,
        fingerprint: 0x8bad_f00d,
        payload: Sectors(156),
        live: Sectors(1),
        kind: ObjectKind::Moved,
    };
    let data = TableRow {
        seq: ObjectSeq(7),
        object_bytes: 73_728,
        header_bytes: 4096,
        fingerprint: u32_at(&lsvd_fixtures::data_object(), 12),
        payload: Sectors(129),
        live: Sectors(129),
        kind: ObjectKind::Data,
    };
    vec![moved, data]
}

#[test]
fn map_parts_are_as_documented() {
    let bytes = lsvd_fixtures::map_part();
    let header = MapPartHeader::decode(&bytes).unwrap();
    assert_eq!(header.id, id(10, 1_700_000_000_002));
    let [first, second] = &header.sections[..] else { panic!("two sections") };
    assert_eq!((first.key, first.offset, first.len), (SectionKey::Region(0), 0, 60));
    assert_eq!((second.key, second.offset, second.len), (SectionKey::Objects(0), 60, 64));
    let (region_bytes, table_bytes) = (&bytes[4096..4156], &bytes[4156..4220]);
    assert_eq!(decode_region(0, 17, region_bytes), Ok(region()));
    assert_eq!(decode_table(table_bytes), Ok(table()));
    let sections = [
        (SectionKey::Region(0), encode_region(0, 17, &region())),
        (SectionKey::Objects(0), encode_table(&table())),
    ];
    let (built, encoded) = MapPartHeader::build(header.id, &sections);
    assert_eq!(built, header);
    assert_eq!(encoded, bytes);
    no_flip_passes(&bytes, 0..4096, |bytes| MapPartHeader::decode(bytes).is_ok());
    no_flip_passes(region_bytes, 0..60, |bytes| check_section(first.crc, bytes).is_ok());
    no_flip_passes(table_bytes, 0..64, |bytes| check_section(second.crc, bytes).is_ok());
}

#[test]
fn checkpoints_are_as_documented() {
    let bytes = lsvd_fixtures::checkpoint();
    let part = lsvd_fixtures::map_part();
    let section = |key, offset, len, crc_at| SectionRef {
        key,
        seq: ObjectSeq(10),
        offset,
        len,
        crc: u32_at(&part, crc_at),
    };
    let expected = Checkpoint {
        id: id(11, 1_700_000_000_003),
        covers: ObjectSeq(7),
        last_write: WriteSeq(44),
        live_sectors: 130,
        region_shift: 17,
        sections: vec![
            section(SectionKey::Region(0), 4096, 60, 144),
            section(SectionKey::Objects(0), 4156, 64, 168),
        ],
        pending_deletes: vec![ObjectSeq(1), ObjectSeq(2)],
    };
    assert_eq!(Checkpoint::decode(&bytes), Ok(expected.clone()));
    assert_eq!(expected.encode(), Some(bytes.clone()));
    no_flip_passes(&bytes, 0..bytes.len(), |bytes| Checkpoint::decode(bytes).is_ok());
}

fn superblock() -> Superblock {
    let seq = ObjectSeq;
    Superblock {
        image: IMAGE,
        sector_size: SectorSize::B4096,
        size: Sectors(2_097_152),
        features: Features { compat: 5, ro_compat: 2, incompat: 0 },
        epoch: Epoch(3),
        fence: Fence { epoch: Epoch(2), seq: seq(6) },
        floor: seq(4),
        created_ms: 1_699_995_140_096,
        region_shift: 17,
        owner: Some(Owner {
            log: LOG,
            claimed_ms: 1_699_999_999_999,
            pid: 1234,
            host: "gw1".into(),
            place: "/var/lib/lsvd".into(),
        }),
        checkpoints: vec![
            CheckpointName { seq: seq(11), covers: seq(7) },
            CheckpointName { seq: seq(5), covers: seq(3) },
        ],
        snapshots: vec![Snapshot {
            name: "monday".into(),
            seq: seq(5),
            write: WriteSeq(18),
            created_ms: 1_699_999_996_928,
        }],
        lineage: vec![Lineage {
            image: ImageId(Uuid::from_u128(0xd0d1_d2d3_d4d5_d6d7_d8d9_dadb_dcdd_dedf)),
            name: "golden".into(),
            last_seq: seq(2),
        }],
        children: vec![Child {
            image: ImageId(Uuid::from_u128(0xe0e1_e2e3_e4e5_e6e7_e8e9_eaeb_eced_eeef)),
            name: "clone-1".into(),
        }],
    }
}

#[test]
fn superblocks_are_as_documented() {
    let bytes = lsvd_fixtures::superblock();
    assert_eq!(Superblock::decode(&bytes), Ok(superblock()));
    assert_eq!(superblock().encode(), Ok(bytes.clone()));
    no_flip_passes(&bytes, 0..bytes.len(), |bytes| Superblock::decode(bytes).is_ok());
}

#[test]
fn log_superblocks_are_as_documented() {
    let bytes = lsvd_fixtures::log_superblock();
    let expected = LogSuperblock {
        image: IMAGE,
        log: LOG,
        generation: 21,
        epoch: Epoch(3),
        ring_pages: 262_144,
        tail_page: 524_266,
        tail_record: RecordSeq(100),
        tail_previous_crc: 0x1234_5678,
        retired_object: ObjectSeq(7),
        retired_write: WriteSeq(44),
        clean: false,
    };
    assert_eq!(LogSuperblock::decode(&bytes), Ok(expected));
    assert_eq!(expected.encode(), bytes);
    assert_eq!(LogSuperblock::decode(&LogSuperblock { clean: true, ..expected }.encode()[..]), {
        Ok(LogSuperblock { clean: true, ..expected })
    });
    no_flip_passes(&bytes, 0..bytes.len(), |bytes| LogSuperblock::decode(bytes).is_ok());
}

fn record_writes(bytes: &[u8]) -> RecordHeader {
    let entry = |start, len, write, kind, last| Entry {
        range: range(start, len),
        write: WriteSeq(write),
        kind,
        last,
    };
    RecordHeader {
        image: IMAGE,
        log: LOG,
        epoch: Epoch(3),
        record: RecordSeq(100),
        page: 524_266,
        previous_crc: 0x1234_5678,
        synced_page: 524_256,
        kind: RecordKind::Writes,
        entries: vec![
            entry(2048, 128, 45, EntryKind::Data(u32_at(bytes, 152)), false),
            entry(2176, 1, 45, EntryKind::Data(u32_at(bytes, 184)), true),
            entry(1 << 32, 1 << 33, 46, EntryKind::Discard, true),
        ],
        data_len: 66_048,
    }
}

fn check_record(bytes: &[u8], expected: &RecordHeader) {
    let (header, crc) = RecordHeader::decode(bytes).expect("a whole header");
    assert_eq!(header, *expected);
    assert_eq!(crc, u32_at(bytes, 12));
    assert_eq!(header.pages() * 4096, bytes.len() as u64);
    let mut encoded = vec![0xff; header.header_len()];
    assert_eq!(expected.encode_into(&mut encoded), crc);
    assert_eq!(encoded, bytes[..4096]);
    no_flip_passes(bytes, 0..4096, |bytes| RecordHeader::decode(bytes).is_ok());
    no_flip_passes(bytes, 4096..4096 + header.data_len, |bytes| {
        header.check_data(&bytes[4096..]).is_ok()
    });
}

#[test]
fn records_are_as_documented_and_form_a_chain() {
    let bytes = lsvd_fixtures::record_writes();
    let writes = record_writes(&bytes);
    check_record(&bytes, &writes);
    let skip = RecordHeader {
        record: RecordSeq(101),
        page: writes.page + writes.pages(),
        previous_crc: u32_at(&bytes, 12),
        kind: RecordKind::Skip,
        entries: Vec::new(),
        data_len: 0,
        ..writes
    };
    check_record(&lsvd_fixtures::record_skip(), &skip);
}

#[test]
fn cache_files_are_as_documented() {
    let bytes = lsvd_fixtures::cache_file();
    let geometry = Geometry::of_file(bytes.len() as u64).unwrap();
    let superblock = CacheSuperblock::decode(&bytes, bytes.len() as u64).unwrap();
    assert_eq!((superblock.cache, superblock.geometry), (CACHE, geometry));
    assert_eq!((geometry.slots(), geometry.slots_offset()), (1, 65536));
    assert_eq!(superblock.encode(), bytes[..64]);

    let (entry, pages) = (&bytes[4096..4224], &bytes[65536..73728]);
    let key = FrameKey {
        image: IMAGE,
        object: ObjectSeq(7),
        fingerprint: u32_at(&lsvd_fixtures::data_object(), 12),
        frame: 1,
    };
    let claim = FrameClaim::about(key, 5120, pages);
    assert_eq!(decode_entry(entry, CACHE, 0), Ok(Some(claim)));
    assert_eq!(encode_entry(Some(&claim), CACHE, 0), entry);
    assert!(claim.proved_by(pages));

    no_flip_passes(&bytes, 0..64, |bytes| {
        CacheSuperblock::decode(bytes, bytes.len() as u64).is_ok()
    });
    no_flip_passes(entry, 0..128, |entry| decode_entry(entry, CACHE, 0).is_ok());
    no_flip_passes(pages, 0..8192, |pages| claim.matches(0, pages));
}

#[test]
fn the_fixtures_fit_each_other() {
    let superblock = superblock();
    let checkpoint = Checkpoint::decode(&lsvd_fixtures::checkpoint()).unwrap();
    let named = superblock.checkpoints[0];
    assert_eq!((named.seq, named.covers), (checkpoint.id.seq, checkpoint.covers));
    let part = lsvd_fixtures::map_part();
    for section in &checkpoint.sections {
        let (at, len) = (section.offset as usize, section.len as usize);
        assert_eq!(check_section(section.crc, &part[at..at + len]), Ok(()));
    }
    let live: u64 = table().iter().map(|row| row.live.0).sum();
    assert_eq!(live, checkpoint.live_sectors);
    let log = LogSuperblock::decode(&lsvd_fixtures::log_superblock()).unwrap();
    let (record, _) = RecordHeader::decode(&lsvd_fixtures::record_writes()).unwrap();
    let tail = (log.tail_record, log.tail_page, log.tail_previous_crc);
    assert_eq!(tail, (record.record, record.page, record.previous_crc));
    assert_eq!(superblock.owner.map(|owner| owner.log), Some(log.log));
}
