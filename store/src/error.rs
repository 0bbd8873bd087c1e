//! What can go wrong with a store, as kinds that tell the caller what to do.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Result of a store operation.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The operation that an error or a counter belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the variants are the methods of ObjectStore, and opening one")]
pub enum Op {
    Open,
    Put,
    Get,
    GetRange,
    Head,
    List,
    Delete,
}

impl Op {
    /// All operations, in the order of their discriminants.
    pub const ALL: [Self; 7] =
        [Self::Open, Self::Put, Self::Get, Self::GetRange, Self::Head, Self::List, Self::Delete];

    /// Whether the operation changes the store, so that no answer leaves its outcome open.
    #[must_use]
    pub fn is_mutation(self) -> bool {
        matches!(self, Self::Put | Self::Delete)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Put => "put",
            Self::Get => "get",
            Self::GetRange => "get range of",
            Self::Head => "head",
            Self::List => "list",
            Self::Delete => "delete",
        })
    }
}

/// What went wrong, by what the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// There is no such object or pool. An answer, not a fault.
    NotFound,
    /// The name that was to be created is taken. Read it to learn by whom.
    AlreadyExists,
    /// The object is not, or no longer, of the expected version. Read it again before deciding.
    PreconditionFailed,
    /// Permissions or a read-only medium. A human is needed.
    Denied,
    /// The store cannot be reached or had a passing fault; nothing was changed. Retry.
    Unavailable,
    /// No space or quota left; nothing was changed. Free some, then retry.
    Full,
    /// No answer: the change may have happened, or may yet happen. Read back, or retry and compare.
    Ambiguous,
    /// The store holds something it cannot have been given. Do not use it; a human is needed.
    Corrupt,
    /// The request can never succeed: a bad name or range, or a place that cannot be a pool.
    Invalid,
}

impl ErrorKind {
    /// All kinds, in the order of their discriminants.
    pub const ALL: [Self; 9] = [
        Self::NotFound,
        Self::AlreadyExists,
        Self::PreconditionFailed,
        Self::Denied,
        Self::Unavailable,
        Self::Full,
        Self::Ambiguous,
        Self::Corrupt,
        Self::Invalid,
    ];

    fn phrase(self) -> &'static str {
        match self {
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::PreconditionFailed => "changed by someone else in the meantime",
            Self::Denied => "permission denied",
            Self::Unavailable => "store unavailable",
            Self::Full => "no space left",
            Self::Ambiguous => "no answer, it may or may not have happened",
            Self::Corrupt => "damaged",
            Self::Invalid => "invalid request",
        }
    }

    fn advice(self) -> Option<&'static str> {
        match self {
            Self::NotFound
            | Self::AlreadyExists
            | Self::PreconditionFailed
            | Self::Corrupt
            | Self::Invalid => None,
            Self::Denied => Some("check owner, mode and mount options, or the credentials"),
            Self::Unavailable => Some("check the medium or the network, then try again"),
            Self::Full => Some("free some space or raise the quota, then try again"),
            Self::Ambiguous => Some("read it back before relying on either"),
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.phrase())
    }
}

/// A failed store operation: what, on which object, where, and why.
///
/// `Display` is one complete line, cause and advice included, so `Error::source` starts *below* the
/// cause: printing the chain (`{:#}` of anyhow) says nothing twice. [`StoreError::cause`] has it
/// for code.
#[derive(Debug)]
pub struct StoreError {
    kind: ErrorKind,
    op: Op,
    name: Box<str>,
    store: Option<Arc<str>>,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// An error of `op` on `name` (an object, or the prefix of a listing; empty for the whole
    /// pool).
    #[must_use]
    pub fn new(kind: ErrorKind, op: Op, name: &str) -> Self {
        Self { kind, op, name: name.into(), store: None, cause: None }
    }

    /// Adds where it happened, as [`ObjectStore::describe`](crate::ObjectStore::describe) says it.
    #[must_use]
    pub fn at(mut self, store: impl Into<Arc<str>>) -> Self {
        self.store = Some(store.into());
        self
    }

    /// Adds why it happened.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// What went wrong, by what to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The operation that failed.
    #[must_use]
    pub fn op(&self) -> Op {
        self.op
    }

    /// The object, or the prefix of a listing.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The error underneath, if one is known.
    #[must_use]
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.cause.as_deref()
    }

    /// Whether the same call may succeed later without anybody's help. After `Ambiguous` the retry
    /// may meet the first attempt's result: see [`RetryingStore`](crate::RetryingStore).
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, ErrorKind::Unavailable | ErrorKind::Ambiguous)
    }

    /// Whether this is the answer "no such object".
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.op)?;
        match (&*self.name, self.op) {
            ("", Op::Open) => f.write_str(" pool")?,
            ("", _) => f.write_str(" all objects")?,
            // Escaped: a refused name may hold anything, and this line ends in a terminal.
            (name, _) => write!(f, " `{}`", name.escape_debug())?,
        }
        if let Some(store) = &self.store {
            write!(f, " in {store}")?;
        }
        write!(f, ": {}", self.kind)?;
        if let Some(cause) = &self.cause {
            write!(f, " ({cause})")?;
        }
        if let Some(advice) = self.kind.advice() {
            write!(f, "; {advice}")?;
        }
        Ok(())
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_ref().and_then(|cause| cause.source())
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn display_names_operation_object_place_cause_and_remedy() {
        let error = StoreError::new(ErrorKind::Full, Op::Put, "disk1/0000000000000001")
            .at("/var/lib/lsvd/pools/demo")
            .because(std::io::Error::from_raw_os_error(28));
        assert_eq!(
            error.to_string(),
            "put `disk1/0000000000000001` in /var/lib/lsvd/pools/demo: no space left (No space \
             left on device (os error 28)); free some space or raise the quota, then try again"
        );
        assert!(error.source().is_none(), "the cause must not be printed twice");
    }

    #[test]
    fn refused_names_cannot_write_to_the_terminal() {
        let error = StoreError::new(ErrorKind::Invalid, Op::Get, "a\u{1b}[2J");
        assert!(!error.to_string().contains('\u{1b}'));
    }

    #[test]
    fn tables_of_all_variants_are_in_order() {
        assert!(Op::ALL.iter().enumerate().all(|(at, op)| *op as usize == at));
        assert!(ErrorKind::ALL.iter().enumerate().all(|(at, kind)| *kind as usize == at));
    }
}
