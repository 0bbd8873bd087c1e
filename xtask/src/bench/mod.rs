//! Measurements: the NBD export against other servers on the same disk, the NVMe/TCP target, and
//! the engine's map.

mod jobs;
mod nvme;
mod report;
mod servers;
mod twice;

use std::path::PathBuf;

use anyhow::Context as _;

use crate::bench::jobs::{JOBS, Sample};
use crate::bench::report::Report;
use crate::bench::servers::{KINDS, Server};
use crate::bench::twice::Twice;
use crate::command::{cargo, run as run_command, target_dir};

/// What to measure.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// The NBD export against qemu-nbd and nbdkit on the same disk, interleaved
    Nbd(Nbd),
    /// The NVMe/TCP target: a namespace in memory and a volume, beside what SPDK's target did
    Nvme(nvme::Nvme),
    /// The engine's extent map: bytes and nanoseconds at ten million extents
    Map,
}

/// How to measure NBD.
#[derive(Debug, clap::Args)]
pub(crate) struct Nbd {
    /// Rounds; each figure is the median
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// MiB of the image that are used
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(64..))]
    mib: u32,
    /// Directory on the disk to measure [default: in the target directory]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Only jobs whose name contains this
    #[arg(long)]
    only: Option<String>,
}

/// Runs a measurement.
pub(crate) fn run(verb: &Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Nbd(settings) => nbd(settings),
        Verb::Nvme(settings) => nvme::run(settings),
        Verb::Map => run_command(&mut cargo(["bench", "-p", "lsvd-engine", "--bench", "map"])),
    }
}

fn nbd(settings: &Nbd) -> anyhow::Result<()> {
    run_command(&mut cargo(["build", "--release", "--quiet", "-p", "lsvd-gw"]))?;
    let parent = settings.dir.clone().unwrap_or_else(target_dir);
    std::fs::create_dir_all(&parent).with_context(|| format!("make {}", parent.display()))?;
    let scratch = tempfile::Builder::new().prefix("bench-nbd-").tempdir_in(&parent);
    let scratch = scratch.with_context(|| format!("make a directory in {}", parent.display()))?;
    let servers = KINDS.map(|kind| Server::start(kind, scratch.path(), settings.mib));
    let mut running = Vec::new();
    for server in servers {
        running.push(server?);
    }
    println!("filling {} MiB through each server", settings.mib);
    for server in &mut running {
        jobs::fill(server, settings.mib)?;
        server.settle()?;
    }
    let wanted = |name: &str| settings.only.as_ref().is_none_or(|only| name.contains(only));
    let twice = Twice::new(scratch.path())?;
    let mut ceilings = Vec::new();
    let mut samples: Vec<Vec<Vec<Sample>>> = vec![vec![Vec::new(); running.len()]; JOBS.len()];
    for round in 1..=settings.rounds {
        for (job, samples) in JOBS.iter().zip(&mut samples).filter(|(job, _)| wanted(job.name)) {
            // One server after the other, so that whatever else the machine does hits all of them;
            // each in turn first, so that what one leaves behind hits all of them, too.
            for turn in 0..running.len() {
                let at = (turn + round as usize) % running.len();
                let sample = job.run(&running[at], settings.mib, settings.seconds)?;
                running[at].settle()?;
                samples[at].push(sample);
            }
            if job.is_sequential_write {
                ceilings.push(twice.measure(settings.seconds)?);
                rustix::fs::sync();
            }
            println!("round {round} of {}: {}", settings.rounds, job.name);
        }
    }
    Report { settings, dir: &parent, samples: &samples, ceilings: &ceilings }.print()
}
