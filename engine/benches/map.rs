//! What the extent map costs at ten million extents: bytes, and nanoseconds per operation.
//!
//! `cargo bench -p lsvd-engine --bench map [sparse|dense|mixed]`. Each shape runs in a process of
//! its own, so that the resident set starts clean.
//!
//! Method: each operation is timed alone, and the median cost of reading the clock twice is taken
//! off. *Counted* bytes are requests to the allocator plus 8 bytes of header, rounded up to 16.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::env;
use std::fs;
use std::hint::black_box;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use lsvd_common::units::{Sector, SectorRange, Sectors};
use lsvd_engine::map::{ExtentMap, Location};

const EXTENTS: u32 = 10_000_000;
const PROBES: u32 = 2_000_000;
const SPARSE_PAGES: u64 = 160 << 18;
const DENSE_PAGES: u64 = 40 << 18;
const REGION_SHIFT: u32 = 18;
const PAGES_PER_OBJECT: u32 = 2048;
/// Pages of a sequential run in the mixed shape.
const RUN_PAGES: u32 = 16;
const SHAPES: [&str; 3] = ["sparse", "dense", "mixed"];
/// A page of this system, in which the kernel counts resident memory.
const SYSTEM_PAGE_BYTES: usize = 4096;

#[global_allocator]
static ALLOCATOR: Counting = Counting;
static COUNTED: AtomicUsize = AtomicUsize::new(0);

struct Counting;

fn counted(layout: Layout) -> usize {
    (layout.size() + 8).next_multiple_of(16)
}

// SAFETY: each call goes to the system's allocator unchanged; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNTED.fetch_add(counted(layout), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        COUNTED.fetch_sub(counted(layout), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn resident_bytes() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux has statm");
    let pages = statm.split_whitespace().nth(1).expect("the second field is the resident set");
    pages.parse::<usize>().expect("a number of pages") * SYSTEM_PAGE_BYTES
}

/// Times of single operations, in buckets of 4 ns up to 32 us.
struct Times {
    buckets: Vec<u32>,
    total_ns: u64,
    count: u32,
    clock_ns: u64,
}

impl Times {
    const BUCKET_NS: u64 = 4;
    const BUCKETS: usize = 8192;

    fn new() -> Self {
        let mut clock = Self::with_clock(0);
        for _ in 0..100_000 {
            clock.measure(|| ());
        }
        let clock_ns = clock.quantile(0.5);
        Self::with_clock(clock_ns)
    }

    fn with_clock(clock_ns: u64) -> Self {
        Self { buckets: vec![0; Self::BUCKETS], total_ns: 0, count: 0, clock_ns }
    }

    fn measure<T>(&mut self, operation: impl FnOnce() -> T) {
        let start = Instant::now();
        black_box(operation());
        let ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let ns = ns.saturating_sub(self.clock_ns);
        let bucket = usize::try_from(ns / Self::BUCKET_NS).unwrap_or(usize::MAX);
        self.buckets[bucket.min(Self::BUCKETS - 1)] += 1;
        self.total_ns += ns;
        self.count += 1;
    }

    fn quantile(&self, share: f64) -> u64 {
        let mut left = f64::from(self.count) * share;
        for (bucket, &count) in (0..).zip(&self.buckets) {
            left -= f64::from(count);
            if left <= 0.0 {
                return bucket * Self::BUCKET_NS;
            }
        }
        Self::BUCKET_NS * Self::BUCKETS as u64
    }

    fn print(&self, what: &str) {
        let (median, p99) = (self.quantile(0.5), self.quantile(0.99));
        let mean = self.total_ns / u64::from(self.count).max(1);
        println!("  {what:<34} median {median:>5}  mean {mean:>5}  p99 {p99:>6} ns");
    }
}

/// The pages that a shape writes, in order. The same seed gives the same pages.
struct Pages {
    shape: String,
    random: fastrand::Rng,
    shuffled: Vec<u32>,
    next: u32,
    run: u64,
}

impl Pages {
    fn new(shape: &str) -> Self {
        let mut random = fastrand::Rng::with_seed(42);
        let mut shuffled = Vec::new();
        if shape == "dense" {
            shuffled.extend(0..u32::try_from(DENSE_PAGES).expect("a small image"));
            random.shuffle(&mut shuffled);
        }
        Self { shape: shape.to_owned(), random, shuffled, next: 0, run: 0 }
    }

    /// The next page and its location.
    fn next(&mut self) -> (SectorRange, Location) {
        let number = self.next;
        self.next += 1;
        let mut at = location(number);
        let page = match self.shape.as_str() {
            "dense" => u64::from(self.shuffled[number as usize % self.shuffled.len()]),
            "mixed" if number.is_multiple_of(2) => {
                let step = number / 2 % RUN_PAGES;
                if step == 0 {
                    self.run = self.random.u64(0..SPARSE_PAGES - u64::from(RUN_PAGES));
                }
                let object = u32::MAX - number / 2 / PAGES_PER_OBJECT;
                at = Location { slot: object, offset: number / 2 % PAGES_PER_OBJECT * 8 };
                self.run + u64::from(step)
            }
            _ => self.random.u64(0..SPARSE_PAGES),
        };
        (page_range(page), at)
    }
}

fn location(number: u32) -> Location {
    Location { slot: number / PAGES_PER_OBJECT, offset: number % PAGES_PER_OBJECT * 8 }
}

fn page_range(page: u64) -> SectorRange {
    SectorRange::new(Sector(page * 8), Sectors(8))
}

fn main() {
    match env::args().skip(1).find(|argument| SHAPES.contains(&argument.as_str())) {
        Some(shape) => run(&shape),
        None => {
            for shape in SHAPES {
                let this = env::current_exe().expect("this program has a path");
                let status = Command::new(this).arg(shape).status().expect("start this program");
                assert!(status.success(), "shape {shape} failed");
            }
        }
    }
}

fn run(shape: &str) {
    let mut map = fill(shape);
    let image_pages = if shape == "dense" { DENSE_PAGES } else { SPARSE_PAGES };
    lookups(&map, shape, image_pages);
    let mut random = fastrand::Rng::with_seed(7);
    overwrites(&mut map, image_pages, &mut random, "overwrite or insert, random");
    objects(&mut map, image_pages, &mut random);
    snapshots(&mut map, image_pages, &mut random);
    reload(map);
}

fn fill(shape: &str) -> ExtentMap {
    let mut pages = Pages::new(shape);
    let mut times = Times::new();
    let (counted, resident) = (COUNTED.load(Ordering::Relaxed), resident_bytes());
    let mut map = ExtentMap::new(REGION_SHIFT);
    // The mixed shape joins its runs: it counts writes, the others extents.
    let full = |map: &ExtentMap, written: u32| match shape {
        "mixed" => written == EXTENTS,
        "dense" => u64::from(written) == DENSE_PAGES,
        _ => map.extent_count() >= u64::from(EXTENTS),
    };
    while !full(&map, pages.next) {
        let (range, at) = pages.next();
        times.measure(|| {
            map.insert(range, at, &mut |slot, _| {
                black_box(slot);
            })
        });
    }
    let extents = map.extent_count();
    let per_extent = |bytes: usize| bytes as f64 / extents as f64;
    println!("{shape}: {} writes, {extents} extents, regions of 2^{REGION_SHIFT}", pages.next);
    println!(
        "  bytes per extent: {:.2} counted, {:.2} resident, {:.2} by memory_bytes",
        per_extent(COUNTED.load(Ordering::Relaxed) - counted),
        per_extent(resident_bytes() - resident),
        per_extent(map.memory_bytes()),
    );
    println!("  clock: {} ns taken off each time", times.clock_ns);
    times.print("insert while filling");
    map
}

fn lookups(map: &ExtentMap, shape: &str, image_pages: u64) {
    let mut pages = Pages::new(shape);
    let mut times = Times::new();
    for _ in 0..PROBES {
        let (range, _) = pages.next();
        times.measure(|| map.lookup(range).map(|piece| piece.range.len.0).sum::<u64>());
    }
    times.print("lookup of a mapped page");
    let mut times = Times::new();
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..PROBES {
        let range = page_range(random.u64(0..image_pages));
        times.measure(|| map.lookup(range).map(|piece| piece.range.len.0).sum::<u64>());
    }
    times.print("lookup of any page");
}

fn overwrites(map: &mut ExtentMap, image_pages: u64, random: &mut fastrand::Rng, what: &str) {
    let mut times = Times::new();
    for number in 0..PROBES {
        let range = page_range(random.u64(0..image_pages));
        let at = location(EXTENTS * 2 + number);
        times.measure(|| {
            map.insert(range, at, &mut |slot, _| {
                black_box(slot);
            })
        });
    }
    times.print(what);
}

/// As the engine does it: the extents of an object come sorted.
fn objects(map: &mut ExtentMap, image_pages: u64, random: &mut fastrand::Rng) {
    let mut times = Times::new();
    for object in 0..PROBES / PAGES_PER_OBJECT {
        let count = PAGES_PER_OBJECT as usize;
        let mut pages: Vec<u64> =
            std::iter::repeat_with(|| random.u64(0..image_pages)).take(count).collect();
        pages.sort_unstable();
        for (&page, number) in pages.iter().zip(object * PAGES_PER_OBJECT..) {
            let at = location(EXTENTS * 4 + number);
            times.measure(|| map.insert(page_range(page), at, &mut |_, _| ()));
        }
    }
    times.print("insert, sorted within an object");
}

fn snapshots(map: &mut ExtentMap, image_pages: u64, random: &mut fastrand::Rng) {
    let start = Instant::now();
    let taken = map.take_dirty();
    println!("  take_dirty: {} regions in {:?}", taken.len(), start.elapsed());
    overwrites(map, image_pages, random, "the same, all regions snapshotted");
    let start = Instant::now();
    drop(taken);
    println!("  drop of the snapshots: {:?}", start.elapsed());
    let start = Instant::now();
    let clone = map.clone();
    println!("  clone of the map: {:?}", start.elapsed());
    drop(clone);
    overwrites(map, image_pages, random, "the same, nothing shared again");
}

fn reload(mut map: ExtentMap) {
    let extents = map.extent_count();
    map.take_dirty();
    let regions: u32 = u32::try_from((SPARSE_PAGES * 8) >> REGION_SHIFT).expect("a small image");
    (0..regions).for_each(|index| map.mark_dirty(index));
    let regions: Vec<_> = map
        .take_dirty()
        .into_iter()
        .map(|(index, region)| (index, region.entries().collect::<Vec<_>>()))
        .collect();
    drop(map);
    let before = COUNTED.load(Ordering::Relaxed);
    let start = Instant::now();
    let mut loaded = ExtentMap::new(REGION_SHIFT);
    for (index, entries) in &regions {
        loaded.load_region(*index, entries.iter().copied()).expect("came from a map");
    }
    let elapsed = start.elapsed();
    assert_eq!(loaded.extent_count(), extents, "everything came back");
    let bytes = (COUNTED.load(Ordering::Relaxed) - before) as f64 / extents as f64;
    let rate = extents as f64 / elapsed.as_secs_f64() / 1e6;
    println!("  load_region: {elapsed:?}, {rate:.1} M extents/s, {bytes:.2} bytes per extent");
}
