//! `docs/FORMAT.md` says what the code does: every structure, magic, version, limit and domain is
//! compared in both directions, so that neither can change alone.

use std::collections::{BTreeMap, BTreeSet};

use lsvd_common::checksum::Domain;
use lsvd_common::layout::LAYOUTS;
use lsvd_common::log::record::RecordKind;
use lsvd_common::object::data::Codec;
use lsvd_common::object::prefix::ObjectKind;
use lsvd_common::{cache_file, limits, log, object};

const DOC: &str = include_str!("../../docs/FORMAT.md");
const LIMITS_SOURCE: &str = include_str!("../src/limits.rs");

/// A field: offset, size, name.
type Row = (usize, usize, String);

/// The cells of a table's line.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

/// The rows of the first table behind `heading`, below its two head lines.
fn table<'a>(heading: &str, head: &str) -> Vec<Vec<&'a str>> {
    let (_, behind) = DOC.split_once(heading).unwrap_or_else(|| panic!("{heading} is missing"));
    let mut lines = behind.lines().skip_while(|line| !line.starts_with('|'));
    assert_eq!(lines.next(), Some(head), "the table behind {heading}");
    lines.skip(1).map_while(cells).collect()
}

fn unquoted(cell: &str) -> &str {
    let name = cell.strip_prefix('`').and_then(|cell| cell.strip_suffix('`'));
    name.unwrap_or_else(|| panic!("{cell} is not in backticks"))
}

/// Every structure of the page: its size and its fields.
fn documented_structures() -> BTreeMap<String, (usize, Vec<Row>)> {
    let mut structures = BTreeMap::new();
    for line in DOC.lines().filter(|line| line.starts_with("Structure `")) {
        let mut words = line["Structure `".len()..].split(['`', ',', ' ']);
        let name = words.next().expect("a name").to_owned();
        let size = words.find_map(|word| word.parse().ok()).expect("a size in bytes");
        let rows = table(line, "| offset | size | field | meaning |")
            .into_iter()
            .map(|cells| {
                let [offset, size, field, meaning] = cells[..] else { panic!("{name}: {cells:?}") };
                let field = unquoted(field);
                let explained = !meaning.is_empty() || field.starts_with("reserved");
                assert!(explained, "{name}.{field} has no meaning");
                let number = |text: &str| text.parse().expect("a decimal number");
                (number(offset), number(size), field.to_owned())
            })
            .collect();
        let again = structures.insert(name.clone(), (size, rows));
        assert!(again.is_none(), "{name} is there twice");
    }
    structures
}

#[test]
fn every_structure_is_documented_as_it_is() {
    let mut documented = documented_structures();
    for layout in LAYOUTS {
        let (size, rows) = documented
            .remove(layout.name)
            .unwrap_or_else(|| panic!("FORMAT.md lacks {}", layout.name));
        assert_eq!(size, layout.size, "size of {}", layout.name);
        let fields = layout.fields.iter().map(|f| (f.offset, f.size, f.name.to_owned()));
        assert_eq!(rows, fields.collect::<Vec<_>>(), "fields of {}", layout.name);
    }
    let unknown: Vec<_> = documented.keys().collect();
    assert!(unknown.is_empty(), "FORMAT.md has structures that the code lacks: {unknown:?}");
}

#[test]
fn no_table_of_fields_is_outside_of_a_structure() {
    let tables = DOC.lines().filter(|line| line.starts_with("| offset |")).count();
    assert_eq!(tables, LAYOUTS.len());
}

#[test]
fn magics_and_versions_are_documented_as_they_are() {
    let formats = [
        ("numbered object", object::prefix::OBJECT_MAGIC, object::prefix::OBJECT_VERSION),
        (
            "superblock",
            object::superblock::SUPERBLOCK_MAGIC,
            object::superblock::SUPERBLOCK_VERSION,
        ),
        ("log superblock", log::header::LOG_MAGIC, log::header::LOG_VERSION),
        ("log record", log::record::RECORD_MAGIC, log::record::RECORD_VERSION),
        ("read cache", cache_file::MAGIC, cache_file::VERSION),
    ];
    let expected = formats.map(|(format, magic, version)| {
        let bytes = magic.map(|byte| format!("{byte:02x}")).join(" ");
        let text = String::from_utf8(magic.to_vec()).expect("ASCII");
        let magic = match text.strip_suffix('\u{1}') {
            Some(text) => format!("`{text}` and 1"),
            None => format!("`{text}`"),
        };
        vec![format.to_owned(), magic, format!("`{bytes}`"), version.to_string()]
    });
    let rows = table("## Magics and versions", "| format | magic | bytes | version |");
    assert_eq!(rows, expected);
    // The meaning of a magic field quotes it once more.
    for [_, magic, _, _] in expected.map(|row| <[String; 4]>::try_from(row).expect("four cells")) {
        assert!(DOC.contains(&format!("| `magic` | {magic}.")), "{magic}");
    }
}

#[test]
fn limits_are_documented_as_they_are() {
    macro_rules! values {
        ($($name:ident),+ $(,)?) => {
            [$((stringify!($name), u64::try_from(limits::$name).expect("64 bits"))),+]
        };
    }
    let expected = BTreeMap::from(values![
        IMAGE_SECTORS_MAX,
        IMAGE_SECTORS_MIN,
        OBJECT_BYTES_MAX,
        OBJECT_PAYLOAD_MAX,
        FRAME_BYTES,
        OBJECT_HEADER_MAX,
        RECORD_DATA_MAX,
        RECORD_ENTRIES_MAX,
        ENTRY_DATA_MAX,
        SUPERBLOCK_BYTES_MAX,
        CHECKPOINTS_KEPT,
        IMAGE_NAME_MAX,
        REGION_SHIFT_MIN,
        REGION_SHIFT_DEFAULT,
        REGION_SHIFT_MAX,
        REGIONS_MAX,
        OBJECT_SEQ_MAX,
        COUNTER_MAX,
        RING_PAGES_MAX,
        TABLE_SHIFT,
        RECORD_HEADER_MAX,
    ]);
    let rows = table("## Limits", "| limit | value | unit and reason |");
    let documented: BTreeMap<_, _> = rows
        .iter()
        .map(|row| (unquoted(row[0]), row[1].parse::<u64>().expect("a decimal number")))
        .collect();
    assert_eq!(documented, expected);
    assert_eq!(rows.len(), expected.len(), "a limit is there twice");
    assert!(rows.iter().all(|row| row[2].len() > 5), "a limit has a unit and a reason");
    // A limit that is new in the code must come here, too.
    let in_source: BTreeSet<_> = LIMITS_SOURCE
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.split(':').next())
        .filter(|name| !name.contains("fn "))
        .collect();
    assert_eq!(in_source, expected.keys().copied().collect());
}

/// Words in backticks and capitals, as names of limits are.
#[test]
fn no_limit_is_quoted_that_does_not_exist() {
    let is_name = |word: &&str| {
        word.len() > 1
            && word.contains('_')
            && word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
    };
    for name in DOC.split('`').skip(1).step_by(2).filter(is_name) {
        assert!(LIMITS_SOURCE.contains(&format!("pub const {name}:")), "{name}");
    }
}

#[test]
fn checksum_domains_are_documented_as_they_are() {
    let expected = [Domain::Header, Domain::Data, Domain::Section]
        .map(|domain| [format!("`{domain:?}`"), format!("`{:#010x}`", domain as u32)]);
    let rows = table("## Checksums", "| domain | value | of |");
    let documented: Vec<_> =
        rows.iter().map(|row| [row[0].to_owned(), row[1].to_owned()]).collect();
    assert_eq!(documented, expected);
    assert_eq!(lsvd_common::checksum::crc(Domain::Header, b"123456789"), 0xe306_9283);
    assert!(DOC.contains("`\"123456789\"` gives `0xe3069283`"));
}

#[test]
fn values_of_kinds_are_documented_as_they_are() {
    use ObjectKind::{Checkpoint, Data, MapPart, Moved};
    let kinds = format!(
        "{} data, {} moved, {} map part, {} checkpoint.",
        Data as u8, Moved as u8, MapPart as u8, Checkpoint as u8
    );
    let records = format!("{} writes, {} skip.", RecordKind::Writes as u8, RecordKind::Skip as u8);
    let codec = format!("{}: stored as it is.", Codec::Plain as u8);
    for (field, values) in [("kind", &kinds), ("kind", &records), ("codec", &codec)] {
        assert!(DOC.contains(&format!("| `{field}` | {values}")), "{values}");
    }
}

#[test]
fn known_features_are_documented_as_they_are() {
    let rows = table("## Feature flags", "| class | an unknown bit means | known bits |");
    let known: Vec<_> = rows.iter().map(|row| (unquoted(row[0]), row[2].to_owned())).collect();
    let mask = |bits: u64| format!("`{bits:#x}`");
    let expected = [
        ("feature_compat", "none".to_owned()),
        ("feature_ro_compat", mask(object::superblock::RO_COMPAT_KNOWN)),
        ("feature_incompat", mask(object::superblock::INCOMPAT_KNOWN)),
    ];
    assert_eq!(known, expected);
}
