//! The map against an obvious twin: an array with one location per sector.

use std::collections::BTreeMap;

use lsvd_common::units::Sector;
use proptest::prelude::*;

use super::*;

const SHIFT: u32 = 11;
const IMAGE_SECTORS: u64 = 4 << SHIFT;

/// The slow, obvious map.
#[derive(Clone)]
struct Twin {
    sectors: Vec<Option<Location>>,
}

impl Twin {
    fn new() -> Self {
        Self { sectors: vec![None; usize::try_from(IMAGE_SECTORS).unwrap()] }
    }

    fn part(&mut self, range: SectorRange) -> &mut [Option<Location>] {
        let range = range.as_range();
        let index = |sector| usize::try_from(sector).unwrap();
        &mut self.sectors[index(range.start)..index(range.end)]
    }

    fn insert(&mut self, range: SectorRange, at: Location) {
        for (sector, skipped) in self.part(range).iter_mut().zip(0..) {
            *sector = Some(at.advanced(skipped));
        }
    }

    fn remove(&mut self, range: SectorRange) {
        self.part(range).fill(None);
    }

    fn insert_where(&mut self, range: SectorRange, from: Location, to: Location) -> u64 {
        let mut moved = 0;
        for (sector, skipped) in self.part(range).iter_mut().zip(0..) {
            if *sector == Some(from.advanced(skipped)) {
                *sector = Some(to.advanced(skipped));
                moved += 1;
            }
        }
        moved
    }

    fn lookup(&mut self, range: SectorRange) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = Vec::new();
        let start = range.start.0;
        for (&at, sector) in self.part(range).iter().zip(start..) {
            if let Some(last) = pieces.last_mut() {
                let len = u32::try_from(last.range.len.0).unwrap();
                if at == last.at.map(|at| at.advanced(len)) {
                    last.range.len += Sectors(1);
                    continue;
                }
            }
            pieces.push(Piece { range: (sector..sector + 1).into(), at });
        }
        pieces
    }

    fn live(&self) -> BTreeMap<u32, u64> {
        let mut live = BTreeMap::new();
        for at in self.sectors.iter().flatten() {
            *live.entry(at.slot).or_default() += 1;
        }
        live
    }

    /// The extents of a region, as few as possible.
    fn region(&mut self, index: u64) -> Vec<(Sector, Sectors, Location)> {
        let pieces = self.lookup((index << SHIFT..(index + 1) << SHIFT).into());
        let mapped = |piece: Piece| Some((piece.range.start, piece.range.len, piece.at?));
        pieces.into_iter().filter_map(mapped).collect()
    }
}

/// A map and its twin, changed together, with the live sectors of each slot as the engine would
/// count them.
#[derive(Clone)]
struct Pair {
    map: ExtentMap,
    twin: Twin,
    live: BTreeMap<u32, u64>,
}

impl Pair {
    fn new() -> Self {
        Self { map: ExtentMap::with_shift(SHIFT), twin: Twin::new(), live: BTreeMap::new() }
    }

    fn insert(&mut self, range: SectorRange, at: Location) {
        let live = &mut self.live;
        *live.entry(at.slot).or_default() += range.len.0;
        self.map.insert(range, at, &mut |slot, sectors| *live.get_mut(&slot).unwrap() -= sectors.0);
        self.twin.insert(range, at);
    }

    fn remove(&mut self, range: SectorRange) {
        let live = &mut self.live;
        self.map.remove(range, &mut |slot, sectors| *live.get_mut(&slot).unwrap() -= sectors.0);
        self.twin.remove(range);
    }

    fn insert_where(&mut self, range: SectorRange, from: Location, to: Location) {
        let moved = self.map.insert_where(range, from, to);
        assert_eq!(moved.0, self.twin.insert_where(range, from, to));
        *self.live.entry(from.slot).or_default() -= moved.0;
        *self.live.entry(to.slot).or_default() += moved.0;
    }

    fn check_range(&mut self, range: SectorRange) {
        assert_eq!(self.map.lookup(range).collect::<Vec<_>>(), self.twin.lookup(range));
    }

    fn check(&mut self) {
        self.map.self_check();
        self.check_range((0..IMAGE_SECTORS).into());
        self.live.retain(|_, sectors| *sectors > 0);
        assert_eq!(self.live, self.twin.live());
        assert_eq!(self.map.mapped_sectors().0, self.live.values().sum::<u64>());
        let regions = (0..4).map(|index| self.twin.region(index).len() as u64);
        assert_eq!(self.map.extent_count(), regions.sum::<u64>(), "as few extents as possible");
    }
}

#[derive(Clone, Debug)]
enum Op {
    Insert(SectorRange, Location),
    Remove(SectorRange),
    Move(SectorRange, Location, Location),
    /// Many short extents, to have leaves to split.
    Scatter(u64, SectorRange),
    /// Many short removals, to have leaves to join.
    Thin(u64, SectorRange),
    Snapshot,
    /// Takes the dirty regions and checks them against what a checkpoint would have to hold.
    Checkpoint,
}

fn range(longest: u64) -> impl Strategy<Value = SectorRange> {
    (0..IMAGE_SECTORS, 0..=longest)
        .prop_map(|(start, len)| SectorRange::from(start..(start + len).min(IMAGE_SECTORS)))
}

/// Half the locations follow the address, so that neighbours join.
fn location(range: SectorRange) -> impl Strategy<Value = Location> {
    let start = u32::try_from(range.start.0).unwrap();
    let offset = prop_oneof![Just(start), 0..OBJECT_SECTORS_MAX - 9000];
    (0..3_u32, offset).prop_map(|(slot, offset)| Location { slot, offset })
}

fn op() -> impl Strategy<Value = Op> {
    let lengths = || prop_oneof![6 => range(8), 3 => range(200), 1 => range(IMAGE_SECTORS)];
    let insert =
        lengths().prop_flat_map(|range| location(range).prop_map(move |at| Op::Insert(range, at)));
    let moved = lengths().prop_flat_map(|range| {
        (location(range), location(range)).prop_map(move |(from, to)| Op::Move(range, from, to))
    });
    let many = || (any::<u64>(), range(IMAGE_SECTORS));
    prop_oneof![
        40 => insert,
        12 => lengths().prop_map(Op::Remove),
        12 => moved,
        6 => many().prop_map(|(seed, range)| Op::Scatter(seed, range)),
        6 => many().prop_map(|(seed, range)| Op::Thin(seed, range)),
        4 => Just(Op::Snapshot),
        6 => Just(Op::Checkpoint),
    ]
}

fn short_ranges(seed: u64, range: SectorRange, count: u64) -> impl Iterator<Item = SectorRange> {
    let mut random = fastrand::Rng::with_seed(seed);
    let count = if range.is_empty() { 0 } else { count };
    (0..count).map(move |_| {
        let start = random.u64(range.as_range());
        SectorRange::from(start..(start + random.u64(1..4)).min(IMAGE_SECTORS))
    })
}

/// What a checkpoint holds of each region, and the map that comes of loading it.
#[derive(Default)]
struct Stored(BTreeMap<u32, Vec<(Sector, Sectors, Location)>>);

impl Stored {
    fn take(&mut self, map: &mut ExtentMap) {
        let count = map.dirty_regions();
        let taken = map.take_dirty();
        assert_eq!((taken.len(), map.dirty_regions()), (count, 0));
        assert!(taken.is_sorted_by(|a, b| a.0 < b.0));
        for (index, snapshot) in taken {
            let entries: Vec<_> = snapshot.entries().collect();
            assert_eq!((entries.len(), entries.is_empty()), (snapshot.len(), snapshot.is_empty()));
            self.0.insert(index, entries);
        }
    }

    fn load(&self) -> ExtentMap {
        let mut map = ExtentMap::with_shift(SHIFT);
        for (&index, entries) in &self.0 {
            map.load_region(index, entries.iter().copied()).unwrap();
        }
        assert_eq!(map.dirty_regions(), 0);
        map
    }
}

fn apply(pair: &mut Pair, op: Op, snapshots: &mut Vec<Pair>, stored: &mut Stored) {
    match op {
        Op::Insert(range, at) => {
            pair.insert(range, at);
            pair.check_range(range);
        }
        Op::Remove(range) => {
            pair.remove(range);
            pair.check_range(range);
        }
        Op::Move(range, from, to) => pair.insert_where(range, from, to),
        Op::Scatter(seed, range) => {
            for (short, slot) in short_ranges(seed, range, 2000).zip(0..) {
                pair.insert(short, Location { slot: slot % 5, offset: slot });
            }
        }
        Op::Thin(seed, range) => {
            short_ranges(seed, range, 2000).for_each(|short| pair.remove(short));
        }
        Op::Snapshot => {
            pair.check();
            snapshots.push(pair.clone());
        }
        Op::Checkpoint => {
            stored.take(&mut pair.map);
            let map = stored.load();
            map.self_check();
            assert_eq!(map.extent_count(), pair.map.extent_count());
            let (twin, live) = (pair.twin.clone(), pair.live.clone());
            Pair { map, twin, live }.check();
        }
    }
}

proptest! {

    #[test]
    fn the_map_agrees_with_an_array_of_sectors(
        ops in prop::collection::vec(op(), 1..120),
        reads in prop::collection::vec(range(300), 20),
    ) {
        let (mut pair, mut snapshots, mut stored) = (Pair::new(), Vec::new(), Stored::default());
        for op in ops {
            apply(&mut pair, op, &mut snapshots, &mut stored);
            pair.map.self_check();
        }
        pair.check();
        reads.into_iter().for_each(|range| pair.check_range(range));
        for mut snapshot in snapshots {
            snapshot.check();
        }
        pair.remove((0..IMAGE_SECTORS).into());
        pair.check();
        prop_assert_eq!(pair.map.extent_count(), 0);
    }

    #[test]
    fn a_damaged_region_never_loads_as_something_else(
        extents in prop::collection::vec((0..5000_u64, 0..40_u64, 0..70000_u32), 0..12),
        index in 0..3_u32,
        sorted in any::<bool>(),
    ) {
        let mut extents = extents;
        if sorted {
            extents.sort_unstable();
        }
        let extents: Vec<_> = extents
            .into_iter()
            .map(|(start, len, offset)| (Sector(start), Sectors(len), Location { slot: 0, offset }))
            .collect();
        let region = u64::from(index) << SHIFT..u64::from(index + 1) << SHIFT;
        let whole = extents.iter().all(|(start, len, at)| {
            len.0 > 0
                && region.start <= start.0
                && start.0 + len.0 <= region.end
                && u64::from(at.offset) + len.0 <= u64::from(OBJECT_SECTORS_MAX)
        });
        let ordered = extents.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0);
        let mut map = ExtentMap::with_shift(SHIFT);
        prop_assert_eq!(map.load_region(index, extents).is_ok(), whole && ordered);
        map.self_check();
        prop_assert!(whole && ordered || map.extent_count() == 0);
    }
}

fn at(slot: u32, offset: u32) -> Location {
    Location { slot, offset }
}

fn nothing() -> impl FnMut(u32, Sectors) {
    |slot, sectors| panic!("{sectors} of slot {slot} were displaced")
}

fn pieces(map: &ExtentMap, range: Range<u64>) -> Vec<(Range<u64>, Option<Location>)> {
    map.lookup(range.into()).map(|piece| (piece.range.as_range(), piece.at)).collect()
}

#[test]
fn an_extent_across_regions_reads_as_one_piece() {
    let mut map = ExtentMap::new(17);
    let border = 1 << 17;
    let range = border - 5..border + 7;
    map.insert(range.clone().into(), at(3, 100), &mut nothing());
    assert_eq!(map.extent_count(), 2);
    assert_eq!(pieces(&map, range.clone()), [(range, Some(at(3, 100)))]);
    assert_eq!(pieces(&map, border..border + 1), [(border..border + 1, Some(at(3, 105)))]);
    map.self_check();
}

#[test]
fn an_overwrite_of_a_whole_extent_joins_the_one_before_it() {
    let mut map = ExtentMap::new(17);
    map.insert((0..8).into(), at(3, 0), &mut nothing());
    map.insert((8..16).into(), at(4, 0), &mut nothing());
    map.insert((8..16).into(), at(3, 8), &mut |slot, len| assert_eq!((slot, len), (4, Sectors(8))));
    assert_eq!((map.extent_count(), pieces(&map, 0..16).len()), (1, 1));
    map.self_check();
}

/// 300 extents of 8 sectors with gaps of 8, in several leaves; extent `i` is in slot `i`.
fn combed() -> ExtentMap {
    let mut map = ExtentMap::new(17);
    let extent = |i: u32| (Sector(u64::from(i) * 16), Sectors(8), at(i, 8));
    map.load_region(0, (0..300).map(extent)).unwrap();
    map
}

#[test]
fn extents_join_across_leaves_wherever_those_end() {
    for i in 1..300 {
        let start = u64::from(i) * 16;
        let mut map = combed();
        map.insert((start - 8..start).into(), at(i, 0), &mut nothing());
        assert_eq!(map.extent_count(), 300, "the gap before extent {i} joins it");
        map.self_check();
        map.insert((start - 8..start).into(), at(i - 1, 16), &mut |_, _| ());
        assert_eq!(map.extent_count(), 300, "and now the extent before");
        map.self_check();
        map.insert((start..start + 8).into(), at(i - 1, 24), &mut |_, _| ());
        assert_eq!(map.extent_count(), 299, "which then takes extent {i} as well");
        map.self_check();
    }
}

#[test]
fn extents_that_were_stored_apart_are_joined_when_they_are_loaded() {
    let mut map = ExtentMap::new(17);
    let apart = [(Sector(5), Sectors(1), at(0, 0)), (Sector(6), Sectors(2), at(0, 1))];
    map.load_region(0, apart).unwrap();
    assert_eq!((map.extent_count(), map.mapped_sectors()), (1, Sectors(3)));
    map.self_check();
}

#[test]
fn beyond_what_was_ever_mapped_there_are_holes() {
    let map = ExtentMap::new(17);
    assert_eq!(pieces(&map, 0..1 << 62), [(0..1 << 62, None)]);
    let end = u64::MAX;
    assert_eq!(pieces(&map, end - 9..end), [(end - 9..end, None)]);
    assert_eq!(pieces(&map, 5..5), []);
}

#[test]
fn removing_what_is_not_mapped_changes_nothing() {
    let mut map = ExtentMap::new(17);
    map.remove((0..1 << 60).into(), &mut nothing());
    assert_eq!(map.dirty_regions(), 0);
    map.insert((100..200).into(), at(0, 0), &mut nothing());
    map.take_dirty();
    map.remove((0..100).into(), &mut nothing());
    map.remove((200..1 << 17).into(), &mut nothing());
    assert_eq!((map.dirty_regions(), map.mapped_sectors()), (0, Sectors(100)));
}

#[test]
fn an_emptied_region_is_dirty_and_its_snapshot_is_empty() {
    let mut map = ExtentMap::new(17);
    map.insert((100..200).into(), at(0, 0), &mut nothing());
    map.take_dirty();
    map.remove((50..250).into(), &mut |_, _| ());
    let taken = map.take_dirty();
    assert_eq!((taken.len(), taken[0].0, taken[0].1.is_empty()), (1, 0, true));
    map.self_check();
}

#[test]
fn a_failed_checkpoint_takes_its_regions_again() {
    let mut map = ExtentMap::new(17);
    map.insert((0..1).into(), at(0, 0), &mut nothing());
    map.insert((1 << 17..(1 << 17) + 1).into(), at(0, 1), &mut nothing());
    for (index, _) in map.take_dirty() {
        map.mark_dirty(index);
        map.mark_dirty(index);
    }
    map.mark_dirty(7);
    let again: Vec<u32> = map.take_dirty().into_iter().map(|(index, _)| index).collect();
    assert_eq!(again, [0, 1, 7]);
}

#[test]
fn a_region_loads_once_and_only_where_an_image_can_be() {
    let extent = [(Sector(5), Sectors(1), at(0, 0))];
    let mut map = ExtentMap::new(17);
    assert_eq!(map.load_region(0, extent), Ok(()));
    assert_eq!(map.load_region(0, extent), Err(MapError::Loaded));
    assert_eq!(map.load_region(1, extent), Err(MapError::OutOfRegion(Sector(5))));
    assert_eq!(map.load_region(REGIONS_MAX, []), Err(MapError::NoSuchRegion));
    let wild = [(Sector(u64::MAX), Sectors(u64::MAX), at(u32::MAX, u32::MAX))];
    assert_eq!(map.load_region(2, wild), Err(MapError::OutOfRegion(Sector(u64::MAX))));
    let long = [(Sector(3 << 17), Sectors(u64::MAX), at(0, u32::MAX))];
    assert_eq!(map.load_region(3, long), Err(MapError::OutOfRegion(Sector(3 << 17))));
    assert_eq!((map.extent_count(), map.dirty_regions()), (1, 0));
}

#[test]
fn memory_follows_content() {
    let mut map = ExtentMap::new(20);
    let mut random = fastrand::Rng::with_seed(1);
    for index in 0..30_000 {
        let lba = random.u64(0..1 << 17) * 8;
        map.insert((lba..lba + 8).into(), at(index, 0), &mut |_, _| ());
    }
    let per_extent = map.memory_bytes() as u64 / map.extent_count();
    assert!(per_extent < 16, "{per_extent} bytes per extent");
    // Two of three: leaves shrink, but stay too large to be joined.
    let pages = map.lookup((0..1 << 20).into()).filter(|piece| piece.at.is_some());
    let gone: Vec<SectorRange> =
        pages.zip(0..).filter(|(_, i)| i % 3 > 0).map(|(page, _)| page.range).collect();
    gone.into_iter().for_each(|range| map.remove(range, &mut |_, _| ()));
    let per_extent = map.memory_bytes() as u64 / map.extent_count();
    assert!(per_extent < 24, "{per_extent} bytes per extent after removal");
    map.self_check();
}
