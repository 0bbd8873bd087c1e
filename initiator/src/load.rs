//! Random reads or writes on one queue, at a steady depth.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::command::Command;
use crate::error::Error;
use crate::histogram::Histogram;
use crate::queue::Queue;

/// What is done to the namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Random reads.
    Read,
    /// Random writes.
    Write,
}

/// When it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// After this time.
    Elapsed(Duration),
    /// After this many commands.
    Commands(u64),
}

/// A load for one queue.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// The namespace.
    pub nsid: u32,
    /// Its size, or the part that is used, in logical blocks.
    pub blocks: u64,
    /// Bytes of its logical blocks.
    pub block_bytes: u32,
    /// Logical blocks of each command, 1 to 65536.
    pub blocks_each: u32,
    /// What is done.
    pub operation: Operation,
    /// Commands that are kept outstanding, less than the entries of the queue.
    pub depth: u16,
    /// When it ends.
    pub until: Until,
    /// Where, and with what bytes.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Commands that succeeded.
    pub commands: u64,
    /// From the first command to the last completion.
    pub elapsed: Duration,
    /// From submission to completion of each command.
    pub latencies: Histogram,
}

impl Report {
    /// Adds what another queue did at the same time.
    pub fn merge(&mut self, other: &Self) {
        self.commands += other.commands;
        self.elapsed = self.elapsed.max(other.elapsed);
        self.latencies.merge(&other.latencies);
    }
}

/// Runs `workload` on `queue`, which has nothing outstanding.
///
/// # Errors
/// As [`Queue::next_completion`], and the status of the first command that fails.
pub async fn drive(queue: &mut Queue, workload: &Workload) -> Result<Report, Error> {
    let mut random = fastrand::Rng::with_seed(workload.seed);
    let places = (workload.blocks / u64::from(workload.blocks_each)).max(1);
    let payload = payload(workload, &mut random);
    let begin = Instant::now();
    let mut starts = vec![begin; usize::from(u16::MAX)];
    let mut submit = |queue: &mut Queue, now: Instant, starts: &mut Vec<Instant>| {
        let lba = random.u64(..places) * u64::from(workload.blocks_each);
        let command = command(workload, lba, &payload);
        queue.submit(command).map(|tag| starts[usize::from(tag.0)] = now)
    };
    let goal = match workload.until {
        Until::Elapsed(_) => u64::MAX,
        Until::Commands(commands) => commands,
    };
    let mut submitted = 0;
    while submitted < goal.min(workload.depth.into()) {
        submit(queue, begin, &mut starts)?;
        submitted += 1;
    }
    let mut report = Report::default();
    while report.commands < submitted {
        let completion = queue.next_completion().await?.ok()?;
        let now = Instant::now();
        report.latencies.record(now - starts[usize::from(completion.tag.0)]);
        report.commands += 1;
        report.elapsed = now - begin;
        let is_over = matches!(workload.until, Until::Elapsed(limit) if report.elapsed >= limit);
        if !is_over && submitted < goal {
            submit(queue, now, &mut starts)?;
            submitted += 1;
        }
    }
    Ok(report)
}

fn command(workload: &Workload, lba: u64, payload: &Bytes) -> Command {
    let Workload { nsid, block_bytes, blocks_each, .. } = *workload;
    match workload.operation {
        Operation::Read => Command::read(nsid, lba, blocks_each, block_bytes),
        Operation::Write => Command::write(nsid, lba, block_bytes, payload.clone()),
    }
}

/// Bytes that do not compress, the same in every write.
fn payload(workload: &Workload, random: &mut fastrand::Rng) -> Bytes {
    let mut bytes = BytesMut::zeroed((workload.blocks_each * workload.block_bytes) as usize);
    random.fill(&mut bytes);
    bytes.freeze()
}
