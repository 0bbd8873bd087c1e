//! The control socket: the JSON-RPC server that SPDK's own client configures a gateway with.
//!
//! Requests reach a [`Gateway`] as typed calls; answers, errors and their codes are those of SPDK,
//! measured with its clients from v24.01 to 26.9. What the clients call bdev is a volume here.
//! `rpc_plugin.py` at the root of the project teaches them `bdev_lsvd_create`,
//! `bdev_lsvd_delete` and `bdev_lsvd_resize`.
//!
//! ```no_run
//! use std::path::Path;
//! use std::sync::Arc;
//! use lsvd_control::{BindError, DEFAULT_PATH, Gateway, Listener, serve};
//! use tokio::sync::watch;
//!
//! async fn run(gateway: Arc<dyn Gateway>, stop: watch::Receiver<bool>) -> Result<(), BindError> {
//!     let listener = Listener::bind(Path::new(DEFAULT_PATH)).await?;
//!     serve(listener, gateway, stop).await;
//!     Ok(())
//! }
//! ```
#![forbid(unsafe_code)]

mod address;
mod envelope;
mod error;
mod framing;
mod gateway;
pub mod limits;
mod methods;
mod respond;
mod saved;
mod server;
mod settings;
mod socket;
mod suggest;

pub use error::{Failure, RpcError};
pub use framing::{Framer, FramingError};
pub use gateway::{
    Controller, Gateway, IoCounters, LogLevel, Namespace, NewNamespace, NewSubsystem, NewVolume,
    NvmSubsystem, OperationCounters, PathState, PollGroup, QueuePair, Signal, Subsystem,
    SubsystemListener, Transport, TransportOptions, Volume,
};
pub use respond::{RespondError, Response, respond};
pub use saved::{SavedCall, SavedError, saved_calls};
pub use server::serve;
pub use settings::{Flush, Settings, SettingsError};
pub use socket::{BindError, DEFAULT_PATH, Listener};
