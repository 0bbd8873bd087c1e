//! Parameters of a method, as strictly decoded as SPDK does for that method.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::envelope::starts_with;
use crate::error::RpcError;
use crate::suggest::suggestion;

/// Parameters as they came.
#[derive(Clone, Copy)]
pub(super) struct Params<'a> {
    pub(super) method: &'a str,
    pub(super) given: Option<&'a RawValue>,
}

impl Params<'_> {
    /// For methods without parameters: not even empty ones may be given.
    pub(super) fn none(self) -> Result<(), RpcError> {
        match self.given {
            None => Ok(()),
            Some(_) => {
                let method = self.method;
                Err(RpcError::invalid(format!("{method} method requires no parameters")))
            }
        }
    }

    /// Decodes an object. Whether unknown keys are errors is up to the type.
    pub(super) fn decode<T: DeserializeOwned>(self) -> Result<T, RpcError> {
        self.decode_or(RpcError::INVALID_PARAMETERS)
    }

    /// Decodes an object, with an error of the caller's choice.
    pub(super) fn decode_or<T: DeserializeOwned>(self, error: RpcError) -> Result<T, RpcError> {
        match self.given {
            None => serde_json::from_str("{}").map_err(|_| error),
            Some(given) => from_object(given).map_err(|_| error),
        }
    }

    /// Decodes an object for a method of our own, and explains what is wrong with it.
    pub(super) fn decode_own<T: DeserializeOwned>(self, known: &[&str]) -> Result<T, RpcError> {
        let wrong =
            |error: serde_json::Error| RpcError::invalid(format!("{}: {error}", self.method));
        let text = self.given.map_or("{}", RawValue::get);
        let object: BTreeMap<Cow<'_, str>, &RawValue> =
            serde_json::from_str(text).map_err(wrong)?;
        if let Some(key) = object.keys().find(|key| !known.contains(&&***key)) {
            return Err(RpcError::invalid(format!(
                "{}: unknown parameter {key:?}{}",
                self.method,
                suggestion(key, known)
            )));
        }
        serde_json::from_str(text).map_err(wrong)
    }
}

/// Decodes an object. The parser alone would take an array for a struct, too.
pub(super) fn from_object<T: DeserializeOwned>(value: &RawValue) -> Result<T, serde_json::Error> {
    if !starts_with(value, b'{') {
        return Err(serde_json::Error::custom("not an object"));
    }
    serde_json::from_str(value.get())
}

/// For fields that are objects themselves.
pub(super) fn object<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    value: D,
) -> Result<T, D::Error> {
    from_object(<&RawValue>::deserialize(value)?).map_err(D::Error::custom)
}
