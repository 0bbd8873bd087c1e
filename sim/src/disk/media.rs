//! The contents of a simulated disk: what reads see, what is on the medium, and what a crash makes
//! of the difference.
//!
//! Invariant: the medium is never ahead of what was written and never behind what a successful sync
//! covered.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use lsvd_common::units::SECTOR_LEN;

use super::{Crash, CrashReport};
use crate::world::SimTime;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Media {
    pub(super) volatile: Vec<u8>,
    durable: Vec<u8>,
    /// Completed writes that no sync covers, in order of completion.
    unsynced: Vec<Completed>,
    /// Completed writes so far.
    pub(super) completed: u64,
    pending: BTreeMap<(SimTime, u64), Pending>,
    results: BTreeMap<u64, io::Result<()>>,
    next_id: u64,
}

#[derive(Debug)]
struct Completed {
    number: u64,
    offset: usize,
    data: Bytes,
    /// It is on the medium already. It stays in the list because older writes to its place are.
    durable: bool,
}

#[derive(Debug)]
pub(super) enum Pending {
    Write { offset: usize, data: Bytes, durable: bool, fails: Option<fastrand::Rng> },
    Sync { covers: u64, fails: Option<fastrand::Rng> },
}

pub(super) fn injected() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl Media {
    /// A disk of zeros.
    pub(super) fn new(len: usize) -> Self {
        Self { volatile: vec![0; len], durable: vec![0; len], ..Self::default() }
    }

    /// Queues a change for a time; its number.
    pub(super) fn start(&mut self, at: SimTime, pending: Pending) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.pending.insert((at, id), pending);
        id
    }

    /// The outcome of a change that has completed.
    pub(super) fn outcome(&mut self, id: u64) -> io::Result<()> {
        self.results.remove(&id).unwrap_or_else(|| Err(io::ErrorKind::BrokenPipe.into()))
    }

    /// True if a change is on its way.
    pub(super) fn is_busy(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Turns a bit over, wherever it is.
    pub(super) fn flip(&mut self, at: usize, bit: u64) {
        let turn = 1 << (bit % 8);
        self.volatile[at] ^= turn;
        self.durable[at] ^= turn;
        // Damage stays: a write that waits for its sync must not heal it.
        for write in &mut self.unsynced {
            if (write.offset..write.offset + write.data.len()).contains(&at) {
                let mut data = write.data.to_vec();
                data[at - write.offset] ^= turn;
                write.data = data.into();
            }
        }
    }

    /// Completes everything whose time has come.
    pub(super) fn advance(&mut self, now: SimTime) {
        while let Some(entry) = self.pending.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, id), pending) = entry.remove_entry();
            let result = match pending {
                Pending::Write { offset, data, durable, fails: None } => {
                    self.complete(offset, data, durable);
                    Ok(())
                }
                Pending::Write { offset, data, fails: Some(mut random), .. } => {
                    let mut keep = Keep::choose(&mut random, 1, sectors(&data));
                    for (sector, piece) in pieces(offset, &data).enumerate() {
                        if keep.keeps(&mut random, 0, sector) {
                            self.complete(piece.0, piece.1, false);
                        }
                    }
                    Err(injected())
                }
                Pending::Sync { covers, fails } => self.synced(covers, fails),
            };
            self.results.insert(id, result);
        }
    }

    fn complete(&mut self, offset: usize, data: Bytes, durable: bool) {
        self.volatile[offset..offset + data.len()].copy_from_slice(&data);
        self.completed += 1;
        self.unsynced.push(Completed { number: self.completed, offset, data, durable });
    }

    fn synced(&mut self, covers: u64, fails: Option<fastrand::Rng>) -> io::Result<()> {
        let behind = self.unsynced.partition_point(|write| write.number <= covers);
        let covered = self.unsynced.drain(..behind);
        let Some(mut random) = fails else {
            for write in covered {
                self.durable[write.offset..][..write.data.len()].copy_from_slice(&write.data);
            }
            return Ok(());
        };
        // What a failed sync did not get to the medium never gets there: a later sync does not try
        // again.
        for write in covered {
            for (at, piece) in pieces(write.offset, &write.data) {
                if write.durable || random.bool() {
                    self.durable[at..at + piece.len()].copy_from_slice(&piece);
                }
            }
        }
        Err(injected())
    }

    pub(super) fn crash(
        &mut self,
        how: Crash,
        random: &mut fastrand::Rng,
        report: &mut CrashReport,
    ) {
        let mut in_flight = Vec::new();
        for pending in std::mem::take(&mut self.pending).into_values() {
            if let Pending::Write { offset, data, .. } = pending {
                in_flight.push((offset, data, false));
            }
        }
        self.results.clear();
        random.shuffle(&mut in_flight);
        let mut writes = Vec::new();
        if how == Crash::Power {
            let unsynced = self.unsynced.drain(..);
            writes.extend(unsynced.map(|write| (write.offset, write.data, write.durable)));
        }
        writes.append(&mut in_flight);
        let count = writes.iter().map(|(_, data, _)| sectors(data)).sum();
        let mut keep = Keep::choose(random, writes.len(), count);
        let mut sector = 0;
        for (index, (offset, data, durable)) in writes.into_iter().enumerate() {
            let mut kept = 0;
            for (at, piece) in pieces(offset, &data) {
                if keep.keeps(random, index, sector) || durable {
                    kept += 1;
                    match how {
                        Crash::Process => self.complete(at, piece, false),
                        Crash::Power => {
                            self.durable[at..at + piece.len()].copy_from_slice(&piece);
                        }
                    }
                }
                sector += 1;
            }
            report.torn += u64::from(kept > 0 && kept < sectors(&data));
            report.lost += u64::from(kept == 0);
        }
        if how == Crash::Power {
            self.volatile.clone_from(&self.durable);
        }
    }
}

/// Which sectors of the writes that a crash hit are kept.
#[derive(Debug)]
enum Keep {
    All,
    None,
    /// Each sector on its own.
    Sectors(f64),
    /// Each write as a whole.
    Writes {
        share: f64,
        index: usize,
        kept: bool,
    },
    /// The first so many sectors.
    Prefix(usize),
    AllBut(usize),
    Only(usize),
}

impl Keep {
    fn choose(random: &mut fastrand::Rng, writes: usize, sectors: usize) -> Self {
        let any = sectors.max(1);
        match random.u8(0..8) {
            0 => Self::All,
            1 => Self::None,
            2 => Self::Prefix(random.usize(0..any)),
            3 => Self::AllBut(random.usize(0..any)),
            4 => Self::Only(random.usize(0..any)),
            5 => Self::Sectors(random.f64()),
            _ => Self::Writes { share: random.f64(), index: writes, kept: false },
        }
    }

    fn keeps(&mut self, random: &mut fastrand::Rng, write: usize, sector: usize) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Sectors(share) => random.f64() < *share,
            Self::Writes { share, index, kept } => {
                if *index != write {
                    (*index, *kept) = (write, random.f64() < *share);
                }
                *kept
            }
            Self::Prefix(count) => sector < *count,
            Self::AllBut(one) => sector != *one,
            Self::Only(one) => sector == *one,
        }
    }
}

fn sectors(data: &Bytes) -> usize {
    data.len() / SECTOR_LEN
}

/// The sectors of a write: byte offset and data of each.
fn pieces(offset: usize, data: &Bytes) -> impl Iterator<Item = (usize, Bytes)> {
    let data = data.clone();
    (0..sectors(&data)).map(move |sector| {
        let from = sector * SECTOR_LEN;
        (offset + from, data.slice(from..from + SECTOR_LEN))
    })
}

#[cfg(test)]
mod test {
    use std::time::Duration;

    use super::*;

    const PAGE: usize = 4096;

    fn write(media: &mut Media, offset: usize, byte: u8, durable: bool) {
        let data = Bytes::from(vec![byte; PAGE]);
        media.start(Duration::ZERO, Pending::Write { offset, data, durable, fails: None });
        media.advance(Duration::ZERO);
    }

    fn sync(media: &mut Media, fails: Option<fastrand::Rng>) {
        let covers = media.completed;
        media.start(Duration::ZERO, Pending::Sync { covers, fails });
        media.advance(Duration::ZERO);
    }

    /// What power failures may leave of the first page, by its first byte.
    fn left(prepare: impl Fn(&mut Media)) -> Vec<u8> {
        let mut left = Vec::new();
        for seed in 0..200 {
            let mut media = Media::new(2 * PAGE);
            prepare(&mut media);
            let mut random = fastrand::Rng::with_seed(seed);
            media.crash(Crash::Power, &mut random, &mut CrashReport::default());
            left.push(media.volatile[0]);
        }
        left.sort_unstable();
        left.dedup();
        left
    }

    #[test]
    fn only_what_a_sync_covered_is_sure_to_survive() {
        assert_eq!(left(|media| write(media, 0, 1, false)), [0, 1]);
        assert_eq!(left(|media| write(media, 0, 1, true)), [1]);
        let synced = |media: &mut Media| {
            write(media, 0, 1, false);
            sync(media, None);
        };
        assert_eq!(left(synced), [1]);
        let written_again = |media: &mut Media| {
            synced(media);
            write(media, 0, 2, false);
        };
        assert_eq!(left(written_again), [1, 2]);
        let durable_on_top = |media: &mut Media| {
            write(media, 0, 1, false);
            write(media, 0, 2, true);
        };
        assert_eq!(left(durable_on_top), [2], "an older write does not come back");
    }

    #[test]
    fn what_a_failed_sync_lost_is_not_saved_by_a_later_one() {
        let lost = |media: &mut Media| {
            write(media, 0, 1, false);
            sync(media, Some(fastrand::Rng::with_seed(1)));
            assert_eq!(media.volatile[0], 1, "until power goes it reads well");
            sync(media, None);
        };
        assert_eq!(left(lost).len(), 1);
        let kept = (0..20).filter(|seed| {
            left(|media| {
                write(media, 0, 1, false);
                sync(media, Some(fastrand::Rng::with_seed(*seed)));
                sync(media, None);
            }) == [1]
        });
        assert!((1..20).contains(&kept.count()), "at times it is lost, at times it is not");
    }

    #[test]
    fn a_killed_process_takes_nothing_along_that_had_completed() {
        for seed in 0..100 {
            let mut media = Media::new(2 * PAGE);
            write(&mut media, 0, 1, false);
            let data = Bytes::from(vec![2; PAGE]);
            let offset = PAGE;
            let flying = Pending::Write { offset, data, durable: false, fails: None };
            media.start(Duration::from_secs(1), flying);
            let mut random = fastrand::Rng::with_seed(seed);
            media.crash(Crash::Process, &mut random, &mut CrashReport::default());
            assert_eq!(media.volatile[..PAGE], [1; PAGE]);
            assert!(media.volatile[PAGE..].iter().all(|byte| matches!(byte, 0 | 2)));
        }
    }
}
