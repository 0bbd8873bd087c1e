//! Ceph's librados, loaded when it is first needed: clusters, pools, and operations on objects as
//! futures.
//!
//! A machine without Ceph builds and runs everything else; only who asks for a cluster is told
//! which package is missing. What is offered is what a store of objects needs and is atomic on the
//! OSD: create, compare-and-swap by version, read with size and version, remove; besides, listing,
//! advisory locks and the blocklist, which fence a client that lost its lock.
//!
//! Does not: retry, or interpret errors beyond their number ([`Error::code`]). An operation that the
//! cluster does not answer ends with `ETIMEDOUT` after [`ConnectOptions::op_timeout`], and then may
//! or may not have happened.
//! Invariants: 1. What librados reads or writes belongs to the operation itself until its callback
//! came, so that a dropped future frees nothing that is in use. 2. A cluster is shut down only when
//! no operation is under way.
//! Concurrency: everything may be called from any thread. Submitting a write copies its data, some
//! 0.15 ms for each MiB: not on a thread that others wait for. Callbacks run on librados' threads
//! and only hand over the result.

mod cluster;
mod error;
mod ffi;
mod operation;
mod pool;

pub use cluster::{Cluster, ConnectOptions};
pub use error::{Error, LoadError, Result};
pub use pool::{Locker, Pool, Read, Stat};
