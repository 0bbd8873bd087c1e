//! The tables of every fixed structure, derived from the structures themselves: `docs/FORMAT.md` is
//! compared with them by a test, and inspectors print fields by them.

/// One fixed structure of a format.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The name, as in FORMAT.md.
    pub name: &'static str,
    /// Size in bytes.
    pub size: usize,
    /// The fields in order; together they cover the structure without a gap.
    pub fields: &'static [Field],
}

/// One field of a structure.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The name, as in FORMAT.md.
    pub name: &'static str,
    /// Offset in bytes from the start of the structure.
    pub offset: usize,
    /// Size in bytes.
    pub size: usize,
}

/// The size of a field, found from its accessor.
pub(crate) const fn field_size<T, F>(_: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// Declares the layout of a structure and asserts, at compile time, its size and that its fields
/// leave no gap.
macro_rules! layout {
    ($konst:ident, $name:ident, $size:literal, [$($field:ident),+ $(,)?]) => {
        /// The layout of this structure.
        pub const $konst: $crate::layout::Layout = $crate::layout::Layout {
            name: stringify!($name),
            size: size_of::<$name>(),
            fields: &[$($crate::layout::Field {
                name: stringify!($field),
                offset: std::mem::offset_of!($name, $field),
                size: $crate::layout::field_size(|s: &$name| &s.$field),
            }),+],
        };
        const _: () = {
            assert!(size_of::<$name>() == $size, "the size is part of the format");
            let fields = $konst.fields;
            let mut at = 0;
            let mut i = 0;
            while i < fields.len() {
                assert!(fields[i].offset == at, "fields follow each other without a gap");
                at += fields[i].size;
                i += 1;
            }
            assert!(at == $size, "fields cover the structure");
        };
    };
}
pub(crate) use layout;

/// Every fixed structure of every format.
pub const LAYOUTS: &[Layout] = &[
    crate::object::prefix::PREFIX_LAYOUT,
    crate::object::data::DATA_FIELDS_LAYOUT,
    crate::object::data::EXTENT_LAYOUT,
    crate::object::data::DISCARD_LAYOUT,
    crate::object::data::SOURCE_LAYOUT,
    crate::object::data::FRAME_LAYOUT,
    crate::object::map_part::MAP_PART_FIELDS_LAYOUT,
    crate::object::map_part::SECTION_LAYOUT,
    crate::object::map_part::REGION_HEAD_LAYOUT,
    crate::object::map_part::REGION_ENTRY_LAYOUT,
    crate::object::map_part::OBJECT_ROW_LAYOUT,
    crate::object::checkpoint::CHECKPOINT_FIELDS_LAYOUT,
    crate::object::checkpoint::SECTION_REF_LAYOUT,
    crate::object::superblock::SUPERBLOCK_FIELDS_LAYOUT,
    crate::object::superblock::OWNER_FIELDS_LAYOUT,
    crate::object::superblock::CHECKPOINT_ROW_LAYOUT,
    crate::object::superblock::SNAPSHOT_ROW_LAYOUT,
    crate::object::superblock::LINEAGE_ROW_LAYOUT,
    crate::object::superblock::CHILD_ROW_LAYOUT,
    crate::log::header::LOG_SUPERBLOCK_LAYOUT,
    crate::log::record::RECORD_HEADER_LAYOUT,
    crate::log::record::RECORD_ENTRY_LAYOUT,
    crate::cache_file::CACHE_SUPERBLOCK_LAYOUT,
    crate::cache_file::CACHE_ENTRY_LAYOUT,
];
