//! Smooth back-pressure: as log space runs out, writes are let in ever more slowly, and nothing
//! ever stalls for long.
//!
//! Below half full there is no limit. Above, the rate falls from twice the rate at which space
//! comes back, through exactly that rate at three quarters full, towards nothing at full; while the
//! store takes nothing, each write may use only a fixed share of what is left for each second, so
//! latency grows smoothly instead of a wall.
//!
//! The log is for what the store cannot take at once. Where it takes as much as may wait in memory
//! within [`FAST_STORE`], writers are paced as if the log were as large as that memory: a longer
//! queue would gain them nothing, and what does not fit has to be read back from the log, which
//! slows the store down further.
//!
//! Invariant: admission is first come, first served, so the order of calls is the order of write
//! sequences. Concurrency: the pacer has a lock of its own, never held over an await; waiters queue
//! on a fair mutex.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Share of the log, in percent, below which writes are not paced.
const PACE_FROM_PERCENT: u64 = 50;

/// Share of the log, in percent, at which writes are let in exactly as fast as space comes back.
const BALANCE_PERCENT: u64 = 75;

/// While nothing comes back, a write may take this part of the space that is left for each second
/// that it waits.
const DRAIN_SECONDS: f64 = 8.0;

/// A store is fast if it takes what may wait in memory in this time.
const FAST_STORE: Duration = Duration::from_millis(200);

/// A paced writer looks again at least this often: the rate may have risen.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// Waits shorter than this are not worth a timer; they are owed instead.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// How fast the estimate of the drain rate follows a new measurement.
const RATE_GAIN: f64 = 0.3;

/// See the module.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Serves waiters in the order in which they came.
    pub(crate) turn: tokio::sync::Mutex<()>,
    pub(crate) waiting: AtomicUsize,
    pacer: Mutex<Pacer>,
}

#[derive(Debug)]
struct Pacer {
    /// Bytes per second at which log space came back lately.
    drain_rate: f64,
    /// When space came back last.
    freed: Option<Instant>,
    /// Until when what was let in is paid for.
    paid: Option<Instant>,
}

/// How full the log is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fill {
    pub(crate) used: u64,
    pub(crate) capacity: u64,
    /// Bytes of it that are in memory as well.
    pub(crate) memory: u64,
}

impl Fill {
    /// The capacity at which writers settle where the memory is full.
    fn capacity_of_memory(self) -> u64 {
        self.capacity.min(self.memory / BALANCE_PERCENT * 100)
    }
}

impl Admission {
    pub(crate) fn new() -> Self {
        Self {
            turn: tokio::sync::Mutex::new(()),
            waiting: AtomicUsize::new(0),
            pacer: Mutex::new(Pacer { drain_rate: 0.0, freed: None, paid: None }),
        }
    }

    /// True if a write may go at once: nobody waits and the log is not filling up.
    pub(crate) fn is_open(&self, fill: Fill) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
            && fill.used * 100 < fill.capacity_of_memory() * PACE_FROM_PERCENT
    }

    /// How long a write of `bytes` must still wait; none if it may go now, which charges it.
    pub(crate) fn charge(&self, bytes: u64, fill: Fill, now: Instant) -> Option<Duration> {
        let mut pacer = self.pacer.lock();
        let rate = pacer.rate(fill, now)?;
        let paid = pacer.paid.unwrap_or(now).max(now);
        let wait = paid - now;
        if wait >= WAIT_MIN {
            return Some(wait.min(WAIT_MAX));
        }
        let cost = Duration::try_from_secs_f64(bytes as f64 / rate).unwrap_or(WAIT_MAX);
        pacer.paid = Some(paid + cost);
        None
    }

    /// Space came back: `bytes` of it.
    pub(crate) fn freed(&self, bytes: u64, now: Instant) {
        let mut pacer = self.pacer.lock();
        if let Some(before) = pacer.freed {
            let seconds = (now - before).as_secs_f64().max(0.001);
            let rate = bytes as f64 / seconds;
            pacer.drain_rate += RATE_GAIN * (rate - pacer.drain_rate);
        }
        pacer.freed = Some(now);
    }
}

impl Pacer {
    /// Bytes per second that may come in; none if there is no limit.
    fn rate(&self, fill: Fill, now: Instant) -> Option<f64> {
        // A store that was fast and fell silent is not: then the log is there to be filled.
        let is_fast = self.drain_rate * FAST_STORE.as_secs_f64() >= fill.memory as f64
            && self.freed.is_some_and(|freed| now - freed < FAST_STORE);
        let capacity = if is_fast { fill.capacity_of_memory() } else { fill.capacity };
        let from = capacity * PACE_FROM_PERCENT / 100;
        if fill.used < from {
            return None;
        }
        let balance = capacity * BALANCE_PERCENT / 100;
        let left = capacity.saturating_sub(fill.used) as f64;
        let factor = if fill.used < balance {
            2.0 - (fill.used - from) as f64 / (balance - from) as f64
        } else {
            left / (capacity - balance) as f64
        };
        Some((self.drain_rate * factor).max(left / DRAIN_SECONDS).max(1.0))
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn simulate(drain: f64, seconds: u64) -> (Vec<f64>, Duration) {
        // A client that writes 64 KiB as fast as it may, against a store that frees at a steady
        // rate.
        let admission = Admission::new();
        let capacity = 256_u64 << 20;
        let (start, mut now) = (Instant::now(), Instant::now());
        let (mut used, mut freed, mut longest) = (0.0_f64, 0.0_f64, Duration::ZERO);
        let mut fills = Vec::new();
        let mut last = now;
        while now - start < Duration::from_secs(seconds) {
            let elapsed = (now - start).as_secs_f64();
            while freed + (8 << 20) as f64 <= (drain * elapsed).min(freed + used) {
                freed += (8 << 20) as f64;
                used -= (8 << 20) as f64;
                admission.freed(8 << 20, now);
            }
            let fill = Fill { used: used as u64, capacity, memory: 64 << 20 };
            match admission.charge(64 << 10, fill, now) {
                Some(wait) => now += wait,
                None => {
                    longest = longest.max(now - last);
                    last = now;
                    used += 65536.0;
                    now += Duration::from_micros(50);
                }
            }
            fills.push(used / capacity as f64);
        }
        (fills, longest)
    }

    #[test]
    fn writers_settle_at_the_rate_of_the_store_without_a_stall() {
        let (fills, longest) = simulate(100e6, 60);
        let late = &fills[fills.len() / 2..];
        assert!(late.iter().all(|fill| (0.5..0.98).contains(fill)), "{late:?}");
        assert!(longest < Duration::from_millis(200), "{longest:?}");
    }

    #[test]
    fn a_fast_store_gets_no_more_than_fits_the_memory() {
        let (fills, longest) = simulate(800e6, 20);
        let late = &fills[fills.len() / 2..];
        // 64 MiB of 256.
        assert!(late.iter().all(|fill| (0.05..0.34).contains(fill)), "{late:?}");
        assert!(longest < Duration::from_millis(200), "{longest:?}");
    }

    #[test]
    fn a_fast_store_that_falls_silent_leaves_the_whole_log() {
        let (admission, start) = (Admission::new(), Instant::now());
        for step in 0..100 {
            admission.freed(8 << 20, start + Duration::from_millis(10 * step));
        }
        let last = start + Duration::from_millis(990);
        let fill = Fill { used: 100 << 20, capacity: 256 << 20, memory: 64 << 20 };
        let after = |pause| {
            let mut now = last + pause;
            let end = now + FAST_STORE / 4;
            let mut taken = 0_u64;
            while now < end {
                match admission.charge(64 << 10, fill, now) {
                    Some(wait) => now += wait,
                    None => {
                        taken += 1;
                        now += Duration::from_micros(50);
                    }
                }
            }
            taken
        };
        assert!(after(Duration::ZERO) <= 1);
        assert!(after(2 * FAST_STORE) > 100);
    }

    #[test]
    fn a_store_that_is_away_slows_writers_down_smoothly() {
        let (fills, longest) = simulate(0.0, 20);
        assert!(fills.iter().all(|fill| *fill <= 1.0));
        assert!(fills.last().is_some_and(|fill| *fill > 0.8));
        assert!(longest < Duration::from_millis(200), "{longest:?}");
    }

    #[test]
    fn an_empty_log_does_not_pace() {
        let admission = Admission::new();
        let fill = Fill { used: 49, capacity: 100, memory: 100 };
        assert!(admission.is_open(fill));
        assert_eq!(admission.charge(1 << 30, fill, Instant::now()), None);
    }
}
