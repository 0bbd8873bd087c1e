//! A minimal NVMe/TCP initiator: a library for tests and benches, without a kernel.
//!
//! A [`Queue`] is one connection. Its owner submits commands and takes completions, so that one
//! task drives any queue depth:
//!
//! ```no_run
//! use lsvd_initiator::{Command, Controller, Options};
//!
//! async fn run() -> Result<(), lsvd_initiator::Error> {
//!     let address = ([127, 0, 0, 1], 4420).into();
//!     let options = Options::new("nqn.2019-05.io.lsvd:cnode1");
//!     let mut controller = Controller::connect(address, options).await?;
//!     controller.set_queues(1).await?;
//!     let mut queue = controller.open_queue(1, 33).await?;
//!     for lba in 0..32 {
//!         queue.submit(Command::read(1, lba, 1, 4096))?;
//!     }
//!     for _ in 0..32 {
//!         queue.next_completion().await?.ok()?;
//!     }
//!     controller.disconnect().await
//! }
//! ```
//!
//! It is also a judge: a PDU that the specification does not allow, a transfer with a gap, an R2T
//! too many or a completion too early is an [`Error::Violation`], and never passed over. PDUs are
//! therefore encoded and decoded here a second time ([`pdu`]), apart from the target's own code; a
//! field at a wrong place cannot cancel itself out. For peers that do not behave there is
//! [`RawPeer`].
#![forbid(unsafe_code)]

mod command;
mod controller;
mod error;
mod exchange;
mod histogram;
mod load;
pub mod pdu;
mod queue;
mod raw;

pub use command::{Command, Completion, ConnectParameters, Range, Tag};
pub use controller::{Controller, Identity, NamespaceIdentity, Options};
pub use error::{Error, Violation};
pub use histogram::Histogram;
pub use load::{Operation, Report, Until, Workload, drive};
pub use queue::{Queue, QueueOptions};
pub use raw::{Ended, RawPeer};
