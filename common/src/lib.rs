//! Every byte of every format of the log-structured virtual disk, and nothing else: no I/O, no
//! clock, no logging.
//!
//! The formats are described for people in `docs/FORMAT.md`; a test compares its tables with
//! [`layout::LAYOUTS`].
//!
//! ```
//! use lsvd_common::name::{ImageName, ObjectName};
//! let image = ImageName::parse("disk1")?;
//! assert_eq!(image.numbered(lsvd_common::ids::ObjectSeq(31)), "disk1/000000000000001f");
//! # Ok::<(), lsvd_common::name::NameError>(())
//! ```
#![forbid(unsafe_code)]
#![deny(clippy::cast_possible_truncation)]

pub mod cache_file;
pub mod checksum;
pub mod codec;
pub mod ids;
pub mod layout;
pub mod limits;
pub mod log;
pub mod name;
pub mod object;
pub mod units;
