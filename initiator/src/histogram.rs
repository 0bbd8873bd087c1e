//! Latencies in buckets of at most 1/32 of their value: percentiles without keeping every sample.

use std::time::Duration;

/// Buckets of each power of two.
const STEPS: usize = 32;
const STEP_BITS: u32 = STEPS.ilog2();

/// Counts of latencies, by nanoseconds.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Box<[u64; BUCKETS]>,
    total: u64,
}

/// The first `STEPS` values have a bucket each; then come `STEPS` for each power of two.
const BUCKETS: usize = STEPS * (65 - STEP_BITS as usize);

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]), total: 0 }
    }
}

impl Histogram {
    /// Adds one latency.
    pub fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanoseconds)] += 1;
        self.total += 1;
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts.iter()) {
            *count += more;
        }
        self.total += other.total;
    }

    /// Latencies so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.total
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The latency that `per_mille` thousandths do not exceed, at most 1/32 too long; 0 when empty.
    #[must_use]
    pub fn percentile(&self, per_mille: u64) -> Duration {
        let rank = u128::from(self.total) * u128::from(per_mille);
        let rank = u64::try_from(rank.div_ceil(1000)).unwrap_or(u64::MAX).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(longest(index));
            }
        }
        Duration::ZERO
    }
}

fn bucket(value: u64) -> usize {
    let power = value.checked_ilog2().unwrap_or(0);
    let shift = power.saturating_sub(STEP_BITS);
    let leading = usize::try_from(value >> shift).expect("below twice the steps");
    shift as usize * STEPS + leading
}

/// The longest value of a bucket.
fn longest(index: usize) -> u64 {
    let shift = (index / STEPS).saturating_sub(1);
    let leading = (index - shift * STEPS) as u64;
    (leading << shift) + ((1 << shift) - 1)
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ends_of_the_scale_have_buckets() {
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(longest(BUCKETS - 1), u64::MAX);
        assert_eq!(Histogram::default().percentile(500), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn percentiles_are_those_of_the_sorted_samples(
            mut samples in prop::collection::vec(0u64..10_000_000, 1..200),
            per_mille in 1u64..=1000,
        ) {
            let mut histogram = Histogram::default();
            let mut half = Histogram::default();
            for (index, sample) in samples.iter().enumerate() {
                let into = if index % 2 == 0 { &mut histogram } else { &mut half };
                into.record(Duration::from_nanos(*sample));
            }
            histogram.merge(&half);
            samples.sort_unstable();
            let rank = (samples.len() as u64 * per_mille).div_ceil(1000).max(1);
            let exact = samples[usize::try_from(rank).unwrap() - 1];
            let found = u64::try_from(histogram.percentile(per_mille).as_nanos()).unwrap();
            prop_assert!((exact..=exact + exact / 32).contains(&found), "{exact} {found}");
        }
    }
}
