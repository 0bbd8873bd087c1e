//! Errors: librados' numbers, with what was attempted.

use thiserror::Error;

/// Result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// librados is not there, or too old.
#[derive(Clone, Debug, Error)]
#[error(
    "librados cannot be loaded ({reason}); install it: package librados2 on Debian and Ubuntu, \
     librados2 or ceph-common elsewhere"
)]
pub struct LoadError {
    pub(crate) reason: String,
}

/// A call that failed.
#[derive(Clone, Debug, Error)]
pub enum Error {
    /// The library is missing.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The configuration file is missing or wrong.
    #[error("read the configuration: {}", std::io::Error::from_raw_os_error(*code))]
    Conf {
        /// The error, as a positive errno(3) number.
        code: i32,
    },
    /// librados said no.
    #[error("{what}: {}", std::io::Error::from_raw_os_error(*code))]
    Failed {
        /// What was attempted.
        what: &'static str,
        /// The error, as a positive errno(3) number.
        code: i32,
    },
    /// A name with a zero byte in it.
    #[error("{what} has a zero byte in it")]
    ZeroByte {
        /// Of what kind the name is.
        what: &'static str,
    },
    /// librados was shut down before it answered.
    #[error("{what}: the connection to the cluster was closed before the answer")]
    Closed {
        /// What was attempted.
        what: &'static str,
    },
}

impl Error {
    /// The error as a positive errno(3) number, if librados gave one.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Failed { code, .. } | Self::Conf { code } => Some(*code),
            Self::Load(_) | Self::ZeroByte { .. } | Self::Closed { .. } => None,
        }
    }
}

/// Turns librados' answer, a number that is negative if it is an error, into a result.
pub(crate) fn check(what: &'static str, answer: i32) -> Result<i32> {
    if answer < 0 { Err(Error::Failed { what, code: answer.saturating_neg() }) } else { Ok(answer) }
}
