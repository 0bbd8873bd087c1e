//! The images that are open: made, opened and closed here, for every front end.
//!
//! Invariants: 1. a name is open once; 2. a volume has one home thread, on which its log writer and
//! its connections run. Concurrency: any task may look; opening and closing take turns.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use humansize::{BINARY, format_size};
use lsvd_common::name::ImageName;
use lsvd_common::object::superblock::Superblock;
use lsvd_engine::World as _;
use lsvd_engine::cache::ReadCache;
use lsvd_engine::disk::{BufPool, DiskDir, FileDir};
use lsvd_engine::image::{self, NewImage};
use lsvd_engine::{ErrorKind, FlushPolicy, Places, SystemWorld, Volume, VolumeOptions, log_name};
use lsvd_nbd::{Export, Exports};
use lsvd_store::{MeteredStore, ObjectStore, PoolSpec, RetryPolicy, RetryingStore};
use parking_lot::RwLock;
use tokio::runtime::Handle;

use crate::config::Settings;
use crate::export::VolumeExport;
use crate::gateway::{file_dir, recent_writes};
use crate::machine;

/// Attempts at a store request end here; the engine itself goes on trying for as long as it takes.
const STORE_DEADLINE: Duration = Duration::from_secs(30);

/// See the module.
pub(crate) struct Images {
    settings: Settings,
    homes: Vec<Handle>,
    logs: Arc<FileDir>,
    cache: Arc<ReadCache>,
    buffers: BufPool,
    open: RwLock<BTreeMap<String, Open>>,
    /// Held while an image is opened or closed.
    turn: tokio::sync::Mutex<()>,
    opened: AtomicUsize,
}

/// An image that is open.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    pub(crate) volume: Arc<Volume>,
    pub(crate) home: Handle,
    /// The pool as it was written.
    pub(crate) pool: String,
    pub(crate) wishes: lsvd_control::Settings,
    /// In the order of opening.
    pub(crate) number: usize,
}

impl Images {
    /// Opens a pool, and says which one a bare word means.
    pub(crate) async fn open_pool(
        &self,
        text: &str,
        create: bool,
    ) -> anyhow::Result<Arc<dyn ObjectStore>> {
        let spec = PoolSpec::parse(text, &self.settings.environment)?;
        tracing::info!("{}", spec.explain());
        // A cluster that does not answer takes its time.
        let opened = tokio::task::spawn_blocking(move || spec.open(create)).await;
        let store = Arc::new(MeteredStore::new(opened.context("open the pool")??));
        let seed = SystemWorld.uuid().as_u64_pair().0;
        let policy = RetryPolicy { deadline: STORE_DEADLINE, seed, ..RetryPolicy::default() };
        Ok(Arc::new(RetryingStore::new(store, policy)))
    }

    pub(crate) fn new(
        settings: Settings,
        homes: Vec<Handle>,
        logs: Arc<FileDir>,
        cache: Arc<ReadCache>,
        buffers: BufPool,
    ) -> Self {
        Self {
            settings,
            homes,
            logs,
            cache,
            buffers,
            open: RwLock::default(),
            turn: tokio::sync::Mutex::default(),
            opened: AtomicUsize::new(0),
        }
    }

    /// Memory for what comes in.
    pub(crate) fn buffers(&self) -> &BufPool {
        &self.buffers
    }

    /// All open images, in the order of opening.
    pub(crate) fn all(&self) -> Vec<Open> {
        let mut all: Vec<Open> = self.open.read().values().cloned().collect();
        all.sort_by_key(|open| open.number);
        all
    }

    pub(crate) fn get(&self, name: &str) -> Option<Open> {
        self.open.read().get(name).cloned()
    }

    /// The thread that serves an image, or one of all for anything else.
    pub(crate) fn home_of(&self, name: Option<&str>, number: usize) -> Handle {
        let own = name.and_then(|name| self.open.read().get(name).map(|open| open.home.clone()));
        own.unwrap_or_else(|| self.homes[number % self.homes.len()].clone())
    }

    /// Makes an image anew: whatever it held is gone.
    pub(crate) async fn recreate(
        &self,
        store: &Arc<dyn ObjectStore>,
        name: &ImageName,
        new: NewImage,
        takeover: bool,
    ) -> anyhow::Result<()> {
        match image::superblock(store, name).await {
            Ok(old) => {
                let ours = self.is_ours(&old).await;
                let old_log = log_name(old.image);
                let objects = image::delete(store, name, ours || takeover, &mut |_, _| {})
                    .await
                    .context("recreate it")?;
                tracing::info!(image = %name, objects, "deleted, to be made anew");
                if self.logs.list().await?.contains(&old_log) {
                    self.logs.remove(&old_log).await?;
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        image::create(store, name, new, &SystemWorld).await?;
        Ok(())
    }

    /// True if the image was left open by an earlier run with this state directory, which is dead:
    /// we have its log.
    async fn is_ours(&self, superblock: &Superblock) -> bool {
        let log = self.logs.open(&log_name(superblock.image)).await;
        superblock.owner.is_some() && matches!(log, Ok(Some(_)))
    }

    /// Opens an image of the pool that was written as `pool`.
    pub(crate) async fn open(
        &self,
        pool: &str,
        store: &Arc<dyn ObjectStore>,
        name: &ImageName,
        wishes: lsvd_control::Settings,
        takeover: bool,
    ) -> anyhow::Result<()> {
        let _turn = self.turn.lock().await;
        if self.open.read().contains_key(name.as_str()) {
            return Err(anyhow::Error::new(AlreadyOpen).context(format!("image {name}")));
        }
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let home = self.homes[number % self.homes.len()].clone();
        let logs = self.logs_for(wishes.wlog_dir.as_deref())?;
        if let Some(dir) = &wishes.rcache_dir {
            tracing::info!(image = %name, dir = %dir.display(), "rcache_dir: all images share the gateway's read cache");
        }
        let options = self.options(&home, &logs, &wishes);
        let places = Places {
            store: Arc::clone(store),
            logs: logs as Arc<dyn DiskDir>,
            cache: Arc::clone(&self.cache),
            buffers: self.buffers.clone(),
        };
        let volume = match Volume::open(places, name, options, takeover).await {
            Err(error) if error.kind() == ErrorKind::InUse && !takeover => {
                let hint = "with --takeover, `lsvd-gw mount` takes it over";
                return Err(anyhow::Error::new(error).context(hint));
            }
            other => other?,
        };
        say_opened(name, &volume);
        let pool = pool.to_owned();
        let open = Open { volume: Arc::new(volume), home, pool, wishes, number };
        self.open.write().insert(name.to_string(), open);
        Ok(())
    }

    fn logs_for(&self, dir: Option<&Path>) -> anyhow::Result<Arc<FileDir>> {
        match dir {
            None => Ok(Arc::clone(&self.logs)),
            Some(dir) => {
                let dir: PathBuf = dir.join("logs");
                Ok(Arc::new(file_dir(&dir)?.with_pool(self.buffers.clone())))
            }
        }
    }

    fn options(
        &self,
        home: &Handle,
        logs: &FileDir,
        wishes: &lsvd_control::Settings,
    ) -> VolumeOptions {
        let ours = &self.settings;
        let bytes = |wished: Option<u64>, ours: u64| {
            usize::try_from(wished.unwrap_or(ours)).unwrap_or(usize::MAX)
        };
        let mut options = VolumeOptions::new(home.clone(), Handle::current());
        options.flush = match wishes.flush {
            None => ours.flush,
            Some(lsvd_control::Flush::Local) => FlushPolicy::Local,
            Some(lsvd_control::Flush::Backend) => FlushPolicy::Backend,
        };
        options.log_bytes = wishes.wlog_size.unwrap_or(ours.log_size) / 4096 * 4096;
        options.batch_bytes = bytes(wishes.batch_size, ours.batch_size);
        options.batch_age = wishes.batch_age_ms.map_or(ours.batch_age, Duration::from_millis);
        options.batch_ram_bytes = bytes(None, recent_writes(ours));
        options.owner_host = machine::host_name();
        options.owner_place = logs.describe();
        options
    }

    /// Closes one image. Its clients are told that it is gone.
    pub(crate) async fn close(&self, name: &str) -> anyhow::Result<()> {
        let _turn = self.turn.lock().await;
        let Some(open) = self.get(name) else { bail!("image {name} is not open") };
        let closed = open.volume.close().await;
        self.open.write().remove(name);
        closed.context("close the image; the next start recovers it")?;
        tracing::info!(image = name, "image closed");
        Ok(())
    }

    /// Closes every volume, then the cache.
    pub(crate) async fn close_all(&self) -> anyhow::Result<()> {
        let _turn = self.turn.lock().await;
        let mut failed = None;
        for Open { volume, .. } in self.all() {
            match volume.close().await {
                Ok(()) => tracing::info!(image = volume.name(), "image closed"),
                Err(error) => {
                    tracing::error!(image = volume.name(), error = error.report(), "close failed");
                    failed.get_or_insert(error);
                }
            }
        }
        self.cache.close().await;
        match failed {
            Some(error) if error.kind() == ErrorKind::Fenced => Err(error.into()),
            Some(error) => Err(error).context("close an image; the next start recovers it"),
            None => Ok(()),
        }
    }
}

/// A name is open once.
#[derive(Debug, thiserror::Error)]
#[error("it is open already")]
pub(crate) struct AlreadyOpen;

impl Exports for Images {
    fn list(&self) -> Vec<String> {
        self.open.read().keys().cloned().collect()
    }

    fn open(&self, name: &str) -> Option<Arc<dyn Export>> {
        let open = self.get(name)?;
        Some(Arc::new(VolumeExport(open.volume)))
    }
}

fn say_opened(name: &ImageName, volume: &Volume) {
    let found = volume.recovered();
    tracing::info!(
        image = %name,
        size = %format_size(volume.size_bytes(), BINARY),
        epoch = %volume.epoch(),
        objects_replayed = found.objects,
        records_replayed = found.records,
        bytes_replayed = found.record_bytes,
        leftovers = found.leftovers,
        store_ms = found.store_time.as_millis(),
        log_ms = found.log_time.as_millis(),
        total_ms = found.total_time.as_millis(),
        "image open"
    );
}

pub(crate) fn image_name(text: &str) -> anyhow::Result<ImageName> {
    ImageName::parse(text).with_context(|| format!("image {text:?}"))
}
