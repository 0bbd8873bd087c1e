//! A world in memory for one image, with sizes so small that everything happens often.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lsvd_common::ids::Uuid;
use lsvd_common::name::ImageName;
use lsvd_common::object::superblock::SectorSize;
use lsvd_engine::cache::{CacheConfig, ReadCache};
use lsvd_engine::disk::{BufPool, DiskDir, MemDir};
use lsvd_engine::image::{self, NewImage};
use lsvd_engine::{Places, SystemWorld, Volume, VolumeOptions};
use lsvd_store::{MemStore, ObjectStore};
use tokio::runtime::Handle;

pub(crate) const SIZE: u64 = 4 << 20;

pub(crate) struct World {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) logs: Arc<dyn DiskDir>,
    pub(crate) name: ImageName,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::on(Arc::new(MemStore::new())).await
    }

    pub(crate) async fn on(store: Arc<dyn ObjectStore>) -> Self {
        let world = Self {
            store,
            logs: Arc::new(MemDir::default()),
            name: ImageName::parse("disk").unwrap(),
        };
        let new =
            NewImage { size_bytes: SIZE, sector_size: SectorSize::B512, region_shift: Some(10) };
        image::create(&world.store, &world.name, new, &SystemWorld).await.unwrap();
        world
    }

    pub(crate) fn options(&self) -> VolumeOptions {
        let mut options = VolumeOptions::new(Handle::current(), Handle::current());
        options.log_bytes = 2 << 20;
        options.batch_bytes = 128 << 10;
        options.record_bytes = 64 << 10;
        options.batch_ram_bytes = 256 << 10;
        options.batch_age = Duration::from_millis(20);
        options.checkpoint_objects_min = 4;
        options.checkpoint_objects_max = 16;
        options
    }

    pub(crate) async fn places(&self) -> Places {
        let config = CacheConfig {
            ram_bytes: 1 << 20,
            new_cache: Uuid::from_u128(1),
            runtime: Handle::current(),
        };
        let cache = ReadCache::open(config, None).await;
        Places {
            store: Arc::clone(&self.store),
            logs: Arc::clone(&self.logs),
            cache,
            buffers: BufPool::default(),
        }
    }

    pub(crate) async fn open(&self) -> lsvd_engine::Result<Volume> {
        Volume::open(self.places().await, &self.name, self.options(), false).await
    }
}

pub(crate) fn pattern(stamp: u64, len: usize) -> Bytes {
    let mut data = Vec::with_capacity(len);
    for sector in 0..len / 512 {
        data.extend(std::iter::repeat_n((stamp as u8) ^ (sector as u8), 512));
    }
    data.into()
}
