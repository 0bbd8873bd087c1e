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
use lsvd_common::object::superblock::SectorSize;
use lsvd_engine::cache::{CacheConfig, ReadCache};
use lsvd_engine::disk::{BufPool, Disk, DiskDir as _, FileDir, IoMode};
use lsvd_engine::image::NewImage;
use lsvd_engine::{SystemWorld, World as _};
use lsvd_nbd::Address;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, watch};

use crate::args::Command;
use crate::config::{Settings, parse_size};
use crate::diagnostics::LogControl;
use crate::images::{Images, image_name};
use crate::nbd;
use crate::nvme::Nvme;
use crate::rpc::Rpc;
use crate::shutdown::Signals;
use crate::workers::{Running, Workers};

/// Threads for the store, recovery, destage and listeners.
const BACKEND_THREADS: usize = 2;

/// Connections get this long to finish what is in flight when the gateway stops.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// The read cache's file in its directory.
const CACHE_FILE: &str = "read-cache";

/// Memory that lies ready for data on its way while there is some: what four batches take.
const BUFFERS_IDLE_MAX: usize = 32 << 20;

/// The share of `cache_ram` that is for recent writes on their way to the store; reads find them
/// there. Each image may hold so much, and more is read back from its log: 64 MiB are the uploads
/// of a store that keeps up and as much again.
pub(crate) fn recent_writes(settings: &Settings) -> u64 {
    (settings.cache_ram / 4).min(64 << 20)
}

/// Runs a gateway until a signal stops it.
pub(crate) fn run(
    settings: &Settings,
    command: Option<&Command>,
    log: LogControl,
) -> anyhow::Result<()> {
    let backend = Builder::new_multi_thread()
        .worker_threads(BACKEND_THREADS)
        .thread_name("lsvd-backend")
        .enable_all()
        .build()
        .context("start the backend's runtime")?;
    let _lock = lock_state_dir(&settings.state_dir)?;
    let workers = Workers::start(settings.threads, settings.poll)?;
    let result = backend.block_on(live(settings, command, log, workers.homes()));
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
    log: LogControl,
    homes: Vec<Handle>,
) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    tracing::info!("{settings}");
    let images = Arc::new(open_images_table(settings, homes).await?);
    let gateway = Gateway { settings, images };
    let served = gateway.serve(command, log, &mut signals).await;
    let second = async {
        signals.next().await;
        tracing::warn!("second signal: out at once; the next start recovers");
        // Nothing that was acknowledged after a flush depends on what is skipped here.
        std::process::exit(2);
    };
    tokio::select! {
        closed = gateway.images.close_all() => served.and(closed),
        () = second => Ok(()),
    }
}

async fn open_images_table(settings: &Settings, homes: Vec<Handle>) -> anyhow::Result<Images> {
    let buffers = BufPool::new(BUFFERS_IDLE_MAX);
    let logs = file_dir(&settings.state_dir.join("logs"))?.with_pool(buffers.clone());
    let ssd = open_cache_file(settings).await?;
    let config = CacheConfig {
        ram_bytes: settings.cache_ram - recent_writes(settings),
        new_cache: SystemWorld.uuid(),
        runtime: Handle::current(),
    };
    let cache = ReadCache::open(config, ssd).await;
    Ok(Images::new(settings.clone(), homes, Arc::new(logs), cache, buffers))
}

struct Gateway<'a> {
    settings: &'a Settings,
    images: Arc<Images>,
}

impl Gateway<'_> {
    /// Opens what the command names, serves it, and returns when a signal came and clients are
    /// done.
    async fn serve(
        &self,
        command: Option<&Command>,
        log: LogControl,
        signals: &mut Signals,
    ) -> anyhow::Result<()> {
        let (stop, stopped) = watch::channel(false);
        let (running, mut all_gone) = mpsc::channel::<()>(1);
        let (initialized, is_initialized) = watch::channel(false);
        let nvme = Nvme::new(self.settings, Arc::clone(&self.images), &stopped, &running)?;
        let rpc =
            Arc::new(Rpc::new(Arc::clone(&self.images), Arc::clone(&nvme), log, is_initialized));
        let mut front_ends = Vec::new();
        if let Some(path) = &self.settings.rpc_socket {
            let listener = lsvd_control::Listener::bind(path).await.with_context(|| {
                format!("control socket {}; --rpc-socket says another, or none", path.display())
            })?;
            let gateway = Arc::clone(&rpc) as Arc<dyn lsvd_control::Gateway>;
            front_ends.push(tokio::spawn(lsvd_control::serve(listener, gateway, stopped.clone())));
        }
        tokio::select! {
            biased;
            () = signals.next() => {
                tracing::info!("stopped before everything was open");
                return Ok(());
            }
            opened = self.open_all(command, &nvme, &rpc) => opened?,
        }
        front_ends.extend(self.listen_for_nbd(&stopped, &running).await?);
        drop(running);
        nvme.set_accepting();
        initialized.send_replace(true);
        self.say_what_next();
        nvme.say_what_next();
        say_ready()?;
        signals.next().await;
        tracing::info!("stopping: finishing what is in flight");
        stop.send_replace(true);
        for front_end in front_ends {
            drop(front_end.await);
        }
        nvme.stop_listening();
        drop(nvme);
        drop(rpc);
        if tokio::time::timeout(DRAIN_MAX, all_gone.recv()).await.is_err() {
            tracing::warn!("clients did not take their answers; their connections are cut");
        }
        Ok(())
    }

    async fn listen_for_nbd(
        &self,
        stopped: &watch::Receiver<bool>,
        running: &Running,
    ) -> anyhow::Result<Vec<tokio::task::JoinHandle<()>>> {
        let mut listeners = Vec::new();
        for address in &self.settings.nbd {
            listeners.push(nbd::listen(address, &self.images, stopped, running).await?);
        }
        Ok(listeners)
    }

    /// Opens what the command names and exports it over NVMe/TCP, then calls what a saved
    /// configuration has.
    async fn open_all(
        &self,
        command: Option<&Command>,
        nvme: &Arc<Nvme>,
        rpc: &Rpc,
    ) -> anyhow::Result<()> {
        let wishes = lsvd_control::Settings::default;
        if command.is_some() {
            nvme.export_default(self.settings).await?;
        }
        match command {
            None => {}
            Some(Command::New { pool, num, size, sector_size, takeover }) => {
                let store = self.images.open_pool(pool, true).await?;
                let new = new_image(size, *sector_size)?;
                for index in 0..*num {
                    let name = image_name(&format!("auto_lsvddev_{index}"))?;
                    self.images.recreate(&store, &name, new, *takeover).await?;
                    self.images.open(pool, &store, &name, wishes(), false).await?;
                    nvme.export_image(self.settings, name.as_str())?;
                }
            }
            Some(Command::Mount { pool, images, takeover }) => {
                let store = self.images.open_pool(pool, false).await?;
                for name in images {
                    let name = image_name(name)?;
                    self.images.open(pool, &store, &name, wishes(), *takeover).await?;
                    nvme.export_image(self.settings, name.as_str())?;
                }
            }
        }
        for call in &self.settings.saved_calls {
            call.run(rpc).await.with_context(|| format!("saved configuration: {}", call.method))?;
        }
        Ok(())
    }

    /// Tells a person what to type; programs wait for `ready`.
    fn say_what_next(&self) {
        let volumes: Vec<_> = self.images.all().into_iter().map(|open| open.volume).collect();
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
                "no image is open; `lsvd-gw new POOL 1` or `lsvd-gw mount POOL IMAGE` serves one, \
                 and the control socket opens others"
            );
        }
    }
}

/// Opens a directory of disks, making it if needed.
pub(crate) fn file_dir(path: &Path) -> anyhow::Result<FileDir> {
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
