//! Loads a namespace over NVMe/TCP with random reads and writes and prints one line of JSON for
//! each combination: operations per second, and latencies in microseconds.
//!
//! All queues are driven by one thread: one core for the load, the others for the target.
#![expect(clippy::print_stdout, reason = "figures on stdout are what it is for")]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use lsvd_initiator::{
    Command, Controller, Error, NamespaceIdentity, Operation, Options, Queue, QueueOptions, Report,
    Until, Workload, drive,
};

/// Bytes of each command that goes through the namespace once, and how many are outstanding.
const SWEEP_BYTES: u32 = 128 << 10;
const SWEEP_DEPTH: u16 = 16;

#[derive(Debug, Parser)]
#[command(about = "Random I/O over NVMe/TCP")]
struct Args {
    /// Where the target listens.
    #[arg(default_value = "127.0.0.1:4420")]
    address: SocketAddr,
    /// The subsystem's name.
    #[arg(long, default_value = "nqn.2019-05.io.lsvd:cnode1")]
    subsystem: String,
    /// The namespace's number.
    #[arg(long, default_value_t = 1)]
    nsid: u32,
    /// What to do, one after the other.
    #[arg(long, value_delimiter = ',', default_values = ["write", "read"])]
    operation: Vec<OperationName>,
    /// Commands outstanding on each queue, one after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 32, 128])]
    depth: Vec<u16>,
    /// I/O queues.
    #[arg(long, default_value_t = 1)]
    queues: u16,
    /// Bytes of each command.
    #[arg(long, default_value_t = 4096)]
    bytes: u32,
    /// Use only the first so many MiB of the namespace.
    #[arg(long)]
    span_mib: Option<u64>,
    /// Write everything that is used once before, so that nobody reads holes.
    #[arg(long)]
    fill: bool,
    /// Read everything that is used once before.
    #[arg(long)]
    warm: bool,
    /// Seconds for each combination.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Header and data digests.
    #[arg(long)]
    digests: bool,
    /// Poll for completions instead of sleeping: needs a core of its own.
    #[arg(long)]
    spin: bool,
    /// Allow the target to leave out responses after reads.
    #[arg(long)]
    no_flow_control: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OperationName {
    Read,
    Write,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let mut options = Options::new(&args.subsystem);
    options.queue = QueueOptions {
        header_digest: args.digests,
        data_digest: args.digests,
        flow_control: !args.no_flow_control,
        spin: args.spin,
        ..QueueOptions::default()
    };
    let mut controller = Controller::connect(args.address, options).await?;
    if controller.set_queues(args.queues).await? < args.queues {
        return Err("the target does not give so many queues".into());
    }
    let namespace = controller.identify_namespace(args.nsid).await?;
    let block_bytes = namespace.block_bytes;
    if args.bytes == 0 || !args.bytes.is_multiple_of(block_bytes) {
        return Err(format!("the namespace has blocks of {block_bytes} bytes").into());
    }
    let span = args.span_mib.map_or(u64::MAX, |mib| (mib << 20) / u64::from(block_bytes));
    // A queue lives as long as its controller, so all combinations share the queues.
    let filling = (args.fill || args.warm).then_some(SWEEP_DEPTH);
    let deepest = args.depth.iter().copied().chain(filling).max().unwrap_or(1);
    let entries = deepest.saturating_add(1).min(controller.entries_max());
    let mut queues = Vec::new();
    for number in 1..=args.queues {
        queues.push(controller.open_queue(number, entries).await?);
    }
    let before = [(args.fill, Operation::Write), (args.warm, Operation::Read)];
    for (_, operation) in before.into_iter().filter(|(is_wanted, _)| *is_wanted) {
        if let Some(queue) = queues.first_mut() {
            sweep(queue, args.nsid, &namespace, span, operation).await?;
        }
    }
    for name in &args.operation {
        for depth in &args.depth {
            let operation = match name {
                OperationName::Read => Operation::Read,
                OperationName::Write => Operation::Write,
            };
            let workload = Workload {
                nsid: args.nsid,
                blocks: namespace.blocks.min(span),
                block_bytes,
                blocks_each: args.bytes / block_bytes,
                operation,
                depth: (*depth).min(entries - 1),
                until: Until::Elapsed(Duration::from_secs_f64(args.seconds)),
                seed: 1,
            };
            let report = on_all_queues(&mut queues, workload).await?;
            print(&args, &workload, &report);
        }
    }
    drop(queues);
    controller.disconnect().await?;
    Ok(())
}

/// Writes or reads every block up to `span`.
async fn sweep(
    queue: &mut Queue,
    nsid: u32,
    namespace: &NamespaceIdentity,
    span: u64,
    operation: Operation,
) -> Result<(), Error> {
    let pattern: Vec<u8> = (0..SWEEP_BYTES).map(|at| (at % 251) as u8).collect();
    let pattern = Bytes::from(pattern);
    let blocks_each = u64::from(SWEEP_BYTES / namespace.block_bytes);
    let end = namespace.blocks.min(span);
    let mut lba = 0;
    while lba < end || queue.outstanding() > 0 {
        if lba < end && queue.outstanding() < SWEEP_DEPTH.into() {
            let (blocks, block_bytes) =
                ((end - lba).min(blocks_each) as u32, namespace.block_bytes);
            queue.submit(match operation {
                Operation::Read => Command::read(nsid, lba, blocks, block_bytes),
                Operation::Write => {
                    let data = pattern.slice(..(blocks * block_bytes) as usize);
                    Command::write(nsid, lba, block_bytes, data)
                }
            })?;
            lba += blocks_each;
        } else {
            queue.next_completion().await?.ok()?;
        }
    }
    queue.execute(Command::flush(nsid)).await?.ok()?;
    Ok(())
}

async fn on_all_queues(queues: &mut Vec<Queue>, workload: Workload) -> Result<Report, Error> {
    let mut tasks = tokio::task::JoinSet::new();
    for (seed, mut queue) in (1..).zip(queues.drain(..)) {
        let workload = Workload { seed, ..workload };
        tasks
            .spawn(async move { drive(&mut queue, &workload).await.map(|report| (queue, report)) });
    }
    let mut all = Report::default();
    while let Some(ended) = tasks.join_next().await {
        let (queue, report) = ended.expect("a load does not panic")?;
        queues.push(queue);
        all.merge(&report);
    }
    Ok(all)
}

fn print(args: &Args, workload: &Workload, report: &Report) {
    let operation = match workload.operation {
        Operation::Read => "read",
        Operation::Write => "write",
    };
    let [p50, p99, p999] =
        [500, 990, 999].map(|rank| report.latencies.percentile(rank).as_secs_f64() * 1e6);
    println!(
        "{{\"operation\":\"{operation}\",\"bytes\":{},\"queues\":{},\"depth\":{},\"commands\":{},\
         \"iops\":{:.0},\
         \"p50_us\":{p50:.1},\"p99_us\":{p99:.1},\"p999_us\":{p999:.1}}}",
        args.bytes,
        args.queues,
        workload.depth,
        report.commands,
        report.commands as f64 / report.elapsed.as_secs_f64(),
    );
}
