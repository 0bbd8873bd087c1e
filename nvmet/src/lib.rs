//! An NVMe/TCP target: the protocol core, and a thin driver.
#![forbid(unsafe_code)]

pub mod wire;

mod admin;
mod controller;
mod doorbell;
mod driver;
mod error;
mod io;
pub mod limits;
mod namespace;
mod operations;
mod outbox;
mod ram;
mod receive;
mod session;
mod target;
#[cfg(test)]
mod testing;

pub use driver::{Accepted, Ended, accept, serve};
pub use error::Error;
pub use namespace::{
    BoxFuture, ByteRange, Failure, LbaSize, Namespace, NamespaceInfo, Outcome,
};
pub use ram::RamNamespace;
pub use target::{
    ConfigError, ControllerSnapshot, CounterValues, DISCOVERY_NQN, Listener, NamespaceOptions,
    NamespaceSnapshot, Origin, QueueSnapshot, SubsystemConfig, SubsystemSnapshot, Target,
    TargetOptions, TargetStats, check_nqn,
};
