//! Checkpoints: when one is due, and what it writes.
//!
//! A checkpoint covers the objects retired when it was planned. It writes the sections of the map
//! that changed since the last one into map parts, and an index that says for every section where
//! its newest copy is. Cost is proportional to what changed. Writers never wait: the map is copied
//! on write.
//!
//! Invariants: 1. the index refers only to map parts that are retired before the checkpoint is. 2.
//! A section is marked clean only together with a plan that writes it; plans never fail, they are
//! retried until the volume itself fails.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lsvd_common::ids::{ObjectSeq, WriteSeq};
use lsvd_common::limits::CHECKPOINTS_KEPT;
use lsvd_common::object::checkpoint::{Checkpoint, SectionRef};
use lsvd_common::object::map_part::{
    MapPartHeader, MappedExtent, SectionKey, TableRow, encode_region, encode_table,
};
use lsvd_common::object::prefix::ObjectId;
use lsvd_common::object::superblock::{CheckpointName, Superblock};
use lsvd_common::units::Sectors;

use crate::map::RegionSnapshot;
use crate::state::Shared;

/// A map part is closed when it holds this much: as much as a data object.
const PART_BYTES: usize = 8 << 20;

/// A checkpoint is taken early only if it writes at most one byte for so many bytes of data.
const DATA_PER_MAP_BYTE: u64 = 16;

/// Bytes that an extent takes in a region.
const EXTENT_BYTES: u64 = 12;

/// What must be true of the superblock once a checkpoint is retired.
#[derive(Debug)]
pub(crate) struct Plan {
    name: CheckpointName,
    sections: BTreeMap<SectionKey, SectionRef>,
}

impl Plan {
    pub(crate) fn seq(&self) -> ObjectSeq {
        self.name.seq
    }

    /// Names the checkpoint as the newest. Doing it twice is the same as once.
    pub(crate) fn name_in(&self, superblock: &mut Superblock) {
        superblock.checkpoints.retain(|known| known.seq != self.name.seq);
        superblock.checkpoints.insert(0, self.name);
        superblock.checkpoints.truncate(CHECKPOINTS_KEPT);
    }
}

/// What was retired since the last checkpoint, and where that one's sections are.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    sections: BTreeMap<SectionKey, SectionRef>,
    objects: u64,
    bytes: u64,
    running: bool,
}

/// The objects of a checkpoint: map parts, then the checkpoint itself, then what to do when it is
/// retired.
pub(crate) type Objects = (Vec<(ObjectSeq, Bytes)>, Bytes, Plan);

/// What a plan was made from, taken at one moment.
struct Snapshot {
    covers: ObjectSeq,
    last_write: WriteSeq,
    live_sectors: u64,
    regions: Vec<(u32, RegionSnapshot)>,
    tables: Vec<(u32, Vec<TableRow>)>,
    sequences: Vec<ObjectSeq>,
}

impl Progress {
    /// Goes on from a checkpoint's sections, with `objects` of `bytes` replayed behind it.
    pub(crate) fn resume(
        sections: BTreeMap<SectionKey, SectionRef>,
        objects: u64,
        bytes: u64,
    ) -> Self {
        Self { sections, objects, bytes, running: false }
    }

    /// A data object was retired.
    pub(crate) fn stored(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }

    pub(crate) fn has_news(&self) -> bool {
        self.objects > 0
    }

    /// True if a checkpoint should be planned now.
    pub(crate) fn is_due(&self, shared: &Shared) -> bool {
        let options = &shared.options;
        if self.running || self.objects < options.checkpoint_objects_min {
            return false;
        }
        if self.objects >= options.checkpoint_objects_max {
            return true;
        }
        let state = shared.state.lock();
        let regions = (shared.size.0 >> shared.region_shift).max(1);
        let dirty = state.map.dirty_regions() as u64;
        let map_bytes = state.map.extent_count() * EXTENT_BYTES * dirty / regions.max(dirty);
        map_bytes * DATA_PER_MAP_BYTE <= self.bytes
    }

    /// Takes a snapshot of what changed and lays out the objects that store it.
    pub(crate) async fn plan(
        &mut self,
        shared: &Arc<Shared>,
        next_object: &mut ObjectSeq,
    ) -> Option<Objects> {
        let snapshot = take(shared);
        let mut sections = self.sections.clone();
        let (mut parts, mut waiting, mut waiting_bytes) = (Vec::new(), Vec::new(), 0);
        let mut add = |key: SectionKey, bytes: Vec<u8>, parts: &mut Vec<_>| {
            waiting_bytes += bytes.len();
            waiting.push((key, bytes));
            if waiting_bytes >= PART_BYTES {
                parts.push(std::mem::take(&mut waiting));
                waiting_bytes = 0;
            }
        };
        for (index, region) in &snapshot.regions {
            let key = SectionKey::Region(*index);
            if region.is_empty() {
                sections.remove(&key);
                continue;
            }
            add(key, encode(*index, shared.region_shift, region, &snapshot.sequences), &mut parts);
            // A large map is encoded in many steps, so that uploads on this thread go on.
            tokio::task::yield_now().await;
        }
        for (index, rows) in &snapshot.tables {
            add(SectionKey::Objects(*index), encode_table(rows), &mut parts);
        }
        if !waiting.is_empty() {
            parts.push(waiting);
        }
        let mut objects = Vec::with_capacity(parts.len());
        for part in parts {
            let id = self.id(shared, next_object);
            let (header, bytes) = MapPartHeader::build(id, &part);
            place(&mut sections, &header);
            objects.push((id.seq, Bytes::from(bytes)));
        }
        self.finish(shared, next_object, &snapshot, sections, objects)
    }

    fn finish(
        &mut self,
        shared: &Arc<Shared>,
        next_object: &mut ObjectSeq,
        snapshot: &Snapshot,
        sections: BTreeMap<SectionKey, SectionRef>,
        objects: Vec<(ObjectSeq, Bytes)>,
    ) -> Option<Objects> {
        let id = self.id(shared, next_object);
        let checkpoint = Checkpoint {
            id,
            covers: snapshot.covers,
            last_write: snapshot.last_write,
            live_sectors: snapshot.live_sectors,
            region_shift: shared.region_shift,
            sections: sections.values().copied().collect(),
            pending_deletes: Vec::new(),
        };
        let body =
            checkpoint.encode().expect("the limits of images keep the index below an object");
        let name = CheckpointName { seq: id.seq, covers: snapshot.covers };
        self.running = true;
        (self.objects, self.bytes) = (0, 0);
        Some((objects, Bytes::from(body), Plan { name, sections }))
    }

    fn id(&self, shared: &Shared, next_object: &mut ObjectSeq) -> ObjectId {
        let seq = *next_object;
        *next_object = seq.next();
        let (image, epoch) = (shared.image, shared.term.epoch());
        ObjectId { image, epoch, seq, created_ms: shared.options.world.wall_ms() }
    }

    /// The checkpoint is retired and named.
    pub(crate) fn done(&mut self, plan: &Plan) {
        self.sections.clone_from(&plan.sections);
        self.running = false;
    }
}

fn take(shared: &Shared) -> Snapshot {
    let mut state = shared.state.lock();
    Snapshot {
        covers: state.retired_object,
        last_write: state.retired_write,
        live_sectors: state.map.mapped_sectors().0,
        regions: state.map.take_dirty(),
        tables: state.table.take_dirty(),
        sequences: state.table.sequences(),
    }
}

fn encode(index: u32, shift: u8, region: &RegionSnapshot, sequences: &[ObjectSeq]) -> Vec<u8> {
    let extents: Vec<MappedExtent> = region
        .entries()
        .map(|(start, len, at)| MappedExtent {
            start,
            len,
            object: sequences[at.slot as usize],
            offset: Sectors(at.offset.into()),
        })
        .collect();
    encode_region(index, shift, &extents)
}

/// Notes where the sections of a map part are.
fn place(sections: &mut BTreeMap<SectionKey, SectionRef>, header: &MapPartHeader) {
    let body = u32::try_from(MapPartHeader::encoded_len(header.sections.len()))
        .expect("a header is shorter than an object");
    for section in &header.sections {
        let reference = SectionRef {
            key: section.key,
            seq: header.id.seq,
            offset: body + section.offset,
            len: section.len,
            crc: section.crc,
        };
        sections.insert(section.key, reference);
    }
}
