//! A store of immutable-by-default objects: the trait, its backends, and the layers on top.
//!
//! Everything durable about an image lives in an [`ObjectStore`]. The trait is as small as the
//! three kinds of store that must fit behind it (a directory, RADOS, S3) allow: whole objects are
//! created or replaced by compare-and-swap, read whole or by range, listed in order, and deleted.
//! There is no unconditional overwrite, because every writer of this project knows either that a
//! name is new or which version it replaces; whoever does not know would be about to lose
//! somebody's data.
//!
//! ```
//! use std::sync::Arc;
//! use bytes::Bytes;
//! use lsvd_store::{MemStore, ObjectStore, PutMode};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> lsvd_store::Result<()> {
//! let store: Arc<dyn ObjectStore> = Arc::new(MemStore::new());
//! let first = store.put("disk1/superblock", Bytes::from("one").into(), PutMode::Create).await?;
//! store.put("disk1/superblock", Bytes::from("two").into(), PutMode::IfMatch(first)).await?;
//! assert_eq!(store.get("disk1/superblock").await?.body, "two");
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod conformance;
mod error;
mod file;
mod layer;
mod mem;
mod name;
mod page;
mod payload;
mod pool;
mod rados;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

pub use error::{ErrorKind, Op, Result, StoreError};
pub use file::FileStore;
pub use layer::faulty::{Fault, FaultRates, FaultyStore};
pub use layer::metrics::{MeteredStore, OpSnapshot, Snapshot};
pub use layer::retry::{RetryPolicy, RetryingStore};
pub use mem::MemStore;
pub use name::{NAME_BYTES_MAX, PART_BYTES_MAX};
pub use payload::Payload;
pub use pool::{Environment, PoolError, PoolSpec, PoolTarget};
pub use rados::RadosStore;

/// A store of named objects, safe to share between tasks, threads and processes.
///
/// Promises every backend keeps (see [`conformance::run`]):
///
/// - A put is atomic and, once it answers `Ok`, durable and visible to every later call of every
///   client. Readers see the old content or the new, never a mixture and never a part.
/// - Of any number of concurrent puts that create one name, or that replace one version, exactly
///   one succeeds.
/// - An answer of `AlreadyExists` or `PreconditionFailed` speaks of content that is itself durable,
///   so that a writer may recognise its own earlier put in it.
///
/// Dropping the future of a put or a delete leaves its outcome open: it may still happen, even
/// later.
///
/// Names are described at [`NAME_BYTES_MAX`]. One name must not be the directory of another (`a`
/// and `a/b`); a backend on a file system refuses the second of them with [`ErrorKind::Invalid`].
#[async_trait]
pub trait ObjectStore: Send + Sync + fmt::Debug {
    /// Stores `body` under `name` as `mode` allows and returns the new version.
    ///
    /// # Errors
    /// `AlreadyExists` for [`PutMode::Create`], `PreconditionFailed` for [`PutMode::IfMatch`] (also
    /// when the object is gone), `Ambiguous` when the put may or may not have landed, and the
    /// general kinds.
    async fn put(&self, name: &str, body: Payload, mode: PutMode) -> Result<Version>;

    /// The whole object, and the version that this body belongs to.
    ///
    /// # Errors
    /// `NotFound`, and the general kinds.
    async fn get(&self, name: &str) -> Result<Object>;

    /// Exactly `len` bytes from byte `offset` on. An empty range inside or at the end is allowed.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` when the object ends before the range does; and the general kinds.
    async fn get_range(&self, name: &str, offset: u64, len: u64) -> Result<Bytes>;

    /// Size and version of an object, without its body.
    ///
    /// # Errors
    /// `NotFound`, and the general kinds.
    async fn head(&self, name: &str) -> Result<Meta>;

    /// Up to `limit` entries whose names start with `prefix`, in byte order.
    ///
    /// With a `delimiter`, names that contain it after the prefix are rolled up into one entry that
    /// ends with the first such delimiter. Only entries greater than `after` are reported; pass
    /// [`Listing::next`] there to go on. Objects that come or go during the walk may or may not
    /// show.
    ///
    /// # Errors
    /// `Invalid` for a prefix that no name can start with or a limit of 0; and the general kinds.
    async fn list(
        &self,
        prefix: &str,
        delimiter: Option<char>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Listing>;

    /// Removes an object, durably.
    ///
    /// # Errors
    /// `NotFound`, `Ambiguous` when it may or may not have happened, and the general kinds.
    async fn delete(&self, name: &str) -> Result<()>;

    /// Where the objects are, for messages: a path or an address.
    fn describe(&self) -> String;
}

/// What a put requires of the state it finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutMode {
    /// The name must be free.
    Create,
    /// The object must exist and have this version: compare-and-swap.
    IfMatch(Version),
}

/// Opaque token that names one content of one object.
///
/// Two different puts under one name never give equal versions, be they by different processes or
/// on either side of a delete. Versions of different names or stores must not be compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version(Arc<str>);

impl Version {
    /// For backends: wraps the token that the store gave.
    #[must_use]
    pub fn new(token: impl Into<Arc<str>>) -> Self {
        Self(token.into())
    }

    /// The token, for backends and for messages.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The content.
    pub body: Bytes,
    /// The version of exactly this content.
    pub version: Version,
}

/// What is known of an object without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Length of the content in bytes.
    pub size: u64,
    /// The version of the content.
    pub version: Version,
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Objects in byte order of their names, with their sizes in bytes.
    pub objects: Vec<(String, u64)>,
    /// Rolled-up names in byte order, each ending with the delimiter.
    pub prefixes: Vec<String>,
    /// Where to go on, as the next call's `after`. `None` when the listing is complete.
    pub next: Option<String>,
}
