//! Methods that change what hosts see: transport, subsystems, listeners, namespaces, hosts.
//!
//! What SPDK can do and we cannot is refused, and never taken for granted: a secure channel that
//! is not secure would be worse than an error.

use std::collections::BTreeMap;

use serde::Deserialize;
use uuid::Uuid;

use super::params::{Params, object};
use super::{Called, answer, done, listeners};
use crate::address::is_tcp;
use crate::error::{Failure, RpcError};
use crate::gateway::{Gateway, NewNamespace, NewSubsystem, TransportOptions};

/// The only target there is. Clients may name it.
pub(super) const TARGET: &str = "nvmf_tgt";

pub(super) async fn call(gateway: &dyn Gateway, params: Params<'_>) -> Called {
    Some(match params.method {
        "nvmf_set_config" => done(set_config(params)),
        "nvmf_set_max_subsystems" => done(set_max_subsystems(gateway, params)),
        "nvmf_create_transport" => done(create_transport(gateway, params).await),
        "nvmf_create_subsystem" => done(create_subsystem(gateway, params).await),
        "nvmf_delete_subsystem" => done(delete_subsystem(gateway, params).await),
        "nvmf_subsystem_add_listener" => done(listeners::add(gateway, params).await),
        "nvmf_subsystem_remove_listener" => done(listeners::remove(gateway, params).await),
        "nvmf_subsystem_listener_set_ana_state" => {
            done(listeners::set_ana_state(gateway, params).await)
        }
        "nvmf_subsystem_add_ns" => add_namespace(gateway, params).await.and_then(answer),
        "nvmf_subsystem_remove_ns" => done(remove_namespace(gateway, params).await),
        "nvmf_subsystem_add_host" => done(add_host(gateway, params).await),
        "nvmf_subsystem_remove_host" => done(remove_host(gateway, params).await),
        "nvmf_subsystem_allow_any_host" => done(allow_any_host(gateway, params).await),
        _ => return None,
    })
}

/// Checks the name of the target, if there is one.
pub(super) fn check_target(name: Option<&String>) -> Result<(), RpcError> {
    match name {
        Some(name) if name != TARGET => Err(RpcError::NO_TARGET),
        _ => Ok(()),
    }
}

pub(super) fn no_subsystem(nqn: &str) -> RpcError {
    RpcError::invalid(format!("Subsystem with NQN '{nqn}' not found"))
}

/// The error for a failure that concerns a subsystem. Only a surprise is worth a text of its own.
pub(super) fn error_of(failure: &Failure, nqn: &str) -> RpcError {
    match failure {
        Failure::NoSubsystem => no_subsystem(nqn),
        Failure::NotFound | Failure::Exists | Failure::Invalid => RpcError::INVALID_PARAMETERS,
        Failure::Failed(_) => RpcError::internal(failure.reasons()),
    }
}

pub(super) fn check(is_possible: bool) -> Result<(), RpcError> {
    if is_possible { Ok(()) } else { Err(RpcError::INVALID_PARAMETERS) }
}

/// What SPDK's target is told before it starts. Accepted is what holds here anyway.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetConfig {
    /// Our threads are chosen when the gateway starts.
    #[serde(rename = "acceptor_poll_rate")]
    _acceptor_poll_rate: Option<u32>,
    #[serde(rename = "conn_sched")]
    _conn_sched: Option<String>,
    #[serde(rename = "poll_groups_mask")]
    _poll_groups_mask: Option<String>,
    /// What each host may see is all that the discovery log has in any case.
    discovery_filter: Option<String>,
    #[serde(default)]
    discovery_filters: Vec<String>,
    /// Commands to hand on to a real controller. There is none behind a volume.
    #[serde(default)]
    admin_cmd_passthru: BTreeMap<String, bool>,
    #[serde(default)]
    passthru_identify_ctrlr: bool,
    /// Algorithms that hosts may prove themselves with, if they had to.
    #[serde(rename = "dhchap_digests")]
    _dhchap_digests: Option<Vec<String>>,
    #[serde(rename = "dhchap_dhgroups")]
    _dhchap_dhgroups: Option<Vec<String>>,
    dup_host_policy: Option<String>,
}

fn set_config(params: Params<'_>) -> Result<(), RpcError> {
    let wanted: SetConfig = params.decode()?;
    check(wanted.discovery_filter.is_none_or(|filter| filter == "match_any"))?;
    check(wanted.discovery_filters.iter().all(|filter| filter == "match_any"))?;
    check(!wanted.passthru_identify_ctrlr)?;
    check(!wanted.admin_cmd_passthru.values().any(|is_wanted| *is_wanted))?;
    check(wanted.dup_host_policy.is_none_or(|policy| policy == "allow"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetMaxSubsystems {
    max_subsystems: u32,
}

/// Room for so many, which there is up to our limit.
fn set_max_subsystems(gateway: &dyn Gateway, params: Params<'_>) -> Result<(), RpcError> {
    let SetMaxSubsystems { max_subsystems } = params.decode()?;
    let most = gateway.subsystems_max();
    check(max_subsystems > 0)?;
    if max_subsystems > most {
        return Err(RpcError::invalid(format!("There can be {most} subsystems at most")));
    }
    Ok(())
}

/// Unknown members are ignored, as in SPDK: every version of the client has its own, among them
/// sizes of buffer pools that we do not have.
#[derive(Deserialize)]
struct CreateTransport {
    trtype: String,
    tgt_name: Option<String>,
    max_queue_depth: Option<u16>,
    max_io_qpairs_per_ctrlr: Option<u16>,
    in_capsule_data_size: Option<u32>,
    max_io_size: Option<u32>,
    max_aq_depth: Option<u32>,
    c2h_success: Option<bool>,
    kas: Option<u16>,
    min_kato: Option<u32>,
    #[serde(default)]
    dif_insert_or_strip: bool,
}

async fn create_transport(gateway: &dyn Gateway, params: Params<'_>) -> Result<(), RpcError> {
    let wanted: CreateTransport = params.decode()?;
    check_target(wanted.tgt_name.as_ref())?;
    let trtype = wanted.trtype;
    if !is_tcp(&trtype) {
        return Err(RpcError::invalid(format!("Invalid transport type '{trtype}'")));
    }
    check(!wanted.dif_insert_or_strip)?;
    let options = TransportOptions {
        max_queue_depth: wanted.max_queue_depth,
        max_io_qpairs_per_ctrlr: wanted.max_io_qpairs_per_ctrlr,
        in_capsule_data_size: wanted.in_capsule_data_size,
        max_io_size: wanted.max_io_size,
        max_aq_depth: wanted.max_aq_depth,
        c2h_success: wanted.c2h_success,
        kas: wanted.kas,
        min_kato: wanted.min_kato,
    };
    gateway.create_transport(options).await.map_err(|failure| match failure {
        Failure::Exists => RpcError::internal(format!("Transport type '{trtype}' already exists")),
        Failure::Invalid => RpcError::INVALID_PARAMETERS,
        failure => RpcError::internal(format!(
            "Transport type '{trtype}' create failed: {}",
            failure.reasons()
        )),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateSubsystem {
    nqn: String,
    tgt_name: Option<String>,
    serial_number: Option<String>,
    model_number: Option<String>,
    #[serde(default)]
    allow_any_host: bool,
    max_namespaces: Option<u32>,
    min_cntlid: Option<u16>,
    max_cntlid: Option<u16>,
    #[serde(default)]
    ana_reporting: bool,
    /// Saved configurations name the limits that we report. They follow from what we can do, so
    /// there is nothing to set.
    #[serde(rename = "dmrsl")]
    _dmrsl: Option<u64>,
    #[serde(rename = "wzsl")]
    _wzsl: Option<u64>,
    #[serde(default)]
    passthrough: bool,
    #[serde(default)]
    enable_nssr: bool,
}

async fn create_subsystem(gateway: &dyn Gateway, params: Params<'_>) -> Result<(), RpcError> {
    let wanted: CreateSubsystem = params.decode()?;
    check_target(wanted.tgt_name.as_ref())?;
    check(!wanted.passthrough && !wanted.enable_nssr)?;
    let nqn = wanted.nqn.clone();
    let new = NewSubsystem {
        nqn: wanted.nqn,
        serial_number: wanted.serial_number,
        model_number: wanted.model_number,
        allow_any_host: wanted.allow_any_host,
        max_namespaces: wanted.max_namespaces,
        min_cntlid: wanted.min_cntlid,
        max_cntlid: wanted.max_cntlid,
        ana_reporting: wanted.ana_reporting,
    };
    gateway.create_subsystem(new).await.map_err(|failure| match failure {
        Failure::Failed(_) => {
            RpcError::internal(format!("Unable to create subsystem {nqn}: {}", failure.reasons()))
        }
        _ => RpcError::internal(format!("Unable to create subsystem {nqn}")),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeleteSubsystem {
    nqn: String,
    tgt_name: Option<String>,
}

async fn delete_subsystem(gateway: &dyn Gateway, params: Params<'_>) -> Result<(), RpcError> {
    let DeleteSubsystem { nqn, tgt_name } = params.decode()?;
    check_target(tgt_name.as_ref())?;
    gateway.delete_subsystem(&nqn).await.map_err(|failure| error_of(&failure, &nqn))
}

/// Unknown members are ignored, as in SPDK. `anagrpid` is one of them: there is one group, and a
/// state that is set for another is refused.
#[derive(Deserialize)]
struct AddNamespace {
    nqn: String,
    tgt_name: Option<String>,
    #[serde(deserialize_with = "object")]
    namespace: WrittenNamespace,
}

#[derive(Deserialize)]
struct WrittenNamespace {
    bdev_name: String,
    nsid: Option<u32>,
    nguid: Option<String>,
    eui64: Option<String>,
    uuid: Option<Uuid>,
    ptpl_file: Option<String>,
    #[serde(default)]
    no_auto_visible: bool,
}

async fn add_namespace(gateway: &dyn Gateway, params: Params<'_>) -> Result<u32, RpcError> {
    let AddNamespace { nqn, tgt_name, namespace } = params.decode()?;
    check_target(tgt_name.as_ref())?;
    check(namespace.ptpl_file.is_none() && !namespace.no_auto_visible)?;
    check(namespace.nsid.is_none_or(|nsid| nsid != 0 && nsid != u32::MAX))?;
    let new = NewNamespace {
        volume: namespace.bdev_name,
        nsid: namespace.nsid,
        nguid: namespace.nguid.as_deref().map(from_hex).transpose()?,
        eui64: namespace.eui64.as_deref().map(from_hex).transpose()?,
        uuid: namespace.uuid,
    };
    gateway.add_namespace(&nqn, new).await.map_err(|failure| error_of(&failure, &nqn))
}

/// Exactly `N` bytes from hexadecimal digits.
fn from_hex<const N: usize>(text: &str) -> Result<[u8; N], RpcError> {
    let mut bytes = [0; N];
    check(text.len() == 2 * N)?;
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        let value = digit(digits[0]).zip(digit(digits[1])).map(|(high, low)| high << 4 | low);
        *byte =
            value.and_then(|value| u8::try_from(value).ok()).ok_or(RpcError::INVALID_PARAMETERS)?;
    }
    Ok(bytes)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveNamespace {
    nqn: String,
    nsid: u32,
    tgt_name: Option<String>,
}

async fn remove_namespace(gateway: &dyn Gateway, params: Params<'_>) -> Result<(), RpcError> {
    let RemoveNamespace { nqn, nsid, tgt_name } = params.decode()?;
    check_target(tgt_name.as_ref())?;
    gateway.remove_namespace(&nqn, nsid).await.map_err(|failure| error_of(&failure, &nqn))
}

/// Unknown members are ignored, as in SPDK, but not keys of hosts that must prove who they are.
#[derive(Deserialize)]
struct AddHost {
    nqn: String,
    host: String,
    tgt_name: Option<String>,
    psk: Option<String>,
    dhchap_key: Option<String>,
    dhchap_ctrlr_key: Option<String>,
}

async fn add_host(gateway: &dyn Gateway, params: Params<'_>) -> Result<(), RpcError> {
    let AddHost { nqn, host, tgt_name, psk, dhchap_key, dhchap_ctrlr_key } = params.decode()?;
    check_target(tgt_name.as_ref())?;
    check(psk.or(dhchap_key).or(dhchap_ctrlr_key).is_none())?;
    gateway.add_host(&nqn, &host).await.map_err(|failure| error_of(&failure, &nqn))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveHost {
    nqn: String,
    host: String,
    tgt_name: Option<String>,
    /// How long commands under way may take. They are finished, however long that takes.
    #[serde(rename = "timeout_ms")]
    _timeout_ms: Option<u32>,
}

async fn remove_host(gateway: &dyn Gateway, params: Params<'_>) -> Result<(), RpcError> {
    let RemoveHost { nqn, host, tgt_name, .. } = params.decode()?;
    check_target(tgt_name.as_ref())?;
    gateway.remove_host(&nqn, &host).await.map_err(|failure| error_of(&failure, &nqn))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AllowAnyHost {
    nqn: String,
    allow_any_host: bool,
    tgt_name: Option<String>,
}

async fn allow_any_host(gateway: &dyn Gateway, params: Params<'_>) -> Result<(), RpcError> {
    let AllowAnyHost { nqn, allow_any_host, tgt_name } = params.decode()?;
    check_target(tgt_name.as_ref())?;
    let allowed = gateway.allow_any_host(&nqn, allow_any_host).await;
    allowed.map_err(|failure| error_of(&failure, &nqn))
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn hexadecimal_bytes_are_of_the_right_number() {
        assert_eq!(from_hex("00fFA0"), Ok([0, 0xff, 0xa0]));
        for wrong in ["", "00ff", "00ffa", "00ffa00", "00ffag", "+0ffa0", "0\u{e9}ffa"] {
            assert!(from_hex::<3>(wrong).is_err(), "{wrong}");
        }
    }
}
