//! One seed: generations of gateways on one image, each ended by a crash, a close or a takeover,
//! each checked by the next.
//!
//! Does not: decide what a state of the image is; see `model`. Every generation runs in a tokio
//! runtime of its own, whose drop is the crash: tasks, handles and answers are gone, what disks and
//! store had taken goes its own way.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lsvd_common::name::ImageName;
use lsvd_engine::image::{self, NewImage};
use lsvd_store::ObjectStore;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::coverage::Coverage;
use crate::disk::{Crash, DiskRates, SimDir};
use crate::generation::{End, Generation};
use crate::model::Model;
use crate::plan::{Plan, Scenario};
use crate::store::{SimStore, StoreRates};
use crate::world::SimWorld;

/// Machines of the scenario: gateways move between them.
pub(crate) const MACHINES: usize = 2;

/// How a run went wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What was expected and what was found.
    pub what: String,
    /// The plan of the seed.
    pub plan: String,
    /// The last operations, if they were kept.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "seed {}: {}", self.seed, self.what)?;
        writeln!(f, "plan: {}", self.plan)?;
        write!(f, "replay: LSVD_SEED={} cargo run --release -p lsvd-sim", self.seed)
    }
}

impl std::error::Error for Failure {}

/// What a run that found nothing did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Counts of what happened.
    pub coverage: Coverage,
    /// Hash over every operation and its time: equal for equal seeds.
    pub trace_hash: u64,
}

/// Runs one seed with the plan that it draws. With `keep_trace` a failure shows the operations that
/// led to it.
///
/// # Errors
/// A promise of the engine was broken.
pub fn run_seed(seed: u64, keep_trace: bool) -> Result<Outcome, Box<Failure>> {
    run_plan(seed, keep_trace, |_| {})
}

/// As [`run_seed`], with the plan bent towards one subject.
///
/// # Errors
/// As [`run_seed`].
pub fn run_scenario(seed: u64, scenario: Scenario) -> Result<Outcome, Box<Failure>> {
    run_plan(seed, false, |plan| scenario.shape(plan))
}

/// As [`run_seed`], with an engine that has a fault on purpose.
///
/// # Errors
/// As [`run_seed`]; here it is what is hoped for.
#[cfg(feature = "canary")]
pub fn run_canary(seed: u64, canary: lsvd_engine::Canary) -> Result<Outcome, Box<Failure>> {
    run_plan(seed, false, |plan| plan.canary = Some(canary))
}

fn run_plan(
    seed: u64,
    keep_trace: bool,
    change: impl FnOnce(&mut Plan),
) -> Result<Outcome, Box<Failure>> {
    let world = Arc::new(SimWorld::new(seed, keep_trace));
    let mut random = world.fork();
    let mut plan = Plan::draw(&mut random);
    change(&mut plan);
    let name = ImageName::parse("disk").expect("a fixed name is a good one");
    let context = Arc::new(Context {
        store: SimStore::new(&world, &name),
        machines: [SimDir::new(&world, "ssd-a"), SimDir::new(&world, "ssd-b")],
        name,
        plan,
        world,
        coverage: Mutex::default(),
        failure: Mutex::default(),
        failed: Notify::new(),
        damaged: AtomicBool::new(false),
        being_taken: AtomicBool::new(false),
        faults: AtomicBool::new(false),
    });
    let mut run = Run { context: Arc::clone(&context), random };
    run.all();
    let failure = context.failure.lock().take();
    if let Some(what) = failure {
        let plan = format!("{:?}", context.plan);
        return Err(Box::new(Failure { seed, what, plan, trace: context.world.lines() }));
    }
    let mut coverage = *context.coverage.lock();
    coverage.seeds = 1;
    coverage.operations = context.world.operations();
    let counts = context.store.counts();
    coverage.store_refusals = counts.refused;
    coverage.store_answers_lost = counts.answers_lost;
    coverage.landed_late = counts.landed_late;
    coverage.objects_replaced = counts.replaced;
    coverage.disk_errors = context.machines.iter().map(|machine| machine.operations().1).sum();
    Ok(Outcome { coverage, trace_hash: context.world.hash() })
}

/// What all parts of a run share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) world: Arc<SimWorld>,
    pub(crate) store: Arc<SimStore>,
    pub(crate) machines: [Arc<SimDir>; MACHINES],
    pub(crate) name: ImageName,
    pub(crate) plan: Plan,
    coverage: Mutex<Coverage>,
    failure: Mutex<Option<String>>,
    /// Wakes the generation when something is wrong.
    pub(crate) failed: Notify,
    /// Bytes in the store were turned over: reads and opens may report that.
    damaged: AtomicBool,
    /// Another gateway is taking the image over.
    being_taken: AtomicBool,
    /// Store and disks behave as planned, not calmly.
    faults: AtomicBool,
}

impl Context {
    /// A promise was broken. The first one counts; the rest may follow from it.
    pub(crate) fn violation(&self, what: fmt::Arguments<'_>) {
        self.world.trace("VIOLATION", [0; 3], what);
        self.failure.lock().get_or_insert_with(|| format!("{what}"));
        self.failed.notify_one();
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failure.lock().is_some()
    }

    pub(crate) fn count(&self, count: impl FnOnce(&mut Coverage)) {
        count(&mut self.coverage.lock());
    }

    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    pub(crate) fn set_damaged(&self) {
        self.damaged.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_being_taken(&self) -> bool {
        self.being_taken.load(Ordering::Relaxed)
    }

    pub(crate) fn set_being_taken(&self, taken: bool) {
        self.being_taken.store(taken, Ordering::Relaxed);
    }

    /// True if the store refuses requests at times.
    pub(crate) fn store_fails(&self) -> bool {
        self.faults.load(Ordering::Relaxed)
    }

    /// True if an operation of a machine's SSD failed.
    pub(crate) fn disk_failed(&self, machine: usize) -> bool {
        self.machines[machine].operations().1 > 0
    }

    /// Store and disks behave as planned.
    pub(crate) fn begin_faults(&self) {
        self.faults.store(true, Ordering::Relaxed);
        self.store.set_rates(self.plan.store);
        for machine in &self.machines {
            machine.set_rates(self.plan.disk);
        }
    }

    /// Faults stop. Requests that are on their way keep their fate.
    pub(crate) fn end_faults(&self) {
        self.store.set_rates(StoreRates::CALM);
        for machine in &self.machines {
            machine.set_rates(DiskRates::CALM);
        }
    }
}

/// What a generation hands to the next.
#[derive(Debug)]
pub(crate) struct Heritage {
    pub(crate) model: Model,
    /// The machine that the next gateway runs on.
    pub(crate) machine: usize,
    /// Operations that the next recovery must find at least.
    pub(crate) required: usize,
    /// The log of the last term is gone, or is on the other machine.
    pub(crate) log_lost: bool,
    /// Bits of the log were turned over.
    pub(crate) log_damaged: bool,
    /// The newest checkpoint was damaged.
    pub(crate) checkpoint_damaged: bool,
}

struct Run {
    context: Arc<Context>,
    random: fastrand::Rng,
}

impl Run {
    fn all(&mut self) {
        let sectors = (self.context.plan.size_bytes / 512) as u32;
        let context = Arc::clone(&self.context);
        let created = self.in_runtime(async move {
            let store: Arc<dyn ObjectStore> = context.store.connect();
            let new = NewImage {
                size_bytes: context.plan.size_bytes,
                sector_size: context.plan.sector_size,
                region_shift: Some(context.plan.region_shift),
            };
            image::create(&store, &context.name, new, &*context.world).await
        });
        if let Err(error) = created {
            self.context.violation(format_args!("the image could not be created: {error:?}"));
            return;
        }
        let mut heritage = Heritage {
            model: Model::new(sectors),
            machine: 0,
            required: 0,
            log_lost: false,
            log_damaged: false,
            checkpoint_damaged: false,
        };
        for number in 0..=self.context.plan.generations {
            let is_last = number == self.context.plan.generations;
            let mut generation =
                Generation::new(&self.context, self.random.fork(), heritage, is_last);
            let (end, back) = self.in_runtime(async move {
                let end = generation.run().await;
                (end, generation.into_heritage())
            });
            heritage = back;
            if self.context.has_failed() {
                return;
            }
            match end {
                End::Over => return,
                End::Stopped { how, wiped } => self.stop(&mut heritage, how, wiped),
            }
        }
    }

    /// Runs a future in a runtime whose time is simulated, then drops the runtime with all that it
    /// still runs.
    fn in_runtime<T>(&self, future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O needs nothing from the machine");
        let world = &self.context.world;
        runtime.block_on(async move {
            world.enter();
            let output = Box::pin(future).await;
            world.leave();
            output
        })
    }

    /// The machines stop: all processes end at once.
    fn stop(&mut self, heritage: &mut Heritage, how: Crash, wiped: bool) {
        let context = &self.context;
        context.store.orphan_requests(context.plan.orphans_latest);
        for (index, machine) in context.machines.iter().enumerate() {
            // Power fails where the gateway runs; the other machine's processes are gone, no more.
            let how = if index == heritage.machine { how } else { Crash::Process };
            let report = machine.crash(how);
            context.count(|coverage| {
                coverage.torn_writes += report.torn;
                coverage.lost_writes += report.lost;
            });
        }
        context.count(|coverage| match how {
            Crash::Process => coverage.process_crashes += 1,
            Crash::Power => coverage.power_crashes += 1,
        });
        if how == Crash::Power {
            heritage.required = heritage.required.min(heritage.model.flushed());
            if heritage.log_damaged {
                // The record that spoke of what was durable may be lost itself.
                heritage.required = heritage.required.min(heritage.model.stored());
            }
        }
        if wiped {
            context.count(|coverage| coverage.wipes += 1);
            context.machines[heritage.machine].wipe();
            heritage.log_lost = true;
        }
        if heritage.log_lost {
            heritage.required = heritage.required.min(heritage.model.stored());
        }
        if context.plan.cache_flips {
            for _ in 0..4 {
                let bit = self.random.u64(..);
                context.machines[heritage.machine].flip("cache", bit);
            }
        }
    }
}

/// How long a volume without faults may need for anything, in simulated time.
pub(crate) const SETTLE_MAX: Duration = Duration::from_secs(600);
