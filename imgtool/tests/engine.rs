//! What the engine wrote is found whole: the inspector and the engine agree about every format.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lsvd_common::ids::Uuid;
use lsvd_common::name::ImageName;
use lsvd_common::object::superblock::SectorSize;
use lsvd_engine::cache::{CacheConfig, ReadCache};
use lsvd_engine::disk::{FileDir, IoMode};
use lsvd_engine::image::{self, NewImage};
use lsvd_engine::{Places, SystemWorld, Volume, VolumeOptions};
use lsvd_store::{FileStore, ObjectStore};
use objinspect::{Format, Input, Options, Part, Report};
use tokio::runtime::Handle;

fn options() -> VolumeOptions {
    let mut options = VolumeOptions::new(Handle::current(), Handle::current());
    options.log_bytes = 2 << 20;
    options.batch_bytes = 128 << 10;
    options.record_bytes = 64 << 10;
    options.batch_ram_bytes = 256 << 10;
    options.batch_age = Duration::from_secs(3600);
    options.checkpoint_objects_min = 2;
    options.checkpoint_objects_max = 4;
    options
}

/// Writes 60 runs of 16 KiB, closing and opening the image half-way, and leaves it as a crash
/// would.
async fn write(scratch: &Path) {
    let store: Arc<dyn ObjectStore> =
        Arc::new(FileStore::open(scratch.join("pool"), true).unwrap());
    let name = ImageName::parse("disk1").unwrap();
    let new =
        NewImage { size_bytes: 4 << 20, sector_size: SectorSize::B512, region_shift: Some(10) };
    image::create(&store, &name, new, &SystemWorld).await.unwrap();
    let logs = Arc::new(FileDir::open_path(scratch, IoMode::Buffered).unwrap());
    for half in 0..2_u64 {
        let new_cache = Uuid::from_u128(1);
        let config = CacheConfig { ram_bytes: 0, new_cache, runtime: Handle::current() };
        let cache = ReadCache::open(config, None).await;
        let places = Places {
            store: Arc::clone(&store),
            logs: logs.clone(),
            cache,
            buffers: logs.pool().clone(),
        };
        let volume = Volume::open(places, &name, options(), false).await.unwrap();
        for step in 0..30_u64 {
            let data = vec![step as u8 + 1; 16 << 10];
            volume.write((half * 30 + step) * 40_960, data.into(), false).await.unwrap();
        }
        volume.discard(0, 8192, true).await.unwrap();
        if half == 0 {
            volume.close().await.unwrap();
        }
    }
}

fn look(path: &Path) -> Report {
    let input = Input::file(path).unwrap();
    let report = objinspect::inspect(&input, &Options { all: true, ..Options::default() }).unwrap();
    assert!(report.whole, "{}", objinspect::text(&report));
    report
}

#[test]
fn objects_and_log_of_a_real_volume_are_found_whole() {
    let scratch = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(write(scratch.path()));
    drop(runtime);
    let mut formats = Vec::new();
    for entry in std::fs::read_dir(scratch.path().join("pool/disk1")).unwrap() {
        formats.push(look(&entry.unwrap().path()).format);
    }
    for format in [Format::Superblock, Format::Data, Format::MapPart, Format::Checkpoint] {
        assert!(formats.contains(&format), "{format:?} in {formats:?}");
    }
    let log = std::fs::read_dir(scratch.path()).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        (path.extension()? == "log").then_some(path)
    });
    let report = look(&log.unwrap());
    assert_eq!(report.format, Format::Log);
    let records = report.parts.iter().find_map(|part| match part {
        Part::Table(table) if table.name == "records" => Some(table.count),
        _ => None,
    });
    // The writes of the second half that no object covers are in the log, the discard among them.
    assert!(records.unwrap() >= 1, "{}", objinspect::text(&report));
}
