//! Frame tables of objects, needed to verify what is fetched: the most recently used ones, within a
//! fixed memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use lsvd_common::ids::ObjectSeq;
use lsvd_common::object::data::{DataHeader, FrameInfo};
use parking_lot::Mutex;

/// Memory for frame tables: those of about 4,000 objects, 32 GiB of data.
const BYTES_MAX: usize = 8 << 20;

/// Memory of an entry besides its frames.
const OVERHEAD: usize = 160;

/// The frames of one object, and the CRC of the header that they are from.
#[derive(Clone, Debug)]
pub(crate) struct FrameTable {
    pub(crate) fingerprint: u32,
    pub(crate) frames: Arc<[FrameInfo]>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct HeaderCache {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    tables: BTreeMap<ObjectSeq, (FrameTable, u64)>,
    by_use: BTreeMap<u64, ObjectSeq>,
    uses: u64,
    bytes: usize,
}

impl HeaderCache {
    pub(crate) fn get(&self, seq: ObjectSeq) -> Option<FrameTable> {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let (table, used) = inner.tables.get_mut(&seq)?;
        inner.uses += 1;
        inner.by_use.remove(used);
        inner.by_use.insert(inner.uses, seq);
        *used = inner.uses;
        Some(table.clone())
    }

    pub(crate) fn insert(&self, seq: ObjectSeq, fingerprint: u32, header: &DataHeader) {
        let table = FrameTable { fingerprint, frames: header.frames.as_slice().into() };
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        inner.uses += 1;
        inner.bytes += size_of_table(&table);
        inner.by_use.insert(inner.uses, seq);
        if let Some((old, used)) = inner.tables.insert(seq, (table, inner.uses)) {
            inner.by_use.remove(&used);
            inner.bytes -= size_of_table(&old);
        }
        while inner.bytes > BYTES_MAX {
            let Some((_, oldest)) = inner.by_use.pop_first() else { break };
            if let Some((old, _)) = inner.tables.remove(&oldest) {
                inner.bytes -= size_of_table(&old);
            }
        }
    }
}

fn size_of_table(table: &FrameTable) -> usize {
    OVERHEAD + table.frames.len() * size_of::<FrameInfo>()
}

#[cfg(test)]
mod test {
    use lsvd_common::ids::{Epoch, ImageId, WriteSeq};
    use lsvd_common::object::data::Codec;
    use lsvd_common::object::prefix::{ObjectId, ObjectKind};

    use super::*;

    #[test]
    fn the_least_recently_used_table_goes_first() {
        let frame = FrameInfo { stored_offset: 0, stored_len: 1, crc: 0, codec: Codec::Plain };
        let id = ObjectId {
            image: ImageId::default(),
            epoch: Epoch(1),
            seq: ObjectSeq(1),
            created_ms: 0,
        };
        let header = DataHeader {
            id,
            kind: ObjectKind::Data,
            first_write: WriteSeq(1),
            last_write: WriteSeq(1),
            extents: Vec::new(),
            discards: Vec::new(),
            sources: Vec::new(),
            frames: vec![frame; 4000],
            salt: [0; 16],
        };
        let cache = HeaderCache::default();
        let fits = BYTES_MAX / (OVERHEAD + 4000 * size_of::<FrameInfo>());
        cache.insert(ObjectSeq(0), 7, &header);
        for seq in 1..=fits as u64 {
            assert!(cache.get(ObjectSeq(0)).is_some_and(|table| table.fingerprint == 7));
            cache.insert(ObjectSeq(seq), 0, &header);
        }
        assert!(cache.get(ObjectSeq(0)).is_some());
        assert!(cache.get(ObjectSeq(1)).is_none());
        assert!(cache.get(ObjectSeq(2)).is_some());
    }
}
