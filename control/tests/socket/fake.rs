//! A gateway in memory that behaves as the measured one, down to when it refuses.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use lsvd_control::{
    Controller, Failure, Gateway, IoCounters, LogLevel, Namespace, NewNamespace, NewSubsystem,
    NewVolume, NvmSubsystem, OperationCounters, PathState, PollGroup, QueuePair, Signal, Subsystem,
    SubsystemListener, Transport, TransportOptions, Volume,
};
use parking_lot::Mutex;
use uuid::Uuid;

pub(crate) const DISCOVERY: &str = "nqn.2014-08.org.nvmexpress.discovery";

#[derive(Debug)]
pub(crate) struct Fake {
    state: Mutex<State>,
    pub(crate) is_ready: AtomicBool,
}

#[derive(Debug)]
struct State {
    volumes: Vec<Volume>,
    transport: Option<Transport>,
    subsystems: Vec<Subsystem>,
    level: LogLevel,
    flag: bool,
    signals: Vec<Signal>,
}

impl Default for Fake {
    fn default() -> Self {
        let discovery = Subsystem {
            nqn: DISCOVERY.to_owned(),
            listeners: Vec::new(),
            allow_any_host: true,
            hosts: Vec::new(),
            nvm: None,
        };
        let state = State {
            volumes: Vec::new(),
            transport: None,
            subsystems: vec![discovery],
            level: LogLevel::Info,
            flag: false,
            signals: Vec::new(),
        };
        Self { state: Mutex::new(state), is_ready: AtomicBool::new(true) }
    }
}

impl Fake {
    pub(crate) fn signals(&self) -> Vec<Signal> {
        self.state.lock().signals.clone()
    }

    fn with<T>(
        &self,
        nqn: &str,
        change: impl FnOnce(&mut Subsystem) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut state = self.state.lock();
        let found = state.subsystems.iter_mut().find(|subsystem| subsystem.nqn == nqn);
        change(found.ok_or(Failure::NoSubsystem)?)
    }
}

/// Takes an element out of a list.
fn remove<T>(list: &mut Vec<T>, is_it: impl Fn(&T) -> bool) -> Result<(), Failure> {
    let before = list.len();
    list.retain(|element| !is_it(element));
    if list.len() < before { Ok(()) } else { Err(Failure::NotFound) }
}

fn reports_ana(subsystem: &Subsystem) -> bool {
    subsystem.nvm.as_ref().is_some_and(|nvm| nvm.ana_reporting)
}

/// The UUID of an image by its name.
fn uuid(name: &str) -> Uuid {
    let mut bytes = [0x11; 16];
    for (byte, letter) in bytes.iter_mut().zip(name.bytes()) {
        *byte = letter;
    }
    Uuid::from_bytes(bytes)
}

#[async_trait]
impl Gateway for Fake {
    async fn create_volume(&self, new: NewVolume) -> Result<(), Failure> {
        let mut state = self.state.lock();
        if state.volumes.iter().any(|volume| volume.name == new.image) {
            return Err(Failure::Exists);
        }
        if new.image == "missing" {
            return Err(Failure::Failed(Box::new(std::io::Error::other("no such image"))));
        }
        let read = OperationCounters {
            operations: 3,
            bytes: 37376,
            latency: Duration::from_micros(30),
            latency_max: Duration::from_micros(20),
            latency_min: Duration::from_micros(4),
        };
        state.volumes.push(Volume {
            uuid: uuid(&new.image),
            name: new.image,
            pool: new.pool,
            settings: new.settings,
            sector_size: 512,
            sectors: 131_072,
            claimed: false,
            counters: IoCounters { read, ..IoCounters::default() },
        });
        Ok(())
    }

    async fn delete_volume(&self, name: &str) -> Result<(), Failure> {
        let mut state = self.state.lock();
        for nvm in state.subsystems.iter_mut().filter_map(|subsystem| subsystem.nvm.as_mut()) {
            nvm.namespaces.retain(|namespace| namespace.volume != name);
        }
        remove(&mut state.volumes, |volume| volume.name == name)
    }

    async fn resize_volume(&self, name: &str, size_bytes: u64) -> Result<(), Failure> {
        let mut state = self.state.lock();
        let found = state.volumes.iter_mut().find(|volume| volume.name == name);
        let volume = found.ok_or(Failure::NotFound)?;
        if size_bytes < volume.sectors * 512 {
            return Err(Failure::Failed(Box::new(std::io::Error::other("it would shrink"))));
        }
        volume.sectors = size_bytes / 512;
        Ok(())
    }

    async fn volumes(&self) -> Vec<Volume> {
        let state = self.state.lock();
        let namespaces = || {
            let nvms = state.subsystems.iter().filter_map(|subsystem| subsystem.nvm.as_ref());
            nvms.flat_map(|nvm| &nvm.namespaces)
        };
        let claimed = |name: &str| namespaces().any(|namespace| namespace.volume == name);
        let volumes = state.volumes.iter();
        volumes.map(|volume| Volume { claimed: claimed(&volume.name), ..volume.clone() }).collect()
    }

    async fn forget_counters(&self, name: &str, counted: IoCounters) -> Result<(), Failure> {
        let mut state = self.state.lock();
        let found = state.volumes.iter_mut().find(|volume| volume.name == name);
        let volume = found.ok_or(Failure::NotFound)?;
        volume.counters = volume.counters.without(counted);
        Ok(())
    }

    async fn create_transport(&self, wanted: TransportOptions) -> Result<(), Failure> {
        let mut state = self.state.lock();
        if state.transport.is_some() {
            return Err(Failure::Exists);
        }
        state.transport = Some(Transport {
            max_queue_depth: wanted.max_queue_depth.unwrap_or(128),
            max_io_qpairs_per_ctrlr: wanted.max_io_qpairs_per_ctrlr.unwrap_or(127),
            in_capsule_data_size: wanted.in_capsule_data_size.unwrap_or(4096),
            max_io_size: wanted.max_io_size.unwrap_or(131_072),
            max_aq_depth: wanted.max_aq_depth.unwrap_or(128),
            c2h_success: wanted.c2h_success.unwrap_or(true),
            kas: wanted.kas.unwrap_or(100),
            min_kato: wanted.min_kato.unwrap_or(10_000),
        });
        Ok(())
    }

    async fn transport(&self) -> Option<Transport> {
        self.state.lock().transport
    }

    async fn create_subsystem(&self, new: NewSubsystem) -> Result<(), Failure> {
        let mut state = self.state.lock();
        if !new.nqn.starts_with("nqn.") {
            return Err(Failure::Invalid);
        }
        if state.subsystems.iter().any(|subsystem| subsystem.nqn == new.nqn) {
            return Err(Failure::Exists);
        }
        state.subsystems.push(Subsystem {
            nqn: new.nqn,
            listeners: Vec::new(),
            allow_any_host: new.allow_any_host,
            hosts: Vec::new(),
            nvm: Some(NvmSubsystem {
                serial_number: new.serial_number.unwrap_or_else(|| "SPDK_000001".to_owned()),
                model_number: new.model_number.unwrap_or_else(|| "LSVD NVMe controller".to_owned()),
                max_namespaces: new.max_namespaces.unwrap_or(32),
                min_cntlid: new.min_cntlid.unwrap_or(1),
                max_cntlid: new.max_cntlid.unwrap_or(65519),
                ana_reporting: new.ana_reporting,
                dmrsl: 2_097_152,
                wzsl: 12,
                namespaces: Vec::new(),
            }),
        });
        Ok(())
    }

    fn subsystems_max(&self) -> u32 {
        1024
    }

    async fn delete_subsystem(&self, nqn: &str) -> Result<(), Failure> {
        let subsystems = &mut self.state.lock().subsystems;
        remove(subsystems, |subsystem| subsystem.nqn == nqn).map_err(|_| Failure::NoSubsystem)
    }

    async fn subsystems(&self) -> Vec<Subsystem> {
        self.state.lock().subsystems.clone()
    }

    async fn add_listener(&self, nqn: &str, new: SubsystemListener) -> Result<(), Failure> {
        let has_transport = self.state.lock().transport.is_some();
        self.with(nqn, |subsystem| {
            let is_told = reports_ana(subsystem) || new.state == PathState::Optimized;
            if !has_transport || !is_told {
                return Err(Failure::Invalid);
            }
            if subsystem.listeners.iter().any(|known| known.address == new.address) {
                return Err(Failure::Exists);
            }
            subsystem.listeners.push(new);
            Ok(())
        })
    }

    async fn set_path_state(
        &self,
        nqn: &str,
        address: SocketAddr,
        state: PathState,
    ) -> Result<(), Failure> {
        self.with(nqn, |subsystem| {
            if !reports_ana(subsystem) {
                return Err(Failure::Invalid);
            }
            let found = subsystem.listeners.iter_mut().find(|known| known.address == address);
            found.ok_or(Failure::NotFound)?.state = state;
            Ok(())
        })
    }

    async fn remove_listener(&self, nqn: &str, address: SocketAddr) -> Result<(), Failure> {
        self.with(nqn, |subsystem| {
            remove(&mut subsystem.listeners, |found| found.address == address)
        })
    }

    async fn add_namespace(&self, nqn: &str, new: NewNamespace) -> Result<u32, Failure> {
        let volumes = self.volumes().await;
        let volume = volumes.iter().find(|volume| volume.name == new.volume && !volume.claimed);
        self.with(nqn, |subsystem| {
            let volume = volume.ok_or(Failure::Invalid)?;
            let namespaces = &mut subsystem.nvm.as_mut().ok_or(Failure::Invalid)?.namespaces;
            let taken = |nsid: &u32| namespaces.iter().any(|namespace| namespace.nsid == *nsid);
            let free = (1..).find(|nsid| !taken(nsid)).ok_or(Failure::Invalid)?;
            let nsid = new.nsid.unwrap_or(free);
            if taken(&nsid) {
                return Err(Failure::Exists);
            }
            namespaces.push(Namespace {
                nsid,
                volume: new.volume,
                nguid: new.nguid.unwrap_or(*volume.uuid.as_bytes()),
                eui64: new.eui64,
                uuid: new.uuid.unwrap_or(volume.uuid),
            });
            Ok(nsid)
        })
    }

    async fn remove_namespace(&self, nqn: &str, nsid: u32) -> Result<(), Failure> {
        self.with(nqn, |subsystem| {
            let nvm = subsystem.nvm.as_mut().ok_or(Failure::Invalid)?;
            remove(&mut nvm.namespaces, |namespace| namespace.nsid == nsid)
        })
    }

    async fn add_host(&self, nqn: &str, host: &str) -> Result<(), Failure> {
        self.with(nqn, |subsystem| {
            subsystem.hosts.push(host.to_owned());
            Ok(())
        })
    }

    async fn remove_host(&self, nqn: &str, host: &str) -> Result<(), Failure> {
        self.with(nqn, |subsystem| remove(&mut subsystem.hosts, |found| found == host))
    }

    async fn allow_any_host(&self, nqn: &str, allow: bool) -> Result<(), Failure> {
        self.with(nqn, |subsystem| {
            subsystem.allow_any_host = allow;
            Ok(())
        })
    }

    async fn controllers(&self, nqn: &str) -> Result<Vec<Controller>, Failure> {
        self.with(nqn, |_| {
            Ok(vec![Controller {
                cntlid: 35,
                discovery: false,
                host_nqn: String::new(),
                host_id: Uuid::from_u128(0x29eb_b40b_db9f_4a5e_9359_e56a_0ebe_25ce),
                io_queue_pairs: 2,
            }])
        })
    }

    async fn queue_pairs(&self, nqn: &str) -> Result<Vec<QueuePair>, Failure> {
        self.with(nqn, |_| {
            Ok(vec![QueuePair {
                cntlid: 35,
                qid: 1,
                enabled: true,
                thread: "worker-0".to_owned(),
                host_nqn: "nqn.host".to_owned(),
                listener: "127.0.0.1:9922".parse().expect("an address"),
                peer: "127.0.0.1:40000".parse().expect("an address"),
            }])
        })
    }

    async fn poll_groups(&self) -> Vec<PollGroup> {
        vec![PollGroup {
            name: "nvmf_tgt_poll_group_000".to_owned(),
            admin_queue_pairs: 69,
            io_queue_pairs: 69,
            current_admin_queue_pairs: 0,
            current_io_queue_pairs: 0,
            current_unassociated: 0,
            pending_io: 0,
            completed_io: 199_551_706,
        }]
    }

    async fn wait_init(&self) {
        while !self.is_ready.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
    }

    fn kill(&self, signal: Signal) {
        self.state.lock().signals.push(signal);
    }

    fn log_level(&self) -> LogLevel {
        self.state.lock().level
    }

    fn set_log_level(&self, level: LogLevel) {
        self.state.lock().level = level;
    }

    fn log_flags(&self) -> Vec<(String, bool)> {
        vec![("nvmf".to_owned(), self.state.lock().flag)]
    }

    fn set_log_flag(&self, flag: &str, on: bool) -> Result<(), Failure> {
        if flag != "nvmf" {
            return Err(Failure::NotFound);
        }
        self.state.lock().flag = on;
        Ok(())
    }

    fn uptime(&self) -> Duration {
        Duration::from_secs(7)
    }
}
