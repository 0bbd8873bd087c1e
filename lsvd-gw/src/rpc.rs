//! What the control socket asks for, done on images and the NVMe target.
//!
//! Concurrency: calls that change the target or the images take turns, so that each sees what the
//! one before left.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use lsvd_control::{
    Controller, Failure, Gateway, IoCounters, LogLevel, Namespace, NewNamespace, NewSubsystem,
    NewVolume, NvmSubsystem, OperationCounters, PathState, PollGroup, QueuePair, Signal, Subsystem,
    SubsystemListener, Transport, TransportOptions, Volume,
};
use lsvd_nvmet::limits::{
    IN_CAPSULE_DEFAULT, IO_QUEUES_MAX, NAMESPACES_MAX, QUEUE_DEPTH_MAX, SUBSYSTEMS_MAX,
    TRANSFER_MAX,
};
use lsvd_nvmet::{ConfigError, NamespaceOptions, SubsystemConfig, SubsystemSnapshot};
use parking_lot::Mutex;
use rustix::process::{Pid, getpid, kill_process};
use tokio::sync::watch;

use crate::diagnostics::LogControl;
use crate::images::{AlreadyOpen, Images, Open, image_name};
use crate::nvme::Nvme;

/// Serial and model of a subsystem that is created without.
const SERIAL: &str = "00000000000000000000";
const MODEL: &str = "LSVD NVMe controller";

/// Controller IDs of a subsystem (NVMe base 2.0, 5.17.2.1: 0xfff0 and above are reserved).
const CNTLID_MIN: u16 = 1;
const CNTLID_MAX: u16 = 0xffef;

/// Commands of an admin queue that hosts have in flight at most.
const ADMIN_DEPTH: u32 = 32;

/// Granularity of keep-alive timeouts, in 100 ms, and the shortest one in milliseconds.
const KEEP_ALIVE_UNIT: u16 = 10;
const KEEP_ALIVE_MIN_MS: u32 = 1000;

/// See the module.
pub(crate) struct Rpc {
    images: Arc<Images>,
    nvme: Arc<Nvme>,
    log: LogControl,
    is_initialized: watch::Receiver<bool>,
    transport: Mutex<Option<Transport>>,
    /// What clients do not want to see of a volume's counters any more, by its name.
    forgotten: Mutex<BTreeMap<String, IoCounters>>,
    turn: tokio::sync::Mutex<()>,
    started: Instant,
}

impl Rpc {
    pub(crate) fn new(
        images: Arc<Images>,
        nvme: Arc<Nvme>,
        log: LogControl,
        is_initialized: watch::Receiver<bool>,
    ) -> Self {
        let (transport, forgotten) = (Mutex::default(), Mutex::default());
        let (turn, started) = (tokio::sync::Mutex::default(), Instant::now());
        Self { images, nvme, log, is_initialized, transport, forgotten, turn, started }
    }

    fn volume(&self, open: &Open) -> Volume {
        let (volume, stats) = (&open.volume, open.volume.stats());
        let counters = |operations: &std::sync::atomic::AtomicU64, bytes: u64| OperationCounters {
            operations: operations.load(Ordering::Relaxed),
            bytes,
            ..OperationCounters::default()
        };
        Volume {
            name: volume.name().to_owned(),
            pool: open.pool.clone(),
            settings: open.wishes.clone(),
            uuid: volume.image().0,
            sector_size: volume.sector_bytes(),
            sectors: volume.size_bytes() / u64::from(volume.sector_bytes()),
            claimed: self.nvme.shows(volume.name()),
            counters: IoCounters {
                read: counters(&stats.reads, stats.read_bytes.load(Ordering::Relaxed)),
                write: counters(&stats.writes, stats.write_bytes.load(Ordering::Relaxed)),
                unmap: counters(&stats.discards, 0),
            }
            .without(self.forgotten.lock().get(volume.name()).copied().unwrap_or_default()),
        }
    }

    fn describe(&self, found: SubsystemSnapshot) -> Subsystem {
        let namespaces = found.namespaces.iter().map(|namespace| Namespace {
            nsid: namespace.nsid,
            volume: self.nvme.image_of(&found.nqn, namespace.nsid).unwrap_or_default(),
            nguid: namespace.nguid,
            eui64: None,
            uuid: namespace.uuid,
        });
        let nvm = (!found.is_discovery).then(|| NvmSubsystem {
            serial_number: found.serial.clone(),
            model_number: found.model.clone(),
            max_namespaces: found.namespaces_max,
            min_cntlid: CNTLID_MIN,
            max_cntlid: CNTLID_MAX,
            ana_reporting: found.ana_reporting,
            dmrsl: 0,
            wzsl: 0,
            namespaces: namespaces.collect(),
        });
        let paths = found.listeners.iter().zip(&found.path_states);
        let listeners = paths.map(|(listener, state)| SubsystemListener {
            address: listener.address,
            state: state_of(*state),
        });
        Subsystem {
            listeners: listeners.collect(),
            allow_any_host: found.allow_any_host,
            hosts: found.hosts,
            nvm,
            nqn: found.nqn,
        }
    }
}

/// A state of the target's paths as the control socket has it.
fn state_of(state: lsvd_nvmet::PathState) -> PathState {
    match state {
        lsvd_nvmet::PathState::Optimized => PathState::Optimized,
        lsvd_nvmet::PathState::NonOptimized => PathState::NonOptimized,
        lsvd_nvmet::PathState::Inaccessible => PathState::Inaccessible,
    }
}

/// And back.
fn to_target(state: PathState) -> lsvd_nvmet::PathState {
    match state {
        PathState::Optimized => lsvd_nvmet::PathState::Optimized,
        PathState::NonOptimized => lsvd_nvmet::PathState::NonOptimized,
        PathState::Inaccessible => lsvd_nvmet::PathState::Inaccessible,
    }
}

/// What the client is told about a refusal of the target.
fn refused(error: ConfigError) -> Failure {
    match error {
        ConfigError::NoSuchSubsystem => Failure::NoSubsystem,
        ConfigError::SubsystemExists
        | ConfigError::ListenerExists
        | ConfigError::NamespaceIdInUse { .. }
        | ConfigError::UuidInUse { .. } => Failure::Exists,
        ConfigError::NoSuchListener | ConfigError::NoSuchNamespace { .. } => Failure::NotFound,
        ConfigError::Nqn
        | ConfigError::Serial
        | ConfigError::Model
        | ConfigError::Options
        | ConfigError::NamespacesMax { .. }
        | ConfigError::NamespaceId { .. }
        | ConfigError::AnaNotReported => Failure::Invalid,
        ConfigError::NamespacesFull | ConfigError::TooMany => Failure::Failed(Box::new(error)),
    }
}

/// An error with its causes, for the client's eyes.
fn failed(error: anyhow::Error) -> Failure {
    if error.is::<AlreadyOpen>() {
        return Failure::Exists;
    }
    match error.downcast::<ConfigError>() {
        Ok(error) => refused(error),
        Err(error) => Failure::Failed(<Box<dyn Error + Send + Sync>>::from(error)),
    }
}

#[async_trait]
impl Gateway for Rpc {
    async fn create_volume(&self, new: NewVolume) -> Result<(), Failure> {
        let _turn = self.turn.lock().await;
        let work = async {
            let name = image_name(&new.image)?;
            let store = self.images.open_pool(&new.pool, false).await?;
            self.images.open(&new.pool, &store, &name, new.settings, false).await
        };
        work.await.map_err(failed)
    }

    async fn delete_volume(&self, name: &str) -> Result<(), Failure> {
        let _turn = self.turn.lock().await;
        if self.images.get(name).is_none() {
            return Err(Failure::NotFound);
        }
        self.nvme.hide_image(name).map_err(refused)?;
        let closed = self.images.close(name).await;
        self.forgotten.lock().remove(name);
        closed.map_err(failed)
    }

    async fn resize_volume(&self, name: &str, size_bytes: u64) -> Result<(), Failure> {
        let _turn = self.turn.lock().await;
        let open = self.images.get(name).ok_or(Failure::NotFound)?;
        let before = open.volume.size_bytes();
        open.volume.resize(size_bytes).await.map_err(|error| failed(error.into()))?;
        tracing::info!(image = name, before, size_bytes, "image resized");
        // NBD has no word for it: clients that connect from now on see the new size.
        self.nvme.image_resized(name).map_err(refused)
    }

    async fn volumes(&self) -> Vec<Volume> {
        self.images.all().iter().map(|open| self.volume(open)).collect()
    }

    async fn forget_counters(&self, name: &str, counted: IoCounters) -> Result<(), Failure> {
        let _turn = self.turn.lock().await;
        if self.images.get(name).is_none() {
            return Err(Failure::NotFound);
        }
        let mut forgotten = self.forgotten.lock();
        let before = forgotten.entry(name.to_owned()).or_default();
        *before = before.with(counted);
        Ok(())
    }

    async fn create_transport(&self, wanted: TransportOptions) -> Result<(), Failure> {
        let mut transport = self.transport.lock();
        if transport.is_some() {
            return Err(Failure::Exists);
        }
        // The sizes of the target are fixed when the gateway starts. What is in force is reported,
        // and who asked for something else finds it in the log.
        if wanted != TransportOptions::default() {
            tracing::info!(?wanted, "the transport keeps the sizes that it has");
        }
        *transport = Some(Transport {
            max_queue_depth: QUEUE_DEPTH_MAX,
            max_io_qpairs_per_ctrlr: IO_QUEUES_MAX,
            in_capsule_data_size: IN_CAPSULE_DEFAULT,
            max_io_size: TRANSFER_MAX,
            max_aq_depth: ADMIN_DEPTH,
            c2h_success: true,
            kas: KEEP_ALIVE_UNIT,
            min_kato: KEEP_ALIVE_MIN_MS,
        });
        Ok(())
    }

    async fn transport(&self) -> Option<Transport> {
        *self.transport.lock()
    }

    async fn create_subsystem(&self, new: NewSubsystem) -> Result<(), Failure> {
        let _turn = self.turn.lock().await;
        let config = SubsystemConfig {
            nqn: new.nqn,
            serial: new.serial_number.unwrap_or_else(|| SERIAL.to_owned()),
            model: new.model_number.unwrap_or_else(|| MODEL.to_owned()),
            allow_any_host: new.allow_any_host,
            namespaces_max: match new.max_namespaces {
                None | Some(0) => NAMESPACES_MAX,
                Some(count) => count,
            },
            ana_reporting: new.ana_reporting,
        };
        self.nvme.target().add_subsystem(config).map_err(refused)
    }

    fn subsystems_max(&self) -> u32 {
        u32::try_from(SUBSYSTEMS_MAX).unwrap_or(u32::MAX)
    }

    async fn delete_subsystem(&self, nqn: &str) -> Result<(), Failure> {
        let _turn = self.turn.lock().await;
        self.nvme.target().remove_subsystem(nqn).map_err(refused)?;
        self.nvme.forget_subsystem(nqn);
        self.nvme.close_unused();
        Ok(())
    }

    async fn subsystems(&self) -> Vec<Subsystem> {
        let found = self.nvme.target().subsystems();
        found.into_iter().map(|subsystem| self.describe(subsystem)).collect()
    }

    async fn add_listener(&self, nqn: &str, new: SubsystemListener) -> Result<(), Failure> {
        let _turn = self.turn.lock().await;
        if self.transport.lock().is_none() {
            return Err(Failure::Invalid);
        }
        let SubsystemListener { address, state } = new;
        if state == PathState::default() {
            return self.nvme.listen(nqn, address).await.map_err(failed);
        }
        // Asked before the address is open: a listener that is not as it should be must not stay.
        let subsystems = self.nvme.target().subsystems();
        if subsystems.iter().any(|one| one.nqn == nqn && !one.ana_reporting) {
            return Err(Failure::Invalid);
        }
        self.nvme.listen(nqn, address).await.map_err(failed)?;
        // A host that was quicker is told like those of any other change.
        self.nvme.target().set_ana_state(nqn, address, to_target(state)).map_err(refused)
    }

    async fn set_path_state(
        &self,
        nqn: &str,
        address: SocketAddr,
        state: PathState,
    ) -> Result<(), Failure> {
        let _turn = self.turn.lock().await;
        // Nothing need be flushed. An image is open in one gateway only, so hosts that leave an
        // inaccessible path come to the same volume through another listener of this gateway, and
        // a Flush there covers every write that was acknowledged here.
        self.nvme.target().set_ana_state(nqn, address, to_target(state)).map_err(refused)?;
        tracing::info!(subsystem = nqn, listener = %address, ?state, "state of paths set");
        Ok(())
    }

    async fn remove_listener(&self, nqn: &str, address: SocketAddr) -> Result<(), Failure> {
        let _turn = self.turn.lock().await;
        self.nvme.unlisten(nqn, address).map_err(refused)
    }

    async fn add_namespace(&self, nqn: &str, new: NewNamespace) -> Result<u32, Failure> {
        let _turn = self.turn.lock().await;
        if self.images.get(&new.volume).is_none() {
            return Err(Failure::NotFound);
        }
        // SPDK's rule: a volume is the namespace of one subsystem only.
        if self.nvme.shows(&new.volume) {
            return Err(Failure::Exists);
        }
        let options = NamespaceOptions { nsid: new.nsid, uuid: new.uuid, nguid: new.nguid };
        self.nvme.show(nqn, &new.volume, options).map_err(failed)
    }

    async fn remove_namespace(&self, nqn: &str, nsid: u32) -> Result<(), Failure> {
        let _turn = self.turn.lock().await;
        self.nvme.hide(nqn, nsid).map_err(refused)
    }

    async fn add_host(&self, nqn: &str, host: &str) -> Result<(), Failure> {
        let is_new = self.nvme.target().add_host(nqn, host).map_err(refused)?;
        if is_new { Ok(()) } else { Err(Failure::Exists) }
    }

    async fn remove_host(&self, nqn: &str, host: &str) -> Result<(), Failure> {
        let was_there = self.nvme.target().remove_host(nqn, host).map_err(refused)?;
        if was_there { Ok(()) } else { Err(Failure::NotFound) }
    }

    async fn allow_any_host(&self, nqn: &str, allow: bool) -> Result<(), Failure> {
        self.nvme.target().set_allow_any_host(nqn, allow).map_err(refused)
    }

    async fn controllers(&self, nqn: &str) -> Result<Vec<Controller>, Failure> {
        let is_discovery = |nqn: &str| {
            let all = self.nvme.target().subsystems();
            all.iter().any(|one| one.is_discovery && one.nqn == nqn)
        };
        let found = self.nvme.target().controllers(nqn).map_err(refused)?;
        let discovery = is_discovery(nqn);
        Ok(found
            .into_iter()
            .map(|one| Controller {
                cntlid: one.cntlid,
                discovery,
                host_nqn: one.host_nqn,
                host_id: one.host_id,
                io_queue_pairs: one.io_queues.into(),
            })
            .collect())
    }

    async fn queue_pairs(&self, nqn: &str) -> Result<Vec<QueuePair>, Failure> {
        let found = self.nvme.target().queues(nqn).map_err(refused)?;
        Ok(found
            .into_iter()
            .map(|one| QueuePair {
                cntlid: one.cntlid,
                qid: one.qid,
                enabled: true,
                thread: String::from("lsvd"),
                host_nqn: one.host_nqn,
                listener: one.origin.listener,
                peer: one.origin.peer,
            })
            .collect())
    }

    async fn poll_groups(&self) -> Vec<PollGroup> {
        let target = self.nvme.target();
        let subsystems = target.subsystems();
        let queues: Vec<_> =
            subsystems.iter().flat_map(|one| target.queues(&one.nqn).unwrap_or_default()).collect();
        let (admin, io): (Vec<_>, Vec<_>) = queues.iter().partition(|queue| queue.qid == 0);
        let counters = subsystems.iter().flat_map(|one| &one.namespaces);
        let completed_io =
            counters.map(|one| one.counters.reads + one.counters.writes + one.counters.other).sum();
        vec![PollGroup {
            name: String::from("lsvd"),
            admin_queue_pairs: admin.len() as u64,
            io_queue_pairs: io.len() as u64,
            current_admin_queue_pairs: admin.len() as u64,
            current_io_queue_pairs: io.len() as u64,
            current_unassociated: 0,
            pending_io: 0,
            completed_io,
        }]
    }

    async fn wait_init(&self) {
        // A sender that is gone means that the gateway stops: nothing is left to wait for.
        drop(self.is_initialized.clone().wait_for(|is| *is).await);
    }

    fn kill(&self, signal: Signal) {
        use rustix::process::Signal as Native;
        let signal = match signal {
            Signal::Hangup => Native::HUP,
            Signal::Interrupt => Native::INT,
            Signal::Quit => Native::QUIT,
            Signal::Kill => Native::KILL,
            Signal::User1 => Native::USR1,
            Signal::Terminate => Native::TERM,
        };
        let ourselves: Pid = getpid();
        if let Err(error) = kill_process(ourselves, signal) {
            tracing::warn!(%error, "cannot send a signal to ourselves");
        }
    }

    fn log_level(&self) -> LogLevel {
        self.log.level()
    }

    fn set_log_level(&self, level: LogLevel) {
        self.log.set_level(level);
    }

    fn log_flags(&self) -> Vec<(String, bool)> {
        self.log.parts()
    }

    fn set_log_flag(&self, flag: &str, on: bool) -> Result<(), Failure> {
        if self.log.set_part(flag, on) { Ok(()) } else { Err(Failure::NotFound) }
    }

    fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}
