//! Seeds bent towards one subject each, to prove that the subject is reached and holds.

use lsvd_sim::{Coverage, Scenario, run_scenario};

fn run(scenario: Scenario, seeds: u64) -> Coverage {
    let mut coverage = Coverage::default();
    for seed in 0..seeds {
        match run_scenario(seed, scenario) {
            Ok(outcome) => coverage.add(&outcome.coverage),
            Err(failure) => panic!("{scenario:?}: {failure}"),
        }
    }
    coverage
}

#[test]
fn a_gateway_that_was_taken_over_learns_it_and_does_no_harm() {
    let coverage = run(Scenario::TakenOver, 25);
    assert!(coverage.fenced > 0 && coverage.refused_opens > 0 && coverage.takeovers > 0);
}

#[test]
fn without_its_ssd_an_image_is_what_the_store_has() {
    let coverage = run(Scenario::WipedSsd, 25);
    assert!(coverage.wipes > 0 && coverage.shorter_recoveries > 0);
}

#[test]
fn a_crash_in_the_middle_of_recovery_loses_nothing() {
    let coverage = run(Scenario::CrashInRecovery, 25);
    assert!(coverage.open_cuts > 20 && coverage.log_replays > 0);
}

#[test]
fn a_crash_in_the_middle_of_a_checkpoint_loses_nothing() {
    let coverage = run(Scenario::CrashInCheckpoint, 25);
    assert!(coverage.checkpoints > 100 && coverage.object_replays > 0);
}

#[test]
fn what_was_flushed_survives_power_failures_in_a_log_that_wraps() {
    let coverage = run(Scenario::PowerFailure, 25);
    assert!(coverage.log_wraps > 100 && coverage.torn_writes > 0 && coverage.lost_writes > 0);
}

#[test]
fn a_close_keeps_everything_and_may_be_cut_short() {
    let coverage = run(Scenario::Close, 25);
    assert!(coverage.closes > 0 && coverage.close_cuts > 0);
}

#[test]
fn an_image_that_grows_has_one_of_two_sizes_after_a_crash() {
    let coverage = run(Scenario::Resize, 40);
    assert!(coverage.resizes > 200 && coverage.landed_resizes > 0 && coverage.lost_resizes > 0);
}

#[test]
fn a_damaged_log_is_refused_or_was_not_flushed() {
    let coverage = run(Scenario::LogDamage, 60);
    assert!(coverage.log_damage > 0 && coverage.log_damage_refused > 0);
}

#[test]
fn damaged_objects_are_reported_and_never_returned() {
    let coverage = run(Scenario::StoreDamage, 40);
    assert!(coverage.store_damage_reported > 0 && coverage.checkpoint_fallbacks > 0);
}
