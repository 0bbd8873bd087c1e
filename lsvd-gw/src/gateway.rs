//! The gateway's life: open the cache and the images, listen, say `ready`, wait for a signal,
//! close.
//!
//! Crash: at any point the process may be killed; the next start with the same state directory
//! takes its images back and recovers them.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use humansize::{BINARY, format_size};
use lsvd_common::name::ImageName;
use lsvd_common::object::superblock::{SectorSize, Superblock};
use lsvd_engine::cache::{CacheConfig, ReadCache};
use lsvd_engine::disk::{BufPool, Disk, DiskDir, FileDir, IoMode};
use lsvd_engine::image::{self, NewImage};
use lsvd_engine::{ErrorKind, Places, SystemWorld, Volume, VolumeOptions, World as _, log_name};
use lsvd_nbd::Address;
use lsvd_store::{Environment, MeteredStore, ObjectStore, PoolSpec, RetryPolicy, RetryingStore};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, watch};

use crate::args::Command;
use crate::config::{Settings, parse_size};
use crate::machine;
use crate::nbd::{self, Registry};
use crate::shutdown::Signals;
use crate::workers::Workers;

/// Threads for the store, recovery, destage and listeners.
const BACKEND_THREADS: usize = 2;

/// Connections get this long to finish what is in flight when the gateway stops.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// The read cache's file in its directory.
const CACHE_FILE: &str = "read-cache";

/// Attempts at a store request end here; the engine itself goes on trying for as long as it takes.
const STORE_DEADLINE: Duration = Duration::from_secs(30);

/// Runs a gateway until a signal stops it.
pub(crate) fn run(settings: &Settings, command: Option<&Command>) -> anyhow::Result<()> {
    let backend = Builder::new_multi_thread()
        .worker_threads(BACKEND_THREADS)
        .thread_name("lsvd-backend")
        .enable_all()
        .build()
        .context("start the backend's runtime")?;
    let _lock = lock_state_dir(&settings.state_dir)?;
    let workers = Workers::start(settings.threads, settings.poll)?;
    let result = backend.block_on(live(settings, command, &workers));
    workers.stop();
    // What still runs in the background belongs to volumes that failed to close; it must not keep
    // us.
    backend.shutdown_timeout(Duration::from_secs(1));
    result
}

/// Makes the state directory and takes it for this process alone.
fn lock_state_dir(dir: &Path) -> anyhow::Result<File> {
    let make = || format!("make the state directory {}; --state-dir says another", dir.display());
    DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(make)?;
    let path = dir.join("gateway.lock");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => bail!(
            "another gateway uses the state directory {}; stop it, or say another --state-dir",
            dir.display()
        ),
        Err(error) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}

async fn live(
    settings: &Settings,
    command: Option<&Command>,
    workers: &Workers,
) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    tracing::info!("{settings}");
    let gateway = Gateway::open(settings, workers).await?;
    let started = gateway.serve(command, &mut signals).await;
    let second = async {
        signals.next().await;
        tracing::warn!("second signal: out at once; the next start recovers");
        // Nothing that was acknowledged after a flush depends on what is skipped here.
        std::process::exit(2);
    };
    tokio::select! {
        closed = gateway.close() => started.and(closed),
        () = second => Ok(()),
    }
}

/// Memory that lies ready for data on its way while there is some: what four batches take.
const BUFFERS_IDLE_MAX: usize = 32 << 20;

/// The share of `cache_ram` that is for recent writes on their way to the store; reads find them
/// there. Each image may hold so much, and more is read back from its log: 64 MiB are the uploads
/// of a store that keeps up and as much again.
fn recent_writes(settings: &Settings) -> u64 {
    (settings.cache_ram / 4).min(64 << 20)
}

struct Gateway<'a> {
    settings: &'a Settings,
    workers: &'a Workers,
    logs: Arc<FileDir>,
    cache: Arc<ReadCache>,
    registry: Arc<Registry>,
    /// Memory for data on its way, for all images and clients.
    buffers: BufPool,
}

impl<'a> Gateway<'a> {
    async fn open(settings: &'a Settings, workers: &'a Workers) -> anyhow::Result<Self> {
        let buffers = BufPool::new(BUFFERS_IDLE_MAX);
        let logs = file_dir(&settings.state_dir.join("logs"))?.with_pool(buffers.clone());
        let ssd = open_cache_file(settings).await?;
        let config = CacheConfig {
            ram_bytes: settings.cache_ram - recent_writes(settings),
            new_cache: SystemWorld.uuid(),
            runtime: Handle::current(),
        };
        let cache = ReadCache::open(config, ssd).await;
        Ok(Self {
            settings,
            workers,
            logs: Arc::new(logs),
            cache,
            registry: Arc::new(Registry::new(buffers.clone())),
            buffers,
        })
    }

    /// Opens what the command names, serves it, and returns when a signal came and clients are
    /// done.
    async fn serve(&self, command: Option<&Command>, signals: &mut Signals) -> anyhow::Result<()> {
        tokio::select! {
            biased;
            () = signals.next() => {
                tracing::info!("stopped before everything was open");
                return Ok(());
            }
            opened = self.open_images(command) => opened?,
        }
        let (stop, stopped) = watch::channel(false);
        let (running, mut all_gone) = mpsc::channel::<()>(1);
        let mut listeners = Vec::new();
        for address in &self.settings.nbd {
            let listener = nbd::listen(address, &self.registry, &stopped, &running).await?;
            listeners.push(listener);
        }
        drop(running);
        self.say_what_next();
        say_ready()?;
        signals.next().await;
        tracing::info!("stopping: finishing what is in flight");
        stop.send_replace(true);
        for listener in listeners {
            drop(listener.await);
        }
        if tokio::time::timeout(DRAIN_MAX, all_gone.recv()).await.is_err() {
            tracing::warn!("clients did not take their answers; their connections are cut");
        }
        Ok(())
    }

    async fn open_images(&self, command: Option<&Command>) -> anyhow::Result<()> {
        match command {
            None => {}
            Some(Command::New { pool, num, size, sector_size, takeover }) => {
                let store = open_pool(pool, true)?;
                let new = new_image(size, *sector_size)?;
                for index in 0..*num {
                    let name = image_name(&format!("auto_lsvddev_{index}"))?;
                    self.recreate(&store, &name, new, *takeover).await?;
                    self.mount(&store, &name, false).await?;
                }
            }
            Some(Command::Mount { pool, images, takeover }) => {
                let store = open_pool(pool, false)?;
                for name in images {
                    self.mount(&store, &image_name(name)?, *takeover).await?;
                }
            }
        }
        Ok(())
    }

    /// Makes an image anew: whatever it held is gone.
    async fn recreate(
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

    async fn mount(
        &self,
        store: &Arc<dyn ObjectStore>,
        name: &ImageName,
        takeover: bool,
    ) -> anyhow::Result<()> {
        let home = self.workers.home(self.registry.volumes().len());
        let mut options = VolumeOptions::new(home.clone(), Handle::current());
        options.flush = self.settings.flush;
        options.log_bytes = self.settings.log_size;
        options.batch_bytes = usize::try_from(self.settings.batch_size).unwrap_or(usize::MAX);
        options.batch_age = self.settings.batch_age;
        options.batch_ram_bytes = usize::try_from(recent_writes(self.settings))?;
        options.owner_host = machine::host_name();
        options.owner_place = self.logs.describe();
        let places = Places {
            store: Arc::clone(store),
            logs: Arc::clone(&self.logs) as Arc<dyn DiskDir>,
            cache: Arc::clone(&self.cache),
            buffers: self.buffers.clone(),
        };
        let opened = Volume::open(places, name, options, takeover).await;
        let volume = match opened {
            Err(error) if error.kind() == ErrorKind::InUse && !takeover => {
                let hint = "with --takeover, `lsvd-gw mount` takes it over";
                return Err(anyhow::Error::new(error).context(hint));
            }
            other => other?,
        };
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
        self.registry.insert(Arc::new(volume), home);
        Ok(())
    }

    /// Tells a person what to type; programs wait for `ready`.
    fn say_what_next(&self) {
        let volumes = self.registry.volumes();
        for address in &self.settings.nbd {
            let (show, stop) = match address {
                Address::Tcp(address) => (format!("nbd://{address}/"), String::new()),
                Address::Unix(path) => {
                    (String::from("nbd+unix:///"), format!("?socket={}", path.display()))
                }
            };
            for volume in &volumes {
                let uri = format!("{show}{}{stop}", volume.name());
                eprintln!(
                    "{}: {}\n  try: nbdinfo '{uri}'\n       qemu-io -f raw -c 'write -P 7 0 1M' -c \
                     flush -c 'read -P 7 0 1M' '{uri}'\n       fio --name=try --ioengine=nbd \
                     --uri='{uri}' --rw=randwrite --bs=4k --iodepth=32 --runtime=10 --time_based",
                    volume.name(),
                    format_size(volume.size_bytes(), BINARY)
                );
            }
        }
        if volumes.is_empty() {
            eprintln!(
                "no image is open; `lsvd-gw new POOL 1` or `lsvd-gw mount POOL IMAGE` serves one"
            );
        }
    }

    /// Closes every volume, then the cache.
    async fn close(&self) -> anyhow::Result<()> {
        let mut failed = None;
        for volume in self.registry.volumes() {
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

/// Opens a directory of disks, making it if needed.
fn file_dir(path: &Path) -> anyhow::Result<FileDir> {
    let context = || format!("open the directory {}", path.display());
    DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(context)?;
    FileDir::open_path(path, IoMode::Direct).with_context(context)
}

/// The read cache's file: kept unless another size is asked for. The default size follows the free
/// space, which is never the same twice.
async fn open_cache_file(settings: &Settings) -> anyhow::Result<Option<Arc<dyn Disk>>> {
    if settings.cache_nvm == 0 {
        return Ok(None);
    }
    let dir = file_dir(&settings.cache_dir)?;
    let size = || format_size(settings.cache_nvm, BINARY);
    let context =
        || format!("open the read cache of {} in {}", size(), settings.cache_dir.display());
    if let Some(disk) = dir.open(CACHE_FILE).await.with_context(context)? {
        if disk.len() == settings.cache_nvm || !settings.cache_nvm_given {
            return Ok(Some(disk));
        }
        drop(disk);
        tracing::info!("the read cache has another size now and starts empty");
        dir.remove(CACHE_FILE).await.with_context(context)?;
    }
    let context = || {
        format!(
            "make the read cache of {} in {}; --cache-nvm says how large it is",
            size(),
            settings.cache_dir.display()
        )
    };
    Ok(Some(dir.create(CACHE_FILE, settings.cache_nvm).await.with_context(context)?))
}

fn open_pool(text: &str, create: bool) -> anyhow::Result<Arc<dyn ObjectStore>> {
    let spec = PoolSpec::parse(text, &Environment::of_process())?;
    tracing::info!("{}", spec.explain());
    let store = Arc::new(MeteredStore::new(spec.open(create)?));
    let seed = SystemWorld.uuid().as_u64_pair().0;
    let policy = RetryPolicy { deadline: STORE_DEADLINE, seed, ..RetryPolicy::default() };
    Ok(Arc::new(RetryingStore::new(store, policy)))
}

fn image_name(text: &str) -> anyhow::Result<ImageName> {
    ImageName::parse(text).with_context(|| format!("image {text:?}"))
}

fn new_image(size: &str, sector_size: u32) -> anyhow::Result<NewImage> {
    let sector_size = SectorSize::from_bytes(sector_size)
        .with_context(|| format!("sector size {sector_size}: it is 512 or 4096"))?;
    Ok(NewImage { size_bytes: parse_size("--size", size)?, sector_size, region_shift: None })
}

/// The one line on standard output, and a word to systemd if it asked for one.
fn say_ready() -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout();
    writeln!(out, "ready").and_then(|()| out.flush()).context("write to standard output")?;
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "cannot notify systemd");
    }
    Ok(())
}
