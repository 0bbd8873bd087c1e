//! Arbitrary valid values of every structure, small ones and those at the limits.

use lsvd_common::ids::{Epoch, ImageId, LogId, ObjectSeq, RecordSeq, Uuid, WriteSeq};
use lsvd_common::limits::{
    COUNTER_MAX, IMAGE_SECTORS_MAX, IMAGE_SECTORS_MIN, OBJECT_BYTES_MAX, OBJECT_SEQ_MAX,
    RING_PAGES_MAX, region_shift_for,
};
use lsvd_common::log::header::LogSuperblock;
use lsvd_common::log::record::{Entry, EntryKind, RecordHeader, RecordKind};
use lsvd_common::object::checkpoint::{Checkpoint, SectionRef};
use lsvd_common::object::data::{Codec, DataHeader, FrameInfo, SourcePlace};
use lsvd_common::object::map_part::{MappedExtent, SectionKey, TableRow};
use lsvd_common::object::prefix::{ObjectId, ObjectKind};
use lsvd_common::object::superblock::{
    CheckpointName, Child, Features, Fence, Lineage, Owner, SectorSize, Snapshot, Superblock,
};
use lsvd_common::units::{Sector, SectorRange, Sectors};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

/// Sectors of the largest payload.
const PAYLOAD_MAX: u64 = 24 << 11;

/// Numbers up to `max`: small ones, any, and those at the limit.
fn up_to(max: u64) -> impl Strategy<Value = u64> + Clone {
    prop_oneof![0..=max.min(9), 0..=max, max.saturating_sub(2)..=max]
}

fn from_one_to(max: u64) -> impl Strategy<Value = u64> + Clone {
    up_to(max - 1).prop_map(|value| value + 1)
}

pub(crate) fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

/// An identity of an object that at least two others are before.
pub(crate) fn object_id() -> impl Strategy<Value = ObjectId> {
    let epoch = up_to(COUNTER_MAX);
    (uuid(), epoch, up_to(OBJECT_SEQ_MAX - 3), any::<u64>()).prop_map(
        |(image, epoch, seq, created_ms)| ObjectId {
            image: ImageId(image),
            epoch: Epoch(epoch),
            seq: ObjectSeq(seq + 3),
            created_ms,
        },
    )
}

/// Ranges that ascend and are apart, with sectors that touch among them, and `total` sectors at
/// most.
fn ranges(total: u64) -> impl Strategy<Value = Vec<SectorRange>> {
    let len = prop_oneof![1..16_u64, 1..300_u64, 1..=total];
    let steps = vec((prop_oneof![Just(0), 0..99_u64, 0..1_u64 << 33], len), 0..12);
    steps.prop_map(move |steps| {
        let (mut at, mut left) = (0, total);
        let mut ranges = Vec::new();
        for (gap, len) in steps {
            let start = at + gap;
            if len > left || start + len > IMAGE_SECTORS_MAX {
                break;
            }
            ranges.push(SectorRange::new(Sector(start), Sectors(len)));
            (at, left) = (start + len, left - len);
        }
        ranges
    })
}

fn frames(payload_bytes: usize, crcs: &[u32]) -> Vec<FrameInfo> {
    let frame = |index: usize| FrameInfo {
        stored_offset: u32::try_from(index * 65536).expect("a small payload"),
        stored_len: u32::try_from((payload_bytes - index * 65536).min(65536)).expect("one frame"),
        crc: crcs[index % crcs.len()],
        codec: Codec::Plain,
    };
    (0..payload_bytes.div_ceil(65536)).map(frame).collect()
}

pub(crate) fn data_header() -> impl Strategy<Value = DataHeader> {
    let writes = (up_to(COUNTER_MAX), up_to(COUNTER_MAX));
    let random = (vec(any::<u32>(), 1..9), vec(any::<u64>(), 24), any::<[u8; 16]>());
    (object_id(), any::<bool>(), writes, ranges(PAYLOAD_MAX), vec(any::<bool>(), 12), random)
        .prop_map(|(id, moved, writes, ranges, discarded, (crcs, sources, salt))| {
            let (mut extents, mut discards) = (Vec::new(), Vec::new());
            for (range, discarded) in ranges.into_iter().zip(discarded) {
                if discarded { discards.push(range) } else { extents.push(range) }
            }
            let source = |(extent, pair): (&SectorRange, &[u64])| SourcePlace {
                seq: ObjectSeq(1 + pair[0] % (id.seq.0 - 1)),
                offset: Sectors(pair[1] % (PAYLOAD_MAX - extent.len.0 + 1)),
            };
            let sources = extents.iter().zip(sources.chunks(2)).map(source);
            let payload: u64 = extents.iter().map(|extent| extent.len.0).sum();
            DataHeader {
                id,
                kind: if moved { ObjectKind::Moved } else { ObjectKind::Data },
                first_write: WriteSeq(writes.0.min(writes.1)),
                last_write: WriteSeq(writes.0.max(writes.1)),
                sources: if moved { sources.collect() } else { Vec::new() },
                frames: frames(Sectors(payload).bytes_usize(), &crcs),
                extents,
                discards,
                salt,
            }
        })
}

pub(crate) fn section_key() -> impl Strategy<Value = SectionKey> {
    prop_oneof![
        any::<u32>().prop_map(SectionKey::Region),
        any::<u32>().prop_map(SectionKey::Objects),
    ]
}

pub(crate) fn sections() -> impl Strategy<Value = Vec<(SectionKey, Vec<u8>)>> {
    let bytes = prop_oneof![vec(any::<u8>(), 0..99), Just(vec![7; 5000])];
    btree_map(section_key(), bytes, 0..20).prop_map(|map| map.into_iter().collect())
}

/// A region: its index, its size, and its extents.
pub(crate) fn region() -> impl Strategy<Value = (u32, u8, Vec<MappedExtent>)> {
    let steps = vec((0..200_u64, 1..200_u64, from_one_to(OBJECT_SEQ_MAX), any::<u64>()), 0..40);
    (10..=20_u8, any::<u64>(), steps).prop_map(|(shift, index, steps)| {
        let index = u32::try_from(index % (IMAGE_SECTORS_MAX >> shift)).expect("32 bits");
        let base = u64::from(index) << shift;
        let mut at = 0;
        let mut extents = Vec::new();
        for (gap, len, object, offset) in steps {
            let start = at + gap;
            if start + len > 1 << shift {
                break;
            }
            extents.push(MappedExtent {
                start: Sector(base + start),
                len: Sectors(len),
                object: ObjectSeq(object),
                offset: Sectors(offset % (PAYLOAD_MAX - len + 1)),
            });
            at = start + len;
        }
        (index, shift, extents)
    })
}

pub(crate) fn table() -> impl Strategy<Value = Vec<TableRow>> {
    let sizes = (1..=2048_u32, up_to(OBJECT_BYTES_MAX as u64), up_to(PAYLOAD_MAX), any::<u64>());
    let rows = btree_map(from_one_to(OBJECT_SEQ_MAX), (sizes, any::<u32>(), any::<bool>()), 0..40);
    rows.prop_map(|rows| {
        let row = |(seq, ((pages, bytes, payload, live), fingerprint, moved))| TableRow {
            seq: ObjectSeq(seq),
            object_bytes: u32::try_from(bytes).expect("32 bits").max(pages * 4096),
            header_bytes: pages * 4096,
            fingerprint,
            payload: Sectors(payload),
            live: Sectors(live % (payload + 1)),
            kind: if moved { ObjectKind::Moved } else { ObjectKind::Data },
        };
        rows.into_iter().map(row).collect()
    })
}

pub(crate) fn checkpoint() -> impl Strategy<Value = Checkpoint> {
    let place = (any::<u64>(), 4096..=OBJECT_BYTES_MAX as u32, any::<u32>(), any::<u32>());
    let sections = btree_map(section_key(), place, 0..200);
    let counts = (up_to(COUNTER_MAX), up_to(IMAGE_SECTORS_MAX), 10..=20_u8, any::<u64>());
    (object_id(), counts, sections, vec(any::<u64>(), 0..200)).prop_map(
        |(id, (last_write, live_sectors, region_shift, covers), sections, pending)| {
            let earlier = |seq: u64| ObjectSeq(1 + seq % (id.seq.0 - 1));
            let section = |(key, (seq, offset, len, crc)): (SectionKey, (u64, u32, u32, u32))| {
                let len = len % (OBJECT_BYTES_MAX as u32 - offset + 1);
                SectionRef { key, seq: earlier(seq), offset, len, crc }
            };
            Checkpoint {
                id,
                covers: ObjectSeq(covers % id.seq.0),
                last_write: WriteSeq(last_write),
                live_sectors,
                region_shift,
                sections: sections.into_iter().map(section).collect(),
                pending_deletes: pending.into_iter().map(earlier).collect(),
            }
        },
    )
}

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9_][a-zA-Z0-9._-]{0,95}"
}

fn owner() -> impl Strategy<Value = Option<Owner>> {
    let owner = (uuid(), any::<u64>(), any::<u32>(), ".{0,80}", ".{0,200}");
    option::of(owner.prop_map(|(log, claimed_ms, pid, host, place)| Owner {
        log: LogId(log),
        claimed_ms,
        pid,
        host,
        place,
    }))
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    (name(), up_to(OBJECT_SEQ_MAX), up_to(COUNTER_MAX), any::<u64>()).prop_map(
        |(name, seq, write, created_ms)| Snapshot {
            name,
            seq: ObjectSeq(seq),
            write: WriteSeq(write),
            created_ms,
        },
    )
}

fn lineage() -> impl Strategy<Value = Lineage> {
    (uuid(), name(), up_to(OBJECT_SEQ_MAX)).prop_map(|(image, name, last)| Lineage {
        image: ImageId(image),
        name,
        last_seq: ObjectSeq(last),
    })
}

fn child() -> impl Strategy<Value = Child> {
    (uuid(), name()).prop_map(|(image, name)| Child { image: ImageId(image), name })
}

fn checkpoints() -> impl Strategy<Value = Vec<CheckpointName>> {
    vec((from_one_to(OBJECT_SEQ_MAX), any::<u64>()), 0..=2).prop_map(|names| {
        let name =
            |(seq, covers)| CheckpointName { seq: ObjectSeq(seq), covers: ObjectSeq(covers % seq) };
        names.into_iter().map(name).collect()
    })
}

pub(crate) fn superblock() -> impl Strategy<Value = Superblock> {
    let size = IMAGE_SECTORS_MIN / 8..=IMAGE_SECTORS_MAX / 8;
    let geometry = (any::<bool>(), prop_oneof![size, Just(IMAGE_SECTORS_MAX / 8)]);
    let terms = (up_to(COUNTER_MAX), any::<u64>(), up_to(OBJECT_SEQ_MAX));
    let floor = from_one_to(OBJECT_SEQ_MAX);
    let fixed = (uuid(), geometry, any::<(u64, u64)>(), terms, floor, any::<u64>());
    let rows = (vec(snapshot(), 0..9), vec(lineage(), 0..4), vec(child(), 0..9));
    (fixed, owner(), checkpoints(), rows).prop_map(|(fixed, owner, checkpoints, rows)| {
        let (image, (small, eights), (compat, ro_compat), terms, floor, created_ms) = fixed;
        let (epoch, fence_epoch, fence_seq) = terms;
        let size = Sectors(eights * 8);
        Superblock {
            image: ImageId(image),
            sector_size: if small { SectorSize::B512 } else { SectorSize::B4096 },
            size,
            features: Features { compat, ro_compat, incompat: 0 },
            epoch: Epoch(epoch),
            fence: Fence { epoch: Epoch(fence_epoch % (epoch + 1)), seq: ObjectSeq(fence_seq) },
            floor: ObjectSeq(floor),
            created_ms,
            region_shift: region_shift_for(size.0),
            owner,
            checkpoints,
            snapshots: rows.0,
            lineage: rows.1,
            children: rows.2,
        }
    })
}

pub(crate) fn log_superblock() -> impl Strategy<Value = LogSuperblock> {
    let counter = || up_to(COUNTER_MAX);
    let tail = (counter(), from_one_to(COUNTER_MAX), any::<u32>());
    let retired = (up_to(OBJECT_SEQ_MAX), counter());
    let ring = from_one_to(RING_PAGES_MAX);
    (uuid(), uuid(), counter(), counter(), ring, tail, retired, any::<bool>()).prop_map(
        |(image, log, generation, epoch, ring_pages, tail, retired, clean)| LogSuperblock {
            image: ImageId(image),
            log: LogId(log),
            generation,
            epoch: Epoch(epoch),
            ring_pages,
            tail_page: tail.0,
            tail_record: RecordSeq(tail.1),
            tail_previous_crc: tail.2,
            retired_object: ObjectSeq(retired.0),
            retired_write: WriteSeq(retired.1),
            clean,
        },
    )
}

/// Entries of writes from `first` on: discards, and data in one or several entries.
fn entries(first: u64, writes: Vec<(bool, u64, u64, u32)>) -> (Vec<Entry>, usize) {
    let (mut entries, mut data) = (Vec::new(), 0);
    for (write, (discard, start, sectors, crc)) in (first..).map(WriteSeq).zip(writes) {
        let mut at = start % (IMAGE_SECTORS_MAX - sectors + 1);
        let end = at + sectors;
        if discard {
            let range = SectorRange::from(at..end);
            entries.push(Entry { range, write, kind: EntryKind::Discard, last: true });
            continue;
        }
        while at < end {
            let range = SectorRange::from(at..end.min(at + 128));
            at = range.end().0;
            data += range.len.bytes_usize();
            entries.push(Entry { range, write, kind: EntryKind::Data(crc), last: at == end });
        }
    }
    (entries, data)
}

pub(crate) fn record() -> impl Strategy<Value = RecordHeader> {
    let counter = || up_to(COUNTER_MAX);
    let writes = vec((any::<bool>(), any::<u64>(), 1..300_u64, any::<u32>()), 0..20);
    let place = (counter(), counter(), counter(), any::<u32>());
    (uuid(), uuid(), counter(), place, from_one_to(COUNTER_MAX - 20), writes).prop_map(
        |(image, log, epoch, (record, page, synced_page, previous_crc), first, writes)| {
            let (entries, data_len) = entries(first, writes);
            RecordHeader {
                image: ImageId(image),
                log: LogId(log),
                epoch: Epoch(epoch),
                record: RecordSeq(record),
                page,
                previous_crc,
                synced_page,
                kind: if entries.is_empty() { RecordKind::Skip } else { RecordKind::Writes },
                entries,
                data_len,
            }
        },
    )
}
