//! What every field of every layout is for, and how its value is shown.

use lsvd_cli::human;
use lsvd_common::ids::Uuid;
use lsvd_common::units::SECTOR_BYTES;

use crate::report::Value;
use crate::view::{hex, little_endian};

/// How a value is shown.
#[derive(Clone, Copy, Debug)]
enum Show {
    /// A plain number.
    Number,
    /// A number of bytes.
    Bytes,
    /// A number of sectors, or an address in them.
    Sectors,
    /// Pages of 4 KiB.
    Pages,
    /// Milliseconds since 1970.
    Time,
    /// A checksum or a set of flags.
    Hex,
    /// 16 bytes of identity.
    Uuid,
    /// Characters.
    Magic,
    /// Must be zeros.
    Zeros,
    /// A power of two of sectors.
    Shift,
    /// One less than a number of sectors.
    MinusOne,
    /// One of a few values.
    Named(&'static [(u64, &'static str)]),
}

/// A field's purpose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meaning {
    show: Show,
    /// In words.
    pub(crate) text: &'static str,
}

type Entry = (&'static str, Show, &'static str);

const RESERVED: Meaning = Meaning { show: Show::Zeros, text: "zeros" };

const OBJECT_KINDS: &[(u64, &str)] =
    &[(1, "data"), (2, "moved"), (3, "map part"), (4, "checkpoint")];
const SECTION_KINDS: &[(u64, &str)] = &[(1, "region"), (2, "objects")];
const YES_NO: &[(u64, &str)] = &[(0, "no"), (1, "yes")];

const PREFIX: &[Entry] = &[
    ("magic", Show::Magic, "a numbered object"),
    ("version", Show::Number, "version of the format"),
    ("kind", Show::Named(OBJECT_KINDS), "what the object holds"),
    (
        "header_crc",
        Show::Hex,
        "CRC-32C of the header, this field as zeros; the object's fingerprint",
    ),
    ("image", Show::Uuid, "image that the object belongs to"),
    ("epoch", Show::Number, "term of the gateway that wrote it"),
    ("seq", Show::Number, "place in the image's stream; also its name"),
    ("header_len", Show::Bytes, "length of the header, whole pages"),
    ("body_len", Show::Bytes, "length of the body, padding excluded"),
    ("created_ms", Show::Time, "when it was sealed, by the writer's clock"),
];

const DATA_FIELDS: &[Entry] = &[
    ("first_write", Show::Number, "first write that it covers"),
    ("last_write", Show::Number, "last write that it covers"),
    ("payload_len", Show::Bytes, "payload before coding"),
    ("extent_count", Show::Number, "ranges that were written"),
    ("discard_count", Show::Number, "ranges that were discarded or zeroed"),
    ("source_count", Show::Number, "one for each extent that garbage collection moved"),
    ("frame_count", Show::Number, "frames of the payload"),
    ("frame_bytes", Show::Bytes, "payload in a frame, but the last"),
    ("salt", Show::Uuid, "salt of the encryption key, zeros while nothing is encrypted"),
];

const EXTENT: &[Entry] =
    &[("lba", Show::Sectors, "first sector on the image"), ("sectors", Show::Sectors, "length")];

const DISCARD: &[Entry] = EXTENT;

const SOURCE: &[Entry] = &[
    ("seq", Show::Number, "object that held the extent before"),
    ("offset", Show::Sectors, "where in that object's payload"),
];

const FRAME: &[Entry] = &[
    ("stored_offset", Show::Bytes, "where its stored bytes are in the body"),
    ("stored_len", Show::Bytes, "how many they are"),
    ("crc", Show::Hex, "CRC-32C of the stored bytes"),
    ("codec", Show::Named(&[(0, "plain")]), "how they are coded"),
];

const MAP_PART_FIELDS: &[Entry] = &[("section_count", Show::Number, "sections of the map")];

const SECTION: &[Entry] = &[
    ("kind", Show::Named(SECTION_KINDS), "what the section describes"),
    ("index", Show::Number, "which region, or which 4096 object sequences"),
    ("offset", Show::Bytes, "where it is in the body"),
    ("len", Show::Bytes, "its length"),
    ("crc", Show::Hex, "CRC-32C of the section"),
];

const REGION_HEAD: &[Entry] = &[
    ("object_count", Show::Number, "objects that the entries refer to"),
    ("entry_count", Show::Number, "extents of the region"),
];

const REGION_ENTRY: &[Entry] = &[
    ("lba", Show::Sectors, "first sector, from the start of the region"),
    ("object", Show::Number, "index into the objects of the region"),
    ("sectors_minus_one", Show::MinusOne, "length in sectors less one"),
    ("offset", Show::Sectors, "where in the object's payload"),
];

const OBJECT_ROW: &[Entry] = &[
    ("seq", Show::Number, "the object"),
    ("object_bytes", Show::Bytes, "its size in the store"),
    ("header_bytes", Show::Bytes, "its header; the payload starts there"),
    ("fingerprint", Show::Hex, "CRC-32C of its header"),
    ("payload_sectors", Show::Sectors, "its payload"),
    ("live_sectors", Show::Sectors, "payload that the map still refers to"),
    ("kind", Show::Named(OBJECT_KINDS), "data or moved"),
];

const CHECKPOINT_FIELDS: &[Entry] = &[
    ("covers", Show::Number, "the map holds every object up to this one"),
    ("last_write", Show::Number, "last write that those objects cover"),
    ("live_sectors", Show::Sectors, "data that the map refers to"),
    ("section_count", Show::Number, "sections that are not empty"),
    ("pending_count", Show::Number, "objects that wait for their deletion"),
    ("region_shift", Show::Shift, "size of a region of the map"),
];

const SECTION_ROW: &[Entry] = &[
    ("kind", Show::Named(SECTION_KINDS), "what the section describes"),
    ("index", Show::Number, "which region, or which 4096 object sequences"),
    ("seq", Show::Number, "map part that holds it"),
    ("offset", Show::Bytes, "where in that object, header included"),
    ("len", Show::Bytes, "its length"),
    ("crc", Show::Hex, "CRC-32C of the section"),
];

const SUPERBLOCK_FIELDS: &[Entry] = &[
    ("magic", Show::Magic, "a superblock"),
    ("version", Show::Number, "version of the format"),
    ("crc", Show::Hex, "CRC-32C of the superblock, this field as zeros"),
    ("image", Show::Uuid, "identity of the image"),
    ("total_len", Show::Bytes, "length of the superblock"),
    ("sector_bytes", Show::Bytes, "what clients see as a sector"),
    ("size_sectors", Show::Sectors, "size of the image"),
    ("feature_compat", Show::Hex, "features that may be ignored"),
    ("feature_ro_compat", Show::Hex, "features that must be known to write"),
    ("feature_incompat", Show::Hex, "features that must be known to open"),
    ("epoch", Show::Number, "the current, or last, term; 0 if never opened"),
    ("fence_epoch", Show::Number, "objects from fence_seq on count with this epoch or a newer one"),
    ("fence_seq", Show::Number, "first object of the newest term that finished recovery"),
    ("floor_seq", Show::Number, "objects below this one may have been deleted"),
    ("created_ms", Show::Time, "when the image was made"),
    ("region_shift", Show::Shift, "size of a region of the map"),
    ("owner_present", Show::Named(YES_NO), "whether somebody has it open, or crashed with it open"),
    ("checkpoint_count", Show::Number, "checkpoints, newest first"),
    ("snapshot_count", Show::Number, "snapshots, oldest first"),
    ("lineage_count", Show::Number, "bases of this clone, nearest first"),
    ("child_count", Show::Number, "clones of this image"),
];

const OWNER_FIELDS: &[Entry] = &[
    ("log", Show::Uuid, "write log that holds what is not in the store yet"),
    ("claimed_ms", Show::Time, "when the image was claimed"),
    ("pid", Show::Number, "process"),
    ("host_len", Show::Bytes, "length of the host's name, which follows"),
    ("place_len", Show::Bytes, "length of the log's place, which follows"),
];

const CHECKPOINT_ROW: &[Entry] = &[
    ("seq", Show::Number, "the checkpoint object"),
    ("covers", Show::Number, "replay goes on with the object behind this one"),
];

const SNAPSHOT_ROW: &[Entry] = &[
    ("seq", Show::Number, "the checkpoint object"),
    ("write", Show::Number, "last write in it"),
    ("created_ms", Show::Time, "when it was made"),
    ("name_len", Show::Bytes, "length of the name, which follows"),
];

const LINEAGE_ROW: &[Entry] = &[
    ("image", Show::Uuid, "identity of the base"),
    ("last_seq", Show::Number, "objects up to this one are the base's"),
    ("name_len", Show::Bytes, "length of the name, which follows"),
];

const CHILD_ROW: &[Entry] = &[
    ("image", Show::Uuid, "identity of the clone"),
    ("name_len", Show::Bytes, "length of the name, which follows"),
];

const LOG_SUPERBLOCK: &[Entry] = &[
    ("magic", Show::Magic, "a write log"),
    ("version", Show::Number, "version of the format"),
    ("clean", Show::Named(YES_NO), "closed cleanly: nothing in the ring is needed"),
    ("crc", Show::Hex, "CRC-32C of the page, this field as zeros"),
    ("image", Show::Uuid, "image that the log belongs to"),
    ("log", Show::Uuid, "identity of the log"),
    ("generation", Show::Number, "the newer of the two copies counts"),
    ("epoch", Show::Number, "newest term that may have written records"),
    ("ring_pages", Show::Pages, "size of the ring"),
    ("tail_page", Show::Pages, "where the oldest record that is needed starts"),
    ("tail_record", Show::Number, "that record"),
    ("retired_object", Show::Number, "the store had every object up to this one"),
    ("retired_write", Show::Number, "last write that those objects cover"),
    ("tail_previous_crc", Show::Hex, "header checksum of the record before the tail"),
];

const RECORD_HEADER: &[Entry] = &[
    ("magic", Show::Magic, "a log record"),
    ("version", Show::Number, "version of the format"),
    ("kind", Show::Named(&[(1, "writes"), (2, "skip")]), "what the record is for"),
    ("crc", Show::Hex, "CRC-32C of the header, this field as zeros"),
    ("image", Show::Uuid, "image that the record belongs to"),
    ("log", Show::Uuid, "log that it belongs to"),
    ("epoch", Show::Number, "term that wrote it"),
    ("record", Show::Number, "its place in the log's order"),
    ("page", Show::Pages, "where it starts, since the log was made"),
    ("first_write", Show::Number, "first write in it"),
    ("last_write", Show::Number, "last write in it"),
    ("previous_crc", Show::Hex, "header checksum of the record before"),
    ("header_len", Show::Bytes, "length of the header, whole pages"),
    ("data_len", Show::Bytes, "length of the data, padding excluded"),
    ("entry_count", Show::Number, "entries"),
    ("synced_page", Show::Pages, "records before this page were durable"),
];

const RECORD_ENTRY: &[Entry] = &[
    ("lba", Show::Sectors, "first sector on the image"),
    ("sectors", Show::Sectors, "length"),
    ("write", Show::Number, "write that it belongs to"),
    ("crc", Show::Hex, "CRC-32C of its data"),
    ("kind", Show::Named(&[(1, "data"), (2, "discard")]), "what it does"),
    ("flags", Show::Hex, "bit 0: last entry of its write"),
];

const CACHE_SUPERBLOCK: &[Entry] = &[
    ("magic", Show::Magic, "a read cache"),
    ("version", Show::Number, "version of the format"),
    ("entry_bytes", Show::Bytes, "size of an index entry"),
    ("crc", Show::Hex, "CRC-32C of these 64 bytes, this field as zeros"),
    ("cache", Show::Uuid, "identity of the cache, part of every entry's checksum"),
    ("slot_bytes", Show::Bytes, "size of a slot"),
    ("slots", Show::Number, "slots"),
    ("slots_offset", Show::Bytes, "where the first slot is"),
];

const CACHE_ENTRY: &[Entry] = &[
    ("image", Show::Uuid, "image whose frame it is"),
    ("object", Show::Number, "object"),
    ("fingerprint", Show::Hex, "CRC-32C of the object's header"),
    ("frame", Show::Number, "index of the frame in the object"),
    ("digest", Show::Hex, "digest of the frame and its key"),
    ("frame_bytes", Show::Bytes, "length of the frame"),
    ("page_crcs", Show::Hex, "CRC-32C of each page"),
    ("crc", Show::Hex, "CRC-32C of cache, slot and this entry"),
];

fn entries(layout: &str) -> &'static [Entry] {
    match layout {
        "Prefix" => PREFIX,
        "DataFields" => DATA_FIELDS,
        "Extent" => EXTENT,
        "Discard" => DISCARD,
        "Source" => SOURCE,
        "Frame" => FRAME,
        "MapPartFields" => MAP_PART_FIELDS,
        "Section" => SECTION,
        "RegionHead" => REGION_HEAD,
        "RegionEntry" => REGION_ENTRY,
        "ObjectRow" => OBJECT_ROW,
        "CheckpointFields" => CHECKPOINT_FIELDS,
        "SectionRow" => SECTION_ROW,
        "SuperblockFields" => SUPERBLOCK_FIELDS,
        "OwnerFields" => OWNER_FIELDS,
        "CheckpointRow" => CHECKPOINT_ROW,
        "SnapshotRow" => SNAPSHOT_ROW,
        "LineageRow" => LINEAGE_ROW,
        "ChildRow" => CHILD_ROW,
        "LogSuperblockBytes" => LOG_SUPERBLOCK,
        "RecordHeaderBytes" => RECORD_HEADER,
        "RecordEntryBytes" => RECORD_ENTRY,
        "CacheSuperblockFields" => CACHE_SUPERBLOCK,
        "CacheEntryFields" => CACHE_ENTRY,
        _ => &[],
    }
}

/// The meaning of a field. A field that was added to a format and not here still shows its bytes.
pub(crate) fn of(layout: &str, field: &str) -> Meaning {
    if field.starts_with("reserved") {
        return RESERVED;
    }
    let found = entries(layout).iter().find(|(name, ..)| *name == field);
    found.map_or(Meaning { show: Show::Hex, text: "" }, |(_, show, text)| Meaning {
        show: *show,
        text,
    })
}

impl Meaning {
    /// For programs: a number where it is one.
    pub(crate) fn value(&self, raw: &[u8]) -> Value {
        match (self.show, little_endian(raw)) {
            (Show::Magic | Show::Zeros | Show::Uuid, _) | (_, None) => Value::Text(self.shown(raw)),
            (_, Some(number)) => Value::Number(number),
        }
    }

    /// For people.
    pub(crate) fn shown(&self, raw: &[u8]) -> String {
        let number = little_endian(raw);
        match (self.show, number) {
            (Show::Uuid, _) => {
                Uuid::from_slice(raw).map_or_else(|_| hex(raw), |uuid| uuid.to_string())
            }
            (Show::Magic, _) => raw.escape_ascii().to_string(),
            (Show::Zeros, _) if raw.iter().all(|byte| *byte == 0) => "0".to_owned(),
            (Show::Hex, Some(number)) => format!("{number:#010x}"),
            (Show::Zeros | Show::Hex, _) | (_, None) => hex(raw),
            (Show::Number, Some(number)) => number.to_string(),
            (Show::Bytes, Some(number)) => sized(number, Some(number)),
            (Show::Sectors, Some(number)) => sized(number, number.checked_mul(SECTOR_BYTES)),
            (Show::MinusOne, Some(number)) => {
                let bytes = number.checked_add(1).and_then(|n| n.checked_mul(SECTOR_BYTES));
                sized(number, bytes)
            }
            (Show::Pages, Some(number)) => sized(number, number.checked_mul(4096)),
            (Show::Time, Some(0)) => "0".to_owned(),
            (Show::Time, Some(number)) => human::time(number),
            (Show::Shift, Some(number)) => {
                let bytes = u32::try_from(number).ok().and_then(|n| SECTOR_BYTES.checked_shl(n));
                sized(number, bytes.filter(|bytes| *bytes > 0))
            }
            (Show::Named(names), Some(number)) => {
                let known = names.iter().find(|(value, _)| *value == number);
                known.map_or_else(|| format!("{number}, unknown"), |(_, name)| (*name).to_owned())
            }
        }
    }
}

/// A number, and the bytes that it stands for where that says more.
fn sized(number: u64, bytes: Option<u64>) -> String {
    match bytes {
        Some(bytes) if bytes != number || bytes >= 1024 => {
            format!("{number} ({})", human::bytes(bytes))
        }
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod test {
    use lsvd_common::cache_file::{CACHE_ENTRY_LAYOUT, CACHE_SUPERBLOCK_LAYOUT};
    use lsvd_common::layout::LAYOUTS;

    use super::*;

    #[test]
    fn every_field_of_every_layout_has_a_meaning_and_nothing_else_does() {
        for layout in LAYOUTS.iter().chain([&CACHE_SUPERBLOCK_LAYOUT, &CACHE_ENTRY_LAYOUT]) {
            let fields = layout.fields.iter().map(|field| field.name);
            let fields: Vec<&str> = fields.filter(|name| !name.starts_with("reserved")).collect();
            let known: Vec<&str> = entries(layout.name).iter().map(|(name, ..)| *name).collect();
            assert_eq!(known, fields, "{}", layout.name);
        }
    }

    #[test]
    fn values_are_shown_for_people_whatever_they_are() {
        let shown = |layout, field, raw: &[u8]| of(layout, field).shown(raw);
        assert_eq!(shown("Prefix", "kind", &[3]), "map part");
        assert_eq!(shown("Prefix", "kind", &[9]), "9, unknown");
        assert_eq!(shown("Prefix", "magic", b"LSVDobj\x01"), "LSVDobj\\x01");
        assert_eq!(shown("Extent", "lba", &[8, 0, 0, 0, 0, 0, 0, 0]), "8 (4 KiB)");
        assert_eq!(shown("Extent", "lba", &[0xff; 8]), "18446744073709551615");
        assert_eq!(shown("SuperblockFields", "region_shift", &[17]), "17 (64 MiB)");
        assert_eq!(shown("SuperblockFields", "region_shift", &[200]), "200");
        assert_eq!(shown("Prefix", "reserved", &[0]), "0");
        assert_eq!(shown("Prefix", "reserved", &[7]), "07");
        assert_eq!(shown("Prefix", "header_crc", &[1, 0, 0, 0xab]), "0xab000001");
        assert_eq!(
            shown("Prefix", "created_ms", &[0xff; 8]).len(),
            "584556019-04-03 14:25:51 UTC".len()
        );
    }
}
