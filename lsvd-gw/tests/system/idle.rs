//! A gateway that has nothing to do does nothing, and one that has much to do keeps to its memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::gateway::{Gateway, IMAGE, Site};
use crate::model;
use crate::tools;

/// How long nothing must happen.
const WATCH: Duration = Duration::from_secs(10);

/// Ticks of CPU time, and the counters of reads and writes, of a process.
fn activity(gateway: &Gateway) -> (u64, String) {
    let proc = format!("/proc/{}", gateway.pid());
    let stat = std::fs::read_to_string(format!("{proc}/stat")).expect("it is our child");
    // The name in parentheses may hold anything; fields are counted behind it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let field = |at: usize| fields[at].parse::<u64>().expect("a counter");
    let io = std::fs::read_to_string(format!("{proc}/io")).expect("it is our child");
    (field(12) + field(13), io)
}

/// Every file below a directory, with its size and when it was read and written.
fn listing(dir: &Path) -> BTreeMap<String, (u64, SystemTime, SystemTime)> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("it is readable") {
        let entry = entry.expect("it is readable");
        let meta = entry.metadata().expect("nobody deletes it");
        if meta.is_dir() {
            all.extend(listing(&entry.path()));
        }
        let modified = meta.modified().expect("Linux knows");
        let accessed = if meta.is_dir() { modified } else { meta.accessed().expect("Linux knows") };
        all.insert(entry.path().display().to_string(), (meta.len(), modified, accessed));
    }
    all
}

#[test]
fn an_idle_gateway_uses_no_cpu_and_asks_the_store_nothing() {
    let site = Site::new();
    let gateway = site.new_image("256m");
    let mut client = gateway.client();
    for write in 0..2000 {
        let page = write * 7 % 65_000;
        client.write((page * model::PAGE) as u64, &model::data(1, page..page + 1), false).unwrap();
    }
    client.flush().unwrap();
    // Quiet once the last batch was old enough to be sent and everything about it is done.
    let mut before = activity(&gateway);
    for _ in 0..20 {
        std::thread::sleep(Duration::from_secs(2));
        let now = activity(&gateway);
        if now == before {
            break;
        }
        before = now;
    }
    let files = listing(&site.pool());
    let (ticks, io) = activity(&gateway);
    std::thread::sleep(WATCH);
    let (ticks_after, io_after) = activity(&gateway);
    assert!(ticks_after <= ticks + 1, "{} ticks of CPU time", ticks_after - ticks);
    assert_eq!(io_after, io, "reads and writes of any kind");
    assert_eq!(listing(&site.pool()), files);
    // With a client connected, all the same; and it still answers.
    client.read(0, 4096).unwrap();
    gateway.stop();
}

/// What the gateway says that its read cache may take of memory.
fn cache_ram(gateway: &Gateway) -> u64 {
    let log = gateway.log();
    let size = log.split("read cache ").nth(1).and_then(|rest| rest.split(" RAM").next());
    let size = size.unwrap_or_else(|| panic!("no settings in {log}"));
    let (number, unit) = size.split_once(' ').expect("a size has a unit");
    let unit = match unit {
        "MiB" => 20,
        "GiB" => 30,
        _ => panic!("{size}"),
    };
    let number: f64 = number.parse().expect("a number");
    (number * f64::from(1 << unit)) as u64
}

#[test]
fn memory_stays_below_the_cache_and_a_hundred_mib() {
    let Some(fio) = tools::find("fio") else { return };
    let site = Site::new().with_defaults();
    let gateway = site.new_image("10g");
    for rw in ["randwrite", "randread", "randwrite"] {
        let mut command = Command::new(&fio);
        command.current_dir(site.path(""));
        command.args(["--name=load", "--ioengine=nbd", "--bs=4k", "--iodepth=32", "--size=10g"]);
        command.args(["--time_based", "--runtime=6", &format!("--rw={rw}")]);
        tools::run(command.arg(format!("--uri={}", gateway.uri(IMAGE))));
    }
    let (resident, cache) = (gateway.resident_bytes(), cache_ram(&gateway));
    eprintln!("resident {} MiB, of which the cache may take {} MiB", resident >> 20, cache >> 20);
    assert!(resident < cache + (100 << 20), "{} MiB", resident >> 20);
    gateway.stop();
}
