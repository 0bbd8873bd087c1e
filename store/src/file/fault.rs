//! What can go wrong below the trait, and the one table from system errors to kinds.

use std::io;
use std::sync::Arc;

use rustix::io::Errno;
use thiserror::Error;

use crate::name::Refused;
use crate::{ErrorKind, Op, StoreError};

/// A failure that does not yet know its operation and object.
#[derive(Debug)]
pub(super) enum Fault {
    /// An answer of ours.
    Kind(ErrorKind),
    /// The request was refused before anything was done.
    Refused(Refused),
    /// The directory cannot hold a pool.
    Unfit(Unfit),
    /// A system call failed and nothing was changed.
    Io(io::Error),
    /// A system call failed after the change had become visible.
    Landed(io::Error),
}

/// Why a directory cannot hold a pool, or not right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Unfit {
    #[error("the file system keeps no sub-microsecond times, which object versions are made of")]
    CoarseTimes,
    #[error("directories of the pool appear and vanish faster than they can be used")]
    Churn,
}

impl Fault {
    pub(super) fn into_error(self, op: Op, name: &str, place: &Arc<str>) -> StoreError {
        let error = |kind| StoreError::new(kind, op, name).at(Arc::clone(place));
        match self {
            Self::Kind(kind) => error(kind),
            Self::Refused(why) => error(ErrorKind::Invalid).because(why),
            Self::Unfit(why @ Unfit::CoarseTimes) => error(ErrorKind::Invalid).because(why),
            Self::Unfit(why @ Unfit::Churn) => error(ErrorKind::Unavailable).because(why),
            Self::Io(source) => error(kind_of(&source, op)).because(source),
            Self::Landed(source) => error(ErrorKind::Ambiguous).because(source),
        }
    }

    /// Whether some part of the path is missing, or is no directory.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Io(source) if matches!(
            Errno::from_io_error(source),
            Some(Errno::NOENT | Errno::NOTDIR)
        ))
    }
}

fn kind_of(error: &io::Error, op: Op) -> ErrorKind {
    let Some(errno) = Errno::from_io_error(error) else { return ErrorKind::Unavailable };
    match errno {
        // A put creates what is missing, so what is missing is the pool: unmounted or moved away.
        Errno::NOENT if op == Op::Put => ErrorKind::Unavailable,
        Errno::NOENT => ErrorKind::NotFound,
        Errno::NOTDIR if matches!(op, Op::Open | Op::Put) => ErrorKind::Invalid,
        Errno::NOTDIR => ErrorKind::NotFound,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => ErrorKind::Denied,
        Errno::NOSPC | Errno::DQUOT | Errno::MLINK => ErrorKind::Full,
        Errno::NAMETOOLONG | Errno::LOOP | Errno::ISDIR | Errno::XDEV | Errno::FBIG => {
            ErrorKind::Invalid
        }
        Errno::UCLEAN | Errno::BADMSG => ErrorKind::Corrupt,
        _ => ErrorKind::Unavailable,
    }
}

impl From<io::Error> for Fault {
    fn from(source: io::Error) -> Self {
        Self::Io(source)
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl From<Refused> for Fault {
    fn from(why: Refused) -> Self {
        Self::Refused(why)
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn system_errors_say_what_to_do() {
        let table = [
            (Errno::NOSPC, ErrorKind::Full),
            (Errno::DQUOT, ErrorKind::Full),
            (Errno::ACCESS, ErrorKind::Denied),
            (Errno::ROFS, ErrorKind::Denied),
            (Errno::IO, ErrorKind::Unavailable),
            (Errno::MFILE, ErrorKind::Unavailable),
            (Errno::XDEV, ErrorKind::Invalid),
            (Errno::NOENT, ErrorKind::Unavailable),
        ];
        for (errno, kind) in table {
            let error = Fault::from(errno).into_error(Op::Put, "a", &"/pool".into());
            assert_eq!(error.kind(), kind, "{errno}");
        }
        let missing = Fault::from(Errno::NOENT).into_error(Op::Get, "a", &"/pool".into());
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn failure_after_the_object_became_visible_is_ambiguous() {
        let error = Fault::Landed(Errno::IO.into()).into_error(Op::Put, "a", &"/pool".into());
        assert_eq!(error.kind(), ErrorKind::Ambiguous);
    }
}
