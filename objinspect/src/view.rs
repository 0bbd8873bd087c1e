//! A structure in bytes, read through its layout.

use lsvd_common::layout::{Field, Layout};

use crate::meaning;
use crate::report::{FieldValue, Row, Structure, Value};

/// Bytes of one structure. Invariant: there are `layout.size` of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    layout: &'static Layout,
    bytes: &'a [u8],
    /// In the input.
    offset: u64,
}

impl<'a> View<'a> {
    /// The structure at the start of `bytes`; none if they are too few.
    pub(crate) fn new(layout: &'static Layout, bytes: &'a [u8], offset: u64) -> Option<Self> {
        let bytes = bytes.get(..layout.size)?;
        Some(Self { layout, bytes, offset })
    }

    /// A number of up to 8 bytes.
    pub(crate) fn number(&self, field: &str) -> u64 {
        little_endian(self.raw(field)).expect("callers ask for numbers only")
    }

    /// A count or length in memory. On a machine that cannot count that far, it is out of bounds
    /// all the same.
    pub(crate) fn length(&self, field: &str) -> usize {
        usize::try_from(self.number(field)).unwrap_or(usize::MAX)
    }

    pub(crate) fn raw(&self, field: &str) -> &'a [u8] {
        let found = self.layout.fields.iter().find(|candidate| candidate.name == field);
        let field = found.expect("callers ask for fields of the layout");
        &self.bytes[field.offset..field.offset + field.size]
    }

    /// As a row of a table.
    pub(crate) fn row(&self, meaning: String) -> Row {
        let fields = self.layout.fields.iter().filter(|field| !field.name.starts_with("reserved"));
        let value = |field: &Field| {
            let raw = &self.bytes[field.offset..field.offset + field.size];
            (field.name, meaning::of(self.layout.name, field.name).value(raw))
        };
        Row { offset: self.offset, values: fields.map(value).collect(), meaning }
    }
}

/// The fields of a structure that are there, for all or the first part of its bytes.
pub(crate) fn structure(
    name: &str,
    layout: &'static Layout,
    bytes: &[u8],
    offset: u64,
) -> Structure {
    let fields = layout.fields.iter().filter_map(|field| {
        let raw = bytes.get(field.offset..field.offset + field.size)?;
        let meaning = meaning::of(layout.name, field.name);
        Some(FieldValue {
            name: field.name,
            offset: offset + field.offset as u64,
            size: field.size,
            raw: hex(raw),
            value: meaning.value(raw),
            shown: meaning.shown(raw),
            meaning: meaning.text,
        })
    });
    Structure {
        name: name.to_owned(),
        layout: layout.name,
        offset,
        size: layout.size,
        fields: fields.collect(),
    }
}

/// A little-endian number; none above 8 bytes.
pub(crate) fn little_endian(raw: &[u8]) -> Option<u64> {
    let mut bytes = [0; 8];
    bytes.get_mut(..raw.len())?.copy_from_slice(raw);
    Some(u64::from_le_bytes(bytes))
}

pub(crate) fn hex(raw: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    raw.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// A row of plain numbers that no layout describes.
pub(crate) fn number_row(offset: u64, name: &'static str, value: u64, meaning: String) -> Row {
    Row { offset, values: vec![(name, Value::Number(value))], meaning }
}
