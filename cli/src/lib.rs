//! The manners that all command-line programs of this project share: exit codes, the error line,
//! the pool, sizes and times for people, JSON for programs, questions and progress.
//!
//! Data goes to stdout, talk to stderr. A program ends with 0 when it did what was asked, 1 when
//! the answer is no (no such image, in use, declined) and 2 when it failed, bad usage included. A
//! reader that goes away (`| head`) is success. With `--json`, stdout gets exactly one document
//! when the program did its work, and nothing when it failed.
//!
//! ```
//! assert_eq!(lsvd_cli::human::parse_size("100g"), Ok(107_374_182_400));
//! assert_eq!(lsvd_cli::human::exact_bytes(107_374_182_400), "100 GiB (107374182400 bytes)");
//! ```
#![forbid(unsafe_code)]

mod ask;
mod ceph;
mod exit;
pub mod human;
mod output;
mod pool;
mod progress;
mod talk;

pub use ask::{Consent, ask};
pub use ceph::CephFlags;
pub use exit::{Answer, Negative, block_on, main_with};
pub use output::{Stdout, print_json, print_text, table};
pub use pool::{Pool, WhenMissing};
pub use progress::Progress;
pub use talk::Talk;
