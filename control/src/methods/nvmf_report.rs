//! Methods that show what hosts see.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::listeners::ANA_GROUP;
use super::nvmf::{TARGET, check_target, error_of, no_subsystem};
use super::params::Params;
use super::{Called, answer, listeners};
use crate::address::{Address, TCP, is_tcp};
use crate::error::RpcError;
use crate::gateway::{Gateway, Namespace, NvmSubsystem, PollGroup, Subsystem, Transport};

pub(super) async fn call(gateway: &dyn Gateway, params: Params<'_>) -> Called {
    Some(match params.method {
        "nvmf_get_transports" => get_transports(gateway, params).await.and_then(answer),
        "nvmf_get_subsystems" => get_subsystems(gateway, params).await.and_then(answer),
        "nvmf_subsystem_get_listeners" => listeners::get(gateway, params).await.and_then(answer),
        "nvmf_subsystem_get_controllers" => get_controllers(gateway, params).await.and_then(answer),
        "nvmf_subsystem_get_qpairs" => get_qpairs(gateway, params).await.and_then(answer),
        "nvmf_get_targets" => params.none().and_then(|()| answer([TARGET])),
        "nvmf_get_stats" => get_stats(gateway, params).await.and_then(answer),
        _ => return None,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetTransports {
    trtype: Option<String>,
    tgt_name: Option<String>,
}

async fn get_transports(
    gateway: &dyn Gateway,
    params: Params<'_>,
) -> Result<Vec<TransportEntry>, RpcError> {
    let GetTransports { trtype, tgt_name } = params.decode()?;
    check_target(tgt_name.as_ref())?;
    let transport = gateway.transport().await.map(TransportEntry::of);
    match (trtype, transport) {
        (None, transport) => Ok(transport.into_iter().collect()),
        (Some(trtype), Some(transport)) if is_tcp(&trtype) => Ok(vec![transport]),
        (Some(_), _) => Err(RpcError::NO_DEVICE),
    }
}

/// What SPDK calls "as many as there are".
const NO_LIMIT: u32 = u32::MAX;

#[derive(Serialize)]
pub(super) struct TransportEntry {
    trtype: &'static str,
    max_queue_depth: u16,
    max_io_qpairs_per_ctrlr: u16,
    in_capsule_data_size: u32,
    max_io_size: u32,
    max_aq_depth: u32,
    iobuf_small_cache_size: u32,
    iobuf_large_cache_size: u32,
    dif_insert_or_strip: bool,
    zcopy: bool,
    c2h_success: bool,
    sock_priority: u32,
    abort_timeout_sec: u32,
    ack_timeout: u32,
    data_wr_pool_size: u32,
    disable_command_passthru: bool,
    kas: u16,
    min_kato: u32,
}

impl TransportEntry {
    pub(super) fn of(transport: Transport) -> Self {
        Self {
            trtype: TCP,
            max_queue_depth: transport.max_queue_depth,
            max_io_qpairs_per_ctrlr: transport.max_io_qpairs_per_ctrlr,
            in_capsule_data_size: transport.in_capsule_data_size,
            max_io_size: transport.max_io_size,
            max_aq_depth: transport.max_aq_depth,
            iobuf_small_cache_size: NO_LIMIT,
            iobuf_large_cache_size: NO_LIMIT,
            dif_insert_or_strip: false,
            zcopy: false,
            c2h_success: transport.c2h_success,
            sock_priority: 0,
            abort_timeout_sec: 1,
            ack_timeout: 0,
            data_wr_pool_size: 0,
            disable_command_passthru: false,
            kas: transport.kas,
            min_kato: transport.min_kato,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetSubsystems {
    nqn: Option<String>,
    tgt_name: Option<String>,
}

async fn get_subsystems(
    gateway: &dyn Gateway,
    params: Params<'_>,
) -> Result<Vec<SubsystemEntry>, RpcError> {
    let GetSubsystems { nqn, tgt_name } = params.decode()?;
    check_target(tgt_name.as_ref())?;
    let Some(nqn) = nqn else {
        return Ok(gateway.subsystems().await.into_iter().map(SubsystemEntry::of).collect());
    };
    Ok(vec![SubsystemEntry::of(find(gateway, &nqn).await?)])
}

pub(super) async fn find(gateway: &dyn Gateway, nqn: &str) -> Result<Subsystem, RpcError> {
    let subsystems = gateway.subsystems().await;
    subsystems.into_iter().find(|found| found.nqn == nqn).ok_or_else(|| no_subsystem(nqn))
}

#[derive(Serialize)]
struct SubsystemEntry {
    nqn: String,
    subtype: &'static str,
    listen_addresses: Vec<Address>,
    allow_any_host: bool,
    hosts: Vec<HostEntry>,
    #[serde(flatten)]
    nvm: Option<NvmEntry>,
}

#[derive(Serialize)]
struct HostEntry {
    nqn: String,
}

#[derive(Serialize)]
struct NvmEntry {
    serial_number: String,
    model_number: String,
    max_namespaces: u32,
    passthrough: bool,
    min_cntlid: u16,
    max_cntlid: u16,
    dmrsl: u32,
    wzsl: u8,
    namespaces: Vec<NamespaceEntry>,
}

#[derive(Serialize)]
struct NamespaceEntry {
    nsid: u32,
    bdev_name: String,
    name: String,
    nguid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    eui64: Option<String>,
    uuid: Uuid,
    /// All that the list says about ANA, and only where it is reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    anagrpid: Option<u32>,
}

impl SubsystemEntry {
    fn of(subsystem: Subsystem) -> Self {
        let listen_addresses =
            subsystem.listeners.into_iter().map(|listener| Address::from(listener.address));
        Self {
            nqn: subsystem.nqn,
            subtype: if subsystem.nvm.is_some() { "NVMe" } else { "Discovery" },
            listen_addresses: listen_addresses.collect(),
            allow_any_host: subsystem.allow_any_host,
            hosts: subsystem.hosts.into_iter().map(|nqn| HostEntry { nqn }).collect(),
            nvm: subsystem.nvm.map(NvmEntry::of),
        }
    }
}

impl NvmEntry {
    fn of(nvm: NvmSubsystem) -> Self {
        let anagrpid = nvm.ana_reporting.then_some(ANA_GROUP);
        let namespaces =
            nvm.namespaces.into_iter().map(|namespace| NamespaceEntry::of(namespace, anagrpid));
        Self {
            serial_number: nvm.serial_number,
            model_number: nvm.model_number,
            max_namespaces: nvm.max_namespaces,
            passthrough: false,
            min_cntlid: nvm.min_cntlid,
            max_cntlid: nvm.max_cntlid,
            dmrsl: nvm.dmrsl,
            wzsl: nvm.wzsl,
            namespaces: namespaces.collect(),
        }
    }
}

impl NamespaceEntry {
    fn of(namespace: Namespace, anagrpid: Option<u32>) -> Self {
        Self {
            nsid: namespace.nsid,
            bdev_name: namespace.volume.clone(),
            name: namespace.volume,
            nguid: hex(&namespace.nguid),
            eui64: namespace.eui64.map(|eui64| hex(&eui64)),
            uuid: namespace.uuid,
            anagrpid,
        }
    }
}

/// Upper case, as clients read identifiers that are no UUIDs.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfSubsystem {
    nqn: String,
    tgt_name: Option<String>,
}

impl OfSubsystem {
    pub(super) fn decode(params: Params<'_>) -> Result<String, RpcError> {
        let Self { nqn, tgt_name } = params.decode()?;
        check_target(tgt_name.as_ref())?;
        Ok(nqn)
    }
}

#[derive(Serialize)]
struct ControllerEntry {
    cntlid: u16,
    cntrltype: &'static str,
    hostnqn: String,
    hostid: Uuid,
    num_io_qpairs: u32,
}

async fn get_controllers(
    gateway: &dyn Gateway,
    params: Params<'_>,
) -> Result<Vec<ControllerEntry>, RpcError> {
    let nqn = OfSubsystem::decode(params)?;
    let controllers =
        gateway.controllers(&nqn).await.map_err(|failure| error_of(&failure, &nqn))?;
    let entries = controllers.into_iter().map(|controller| ControllerEntry {
        cntlid: controller.cntlid,
        cntrltype: if controller.discovery { "discovery" } else { "io" },
        hostnqn: controller.host_nqn,
        hostid: controller.host_id,
        num_io_qpairs: controller.io_queue_pairs,
    });
    Ok(entries.collect())
}

#[derive(Serialize)]
struct QpairEntry {
    cntlid: u16,
    qid: u16,
    state: &'static str,
    thread: String,
    hostnqn: String,
    listen_address: Address,
    peer_address: Address,
}

async fn get_qpairs(
    gateway: &dyn Gateway,
    params: Params<'_>,
) -> Result<Vec<QpairEntry>, RpcError> {
    let nqn = OfSubsystem::decode(params)?;
    let pairs = gateway.queue_pairs(&nqn).await.map_err(|failure| error_of(&failure, &nqn))?;
    let entries = pairs.into_iter().map(|pair| QpairEntry {
        cntlid: pair.cntlid,
        qid: pair.qid,
        state: if pair.enabled { "enabled" } else { "deactivating" },
        thread: pair.thread,
        hostnqn: pair.host_nqn,
        listen_address: pair.listener.into(),
        peer_address: pair.peer.into(),
    });
    Ok(entries.collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetStats {
    tgt_name: Option<String>,
}

#[derive(Serialize)]
struct Stats {
    tick_rate: u64,
    poll_groups: Vec<PollGroupEntry>,
}

#[derive(Serialize)]
struct PollGroupEntry {
    name: String,
    admin_qpairs: u64,
    io_qpairs: u64,
    current_admin_qpairs: u64,
    current_io_qpairs: u64,
    current_unassociated_qpairs: u64,
    pending_bdev_io: u64,
    completed_nvme_io: u64,
    transports: Vec<TransportName>,
}

#[derive(Serialize)]
struct TransportName {
    trtype: &'static str,
}

async fn get_stats(gateway: &dyn Gateway, params: Params<'_>) -> Result<Stats, RpcError> {
    let GetStats { tgt_name } = params.decode()?;
    check_target(tgt_name.as_ref())?;
    let has_transport = gateway.transport().await.is_some();
    let entry = |group: PollGroup| PollGroupEntry {
        name: group.name,
        admin_qpairs: group.admin_queue_pairs,
        io_qpairs: group.io_queue_pairs,
        current_admin_qpairs: group.current_admin_queue_pairs,
        current_io_qpairs: group.current_io_queue_pairs,
        current_unassociated_qpairs: group.current_unassociated,
        pending_bdev_io: group.pending_io,
        completed_nvme_io: group.completed_io,
        transports: has_transport.then_some(TransportName { trtype: TCP }).into_iter().collect(),
    };
    let poll_groups = gateway.poll_groups().await.into_iter().map(entry).collect();
    Ok(Stats { tick_rate: super::bdev::TICK_RATE, poll_groups })
}
