//! What was found: plain data, the same for people and for programs.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// What the bytes are, by their magic or because somebody said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// A numbered object whose kind is unknown.
    Object,
    /// A sealed batch.
    Data,
    /// Live data moved by garbage collection.
    Moved,
    /// Sections of a map.
    MapPart,
    /// The index of a map.
    Checkpoint,
    /// The root of an image.
    Superblock,
    /// A write log.
    Log,
    /// A gateway's read cache.
    Cache,
    /// None of ours.
    Unknown,
}

impl Format {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Object => "object of unknown kind",
            Self::Data => "data object",
            Self::Moved => "data object, moved by garbage collection",
            Self::MapPart => "map part",
            Self::Checkpoint => "checkpoint",
            Self::Superblock => "superblock",
            Self::Log => "write log",
            Self::Cache => "read cache",
            Self::Unknown => "unknown format",
        }
    }
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was looked at.
    pub source: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// What it is.
    pub format: Format,
    /// Nothing is wrong with it.
    pub whole: bool,
    /// Structures and tables in the order of the bytes.
    pub parts: Vec<Part>,
    /// What was verified.
    pub checks: Vec<Check>,
    /// What else is worth knowing, in sentences.
    pub notes: Vec<String>,
    /// Where decoding ended before the end of the bytes, and why.
    pub stopped: Option<Stopped>,
}

/// A part of the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "part", rename_all = "kebab-case")]
pub enum Part {
    /// One structure.
    Structure(Structure),
    /// Many structures of one layout.
    Table(Table),
}

/// One structure, field by field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Structure {
    /// What it is here.
    pub name: String,
    /// Its layout, as in FORMAT.md.
    pub layout: &'static str,
    /// Where it starts, in bytes from the start of the input.
    pub offset: u64,
    /// Its size in bytes.
    pub size: usize,
    /// Its fields, as many as there are bytes for.
    pub fields: Vec<FieldValue>,
}

/// One field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldValue {
    /// Its name, as in FORMAT.md.
    pub name: &'static str,
    /// Where it is, in bytes from the start of the input.
    pub offset: u64,
    /// Its size in bytes.
    pub size: usize,
    /// Its bytes in hexadecimal, in the order of the medium.
    pub raw: String,
    /// What they say.
    pub value: Value,
    /// The value for people.
    pub shown: String,
    /// What the field is for.
    pub meaning: &'static str,
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A little-endian number.
    Number(u64),
    /// Anything else.
    Text(String),
}

/// Rows of one layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Table {
    /// What they are here.
    pub name: String,
    /// Their layout, as in FORMAT.md; empty for plain numbers.
    pub layout: &'static str,
    /// Where the first is, in bytes from the start of the input.
    pub offset: u64,
    /// How many there are.
    pub count: u64,
    /// The first of them, or all.
    pub rows: Vec<Row>,
}

/// One row of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where it is, in bytes from the start of the input.
    pub offset: u64,
    /// Its fields but the reserved ones.
    pub values: Vec<(&'static str, Value)>,
    /// What it says.
    pub meaning: String,
}

/// Something that was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub what: String,
    /// Where it is, in bytes from the start of the input.
    pub at: u64,
    /// Whether it holds.
    pub ok: bool,
    /// What was expected and found, or what was looked at.
    pub detail: String,
}

/// Where decoding ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stopped {
    /// In bytes from the start of the input.
    pub at: u64,
    /// Why.
    pub why: String,
    /// Something is wrong; false for the ordinary end of a log.
    pub damage: bool,
}

impl Report {
    pub(crate) fn new(source: &str, bytes: u64) -> Self {
        Self {
            source: source.to_owned(),
            bytes,
            format: Format::Unknown,
            whole: true,
            parts: Vec::new(),
            checks: Vec::new(),
            notes: Vec::new(),
            stopped: None,
        }
    }

    pub(crate) fn check(&mut self, what: impl Into<String>, at: u64, ok: bool, detail: String) {
        self.whole &= ok;
        self.checks.push(Check { what: what.into(), at, ok, detail });
    }

    /// The first reason to stop is the one that counts.
    pub(crate) fn stop(&mut self, at: u64, why: String, damage: bool) {
        self.whole &= !damage;
        self.stopped.get_or_insert(Stopped { at, why, damage });
    }
}

/// One flat object: `at` (a field may be called `offset`), the fields, `meaning`.
impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.values.len() + 2))?;
        map.serialize_entry("at", &self.offset)?;
        for (name, value) in &self.values {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("meaning", &self.meaning)?;
        map.end()
    }
}
