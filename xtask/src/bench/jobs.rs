//! The loads, run by fio, and what it says about them.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::bench::servers::Server;
use crate::command::{output, program};

/// A load.
#[derive(Debug)]
pub(crate) struct Job {
    /// What people call it.
    pub(crate) name: &'static str,
    /// The figure that counts is MB/s, not operations.
    pub(crate) is_stream: bool,
    /// The disk's own rate at this, every byte twice, stands beside it.
    pub(crate) is_sequential_write: bool,
    words: &'static [&'static str],
    /// Read the whole area before: what counts is the warm rate.
    warm: bool,
}

/// Every load, in the order of the report.
pub(crate) const JOBS: [Job; 7] = [
    job("4 KiB random write, QD1", &["--rw=randwrite", "--bs=4k", "--iodepth=1"]),
    job("4 KiB random write, QD32", &["--rw=randwrite", "--bs=4k", "--iodepth=32"]),
    job("4 KiB write + fsync, QD1", &["--rw=randwrite", "--bs=4k", "--iodepth=1", "--fsync=1"]),
    Job {
        warm: true,
        ..job("4 KiB random read, QD32, warm", &["--rw=randread", "--bs=4k", "--iodepth=32"])
    },
    Job {
        is_stream: true,
        is_sequential_write: true,
        ..job("1 MiB sequential write, QD8", &["--rw=write", "--bs=1m", "--iodepth=8"])
    },
    Job {
        is_stream: true,
        warm: true,
        ..job("1 MiB sequential read, QD8, warm", &["--rw=read", "--bs=1m", "--iodepth=8"])
    },
    Job {
        is_stream: true,
        ..job("64 KiB random write, QD8", &["--rw=randwrite", "--bs=64k", "--iodepth=8"])
    },
];

const fn job(name: &'static str, words: &'static [&'static str]) -> Job {
    Job { name, is_stream: false, is_sequential_write: false, words, warm: false }
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Operations in a second.
    pub(crate) iops: f64,
    /// Bytes in a second.
    pub(crate) bytes: f64,
    /// Median latency of an operation in microseconds; with fsync, of the write and its fsync together.
    pub(crate) p50_us: f64,
    /// The same at 99 percent.
    pub(crate) p99_us: f64,
}

/// Writes all of the area, so that nobody reads holes.
pub(crate) fn fill(server: &Server, mib: u32) -> anyhow::Result<()> {
    fio(server, mib, &["--rw=write", "--bs=1m", "--iodepth=8", "--end_fsync=1"]).map(drop)
}

impl Job {
    /// Puts the load on a server.
    pub(crate) fn run(&self, server: &Server, mib: u32, seconds: u32) -> anyhow::Result<Sample> {
        if self.warm {
            fio(server, mib, &["--rw=read", "--bs=1m", "--iodepth=4"])?;
        }
        let runtime = format!("--runtime={seconds}");
        let words = [self.words, &["--time_based", "--ramp_time=1", &runtime]].concat();
        let report = fio(server, mib, &words)?;
        sample(&report["jobs"][0]).with_context(|| format!("fio's report on {}", self.name))
    }
}

fn fio(server: &Server, mib: u32, words: &[&str]) -> anyhow::Result<Value> {
    let mut command = program("fio");
    command.current_dir(std::env::temp_dir());
    command.args(["--name=bench", "--ioengine=nbd", "--output-format=json", "--randrepeat=0"]);
    command.args([format!("--uri={}", server.uri()), format!("--size={mib}m")]);
    let text = output(command.args(words))?;
    // The engine talks before the report begins.
    let begin = text.find('{').context("fio printed no report")?;
    serde_json::from_str(&text[begin..]).context("parse fio's report")
}

fn sample(job: &Value) -> anyhow::Result<Sample> {
    let error = job["error"].as_i64();
    ensure!(error == Some(0), "fio failed with error {error:?}");
    let sides = ["write", "read"].map(|side| &job[side]);
    let side = sides.into_iter().find(|side| side["io_bytes"].as_u64().unwrap_or(0) > 0);
    let side = side.context("nothing was read or written")?;
    let number = |value: &Value, what: &str| value.as_f64().with_context(|| what.to_owned());
    let percentile = |side: &Value, key: &str| side[key].as_f64().unwrap_or(0.0) / 1000.0;
    let (latency, sync) = (&side["clat_ns"]["percentile"], &job["sync"]["lat_ns"]["percentile"]);
    let both = |key| percentile(latency, key) + percentile(sync, key);
    Ok(Sample {
        iops: number(&side["iops"], "iops")?,
        bytes: number(&side["bw_bytes"], "bw_bytes")?,
        p50_us: both("50.000000"),
        p99_us: both("99.000000"),
    })
}

#[cfg(test)]
mod test {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_of_fio_becomes_a_sample() {
        let percentiles = |p50: u64| json!({"50.000000": p50, "99.000000": 10 * p50});
        let job = json!({
            "error": 0,
            "read": {"io_bytes": 0},
            "write": {"io_bytes": 9, "iops": 1000.5, "bw_bytes": 4_098_048,
                "clat_ns": {"percentile": percentiles(20_000)}},
            "sync": {"lat_ns": {"percentile": percentiles(50_000)}},
        });
        let sample = sample(&job).unwrap();
        assert!((sample.iops - 1000.5).abs() < 1e-9 && (sample.bytes - 4_098_048.0).abs() < 1e-9);
        assert!((sample.p50_us - 70.0).abs() < 1e-9 && (sample.p99_us - 700.0).abs() < 1e-9);
        assert!(super::sample(&json!({"error": 5})).is_err());
    }
}
