//! What putting 8 MiB into a directory costs: aligned bodies, which bypass the page cache, against
//! the same bodies one byte off, which cannot.
#![expect(clippy::print_stdout, reason = "a table on stdout is what a benchmark is for")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lsvd_store::{FileStore, ObjectStore, PutMode};
use rustix::time::{ClockId, clock_gettime};

const PUTS: u32 = 64;

fn main() {
    let place = std::env::var_os("LSVD_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let root = tempfile::tempdir_in(place).expect("a scratch directory");
    let store = FileStore::open(root.path(), false).expect("a pool in it");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    println!("{:>9} {:>9} {:>12} {:>12} {:>9}", "bytes", "body", "cpu us/put", "us/put", "MiB/s");
    for len in [4 << 10, 64 << 10, 256 << 10, 1 << 20, 8 << 20] {
        // Twice, in turn: the first of each pays for a cold file system.
        for skew in [0, 1, 0, 1] {
            let body = body(len, skew);
            let (cpu, wall) = runtime.block_on(measure(&store, &body));
            let kind = if skew == 0 { "aligned" } else { "skewed" };
            let rate = len as f64 * f64::from(PUTS) / f64::from(1 << 20) / wall.as_secs_f64();
            let (cpu, wall) =
                (cpu.as_micros() / u128::from(PUTS), wall.as_micros() / u128::from(PUTS));
            println!("{len:>9} {kind:>9} {cpu:>12} {wall:>12} {rate:>9.0}");
        }
    }
}

fn body(len: usize, skew: usize) -> Bytes {
    let backing: Bytes = (0..=250_u8).cycle().take(len + 8192).collect();
    let start = backing.as_ptr().align_offset(4096) + skew;
    backing.slice(start..start + len)
}

async fn measure(store: &FileStore, body: &Bytes) -> (Duration, Duration) {
    let (cpu, started) = (cpu_time(), Instant::now());
    for n in 0..PUTS {
        let name = format!("bench/{n}");
        store.put(&name, body.clone(), PutMode::Create).await.expect("the name is free");
    }
    let used = (cpu_time() - cpu, started.elapsed());
    for n in 0..PUTS {
        store.delete(&format!("bench/{n}")).await.expect("it was just put");
    }
    used
}

/// All threads of this process, system time included; the kernel's own writeback threads are not.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).expect("CPU time is not negative");
    let nanos = u64::try_from(time.tv_nsec).expect("CPU time is not negative");
    Duration::from_secs(seconds) + Duration::from_nanos(nanos)
}
