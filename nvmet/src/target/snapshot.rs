//! What the control socket asks about the model: facts, copied at one time per subsystem.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use uuid::Uuid;

use super::subsystem::Subsystem;
use super::{ConfigError, Counters, Listener, Origin, PathState, Target};
use crate::controller::Controller;
use crate::namespace::NamespaceInfo;

/// A subsystem, without its controllers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubsystemSnapshot {
    /// Its NVMe qualified name.
    pub nqn: String,
    /// Serial number.
    pub serial: String,
    /// Model.
    pub model: String,
    /// It is the discovery subsystem.
    pub is_discovery: bool,
    /// Highest NSID.
    pub namespaces_max: u32,
    /// Hosts that are not on the list may connect.
    pub allow_any_host: bool,
    /// NQNs of the allowed hosts, in order.
    pub hosts: Vec<String>,
    /// Where it may be reached, oldest first.
    pub listeners: Vec<Listener>,
    /// Hosts are told how good each path is.
    pub ana_reporting: bool,
    /// How good the paths through each of `listeners` are, in their order.
    pub path_states: Vec<PathState>,
    /// By NSID.
    pub namespaces: Vec<NamespaceSnapshot>,
}

/// A namespace of a subsystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceSnapshot {
    /// Its NSID.
    pub nsid: u32,
    /// What the namespace says about itself.
    pub info: NamespaceInfo,
    /// The UUID that hosts see.
    pub uuid: Uuid,
    /// The NGUID that hosts see.
    pub nguid: [u8; 16],
    /// What hosts did with it since it was added.
    pub counters: CounterValues,
}

/// Commands that were completed with success.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CounterValues {
    /// Reads and compares.
    pub reads: u64,
    /// Bytes that they read.
    pub read_bytes: u64,
    /// Writes.
    pub writes: u64,
    /// Bytes that they wrote.
    pub written_bytes: u64,
    /// Everything else: flushes, deallocations and the like.
    pub other: u64,
}

/// An association of a host with a subsystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerSnapshot {
    /// Controller ID, unique in the subsystem.
    pub cntlid: u16,
    /// The host's NQN.
    pub host_nqn: String,
    /// The host's ID.
    pub host_id: Uuid,
    /// Where its admin connection came from.
    pub origin: Origin,
    /// I/O queues that are connected.
    pub io_queues: u16,
    /// Keep alive timeout in milliseconds; 0 for none.
    pub keep_alive_ms: u32,
}

/// A connected queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSnapshot {
    /// Controller ID.
    pub cntlid: u16,
    /// Queue ID; 0 is the admin queue.
    pub qid: u16,
    /// Entries.
    pub depth: u16,
    /// The host's NQN.
    pub host_nqn: String,
    /// Where its connection came from.
    pub origin: Origin,
}

/// Counters of the whole target, since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TargetStats {
    /// Connections that were accepted.
    pub connections: u64,
    /// Connections that ended because the peer broke the protocol.
    pub violations: u64,
    /// Associations that ended because the host was silent for too long.
    pub keep_alive_timeouts: u64,
}

impl Target {
    /// All subsystems by name, the discovery subsystem first.
    #[must_use]
    pub fn subsystems(&self) -> Vec<SubsystemSnapshot> {
        let mut all = vec![Arc::clone(&self.discovery)];
        all.extend(self.model.lock().subsystems.values().cloned());
        all.iter().map(|subsystem| describe(subsystem)).collect()
    }

    /// Associations of a subsystem, by controller ID.
    pub fn controllers(&self, nqn: &str) -> Result<Vec<ControllerSnapshot>, ConfigError> {
        self.controllers_of(nqn, |controller| Some(controller.snapshot()))
    }

    /// Connected queues of a subsystem, by controller ID and queue ID.
    pub fn queues(&self, nqn: &str) -> Result<Vec<QueueSnapshot>, ConfigError> {
        self.controllers_of(nqn, |controller| controller.queue_snapshots())
    }

    fn controllers_of<T, I: IntoIterator<Item = T>>(
        &self,
        nqn: &str,
        describe: impl Fn(&Controller) -> I,
    ) -> Result<Vec<T>, ConfigError> {
        let subsystem = if nqn == self.discovery.nqn || nqn == super::DISCOVERY_NQN {
            Arc::clone(&self.discovery)
        } else {
            self.subsystem(nqn)?
        };
        Ok(subsystem.with_state(|state| {
            state.controllers.values().flat_map(|controller| describe(controller)).collect()
        }))
    }

    #[cfg(test)]
    pub(crate) fn attached(&self, nqn: &str, nsid: u32) -> Arc<super::subsystem::Attached> {
        Arc::clone(&self.subsystem(nqn).expect("subsystem").table().entries[&nsid])
    }

    /// Counters of the whole target.
    #[must_use]
    pub fn stats(&self) -> TargetStats {
        TargetStats {
            connections: self.stats.connections.load(Ordering::Relaxed),
            violations: self.stats.violations.load(Ordering::Relaxed),
            keep_alive_timeouts: self.stats.keep_alive_timeouts.load(Ordering::Relaxed),
        }
    }
}

impl Counters {
    pub(crate) fn values(&self) -> CounterValues {
        CounterValues {
            reads: self.reads.load(Ordering::Relaxed),
            read_bytes: self.read_bytes.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            written_bytes: self.written_bytes.load(Ordering::Relaxed),
            other: self.other.load(Ordering::Relaxed),
        }
    }
}

fn describe(subsystem: &Subsystem) -> SubsystemSnapshot {
    let table = subsystem.table();
    let namespaces = table.entries.values().map(|attached| NamespaceSnapshot {
        nsid: attached.nsid,
        info: attached.namespace.info(),
        uuid: attached.uuid(),
        nguid: attached.nguid(),
        counters: attached.counters.values(),
    });
    let namespaces = namespaces.collect();
    subsystem.with_state(|state| SubsystemSnapshot {
        nqn: subsystem.nqn.clone(),
        serial: subsystem.serial.clone(),
        model: subsystem.model.clone(),
        is_discovery: subsystem.is_discovery,
        namespaces_max: subsystem.namespaces_max,
        allow_any_host: state.allow_any_host,
        hosts: state.hosts.iter().cloned().collect(),
        listeners: state.listeners.clone(),
        ana_reporting: subsystem.ana_reporting,
        path_states: state.listeners.iter().map(|known| state.path(known.address)).collect(),
        namespaces,
    })
}
