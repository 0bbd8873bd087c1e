//! Seeds of all kinds, as many as a normal test run has time for. `lsvd-sim` runs thousands.

use lsvd_sim::{Coverage, run_seed};

#[test]
fn no_promise_is_broken_in_the_first_seeds() {
    let mut coverage = Coverage::default();
    for seed in 0..300 {
        match run_seed(seed, false) {
            Ok(outcome) => coverage.add(&outcome.coverage),
            Err(failure) => panic!("{failure}"),
        }
    }
    assert!(coverage.log_replays > 0 && coverage.takeovers > 0 && coverage.torn_writes > 0);
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    for seed in 1000..1025 {
        let first = run_seed(seed, false).expect("no promise is broken");
        let second = run_seed(seed, true).expect("no promise is broken the second time");
        assert_eq!(first, second, "seed {seed}");
    }
}

#[test]
fn different_seeds_are_different_runs() {
    let first = run_seed(1, false).expect("no promise is broken");
    assert_ne!(first.trace_hash, run_seed(2, false).expect("nor here").trace_hash);
}
