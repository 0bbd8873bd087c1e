//! Runs seeds of the simulator, many at a time, or replays one.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use lsvd_sim::{Coverage, run_seed};

/// Runs of at least so many seeds must cover everything that the simulator can do.
const COVERAGE_SEEDS: u64 = 200;

/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(5);

/// Runs the real engine in simulated worlds and checks what it promises.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 2000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Seeds that are run at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: u64,
    /// Replays this one seed with a log of its operations around a failure.
    #[arg(long, env = "LSVD_SEED")]
    seed: Option<u64>,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let mut out = std::io::stdout().lock();
    if let Some(seed) = args.seed {
        tracing_subscriber::fmt().with_writer(std::io::stderr).init();
        return match run_seed(seed, true) {
            Ok(outcome) => {
                writeln!(out, "{}", outcome.coverage)?;
                writeln!(out, "seed {seed} is fine, trace {:016x}", outcome.trace_hash)?;
                Ok(ExitCode::SUCCESS)
            }
            Err(failure) => {
                writeln!(out, "{failure}")?;
                Ok(ExitCode::FAILURE)
            }
        };
    }
    let begun = Instant::now();
    let (coverage, failed) = run_all(&args, begun);
    writeln!(out, "{coverage}")?;
    let seconds = begun.elapsed().as_secs_f64();
    writeln!(out, "{} seeds in {seconds:.1} s", coverage.seeds)?;
    let missing = coverage.missing();
    let is_thin = args.seeds >= COVERAGE_SEEDS && !failed && !missing.is_empty();
    if is_thin {
        writeln!(out, "never reached: {}", missing.join(", "))?;
    }
    Ok(if failed || is_thin { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Runs seeds until all are done or one fails. True if one failed.
fn run_all(args: &Args, begun: Instant) -> (Coverage, bool) {
    let next = AtomicU64::new(args.from);
    let end = args.from.saturating_add(args.seeds);
    let failed = AtomicBool::new(false);
    let total = Mutex::new((Coverage::default(), begun));
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || failed.load(Ordering::Relaxed) {
                        return;
                    }
                    match run_seed(seed, false) {
                        Ok(outcome) => progress(&total, &outcome.coverage, args),
                        Err(failure) => {
                            failed.store(true, Ordering::Relaxed);
                            report(format_args!("{failure}"));
                        }
                    }
                }
            });
        }
    });
    let (coverage, _) = total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    (coverage, failed.into_inner())
}

fn progress(total: &Mutex<(Coverage, Instant)>, add: &Coverage, args: &Args) {
    let mut total = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (coverage, shown) = &mut *total;
    coverage.add(add);
    if shown.elapsed() >= PROGRESS {
        *shown = Instant::now();
        report(format_args!("{} of {} seeds", coverage.seeds, args.seeds));
    }
}

/// A line for whoever waits. That nobody reads it is no reason to stop.
fn report(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
