//! What each disk and each directory must do, however it is reached.

use std::io::ErrorKind;
use std::path::Path;

use tempfile::TempDir;
use tokio::task::LocalSet;

use super::ring::RingMode;
use super::*;

/// How the operations of a test reach the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    Ring(RingMode),
    Threads,
}

pub(super) const REACHES: [Reach; 3] =
    [Reach::Ring(RingMode::Cooperative), Reach::Ring(RingMode::Plain), Reach::Threads];

/// Runs `work` on a runtime of its own. False if it needs a ring and cannot have it here.
pub(super) fn run(reach: Reach, work: impl Future<Output = ()>) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = LocalSet::new();
    let _guard = match reach {
        Reach::Threads => None,
        Reach::Ring(mode) => match ring::install_as(mode) {
            Ok((guard, driver)) => {
                local.spawn_local(driver);
                Some(guard)
            }
            Err(error) => {
                eprintln!("SKIPPED: {reach:?}: {error}");
                return false;
            }
        },
    };
    local.block_on(&runtime, work);
    true
}

/// A directory for files, on memory if that has to do with no device.
pub(super) fn scratch(mode: IoMode) -> TempDir {
    let memory = Path::new("/dev/shm");
    if mode == IoMode::Buffered && memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

fn on_each(check: impl AsyncFn(&dyn DiskDir)) {
    eprintln!("memory");
    run(Reach::Threads, check(&MemDir::default()));
    for reach in REACHES {
        for mode in [IoMode::Direct, IoMode::Buffered] {
            eprintln!("{mode}, {reach:?}");
            let scratch = scratch(mode);
            run(reach, check(&FileDir::open_path(scratch.path(), mode).unwrap()));
        }
    }
}

fn kind<T: Debug>(result: io::Result<T>) -> ErrorKind {
    result.expect_err("this must be refused").kind()
}

/// Pages that say where they belong and which write they come from.
pub(super) fn pattern(offset: u64, len: usize, generation: u8) -> Vec<u8> {
    (0..len / PAGE)
        .flat_map(|page| {
            let mut bytes = [generation; PAGE];
            bytes[..8].copy_from_slice(&(offset + (page * PAGE) as u64).to_le_bytes());
            bytes
        })
        .collect()
}

#[test]
fn a_new_disk_is_zero_and_keeps_what_is_written() {
    on_each(async |dir| {
        let len = 5 << 20;
        let disk = dir.create("a", len).await.unwrap();
        assert_eq!(disk.len(), len);
        let all = disk.read_at(0, 5 << 20).await.unwrap();
        assert_eq!(all.len(), 5 << 20);
        assert!(all.iter().all(|&byte| byte == 0));
        let offset = len - PAGE as u64;
        let data = pattern(offset, PAGE, 1);
        disk.write_at(offset, data.clone().into()).await.unwrap();
        disk.sync().await.unwrap();
        drop(disk);
        let disk = dir.open("a").await.unwrap().unwrap();
        assert_eq!(disk.len(), len);
        assert_eq!(disk.read_at(offset, PAGE).await.unwrap()[..], data);
        assert!(disk.describe().contains(&len.to_string()));
    });
}

#[test]
fn operations_of_all_sizes_together_do_not_disturb_each_other() {
    on_each(async |dir| {
        let mut random = fastrand::Rng::with_seed(7);
        let mut extents = Vec::new();
        let mut end = 0;
        for _ in 0..700 {
            let pages = if random.u8(..) < 8 { 256 } else { random.usize(1..16) };
            extents.push((end, pages * PAGE));
            end += (pages * PAGE) as u64;
        }
        let disk = dir.create("a", end).await.unwrap();
        for generation in 1..=2 {
            random.shuffle(&mut extents);
            let start = |&(offset, len): &(u64, usize)| {
                let mut data = vec![0];
                data.extend(pattern(offset, len, generation));
                // Off the page boundary by one, wherever the vector lies.
                disk.write_at(offset, Bytes::from(data).slice(1..))
            };
            let writes: Vec<_> = extents.iter().map(start).collect();
            for write in writes {
                write.await.unwrap();
            }
            disk.sync().await.unwrap();
            random.shuffle(&mut extents);
            let reads: Vec<_> =
                extents.iter().map(|&(offset, len)| disk.read_at(offset, len)).collect();
            for (&(offset, len), read) in extents.iter().zip(reads) {
                let found = read.await.unwrap();
                assert!(found[..] == pattern(offset, len, generation), "{len} at {offset}");
                assert!(found.as_ptr().addr().is_multiple_of(PAGE));
            }
        }
    });
}

#[test]
fn an_operation_runs_to_its_end_without_its_future() {
    on_each(async |dir| {
        let disk = dir.create("a", 64 << 20).await.unwrap();
        for page in 0..300 {
            let offset = page * (64 << 10);
            drop(disk.write_at(offset, pattern(offset, 64 << 10, 1).into()));
            drop(disk.read_at(offset, 64 << 10));
            drop(disk.sync());
        }
        drop(disk);
        // In use until the last operation is over, so that an open succeeds only after it.
        let disk = loop {
            match dir.open("a").await {
                Ok(disk) => break disk.unwrap(),
                Err(error) => assert_eq!(error.kind(), ErrorKind::ResourceBusy),
            }
            tokio::task::yield_now().await;
        };
        for page in 0..300 {
            let offset = page * (64 << 10);
            let found = disk.read_at(offset, 64 << 10).await.unwrap();
            assert!(found[..] == pattern(offset, 64 << 10, 1), "at {offset}");
        }
    });
}

#[test]
fn a_range_past_the_end_is_refused_and_an_empty_one_is_not() {
    on_each(async |dir| {
        let disk = dir.create("a", PAGE as u64).await.unwrap();
        let page = PAGE as u64;
        assert_eq!(kind(disk.read_at(page, PAGE).await), ErrorKind::InvalidInput);
        assert_eq!(kind(disk.read_at(u64::MAX - page + 1, PAGE).await), ErrorKind::InvalidInput);
        let two = Bytes::from(vec![1; 2 * PAGE]);
        assert_eq!(kind(disk.write_at(0, two).await), ErrorKind::InvalidInput);
        assert!(disk.read_at(0, PAGE).await.unwrap().iter().all(|&byte| byte == 0));
        disk.write_at(page, Bytes::new()).await.unwrap();
        assert!(disk.read_at(page, 0).await.unwrap().is_empty());
    });
}

#[test]
#[should_panic(expected = "not page aligned")]
fn an_unaligned_offset_is_our_own_mistake() {
    drop(MemDisk::new(PAGE as u64).read_at(512, PAGE));
}

#[test]
fn a_disk_that_is_open_is_not_opened_removed_or_replaced() {
    on_each(async |dir| {
        let a = dir.create("a", PAGE as u64).await.unwrap();
        let b = dir.create("b", PAGE as u64).await.unwrap();
        assert_eq!(kind(dir.open("a").await), ErrorKind::ResourceBusy);
        assert_eq!(kind(dir.create("a", PAGE as u64).await), ErrorKind::AlreadyExists);
        assert_eq!(kind(dir.remove("a").await), ErrorKind::ResourceBusy);
        assert_eq!(kind(dir.rename("b", "a").await), ErrorKind::ResourceBusy);
        drop(a);
        b.write_at(0, vec![2; PAGE].into()).await.unwrap();
        dir.rename("b", "a").await.unwrap();
        assert_eq!(dir.list().await.unwrap(), ["a"]);
        assert_eq!(kind(dir.open("a").await), ErrorKind::ResourceBusy);
        drop(b);
        let a = dir.open("a").await.unwrap().unwrap();
        assert_eq!(a.read_at(0, PAGE).await.unwrap()[..], [2; PAGE]);
        drop(a);
        dir.remove("a").await.unwrap();
        assert!(dir.open("a").await.unwrap().is_none());
    });
}

#[test]
fn names_are_sorted_and_checked() {
    on_each(async |dir| {
        for name in ["c", "a.log", "B"] {
            dir.create(name, PAGE as u64).await.unwrap();
        }
        assert_eq!(dir.list().await.unwrap(), ["B", "a.log", "c"]);
        dir.rename("c", "c").await.unwrap();
        for name in ["", ".a", "..", "a/b", "/a", "a\0", &"x".repeat(201)] {
            assert_eq!(kind(dir.open(name).await), ErrorKind::InvalidInput, "{name:?}");
            assert_eq!(kind(dir.create(name, PAGE as u64).await), ErrorKind::InvalidInput);
            assert_eq!(kind(dir.rename("c", name).await), ErrorKind::InvalidInput);
        }
        assert_eq!(kind(dir.rename("d", "e").await), ErrorKind::NotFound);
        assert_eq!(kind(dir.rename("d", "d").await), ErrorKind::NotFound);
        assert_eq!(kind(dir.remove("d").await), ErrorKind::NotFound);
        assert!(dir.create("d", 0).await.is_err());
        assert!(dir.create("d", PAGE as u64 + 512).await.is_err());
        assert!(dir.open("d").await.unwrap().is_none());
    });
}

#[test]
fn a_future_may_be_awaited_on_another_thread() {
    on_each(async |dir| {
        let disk = dir.create("a", 1 << 20).await.unwrap();
        let write = disk.write_at(0, pattern(0, 1 << 20, 3).into());
        let (sender, receiver) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            sender.send(runtime.block_on(write)).unwrap();
        });
        receiver.await.unwrap().unwrap();
        assert_eq!(disk.read_at(0, 1 << 20).await.unwrap()[..], pattern(0, 1 << 20, 3));
    });
}
