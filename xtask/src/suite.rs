//! Running the tests and counting them: nextest, or libtest where nextest is missing, and the doc tests.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};

use crate::command::{cargo, root, run, target_dir, tee};
use crate::prepare::{self, Prepared};

/// Tests that ran.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Counts {
    fn add(&mut self, more: &Self) {
        self.passed += more.passed;
        self.failed += more.failed;
    }
}

/// Runs every test of the workspace, and the doc tests.
pub(crate) fn run_all(prepared: &Prepared, counts: &mut Counts) -> anyhow::Result<()> {
    let skipped = skipped_list();
    drop(std::fs::remove_file(&skipped));
    build_programs()?;
    let ran = if prepared.nextest { nextest()? } else { libtest(&["--workspace"])? };
    counts.add(&ran);
    let doc = libtest(&["--workspace", "--doc"])?;
    println!("{} doc tests passed, {} failed", doc.passed, doc.failed);
    counts.add(&doc);
    // A test that skipped itself counts as run, but it shows nothing.
    let lines = std::fs::read_to_string(&skipped).unwrap_or_default();
    let names: std::collections::BTreeSet<&str> =
        lines.lines().filter_map(|line| line.split(':').next()).collect();
    if !names.is_empty() {
        println!("{} tests skipped themselves, not counted as passed:\n{lines}", names.len());
        counts.passed = counts.passed.saturating_sub(names.len() as u64);
    }
    ensure!(counts.failed == 0, "{} tests failed", counts.failed);
    Ok(())
}

/// Runs the tests that `words` choose; all without words.
pub(crate) fn run_some(words: &[String]) -> anyhow::Result<()> {
    build_programs()?;
    let nextest = prepare::look().nextest;
    let mut command = if nextest { cargo(["nextest", "run"]) } else { cargo(["test"]) };
    if words.is_empty() {
        command.arg("--workspace");
    }
    run(command.args(words))
}

/// Counts the tests of one run of cargo with libtest.
pub(crate) fn libtest(words: &[&str]) -> anyhow::Result<Counts> {
    let (text, succeeded) =
        tee(cargo(["test", "--locked", "--quiet", "--no-fail-fast"]).args(words))?;
    let mut counts = libtest_counts(&text);
    // It did not get as far as a summary, as when a test does not compile.
    if !succeeded && counts.failed == 0 {
        counts.failed = 1;
    }
    Ok(counts)
}

/// System tests run programs of other members, which cargo does not build for them.
fn build_programs() -> anyhow::Result<()> {
    run(&mut cargo(["build", "--workspace", "--bins", "--locked", "--quiet"]))
}

fn skipped_list() -> PathBuf {
    target_dir().join("lsvd-skipped-tests")
}

fn nextest() -> anyhow::Result<Counts> {
    // Nextest keeps its files there wherever cargo builds.
    let report = root().join("target/nextest/ci/junit.xml");
    drop(std::fs::remove_file(&report));
    let mut command = cargo(["nextest", "run", "--workspace", "--profile", "ci", "--locked"]);
    let ran = run(command.env("LSVD_SKIPPED", skipped_list()));
    let text = std::fs::read_to_string(&report);
    let counts = text.ok().and_then(|text| junit_counts(&text));
    let counts = match (counts, ran) {
        (Some(counts), Ok(())) => counts,
        (Some(counts), Err(_)) if counts.failed > 0 => counts,
        (_, ran) => {
            ran?;
            return Err(anyhow::anyhow!("{} has no counts", report.display()));
        }
    };
    Ok(counts)
}

/// Counts from the first element of a JUnit report.
fn junit_counts(text: &str) -> Option<Counts> {
    let suites = text.split("<testsuites ").nth(1)?.split('>').next()?;
    let number = |name: &str| {
        let (_, rest) = suites.split_once(&format!("{name}=\""))?;
        rest.split('"').next()?.parse::<u64>().ok()
    };
    let failed = number("failures")? + number("errors")?;
    Some(Counts { passed: number("tests")?.checked_sub(failed)?, failed })
}

/// Counts from the summaries of libtest: `test result: ok. 3 passed; 0 failed; ...`.
fn libtest_counts(text: &str) -> Counts {
    let mut counts = Counts::default();
    for line in text.lines().filter(|line| line.contains("test result:")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        for pair in words.windows(2) {
            let count = pair[0].parse().unwrap_or(0);
            match pair[1].trim_end_matches(';') {
                "passed" => counts.passed += count,
                "failed" => counts.failed += count,
                _ => {}
            }
        }
    }
    counts
}

/// Runs tests of one member with variables set, and shows what they print.
pub(crate) fn show(words: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<()> {
    let mut command = cargo(["test", "--locked", "--quiet"]);
    command.args(words).envs(variables.iter().copied());
    run(&mut command).context("run the tests")
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn counts_are_read_from_both_runners() {
        let junit = r#"<?xml version="1.0"?><testsuites name="nextest-run" tests="12" failures="2"
            errors="1" uuid="x"><testsuite name="a" tests="3" failures="0">"#;
        let counts = junit_counts(junit).unwrap();
        assert_eq!((counts.passed, counts.failed), (9, 3));
        assert!(junit_counts("<testsuite tests=\"3\">").is_none());
        let libtest = "running 3 tests\n...\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured\n\
                       test result: FAILED. 1 passed; 2 failed; 0 ignored\n2 passed by\n";
        let counts = libtest_counts(libtest);
        assert_eq!((counts.passed, counts.failed), (4, 2));
    }
}
