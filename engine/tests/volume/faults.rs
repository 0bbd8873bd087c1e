//! What a volume does when its store or its SSD does not do what it should.

use std::sync::Arc;
use std::time::Duration;

use lsvd_common::name::ObjectName;
use lsvd_engine::disk::MemDir;
use lsvd_engine::{ErrorKind, FlushPolicy, Volume, image};
use lsvd_store::{
    ErrorKind as StoreKind, FaultyStore, MemStore, MeteredStore, ObjectStore, PutMode,
};
use tokio::time::sleep;

use crate::world::{SIZE, World, pattern};

const STEP: u64 = 16 << 10;

async fn write_all(volume: &Volume, from: u64, to: u64) {
    for step in from..to {
        volume.write(step * STEP % SIZE, pattern(step, STEP as usize), false).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_writes_go_on_and_reads_come_from_the_log() {
    let faulty = Arc::new(FaultyStore::scripted(Arc::new(MemStore::new())));
    let world = World::on(Arc::clone(&faulty) as Arc<dyn ObjectStore>).await;
    let volume = world.open().await.unwrap();
    faulty.begin_outage(StoreKind::Unavailable, None);
    // More than the batches may keep in memory, less than the log holds.
    write_all(&volume, 0, 60).await;
    sleep(Duration::from_secs(5)).await;
    assert!(volume.status().store_away.is_some());
    assert_eq!(volume.status().objects, 0);
    for step in 0..60 {
        assert_eq!(volume.read(step * STEP, STEP).await.unwrap(), pattern(step, STEP as usize));
    }
    volume.flush().await.unwrap();
    faulty.end_outage();
    volume.close().await.unwrap();
    drop(volume);
    let volume = world.open().await.unwrap();
    assert_eq!(volume.recovered().records, 0);
    for step in 0..60 {
        assert_eq!(volume.read(step * STEP, STEP).await.unwrap(), pattern(step, STEP as usize));
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_log_slows_writes_down_until_the_store_is_back() {
    let faulty = Arc::new(FaultyStore::scripted(Arc::new(MemStore::new())));
    let world = World::on(Arc::clone(&faulty) as Arc<dyn ObjectStore>).await;
    let volume = Arc::new(world.open().await.unwrap());
    faulty.begin_outage(StoreKind::Unavailable, None);
    let writer = tokio::spawn({
        let volume = Arc::clone(&volume);
        async move { write_all(&volume, 0, 400).await }
    });
    sleep(Duration::from_secs(60)).await;
    assert!(!writer.is_finished(), "6 MiB do not fit a log of 2 MiB");
    let status = volume.status();
    assert!(status.log_used <= status.log_bytes);
    assert!(status.log_used * 4 > status.log_bytes * 3, "the log is used: {status:?}");
    faulty.end_outage();
    tokio::time::timeout(Duration::from_secs(60), writer).await.unwrap().unwrap();
    assert_eq!(volume.read(399 * STEP % SIZE, STEP).await.unwrap(), pattern(399, STEP as usize));
    volume.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_backend_flush_survives_the_loss_of_the_ssd() {
    let mut world = World::new().await;
    let mut options = world.options();
    options.flush = FlushPolicy::Backend;
    let volume = Volume::open(world.places().await, &world.name, options, false).await.unwrap();
    write_all(&volume, 0, 20).await;
    volume.flush().await.unwrap();
    drop(volume);
    world.logs = Arc::new(MemDir::default());
    let options = world.options();
    let volume = Volume::open(world.places().await, &world.name, options, true).await.unwrap();
    for step in 0..20 {
        assert_eq!(volume.read(step * STEP, STEP).await.unwrap(), pattern(step, STEP as usize));
    }
}

/// An image with several checkpoints, closed; and the store behind it, to be damaged.
async fn closed_image() -> (World, MemStore) {
    let store = MemStore::new();
    let world = World::on(Arc::new(store.clone())).await;
    let volume = world.open().await.unwrap();
    write_all(&volume, 0, 300).await;
    volume.close().await.unwrap();
    (world, store)
}

async fn expect_all(volume: &Volume) {
    for step in 100..300 {
        let offset = step * STEP % SIZE;
        let newest = (step..300).rev().find(|later| later * STEP % SIZE == offset).unwrap();
        let data = volume.read(offset, STEP).await.unwrap();
        assert_eq!(data, pattern(newest, STEP as usize));
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_checkpoint_is_passed_over() {
    let (world, store) = closed_image().await;
    let superblock = image::superblock(&world.store, &world.name).await.unwrap();
    let newest = superblock.checkpoints[0].seq;
    store.corrupt(&world.name.numbered(newest), |bytes| bytes[100] ^= 1);
    let volume = world.open().await.unwrap();
    assert_eq!(volume.recovered().checkpoint, Some(superblock.checkpoints[1].seq));
    expect_all(&volume).await;
}

#[tokio::test(start_paused = true)]
async fn damaged_payload_is_an_error_that_names_the_place() {
    let (world, store) = closed_image().await;
    let volume = world.open().await.unwrap();
    let mut damaged = 0;
    for object in image::objects(&world.store, &world.name).await.unwrap() {
        if matches!(object.name, ObjectName::Numbered(..)) {
            let last = object.bytes as usize - 1;
            store.corrupt(&object.name.to_string(), |bytes| bytes[last] ^= 0x10);
        }
    }
    for step in 0..SIZE / STEP {
        match volume.read(step * STEP, STEP).await {
            Ok(data) => {
                let newest = (0..300).rev().find(|later| later * STEP % SIZE == step * STEP);
                assert_eq!(data, pattern(newest.unwrap(), STEP as usize));
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt);
                let text = error.report();
                assert!(text.contains("disk/0000") && text.contains("expected"), "{text}");
                damaged += 1;
            }
        }
    }
    assert!(damaged > 0);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_superblock_is_not_opened() {
    let (world, store) = closed_image().await;
    store.corrupt(&world.name.superblock(), |bytes| bytes[40] ^= 1);
    let error = world.open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.report().contains("checksum"), "{}", error.report());
}

#[tokio::test(start_paused = true)]
async fn a_missing_object_in_the_middle_is_reported_not_skipped() {
    let (world, store) = closed_image().await;
    let superblock = image::superblock(&world.store, &world.name).await.unwrap();
    let middle = world.name.numbered(superblock.checkpoints[0].covers.previous().unwrap());
    // The map comes from the checkpoint, so the image opens; what the object held cannot be read.
    store.delete(&middle).await.unwrap();
    let volume = world.open().await.unwrap();
    let mut lost = 0;
    for step in 0..SIZE / STEP {
        match volume.read(step * STEP, STEP).await {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt);
                lost += 1;
            }
        }
    }
    assert!(lost > 0);
}

#[tokio::test(start_paused = true)]
async fn an_idle_volume_sends_no_request() {
    let metered = Arc::new(MeteredStore::new(Arc::new(MemStore::new())));
    let world = World::on(Arc::clone(&metered) as Arc<dyn ObjectStore>).await;
    let volume = world.open().await.unwrap();
    write_all(&volume, 0, 50).await;
    sleep(Duration::from_secs(10)).await;
    let before = format!("{:?}", metered.snapshot());
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(format!("{:?}", metered.snapshot()), before);
    assert_eq!(volume.status().dirty_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_leftover_is_replaced_and_never_deleted() {
    // A delete whose answer is lost may land after its name was used again.
    let (world, store) = closed_image().await;
    let objects = image::objects(&world.store, &world.name).await.unwrap();
    let ObjectName::Numbered(_, last) = objects[objects.len() - 2].name else {
        panic!("the superblock is listed last");
    };
    let leftover = world.name.numbered(last.next().next());
    let body = store.get(&world.name.numbered(last)).await.unwrap().body;
    store.put(&leftover, body.clone().into(), PutMode::Create).await.unwrap();
    let volume = world.open().await.unwrap();
    assert_eq!(volume.recovered().leftovers, 1);
    assert_eq!(store.get(&leftover).await.unwrap().body, body);
    write_all(&volume, 0, 300).await;
    volume.close().await.unwrap();
    assert!(store.get(&leftover).await.unwrap().body != body);
    drop(volume);
    expect_all(&world.open().await.unwrap()).await;
}
