//! What the target offers, as the control socket edits it at run time: subsystems with their
//! namespaces, hosts and listeners, and the controllers that hosts have made.
//!
//! Does not: listen. A listener here says where a subsystem may be reached and what the discovery
//! log says about it; whoever owns the sockets passes the connections to [`accept`](crate::accept).
//! Invariants: 1. A change is announced to the hosts that it concerns, by asynchronous event.
//! 2. GENCTR of the discovery log grows with each change of what it shows.
//! Crash: nothing here survives; the gateway's configuration does.
//! Concurrency: all methods may be called from any thread; none waits.

mod config;
mod snapshot;
pub(crate) mod subsystem;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

pub use config::{
    ConfigError, Listener, NamespaceOptions, Origin, PathState, SubsystemConfig, TargetOptions,
    check_nqn,
};
pub use snapshot::{
    ControllerSnapshot, CounterValues, NamespaceSnapshot, QueueSnapshot, SubsystemSnapshot,
    TargetStats,
};
use subsystem::Subsystem;

use crate::limits::{
    NAMESPACES_MAX, PAYLOAD_IN_FLIGHT_MAX, PAYLOAD_SHARED_MAX, SUBSYSTEMS_MAX, TRANSFER_MAX,
};
use crate::namespace::Namespace;

/// The NQN under which every discovery controller answers (base 2.0, 4.5).
pub const DISCOVERY_NQN: &str = "nqn.2014-08.org.nvmexpress.discovery";

/// What the target offers; shared by all connections and the control socket.
#[derive(Debug)]
pub struct Target {
    pub(crate) options: TargetOptions,
    discovery: Arc<Subsystem>,
    model: Mutex<Model>,
    pub(crate) stats: Stats,
    /// Queues that are connected.
    queues: Arc<AtomicUsize>,
}

/// Counts a connected queue for as long as it is there.
#[derive(Debug)]
pub(crate) struct QueueCount(Arc<AtomicUsize>);

impl Drop for QueueCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Model {
    is_accepting: bool,
    /// GENCTR of the discovery log.
    generation: u64,
    subsystems: BTreeMap<String, Arc<Subsystem>>,
}

/// Counters of the whole target, since it was made.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) connections: AtomicU64,
    pub(crate) violations: AtomicU64,
    pub(crate) keep_alive_timeouts: AtomicU64,
}

/// Commands that one namespace has completed with success, and their bytes.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) reads: AtomicU64,
    pub(crate) read_bytes: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
    pub(crate) other: AtomicU64,
}

impl Counters {
    pub(crate) fn count_read(&self, bytes: u64) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn count_write(&self, bytes: u64) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn count_other(&self) {
        self.other.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a Connect command may ask for.
pub(crate) enum Lookup {
    Found(Arc<Subsystem>),
    Unknown,
    /// Not accepting yet.
    Busy,
}

impl Target {
    /// A target without subsystems that accepts hosts.
    pub fn new(options: TargetOptions) -> Result<Self, ConfigError> {
        options.check()?;
        let discovery = SubsystemConfig {
            nqn: options.discovery_nqn.clone(),
            serial: options.discovery_serial.clone(),
            model: options.discovery_model.clone(),
            allow_any_host: true,
            namespaces_max: NAMESPACES_MAX,
            ana_reporting: false,
        };
        let discovery = Subsystem::new(discovery, true);
        let model = Model { is_accepting: true, generation: 0, subsystems: BTreeMap::new() };
        Ok(Self {
            options,
            discovery: Arc::new(discovery),
            model: Mutex::new(model),
            stats: Stats::default(),
            queues: Arc::default(),
        })
    }

    /// Whether hosts may connect. While not, their Connect commands are answered with "controller
    /// busy", which makes them try again: for the time until recovery has brought the namespaces
    /// back.
    pub fn set_accepting(&self, is_accepting: bool) {
        self.model.lock().is_accepting = is_accepting;
    }

    /// Counts one more queue.
    pub(crate) fn count_queue(&self) -> QueueCount {
        self.queues.fetch_add(1, Ordering::Relaxed);
        QueueCount(Arc::clone(&self.queues))
    }

    /// Payload bytes that one queue may have in flight now: its share of what there is for all.
    pub(crate) fn payload_share(&self) -> usize {
        let queues = self.queues.load(Ordering::Relaxed).max(1);
        (PAYLOAD_SHARED_MAX / queues).clamp(TRANSFER_MAX as usize, PAYLOAD_IN_FLIGHT_MAX)
    }

    /// Adds a subsystem without namespaces and listeners.
    pub fn add_subsystem(&self, config: SubsystemConfig) -> Result<(), ConfigError> {
        config.check()?;
        let mut model = self.model.lock();
        let nqn = config.nqn.clone();
        if model.subsystems.contains_key(&nqn)
            || nqn == DISCOVERY_NQN
            || nqn == self.options.discovery_nqn
        {
            return Err(ConfigError::SubsystemExists);
        }
        if model.subsystems.len() >= SUBSYSTEMS_MAX {
            return Err(ConfigError::TooMany);
        }
        model.subsystems.insert(nqn, Arc::new(Subsystem::new(config, false)));
        Ok(())
    }

    /// Removes a subsystem; its hosts are disconnected.
    pub fn remove_subsystem(&self, nqn: &str) -> Result<(), ConfigError> {
        let removed = self.model.lock().subsystems.remove(nqn);
        let removed = removed.ok_or(ConfigError::NoSuchSubsystem)?;
        removed.terminate_all();
        self.discovery_changed();
        Ok(())
    }

    /// Offers `namespace` in a subsystem and returns its NSID: that of the options, or the first
    /// free one.
    pub fn add_namespace(
        &self,
        nqn: &str,
        namespace: Arc<dyn Namespace>,
        options: NamespaceOptions,
    ) -> Result<u32, ConfigError> {
        self.subsystem(nqn)?.add_namespace(namespace, options)
    }

    /// Withdraws a namespace. Commands in flight are completed; once they are, nothing here holds
    /// the namespace any more.
    pub fn remove_namespace(
        &self,
        nqn: &str,
        nsid: u32,
    ) -> Result<Arc<dyn Namespace>, ConfigError> {
        self.subsystem(nqn)?.remove_namespace(nsid)
    }

    /// Tells hosts that the facts of a namespace have changed: its size, or whether it takes
    /// writes.
    pub fn namespace_resized(&self, nqn: &str, nsid: u32) -> Result<(), ConfigError> {
        self.subsystem(nqn)?.namespace_changed(nsid);
        Ok(())
    }

    /// Lets hosts reach a subsystem at an address.
    pub fn add_listener(&self, nqn: &str, listener: Listener) -> Result<(), ConfigError> {
        self.subsystem(nqn)?.add_listener(listener)?;
        self.discovery_changed();
        Ok(())
    }

    /// Closes an address for a subsystem; hosts that came in there are disconnected.
    pub fn remove_listener(&self, nqn: &str, address: SocketAddr) -> Result<(), ConfigError> {
        self.subsystem(nqn)?.remove_listener(address)?;
        self.discovery_changed();
        Ok(())
    }

    /// Says how good the paths through a listener are, from now on: to the hosts that came in there,
    /// by asynchronous event, and to those that will. I/O commands that were begun before are
    /// completed. A listener starts as [`PathState::Optimized`].
    ///
    /// A Flush that follows [`PathState::Inaccessible`] goes to another path. If that does not lead
    /// to the same volumes, flush them once this has returned: what hosts wrote here and have not
    /// flushed would otherwise not be covered by it.
    ///
    /// # Errors
    /// The subsystem does not exist, does not report ANA states, or has no such listener.
    pub fn set_ana_state(
        &self,
        nqn: &str,
        listener: SocketAddr,
        state: PathState,
    ) -> Result<(), ConfigError> {
        self.subsystem(nqn)?.set_path(listener, state)
    }

    /// Adds a host to a subsystem's list. False if it was there already.
    pub fn add_host(&self, nqn: &str, host_nqn: &str) -> Result<bool, ConfigError> {
        check_nqn(host_nqn)?;
        let is_new = self.subsystem(nqn)?.add_host(host_nqn)?;
        self.discovery_changed();
        Ok(is_new)
    }

    /// Takes a host off a subsystem's list and disconnects it. False if it was not there.
    pub fn remove_host(&self, nqn: &str, host_nqn: &str) -> Result<bool, ConfigError> {
        let was_there = self.subsystem(nqn)?.remove_host(host_nqn);
        self.discovery_changed();
        Ok(was_there)
    }

    /// Whether hosts that are not on the list may connect. Connected ones stay.
    pub fn set_allow_any_host(&self, nqn: &str, allow: bool) -> Result<(), ConfigError> {
        self.subsystem(nqn)?.set_allow_any_host(allow);
        self.discovery_changed();
        Ok(())
    }

    fn subsystem(&self, nqn: &str) -> Result<Arc<Subsystem>, ConfigError> {
        self.model.lock().subsystems.get(nqn).cloned().ok_or(ConfigError::NoSuchSubsystem)
    }

    fn discovery_changed(&self) {
        self.model.lock().generation += 1;
        self.discovery.discovery_changed();
    }

    pub(crate) fn look_up(&self, nqn: &str) -> Lookup {
        if nqn == DISCOVERY_NQN || nqn == self.options.discovery_nqn {
            return Lookup::Found(Arc::clone(&self.discovery));
        }
        let model = self.model.lock();
        match model.subsystems.get(nqn) {
            // Whether an unknown one exists is not known either, as long as recovery goes on.
            _ if !model.is_accepting => Lookup::Busy,
            Some(subsystem) => Lookup::Found(Arc::clone(subsystem)),
            None => Lookup::Unknown,
        }
    }

    /// GENCTR, and what `host_nqn` may connect to.
    pub(crate) fn discover(&self, host_nqn: &str) -> (u64, Vec<(Arc<Subsystem>, Listener)>) {
        let model = self.model.lock();
        let admitted = model.subsystems.values().filter(|known| known.admits_host(host_nqn));
        let entries = admitted.flat_map(|subsystem| {
            let listeners = subsystem.with_state(|state| state.listeners.clone());
            listeners.into_iter().map(|listener| (Arc::clone(subsystem), listener))
        });
        (model.generation, entries.collect())
    }
}
