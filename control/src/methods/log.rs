//! Methods about what is logged.
//!
//! SPDK tells what it logs from what it prints. We do not: either level is the one there is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::params::Params;
use super::{Called, answer, done};
use crate::error::RpcError;
use crate::gateway::{Gateway, LogLevel};

pub(super) fn call(gateway: &dyn Gateway, params: Params<'_>) -> Called {
    Some(match params.method {
        "log_get_level" | "log_get_print_level" => {
            params.none().and_then(|()| answer(Level::of(gateway.log_level())))
        }
        "log_set_level" | "log_set_print_level" => done(set_level(gateway, params)),
        "log_get_flags" => params.none().and_then(|()| {
            let flags: BTreeMap<_, _> = gateway.log_flags().into_iter().collect();
            answer(flags)
        }),
        "log_set_flag" => done(set_flag(gateway, params, true)),
        "log_clear_flag" => done(set_flag(gateway, params, false)),
        _ => return None,
    })
}

/// A level as clients spell it, in any case.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Level {
    Error,
    Warning,
    Notice,
    Info,
    Debug,
}

impl Level {
    fn of(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warning => Self::Warning,
            LogLevel::Notice => Self::Notice,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetLevel {
    level: String,
}

fn set_level(gateway: &dyn Gateway, params: Params<'_>) -> Result<(), RpcError> {
    let SetLevel { level } = params.decode()?;
    let level = match level.to_ascii_uppercase().as_str() {
        "ERROR" => LogLevel::Error,
        "WARNING" => LogLevel::Warning,
        "NOTICE" => LogLevel::Notice,
        "INFO" => LogLevel::Info,
        "DEBUG" => LogLevel::Debug,
        _ => return Err(RpcError::INVALID_PARAMETERS),
    };
    gateway.set_log_level(level);
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Flag {
    flag: String,
}

fn set_flag(gateway: &dyn Gateway, params: Params<'_>, on: bool) -> Result<(), RpcError> {
    let Flag { flag } = params.decode()?;
    let flags = if flag == "all" {
        gateway.log_flags().into_iter().map(|(flag, _)| flag).collect()
    } else {
        vec![flag]
    };
    for flag in flags {
        gateway.set_log_flag(&flag, on).map_err(|_| RpcError::INVALID_PARAMETERS)?;
    }
    Ok(())
}
