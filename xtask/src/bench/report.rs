//! The table, and what a reader must know to believe it: the machine, the disk, the flush policies.

use std::path::Path;

use crate::bench::Nbd;
use crate::bench::jobs::{JOBS, Job, Sample};
use crate::bench::servers::{KINDS, Kind};
use crate::command::{output, program};

/// Everything that was measured.
pub(crate) struct Report<'a> {
    pub(crate) settings: &'a Nbd,
    pub(crate) dir: &'a Path,
    /// By job, then by server, then by round.
    pub(crate) samples: &'a [Vec<Vec<Sample>>],
    /// What the disk alone does with sequential writes that reach it twice, in bytes a second, by
    /// round.
    pub(crate) ceilings: &'a [f64],
}

impl Report<'_> {
    pub(crate) fn print(&self) -> anyhow::Result<()> {
        let Nbd { rounds, seconds, mib, .. } = self.settings;
        println!("\nNBD over unix sockets, fio with its NBD engine, {mib} MiB, warm caches");
        println!("medians of {rounds} interleaved rounds of {seconds} s");
        println!("machine: {}", machine()?);
        println!("disk: {}", disk(self.dir));
        for kind in KINDS {
            println!("{}: {}", kind.name(), kind.policy());
        }
        println!(
            "\n{:34} {:12} {:>12} {:>10} {:>10} {:>10}",
            "", "", "", "x qemu-nbd", "p50 us", "p99 us"
        );
        for (job, servers) in JOBS.iter().zip(self.samples) {
            if servers.iter().all(|rounds| !rounds.is_empty()) {
                print_job(job, servers, self.ceilings);
            }
        }
        Ok(())
    }
}

fn print_job(job: &Job, servers: &[Vec<Sample>], ceilings: &[f64]) {
    let figure = |sample: &Sample| if job.is_stream { sample.bytes } else { sample.iops };
    let rates: Vec<f64> = servers.iter().map(|rounds| median(rounds, figure)).collect();
    let qemu = KINDS.iter().zip(&rates).find(|(kind, _)| **kind == Kind::QemuNbd);
    let qemu = qemu.map_or(f64::NAN, |(_, rate)| *rate);
    for (index, (kind, rounds)) in KINDS.iter().zip(servers).enumerate() {
        let rate = rates[index];
        let shown = if job.is_stream {
            format!("{:.0} MB/s", rate / 1e6)
        } else {
            format!("{rate:.0} IOPS")
        };
        println!(
            "{:34} {:12} {shown:>12} {:>10.2} {:>10.0} {:>10.0}",
            if index == 0 { job.name } else { "" },
            kind.name(),
            rate / qemu,
            median(rounds, |sample| sample.p50_us),
            median(rounds, |sample| sample.p99_us)
        );
    }
    if job.is_sequential_write {
        let rate = median(ceilings, |rate| *rate);
        let shown = format!("{:.0} MB/s", rate / 1e6);
        println!("{:30} {:16} {shown:>12} {:>10.2}", "", "disk, log + store", rate / qemu);
    }
}

pub(crate) fn median<T>(samples: &[T], figure: impl Fn(&T) -> f64) -> f64 {
    let mut figures: Vec<f64> = samples.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => figures[middle],
        _ => f64::midpoint(figures[middle - 1], figures[middle]),
    }
}

pub(crate) fn machine() -> anyhow::Result<String> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1)).unwrap_or("an unknown CPU");
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let info = rustix::system::sysinfo();
    let gib = (info.totalram as u64 * u64::from(info.mem_unit)) >> 30;
    let kernel = output(program("uname").arg("-sr"))?;
    Ok(format!("{count} x {model}, {gib} GiB of memory, {}", kernel.trim()))
}

pub(crate) fn disk(dir: &Path) -> String {
    let words = ["--output=source,fstype,size"];
    let text = output(program("df").args(words).arg(dir)).unwrap_or_default();
    text.lines().last().unwrap_or("unknown").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let samples =
            [3.0, 1.0, 2.0, 10.0].map(|iops| Sample { iops, bytes: 0.0, p50_us: 0.0, p99_us: 0.0 });
        assert!((median(&samples, |sample| sample.iops) - 2.5).abs() < 1e-9);
        assert!((median(&samples[..3], |sample| sample.iops) - 2.0).abs() < 1e-9);
    }
}
