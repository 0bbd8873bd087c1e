//! One subsystem: its namespaces, its hosts, its listeners and the controllers that hosts have made.
//!
//! Invariants: 1. A controller ID belongs to one live controller. 2. After a change of the
//! namespaces every connection is rung, so that none keeps a removed namespace alive for longer
//! than its commands in flight. 3. A UUID names one namespace of the subsystem.
//! Concurrency: locks are taken in the order target, subsystem, controller, and held for no I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use uuid::Uuid;

use crate::controller::Controller;
use crate::limits::{CONTROLLERS_MAX, HOSTS_MAX, LISTENERS_MAX};
use crate::namespace::Namespace;
use crate::target::{
    ConfigError, Counters, Listener, NamespaceOptions, Origin, PathState, SubsystemConfig,
};
use crate::wire::AsyncEvent;

#[derive(Debug)]
pub(crate) struct Subsystem {
    pub(crate) nqn: String,
    pub(crate) serial: String,
    pub(crate) model: String,
    pub(crate) is_discovery: bool,
    pub(crate) namespaces_max: u32,
    pub(crate) ana_reporting: bool,
    state: Mutex<State>,
    table: Mutex<Arc<NamespaceTable>>,
    /// Of the table, to be looked at without a lock.
    generation: AtomicU64,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) allow_any_host: bool,
    pub(crate) hosts: BTreeSet<String>,
    pub(crate) listeners: Vec<Listener>,
    /// By listener, where it was set.
    paths: BTreeMap<SocketAddr, PathState>,
    pub(crate) controllers: BTreeMap<u16, Arc<Controller>>,
    /// The last ID given out: a host that comes back gets a new one.
    last_cntlid: u16,
}

impl State {
    pub(crate) fn path(&self, listener: SocketAddr) -> PathState {
        self.paths.get(&listener).copied().unwrap_or_default()
    }
}

/// The namespaces of a subsystem at one time, shared with connections.
#[derive(Debug, Default)]
pub(crate) struct NamespaceTable {
    pub(crate) generation: u64,
    pub(crate) entries: BTreeMap<u32, Arc<Attached>>,
}

/// A namespace under its NSID.
pub(crate) struct Attached {
    pub(crate) nsid: u32,
    pub(crate) namespace: Arc<dyn Namespace>,
    uuid: Option<Uuid>,
    nguid: Option<[u8; 16]>,
    pub(crate) counters: Counters,
}

impl std::fmt::Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attached").field("nsid", &self.nsid).finish_non_exhaustive()
    }
}

impl Attached {
    pub(crate) fn uuid(&self) -> Uuid {
        self.uuid.unwrap_or_else(|| self.namespace.info().uuid)
    }

    pub(crate) fn nguid(&self) -> [u8; 16] {
        self.nguid.or(self.namespace.info().nguid).unwrap_or_else(|| *self.uuid().as_bytes())
    }
}

/// Why a host is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is not on the list.
    Host,
    /// The subsystem does not listen where the host came in.
    Listener,
    /// No controller ID is free.
    Full,
}

impl Subsystem {
    pub(crate) fn new(config: SubsystemConfig, is_discovery: bool) -> Self {
        let SubsystemConfig { nqn, serial, model, allow_any_host, namespaces_max, ana_reporting } =
            config;
        Self {
            nqn,
            serial,
            model,
            is_discovery,
            namespaces_max,
            ana_reporting,
            state: Mutex::new(State { allow_any_host, ..State::default() }),
            table: Mutex::default(),
            generation: AtomicU64::new(0),
        }
    }

    pub(crate) fn table(&self) -> Arc<NamespaceTable> {
        Arc::clone(&self.table.lock())
    }

    /// Replaces `known` if it is out of date.
    pub(crate) fn refresh(&self, known: &mut Arc<NamespaceTable>) {
        if self.generation.load(Ordering::Acquire) != known.generation {
            *known = self.table();
        }
    }

    pub(crate) fn with_state<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock())
    }

    pub(crate) fn admits_host(&self, host_nqn: &str) -> bool {
        let state = self.state.lock();
        state.allow_any_host || state.hosts.contains(host_nqn)
    }

    /// Makes a controller for a host that may have one. `make` gets its ID and the state of its path.
    pub(crate) fn admit(
        &self,
        host_nqn: &str,
        origin: &Origin,
        make: impl FnOnce(u16, PathState) -> Controller,
    ) -> Result<Arc<Controller>, Refusal> {
        let mut state = self.state.lock();
        if !(state.allow_any_host || state.hosts.contains(host_nqn)) {
            return Err(Refusal::Host);
        }
        let is_heard = |listener: &Listener| listener.address == origin.listener;
        if !self.is_discovery && !state.listeners.iter().any(is_heard) {
            return Err(Refusal::Listener);
        }
        if state.controllers.len() >= CONTROLLERS_MAX {
            return Err(Refusal::Full);
        }
        let mut cntlid = state.last_cntlid;
        loop {
            // IDs from FFF0h on are reserved; Linux's target stops at FFEFh too.
            cntlid = if cntlid >= 0xffef { 1 } else { cntlid + 1 };
            if !state.controllers.contains_key(&cntlid) {
                break;
            }
        }
        state.last_cntlid = cntlid;
        let controller = Arc::new(make(cntlid, state.path(origin.listener)));
        state.controllers.insert(cntlid, Arc::clone(&controller));
        Ok(controller)
    }

    pub(crate) fn controller(&self, cntlid: u16) -> Option<Arc<Controller>> {
        self.state.lock().controllers.get(&cntlid).cloned()
    }

    /// Ends an association with all its connections.
    pub(crate) fn forget(&self, controller: &Controller) {
        self.state.lock().controllers.remove(&controller.cntlid);
        controller.terminate();
    }

    /// Ends all associations that `which` names.
    fn terminate_where(&self, which: impl Fn(&Controller) -> bool) {
        let chosen: Vec<_> = {
            let state = self.state.lock();
            state.controllers.values().filter(|controller| which(controller)).cloned().collect()
        };
        chosen.iter().for_each(|controller| self.forget(controller));
    }

    pub(crate) fn terminate_all(&self) {
        self.terminate_where(|_| true);
    }

    pub(crate) fn add_namespace(
        &self,
        namespace: Arc<dyn Namespace>,
        options: NamespaceOptions,
    ) -> Result<u32, ConfigError> {
        let mut table = self.table.lock();
        let nsid = match options.nsid {
            Some(nsid) if nsid == 0 || nsid > self.namespaces_max => {
                return Err(ConfigError::NamespaceId { nsid, max: self.namespaces_max });
            }
            Some(nsid) if table.entries.contains_key(&nsid) => {
                return Err(ConfigError::NamespaceIdInUse { nsid });
            }
            Some(nsid) => nsid,
            None => (1..=self.namespaces_max)
                .find(|nsid| !table.entries.contains_key(nsid))
                .ok_or(ConfigError::NamespacesFull)?,
        };
        let NamespaceOptions { uuid, nguid, .. } = options;
        let counters = Counters::default();
        let attached = Arc::new(Attached { nsid, namespace, uuid, nguid, counters });
        // Linux ignores a namespace whose identity it has seen elsewhere (invariant 3).
        let uuid = attached.uuid();
        if table.entries.values().any(|other| other.uuid() == uuid) {
            return Err(ConfigError::UuidInUse { uuid });
        }
        let mut entries = table.entries.clone();
        entries.insert(nsid, attached);
        self.replace_table(&mut table, entries);
        drop(table);
        self.namespace_changed(nsid);
        Ok(nsid)
    }

    pub(crate) fn remove_namespace(&self, nsid: u32) -> Result<Arc<dyn Namespace>, ConfigError> {
        let mut table = self.table.lock();
        let mut entries = table.entries.clone();
        let removed = entries.remove(&nsid).ok_or(ConfigError::NoSuchNamespace { nsid })?;
        self.replace_table(&mut table, entries);
        drop(table);
        self.namespace_changed(nsid);
        Ok(Arc::clone(&removed.namespace))
    }

    fn replace_table(
        &self,
        table: &mut Arc<NamespaceTable>,
        entries: BTreeMap<u32, Arc<Attached>>,
    ) {
        let generation = table.generation + 1;
        *table = Arc::new(NamespaceTable { generation, entries });
        self.generation.store(generation, Ordering::Release);
    }

    /// Tells every controller (invariant 2).
    pub(crate) fn namespace_changed(&self, nsid: u32) {
        for controller in self.state.lock().controllers.values() {
            controller.namespace_changed(nsid);
        }
    }

    /// Tells every discovery controller.
    pub(crate) fn discovery_changed(&self) {
        for controller in self.state.lock().controllers.values() {
            controller.raise(AsyncEvent::DiscoveryChanged);
        }
    }

    pub(crate) fn set_allow_any_host(&self, allow: bool) {
        self.state.lock().allow_any_host = allow;
    }

    /// True if it was not there.
    pub(crate) fn add_host(&self, host_nqn: &str) -> Result<bool, ConfigError> {
        let mut state = self.state.lock();
        if state.hosts.len() >= HOSTS_MAX {
            return Err(ConfigError::TooMany);
        }
        Ok(state.hosts.insert(host_nqn.to_owned()))
    }

    /// True if it was there. Its associations end, unless any host is allowed.
    pub(crate) fn remove_host(&self, host_nqn: &str) -> bool {
        let was_there = {
            let mut state = self.state.lock();
            let was_there = state.hosts.remove(host_nqn);
            if state.allow_any_host {
                return was_there;
            }
            was_there
        };
        self.terminate_where(|controller| controller.host_nqn == host_nqn);
        was_there
    }

    pub(crate) fn add_listener(&self, listener: Listener) -> Result<(), ConfigError> {
        let mut state = self.state.lock();
        if state.listeners.iter().any(|known| known.address == listener.address) {
            return Err(ConfigError::ListenerExists);
        }
        if state.listeners.len() >= LISTENERS_MAX {
            return Err(ConfigError::TooMany);
        }
        state.listeners.push(listener);
        Ok(())
    }

    /// Tells all controllers that came in at a listener, and those to come.
    pub(crate) fn set_path(
        &self,
        listener: SocketAddr,
        path: PathState,
    ) -> Result<(), ConfigError> {
        if !self.ana_reporting {
            return Err(ConfigError::AnaNotReported);
        }
        let mut state = self.state.lock();
        if !state.listeners.iter().any(|known| known.address == listener) {
            return Err(ConfigError::NoSuchListener);
        }
        state.paths.insert(listener, path);
        // Under the lock: the last call counts for every controller.
        for controller in state.controllers.values() {
            if controller.origin.listener == listener {
                controller.set_path(path);
            }
        }
        Ok(())
    }

    /// Ends the associations that came in there.
    pub(crate) fn remove_listener(&self, address: SocketAddr) -> Result<(), ConfigError> {
        {
            let mut state = self.state.lock();
            let before = state.listeners.len();
            state.listeners.retain(|listener| listener.address != address);
            if state.listeners.len() == before {
                return Err(ConfigError::NoSuchListener);
            }
            state.paths.remove(&address);
        }
        self.terminate_where(|controller| controller.origin.listener == address);
        Ok(())
    }
}
