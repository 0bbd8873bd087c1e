//! What can go wrong with a volume, as kinds that tell the caller what to do.

use std::fmt;
use std::sync::Arc;

use lsvd_common::codec::DecodeError;
use lsvd_store::StoreError;

/// Result of an engine operation.
pub type Result<T> = std::result::Result<T, Error>;

/// What the caller must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The range is outside the image or not aligned to its sectors. The caller's mistake; nothing
    /// was done.
    OutOfRange,
    /// The image cannot be written. Open it otherwise, or not at all.
    ReadOnly,
    /// Another gateway took the image over. Final: this volume acknowledges nothing any more.
    Fenced,
    /// Somebody else has the image open. Ask them, or take it over.
    InUse,
    /// There is no such image.
    NotFound,
    /// There is an image of that name.
    Exists,
    /// The store or the SSD does not answer. Retrying may help.
    Unavailable,
    /// Stored bytes are not what was written. They are never returned; see the context for where.
    Corrupt,
    /// No space left on the SSD or in the store.
    Full,
    /// The volume was closed, or is closing.
    Closed,
    /// An operation on the SSD failed before. The volume refuses everything until it is opened anew
    /// and recovered: what it would read back may not be what it acknowledged.
    Failed,
    /// A name, size or option that is not possible.
    Invalid,
}

/// An error with its kind, what was being done, and why it failed. Cheap to clone: many wait for
/// one failure.
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    context: Arc<str>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error without a deeper cause.
    pub fn new(kind: ErrorKind, context: impl Into<Arc<str>>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// An error with its cause.
    pub fn with(
        kind: ErrorKind,
        context: impl Into<Arc<str>>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self { kind, context: context.into(), source: Some(Arc::new(source)) }
    }

    /// A store error, with what was being done.
    pub fn store(context: impl Into<Arc<str>>, source: StoreError) -> Self {
        let kind = match source.kind() {
            lsvd_store::ErrorKind::NotFound => ErrorKind::NotFound,
            lsvd_store::ErrorKind::AlreadyExists => ErrorKind::Exists,
            lsvd_store::ErrorKind::Full => ErrorKind::Full,
            lsvd_store::ErrorKind::Corrupt => ErrorKind::Corrupt,
            lsvd_store::ErrorKind::Invalid => ErrorKind::Invalid,
            lsvd_store::ErrorKind::PreconditionFailed
            | lsvd_store::ErrorKind::Denied
            | lsvd_store::ErrorKind::Unavailable
            | lsvd_store::ErrorKind::Ambiguous => ErrorKind::Unavailable,
        };
        Self::with(kind, context, source)
    }

    /// Bytes that are not what was written, with where they were found.
    pub fn corrupt(context: impl Into<Arc<str>>, source: DecodeError) -> Self {
        Self::with(ErrorKind::Corrupt, context, source)
    }

    /// An SSD error, with what was being done.
    pub fn disk(context: impl Into<Arc<str>>, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Full,
            std::io::ErrorKind::ResourceBusy => ErrorKind::InUse,
            _ => ErrorKind::Unavailable,
        };
        Self::with(kind, context, source)
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The same error under another kind.
    #[must_use]
    pub fn as_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// The whole chain on one line.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = self.context.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.report())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let source: &(dyn std::error::Error + 'static) = self.source.as_deref()?;
        Some(source)
    }
}
