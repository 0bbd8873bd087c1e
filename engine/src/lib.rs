//! The log-structured volume: a disk whose writes go to a log on a local SSD and on, as immutable
//! objects, to a store.
//!
//! The route of a write: [`Volume::write`] checks the range and waits for admission; the write gets
//! its sequence and joins the next log record; when the record is on the SSD it enters the open
//! batch and is acknowledged; a full or old batch is sealed into an object, put, and retired in
//! order, which moves its extents into the map and frees the log.
//!
//! The route of a read: [`Volume::read`] looks the range up in the batches and the map, newest
//! first, and takes each piece from memory, from the log, or frame by frame from cache or store,
//! verified.
//!
//! The outside is behind traits: a disk of bytes ([`disk::Disk`]), a store of objects
//! ([`lsvd_store::ObjectStore`]), and time and randomness ([`World`]). The simulator runs this very
//! code.

mod admission;
mod batch;
pub mod cache;
mod destage;
pub mod disk;
mod error;
mod fence;
pub mod image;
mod log;
pub mod map;
mod options;
mod read;
mod recovery;
mod state;
mod table;
mod volume;

pub use error::{Error, ErrorKind, Result};
#[cfg(feature = "canary")]
pub use options::Canary;
pub use options::{FlushPolicy, SystemWorld, VolumeOptions, World};
pub use recovery::{Places, Recovered, log_name};
pub use state::Stats;
pub use volume::{Allocation, Status, Volume};
