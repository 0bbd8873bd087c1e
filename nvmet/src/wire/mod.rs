//! The formats of NVMe base 2.0, the NVM command set 1.0 and NVMe/TCP 1.0.
//!
//! Bytes become closed types here, once; nothing past this module looks at a raw field. The target
//! core and the initiator share it, so most formats have both directions.
//!
//! Does not: keep state, look up namespaces, or know how long a queue is.
//! Invariants: 1. no function panics or allocates by a length that a peer chose. 2. reserved bits
//! are ignored (base 2.0, section 1.4.1.6), except where ignoring one would mean doing less than
//! the host asked for and reporting success.
//!
//! Section numbers without a name are those of NVMe base 2.0; "TCP" is NVMe/TCP 1.0, "NVM" the NVM
//! command set 1.0. Lengths are in bytes and "blocks" are logical blocks of a namespace.

pub mod async_event;
pub mod command;
pub mod cqe;
pub mod features;
pub mod identify;
pub mod log_page;
pub mod nqn;
pub mod pdu;
pub mod property;
pub mod sgl;
pub mod sqe;
pub mod status;
mod text;

pub use async_event::{AsyncEvent, AsyncEventMask};
pub use command::{AdminCommand, FabricsCommand, IoCommand};
pub use cqe::Cqe;
pub use nqn::{Nqn, NqnError};
pub use pdu::{Digests, Direction, PduFrame, PduKind, TermError};
pub use sgl::{DataRule, DataSource, Sgl};
pub use sqe::Sqe;
pub use status::Status;
