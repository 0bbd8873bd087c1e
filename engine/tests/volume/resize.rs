//! Images that grow, open and closed.

use std::sync::Arc;
use std::time::Duration;

use lsvd_common::ids::ObjectSeq;
use lsvd_engine::disk::MemDir;
use lsvd_engine::{ErrorKind, Volume, image};
use lsvd_store::{ErrorKind as StoreKind, Fault, FaultyStore, MemStore, ObjectStore, Op};
use tokio::time::sleep;

use crate::world::{SIZE, World, pattern};

async fn stored_size(world: &World) -> u64 {
    image::superblock(&world.store, &world.name).await.unwrap().size.0 * 512
}

#[tokio::test(start_paused = true)]
async fn an_open_volume_grows_and_keeps_its_size_and_data_through_a_crash() {
    let world = World::new().await;
    let volume = world.open().await.unwrap();
    volume.write(SIZE - 4096, pattern(1, 4096), false).await.unwrap();
    let beyond = volume.write(SIZE, pattern(2, 4096), false).await.unwrap_err();
    assert_eq!(beyond.kind(), ErrorKind::OutOfRange);
    volume.resize(2 * SIZE).await.unwrap();
    assert_eq!((volume.size_bytes(), stored_size(&world).await), (2 * SIZE, 2 * SIZE));
    assert!(volume.read(SIZE, SIZE).await.unwrap().iter().all(|byte| *byte == 0));
    volume.write(SIZE - 2048, pattern(3, 4096), false).await.unwrap();
    volume.write(2 * SIZE - 512, pattern(4, 512), true).await.unwrap();
    drop(volume);
    tokio::task::yield_now().await;
    let volume = world.open().await.unwrap();
    assert!(volume.recovered().records > 0, "from the log");
    assert_eq!(volume.size_bytes(), 2 * SIZE);
    assert_eq!(volume.read(SIZE - 2048, 4096).await.unwrap(), pattern(3, 4096));
    assert_eq!(volume.read(2 * SIZE - 512, 512).await.unwrap(), pattern(4, 512));
    volume.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_written_behind_the_old_end_is_found_from_the_store_alone() {
    let mut world = World::new().await;
    let volume = world.open().await.unwrap();
    volume.resize(2 * SIZE).await.unwrap();
    for step in 0..256 {
        let offset = SIZE + step * 16384;
        volume.write(offset, pattern(step, 16384), false).await.unwrap();
    }
    sleep(Duration::from_secs(10)).await;
    assert_eq!(volume.status().dirty_bytes, 0);
    drop(volume);
    world.logs = Arc::new(MemDir::default());
    let (places, options) = (world.places().await, world.options());
    let volume = Volume::open(places, &world.name, options, true).await.unwrap();
    assert!(volume.recovered().checkpoint > Some(ObjectSeq(1)));
    for step in 0..256 {
        let data = volume.read(SIZE + step * 16384, 16384).await.unwrap();
        assert_eq!(data, pattern(step, 16384));
    }
}

#[tokio::test(start_paused = true)]
async fn sizes_that_cannot_be_are_refused_and_change_nothing() {
    let world = World::new().await;
    let volume = world.open().await.unwrap();
    // Regions of 512 KiB, and no more than 131,072 of them.
    let most = 64 << 30;
    for (size, why) in [
        (SIZE - 4096, "shrinking is not supported"),
        (0, "shrinking is not supported"),
        (SIZE + 100, "multiple of the sector size, 512 bytes"),
        (most + 512, "can grow to 64 GiB"),
        (u64::MAX - 511, "can grow to 64 GiB"),
    ] {
        let refused = volume.resize(size).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid, "{size}");
        assert!(refused.report().contains(why), "{}", refused.report());
    }
    assert_eq!((volume.size_bytes(), stored_size(&world).await), (SIZE, SIZE));
    volume.resize(most).await.unwrap();
    volume.write(most - 512, pattern(1, 512), false).await.unwrap();
    volume.close().await.unwrap();
    assert_eq!(volume.resize(most).await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_resize_without_an_answer_leaves_the_old_size_until_it_is_asked_again() {
    for fault in [
        Fault::Before(StoreKind::Unavailable),
        Fault::After(StoreKind::Ambiguous),
        Fault::Late(Duration::from_secs(1)),
    ] {
        let faulty = Arc::new(FaultyStore::scripted(Arc::new(MemStore::new())));
        let world = World::on(Arc::clone(&faulty) as Arc<dyn ObjectStore>).await;
        let volume = world.open().await.unwrap();
        faulty.next(Op::Put, fault);
        let error = volume.resize(2 * SIZE).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{fault:?}");
        assert_eq!(volume.size_bytes(), SIZE);
        let beyond = volume.write(SIZE, pattern(1, 512), false).await.unwrap_err();
        assert_eq!(beyond.kind(), ErrorKind::OutOfRange);
        volume.resize(SIZE).await.unwrap();
        // A put of before must not land over this one.
        sleep(Duration::from_secs(10)).await;
        assert_eq!(stored_size(&world).await, SIZE, "{fault:?}");
        volume.resize(2 * SIZE).await.unwrap();
        volume.write(SIZE, pattern(1, 512), false).await.unwrap();
        volume.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_was_taken_over_cannot_resize_and_fails() {
    let world = World::new().await;
    let first = world.open().await.unwrap();
    let other = World {
        store: Arc::clone(&world.store),
        logs: Arc::new(MemDir::default()),
        name: world.name.clone(),
    };
    let (places, options) = (other.places().await, other.options());
    let second = Volume::open(places, &other.name, options, true).await.unwrap();
    assert_eq!(first.resize(2 * SIZE).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(first.read(0, 512).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!((second.size_bytes(), stored_size(&world).await), (SIZE, SIZE));
    second.resize(3 * SIZE).await.unwrap();
    second.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_closed_image_grows_and_an_open_one_names_its_owner() {
    let world = World::new().await;
    let resize = |size| image::resize(&world.store, &world.name, size);
    let volume = world.open().await.unwrap();
    let refused = resize(2 * SIZE).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InUse);
    let text = refused.report();
    assert!(text.contains("localhost") && text.contains("grow it there"), "{text}");
    volume.write(0, pattern(1, 4096), false).await.unwrap();
    volume.close().await.unwrap();
    drop(volume);
    assert_eq!(resize(2 * SIZE).await.unwrap().size.0 * 512, 2 * SIZE);
    assert_eq!(resize(SIZE).await.unwrap_err().kind(), ErrorKind::Invalid);
    let volume = world.open().await.unwrap();
    assert_eq!(volume.size_bytes(), 2 * SIZE);
    assert_eq!(volume.read(0, 4096).await.unwrap(), pattern(1, 4096));
    volume.write(2 * SIZE - 4096, pattern(2, 4096), false).await.unwrap();
    volume.close().await.unwrap();
}
