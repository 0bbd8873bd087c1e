//! A saved configuration: the file that the client's `save_config` writes.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::RpcError;
use crate::gateway::Gateway;
use crate::methods::{METHODS, STARTUP_ONLY, call};

/// One call of a saved configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedCall {
    /// The method's name.
    pub method: String,
    /// An object, or nothing.
    #[serde(default)]
    pub params: Option<Box<RawValue>>,
}

/// Why a saved configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// It is not what `save_config` writes.
    #[error("not a saved configuration")]
    Json(#[from] serde_json::Error),
    /// It has a method that we do not have.
    #[error("unknown method {0:?}")]
    UnknownMethod(String),
}

#[derive(Deserialize)]
struct File {
    subsystems: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    /// Empty parts are saved as `null` by some clients.
    config: Option<Vec<Entry>>,
}

/// A call, or a batch of them.
#[derive(Deserialize)]
#[serde(transparent)]
struct Entry(Box<RawValue>);

/// The calls of a saved configuration in their order. All methods are checked before any is called.
///
/// Calls that size the memory of SPDK before it starts are left out, as the client does when it
/// loads a configuration at run time.
pub fn saved_calls(text: &str) -> Result<Vec<SavedCall>, SavedError> {
    let file: File = serde_json::from_str(text)?;
    let mut calls = Vec::new();
    for Entry(entry) in file.subsystems.into_iter().flat_map(|part| part.config.unwrap_or_default())
    {
        if entry.get().starts_with('[') {
            calls.extend(serde_json::from_str::<Vec<SavedCall>>(entry.get())?);
        } else {
            calls.push(serde_json::from_str(entry.get())?);
        }
    }
    calls.retain(|call| !STARTUP_ONLY.contains(&call.method.as_str()));
    match calls.iter().find(|call| !METHODS.contains(&call.method.as_str())) {
        Some(unknown) => Err(SavedError::UnknownMethod(unknown.method.clone())),
        None => Ok(calls),
    }
}

impl SavedCall {
    /// Carries out the call, as if a client had made it. A signal that it asks for is not sent.
    pub async fn run(&self, gateway: &dyn Gateway) -> Result<Box<RawValue>, RpcError> {
        let params = self.params.as_deref().filter(|params| params.get() != "null");
        Ok(call(gateway, &self.method, params).await?.result)
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn methods(text: &str) -> Result<Vec<String>, SavedError> {
        Ok(saved_calls(text)?.into_iter().map(|call| call.method).collect())
    }

    #[test]
    fn calls_come_in_their_order_and_batches_are_flat() {
        let text = r#"{"subsystems":[{"subsystem":"x","config":null},
            {"subsystem":"bdev","config":[{"method":"bdev_set_options","params":{"a":1}},
                [{"method":"bdev_lsvd_create","params":{}},{"method":"bdev_wait_for_examine"}]]},
            {"subsystem":"nvmf","config":[{"method":"nvmf_create_transport","params":null}]}]}"#;
        assert_eq!(
            methods(text).unwrap(),
            ["bdev_lsvd_create", "bdev_wait_for_examine", "nvmf_create_transport"]
        );
    }

    #[test]
    fn unknown_methods_and_other_texts_are_refused() {
        let text =
            r#"{"subsystems":[{"subsystem":"bdev","config":[{"method":"bdev_aio_create"}]}]}"#;
        assert!(
            matches!(methods(text), Err(SavedError::UnknownMethod(name)) if name.contains("aio"))
        );
        for text in ["", "{}", "[]", r#"{"subsystems":[{"config":[{"params":{}}]}]}"#] {
            assert!(matches!(methods(text), Err(SavedError::Json(_))), "{text}");
        }
    }
}
