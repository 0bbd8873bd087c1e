//! Rate and CPU cost of 4 KiB operations on a file, through a ring and through blocking threads.
//!
//! `LSVD_BENCH_DIR=/mnt/ssd cargo bench -p lsvd-engine --bench disk`; without the variable the
//! file lies in the system's temporary directory. CPU includes the kernel's worker threads.
#![expect(clippy::print_stdout, reason = "a report on the terminal is its purpose")]

use std::cell::Cell;
use std::error::Error;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lsvd_engine::disk::ring::{self, RingGuard};
use lsvd_engine::disk::{AlignedBuf, Disk, DiskDir, FileDir, IoMode, PAGE};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

const DISK_BYTES: u64 = 1 << 30;
const RUN: Duration = Duration::from_secs(2);
const ROUNDS: usize = 3;

#[derive(Clone, Copy)]
enum Work {
    Write,
    WriteSync,
    Read,
}

const SHAPES: [(&str, Work, usize); 5] = [
    ("write QD1", Work::Write, 1),
    ("write QD32", Work::Write, 32),
    ("write + sync QD1", Work::WriteSync, 1),
    ("read QD1", Work::Read, 1),
    ("read QD32", Work::Read, 32),
];

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo test --all-targets` starts benches too, without this.
    if !std::env::args().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let path = std::env::var_os("LSVD_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = FileDir::open_path(&path, IoMode::Direct)?;
    println!("{}", dir.describe());
    let name = "lsvd-bench-disk";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let disk = runtime.block_on(dir.create(name, DISK_BYTES))?;
    println!("{}\n", disk.describe());
    println!("{:18} {:8} {:>10} {:>12}", "", "through", "ops/s", "CPU us/op");
    for _ in 0..ROUNDS {
        for (title, work, depth) in SHAPES {
            for through_ring in [true, false] {
                let rate = measure(&runtime, through_ring, &disk, work, depth)?;
                let through = if through_ring { "ring" } else { "threads" };
                println!("{title:18} {through:8} {:10.0} {:12.1}", rate.per_second, rate.cpu_us);
            }
        }
    }
    drop(disk);
    runtime.block_on(dir.remove(name))?;
    Ok(())
}

struct Rate {
    per_second: f64,
    cpu_us: f64,
}

fn measure(
    runtime: &Runtime,
    through_ring: bool,
    disk: &Arc<dyn Disk>,
    work: Work,
    depth: usize,
) -> Result<Rate, Box<dyn Error>> {
    let local = LocalSet::new();
    let _guard: Option<RingGuard> = if through_ring {
        let (guard, driver) = ring::install()?;
        local.spawn_local(driver);
        Some(guard)
    } else {
        None
    };
    local.block_on(runtime, async {
        let operations = Rc::new(Cell::new(0_u32));
        let (start, cpu) = (Instant::now(), cpu_time());
        let workers: Vec<_> = (0..depth as u64)
            .map(|seed| {
                let (disk, operations) = (Arc::clone(disk), Rc::clone(&operations));
                tokio::task::spawn_local(worker(disk, work, seed, start + RUN, operations))
            })
            .collect();
        for worker in workers {
            worker.await??;
        }
        let (elapsed, cpu) = (start.elapsed(), cpu_time() - cpu);
        let operations = f64::from(operations.get());
        Ok(Rate {
            per_second: operations / elapsed.as_secs_f64(),
            cpu_us: cpu.as_secs_f64() * 1e6 / operations,
        })
    })
}

async fn worker(
    disk: Arc<dyn Disk>,
    work: Work,
    seed: u64,
    end: Instant,
    operations: Rc<Cell<u32>>,
) -> std::io::Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let data: Bytes = AlignedBuf::zeroed(PAGE).freeze();
    while Instant::now() < end {
        let offset = random.u64(..disk.len() / PAGE as u64) * PAGE as u64;
        match work {
            Work::Write => disk.write_at(offset, data.clone()).await?,
            Work::WriteSync => {
                disk.write_at(offset, data.clone()).await?;
                disk.sync().await?;
            }
            Work::Read => drop(disk.read_at(offset, PAGE).await?),
        }
        operations.set(operations.get() + 1);
    }
    Ok(())
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("CPU time is not negative")
}
