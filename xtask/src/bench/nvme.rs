//! The NVMe/TCP target under our own load generator: a namespace in memory, which leaves the
//! protocol, and a volume of a gateway on the embedded store.
//!
//! One thread makes the load and looks for completions without sleeping; the target is a process of
//! its own that sleeps when there is nothing to do. SPDK's figures stand beside it as a yardstick:
//! they were measured once on a machine of this kind with a core for the target, which polled, and
//! one for the load.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::bench::report::{disk, machine, median};
use crate::bench::servers::settle;
use crate::command::{cargo, output, program, run as run_command, target_dir};

/// How to measure NVMe/TCP.
#[derive(Debug, clap::Args)]
pub(crate) struct Nvme {
    /// Rounds; each figure is the median
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// MiB of the namespaces
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(64..))]
    mib: u32,
    /// Directory on the disk of the volume [default: in the target directory]
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// A load, and SPDK's operations per second with it, on a device in memory.
struct Load {
    operation: &'static str,
    depth: u32,
    spdk: f64,
}

const LOADS: [Load; 6] = [
    Load { operation: "read", depth: 1, spdk: 73e3 },
    Load { operation: "read", depth: 32, spdk: 390e3 },
    Load { operation: "read", depth: 128, spdk: 555e3 },
    Load { operation: "write", depth: 1, spdk: 91e3 },
    Load { operation: "write", depth: 32, spdk: 494e3 },
    Load { operation: "write", depth: 128, spdk: 489e3 },
];

#[derive(Clone, Copy, Debug)]
struct Sample {
    iops: f64,
    p50_us: f64,
    p99_us: f64,
    /// CPU time of the target for a million operations.
    cpu_s: f64,
}

/// A target process, killed when dropped.
struct Target {
    name: &'static str,
    child: Child,
    address: String,
    is_in_memory: bool,
}

pub(crate) fn run(settings: &Nvme) -> anyhow::Result<()> {
    run_command(&mut cargo(["build", "--release", "--quiet", "-p", "lsvd-gw"]))?;
    let examples = ["lsvd-nvmet", "lsvd-initiator"].map(|package| ["-p", package]);
    let words = ["build", "--release", "--quiet", "--examples"];
    run_command(&mut cargo(words.into_iter().chain(examples.into_iter().flatten())))?;
    let parent = settings.dir.clone().unwrap_or_else(target_dir);
    std::fs::create_dir_all(&parent).with_context(|| format!("make {}", parent.display()))?;
    let scratch = tempfile::Builder::new().prefix("bench-nvme-").tempdir_in(&parent);
    let scratch = scratch.with_context(|| format!("make a directory in {}", parent.display()))?;
    let targets = [Target::in_memory(settings.mib)?, Target::volume(scratch.path(), settings.mib)?];
    let mut samples = vec![vec![Vec::new(); LOADS.len()]; targets.len()];
    for target in &targets {
        println!("filling {} MiB of the {}", settings.mib, target.name);
        target.load(&["--fill", "--seconds", "0.1", "--operation", "read", "--depth", "1"])?;
    }
    for round in 1..=settings.rounds {
        for (at, load) in LOADS.iter().enumerate() {
            for (target, samples) in targets.iter().zip(&mut samples) {
                // What a load leaves behind is not the next one's.
                settle(&target.child)?;
                samples[at].push(target.measure(load, settings.seconds)?);
            }
        }
        println!("round {round} of {}", settings.rounds);
    }
    print(settings, &parent, &targets, &samples)
}

impl Target {
    fn in_memory(mib: u32) -> anyhow::Result<Self> {
        let mut command = program(target_dir().join("release/examples/ram_target"));
        command.args(["127.0.0.1:0", "1", &mib.to_string()]);
        let mut child = command.stdout(Stdio::piped()).spawn().context("start ram_target")?;
        let line = first_line(&mut child)?;
        let address = line.rsplit(' ').next().unwrap_or_default().to_owned();
        Ok(Self { name: "memory", child, address, is_in_memory: true })
    }

    fn volume(dir: &Path, mib: u32) -> anyhow::Result<Self> {
        let word = |name: &str| dir.join(name).display().to_string();
        // Given back at once: another process could take it, which is then said.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let mut command = program(target_dir().join("release/lsvd-gw"));
        command.args(["new", &word("pool"), "1", "--size", &format!("{mib}m")]);
        command.args(["--state-dir", &word("state"), "--log", "warn", "--threads", "1"]);
        command.args(["--nbd", "none", "--rpc-socket", "none", "--nvme", &address]);
        let log = File::create(dir.join("gateway.log")).context("make a log")?;
        let child = command.stdout(Stdio::piped()).stderr(log).spawn();
        let mut child = child.context("start lsvd-gw")?;
        let line = first_line(&mut child)?;
        ensure!(line == "ready", "the gateway is not ready: see {}", word("gateway.log"));
        Ok(Self { name: "volume", child, address, is_in_memory: false })
    }

    /// Runs the load generator; its one line of JSON.
    fn load(&self, words: &[&str]) -> anyhow::Result<Value> {
        let mut command = Command::new(target_dir().join("release/examples/load"));
        let text = output(command.arg(&self.address).arg("--spin").args(words))?;
        serde_json::from_str(text.trim()).context("parse what the load generator printed")
    }

    fn measure(&self, load: &Load, seconds: u32) -> anyhow::Result<Sample> {
        let (depth, seconds) = (load.depth.to_string(), seconds.to_string());
        let words = ["--operation", load.operation, "--depth", &depth, "--seconds", &seconds];
        if load.operation == "read" {
            // What counts is the warm rate, and the CPU time of warming up is not part of it.
            self.load(&["--warm", "--seconds", "0.1", "--operation", "read", "--depth", "1"])?;
        }
        let before = self.cpu_seconds()?;
        let report = self.load(&words)?;
        let cpu = self.cpu_seconds()? - before;
        let figure = |name: &str| report[name].as_f64().with_context(|| format!("no {name}"));
        Ok(Sample {
            iops: figure("iops")?,
            p50_us: figure("p50_us")?,
            p99_us: figure("p99_us")?,
            cpu_s: cpu / figure("commands")? * 1e6,
        })
    }

    /// CPU time of the process so far (proc(5), fields 14 and 15 of `stat`).
    fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let ticks: u64 =
            fields.split_whitespace().skip(11).take(2).flat_map(str::parse::<u64>).sum();
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // A target that has ended already is no error worth a word.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn first_line(child: &mut Child) -> anyhow::Result<String> {
    let mut line = String::new();
    let stdout = child.stdout.take().context("the target has no standard output")?;
    BufReader::new(stdout).read_line(&mut line).context("wait for the target")?;
    Ok(line.trim().to_owned())
}

fn print(
    settings: &Nvme,
    dir: &Path,
    targets: &[Target],
    samples: &[Vec<Vec<Sample>>],
) -> anyhow::Result<()> {
    let Nvme { rounds, seconds, mib, .. } = settings;
    println!("\nNVMe/TCP over loopback, 4 KiB at random in {mib} MiB, one queue of 128 entries");
    println!("(which holds 127 commands), medians of {rounds} interleaved rounds of {seconds} s");
    println!("machine: {}", machine()?);
    println!("disk of the volume: {}", disk(dir));
    println!(
        "reads are warm; memory: one thread that sleeps when idle; volume: lsvd-gw --threads 1, defaults, a"
    );
    println!("write is answered when the log on the SSD has it");
    println!(
        "\n{:8} {:6} {:>5} {:>9} {:>8} {:>8} {:>12} {:>13} {:>8} {:>14}",
        "",
        "",
        "depth",
        "IOPS",
        "p50 us",
        "p99 us",
        "CPU s/M I/O",
        "IOPS per core",
        "x SPDK",
        "per core x SPDK"
    );
    for (target, samples) in targets.iter().zip(samples) {
        for (load, rounds) in LOADS.iter().zip(samples) {
            let figure = |pick: fn(&Sample) -> f64| median(rounds, pick);
            let (iops, cpu_s) = (figure(|sample| sample.iops), figure(|sample| sample.cpu_s));
            let per_core = 1e6 / cpu_s;
            print!(
                "{:8} {:6} {:>5} {iops:>9.0} {:>8.1} {:>8.1} {cpu_s:>12.2} {per_core:>13.0}",
                target.name,
                load.operation,
                load.depth,
                figure(|sample| sample.p50_us),
                figure(|sample| sample.p99_us),
            );
            if target.is_in_memory {
                print!(" {:>8.2} {:>14.2}", iops / load.spdk, per_core / load.spdk);
            }
            println!();
        }
    }
    Ok(())
}
