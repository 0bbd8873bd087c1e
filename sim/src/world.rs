//! What a whole simulated run shares: time that outlives crashes, randomness from the seed, and the
//! trace.
//!
//! Invariants: 1. Simulated time never goes back, also over the change from one tokio runtime to
//! the next. 2. Everything that happens is a function of the seed; the trace's hash stands for all
//! of it.
//! Concurrency: one thread. The locks are there because the engine's traits ask for `Sync`.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use lsvd_common::ids::Uuid;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// Lines of the trace that are kept to be shown around a failure.
const LINES_KEPT: usize = 4000;

/// The wall clock at the beginning of every simulation, in milliseconds since 1970.
const WALL_START_MS: u64 = 1_700_000_000_000;

/// Simulated time since the beginning of the run.
pub(crate) type SimTime = Duration;

/// See the module.
pub(crate) struct SimWorld {
    state: Mutex<State>,
}

struct State {
    /// Time when the present runtime began, and that moment on its clock.
    carried: SimTime,
    begun: Option<Instant>,
    random: fastrand::Rng,
    hash: u64,
    operations: u64,
    lines: Option<VecDeque<String>>,
}

impl SimWorld {
    pub(crate) fn new(seed: u64, keep_lines: bool) -> Self {
        Self {
            state: Mutex::new(State {
                carried: Duration::ZERO,
                begun: None,
                random: fastrand::Rng::with_seed(seed),
                hash: 0xcbf2_9ce4_8422_2325,
                operations: 0,
                lines: keep_lines.then(VecDeque::new),
            }),
        }
    }

    /// A runtime begins. Must be called inside of it.
    pub(crate) fn enter(&self) {
        self.state.lock().begun = Some(Instant::now());
    }

    /// The runtime ends. Must be called inside of it.
    pub(crate) fn leave(&self) {
        let mut state = self.state.lock();
        state.carried = state.now();
        state.begun = None;
    }

    pub(crate) fn now(&self) -> SimTime {
        self.state.lock().now()
    }

    /// Waits until a simulated time.
    pub(crate) async fn wait_until(&self, time: SimTime) {
        let at = {
            let state = self.state.lock();
            state.begun.map(|begun| begun + time.saturating_sub(state.carried))
        };
        if let Some(at) = at {
            sleep_until(at).await;
        }
    }

    /// A generator of its own for one part of the world, so that parts do not shift each other's
    /// dice.
    pub(crate) fn fork(&self) -> fastrand::Rng {
        self.state.lock().random.fork()
    }

    /// Notes that something happened. The numbers go into the hash, the text only into the lines.
    pub(crate) fn trace(&self, what: &'static str, numbers: [u64; 3], text: fmt::Arguments<'_>) {
        let mut state = self.state.lock();
        let now = state.now();
        state.operations += 1;
        let mut hash = state.hash;
        let mut mix = |bytes: &[u8]| {
            for byte in bytes {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        mix(what.as_bytes());
        for number in [now.as_nanos() as u64, numbers[0], numbers[1], numbers[2]] {
            mix(&number.to_le_bytes());
        }
        state.hash = hash;
        if let Some(lines) = &mut state.lines {
            if lines.len() == LINES_KEPT {
                lines.pop_front();
            }
            lines.push_back(format!("{:>12.3} {what} {text}", now.as_secs_f64() * 1000.0));
        }
    }

    /// The hash of everything so far.
    pub(crate) fn hash(&self) -> u64 {
        self.state.lock().hash
    }

    /// How many operations were noted.
    pub(crate) fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// The last lines of the trace.
    pub(crate) fn lines(&self) -> Vec<String> {
        let state = self.state.lock();
        state.lines.iter().flatten().cloned().collect()
    }
}

impl State {
    fn now(&self) -> SimTime {
        self.carried + self.begun.map_or(Duration::ZERO, |begun| begun.elapsed())
    }
}

impl fmt::Debug for SimWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimWorld").field("now", &self.now()).finish_non_exhaustive()
    }
}

impl lsvd_engine::World for SimWorld {
    fn wall_ms(&self) -> u64 {
        WALL_START_MS + self.now().as_millis() as u64
    }

    fn uuid(&self) -> Uuid {
        Uuid::from_u128(self.state.lock().random.u128(..))
    }
}
