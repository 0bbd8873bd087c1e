//! A volume against a model, and against what stores and SSDs do wrong, in memory.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod faults;
mod resize;
mod world;

use std::sync::Arc;
use std::time::Duration;

use lsvd_engine::disk::MemDir;
use lsvd_engine::{ErrorKind, Volume};

use crate::world::{SIZE, World, pattern};

/// Random operations; the volume is closed, or dropped as in a crash that loses nothing, and opened
/// again in between.
#[tokio::test(start_paused = true)]
async fn it_reads_like_an_array_through_restarts() {
    for seed in 0..12 {
        let mut random = fastrand::Rng::with_seed(seed);
        let world = World::new().await;
        let mut model = vec![0_u8; SIZE as usize];
        let mut volume = world.open().await.unwrap();
        for step in 0..400 {
            let sectors = SIZE / 512;
            let len = if random.u8(..) < 20 { random.u64(1..800) } else { random.u64(1..24) };
            let start = random.u64(0..sectors - len);
            let (offset, bytes) = (start * 512, len * 512);
            let range = offset as usize..(offset + bytes) as usize;
            match random.u32(..100) {
                0..45 => {
                    let data = pattern(step, bytes as usize);
                    volume.write(offset, data.clone(), random.bool()).await.unwrap();
                    model[range].copy_from_slice(&data);
                }
                45..55 => {
                    volume.discard(offset, bytes, false).await.unwrap();
                    model[range].fill(0);
                }
                55..90 => {
                    let data = volume.read(offset, bytes).await.unwrap();
                    assert!(data == model[range], "seed {seed} step {step}: {offset}+{bytes}");
                }
                90..95 => {
                    volume.flush().await.unwrap();
                }
                95..97 => tokio::time::sleep(Duration::from_millis(random.u64(1..50))).await,
                97..99 => {
                    volume.close().await.unwrap();
                    drop(volume);
                    volume = world.open().await.unwrap();
                    assert_eq!(volume.recovered().records, 0);
                }
                _ => {
                    drop(volume);
                    tokio::task::yield_now().await;
                    volume = world.open().await.unwrap();
                }
            }
        }
        volume.close().await.unwrap();
        drop(volume);
        let volume = world.open().await.unwrap();
        assert!(volume.read(0, SIZE).await.unwrap() == model, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_gateway_is_refused_by_name_and_may_take_over() {
    let world = World::new().await;
    let first = world.open().await.unwrap();
    first.write(0, pattern(1, 4096), false).await.unwrap();
    let other = World {
        store: Arc::clone(&world.store),
        logs: Arc::new(MemDir::default()),
        name: world.name.clone(),
    };
    let refused = other.open().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InUse);
    assert!(refused.report().contains("localhost"), "{}", refused.report());
    let second =
        Volume::open(other.places().await, &other.name, other.options(), true).await.unwrap();
    second.write(4096, pattern(2, 4096), true).await.unwrap();
    // The first learns it when its batch goes to the store.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let fenced = first.write(0, pattern(3, 4096), true).await.unwrap_err();
    assert_eq!(fenced.kind(), ErrorKind::Fenced);
    assert_eq!(second.read(4096, 4096).await.unwrap(), pattern(2, 4096));
    second.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn ranges_outside_the_image_or_its_sectors_are_refused() {
    let world = World::new().await;
    let volume = world.open().await.unwrap();
    for (offset, len) in [(SIZE, 512), (1, 512), (0, 100), (u64::MAX - 511, 512)] {
        assert_eq!(volume.read(offset, len).await.unwrap_err().kind(), ErrorKind::OutOfRange);
    }
    assert_eq!(volume.read(SIZE - 512, 512).await.unwrap(), vec![0; 512]);
    volume.close().await.unwrap();
    assert_eq!(volume.flush().await.unwrap_err().kind(), ErrorKind::Closed);
}
