//! Listeners of subsystems, and how good the paths through them are.
//!
//! SPDK has a state for each ANA group of a listener, and as many groups as a subsystem may have
//! namespaces. Here all namespaces are in one group, because a path is good or bad for the gateway
//! as a whole. A call that means any other group is refused.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::nvmf::{check, check_target, error_of, no_subsystem};
use super::nvmf_report::{OfSubsystem, find};
use super::params::{Params, object};
use crate::address::{Address, WrittenAddress};
use crate::error::{Failure, RpcError};
use crate::gateway::{Gateway, PathState, SubsystemListener};

/// The group that all namespaces are in.
pub(super) const ANA_GROUP: u32 = 1;

/// What SPDK takes for every group.
const ALL_GROUPS: u32 = 0;

/// A state as clients write it, in any case.
fn from_name(name: &str) -> Option<PathState> {
    let states = [PathState::Optimized, PathState::NonOptimized, PathState::Inaccessible];
    states.into_iter().find(|state| name.eq_ignore_ascii_case(name_of(*state)))
}

/// A state as clients read it.
pub(super) fn name_of(state: PathState) -> &'static str {
    match state {
        PathState::Optimized => "optimized",
        PathState::NonOptimized => "non_optimized",
        PathState::Inaccessible => "inaccessible",
    }
}

/// Unknown members are ignored, as in SPDK.
#[derive(Deserialize)]
struct AddListener {
    nqn: String,
    tgt_name: Option<String>,
    #[serde(deserialize_with = "object")]
    listen_address: WrittenAddress,
    #[serde(default)]
    secure_channel: bool,
    ana_state: Option<String>,
}

pub(super) async fn add(gateway: &dyn Gateway, params: Params<'_>) -> Result<(), RpcError> {
    let wanted: AddListener = params.decode()?;
    check_target(wanted.tgt_name.as_ref())?;
    check(!wanted.secure_channel)?;
    let state = match wanted.ana_state {
        Some(name) => from_name(&name).ok_or(RpcError::INVALID_PARAMETERS)?,
        None => PathState::default(),
    };
    let address = resolve(gateway, &wanted.nqn, &wanted.listen_address).await?;
    let added = gateway.add_listener(&wanted.nqn, SubsystemListener { address, state }).await;
    added.map_err(|failure| error_of(&failure, &wanted.nqn))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveListener {
    nqn: String,
    tgt_name: Option<String>,
    #[serde(deserialize_with = "object")]
    listen_address: WrittenAddress,
}

pub(super) async fn remove(gateway: &dyn Gateway, params: Params<'_>) -> Result<(), RpcError> {
    let RemoveListener { nqn, tgt_name, listen_address } = params.decode()?;
    check_target(tgt_name.as_ref())?;
    let address = resolve(gateway, &nqn, &listen_address).await?;
    let removed = gateway.remove_listener(&nqn, address).await;
    removed.map_err(|failure| error_of(&failure, &nqn))
}

async fn resolve(
    gateway: &dyn Gateway,
    nqn: &str,
    written: &WrittenAddress,
) -> Result<SocketAddr, RpcError> {
    match written.resolve() {
        Some(address) => Ok(address),
        None => {
            // The subsystem is looked for first, so that is what is told if both are wrong.
            find(gateway, nqn).await?;
            Err(RpcError::INVALID_PARAMETERS)
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetAnaState {
    nqn: String,
    tgt_name: Option<String>,
    #[serde(deserialize_with = "object")]
    listen_address: WrittenAddress,
    ana_state: String,
    anagrpid: Option<u32>,
}

pub(super) async fn set_ana_state(
    gateway: &dyn Gateway,
    params: Params<'_>,
) -> Result<(), RpcError> {
    let SetAnaState { nqn, tgt_name, listen_address, ana_state, anagrpid } = params.decode()?;
    check_target(tgt_name.as_ref())?;
    let state = from_name(&ana_state).ok_or(RpcError::INVALID_PARAMETERS)?;
    let address = resolve(gateway, &nqn, &listen_address).await?;
    // SPDK's code, and the beginning of its text; it ends with a number of the system.
    let not_set = |why: String| RpcError::internal(format!("error setting ANA state: {why}"));
    let group = anagrpid.unwrap_or(ALL_GROUPS);
    if ![ALL_GROUPS, ANA_GROUP].contains(&group) {
        return Err(not_set(format!(
            "there is no ANA group {group}; all namespaces are in group {ANA_GROUP}"
        )));
    }
    gateway.set_path_state(&nqn, address, state).await.map_err(|failure| match failure {
        Failure::NoSubsystem => no_subsystem(&nqn),
        Failure::NotFound => not_set(format!("subsystem {nqn} has no listener at {address}")),
        Failure::Invalid => not_set(format!("subsystem {nqn} was created without ana_reporting")),
        failure => not_set(failure.reasons()),
    })
}

#[derive(Serialize)]
pub(super) struct ListenerEntry {
    address: Address,
    #[serde(skip_serializing_if = "Option::is_none")]
    ana_states: Option<[AnaState; 1]>,
}

#[derive(Serialize)]
struct AnaState {
    ana_group: u32,
    ana_state: &'static str,
}

pub(super) async fn get(
    gateway: &dyn Gateway,
    params: Params<'_>,
) -> Result<Vec<ListenerEntry>, RpcError> {
    let subsystem = find(gateway, &OfSubsystem::decode(params)?).await?;
    let reports_ana = subsystem.nvm.is_some_and(|nvm| nvm.ana_reporting);
    let entry = |listener: SubsystemListener| {
        let state = AnaState { ana_group: ANA_GROUP, ana_state: name_of(listener.state) };
        ListenerEntry {
            address: listener.address.into(),
            ana_states: reports_ana.then_some([state]),
        }
    };
    Ok(subsystem.listeners.into_iter().map(entry).collect())
}
