//! Methods about the program itself.

use serde::{Deserialize, Serialize};

use super::params::Params;
use super::{Called, METHODS, STARTUP_ONLY, answer};
use crate::error::RpcError;
use crate::gateway::Signal;

pub(super) fn call(params: Params<'_>) -> Called {
    Some(match params.method {
        "spdk_get_version" => params.none().and_then(|()| answer(Version::OURS)),
        "rpc_get_methods" => get_methods(params).and_then(answer),
        _ => return None,
    })
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
    fields: VersionFields,
}

#[derive(Serialize)]
struct VersionFields {
    major: u32,
    minor: u32,
    patch: u32,
    suffix: &'static str,
}

impl Version {
    const OURS: Self = Self {
        version: concat!("LSVD v", env!("CARGO_PKG_VERSION")),
        fields: VersionFields {
            major: number(env!("CARGO_PKG_VERSION_MAJOR")),
            minor: number(env!("CARGO_PKG_VERSION_MINOR")),
            patch: number(env!("CARGO_PKG_VERSION_PATCH")),
            suffix: env!("CARGO_PKG_VERSION_PRE"),
        },
    };
}

/// A decimal number, while compiling.
const fn number(text: &str) -> u32 {
    match u32::from_str_radix(text, 10) {
        Ok(number) => number,
        Err(_) => panic!("cargo checks versions"),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetMethods {
    #[serde(default)]
    current: bool,
    /// We have none, so there is nothing to leave out.
    #[serde(default, rename = "include_aliases")]
    _include_aliases: bool,
}

fn get_methods(params: Params<'_>) -> Result<Vec<&'static str>, RpcError> {
    let GetMethods { current, .. } = params.decode()?;
    let startup_only = STARTUP_ONLY.iter().filter(|_| !current);
    Ok(METHODS.iter().chain(startup_only).copied().collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KillInstance {
    sig_name: String,
}

/// The signal to send when the client knows that it will be sent.
pub(super) fn kill_instance(params: Params<'_>) -> Result<Signal, RpcError> {
    let KillInstance { sig_name } = params.decode()?;
    // Numbers as well, as SPDK takes them.
    match sig_name.as_str() {
        "SIGHUP" | "1" => Ok(Signal::Hangup),
        "SIGINT" | "2" => Ok(Signal::Interrupt),
        "SIGQUIT" | "3" => Ok(Signal::Quit),
        "SIGKILL" | "9" => Ok(Signal::Kill),
        "SIGUSR1" | "10" => Ok(Signal::User1),
        "SIGTERM" | "15" => Ok(Signal::Terminate),
        _ => Err(RpcError::INVALID_PARAMETERS),
    }
}
