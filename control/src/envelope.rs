//! JSON-RPC 2.0 around a method: one request or a batch in, at most one line out.
//!
//! Lenient and strict where SPDK's server is: `jsonrpc` may be left out, other members may not be
//! added, and an id comes back byte for byte.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::error::RpcError;
use crate::limits::ID_BYTES_MAX;

/// A request, checked as far as that goes without knowing its method.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// As written; none for a notification, which gets no answer.
    pub(crate) id: Option<&'a RawValue>,
    pub(crate) method: Cow<'a, str>,
    /// An object or an array.
    pub(crate) params: Option<&'a RawValue>,
}

/// A request that cannot be carried out, and the id that the answer carries.
#[derive(Debug)]
pub(crate) struct Refused<'a> {
    /// The id as written; none if it is not known, which is told as `null`.
    pub(crate) id: Option<&'a RawValue>,
    /// False for a notification.
    pub(crate) answered: bool,
}

impl Refused<'_> {
    const NAMELESS: Self = Self { id: None, answered: true };
}

/// Members as they came; a `null` is told from one that is missing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Members<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: &'a RawValue,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
}

fn present<'de: 'a, 'a, D: Deserializer<'de>>(value: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(value).map(Some)
}

pub(crate) fn starts_with(value: &RawValue, byte: u8) -> bool {
    value.get().as_bytes().first() == Some(&byte)
}

impl<'a> Request<'a> {
    /// Checks one element of a batch, or what came alone.
    pub(crate) fn check(value: &'a RawValue) -> Result<Self, Refused<'a>> {
        // The parser would take an array for a struct, too.
        if !starts_with(value, b'{') {
            return Err(Refused::NAMELESS);
        }
        let members: Members<'a> =
            serde_json::from_str(value.get()).map_err(|_| Refused::NAMELESS)?;
        let is_2_0 = members.jsonrpc.is_none_or(|version| version.get() == "\"2.0\"");
        let id = match members.id.map(RawValue::get).map(str::as_bytes) {
            None | Some([b'n', ..]) => None,
            Some([b'"' | b'-' | b'0'..=b'9', ..]) => members.id,
            Some(_) => return Err(Refused::NAMELESS),
        };
        if !is_2_0 || id.is_some_and(|id| id.get().len() > ID_BYTES_MAX) {
            return Err(Refused::NAMELESS);
        }
        let method: Text<'a> =
            serde_json::from_str(members.method.get()).map_err(|_| Refused::NAMELESS)?;
        let params = members.params.filter(|params| params.get() != "null");
        if params.is_some_and(|params| !starts_with(params, b'{') && !starts_with(params, b'[')) {
            return Err(Refused { id, answered: id.is_some() });
        }
        Ok(Self { id, method: method.0, params })
    }
}

/// A string that is copied only if it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Writes an answer without a newline. An `id` of none is `null`.
pub(crate) fn write_answer(
    out: &mut Vec<u8>,
    id: Option<&RawValue>,
    outcome: Result<&RawValue, &RpcError>,
) {
    // By hand: the id and the result are JSON already.
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.extend_from_slice(id.map_or("null", RawValue::get).as_bytes());
    match outcome {
        Ok(result) => {
            out.extend_from_slice(b",\"result\":");
            out.extend_from_slice(result.get().as_bytes());
        }
        Err(error) => {
            out.extend_from_slice(b",\"error\":");
            serde_json::to_writer(&mut *out, error).expect("a number and a text are JSON");
        }
    }
    out.push(b'}');
}
