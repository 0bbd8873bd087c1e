//! Everything that CI runs, in order, with the time that each step took, and a closing line of counts.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;

use crate::command::{cargo, run as run_command};
use crate::prepare::Prepared;
use crate::suite::Counts;
use crate::{fuzz, graph, prepare, simulate, suite, tidy};

/// Runs all steps up to the first that fails. The last line of the output is `N passed, M failed`: tests, and one for a
/// step that failed otherwise.
pub(crate) fn run() -> ExitCode {
    let mut counts = Counts::default();
    let begun = Instant::now();
    let result = all(&mut counts);
    println!("\n== all of it took {} s", begun.elapsed().as_secs());
    if let Err(error) = &result {
        println!("{error:#}");
        counts.failed = counts.failed.max(1);
    }
    println!("{} passed, {} failed", counts.passed, counts.failed);
    if counts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn all(counts: &mut Counts) -> anyhow::Result<()> {
    let prepared = step("prepare", prepare::install)?;
    step("fmt", || run_command(&mut cargo(["fmt", "--all", "--check"])))?;
    step("tidy", tidy::check)?;
    step("graph", graph::check)?;
    step("clippy", clippy)?;
    step("doc", doc)?;
    step("deny", || deny(&prepared))?;
    step("build", build)?;
    step("test", || suite::run_all(&prepared, counts))?;
    step("sim", || simulate::smoke(counts))?;
    step("fuzz", fuzz::smoke)?;
    prepared.say_what_is_missing();
    Ok(())
}

fn step<T>(name: &'static str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    println!("\n== {name}");
    let begun = Instant::now();
    let done = work().with_context(|| format!("step {name}"));
    println!("== {name} took {} s", begun.elapsed().as_secs());
    done
}

fn clippy() -> anyhow::Result<()> {
    let words = ["clippy", "--workspace", "--all-targets", "--locked", "--quiet"];
    run_command(cargo(words).args(["--", "-D", "warnings"]))
}

fn doc() -> anyhow::Result<()> {
    let words = ["doc", "--workspace", "--no-deps", "--locked", "--quiet"];
    run_command(cargo(words).env("RUSTDOCFLAGS", "-D warnings"))
}

fn deny(prepared: &Prepared) -> anyhow::Result<()> {
    if !prepared.deny {
        println!("SKIPPED: cargo-deny is not installed");
        return Ok(());
    }
    // Advisories come from the network; CI has none.
    run_command(&mut cargo(["deny", "--offline", "check", "licenses", "bans", "sources"]))
}

/// The binaries that people run, without the simulator's features.
fn build() -> anyhow::Result<()> {
    let words = ["build", "--release", "--workspace", "--bins", "--locked", "--quiet"];
    run_command(cargo(words).args(["--exclude", "lsvd-sim", "--exclude", "xtask"]))
}
