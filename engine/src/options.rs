//! How a volume is opened, and the outside world as the engine sees it.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use lsvd_common::ids::Uuid;
use lsvd_common::limits::{OBJECT_PAYLOAD_MAX, RECORD_DATA_MAX, RING_PAGES_MAX};
use lsvd_common::units::PAGE_BYTES;
use tokio::runtime::Handle;

use crate::error::{Error, ErrorKind, Result};

/// Time of day and randomness; the simulator has its own. Waiting is done with tokio's timers,
/// which it controls too.
pub trait World: Send + Sync + Debug {
    /// Milliseconds since 1970. Recorded for people, never compared.
    fn wall_ms(&self) -> u64;
    /// A new identity.
    fn uuid(&self) -> Uuid;
}

/// The real world.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemWorld;

impl World for SystemWorld {
    fn wall_ms(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn uuid(&self) -> Uuid {
        Uuid::new_v4()
    }
}

/// What an acknowledged FLUSH (or FUA write) survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushPolicy {
    /// The loss of the process and of power: the local SSD has it.
    Local,
    /// The loss of the machine: the store has it, and this gateway was still the writer when it
    /// had.
    Backend,
}

/// Sizes and times of a volume.
#[derive(Clone, Debug)]
pub struct VolumeOptions {
    /// What a flush means.
    pub flush: FlushPolicy,
    /// Size of the write log in bytes when it is made; an existing log keeps its size.
    pub log_bytes: u64,
    /// A batch is sealed when it holds this many bytes.
    pub batch_bytes: usize,
    /// A batch is sealed when its first write is this old.
    pub batch_age: Duration,
    /// Data that one log record holds at most, and so the largest write that is atomic.
    pub record_bytes: usize,
    /// Objects that are sent to the store at the same time.
    pub puts_in_flight: usize,
    /// Memory for data of batches; above it, batches that wait are read back from the log when
    /// their turn comes.
    pub batch_ram_bytes: usize,
    /// Data objects between checkpoints, at least.
    pub checkpoint_objects_min: u64,
    /// Data objects between checkpoints, at most: what recovery replays.
    pub checkpoint_objects_max: u64,
    /// Host and place of the log, shown to whoever finds the image in use.
    pub owner_host: String,
    /// See `owner_host`.
    pub owner_place: String,
    /// Process that opens.
    pub owner_pid: u32,
    /// Runs the log writer: the runtime of the thread that owns the volume's connections.
    pub home: Handle,
    /// Runs everything that talks to the store.
    pub backend: Handle,
    /// Time and randomness.
    pub world: Arc<dyn World>,
    /// A fault planted on purpose: the simulator must find it.
    #[cfg(feature = "canary")]
    pub canary: Option<Canary>,
}

/// Faults that the simulator plants to prove that it would find them.
#[cfg(feature = "canary")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// FLUSH is acknowledged without a sync of the SSD.
    FlushWithoutSync,
    /// Log space is reused before the store has the objects.
    TailBeforeRetire,
    /// Recovery takes objects behind a gap.
    ReplayOverGap,
    /// Recovery takes log records without looking at their data.
    TrustTornRecord,
    /// Recovery forgets the discards of the log.
    ForgetDiscard,
    /// The store's answer to who the writer is does not matter.
    IgnoreFence,
    /// A volume grows before its superblock does.
    GrowEarly,
}

impl VolumeOptions {
    /// Defaults for a real gateway.
    #[must_use]
    pub fn new(home: Handle, backend: Handle) -> Self {
        Self {
            flush: FlushPolicy::Local,
            log_bytes: 1 << 30,
            batch_bytes: 8 << 20,
            batch_age: Duration::from_millis(1500),
            record_bytes: RECORD_DATA_MAX,
            puts_in_flight: 4,
            batch_ram_bytes: 64 << 20,
            checkpoint_objects_min: 32,
            checkpoint_objects_max: 512,
            owner_host: String::from("localhost"),
            owner_place: String::new(),
            owner_pid: std::process::id(),
            home,
            backend,
            world: Arc::new(SystemWorld),
            #[cfg(feature = "canary")]
            canary: None,
        }
    }

    /// Checks sizes against each other.
    ///
    /// # Errors
    /// `Invalid`, saying which.
    pub fn check(&self) -> Result<()> {
        let record = self.record_bytes;
        let page = PAGE_BYTES as usize;
        if record < page || record > RECORD_DATA_MAX || !record.is_multiple_of(page) {
            return Err(invalid("the record size must be whole pages up to 4 MiB"));
        }
        // Four records: one being written, one waiting, one lost to the end of the ring, and one to
        // spare.
        if self.log_bytes < 8 * record as u64 {
            return Err(invalid("the write log must hold at least eight records"));
        }
        if self.batch_bytes == 0 || self.batch_bytes + record > OBJECT_PAYLOAD_MAX {
            return Err(invalid("the batch size must be above 0 and at most 20 MiB"));
        }
        if self.log_bytes / PAGE_BYTES > RING_PAGES_MAX {
            return Err(invalid("the write log must not be larger than 16 TiB"));
        }
        if self.log_bytes < 4 * self.batch_bytes as u64 {
            return Err(invalid("the write log must hold at least four batches"));
        }
        if self.puts_in_flight == 0 || self.checkpoint_objects_min == 0 {
            return Err(invalid("at least one object must be in flight and between checkpoints"));
        }
        Ok(())
    }
}

fn invalid(text: &'static str) -> Error {
    Error::new(ErrorKind::Invalid, text)
}
