//! The methods: a table of their names, and a file for each family.

mod app;
mod bdev;
mod framework;
mod listeners;
mod log;
mod nvmf;
mod nvmf_report;
mod params;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use self::params::Params;
use crate::error::RpcError;
use crate::gateway::{Gateway, Signal};

/// Every method that can be called, in the order in which clients see them.
pub(crate) const METHODS: [&str; 38] = [
    "spdk_get_version",
    "rpc_get_methods",
    "framework_get_config",
    "framework_get_subsystems",
    "framework_wait_init",
    "spdk_kill_instance",
    "log_get_flags",
    "log_clear_flag",
    "log_set_flag",
    "log_get_level",
    "log_set_level",
    "log_get_print_level",
    "log_set_print_level",
    "bdev_get_bdevs",
    "bdev_get_iostat",
    "bdev_reset_iostat",
    "bdev_wait_for_examine",
    "bdev_lsvd_create",
    "bdev_lsvd_delete",
    "bdev_lsvd_resize",
    "nvmf_subsystem_get_listeners",
    "nvmf_subsystem_get_qpairs",
    "nvmf_subsystem_get_controllers",
    "nvmf_get_stats",
    "nvmf_get_targets",
    "nvmf_get_transports",
    "nvmf_create_transport",
    "nvmf_subsystem_allow_any_host",
    "nvmf_subsystem_remove_host",
    "nvmf_subsystem_add_host",
    "nvmf_subsystem_remove_ns",
    "nvmf_subsystem_add_ns",
    "nvmf_subsystem_listener_set_ana_state",
    "nvmf_subsystem_remove_listener",
    "nvmf_subsystem_add_listener",
    "nvmf_delete_subsystem",
    "nvmf_create_subsystem",
    "nvmf_get_subsystems",
];

/// Methods that SPDK takes before it starts, and not after. A configuration that SPDK saved has
/// them; there they are skipped, as by its client, which asks for the methods that are callable now
/// and calls `framework_start_init` for as long as that is one of them. Those that are true of a
/// gateway that runs are carried out when they are called all the same, so that a script that
/// prepares SPDK before its start works; the others size memory that we do not have, and get the
/// answer that SPDK gives at run time.
pub(crate) const STARTUP_ONLY: [&str; 8] = [
    "accel_set_options",
    "bdev_set_options",
    "framework_start_init",
    "iobuf_set_options",
    "nvmf_set_config",
    "nvmf_set_max_subsystems",
    "sock_impl_set_options",
    "sock_set_default_impl",
];

/// What a method did.
#[derive(Debug)]
pub(crate) struct Done {
    /// The result.
    pub(crate) result: Box<RawValue>,
    /// To be sent once the client has the result.
    pub(crate) signal: Option<Signal>,
}

/// Calls a method.
pub(crate) async fn call(
    gateway: &dyn Gateway,
    method: &str,
    given: Option<&RawValue>,
) -> Result<Done, RpcError> {
    let params = Params { method, given };
    if method == "spdk_kill_instance" {
        let signal = app::kill_instance(params)?;
        return Ok(Done { result: answer(true)?, signal: Some(signal) });
    }
    let family = method.split_once('_').map_or("", |(family, _)| family);
    let called = match family {
        "bdev" => bdev::call(gateway, params).await,
        "framework" => framework::call(gateway, params).await,
        "log" => log::call(gateway, params),
        "nvmf" => match nvmf_report::call(gateway, params).await {
            None => nvmf::call(gateway, params).await,
            called => called,
        },
        _ => app::call(params),
    };
    match called {
        Some(result) => Ok(Done { result: result?, signal: None }),
        None if STARTUP_ONLY.contains(&method) => Err(RpcError::TOO_LATE),
        None => Err(RpcError::METHOD_NOT_FOUND),
    }
}

/// What a family makes of a call; none if the method is not its own.
type Called = Option<Result<Box<RawValue>, RpcError>>;

/// A result as text, with members in the order of their fields.
fn answer(result: impl Serialize) -> Result<Box<RawValue>, RpcError> {
    to_raw_value(&result).map_err(|error| RpcError::internal(error.to_string()))
}

/// What most methods that change something say.
fn done(outcome: Result<(), RpcError>) -> Result<Box<RawValue>, RpcError> {
    outcome.and_then(|()| answer(true))
}
