//! One module for each command, and what they share.

mod create;
mod delete;
mod info;
mod list;
mod objinfo;
mod resize;

use lsvd_cli::{Negative, Pool, Talk};
use lsvd_engine::{Error, ErrorKind};

pub(crate) use create::create;
pub(crate) use delete::delete;
pub(crate) use info::info;
pub(crate) use list::list;
pub(crate) use objinfo::objinfo;
pub(crate) use resize::resize;

/// Where a command works, and how it speaks.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) pool: Pool,
    pub(crate) talk: Talk,
    /// One JSON document in place of text.
    pub(crate) json: bool,
}

/// An engine error as this program reports it: an answer, or a failure.
pub(crate) fn outcome(error: Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::Exists | ErrorKind::InUse => {
            Negative(error.report()).into()
        }
        ErrorKind::Corrupt => {
            let hint = "objinspect POOL IMAGE/superblock shows what is left of it";
            anyhow::anyhow!("{}; {hint}", error.report())
        }
        _ => error.into(),
    }
}
