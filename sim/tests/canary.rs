//! A simulator that finds nothing may be blind: faults planted in the engine must be found, each
//! within a few seeds.
//!
//! `cargo test -p lsvd-sim --features canary --test canary`
#![cfg(feature = "canary")]

use lsvd_engine::Canary;
use lsvd_sim::run_canary;

/// Seeds until a fault must have been found.
const SEEDS: u64 = 300;

fn is_found(canary: Canary) {
    let found = (0..SEEDS).any(|seed| run_canary(seed, canary).is_err());
    assert!(found, "{canary:?} is not found");
}

#[test]
fn a_flush_without_a_sync_is_found() {
    is_found(Canary::FlushWithoutSync);
}

#[test]
fn log_space_that_is_reused_too_early_is_found() {
    is_found(Canary::TailBeforeRetire);
}

#[test]
fn a_replay_over_a_gap_is_found() {
    is_found(Canary::ReplayOverGap);
}

#[test]
fn trust_in_torn_records_is_found() {
    is_found(Canary::TrustTornRecord);
}

#[test]
fn forgotten_discards_are_found() {
    is_found(Canary::ForgetDiscard);
}

#[test]
fn a_gateway_that_ignores_its_fence_is_found() {
    is_found(Canary::IgnoreFence);
}

#[test]
fn a_volume_that_grows_before_its_superblock_is_found() {
    is_found(Canary::GrowEarly);
}
