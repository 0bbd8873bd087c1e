//! The simulator, in release: seeds of the real engine, and the canary build that must find its planted faults.

use crate::command::{cargo, run as run_command};
use crate::suite::{self, Counts};

/// Seeds that CI runs.
const SEEDS: &str = "2000";

/// Runs the simulator with the caller's words.
pub(crate) fn run(words: &[String]) -> anyhow::Result<()> {
    run_command(simulator().args(words))
}

/// What CI runs.
pub(crate) fn smoke(counts: &mut Counts) -> anyhow::Result<()> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from).to_string();
    run_command(simulator().args(["--seeds", SEEDS, "--jobs", &jobs]))?;
    let canary = suite::libtest(&[
        "--release",
        "-p",
        "lsvd-sim",
        "--features",
        "canary",
        "--test",
        "canary",
    ])?;
    counts.passed += canary.passed;
    counts.failed += canary.failed;
    anyhow::ensure!(canary.failed == 0, "a planted fault was not found");
    anyhow::ensure!(canary.passed > 0, "the canary build has no tests");
    Ok(())
}

fn simulator() -> std::process::Command {
    cargo(["run", "--release", "--locked", "--quiet", "-p", "lsvd-sim", "--"])
}
