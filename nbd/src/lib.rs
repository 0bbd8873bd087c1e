//! An NBD server: a protocol core without sockets, and a thin tokio driver around it.
//!
//! Bytes of a client go through [`handshake`](negotiate) and transmission phase as typed events;
//! checked requests reach an [`Export`], whose answers go back in batches. What is known at once
//! ([`Outcome::Ready`]) costs neither a task nor an allocation; what is pending is polled by the
//! connection's own future. Everything that a connection may hold has a limit ([`limits`]).
//!
//! A gateway accepts and negotiates on one runtime and may serve on another, by way of
//! [`Negotiated::detach`] and [`Negotiated::attach`]:
//!
//! ```no_run
//! use std::sync::Arc;
//! use lsvd_buf::BufPool;
//! use lsvd_nbd::{Address, Exports, Listener, negotiate, serve};
//! use tokio::sync::watch;
//!
//! async fn run(exports: Arc<dyn Exports>, stop: watch::Receiver<bool>) -> anyhow_like::Result {
//!     let listener = Listener::bind(&Address::Unix("/run/lsvd/nbd.sock".into())).await?;
//!     loop {
//!         let (socket, exports, stop) = (listener.accept().await?, exports.clone(), stop.clone());
//!         tokio::spawn(async move {
//!             if let Ok(Some(negotiated)) = negotiate(socket, &*exports).await {
//!                 let _ = serve(negotiated, BufPool::default(), stop).await;
//!             }
//!         });
//!     }
//! }
//! # mod anyhow_like { pub type Result = std::result::Result<(), Box<dyn std::error::Error>>; }
//! ```

mod driver;
mod error;
mod export;
mod handshake;
pub mod limits;
mod operations;
mod outbox;
mod reply;
mod session;
mod socket;
mod wire;

pub use driver::{Ended, Negotiated, negotiate, serve};
pub use error::{Error, Violation};
pub use export::{BlockSizes, BoxFuture, Export, ExportInfo, Exports, Extent, Failure, Outcome};
pub use socket::{Address, BindError, DetachedSocket, Listener, Socket};
