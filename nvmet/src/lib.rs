//! An NVMe/TCP target: a protocol core without sockets, and a thin tokio driver around it.
//!
//! Bytes of a host become checked commands that reach a [`Namespace`]; its answers go back in
//! batches. What is known at once ([`Outcome::Ready`]) costs neither a task nor an allocation; what
//! is pending is polled by the connection's own future. What a connection may hold has a limit
//! ([`limits`]). A [`Target`] says which subsystems, namespaces and hosts there are; the control
//! socket edits it while hosts are connected, and hosts are told by asynchronous events.
//!
//! Does not: listen. A gateway accepts sockets, hands each to [`accept`] until the host has
//! connected a queue, may move it to another thread ([`Accepted::map_stream`]), and runs [`serve`].
//!
//! ```no_run
//! use std::sync::Arc;
//! use lsvd_buf::BufPool;
//! use lsvd_nvmet::{Listener, Namespace, NamespaceOptions, Origin, SubsystemConfig, Target};
//! use lsvd_nvmet::{TargetOptions, accept, serve};
//! use tokio::net::TcpListener;
//! use tokio::sync::watch;
//!
//! async fn run(disk: Arc<dyn Namespace>, stop: watch::Receiver<bool>) -> boxed::Result {
//!     let nqn = "nqn.2019-05.io.lsvd:cnode1";
//!     let listener = TcpListener::bind("127.0.0.1:4420").await?;
//!     let address = listener.local_addr()?;
//!     let target = Target::new(TargetOptions::new("nqn.2019-05.io.lsvd:discovery"))?;
//!     target.add_subsystem(SubsystemConfig {
//!         nqn: nqn.into(),
//!         serial: "SPDK_000001".into(),
//!         model: "LSVD NVMe controller".into(),
//!         allow_any_host: true,
//!         namespaces_max: 32,
//!         ana_reporting: false,
//!     })?;
//!     target.add_namespace(nqn, disk, NamespaceOptions::default())?;
//!     target.add_listener(nqn, Listener { address, advertised: None })?;
//!     let (target, buffers) = (Arc::new(target), BufPool::default());
//!     loop {
//!         let (socket, peer) = listener.accept().await?;
//!         socket.set_nodelay(true)?;
//!         let origin = Origin { listener: address, local: socket.local_addr()?, peer };
//!         let (target, buffers, stop) = (target.clone(), buffers.clone(), stop.clone());
//!         tokio::spawn(async move {
//!             if let Ok(Some(accepted)) = accept(socket, origin, target, buffers).await {
//!                 let _ = serve(accepted, stop).await;
//!             }
//!         });
//!     }
//! }
//! # mod boxed { pub type Result = std::result::Result<(), Box<dyn std::error::Error>>; }
//! ```
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
pub use namespace::{BoxFuture, ByteRange, Failure, LbaSize, Namespace, NamespaceInfo, Outcome};
pub use ram::RamNamespace;
#[cfg(any(test, feature = "loopback"))]
pub use session::loopback::Loopback;
pub use target::{
    ConfigError, ControllerSnapshot, CounterValues, DISCOVERY_NQN, Listener, NamespaceOptions,
    NamespaceSnapshot, Origin, PathState, QueueSnapshot, SubsystemConfig, SubsystemSnapshot,
    Target, TargetOptions, TargetStats, check_nqn,
};
