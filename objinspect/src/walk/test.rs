use lsvd_common::cache_file::{CacheSuperblock, FrameClaim, FrameKey, Geometry, encode_entry};
use lsvd_common::ids::{Epoch, LogId, RecordSeq, Uuid, WriteSeq};
use lsvd_common::log::header::LogSuperblock;
use lsvd_common::log::record::{Entry, EntryKind, RecordHeader, RecordKind, entry_crc};
use lsvd_common::object::checkpoint::{Checkpoint, SectionRef};
use lsvd_common::object::data::{DataHeader, SourcePlace, plain_frames};
use lsvd_common::object::map_part::{
    MapPartHeader, MappedExtent, SectionKey, TableRow, encode_region, encode_table,
};
use lsvd_common::object::prefix::{ObjectId, ObjectKind};
use lsvd_common::object::superblock::{
    CheckpointName, Child, Features, Fence, Lineage, Owner, SectorSize, Snapshot, Superblock,
};
use lsvd_common::units::{PAGE_LEN, Sector, SectorRange, Sectors};
use proptest::prelude::*;

use super::*;
use crate::render;

const IMAGE: ImageId = ImageId(Uuid::from_u128(0x1111));
const LOG: LogId = LogId(Uuid::from_u128(0x2222));

fn id(seq: u64) -> ObjectId {
    ObjectId { image: IMAGE, epoch: Epoch(3), seq: ObjectSeq(seq), created_ms: 1_700_000_000_000 }
}

fn range(start: u64, len: u64) -> SectorRange {
    SectorRange::new(Sector(start), Sectors(len))
}

fn data_object(kind: ObjectKind) -> Vec<u8> {
    let extents: Vec<_> = (0..30).map(|index| range(index * 100, 8)).collect();
    let payload: Vec<u8> = (0..30 * 8 * 512_u32).map(|i| (i / 11 % 251) as u8).collect();
    let source = SourcePlace { seq: ObjectSeq(4), offset: Sectors(16) };
    let moved = kind == ObjectKind::Moved;
    let header = DataHeader {
        id: id(7),
        kind,
        first_write: WriteSeq(5),
        last_write: WriteSeq(9),
        sources: if moved { vec![source; extents.len()] } else { Vec::new() },
        extents,
        discards: vec![range(50_000, 100_000)],
        frames: plain_frames(&payload),
        salt: [0; 16],
    };
    let mut out = vec![0; header.object_len()];
    let header_len = header.header_len();
    header.encode_into(&mut out[..header_len]);
    out[header_len..header_len + payload.len()].copy_from_slice(&payload);
    out
}

fn map_part() -> Vec<u8> {
    let extent = |start: u64| MappedExtent {
        start: Sector(start),
        len: Sectors(8),
        object: ObjectSeq(7),
        offset: Sectors(start),
    };
    let row = TableRow {
        seq: ObjectSeq(7),
        object_bytes: 8192,
        header_bytes: 4096,
        fingerprint: 0xdead_beef,
        payload: Sectors(8),
        live: Sectors(4),
        kind: ObjectKind::Data,
    };
    let region = encode_region(0, 10, &[extent(0), extent(64)]);
    let sections =
        [(SectionKey::Region(0), region), (SectionKey::Objects(0), encode_table(&[row]))];
    MapPartHeader::build(id(8), &sections).1
}

fn checkpoint() -> Vec<u8> {
    let section =
        SectionRef { key: SectionKey::Region(2), seq: ObjectSeq(8), offset: 4096, len: 40, crc: 1 };
    let checkpoint = Checkpoint {
        id: id(9),
        covers: ObjectSeq(7),
        last_write: WriteSeq(9),
        live_sectors: 16,
        region_shift: 10,
        sections: vec![section],
        pending_deletes: vec![ObjectSeq(3)],
    };
    checkpoint.encode().expect("small")
}

fn superblock() -> Vec<u8> {
    let superblock = Superblock {
        image: IMAGE,
        sector_size: SectorSize::B4096,
        size: Sectors(1 << 21),
        features: Features::default(),
        epoch: Epoch(3),
        fence: Fence { epoch: Epoch(3), seq: ObjectSeq(5) },
        floor: ObjectSeq(1),
        created_ms: 1_700_000_000_000,
        region_shift: 17,
        owner: Some(Owner {
            log: LOG,
            claimed_ms: 1_700_000_000_000,
            pid: 42,
            host: "gw\u{1b}1".into(),
            place: "/var/log".into(),
        }),
        checkpoints: vec![CheckpointName { seq: ObjectSeq(9), covers: ObjectSeq(7) }],
        snapshots: vec![Snapshot {
            name: "monday".into(),
            seq: ObjectSeq(9),
            write: WriteSeq(9),
            created_ms: 0,
        }],
        lineage: vec![Lineage { image: IMAGE, name: "base".into(), last_seq: ObjectSeq(2) }],
        children: vec![Child { image: IMAGE, name: "clone".into() }],
    };
    superblock.encode().expect("small")
}

/// A log with `records` records of one page of data each; they say that all before the last were
/// durable.
fn log(records: u64) -> Vec<u8> {
    let superblock = LogSuperblock {
        image: IMAGE,
        log: LOG,
        generation: 4,
        epoch: Epoch(3),
        ring_pages: 64,
        tail_page: 128,
        tail_record: RecordSeq(1),
        tail_previous_crc: 0,
        retired_object: ObjectSeq(0),
        retired_write: WriteSeq(0),
        clean: false,
    };
    let mut out = superblock.encode();
    out.resize(66 * PAGE_LEN, 0);
    let mut previous_crc = 0;
    for record in 0..records {
        let data = vec![record as u8 + 1; PAGE_LEN];
        let entry = Entry {
            range: range(record * 8, 8),
            write: WriteSeq(record + 1),
            kind: EntryKind::Data(entry_crc(&data)),
            last: true,
        };
        let header = RecordHeader {
            image: IMAGE,
            log: LOG,
            epoch: Epoch(3),
            record: RecordSeq(record + 1),
            page: 128 + record * 2,
            previous_crc,
            synced_page: 128 + record * 2,
            kind: RecordKind::Writes,
            entries: vec![entry],
            data_len: PAGE_LEN,
        };
        let at = (2 + record as usize * 2) * PAGE_LEN;
        previous_crc = header.encode_into(&mut out[at..at + PAGE_LEN]);
        out[at + PAGE_LEN..at + 2 * PAGE_LEN].copy_from_slice(&data);
    }
    out
}

fn cache() -> Vec<u8> {
    let mut out = vec![0; 1 << 20];
    let geometry = Geometry::of_file(out.len() as u64).expect("large enough");
    let cache = Uuid::from_u128(0xcafe);
    out[..64].copy_from_slice(&CacheSuperblock { cache, geometry }.encode());
    let key = FrameKey { image: IMAGE, object: ObjectSeq(7), fingerprint: 1, frame: 0 };
    let claim = FrameClaim::about(key, 4096, &[9; PAGE_LEN]);
    for slot in [0, 1_u32] {
        let at = geometry.index_page_offset(0) as usize + slot as usize * 128;
        out[at..at + 128].copy_from_slice(&encode_entry(Some(&claim), cache, slot));
    }
    let slot = geometry.slot_offset(0) as usize;
    out[slot..slot + PAGE_LEN].fill(9);
    out
}

fn look(bytes: Vec<u8>, all: bool) -> Report {
    let input = Input::memory("test".into(), bytes);
    inspect(&input, &Options { all, ..Options::default() }).expect("memory can be read")
}

fn table<'a>(report: &'a Report, name: &str) -> &'a Table {
    let found = report.parts.iter().find_map(|part| match part {
        Part::Table(table) if table.name == name => Some(table),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no table {name}"))
}

#[test]
fn whole_things_of_every_format_are_found_whole() {
    for (bytes, format) in [
        (data_object(ObjectKind::Data), Format::Data),
        (data_object(ObjectKind::Moved), Format::Moved),
        (map_part(), Format::MapPart),
        (checkpoint(), Format::Checkpoint),
        (superblock(), Format::Superblock),
        (log(3), Format::Log),
        (cache(), Format::Cache),
    ] {
        for all in [false, true] {
            let report = look(bytes.clone(), all);
            assert_eq!(report.format, format);
            assert!(report.whole, "{}", render::text(&report));
        }
    }
}

#[test]
fn bytes_that_were_typed_by_hand_are_found_whole() {
    for (bytes, format) in [
        (lsvd_fixtures::data_object(), Format::Data),
        (lsvd_fixtures::moved_object(), Format::Moved),
        (lsvd_fixtures::map_part(), Format::MapPart),
        (lsvd_fixtures::checkpoint(), Format::Checkpoint),
        (lsvd_fixtures::superblock(), Format::Superblock),
        (lsvd_fixtures::cache_file(), Format::Cache),
    ] {
        let report = look(bytes, true);
        assert_eq!(report.format, format);
        assert!(report.whole, "{}", render::text(&report));
    }
}

#[test]
fn every_damaged_byte_of_an_object_is_noticed_unless_it_is_padding() {
    let whole = data_object(ObjectKind::Data);
    let body_end = 4096 + 30 * 8 * 512;
    for at in (0..4096).chain([4096, 4096 + 65_536, body_end - 1]) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x20;
        assert!(!look(damaged, false).whole, "byte {at}");
    }
    // A region of two extents in one object, and one row of the object table.
    let sections_end = 4096 + (8 + 8 + 2 * 12) + 32;
    for at in 4096..sections_end + 2 {
        let mut damaged = map_part();
        damaged[at] ^= 1;
        assert_eq!(look(damaged, false).whole, at >= sections_end, "byte {at}");
    }
}

#[test]
fn a_damaged_frame_is_named_and_the_others_are_not() {
    let mut bytes = data_object(ObjectKind::Data);
    bytes[4096 + 65_536] ^= 1;
    let report = look(bytes, false);
    let bad: Vec<_> = report.checks.iter().filter(|check| !check.ok).collect();
    assert_eq!(bad.len(), 1, "{bad:?}");
    assert_eq!((bad[0].what.as_str(), bad[0].at), ("frame 1", 4096 + 65_536));
    assert!(table(&report, "frames").rows[1].meaning.contains("CHECKSUM BAD"));
    assert_eq!(table(&report, "frames").rows[0].meaning, "checksum ok");
}

#[test]
fn a_header_is_printed_although_its_checksum_is_bad() {
    let mut bytes = data_object(ObjectKind::Data);
    bytes[40] ^= 1;
    let text = render::text(&look(bytes, false));
    assert!(text.contains("BAD header checksum at 12"), "{text}");
    assert!(text.contains("frames (Frame), 2 rows"), "{text}");
    assert!(text.ends_with("DAMAGED, see above\n"), "{text}");
}

#[test]
fn long_tables_are_cut_unless_all_is_wanted() {
    let bytes = data_object(ObjectKind::Data);
    let some = look(bytes.clone(), false);
    assert_eq!((table(&some, "extents").count, table(&some, "extents").rows.len()), (30, 20));
    assert!(render::text(&some).contains("20 shown; --all shows the others"));
    assert_eq!(table(&look(bytes, true), "extents").rows.len(), 30);
}

#[test]
fn an_object_in_the_wrong_place_is_not_whole() {
    let input = Input::memory("test".into(), data_object(ObjectKind::Data));
    let with = |image, seq| {
        let expected = Expected { image: Some(image), seq: Some(ObjectSeq(seq)) };
        inspect(&input, &Options { expected, ..Options::default() }).unwrap().whole
    };
    assert!(with(IMAGE, 7));
    assert!(!with(IMAGE, 8));
    assert!(!with(ImageId(Uuid::from_u128(5)), 7));
}

#[test]
fn an_unknown_format_is_looked_into_when_it_is_named() {
    let mut bytes = superblock();
    bytes[0] ^= 1;
    let unknown = look(bytes.clone(), false);
    assert_eq!(unknown.format, Format::Unknown);
    assert!(unknown.stopped.expect("it stopped").why.contains("--as"));
    let input = Input::memory("test".into(), bytes);
    let options = Options { format: Some(Format::Superblock), ..Options::default() };
    let report = inspect(&input, &options).unwrap();
    assert!(!report.whole);
    assert_eq!(table(&report, "snapshots").rows[0].meaning, "named monday");
}

#[test]
fn texts_from_the_bytes_cannot_write_to_the_terminal() {
    let text = render::text(&look(superblock(), true));
    assert!(text.contains("process 42 on gw\\u{1b}1"), "{text}");
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn a_checkpoint_names_its_sections_and_pending_deletes() {
    let report = look(checkpoint(), false);
    assert!(table(&report, "sections").rows[0].meaning.contains("bytes 1048576..1572864"));
    assert!(table(&report, "pending deletes").rows[0].meaning.contains("0000000000000003"));
}

#[test]
fn the_sections_of_a_map_part_are_opened_if_all_is_wanted() {
    let report = look(map_part(), true);
    let extents = table(&report, "extents");
    assert_eq!(extents.count, 2);
    assert!(extents.rows[1].meaning.contains("bytes 32768..36864 of the region"), "{extents:?}");
    assert!(extents.rows[1].meaning.contains("0000000000000007"));
    assert_eq!(table(&report, "object table 0").count, 1);
}

#[test]
fn the_records_of_a_log_are_followed_to_its_ordinary_end() {
    let report = look(log(3), false);
    assert_eq!(table(&report, "records").count, 3);
    let stopped = report.stopped.expect("every log ends");
    assert!(!stopped.damage);
    assert_eq!(stopped.at, 8 * 4096);
    assert!(stopped.why.contains("ends before record 4"), "{}", stopped.why);
}

#[test]
fn a_torn_tail_record_is_an_end_and_a_torn_durable_one_is_damage() {
    let torn = |record: usize| {
        let mut bytes = log(3);
        bytes[(2 + 2 * record + 1) * PAGE_LEN + 17] ^= 1;
        look(bytes, false)
    };
    assert!(torn(2).whole);
    let report = torn(0);
    assert!(!report.whole);
    let stopped = report.stopped.expect("it stopped");
    assert!(stopped.why.contains("acknowledged data is damaged"), "{}", stopped.why);
    assert_eq!(stopped.at, 2 * 4096);
}

#[test]
fn without_a_superblock_the_records_of_a_log_are_still_listed() {
    let mut bytes = log(3);
    bytes[20] ^= 1;
    let report = look(bytes, true);
    assert!(!report.whole);
    assert_eq!(table(&report, "records").count, 3);
    assert_eq!(
        table(&report, "entries of record 2").rows[0].meaning,
        "bytes 4096..8192 of the image"
    );
}

#[test]
fn claims_of_a_cache_are_counted_and_proved_but_never_damage() {
    let report = look(cache(), true);
    assert!(report.whole);
    assert_eq!(table(&report, "claims").count, 2);
    assert!(!table(&report, "claims").rows[0].meaning.contains("does not hold"));
    assert!(table(&report, "claims").rows[1].meaning.contains("does not hold"));
    assert!(report.notes[1].starts_with("1 of the claims"), "{:?}", report.notes);
}

fn examples() -> Vec<Vec<u8>> {
    vec![data_object(ObjectKind::Moved), map_part(), checkpoint(), superblock(), log(2), cache()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn damaged_and_shortened_bytes_never_panic(
        which in 0_usize..6,
        damage in proptest::collection::vec((0_usize..5000, any::<u8>()), 0..4),
        keep in 0_usize..20_000,
    ) {
        let mut bytes = examples().swap_remove(which);
        for (at, value) in damage {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(keep);
        let format = [Format::Object, Format::Superblock, Format::Log, Format::Cache];
        for format in format {
            let input = Input::memory("test".into(), bytes.clone());
            let options = Options { all: true, format: Some(format), ..Options::default() };
            let report = inspect(&input, &options).expect("memory can be read");
            prop_assert!(!render::text(&report).is_empty());
        }
    }

    #[test]
    fn wild_values_with_a_right_checksum_never_panic(
        fields in proptest::collection::vec((64_usize..256, any::<u8>()), 1..8),
        which in 0_usize..3,
    ) {
        let mut bytes = examples().swap_remove(which);
        for (at, value) in fields {
            bytes[at] = value;
        }
        let crc = lsvd_common::checksum::header_crc(&bytes[..4096], 12);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        prop_assert!(!render::text(&look(bytes, true)).is_empty());
    }

    #[test]
    fn a_wild_log_superblock_with_a_right_checksum_never_panics(
        fields in proptest::collection::vec((48_usize..112, any::<u8>()), 1..6),
    ) {
        let mut bytes = log(2);
        for (at, value) in fields {
            bytes[at] = value;
        }
        let crc = lsvd_common::checksum::header_crc(&bytes[..4096], 12);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        prop_assert!(!render::text(&look(bytes, true)).is_empty());
    }
}
