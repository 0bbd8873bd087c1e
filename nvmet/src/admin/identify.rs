//! Identify: what hosts learn of the controller and its namespaces.

use super::Admin;
use crate::limits::{
    ABORTS_MAX, ANA_GROUP, ANA_TRANSITION_S, ASYNC_EVENTS_MAX, ERROR_LOG_MAX,
    KEEP_ALIVE_GRANULARITY, MDTS, READY_TIMEOUT_500MS,
};
use crate::target::subsystem::Attached;
use crate::wire::command::{Identify, IdentifyKind};
use crate::wire::identify::{
    BYTES, ControllerInfo, ControllerKind, EMPTY, NamespaceInfo, NvmLimits, anacap, cmic,
    command_sets, controller_list, ctratt, lpa, namespace_list, nmic, nsfeat, oncs, sgls, vwc,
};
use crate::wire::property::VERSION_2_0;
use crate::wire::{Nqn, Status};

/// Firmware revision, at most 8 bytes.
pub(super) const FIRMWARE: &str = env!("CARGO_PKG_VERSION");

/// Longest Write Zeroes (WZSL): 65536 blocks of 512 bytes. Linux 6.1 and 6.12 do not send longer
/// ones right, and take this limit before MDTS.
const WZSL: u8 = 13;

impl Admin<'_> {
    pub(super) fn identify(&self, identify: &Identify) -> Result<[u8; BYTES], Status> {
        if identify.kind == IdentifyKind::Controller {
            return Ok(self.controller_info()?.to_bytes());
        }
        let subsystem = &self.member.subsystem;
        if subsystem.is_discovery {
            return Err(Status::INVALID_FIELD.dnr());
        }
        let table = subsystem.table();
        let nsid = identify.nsid;
        // An ID that may be used and is not is inactive; all others are invalid (section 3.2.1).
        let invalid = Status::INVALID_NAMESPACE.dnr();
        let is_valid = (1..=subsystem.namespaces_max).contains(&nsid);
        let valid = if is_valid { Ok(table.entries.get(&nsid)) } else { Err(invalid) };
        // Most structures refuse an inactive ID, and those that describe a namespace are zeroes.
        let active = || valid?.ok_or(Status::INVALID_FIELD.dnr());
        let describe = |attached| self.describe(attached);
        match identify.kind {
            IdentifyKind::Controller => Ok(self.controller_info()?.to_bytes()),
            IdentifyKind::Namespace | IdentifyKind::AllocatedNamespace => {
                Ok(valid?.map_or(EMPTY, |attached| describe(attached).to_bytes()))
            }
            IdentifyKind::ActiveNamespaces
            | IdentifyKind::CommandSetActiveNamespaces
            | IdentifyKind::AllocatedNamespaces
            | IdentifyKind::CommandSetAllocatedNamespaces => {
                namespace_list(table.entries.keys().copied(), nsid)
            }
            IdentifyKind::NamespaceDescriptors => Ok(describe(active()?).descriptors_to_bytes()),
            // No field of it applies without metadata and protection information.
            IdentifyKind::CommandSetNamespace => valid.map(|_| EMPTY),
            IdentifyKind::CommandSetController => {
                Ok(NvmLimits { vsl: MDTS, wzsl: WZSL, ..NvmLimits::default() }.to_bytes())
            }
            IdentifyKind::IndependentNamespace => Ok(valid?.map_or(EMPTY, |attached| {
                let is_ready = attached.namespace.info().is_ready;
                describe(attached).independent_to_bytes(is_ready)
            })),
            IdentifyKind::NamespaceControllers if nsid == u32::MAX => {
                Err(Status::INVALID_FIELD.dnr())
            }
            IdentifyKind::NamespaceControllers => {
                active()?;
                Ok(self.controllers_from(identify.cntid))
            }
            IdentifyKind::Controllers => Ok(self.controllers_from(identify.cntid)),
            IdentifyKind::CommandSets => Ok(command_sets()),
        }
    }

    /// Every controller has all namespaces of its subsystem.
    fn controllers_from(&self, cntlid: u16) -> [u8; BYTES] {
        let subsystem = &self.member.subsystem;
        subsystem.with_state(|state| controller_list(state.controllers.keys().copied(), cntlid))
    }

    fn controller_info(&self) -> Result<ControllerInfo, Status> {
        let subsystem = &self.member.subsystem;
        let options = &self.target.options;
        let is_io = !subsystem.is_discovery;
        let io = |value: u8| if is_io { value } else { 0 };
        let has_ana = subsystem.ana_reporting;
        let ana = |value: u8| if has_ana { value } else { 0 };
        let ana_groups = if has_ana { ANA_GROUP } else { 0 };
        // The configuration admits only names that fit.
        let subnqn: Nqn = subsystem.nqn.parse().map_err(|_| Status::INTERNAL_ERROR)?;
        let attributes = ctratt::HOST_ID_128 | ctratt::TRAFFIC_KEEP_ALIVE;
        let commands = oncs::COMPARE
            | oncs::DATASET_MANAGEMENT
            | oncs::WRITE_ZEROES
            | oncs::SAVE_AND_SELECT
            | oncs::VERIFY;
        Ok(ControllerInfo {
            kind: if is_io { ControllerKind::Io } else { ControllerKind::Discovery },
            vendor_id: 0,
            serial: subsystem.serial.clone(),
            model: subsystem.model.clone(),
            firmware: FIRMWARE.to_owned(),
            rab: 0,
            ieee: [0; 3],
            cmic: io(cmic::PORTS | cmic::CONTROLLERS) | ana(cmic::ANA),
            mdts: MDTS,
            cntlid: self.member.controller.cntlid,
            version: VERSION_2_0,
            rtd3e_us: u32::from(READY_TIMEOUT_500MS) * 500_000,
            oaes: self.supported_events(),
            ctratt: attributes,
            crdt_100ms: [0; 3],
            acl: ABORTS_MAX - 1,
            aerl: ASYNC_EVENTS_MAX as u8 - 1,
            frmw: io(0b11),
            lpa: lpa::EXTENDED | io(lpa::EFFECTS | lpa::SMART_PER_NAMESPACE),
            elpe: ERROR_LOG_MAX as u8 - 1,
            wctemp: 0,
            cctemp: 0,
            kas_100ms: KEEP_ALIVE_GRANULARITY,
            anatt_s: ana(ANA_TRANSITION_S),
            anacap: ana(anacap::REPORTED | anacap::STABLE_GROUPS),
            anagrpmax: ana_groups,
            nanagrpid: ana_groups,
            maxcmd: options.queue_depth,
            nn: if is_io { subsystem.namespaces_max } else { 0 },
            oncs: if is_io { commands } else { 0 },
            vwc: io(vwc::PRESENT | vwc::FLUSH_ALL_REFUSED),
            awun: 0,
            awupf: 0,
            acwu: 0,
            sgls: sgls::SUPPORTED | sgls::OFFSET,
            mnan: if has_ana { subsystem.namespaces_max } else { 0 },
            subnqn,
            ioccsz: if is_io { (64 + options.in_capsule_bytes) / 16 } else { 0 },
            iorcsz: if is_io { 1 } else { 0 },
            fcatt: 0,
            msdbd: 1,
            ofcs: u16::from(is_io),
        })
    }

    fn describe(&self, attached: &Attached) -> NamespaceInfo {
        let info = attached.namespace.info();
        // Below 4 KiB the volume has to read before it can write.
        let page = u16::try_from(4096 / info.lba_size.bytes() - 1).expect("at most 8 blocks");
        NamespaceInfo {
            blocks: info.blocks,
            blocks_used: info.blocks,
            block_bytes_log2: info.lba_size.shift(),
            nsfeat: nsfeat::PREFERRED,
            nmic: nmic::SHARED,
            rescap: 0,
            // Deallocated blocks read as zeros; Write Zeroes takes DEAC.
            dlfeat: 0b1001,
            nawun: 0,
            nawupf: 0,
            noiob: 0,
            npwg: page,
            npwa: page,
            npdg: page,
            npda: page,
            nows: page,
            anagrpid: if self.member.subsystem.ana_reporting { ANA_GROUP } else { 0 },
            is_write_protected: info.read_only,
            nguid: attached.nguid(),
            eui64: [0; 8],
            uuid: attached.uuid(),
        }
    }
}
