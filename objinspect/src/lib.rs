//! Decodes what this project stores, as far as it goes: objects, superblocks, write logs and cache
//! files, whole or damaged, field by field, by the tables of [`lsvd_common::layout`].
//!
//! Does not: open an image, follow references between objects, or write anything. It must work on
//! what the engine refuses, and so depends on the formats alone.
//! Invariants: 1. no input panics. 2. Nothing is read outside the input, whatever its lengths
//! claim. 3. Every field of every layout has a meaning; a test says so.
#![forbid(unsafe_code)]

mod hex;
mod input;
mod meaning;
mod render;
mod report;
mod show;
mod view;
mod walk;

pub use hex::dump;
pub use input::Input;
pub use render::text;
pub use report::{Check, FieldValue, Format, Part, Report, Row, Stopped, Structure, Table, Value};
pub use show::{Form, fetch, show};
pub use walk::{Expected, Options, inspect};
