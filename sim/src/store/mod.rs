//! A simulated object store: slow, at times away, and with answers that get lost while the request
//! lands.
//!
//! A change lands at its own moment, on its own: the caller may have its answer before, after, or
//! never, and may be dead by then. Conditions (create-only, if-match) are judged when it lands.
//!
//! Does not: lose or damage anything by itself; [`SimStore::flip`] does, when a scenario asks for
//! it.

mod connection;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use lsvd_common::ids::{ObjectSeq, WriteSeq};
use lsvd_common::name::{ImageName, ObjectName};
use lsvd_common::object::data::DataHeader;
use lsvd_common::object::prefix::{self, ObjectKind};
use lsvd_common::object::superblock::Superblock;
use lsvd_store::{ErrorKind, MemStore, ObjectStore, Op, PutMode, Result, Version};
use parking_lot::Mutex;

use crate::world::{SimTime, SimWorld};
pub(crate) use connection::Connection;

/// How the store behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoreRates {
    /// Most requests take from 1 ms to this long.
    pub(crate) latency_max_ms: u64,
    /// Probability of a slow request, and how long that may take.
    pub(crate) tail: f64,
    pub(crate) tail_max_ms: u64,
    /// Probability that a request fails before it has an effect.
    pub(crate) before: f64,
    /// Probability that a request has its effect and the answer is lost.
    pub(crate) lost: f64,
    /// Probability that a request is reported lost and lands later, or never.
    pub(crate) late: f64,
    /// Probability that a request begins an outage, and how long that may take.
    pub(crate) outage: f64,
    pub(crate) outage_max_ms: u64,
}

impl StoreRates {
    /// Fast, and without a fault.
    pub(crate) const CALM: Self = Self {
        latency_max_ms: 5,
        tail: 0.0,
        tail_max_ms: 0,
        before: 0.0,
        lost: 0.0,
        late: 0.0,
        outage: 0.0,
        outage_max_ms: 0,
    };
}

/// What happened, for the coverage summary.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StoreCounts {
    /// Requests of any kind.
    pub(crate) requests: u64,
    /// Requests that failed without an effect.
    pub(crate) refused: u64,
    /// Changes whose answer was lost.
    pub(crate) answers_lost: u64,
    /// Changes that landed after their gateway had crashed or given up.
    pub(crate) landed_late: u64,
    /// Objects that replaced another gateway's or term's.
    pub(crate) replaced: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct SimStore {
    world: Arc<SimWorld>,
    objects: MemStore,
    image: ImageName,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    random: fastrand::Rng,
    rates: StoreRates,
    outage_until: SimTime,
    pending: BTreeMap<(SimTime, u64), Pending>,
    results: BTreeMap<u64, Result<Option<Version>>>,
    next_id: u64,
    counts: StoreCounts,
    /// Numbered objects whose put was acknowledged to the image's present writer, with the version
    /// that it got.
    acknowledged: BTreeMap<ObjectSeq, Version>,
    checkpoint_damaged: bool,
    /// The contiguous run of those from the first object on: how far it goes, and the last write in
    /// it.
    run: (ObjectSeq, WriteSeq),
}

#[derive(Debug)]
struct Pending {
    change: Change,
    /// Nobody waits for it any more.
    is_orphan: bool,
}

#[derive(Debug)]
enum Change {
    Put { name: String, body: Bytes, mode: PutMode },
    Delete { name: String },
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug)]
struct Fate {
    /// When it takes effect; never if none.
    lands: Option<SimTime>,
    answers: SimTime,
    error: Option<ErrorKind>,
}

impl SimStore {
    pub(crate) fn new(world: &Arc<SimWorld>, image: &ImageName) -> Arc<Self> {
        let state = State {
            random: world.fork(),
            rates: StoreRates::CALM,
            outage_until: Duration::ZERO,
            pending: BTreeMap::new(),
            results: BTreeMap::new(),
            next_id: 0,
            counts: StoreCounts::default(),
            acknowledged: BTreeMap::new(),
            checkpoint_damaged: false,
            run: (ObjectSeq(0), WriteSeq(0)),
        };
        Arc::new(Self {
            world: Arc::clone(world),
            objects: MemStore::new(),
            image: image.clone(),
            state: Mutex::new(state),
        })
    }

    /// The connection of one gateway.
    pub(crate) fn connect(self: &Arc<Self>) -> Arc<Connection> {
        Connection::new(self)
    }

    pub(crate) fn set_rates(&self, rates: StoreRates) {
        let mut state = self.state.lock();
        state.rates = rates;
        state.outage_until = Duration::ZERO;
    }

    pub(crate) fn counts(&self) -> StoreCounts {
        self.state.lock().counts
    }

    /// The gateways crash: what they had sent lands at its time, much later, or never.
    pub(crate) fn orphan_requests(&self, latest: Duration) {
        self.advance();
        let now = self.world.now();
        let mut state = self.state.lock();
        state.results.clear();
        for ((at, id), mut pending) in std::mem::take(&mut state.pending) {
            pending.is_orphan = true;
            let at = match state.random.u8(0..10) {
                0..3 => continue,
                3..6 => at,
                _ => now + latest.mul_f64(state.random.f64()),
            };
            state.pending.insert((at, id), pending);
        }
    }

    /// The last write that is in the store for good: in the run of acknowledged objects without a
    /// gap.
    pub(crate) fn durable_write(&self) -> WriteSeq {
        self.advance();
        let mut state = self.state.lock();
        loop {
            let seq = state.run.0.next();
            let Some(version) = state.acknowledged.get(&seq) else { return state.run.1 };
            let Ok(object) = at_once(self.objects.get(&self.image.numbered(seq))) else {
                return state.run.1;
            };
            if object.version != *version {
                return state.run.1;
            }
            let kind = prefix::peek(&object.body).map(|peek| peek.kind);
            if matches!(kind, Ok(ObjectKind::Data | ObjectKind::Moved))
                && let Ok((header, _)) = DataHeader::decode(&object.body)
            {
                state.run.1 = header.last_write;
            }
            state.run.0 = seq;
        }
    }

    /// A term began behind object `last`: what was acknowledged behind it does not count any more.
    pub(crate) fn term_began(&self, last: ObjectSeq) {
        self.state.lock().acknowledged.split_off(&last.next());
    }

    /// Turns one bit of one object over; which object, if there is one.
    pub(crate) fn flip(&self, random: &mut fastrand::Rng) -> Option<String> {
        let listing = at_once(self.objects.list(&self.image.prefix(), None, None, 100_000)).ok()?;
        let (name, size) = random.choice(listing.objects)?;
        let bit = random.u64(0..size.max(1) * 8);
        self.world.trace("flip", [bit, size, 0], format_args!("object {name} bit {bit}"));
        self.objects.corrupt(&name, |body| {
            if let Some(byte) = body.get_mut((bit / 8) as usize) {
                *byte ^= 1 << (bit % 8);
            }
        });
        Some(name)
    }

    /// Damages the newest checkpoint that the superblock names. False if there is none, or one was
    /// damaged before: an image has one to spare.
    pub(crate) fn damage_checkpoint(&self) -> bool {
        if std::mem::replace(&mut self.state.lock().checkpoint_damaged, true) {
            return false;
        }
        let Some(newest) = self.superblock().and_then(|sb| sb.checkpoints.first().copied()) else {
            return false;
        };
        let name = self.image.numbered(newest.seq);
        self.world.trace("flip", [newest.seq.0, 0, 0], format_args!("checkpoint {name}"));
        self.objects.corrupt(&name, |body| body[40] ^= 1)
    }

    pub(crate) fn superblock(&self) -> Option<Superblock> {
        let object = at_once(self.objects.get(&self.image.superblock())).ok()?;
        Superblock::decode(&object.body).ok()
    }

    /// Lets everything land whose time has come.
    fn advance(&self) {
        let now = self.world.now();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        while let Some(entry) = state.pending.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, id), Pending { change, is_orphan }) = entry.remove_entry();
            let result = match &change {
                Change::Put { name, body, mode } => {
                    let result = at_once(self.objects.put(name, body.clone().into(), mode.clone()));
                    let numbered =
                        matches!(ObjectName::parse(name), Some(ObjectName::Numbered(..)));
                    if result.is_ok() && numbered && *mode != PutMode::Create {
                        state.counts.replaced += 1;
                    }
                    result.map(Some)
                }
                Change::Delete { name } => at_once(self.objects.delete(name)).map(|()| None),
            };
            state.counts.landed_late += u64::from(is_orphan && result.is_ok());
            let (name, verb) = match &change {
                Change::Put { name, .. } => (name, "put"),
                Change::Delete { name } => (name, "delete"),
            };
            let orphan = if is_orphan { " of a gateway that is gone" } else { "" };
            let outcome = match &result {
                Ok(_) => "done",
                Err(error) => kind_text(error.kind()),
            };
            self.world.trace(
                "lands",
                [id, u64::from(result.is_ok()), 0],
                format_args!("#{id} {verb} {name}{orphan}: {outcome}"),
            );
            if !is_orphan {
                state.results.insert(id, result);
            }
        }
    }
}

fn kind_text(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "not found",
        ErrorKind::AlreadyExists => "exists",
        ErrorKind::PreconditionFailed => "precondition failed",
        _ => "refused",
    }
}

impl State {
    fn fate(&mut self, now: SimTime, op: Op) -> Fate {
        let mut rates = self.rates;
        let is_change = op.is_mutation();
        if op == Op::Delete {
            // Rare, and the worst to come late: it hits whatever has the name by then.
            rates.late *= 5.0;
        }
        self.counts.requests += 1;
        let latency_ms = if self.random.f64() < rates.tail {
            self.random.u64(1..=rates.tail_max_ms.max(1))
        } else {
            self.random.u64(1..=rates.latency_max_ms)
        };
        let latency = Duration::from_millis(latency_ms);
        let lands = now + latency.mul_f64(self.random.f64());
        let answers = now + latency;
        if self.random.f64() < rates.outage {
            let length = Duration::from_millis(self.random.u64(1..=rates.outage_max_ms.max(1)));
            self.outage_until = now + length;
        }
        let dice = self.random.f64();
        if now < self.outage_until || dice < rates.before {
            self.counts.refused += 1;
            return Fate { lands: None, answers, error: Some(ErrorKind::Unavailable) };
        }
        if dice >= rates.before + rates.lost + rates.late {
            return Fate { lands: Some(lands), answers, error: None };
        }
        let kind = if is_change { ErrorKind::Ambiguous } else { ErrorKind::Unavailable };
        self.counts.answers_lost += u64::from(is_change);
        if dice < rates.before + rates.lost {
            return Fate { lands: Some(lands), answers, error: Some(kind) };
        }
        let late = Duration::from_millis(self.random.u64(1..20_000));
        let lands = self.random.bool().then(|| answers + late);
        Fate { lands, answers, error: Some(kind) }
    }
}

impl SimStore {
    fn describe(&self) -> String {
        "the simulated store".to_owned()
    }
}

/// The outcome of a future that never waits: the store in memory answers in the call.
fn at_once<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the store in memory never waits"),
    }
}
