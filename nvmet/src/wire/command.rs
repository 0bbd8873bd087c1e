//! Commands, parsed once from a checked [`Sqe`](super::Sqe) into closed types.
//!
//! What a command may be depends on the queue it came on, so each kind of queue has its own enum.
//! A parse fails with the status to answer with. Namespaces, limits and rights are checked by those
//! who have them.

mod admin;
mod fabrics;
mod io;
mod reservation;

pub use admin::{
    AdminCommand, AdminOpcode, FeatureSelect, GetFeatures, GetLogPage, Identify, IdentifyKind,
    LogPageId, SetFeatures,
};
pub use fabrics::{Connect, ConnectData, ConnectError, FabricsCommand};
pub use io::{Blocks, IoCommand, IoOpcode, IoOperation, RANGE_BYTES, RANGES_BYTES_MAX, ranges};
pub use reservation::{
    AcquireAction, PersistChange, RegisterAction, ReleaseAction, Reservation, ReservationType,
};
