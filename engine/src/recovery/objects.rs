//! What the store has of an image: the newest whole checkpoint, then the objects behind it up to
//! the first gap.
//!
//! Objects are put in parallel, so a crash leaves gaps; what is behind one does not count, and is
//! replaced when a new object gets its name. It is never deleted: a delete whose answer is lost may
//! happen much later, and hit the new object under that name. An object of an older epoch than the
//! fence at its place is the work of a writer that was fenced, and ends the stream as a gap does.
//! What is damaged is never skipped: the image is not opened.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use lsvd_common::codec::DecodeError;
use lsvd_common::ids::{Epoch, ObjectSeq, WriteSeq};
use lsvd_common::name::{ImageName, ObjectName};
use lsvd_common::object::checkpoint::{Checkpoint, SectionRef};
use lsvd_common::object::data::DataHeader;
use lsvd_common::object::map_part::{SectionKey, check_section, decode_region, decode_table};
use lsvd_common::object::prefix::{self, ObjectId, ObjectKind, check_place};
use lsvd_common::object::superblock::{CheckpointName, Superblock};
use lsvd_common::units::Sector;
use lsvd_store::{ErrorKind as StoreKind, ObjectStore};
use tokio::task::JoinHandle;

use crate::destage::{apply_to, parts, row_of};
use crate::error::{Error, ErrorKind, Result};
use crate::map::{ExtentMap, Location};
use crate::options::VolumeOptions;
use crate::table::ObjectTable;

/// Requests to the store at one time.
const PARALLEL: usize = 32;

/// First read of an object's header: most headers fit.
const HEADER_GUESS: u64 = 64 << 10;

/// Names that one listing request returns.
const LIST_PAGE: usize = 1000;

/// The image as the store has it.
#[derive(Debug)]
pub(super) struct StoreState {
    pub(super) map: ExtentMap,
    pub(super) table: ObjectTable,
    pub(super) sections: BTreeMap<SectionKey, SectionRef>,
    pub(super) checkpoint: Option<ObjectSeq>,
    pub(super) last_write: WriteSeq,
    /// The sequence behind the last object that counts.
    pub(super) next_object: ObjectSeq,
    /// Data objects behind the checkpoint, and their bytes.
    pub(super) progress_objects: u64,
    pub(super) progress_bytes: u64,
    /// How many objects are behind a gap.
    pub(super) leftovers: u64,
}

/// Reads everything that counts.
pub(super) async fn recover(
    store: &Arc<dyn ObjectStore>,
    name: &ImageName,
    superblock: &Superblock,
    options: &VolumeOptions,
) -> Result<StoreState> {
    let reader = Reader { store, name, superblock, options };
    let mut state = reader.newest_checkpoint().await?;
    reader.replay(&mut state).await?;
    let named = superblock.checkpoints.first().map(|checkpoint| checkpoint.seq);
    if named.is_some_and(|named| named >= state.next_object) {
        let context = format!(
            "object {} of image {name} is missing: the superblock names a checkpoint behind it",
            name.numbered(state.next_object)
        );
        return Err(Error::new(ErrorKind::Corrupt, context));
    }
    if state.table.live_sectors() != state.map.mapped_sectors().0 {
        let context = format!(
            "the map of image {name} refers to {} sectors, its objects count {} as live",
            state.map.mapped_sectors().0,
            state.table.live_sectors()
        );
        return Err(Error::new(ErrorKind::Corrupt, context));
    }
    Ok(state)
}

struct Reader<'a> {
    store: &'a Arc<dyn ObjectStore>,
    name: &'a ImageName,
    superblock: &'a Superblock,
    options: &'a VolumeOptions,
}

impl Reader<'_> {
    fn empty(&self) -> StoreState {
        StoreState {
            map: ExtentMap::new(self.superblock.region_shift.into()),
            table: ObjectTable::default(),
            sections: BTreeMap::new(),
            checkpoint: None,
            last_write: WriteSeq(0),
            next_object: ObjectSeq(1),
            progress_objects: 0,
            progress_bytes: 0,
            leftovers: 0,
        }
    }

    /// The state at the newest checkpoint that is whole; without one, at the beginning if
    /// everything since is there.
    async fn newest_checkpoint(&self) -> Result<StoreState> {
        let mut damage = None;
        for named in &self.superblock.checkpoints {
            match self.load(named).await {
                Ok(state) => return Ok(state),
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
                    let (image, error_text) = (self.name, error.report());
                    tracing::warn!(%image, checkpoint = %named.seq, error = error_text,
                        "a checkpoint is damaged; recovery starts from an earlier one");
                    damage = Some(error.as_kind(ErrorKind::Corrupt));
                }
                Err(error) => return Err(error),
            }
        }
        if self.superblock.floor > ObjectSeq(1) {
            return Err(damage.unwrap_or_else(|| {
                let context = format!(
                    "image {} has no checkpoint, and objects from its beginning were deleted",
                    self.name
                );
                Error::new(ErrorKind::Corrupt, context)
            }));
        }
        Ok(self.empty())
    }

    async fn load(&self, named: &CheckpointName) -> Result<StoreState> {
        let key = self.name.numbered(named.seq);
        let corrupt = |error| Error::corrupt(format!("checkpoint {key} is damaged"), error);
        let object = self.store.get(&key).await;
        let object =
            object.map_err(|error| Error::store(format!("read checkpoint {key}"), error))?;
        let checkpoint = Checkpoint::decode(&object.body).map_err(corrupt)?;
        check_place(&checkpoint.id, self.superblock.image, named.seq).map_err(corrupt)?;
        if checkpoint.region_shift != self.superblock.region_shift {
            let context = format!("checkpoint {key} has another region size than its image");
            return Err(Error::new(ErrorKind::Corrupt, context));
        }
        let mut state = self.empty();
        let sections = self.sections(&checkpoint).await?;
        // The object table first: regions refer to it.
        for (section, bytes) in sections.iter().rev() {
            match section.key {
                SectionKey::Objects(_) => {
                    for row in decode_table(bytes).map_err(corrupt)? {
                        state.table.load(row);
                    }
                }
                SectionKey::Region(index) => self.load_region(&mut state, index, bytes, &key)?,
            }
        }
        state.checkpoint = Some(named.seq);
        state.last_write = checkpoint.last_write;
        state.next_object = checkpoint.covers.next();
        state.sections = checkpoint.sections.into_iter().map(|s| (s.key, s)).collect();
        Ok(state)
    }

    fn load_region(
        &self,
        state: &mut StoreState,
        index: u32,
        bytes: &[u8],
        key: &str,
    ) -> Result<()> {
        let corrupt = |error| Error::corrupt(format!("checkpoint {key} is damaged"), error);
        let shift = self.superblock.region_shift;
        let extents = decode_region(index, shift, bytes).map_err(corrupt)?;
        let mut entries = Vec::with_capacity(extents.len());
        for extent in extents {
            let slot = state.table.slot_of(extent.object).ok_or_else(|| {
                let context = format!(
                    "checkpoint {key} is damaged: region {index} refers to object {} that its \
                     object table lacks",
                    extent.object
                );
                Error::new(ErrorKind::Corrupt, context)
            })?;
            let behind = extent.offset + extent.len;
            let in_image = extent.start + extent.len <= Sector(self.superblock.size.0);
            let fits = in_image && behind <= state.table.row(slot).payload;
            let offset = u32::try_from(extent.offset.0).ok().filter(|_| fits);
            let offset = offset
                .ok_or_else(|| corrupt(DecodeError::range("extent in image and object", 0)))?;
            entries.push((extent.start, extent.len, Location { slot, offset }));
        }
        state.map.load_region(index, entries).map_err(|error| {
            Error::with(ErrorKind::Corrupt, format!("checkpoint {key} is damaged"), error)
        })
    }

    /// The bytes of every section, verified: one read for each map part that is needed.
    async fn sections(&self, checkpoint: &Checkpoint) -> Result<Vec<(SectionRef, Bytes)>> {
        let mut by_part: BTreeMap<ObjectSeq, Vec<SectionRef>> = BTreeMap::new();
        for section in &checkpoint.sections {
            by_part.entry(section.seq).or_default().push(*section);
        }
        let read = by_part.into_iter().map(|(seq, sections)| {
            let start = sections.iter().map(|s| u64::from(s.offset)).min().unwrap_or(0);
            let end = sections.iter().map(|s| u64::from(s.offset) + u64::from(s.len)).max();
            let (store, key) = (Arc::clone(self.store), self.name.numbered(seq));
            let len = end.unwrap_or(start) - start;
            async move {
                let span = store.get_range(&key, start, len).await;
                (sections, start, span.map_err(|error| lost(format!("read map part {key}"), error)))
            }
        });
        let mut loaded = BTreeMap::new();
        for (sections, start, span) in in_parallel(self.options, read).await? {
            let span = span?;
            for section in sections {
                let at = usize::try_from(u64::from(section.offset) - start).unwrap_or(usize::MAX);
                let bytes = span.slice(at..at + section.len as usize);
                check_section(section.crc, &bytes).map_err(|error| {
                    let key = self.name.numbered(section.seq);
                    Error::corrupt(
                        format!("map part {key} is damaged at {}", section.offset),
                        error,
                    )
                })?;
                loaded.insert(section.key, (section, bytes));
            }
        }
        Ok(loaded.into_values().collect())
    }

    /// Applies the objects behind the checkpoint, in order, up to the first gap.
    async fn replay(&self, state: &mut StoreState) -> Result<()> {
        let listed = self.list(state.next_object).await?;
        let mut stream = Vec::new();
        for (index, (seq, size)) in listed.iter().enumerate() {
            if seq.0 != state.next_object.0 + index as u64 && !self.over_gap() {
                break;
            }
            stream.push((*seq, *size));
        }
        let read = stream.into_iter().map(|(seq, size)| {
            let (store, key) = (Arc::clone(self.store), self.name.numbered(seq));
            async move { (seq, header(&*store, &key, size).await) }
        });
        let mut epoch = Epoch(0);
        for (seq, found) in in_parallel(self.options, read).await? {
            let found = match found {
                Ok(found) => found,
                // A checkpoint carries no data: the spare one must get past the one that it stands
                // in for.
                Err(error) if error.kind() == ErrorKind::Corrupt && self.is_checkpoint(seq) => {
                    state.next_object = seq.next();
                    continue;
                }
                Err(error) => return Err(error),
            };
            if !self.counts(&found.id, epoch) {
                break;
            }
            epoch = found.id.epoch;
            let key = self.name.numbered(seq);
            let corrupt = |error| Error::corrupt(format!("object {key} is damaged"), error);
            check_place(&found.id, self.superblock.image, seq).map_err(corrupt)?;
            if let Some((data, fingerprint)) = &found.data {
                self.replay_data(state, data, *fingerprint, &key)?;
            }
            state.next_object = seq.next();
        }
        state.leftovers = listed.iter().filter(|(seq, _)| *seq >= state.next_object).count() as u64;
        Ok(())
    }

    /// True if the superblock says so, whatever the object itself says.
    fn is_checkpoint(&self, seq: ObjectSeq) -> bool {
        self.superblock.checkpoints.iter().any(|named| named.seq == seq)
    }

    #[cfg(feature = "canary")]
    fn over_gap(&self) -> bool {
        self.options.canary == Some(crate::options::Canary::ReplayOverGap)
    }

    #[cfg(not(feature = "canary"))]
    fn over_gap(&self) -> bool {
        false
    }

    /// False for the work of a writer that was fenced, or of a deleted image of the same name.
    fn counts(&self, id: &ObjectId, epoch_before: Epoch) -> bool {
        let fence = self.superblock.fence;
        let fenced = id.seq >= fence.seq && id.epoch < fence.epoch;
        id.image == self.superblock.image && !fenced && id.epoch >= epoch_before
    }

    fn replay_data(
        &self,
        state: &mut StoreState,
        data: &DataHeader,
        fingerprint: u32,
        key: &str,
    ) -> Result<()> {
        if data.kind != ObjectKind::Data {
            let context = format!(
                "object {key} was written by garbage collection, which this version does not know"
            );
            return Err(Error::new(ErrorKind::Invalid, context));
        }
        let inside =
            |range: &lsvd_common::units::SectorRange| range.end().0 <= self.superblock.size.0;
        let in_image = data.extents.iter().chain(&data.discards).all(inside);
        let in_order = data.first_write == state.last_write.next() || self.over_gap();
        if !in_image || !in_order {
            let context = format!(
                "object {key} does not fit: it covers writes {} to {}, the object before it ends \
                 with write {}",
                data.first_write, data.last_write, state.last_write
            );
            return Err(Error::new(ErrorKind::Corrupt, context));
        }
        let slot = state.table.add(row_of(data, fingerprint));
        apply_to(&mut state.map, &mut state.table, slot, &parts(data));
        state.last_write = data.last_write;
        state.progress_objects += 1;
        state.progress_bytes += data.object_len() as u64;
        Ok(())
    }

    /// All numbered objects from `first` on, in order.
    async fn list(&self, first: ObjectSeq) -> Result<Vec<(ObjectSeq, u64)>> {
        let prefix = self.name.prefix();
        let mut after = first.previous().map(|seq| self.name.numbered(seq));
        let mut found = Vec::new();
        loop {
            let page = self.store.list(&prefix, None, after.as_deref(), LIST_PAGE).await;
            let page = page.map_err(|error| {
                Error::store(format!("list the objects of image {}", self.name), error)
            })?;
            for (key, size) in &page.objects {
                if let Some(ObjectName::Numbered(_, seq)) = ObjectName::parse(key) {
                    found.push((seq, *size));
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(found),
            }
        }
    }
}

/// A verified header of any kind.
struct Found {
    id: ObjectId,
    data: Option<(DataHeader, u32)>,
}

/// Reads the header of a listed object. A gateway that was taken over and does not know it yet may
/// replace a leftover between listing and reading: what looks damaged is judged by its size of now.
async fn header(store: &dyn ObjectStore, key: &str, listed: u64) -> Result<Found> {
    let found = header_of_size(store, key, listed).await;
    if !found.as_ref().is_err_and(|error| error.kind() == ErrorKind::Corrupt) {
        return found;
    }
    match store.head(key).await {
        Ok(now) if now.size != listed => header_of_size(store, key, now.size).await,
        _ => found,
    }
}

async fn header_of_size(store: &dyn ObjectStore, key: &str, size: u64) -> Result<Found> {
    let read = |error| lost(format!("read object {key}"), error);
    let corrupt = |error| Error::corrupt(format!("object {key} is damaged"), error);
    let mut bytes = store.get_range(key, 0, size.min(HEADER_GUESS)).await.map_err(read)?;
    let peeked = prefix::peek(&bytes).map_err(corrupt)?;
    if peeked.header_len > bytes.len() && peeked.header_len as u64 <= size {
        bytes = store.get_range(key, 0, peeked.header_len as u64).await.map_err(read)?;
    }
    let id = prefix::identify(&bytes).map_err(corrupt)?;
    let data = match peeked.kind {
        ObjectKind::Data | ObjectKind::Moved => Some(DataHeader::decode(&bytes).map_err(corrupt)?),
        ObjectKind::MapPart | ObjectKind::Checkpoint => None,
    };
    if let Some((header, _)) = &data
        && header.object_len() as u64 != size
    {
        let context = format!(
            "object {key} is damaged: it has {size} bytes, its header says {}",
            header.object_len()
        );
        return Err(Error::new(ErrorKind::Corrupt, context));
    }
    Ok(Found { id, data })
}

/// An object that was listed or named and cannot be read for good is damage.
fn lost(context: String, error: lsvd_store::StoreError) -> Error {
    let gone = matches!(error.kind(), StoreKind::NotFound | StoreKind::Invalid);
    let error = Error::store(context, error);
    if gone { error.as_kind(ErrorKind::Corrupt) } else { error }
}

/// Runs futures on the backend runtime, a fixed number at a time, and returns their results in
/// order.
async fn in_parallel<F>(
    options: &VolumeOptions,
    futures: impl Iterator<Item = F>,
) -> Result<Vec<F::Output>>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let mut running: VecDeque<AbortOnDrop<F::Output>> = VecDeque::new();
    let mut done = Vec::new();
    let ended = |error| Error::with(ErrorKind::Failed, "a recovery task ended", error);
    for future in futures {
        if running.len() >= PARALLEL
            && let Some(mut first) = running.pop_front()
        {
            done.push((&mut first.0).await.map_err(ended)?);
        }
        running.push_back(AbortOnDrop(options.backend.spawn(future)));
    }
    for mut task in running {
        done.push((&mut task.0).await.map_err(ended)?);
    }
    Ok(done)
}

struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
