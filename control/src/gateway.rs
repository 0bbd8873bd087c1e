//! What the socket needs from a gateway. The socket owns this trait; the gateway implements it.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::error::Failure;
use crate::settings::Settings;

/// A gateway as its operators see it.
///
/// Calls come from several connections at a time, and the gateway puts them in order. A call whose
/// client hangs up runs to its end. Names, NQNs and addresses are as the client wrote them, within
/// the limits of one request; what they may look like is the gateway's decision.
#[async_trait]
pub trait Gateway: Send + Sync + 'static {
    /// Opens an image as a volume under the image's name.
    async fn create_volume(&self, new: NewVolume) -> Result<(), Failure>;

    /// Closes a volume. Namespaces that show it go first.
    async fn delete_volume(&self, name: &str) -> Result<(), Failure>;

    /// Grows a volume to `size_bytes` and tells its hosts. [`Failure::NotFound`] if there is no
    /// such volume.
    async fn resize_volume(&self, name: &str, size_bytes: u64) -> Result<(), Failure>;

    /// Every volume, in the order in which they were opened.
    async fn volumes(&self) -> Vec<Volume>;

    /// Takes what was counted for a volume off its counters from now on. [`Failure::NotFound`] if
    /// there is no such volume.
    async fn forget_counters(&self, name: &str, counted: IoCounters) -> Result<(), Failure>;

    /// Creates the TCP transport. [`Failure::Exists`] if it is there.
    async fn create_transport(&self, wanted: TransportOptions) -> Result<(), Failure>;

    /// The TCP transport with the values in force, once it was created.
    async fn transport(&self) -> Option<Transport>;

    /// Creates a subsystem. [`Failure::Invalid`] if the NQN is none.
    async fn create_subsystem(&self, new: NewSubsystem) -> Result<(), Failure>;

    /// Subsystems that there may be at one time.
    fn subsystems_max(&self) -> u32;

    /// Deletes a subsystem and ends the connections to it.
    async fn delete_subsystem(&self, nqn: &str) -> Result<(), Failure>;

    /// Every subsystem in the order of creation, the discovery subsystem first.
    async fn subsystems(&self) -> Vec<Subsystem>;

    /// Listens on an address for a subsystem. [`Failure::Invalid`] without a transport, or for a
    /// state that hosts would not be told; [`Failure::Exists`] if the subsystem listens there.
    async fn add_listener(&self, nqn: &str, new: SubsystemListener) -> Result<(), Failure>;

    /// Says how good the paths through a listener are, from now on. [`Failure::NotFound`] if the
    /// subsystem does not listen there, [`Failure::Invalid`] if its hosts would not be told.
    async fn set_path_state(
        &self,
        nqn: &str,
        address: SocketAddr,
        state: PathState,
    ) -> Result<(), Failure>;

    /// Stops listening on an address for a subsystem.
    async fn remove_listener(&self, nqn: &str, address: SocketAddr) -> Result<(), Failure>;

    /// Shows a volume as a namespace, and returns its id.
    async fn add_namespace(&self, nqn: &str, new: NewNamespace) -> Result<u32, Failure>;

    /// Takes a namespace away; its volume stays open.
    async fn remove_namespace(&self, nqn: &str, nsid: u32) -> Result<(), Failure>;

    /// Lets a host connect.
    async fn add_host(&self, nqn: &str, host: &str) -> Result<(), Failure>;

    /// Lets a host connect no more, and ends its connections.
    async fn remove_host(&self, nqn: &str, host: &str) -> Result<(), Failure>;

    /// Lets every host connect, or only those that were added.
    async fn allow_any_host(&self, nqn: &str, allow: bool) -> Result<(), Failure>;

    /// Controllers of a subsystem.
    async fn controllers(&self, nqn: &str) -> Result<Vec<Controller>, Failure>;

    /// Queue pairs of a subsystem's controllers.
    async fn queue_pairs(&self, nqn: &str) -> Result<Vec<QueuePair>, Failure>;

    /// Statistics of each thread that serves connections.
    async fn poll_groups(&self) -> Vec<PollGroup>;

    /// Returns once everything that was asked for at start is served.
    async fn wait_init(&self);

    /// Sends the process a signal; called when the client has its answer.
    fn kill(&self, signal: Signal);

    /// From here on events are logged.
    fn log_level(&self) -> LogLevel;

    /// Logs events from this level on.
    fn set_log_level(&self, level: LogLevel);

    /// Parts of the program whose debug events can be switched on, and whether they are.
    fn log_flags(&self) -> Vec<(String, bool)>;

    /// Switches debug events of a part on or off. [`Failure::NotFound`] if there is no such part.
    fn set_log_flag(&self, flag: &str, on: bool) -> Result<(), Failure>;

    /// Time on a clock that never goes back, since any fixed moment.
    fn uptime(&self) -> Duration;
}

/// An image to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVolume {
    /// The pool as on the command line of the gateway.
    pub pool: String,
    /// The image; the volume gets its name.
    pub image: String,
    /// What the client wants different for this image.
    pub settings: Settings,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// The name of the image.
    pub name: String,
    /// The pool as it was given.
    pub pool: String,
    /// Settings as they were given.
    pub settings: Settings,
    /// The image's identity, the same wherever it is opened.
    pub uuid: Uuid,
    /// Bytes of a logical sector.
    pub sector_size: u32,
    /// Logical sectors.
    pub sectors: u64,
    /// A namespace shows it, or another front end does.
    pub claimed: bool,
    /// What was done to it since it was opened, or since the counters were forgotten.
    pub counters: IoCounters,
}

/// Counters of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IoCounters {
    /// Reads.
    pub read: OperationCounters,
    /// Writes, write-zeroes without deallocation included.
    pub write: OperationCounters,
    /// Deallocations.
    pub unmap: OperationCounters,
}

impl IoCounters {
    /// What is left without `counted`, an earlier state of these counters. The slowest and the
    /// fastest operation stay.
    #[must_use]
    pub fn without(self, counted: Self) -> Self {
        Self {
            read: self.read.without(counted.read),
            write: self.write.without(counted.write),
            unmap: self.unmap.without(counted.unmap),
        }
    }

    /// Both together, with the slowest and the fastest operation of `self`.
    #[must_use]
    pub fn with(self, more: Self) -> Self {
        Self {
            read: self.read.with(more.read),
            write: self.write.with(more.write),
            unmap: self.unmap.with(more.unmap),
        }
    }
}

/// Counters of one kind of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OperationCounters {
    /// Operations that succeeded.
    pub operations: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Time from submission to completion, all operations added up.
    pub latency: Duration,
    /// The slowest.
    pub latency_max: Duration,
    /// The fastest; zero if there was none.
    pub latency_min: Duration,
}

impl OperationCounters {
    fn without(self, counted: Self) -> Self {
        Self {
            operations: self.operations.saturating_sub(counted.operations),
            bytes: self.bytes.saturating_sub(counted.bytes),
            latency: self.latency.saturating_sub(counted.latency),
            ..self
        }
    }

    fn with(self, more: Self) -> Self {
        Self {
            operations: self.operations.saturating_add(more.operations),
            bytes: self.bytes.saturating_add(more.bytes),
            latency: self.latency.saturating_add(more.latency),
            ..self
        }
    }
}

/// What a client asked of the transport; the gateway fills in the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TransportOptions {
    /// Commands in flight of one queue.
    pub max_queue_depth: Option<u16>,
    /// I/O queue pairs of one controller.
    pub max_io_qpairs_per_ctrlr: Option<u16>,
    /// Bytes of data that a command may carry itself.
    pub in_capsule_data_size: Option<u32>,
    /// Bytes of the largest read or write.
    pub max_io_size: Option<u32>,
    /// Commands in flight of an admin queue.
    pub max_aq_depth: Option<u32>,
    /// Data of a read may end with SUCCESS in place of a completion.
    pub c2h_success: Option<bool>,
    /// Granularity of keep-alive timeouts, in 100 ms.
    pub kas: Option<u16>,
    /// The shortest keep-alive timeout, in milliseconds.
    pub min_kato: Option<u32>,
}

/// The transport as it is. Units as in [`TransportOptions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    /// Commands in flight of one queue.
    pub max_queue_depth: u16,
    /// I/O queue pairs of one controller.
    pub max_io_qpairs_per_ctrlr: u16,
    /// Bytes of data that a command may carry itself.
    pub in_capsule_data_size: u32,
    /// Bytes of the largest read or write.
    pub max_io_size: u32,
    /// Commands in flight of an admin queue.
    pub max_aq_depth: u32,
    /// Data of a read may end with SUCCESS in place of a completion.
    pub c2h_success: bool,
    /// Granularity of keep-alive timeouts, in 100 ms.
    pub kas: u16,
    /// The shortest keep-alive timeout, in milliseconds.
    pub min_kato: u32,
}

/// A subsystem to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSubsystem {
    /// Its NQN.
    pub nqn: String,
    /// Serial number, at most 20 characters; the gateway's default if none.
    pub serial_number: Option<String>,
    /// Model number, at most 40 characters; the gateway's default if none.
    pub model_number: Option<String>,
    /// Hosts need not be added one by one.
    pub allow_any_host: bool,
    /// Most namespaces; the gateway's default if none.
    pub max_namespaces: Option<u32>,
    /// Lowest controller id; the gateway's default if none.
    pub min_cntlid: Option<u16>,
    /// Highest controller id; the gateway's default if none.
    pub max_cntlid: Option<u16>,
    /// Report asymmetric namespace access.
    pub ana_reporting: bool,
}

/// A subsystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subsystem {
    /// Its NQN.
    pub nqn: String,
    /// Where hosts reach it.
    pub listeners: Vec<SubsystemListener>,
    /// Hosts need not be on the list.
    pub allow_any_host: bool,
    /// NQNs of hosts that may connect.
    pub hosts: Vec<String>,
    /// What a discovery subsystem lacks.
    pub nvm: Option<NvmSubsystem>,
}

/// Where hosts reach a subsystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubsystemListener {
    /// The address.
    pub address: SocketAddr,
    /// How good the paths through it are.
    pub state: PathState,
}

/// How good a path to the namespaces of a subsystem is: its ANA state (NVMe base 2.0, 8.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PathState {
    /// As good as any, which is what paths of a subsystem without ANA reporting are.
    #[default]
    Optimized,
    /// Works; hosts use it while there is no optimized path.
    NonOptimized,
    /// Does not work; hosts use another one.
    Inaccessible,
}

/// What a subsystem with namespaces has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvmSubsystem {
    /// Serial number.
    pub serial_number: String,
    /// Model number.
    pub model_number: String,
    /// Most namespaces.
    pub max_namespaces: u32,
    /// Lowest controller id.
    pub min_cntlid: u16,
    /// Highest controller id.
    pub max_cntlid: u16,
    /// Asymmetric namespace access is reported.
    pub ana_reporting: bool,
    /// Dataset management range size limit, in logical sectors.
    pub dmrsl: u32,
    /// Write zeroes size limit, as a power of two in units of the minimum memory page.
    pub wzsl: u8,
    /// In the order of their ids.
    pub namespaces: Vec<Namespace>,
}

/// A namespace to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNamespace {
    /// The volume that it shows.
    pub volume: String,
    /// From 1 to 0xfffffffe; the lowest free one if none.
    pub nsid: Option<u32>,
    /// The volume's UUID if none.
    pub nguid: Option<[u8; 16]>,
    /// None if none.
    pub eui64: Option<[u8; 8]>,
    /// The volume's UUID if none.
    pub uuid: Option<Uuid>,
}

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Its id.
    pub nsid: u32,
    /// The volume that it shows.
    pub volume: String,
    /// Globally unique identifier.
    pub nguid: [u8; 16],
    /// IEEE identifier, if there is one.
    pub eui64: Option<[u8; 8]>,
    /// UUID.
    pub uuid: Uuid,
}

/// A controller, that is: a host's association with a subsystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controller {
    /// Its id.
    pub cntlid: u16,
    /// A discovery controller has no I/O queues.
    pub discovery: bool,
    /// NQN of the host.
    pub host_nqn: String,
    /// Id of the host.
    pub host_id: Uuid,
    /// Connected I/O queue pairs.
    pub io_queue_pairs: u32,
}

/// A queue pair, that is: a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuePair {
    /// The controller's id.
    pub cntlid: u16,
    /// 0 for the admin queue.
    pub qid: u16,
    /// False while it is being taken down.
    pub enabled: bool,
    /// The thread that serves it.
    pub thread: String,
    /// NQN of the host.
    pub host_nqn: String,
    /// Our end.
    pub listener: SocketAddr,
    /// The host's end.
    pub peer: SocketAddr,
}

/// Statistics of a thread that serves connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollGroup {
    /// The thread's name.
    pub name: String,
    /// Admin queue pairs since start.
    pub admin_queue_pairs: u64,
    /// I/O queue pairs since start.
    pub io_queue_pairs: u64,
    /// Admin queue pairs now.
    pub current_admin_queue_pairs: u64,
    /// I/O queue pairs now.
    pub current_io_queue_pairs: u64,
    /// Connections now that have not become a queue pair.
    pub current_unassociated: u64,
    /// Commands that wait for a volume.
    pub pending_io: u64,
    /// I/O commands that were completed.
    pub completed_io: u64,
}

/// Signals that a client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP.
    Hangup,
    /// SIGINT.
    Interrupt,
    /// SIGQUIT.
    Quit,
    /// SIGKILL.
    Kill,
    /// SIGUSR1.
    User1,
    /// SIGTERM.
    Terminate,
}

/// Levels of events, the most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// A human is needed.
    Error,
    /// It went on.
    Warning,
    /// Worth knowing at any time.
    Notice,
    /// Worth knowing when something is looked for.
    Info,
    /// Everything.
    Debug,
}
