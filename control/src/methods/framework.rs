//! Methods about the program's parts, and the configuration that would bring them back.
//!
//! The order of a saved configuration is the order in which it is carried out: volumes before the
//! namespaces that show them, hosts before anyone can connect, and listeners last of all, so that
//! a host that comes back finds its subsystem whole. A listener comes with the state of its paths,
//! which SPDK does not save: set by a call of its own, it would leave hosts until then on a path that
//! they were sent away from.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::listeners::{ANA_GROUP, name_of};
use super::nvmf_report::{TransportEntry, hex};
use super::params::Params;
use super::{Called, answer, done};
use crate::address::Address;
use crate::error::RpcError;
use crate::gateway::{Gateway, Namespace, NvmSubsystem, PathState, Subsystem};

pub(super) async fn call(gateway: &dyn Gateway, params: Params<'_>) -> Called {
    Some(match params.method {
        "framework_get_subsystems" => params.none().and_then(|()| answer(PARTS)),
        "framework_get_config" => get_config(gateway, params).await.and_then(answer),
        // Initialization goes on by itself, so that starting it is waiting for its end.
        "framework_wait_init" | "framework_start_init" => match params.none() {
            Ok(()) => {
                gateway.wait_init().await;
                answer(true)
            }
            error => done(error),
        },
        _ => return None,
    })
}

/// A part of the program, which SPDK calls a subsystem, too.
#[derive(Serialize)]
struct Part {
    subsystem: &'static str,
    depends_on: &'static [&'static str],
}

/// Each after those that it depends on.
const PARTS: [Part; 2] = [
    Part { subsystem: "bdev", depends_on: &[] },
    Part { subsystem: "nvmf", depends_on: &["bdev"] },
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetConfig {
    name: String,
    /// Calls that may go in one batch; that saves nothing here.
    #[serde(default, rename = "with_batches")]
    _with_batches: bool,
}

async fn get_config(gateway: &dyn Gateway, params: Params<'_>) -> Result<Vec<Call>, RpcError> {
    let GetConfig { name, .. } = params.decode()?;
    match name.as_str() {
        "bdev" => volumes(gateway).await,
        "nvmf" => exports(gateway).await,
        _ => Err(RpcError::invalid(format!("Subsystem '{name}' not found"))),
    }
}

/// One call of a saved configuration.
#[derive(Serialize)]
struct Call {
    method: &'static str,
    params: Box<RawValue>,
}

impl Call {
    fn new(method: &'static str, params: impl Serialize) -> Result<Self, RpcError> {
        Ok(Self { method, params: answer(params)? })
    }
}

#[derive(Serialize)]
struct CreateVolume {
    image_name: String,
    pool_name: String,
    config: String,
}

async fn volumes(gateway: &dyn Gateway) -> Result<Vec<Call>, RpcError> {
    let call = |volume: crate::gateway::Volume| {
        let params = CreateVolume {
            image_name: volume.name,
            pool_name: volume.pool,
            // Inline, whatever it was: the file may be another one by the time it is read again.
            config: volume.settings.to_json(),
        };
        Call::new("bdev_lsvd_create", params)
    };
    gateway.volumes().await.into_iter().map(call).collect()
}

async fn exports(gateway: &dyn Gateway) -> Result<Vec<Call>, RpcError> {
    let subsystems = gateway.subsystems().await;
    let mut calls = Vec::new();
    if let Some(transport) = gateway.transport().await {
        calls.push(Call::new("nvmf_create_transport", TransportEntry::of(transport))?);
    }
    for subsystem in &subsystems {
        let Some(nvm) = &subsystem.nvm else { continue };
        calls.push(Call::new("nvmf_create_subsystem", create_subsystem(subsystem, nvm))?);
        for host in &subsystem.hosts {
            let params = AddHost { nqn: &subsystem.nqn, host };
            calls.push(Call::new("nvmf_subsystem_add_host", params)?);
        }
        for namespace in &nvm.namespaces {
            let params = add_namespace(&subsystem.nqn, nvm, namespace);
            calls.push(Call::new("nvmf_subsystem_add_ns", params)?);
        }
    }
    for subsystem in &subsystems {
        for listener in &subsystem.listeners {
            let params = AddListener {
                nqn: &subsystem.nqn,
                listen_address: listener.address.into(),
                secure_channel: false,
                ana_state: (listener.state != PathState::default())
                    .then(|| name_of(listener.state)),
            };
            calls.push(Call::new("nvmf_subsystem_add_listener", params)?);
        }
    }
    Ok(calls)
}

#[derive(Serialize)]
struct CreateSubsystem<'a> {
    nqn: &'a str,
    allow_any_host: bool,
    serial_number: &'a str,
    model_number: &'a str,
    max_namespaces: u32,
    min_cntlid: u16,
    max_cntlid: u16,
    ana_reporting: bool,
    dmrsl: u32,
    wzsl: u8,
    passthrough: bool,
    enable_nssr: bool,
}

fn create_subsystem<'a>(subsystem: &'a Subsystem, nvm: &'a NvmSubsystem) -> CreateSubsystem<'a> {
    CreateSubsystem {
        nqn: &subsystem.nqn,
        allow_any_host: subsystem.allow_any_host,
        serial_number: &nvm.serial_number,
        model_number: &nvm.model_number,
        max_namespaces: nvm.max_namespaces,
        min_cntlid: nvm.min_cntlid,
        max_cntlid: nvm.max_cntlid,
        ana_reporting: nvm.ana_reporting,
        dmrsl: nvm.dmrsl,
        wzsl: nvm.wzsl,
        passthrough: false,
        enable_nssr: false,
    }
}

#[derive(Serialize)]
struct AddHost<'a> {
    nqn: &'a str,
    host: &'a str,
}

#[derive(Serialize)]
struct AddNamespace<'a> {
    nqn: &'a str,
    namespace: WrittenNamespace<'a>,
}

#[derive(Serialize)]
struct WrittenNamespace<'a> {
    nsid: u32,
    bdev_name: &'a str,
    nguid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    eui64: Option<String>,
    uuid: Uuid,
    /// SPDK would make a group for each namespace otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    anagrpid: Option<u32>,
    no_auto_visible: bool,
}

fn add_namespace<'a>(
    nqn: &'a str,
    nvm: &NvmSubsystem,
    namespace: &'a Namespace,
) -> AddNamespace<'a> {
    let namespace = WrittenNamespace {
        nsid: namespace.nsid,
        bdev_name: &namespace.volume,
        nguid: hex(&namespace.nguid),
        eui64: namespace.eui64.map(|eui64| hex(&eui64)),
        uuid: namespace.uuid,
        anagrpid: nvm.ana_reporting.then_some(ANA_GROUP),
        no_auto_visible: false,
    };
    AddNamespace { nqn, namespace }
}

#[derive(Serialize)]
struct AddListener<'a> {
    nqn: &'a str,
    listen_address: Address,
    secure_channel: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ana_state: Option<&'static str>,
}
