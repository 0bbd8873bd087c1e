//! What the image must contain: every operation in the order of the writes, and which of them may
//! be lost by what.
//!
//! The engine gives write sequences in the order of calls and starts every term behind the last
//! write that it recovered, so operation `n` (counted from 1) of this list is the one with write
//! sequence `n`. A state of the image is a number of operations, `k`: the state after the first `k`
//! of them.
//!
//! Invariants: 1. `stored <= flushed <= applied <= operations`. 2. Every sector of the image was
//! written by one operation or is zero, and says by which: a stamp is used once in a run, also if
//! the sequence of its operation is used again.

use std::fmt;

use bytes::{Bytes, BytesMut};
use lsvd_common::units::SECTOR_LEN;

/// Identity of an operation in a run; 0 stands for zeros.
pub(crate) type Stamp = u64;

/// A write, or a discard if its stamp is 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) start: u32,
    pub(crate) len: u32,
    pub(crate) stamp: Stamp,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    operations: Vec<Operation>,
    /// Operations that are known to be applied: acknowledged, or seen by a read.
    applied: usize,
    /// The contents after those.
    contents: Vec<Stamp>,
    /// Operations that an acknowledged flush covers.
    flushed: usize,
    /// Operations that the store has for good.
    stored: usize,
    /// Operations that some durable log record speaks of as durable: losing them cannot go
    /// unnoticed.
    witnessed: usize,
    /// The term was taken over with so many operations; acknowledging more as stored is a lie.
    taken_over: Option<usize>,
    /// Resizes asked for so far, and the sizes in sectors of those that were not answered, by
    /// their number: the next recovery may find any of them.
    resizes: usize,
    asked_sizes: Vec<(usize, u32)>,
    next_stamp: Stamp,
}

/// A read in progress: what each sector may be.
#[derive(Debug)]
pub(crate) struct ReadCheck {
    start: u32,
    /// Operations applied for sure when the read began, and the contents after those.
    floor: usize,
    before: Vec<Stamp>,
}

/// What is wrong with the contents of a sector.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WrongSector {
    sector: u32,
    /// None if the bytes are no stamp at all.
    found: Option<Stamp>,
    expected: Stamp,
}

impl Model {
    pub(crate) fn new(sectors: u32) -> Self {
        Self {
            operations: Vec::new(),
            applied: 0,
            contents: vec![0; sectors as usize],
            flushed: 0,
            stored: 0,
            witnessed: 0,
            taken_over: None,
            resizes: 0,
            asked_sizes: Vec::new(),
            next_stamp: 1,
        }
    }

    pub(crate) fn sectors(&self) -> u32 {
        self.contents.len() as u32
    }

    pub(crate) fn operations(&self) -> usize {
        self.operations.len()
    }

    pub(crate) fn applied(&self) -> usize {
        self.applied
    }

    pub(crate) fn flushed(&self) -> usize {
        self.flushed
    }

    pub(crate) fn stored(&self) -> usize {
        self.stored
    }

    pub(crate) fn witnessed(&self) -> usize {
        self.witnessed
    }

    pub(crate) fn taken_over(&self) -> Option<usize> {
        self.taken_over
    }

    /// A write is about to be submitted; returns its place in the order and its data.
    pub(crate) fn write(&mut self, start: u32, len: u32) -> (usize, Bytes) {
        let stamp = self.next_stamp;
        self.next_stamp += 1;
        self.operations.push(Operation { start, len, stamp });
        (self.operations.len(), data_of(stamp, start, len))
    }

    /// A discard is about to be submitted; returns its place in the order.
    pub(crate) fn discard(&mut self, start: u32, len: u32) -> usize {
        self.operations.push(Operation { start, len, stamp: 0 });
        self.operations.len()
    }

    /// Operations up to `count` were applied.
    pub(crate) fn apply(&mut self, count: usize) {
        while self.applied < count.min(self.operations.len()) {
            apply(&mut self.contents, &self.operations[self.applied]);
            self.applied += 1;
        }
    }

    /// A flush that covers `count` operations was acknowledged.
    pub(crate) fn flush(&mut self, count: usize) {
        self.flushed = self.flushed.max(count);
    }

    /// The store has `count` operations for good.
    pub(crate) fn store(&mut self, count: usize) {
        self.stored = self.stored.max(count);
        self.flushed = self.flushed.max(count);
    }

    /// The image was closed: the store has everything.
    pub(crate) fn store_all(&mut self) {
        self.store(self.applied);
    }

    /// A record was written that knows of `count` flushed operations.
    pub(crate) fn witness(&mut self, count: usize) {
        self.witnessed = self.witnessed.max(count);
    }

    /// Another gateway took the image over with `count` operations of this one.
    pub(crate) fn take_over(&mut self, count: usize) {
        self.taken_over = Some(count);
    }

    /// A resize to so many sectors is about to be submitted; returns its place among the resizes.
    pub(crate) fn ask_size(&mut self, sectors: u32) -> usize {
        self.resizes += 1;
        self.asked_sizes.push((self.resizes, sectors));
        self.resizes
    }

    /// A resize was refused: it never happens.
    pub(crate) fn refuse_size(&mut self, resize: usize) {
        self.asked_sizes.retain(|(asked, _)| *asked != resize);
    }

    /// A resize was acknowledged. Those before it cannot happen any more.
    pub(crate) fn resize(&mut self, resize: usize, sectors: u32) {
        self.contents.resize(sectors as usize, 0);
        self.asked_sizes.retain(|(asked, _)| *asked > resize);
    }

    /// A recovery found so many sectors.
    pub(crate) fn recovered_size(&mut self, sectors: u32) {
        self.resize(self.resizes, sectors);
    }

    /// True if some resize is without an answer.
    pub(crate) fn is_size_open(&self) -> bool {
        self.asked_sizes.iter().any(|(_, asked)| *asked != self.sectors())
    }

    /// True if a recovery may find so many sectors.
    pub(crate) fn may_have_size(&self, sectors: u32) -> bool {
        let asked = || self.asked_sizes.iter().any(|(_, asked)| *asked == sectors);
        sectors == self.sectors() || asked()
    }

    /// The image was recovered with the first `count` operations; those behind it never happened.
    /// What was read from now on must stay, so it counts as flushed.
    pub(crate) fn recovered(&mut self, count: usize) {
        self.operations.truncate(count);
        self.contents = self.contents_at(count);
        self.applied = count;
        self.flushed = count;
        self.witnessed = self.witnessed.min(count);
        self.taken_over = None;
    }

    /// The contents after the first `count` operations.
    pub(crate) fn contents_at(&self, count: usize) -> Vec<Stamp> {
        let (mut contents, from) = if count >= self.applied {
            (self.contents.clone(), self.applied)
        } else {
            (vec![0; self.contents.len()], 0)
        };
        for operation in &self.operations[from..count] {
            apply(&mut contents, operation);
        }
        contents
    }

    /// Which states equal what was read of the whole image.
    pub(crate) fn states_like(&self, found: &[Stamp]) -> Vec<usize> {
        let mut contents = vec![0; self.contents.len()];
        let mut wrong = found.iter().filter(|stamp| **stamp != 0).count();
        let mut states = Vec::new();
        for count in 0..=self.operations.len() {
            if count > 0 {
                let operation = &self.operations[count - 1];
                let range = operation.start as usize..(operation.start + operation.len) as usize;
                for sector in range {
                    wrong -= usize::from(contents[sector] != found[sector]);
                    contents[sector] = operation.stamp;
                    wrong += usize::from(contents[sector] != found[sector]);
                }
            }
            if wrong == 0 {
                states.push(count);
            }
        }
        states
    }

    /// A read is about to be submitted.
    pub(crate) fn begin_read(&self, start: u32, len: u32) -> ReadCheck {
        let range = start as usize..(start + len) as usize;
        ReadCheck { start, floor: self.applied, before: self.contents[range].to_vec() }
    }

    /// Checks what a read returned: in each sector what was there when it began, or what was
    /// submitted since.
    pub(crate) fn end_read(&mut self, read: &ReadCheck, data: &[u8]) -> Result<(), WrongSector> {
        let mut seen = 0;
        for (index, bytes) in data.chunks(SECTOR_LEN).enumerate() {
            let sector = read.start + index as u32;
            let expected = read.before[index];
            let found = stamp_of(bytes, sector);
            if found == Some(expected) {
                continue;
            }
            let writer = found.and_then(|found| {
                let since = &self.operations[read.floor.min(self.operations.len())..];
                since.iter().position(|operation| {
                    operation.stamp == found
                        && (operation.start..operation.start + operation.len).contains(&sector)
                })
            });
            let Some(writer) = writer else { return Err(WrongSector { sector, found, expected }) };
            // Zeros may be older than the newest discard; only a stamp proves that its write was
            // applied.
            if found != Some(0) {
                seen = seen.max(read.floor + writer + 1);
            }
        }
        self.apply(seen);
        Ok(())
    }
}

impl fmt::Display for WrongSector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sector, found, expected } = self;
        match found {
            None => write!(f, "sector {sector} holds bytes that nobody wrote there")?,
            Some(0) => write!(f, "sector {sector} holds zeros")?,
            Some(stamp) => write!(f, "sector {sector} holds stamp {stamp}")?,
        }
        write!(f, ", expected stamp {expected} or what was written during the read")
    }
}

fn apply(contents: &mut [Stamp], operation: &Operation) {
    let range = operation.start as usize..(operation.start + operation.len) as usize;
    contents[range].fill(operation.stamp);
}

/// The data of a write: every sector repeats its stamp and its own address.
pub(crate) fn data_of(stamp: Stamp, start: u32, len: u32) -> Bytes {
    let mut data = BytesMut::zeroed(len as usize * SECTOR_LEN);
    for (index, sector) in data.chunks_mut(SECTOR_LEN).enumerate() {
        sector[..8].copy_from_slice(&stamp.to_le_bytes());
        sector[8..16].copy_from_slice(&(u64::from(start) + index as u64).to_le_bytes());
        let mut filled = 16;
        while filled < SECTOR_LEN {
            sector.copy_within(..filled, filled);
            filled *= 2;
        }
    }
    data.freeze()
}

/// The stamp of a sector's contents; none if they are not what some operation put there.
pub(crate) fn stamp_of(bytes: &[u8], sector: u32) -> Option<Stamp> {
    let (head, rest) = bytes.split_at(16);
    if rest != &bytes[..SECTOR_LEN - 16] {
        return None;
    }
    let number = |at: usize| head[at..at + 8].iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
    match (number(0), number(8)) {
        (0, 0) => Some(0),
        (stamp, address) => (stamp != 0 && address == u64::from(sector)).then_some(stamp),
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_sector_names_its_writer_and_its_place() {
        let data = data_of(7, 3, 2);
        assert_eq!(stamp_of(&data[..512], 3), Some(7));
        assert_eq!(stamp_of(&data[512..], 4), Some(7));
        assert_eq!(stamp_of(&data[512..], 3), None, "data of another sector");
        let mut torn = data[..512].to_vec();
        torn[300] ^= 1;
        assert_eq!(stamp_of(&torn, 3), None);
        assert_eq!(stamp_of(&[0; 512], 9), Some(0));
    }

    #[test]
    fn the_states_that_equal_an_image_are_found() {
        let mut model = Model::new(8);
        model.write(0, 4);
        model.discard(6, 2);
        model.write(2, 4);
        let after_first = model.contents_at(1);
        // The discard of what was zero changes nothing.
        assert_eq!(model.states_like(&after_first), [1, 2]);
        assert_eq!(model.states_like(&model.contents_at(3)), [3]);
        let hole = [0, 0, 2, 2, 2, 2, 0, 0];
        assert!(model.states_like(&hole).is_empty(), "the second write without the first");
    }

    #[test]
    fn a_size_is_the_one_that_was_acknowledged_or_one_that_was_asked_for_since() {
        let mut model = Model::new(8);
        model.ask_size(12);
        let acknowledged = model.ask_size(16);
        model.ask_size(24);
        assert!([8, 12, 16, 24].iter().all(|size| model.may_have_size(*size)));
        model.resize(acknowledged, 16);
        assert!([16, 24].iter().all(|size| model.may_have_size(*size)));
        assert!(![8, 12].iter().any(|size| model.may_have_size(*size)));
        model.recovered_size(16);
        assert!(!model.is_size_open());
        model.write(12, 4);
        assert_eq!(model.contents_at(1)[11..], [0, 1, 1, 1, 1]);
    }

    #[test]
    fn a_read_may_see_what_is_written_meanwhile_and_nothing_else() {
        let mut model = Model::new(8);
        let (first, _) = model.write(0, 2);
        model.apply(first);
        let read = model.begin_read(0, 2);
        let (_, second) = model.write(1, 1);
        let mut data = data_of(1, 0, 2).to_vec();
        data[512..].copy_from_slice(&second);
        model.end_read(&read, &data).unwrap();
        assert_eq!(model.applied(), 2, "what was read is applied");
        let stale = model.begin_read(0, 2);
        model.end_read(&stale, &data_of(1, 0, 2)).unwrap_err();
    }
}
