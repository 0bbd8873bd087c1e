//! An image as JSON, from its superblock: the field names that `create`, `list` and `info` share.

use lsvd_cli::{Pool, human};
use lsvd_common::name::ImageName;
use lsvd_common::object::superblock::{Owner, Superblock};
use serde::Serialize;

/// Whether somebody uses an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Nobody ever opened it.
    New,
    /// It was closed cleanly.
    Closed,
    /// A gateway has it open, or crashed with it open.
    Open,
    /// Its superblock cannot be read.
    Damaged,
}

impl State {
    pub(crate) fn of(superblock: &Superblock) -> Self {
        match (&superblock.owner, superblock.epoch.0) {
            (Some(_), _) => Self::Open,
            (None, 0) => Self::New,
            (None, _) => Self::Closed,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Closed => "closed",
            Self::Open => "open",
            Self::Damaged => "damaged",
        }
    }
}

/// An image, whole.
#[derive(Debug, Serialize)]
pub(crate) struct Image {
    pub(crate) pool: String,
    pub(crate) image: String,
    pub(crate) uuid: String,
    pub(crate) state: State,
    pub(crate) size_bytes: u64,
    pub(crate) sector_bytes: u32,
    pub(crate) created_ms: u64,
    pub(crate) created: String,
    pub(crate) epoch: u64,
    pub(crate) owner: Option<OwnerJson>,
    pub(crate) fence_epoch: u64,
    pub(crate) fence_seq: u64,
    pub(crate) floor_seq: u64,
    pub(crate) region_bytes: u64,
    pub(crate) features: FeaturesJson,
    pub(crate) checkpoints: Vec<CheckpointJson>,
    pub(crate) snapshots: Vec<SnapshotJson>,
    pub(crate) lineage: Vec<RelativeJson>,
    pub(crate) children: Vec<RelativeJson>,
}

/// Who has an image open.
#[derive(Debug, Serialize)]
pub(crate) struct OwnerJson {
    host: String,
    pid: u32,
    log: String,
    place: String,
    claimed_ms: u64,
    claimed: String,
}

/// Feature flags by class.
#[derive(Debug, Serialize)]
pub(crate) struct FeaturesJson {
    compat: u64,
    ro_compat: u64,
    incompat: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct CheckpointJson {
    seq: u64,
    covers: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct SnapshotJson {
    name: String,
    seq: u64,
    last_write: u64,
    created_ms: u64,
}

/// A base or a clone.
#[derive(Debug, Serialize)]
pub(crate) struct RelativeJson {
    image: String,
    uuid: String,
}

impl From<&Owner> for OwnerJson {
    fn from(owner: &Owner) -> Self {
        Self {
            host: owner.host.clone(),
            pid: owner.pid,
            log: owner.log.to_string(),
            place: owner.place.clone(),
            claimed_ms: owner.claimed_ms,
            claimed: human::time(owner.claimed_ms),
        }
    }
}

impl Image {
    pub(crate) fn new(pool: &Pool, name: &ImageName, superblock: &Superblock) -> Self {
        let features = superblock.features;
        let relative = |name: &str, uuid: String| RelativeJson { image: name.to_owned(), uuid };
        let bases = superblock.lineage.iter();
        let clones = superblock.children.iter();
        Self {
            pool: pool.target.to_string(),
            image: name.to_string(),
            uuid: superblock.image.to_string(),
            state: State::of(superblock),
            size_bytes: size_bytes(superblock),
            sector_bytes: superblock.sector_size.bytes(),
            created_ms: superblock.created_ms,
            created: human::time(superblock.created_ms),
            epoch: superblock.epoch.0,
            owner: superblock.owner.as_ref().map(OwnerJson::from),
            fence_epoch: superblock.fence.epoch.0,
            fence_seq: superblock.fence.seq.0,
            floor_seq: superblock.floor.0,
            region_bytes: region_bytes(superblock),
            features: FeaturesJson {
                compat: features.compat,
                ro_compat: features.ro_compat,
                incompat: features.incompat,
            },
            checkpoints: superblock
                .checkpoints
                .iter()
                .map(|name| CheckpointJson { seq: name.seq.0, covers: name.covers.0 })
                .collect(),
            snapshots: superblock
                .snapshots
                .iter()
                .map(|snapshot| SnapshotJson {
                    name: snapshot.name.clone(),
                    seq: snapshot.seq.0,
                    last_write: snapshot.write.0,
                    created_ms: snapshot.created_ms,
                })
                .collect(),
            lineage: bases.map(|base| relative(&base.name, base.image.to_string())).collect(),
            children: clones.map(|child| relative(&child.name, child.image.to_string())).collect(),
        }
    }
}

/// The size of an image; the decoder keeps it far below the limit.
pub(crate) fn size_bytes(superblock: &Superblock) -> u64 {
    superblock.size.checked_bytes().unwrap_or(u64::MAX)
}

/// The size of a region of the map.
pub(crate) fn region_bytes(superblock: &Superblock) -> u64 {
    512_u64.checked_shl(superblock.region_shift.into()).unwrap_or(u64::MAX)
}

/// Who has an image open, in words; `now_ms` is since 1970. Escaped: the texts come from the store.
pub(crate) fn owner_words(owner: &Owner, now_ms: u64) -> String {
    format!(
        "{}, process {}, since {} ({}), write log {} in {}",
        owner.host.escape_debug(),
        owner.pid,
        human::time(owner.claimed_ms),
        human::ago(owner.claimed_ms, now_ms),
        owner.log,
        owner.place.escape_debug()
    )
}
