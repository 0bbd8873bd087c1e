//! What goes wrong: in an answer, and in the gateway behind it.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use serde::Serialize;

/// An error as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RpcError {
    /// A code of JSON-RPC, or a negative error number of the system.
    pub code: i32,
    /// One line for people.
    pub message: Cow<'static, str>,
}

impl RpcError {
    pub(crate) const INVALID_REQUEST: Self = Self::fixed(-32600, "Invalid request");
    pub(crate) const METHOD_NOT_FOUND: Self = Self::fixed(-32601, "Method not found");
    pub(crate) const INVALID_PARAMETERS: Self = Self::fixed(-32602, "Invalid parameters");
    /// What the methods for volumes say to parameters that do not fit.
    pub(crate) const NOT_DECODED: Self = Self::fixed(-32603, "spdk_json_decode_object failed");
    pub(crate) const FILE_EXISTS: Self = Self::fixed(-17, "File exists");
    pub(crate) const NO_DEVICE: Self = Self::fixed(-19, "No such device");
    pub(crate) const NO_TARGET: Self = Self::fixed(-32603, "Unable to find a target.");
    pub(crate) const TOO_LATE: Self = Self::fixed(
        -1,
        "Method may only be called before framework is initialized. Use --wait-for-rpc command \
         line parameter and then issue this RPC before the framework_start_init RPC.",
    );

    const fn fixed(code: i32, message: &'static str) -> Self {
        Self { code, message: Cow::Borrowed(message) }
    }

    pub(crate) fn invalid(message: String) -> Self {
        Self { code: -32602, message: Cow::Owned(message) }
    }

    pub(crate) fn internal(message: String) -> Self {
        Self { code: -32603, message: Cow::Owned(message) }
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.message, self.code)
    }
}

impl Error for RpcError {}

/// Why the gateway did not do something.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is no subsystem with this NQN.
    #[error("no such subsystem")]
    NoSubsystem,
    /// There is no such volume, image, listener, namespace, host or log flag.
    #[error("no such thing")]
    NotFound,
    /// It is there already.
    #[error("it exists already")]
    Exists,
    /// A value that makes no sense, or that is out of range.
    #[error("invalid value")]
    Invalid,
    /// It was tried and did not work. The chain of sources is for the client's eyes.
    #[error("failed")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

impl Failure {
    /// The causes in one line, outermost first.
    pub(crate) fn reasons(&self) -> String {
        let mut cause: Option<&dyn Error> = match self {
            Self::Failed(source) => Some(&**source),
            other => Some(other),
        };
        let mut text = String::new();
        while let Some(error) = cause {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::num::ParseIntError);

    #[test]
    fn reasons_go_from_the_outside_in() {
        let inner = "x".parse::<u8>().unwrap_err();
        let failure = Failure::Failed(Box::new(Outer(inner.clone())));
        assert_eq!(failure.reasons(), format!("outer: {inner}"));
        assert_eq!(Failure::Exists.reasons(), "it exists already");
    }
}
