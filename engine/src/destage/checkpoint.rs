//! Checkpoints: when one is due, and what it writes.
//!
//! A checkpoint covers the objects retired when it was planned. It writes the sections of the map
//! that changed since the last one into map parts, and an index that says for every section where
//! its newest copy is. Cost is proportional to what changed. Writers never wait: the map is copied
//! on write, and encoded one object at a time, when there is a place for it among the uploads: a
//! checkpoint of a large map needs no more memory than one of a small map.
//!
//! Invariants: 1. the index refers only to map parts that are retired before the checkpoint is. 2.
//! A section is marked clean only together with a checkpoint that writes it; checkpoints never
//! fail, their objects are retried until the volume itself fails. 3. One checkpoint is written at a
//! time, and one object of it.
//!
//! Crash: data objects are stored between the parts of a checkpoint, and it covers none of them.
//! Parts without their checkpoint are referred to by nobody: replay passes over them, and what it
//! changes is dirty again on top of the checkpoint before.

use std::collections::{BTreeMap, VecDeque};

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

/// A map part is closed when it holds this much. Its sections and its bytes are in memory together.
const PART_BYTES: usize = 4 << 20;

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
    /// Names the checkpoint as the newest. Doing it twice is the same as once.
    pub(crate) fn name_in(&self, superblock: &mut Superblock) {
        superblock.checkpoints.retain(|known| known.seq != self.name.seq);
        superblock.checkpoints.insert(0, self.name);
        superblock.checkpoints.truncate(CHECKPOINTS_KEPT);
    }
}

/// What was retired since the last checkpoint, where that one's sections are, and what is left of
/// one that is being written.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    sections: BTreeMap<SectionKey, SectionRef>,
    objects: u64,
    bytes: u64,
    /// From the snapshot until the checkpoint is named.
    running: bool,
    /// From the snapshot until the last object is made.
    left: Option<Snapshot>,
}

/// An object of a checkpoint: a map part, or the checkpoint itself with what to do when it is
/// retired.
pub(crate) type Object = (Bytes, Option<Plan>);

/// What a checkpoint is made from, taken at one moment, without what is made of it already.
#[derive(Debug)]
struct Snapshot {
    covers: ObjectSeq,
    last_write: WriteSeq,
    live_sectors: u64,
    regions: VecDeque<(u32, RegionSnapshot)>,
    tables: VecDeque<(u32, Vec<TableRow>)>,
    sequences: Vec<ObjectSeq>,
    /// Where the sections are once everything made so far is retired.
    sections: BTreeMap<SectionKey, SectionRef>,
}

impl Progress {
    /// Goes on from a checkpoint's sections, with `objects` of `bytes` replayed behind it.
    pub(crate) fn resume(
        sections: BTreeMap<SectionKey, SectionRef>,
        objects: u64,
        bytes: u64,
    ) -> Self {
        Self { sections, objects, bytes, running: false, left: None }
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
        let regions = (shared.size.now().0 >> shared.region_shift).max(1);
        let dirty = state.map.dirty_regions() as u64;
        let map_bytes = state.map.extent_count() * EXTENT_BYTES * dirty / regions.max(dirty);
        map_bytes * DATA_PER_MAP_BYTE <= self.bytes
    }

    /// Takes a snapshot of what changed, to be written by [`next_object`](Self::next_object).
    pub(crate) fn start(&mut self, shared: &Shared) {
        self.left = Some(take(shared, self.sections.clone()));
        self.running = true;
        (self.objects, self.bytes) = (0, 0);
    }

    /// True if a checkpoint is being written and not all of its objects are made.
    pub(crate) fn has_objects(&self) -> bool {
        self.left.is_some()
    }

    /// Makes the next object of the checkpoint that is being written, as object `seq`.
    pub(crate) async fn next_object(&mut self, shared: &Shared, seq: ObjectSeq) -> Option<Object> {
        let (image, epoch) = (shared.image, shared.term.epoch());
        let id = ObjectId { image, epoch, seq, created_ms: shared.options.world.wall_ms() };
        let snapshot = self.left.as_mut()?;
        let part = snapshot.next_part(shared.region_shift).await;
        if part.is_empty() {
            return self.left.take().map(|snapshot| snapshot.index(id, shared.region_shift));
        }
        let (header, bytes) = MapPartHeader::build(id, &part);
        place(&mut snapshot.sections, &header);
        Some((Bytes::from(bytes), None))
    }

    /// The checkpoint is retired and named.
    pub(crate) fn done(&mut self, plan: &Plan) {
        self.sections.clone_from(&plan.sections);
        self.running = false;
    }
}

impl Snapshot {
    /// The sections of the next map part; none if all are written.
    async fn next_part(&mut self, region_shift: u8) -> Vec<(SectionKey, Vec<u8>)> {
        let (mut part, mut part_bytes) = (Vec::new(), 0);
        while part_bytes < PART_BYTES {
            let (key, section) = if let Some((index, region)) = self.regions.pop_front() {
                let key = SectionKey::Region(index);
                if region.is_empty() {
                    self.sections.remove(&key);
                    continue;
                }
                (key, encode(index, region_shift, &region, &self.sequences))
            } else if let Some((index, rows)) = self.tables.pop_front() {
                (SectionKey::Objects(index), encode_table(&rows))
            } else {
                break;
            };
            part_bytes += section.len();
            part.push((key, section));
            // A large map is encoded in many steps, so that uploads on this thread go on.
            tokio::task::yield_now().await;
        }
        part
    }

    /// The checkpoint itself.
    fn index(self, id: ObjectId, region_shift: u8) -> Object {
        let checkpoint = Checkpoint {
            id,
            covers: self.covers,
            last_write: self.last_write,
            live_sectors: self.live_sectors,
            region_shift,
            sections: self.sections.values().copied().collect(),
            pending_deletes: Vec::new(),
        };
        let body =
            checkpoint.encode().expect("the limits of images keep the index below an object");
        let name = CheckpointName { seq: id.seq, covers: self.covers };
        (Bytes::from(body), Some(Plan { name, sections: self.sections }))
    }
}

fn take(shared: &Shared, sections: BTreeMap<SectionKey, SectionRef>) -> Snapshot {
    let mut state = shared.state.lock();
    Snapshot {
        covers: state.retired_object,
        last_write: state.retired_write,
        live_sectors: state.map.mapped_sectors().0,
        regions: state.map.take_dirty().into(),
        tables: state.table.take_dirty().into(),
        sequences: state.table.sequences(),
        sections,
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
