//! What one seed does: sizes, rates and which operations and faults are on. "Swarm": each run
//! leaves most of them out, so that those that are in meet each other often.

use std::time::Duration;

use lsvd_common::object::superblock::SectorSize;
use lsvd_engine::{FlushPolicy, VolumeOptions};

use crate::disk::DiskRates;
use crate::store::StoreRates;

/// An image grows to this many sectors at most: every recovery reads all of it.
pub(crate) const SECTORS_MAX: u32 = (6 << 20) / 512;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) size_bytes: u64,
    pub(crate) sector_size: SectorSize,
    pub(crate) region_shift: u8,
    pub(crate) sizes: Sizes,
    pub(crate) cache_ram_bytes: u64,
    /// Size of the cache on the SSD, if there is one.
    pub(crate) cache_ssd_bytes: Option<u64>,
    /// The store is behind a layer that retries, as in a gateway.
    pub(crate) retries: bool,
    pub(crate) disk: DiskRates,
    pub(crate) store: StoreRates,
    pub(crate) work: Work,
    pub(crate) ends: Ends,
    pub(crate) generations: u32,
    /// A generation lasts up to this long, in milliseconds.
    pub(crate) generation_max_ms: u64,
    /// Operations that the clients of a generation start at most.
    pub(crate) generation_steps: u64,
    /// Bits of the cache on the SSD turn over.
    pub(crate) cache_flips: bool,
    /// Requests of a crashed gateway land up to this long after the crash.
    pub(crate) orphans_latest: Duration,
    /// A fault that the engine has on purpose.
    #[cfg(feature = "canary")]
    pub(crate) canary: Option<lsvd_engine::Canary>,
}

/// Sizes and times of the volume.
#[derive(Clone, Debug)]
pub(crate) struct Sizes {
    pub(crate) flush: FlushPolicy,
    pub(crate) log_bytes: u64,
    pub(crate) batch_bytes: usize,
    pub(crate) record_bytes: usize,
    pub(crate) batch_age: Duration,
    pub(crate) puts_in_flight: usize,
    pub(crate) batch_ram_bytes: usize,
    pub(crate) checkpoint_objects: (u64, u64),
}

/// What the clients do. The numbers are weights.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) clients: usize,
    pub(crate) write: u32,
    /// Writes above the record size, which are several operations.
    pub(crate) large_write: u32,
    pub(crate) discard: u32,
    pub(crate) flush: u32,
    pub(crate) read: u32,
    pub(crate) resize: u32,
    pub(crate) sleep: u32,
    pub(crate) sleep_max_ms: u64,
    /// Share of writes with FUA.
    pub(crate) fua: f64,
    /// Sectors that most operations touch, from the beginning of the image.
    pub(crate) hot_sectors: u32,
}

/// How generations end. The numbers are weights.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    pub(crate) close: u32,
    pub(crate) close_cut: u32,
    pub(crate) process_crash: u32,
    pub(crate) power_crash: u32,
    pub(crate) wiped: u32,
    pub(crate) moved: u32,
    pub(crate) taken_over: u32,
    pub(crate) log_damage: u32,
    pub(crate) store_damage: u32,
    pub(crate) checkpoint_damage: u32,
    /// Share of opens that a crash cuts short.
    pub(crate) open_cut: f64,
    /// Share of generations in which all faults stop and everything must come to an end.
    pub(crate) settle: f64,
}

/// A subject that a plan is bent towards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// The image is taken over again and again while its gateway goes on under load.
    TakenOver,
    /// The SSD is lost.
    WipedSsd,
    /// Opens are cut short by crashes.
    CrashInRecovery,
    /// Checkpoints all the time, and crashes between their objects.
    CrashInCheckpoint,
    /// Power fails in small logs that wrap all the time.
    PowerFailure,
    /// Clean closes, some of them cut short.
    Close,
    /// Bits of the write log turn over.
    LogDamage,
    /// Bits of objects turn over.
    StoreDamage,
    /// The image grows all the time.
    Resize,
}

impl Scenario {
    pub(crate) fn shape(self, plan: &mut Plan) {
        let open_cut = plan.ends.open_cut;
        plan.ends = Ends { process_crash: 1, ..Ends::none() };
        let ends = &mut plan.ends;
        match self {
            Self::TakenOver => {
                ends.taken_over = 10;
                plan.work.clients = plan.work.clients.max(3);
            }
            Self::WipedSsd => ends.wiped = 10,
            Self::CrashInRecovery => {
                (ends.power_crash, ends.open_cut) = (4, 0.7);
                plan.generations += 4;
            }
            Self::CrashInCheckpoint => {
                (ends.power_crash, ends.open_cut) = (4, open_cut);
                plan.sizes.checkpoint_objects = (1, 2);
                plan.sizes.batch_bytes = 8 << 10;
            }
            Self::PowerFailure => {
                ends.power_crash = 10;
                plan.sizes.record_bytes = 4 << 10;
                plan.sizes.batch_bytes = 8 << 10;
                plan.sizes.log_bytes = 32 << 10;
            }
            Self::Close => (ends.close, ends.close_cut) = (5, 5),
            Self::LogDamage => ends.log_damage = 10,
            Self::StoreDamage => (ends.store_damage, ends.checkpoint_damage) = (5, 5),
            Self::Resize => {
                (ends.power_crash, ends.taken_over, ends.close_cut) = (4, 3, 2);
                ends.open_cut = open_cut;
                plan.work.resize = 20;
            }
        }
    }
}

impl Plan {
    /// Draws a plan.
    pub(crate) fn draw(random: &mut fastrand::Rng) -> Self {
        let sizes = Sizes::draw(random);
        let size_bytes = random.u64(1..=4) << 20;
        let sector_size = if random.u8(..) < 64 { SectorSize::B4096 } else { SectorSize::B512 };
        let calm_store = random.u8(..) < 64;
        let calm_disk = random.u8(..) < 200;
        Self {
            size_bytes,
            sector_size,
            region_shift: random.u8(10..=12),
            cache_ram_bytes: *pick(random, &[0, 64 << 10, 1 << 20]),
            cache_ssd_bytes: random.bool().then(|| random.u64(4..24) * 65536),
            retries: random.u8(..) < 192,
            disk: DiskRates {
                latency_max_ms: *pick(random, &[0, 1, 4, 20]),
                read_error: if calm_disk { 0.0 } else { 0.001 },
                write_error: if calm_disk { 0.0 } else { 0.001 },
                sync_error: if calm_disk { 0.0 } else { 0.002 },
            },
            store: if calm_store { StoreRates::CALM } else { draw_store(random) },
            work: Work::draw(random, (size_bytes / 512) as u32),
            ends: Ends::draw(random),
            generations: random.u32(2..8),
            generation_max_ms: *pick(random, &[50, 400, 2000, 8000]),
            generation_steps: *pick(random, &[30, 200, 600, 1500]),
            cache_flips: random.u8(..) < 64,
            orphans_latest: Duration::from_millis(*pick(random, &[200, 2000, 30_000])),
            sizes,
            #[cfg(feature = "canary")]
            canary: None,
        }
    }

    /// Fills in what the plan says about a volume.
    pub(crate) fn set(&self, options: &mut VolumeOptions) {
        let sizes = &self.sizes;
        options.flush = sizes.flush;
        options.log_bytes = sizes.log_bytes;
        options.batch_bytes = sizes.batch_bytes;
        options.record_bytes = sizes.record_bytes;
        options.batch_age = sizes.batch_age;
        options.puts_in_flight = sizes.puts_in_flight;
        options.batch_ram_bytes = sizes.batch_ram_bytes;
        (options.checkpoint_objects_min, options.checkpoint_objects_max) = sizes.checkpoint_objects;
        #[cfg(feature = "canary")]
        {
            options.canary = self.canary;
        }
    }

    /// Sectors of 512 bytes that one sector of the clients has.
    pub(crate) fn unit(&self) -> u32 {
        self.sector_size.bytes() / 512
    }
}

impl Sizes {
    fn draw(random: &mut fastrand::Rng) -> Self {
        let record_bytes = *pick(random, &[4 << 10, 16 << 10, 64 << 10, 128 << 10]);
        let batch_bytes = *pick(random, &[8 << 10, 32 << 10, 128 << 10, 256 << 10]);
        let least = (8 * record_bytes).max(4 * batch_bytes) as u64;
        let checkpoint_min = random.u64(1..6);
        Self {
            flush: if random.u8(..) < 80 { FlushPolicy::Backend } else { FlushPolicy::Local },
            log_bytes: least * *pick(random, &[1, 1, 2]),
            batch_bytes,
            record_bytes,
            batch_age: Duration::from_millis(*pick(random, &[20, 100, 1000, 5000])),
            puts_in_flight: random.usize(1..=6),
            batch_ram_bytes: *pick(random, &[0, 64 << 10, 64 << 20]),
            checkpoint_objects: (checkpoint_min, checkpoint_min + random.u64(0..8)),
        }
    }
}

impl Work {
    fn draw(random: &mut fastrand::Rng, sectors: u32) -> Self {
        Self {
            clients: random.usize(1..=6),
            write: 40,
            large_write: swarm(random, 2),
            discard: swarm(random, 8),
            flush: swarm(random, 8),
            read: swarm(random, 20),
            resize: swarm(random, 1),
            sleep: swarm(random, 20),
            sleep_max_ms: *pick(random, &[2, 20, 200]),
            fua: *pick(random, &[0.0, 0.0, 0.1, 0.9]),
            hot_sectors: *pick(random, &[64, 512, sectors]),
        }
    }
}

impl Ends {
    fn draw(random: &mut fastrand::Rng) -> Self {
        Self {
            close: swarm(random, 4),
            close_cut: swarm(random, 3),
            process_crash: swarm(random, 6),
            power_crash: swarm(random, 6) + 1,
            wiped: swarm(random, 3),
            moved: swarm(random, 3),
            taken_over: swarm(random, 3),
            log_damage: rarely(random, 6).max(rarely(random, 6)),
            store_damage: rarely(random, 2),
            checkpoint_damage: rarely(random, 2),
            open_cut: *pick(random, &[0.0, 0.2, 0.5]),
            settle: *pick(random, &[0.0, 0.3]),
        }
    }

    /// Only one kind of end.
    pub(crate) fn none() -> Self {
        Self {
            close: 0,
            close_cut: 0,
            process_crash: 0,
            power_crash: 0,
            wiped: 0,
            moved: 0,
            taken_over: 0,
            log_damage: 0,
            store_damage: 0,
            checkpoint_damage: 0,
            open_cut: 0.0,
            settle: 0.0,
        }
    }
}

fn draw_store(random: &mut fastrand::Rng) -> StoreRates {
    let mut rate = |rate: f64| if random.bool() { rate } else { 0.0 };
    let (before, lost, late) = (rate(0.05), rate(0.05), rate(0.03));
    let (tail, outage) = (rate(0.05), rate(0.005));
    StoreRates {
        latency_max_ms: *pick(random, &[5, 50, 300]),
        tail,
        tail_max_ms: *pick(random, &[500, 5000, 20_000]),
        before,
        lost,
        late,
        outage,
        outage_max_ms: *pick(random, &[500, 20_000]),
    }
}

/// A weight that is off in one run of three.
fn swarm(random: &mut fastrand::Rng, weight: u32) -> u32 {
    if random.u8(0..3) == 0 { 0 } else { weight }
}

/// A weight that is on in one run of five.
fn rarely(random: &mut fastrand::Rng, weight: u32) -> u32 {
    if random.u8(0..5) == 0 { weight } else { 0 }
}

fn pick<'a, T>(random: &mut fastrand::Rng, from: &'a [T]) -> &'a T {
    &from[random.usize(0..from.len())]
}

/// The index of a weight, drawn by weight; none if all are 0.
pub(crate) fn pick_weighted(random: &mut fastrand::Rng, weights: &[u32]) -> Option<usize> {
    let sum: u32 = weights.iter().sum();
    if sum == 0 {
        return None;
    }
    let mut dice = random.u32(0..sum);
    weights.iter().position(|weight| {
        let hit = dice < *weight;
        dice = dice.saturating_sub(*weight);
        hit
    })
}
