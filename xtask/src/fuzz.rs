//! Short runs of every fuzz target, with the compiler that builds everything else.
//!
//! libFuzzer comes with its crate, and the coverage that guides it is a pass that stable compilers
//! have; only the sanitizers need nightly, and long runs by hand have those (`fuzz/README.md`). The
//! seeds and the random numbers are the same each time; what stops a slow machine early is time.

use anyhow::{Context as _, ensure};

use crate::command::{cargo, output, program, root, run, target_dir};

/// What makes the compiler count the edges that an input takes, where libFuzzer looks for them.
const COVERAGE: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    --cfg fuzzing";

/// Inputs for each target, and seconds after which fewer will do.
const RUNS: u32 = 50_000;
const SECONDS_MAX: u32 = 6;

/// Builds the targets, makes the seeds and runs each target for a moment.
pub(crate) fn smoke() -> anyhow::Result<()> {
    let manifest = root().join("fuzz/Cargo.toml");
    let text = std::fs::read_to_string(&manifest).context("read fuzz/Cargo.toml")?;
    let names = targets(&text)?;
    let dir = target_dir().join("fuzz");
    // Its inputs go into `fuzz/corpus`, which git does not see.
    let mut seed = cargo(["run", "--release", "--locked", "--quiet", "--bin", "seed"]);
    run(seed.arg("--manifest-path").arg(&manifest).env("CARGO_TARGET_DIR", &dir))?;
    let host = host()?;
    let mut build = cargo(["build", "--release", "--locked", "--quiet"]);
    // With a target, build scripts and macros are not instrumented: they have no libFuzzer.
    build.args(["--target", &host, "--manifest-path"]).arg(&manifest);
    build.args(names.iter().flat_map(|name| ["--bin", name]));
    run(build.env("CARGO_TARGET_DIR", &dir).env("RUSTFLAGS", COVERAGE))?;
    for name in &names {
        let found = tempfile::tempdir().context("make a directory for what is found")?;
        let mut target = program(dir.join(&host).join("release").join(name));
        target.args([format!("-runs={RUNS}"), format!("-max_total_time={SECONDS_MAX}")]);
        target.args(["-seed=1", "-verbosity=0", "-print_final_stats=1", "-rss_limit_mb=2048"]);
        // A failing input stays where a person finds it.
        let artifacts = root().join("fuzz/artifacts").join(name);
        std::fs::create_dir_all(&artifacts).context("make a directory for failures")?;
        target.arg(format!("-artifact_prefix={}/", artifacts.display()));
        target.arg(found.path()).arg(root().join("fuzz/corpus").join(name));
        let ended = target.output().with_context(|| format!("run fuzz target {name}"))?;
        let said = String::from_utf8_lossy(&ended.stderr);
        let place = artifacts.display();
        ensure!(
            ended.status.success(),
            "{said}\nfuzz target {name} failed: {}; its input is in {place}",
            ended.status
        );
        let runs = executions(&said).with_context(|| format!("{name} says no number of runs"))?;
        ensure!(runs > 0, "fuzz target {name} ran nothing");
        println!("fuzz {name}: {runs} runs");
    }
    Ok(())
}

/// The binaries of the manifest that are targets.
fn targets(manifest: &str) -> anyhow::Result<Vec<String>> {
    let manifest: toml::Table = manifest.parse().context("parse fuzz/Cargo.toml")?;
    let bins = manifest.get("bin").and_then(toml::Value::as_array).context("no binaries in it")?;
    let is_target = |bin: &&toml::Value| {
        let path = bin.get("path").and_then(toml::Value::as_str);
        path.is_some_and(|path| path.starts_with("fuzz_targets/"))
    };
    let name = |bin: &toml::Value| bin.get("name")?.as_str().map(str::to_owned);
    let names: Vec<String> = bins.iter().filter(is_target).filter_map(name).collect();
    ensure!(!names.is_empty(), "fuzz/Cargo.toml names no target");
    Ok(names)
}

/// libFuzzer's `stat::number_of_executed_units`.
fn executions(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.starts_with("stat::number_of_executed_units"))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn host() -> anyhow::Result<String> {
    let said = output(program("rustc").arg("-vV"))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not say its host")
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn only_binaries_below_fuzz_targets_are_targets() {
        let manifest = "[[bin]]\nname = \"a\"\npath = \"fuzz_targets/a.rs\"\n\
                        [[bin]]\nname = \"seed\"\npath = \"src/bin/seed.rs\"\n";
        assert_eq!(targets(manifest).unwrap(), ["a"]);
        assert!(targets("").is_err());
    }

    #[test]
    fn the_number_of_runs_is_libfuzzers() {
        let said = "x\nstat::number_of_executed_units: 1017\nstat::average_exec_per_sec: 0\n";
        assert_eq!(executions(said), Some(1017));
        assert_eq!(executions("Done 5 runs"), None);
    }
}
