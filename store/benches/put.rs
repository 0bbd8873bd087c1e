//! What putting 8 MiB into a directory costs: aligned bodies, which bypass the page cache, against
//! the same bodies one byte off, which cannot; and bodies in pages that lie anywhere in memory, put
//! as they lie against joined first.
#![expect(clippy::print_stdout, reason = "a table on stdout is what a benchmark is for")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lsvd_store::{FileStore, ObjectStore, Payload, PutMode};
use rustix::time::{ClockId, clock_gettime};

const PUTS: u32 = 64;
const PAGE: usize = 4096;

fn main() {
    let place = std::env::var_os("LSVD_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let root = tempfile::tempdir_in(place).expect("a scratch directory");
    let store = FileStore::open(root.path(), false).expect("a pool in it");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    println!("{:>9} {:>9} {:>12} {:>12} {:>9}", "bytes", "body", "cpu us/put", "us/put", "MiB/s");
    for len in [4 << 10, 64 << 10, 256 << 10, 1 << 20, 8 << 20] {
        // Twice, in turn: the first of each pays for a cold file system.
        for kind in Kind::ALL.into_iter().cycle().take(2 * Kind::ALL.len()) {
            let (cpu, wall) = runtime.block_on(measure(&store, kind, &kind.body(len)));
            let rate = len as f64 * f64::from(PUTS) / f64::from(1 << 20) / wall.as_secs_f64();
            let (cpu, wall) =
                (cpu.as_micros() / u128::from(PUTS), wall.as_micros() / u128::from(PUTS));
            println!("{len:>9} {:>9} {cpu:>12} {wall:>12} {rate:>9.0}", kind.name());
        }
    }
}

/// How the body lies in memory.
#[derive(Clone, Copy)]
enum Kind {
    Aligned,
    Skewed,
    /// In aligned pages of shuffled order.
    Pages,
    /// As `Pages`, copied into one aligned buffer for each put.
    Joined,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Aligned, Self::Skewed, Self::Pages, Self::Joined];

    fn name(self) -> &'static str {
        match self {
            Self::Aligned => "aligned",
            Self::Skewed => "skewed",
            Self::Pages => "pages",
            Self::Joined => "joined",
        }
    }

    fn body(self, len: usize) -> Payload {
        let bytes = (0..=250_u8).cycle().take(len);
        match self {
            Self::Aligned => buffer(len, 0, |buffer| buffer.extend(bytes)).into(),
            Self::Skewed => buffer(len, 1, |buffer| buffer.extend(bytes)).into(),
            Self::Pages | Self::Joined => {
                let whole = buffer(len, 0, |buffer| buffer.extend(bytes));
                let mut pages: Vec<Bytes> =
                    (0..len).step_by(PAGE).map(|at| whole.slice(at..at + PAGE)).collect();
                fastrand::Rng::with_seed(7).shuffle(&mut pages);
                pages.into()
            }
        }
    }
}

/// `len` bytes that begin `skew` bytes behind a page's start.
fn buffer(len: usize, skew: usize, fill: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut backing: Vec<u8> = Vec::with_capacity(len + 2 * PAGE);
    let start = backing.as_ptr().align_offset(PAGE) + skew;
    backing.resize(start, 0);
    fill(&mut backing);
    Bytes::from(backing).slice(start..start + len)
}

async fn measure(store: &FileStore, kind: Kind, body: &Payload) -> (Duration, Duration) {
    let (cpu, started) = (cpu_time(), Instant::now());
    for n in 0..PUTS {
        let name = format!("bench/{n}");
        let body = match kind {
            Kind::Joined => {
                let join = |buffer: &mut Vec<u8>| {
                    body.parts().iter().for_each(|part| buffer.extend_from_slice(part));
                };
                buffer(body.len(), 0, join).into()
            }
            Kind::Aligned | Kind::Skewed | Kind::Pages => body.clone(),
        };
        store.put(&name, body, PutMode::Create).await.expect("the name is free");
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
