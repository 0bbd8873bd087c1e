//! Get Log Page. Pages are built whole and read in pieces.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::Admin;
use super::identify::FIRMWARE;
use crate::limits::{ADMIN_QUEUE_DEPTH_MIN, ANA_GROUP, ERROR_LOG_MAX};
use crate::target::{CounterValues, Listener};
use crate::wire::command::{AdminOpcode, ConnectData, GetLogPage, IoOpcode, LogPageId};
use crate::wire::log_page::{
    AnaGroup, AnaLog, DiscoveryLog, DiscoveryRecord, Effect, ErrorEntry, SmartInfo, SubsystemKind,
    changed_namespaces, command_effects, copy_window, firmware_slots, supported_log_pages,
};
use crate::wire::{AsyncEvent, Status};

/// The last one only with ANA.
const IO_PAGES: [LogPageId; 7] = [
    LogPageId::Supported,
    LogPageId::Error,
    LogPageId::Smart,
    LogPageId::Firmware,
    LogPageId::ChangedNamespaces,
    LogPageId::CommandEffects,
    LogPageId::Ana,
];

const DISCOVERY_PAGES: [LogPageId; 3] =
    [LogPageId::Supported, LogPageId::Error, LogPageId::Discovery];

/// Every command that `io` executes.
const IO_COMMANDS: [(IoOpcode, Effect); 7] = [
    (IoOpcode::Flush, Effect::None),
    (IoOpcode::Write, Effect::Blocks),
    (IoOpcode::Read, Effect::None),
    (IoOpcode::Compare, Effect::None),
    (IoOpcode::WriteZeroes, Effect::Blocks),
    (IoOpcode::DatasetManagement, Effect::Blocks),
    (IoOpcode::Verify, Effect::None),
];

/// LSP of page 0Ch, bit 0 (RGO): the groups without their namespaces.
const ANA_GROUPS_ONLY: u8 = 1 << 0;

/// EFLAGS: a host may keep its discovery controller and be told of changes.
const EFLAGS_PERSISTENT: u16 = 1 << 1;

impl Admin<'_> {
    pub(super) fn log_page(&self, log: &GetLogPage) -> Result<Vec<u8>, Status> {
        let controller = &self.member.controller;
        let pages = self.pages();
        if !pages.contains(&log.page) {
            return Err(Status::INVALID_LOG_PAGE.dnr());
        }
        let page = match log.page {
            LogPageId::Supported => supported_log_pages(pages),
            LogPageId::Error => self.error_log(),
            LogPageId::Smart => self.smart(log.nsid)?,
            LogPageId::Firmware => firmware_slots(FIRMWARE),
            LogPageId::ChangedNamespaces => {
                match controller.changed_namespaces(!log.retain_event) {
                    Some(changed) => changed_namespaces(&changed),
                    None => changed_namespaces(&[u32::MAX]),
                }
            }
            LogPageId::CommandEffects => command_effects(&AdminOpcode::ALL, &IO_COMMANDS),
            LogPageId::Discovery => {
                if !log.retain_event {
                    // Before the page is made: a change in between is reported once more.
                    controller.acknowledge(AsyncEvent::DiscoveryChanged);
                }
                self.discovery_log()
            }
            LogPageId::Ana => {
                if !log.retain_event {
                    controller.acknowledge(AsyncEvent::AnaChanged);
                }
                self.ana_log(log.lsp & ANA_GROUPS_ONLY != 0)
            }
            LogPageId::ReservationNotification => return Err(Status::INVALID_LOG_PAGE.dnr()),
        };
        let mut out = vec![0; log.len as usize];
        copy_window(&page, log.offset, &mut out)?;
        Ok(out)
    }

    fn pages(&self) -> &'static [LogPageId] {
        let subsystem = &self.member.subsystem;
        match subsystem.is_discovery {
            true => &DISCOVERY_PAGES,
            false if subsystem.ana_reporting => &IO_PAGES,
            false => &IO_PAGES[..IO_PAGES.len() - 1],
        }
    }

    /// One group with all namespaces, or no group: one without namespaces is not reported.
    fn ana_log(&self, groups_only: bool) -> Vec<u8> {
        let (state, changes) = self.member.controller.path();
        let table = self.member.subsystem.table();
        let namespaces: Vec<_> = table.entries.keys().copied().collect();
        // Either part only grows, and 0 would say that changes are not counted.
        let change_count = 1 + table.generation + changes;
        let state = state.to_wire();
        let group = AnaGroup { id: ANA_GROUP, change_count, state, namespaces };
        let groups = if table.entries.is_empty() { Vec::new() } else { vec![group] };
        AnaLog { change_count, groups }.to_bytes(groups_only)
    }

    fn error_log(&self) -> Vec<u8> {
        let (_, records) = self.member.controller.errors();
        let entries = records.iter().map(|record| ErrorEntry {
            count: record.number,
            sqid: record.qid,
            cid: record.cid,
            status: record.status,
            location: u16::MAX,
            lba: record.lba,
            nsid: record.nsid,
        });
        ErrorEntry::log(&entries.collect::<Vec<_>>(), ERROR_LOG_MAX)
    }

    fn smart(&self, nsid: u32) -> Result<Vec<u8>, Status> {
        let table = self.member.subsystem.table();
        let is_whole = nsid == 0 || nsid == u32::MAX;
        if !is_whole && !table.entries.contains_key(&nsid) {
            return Err(Status::INVALID_NAMESPACE.dnr());
        }
        let mut sum = CounterValues::default();
        for attached in table.entries.values().filter(|known| is_whole || known.nsid == nsid) {
            let values = attached.counters.values();
            sum.reads += values.reads;
            sum.read_bytes += values.read_bytes;
            sum.writes += values.writes;
            sum.written_bytes += values.written_bytes;
        }
        let units = |bytes: u64| u128::from(bytes.div_ceil(512_000));
        let (errors, _) = self.member.controller.errors();
        let info = SmartInfo {
            spare_percent: 100,
            units_read: units(sum.read_bytes),
            units_written: units(sum.written_bytes),
            reads: u128::from(sum.reads),
            writes: u128::from(sum.writes),
            error_entries: u128::from(errors),
            ..SmartInfo::default()
        };
        Ok(info.to_bytes())
    }

    /// What the host may connect to, and this discovery subsystem itself.
    fn discovery_log(&self) -> Vec<u8> {
        let (generation, found) = self.target.discover(&self.member.controller.host_nqn);
        // The same address is the same port, whichever subsystem it leads to.
        let mut ports = BTreeMap::new();
        let mut port_of = |address: SocketAddr| {
            let next = u16::try_from(ports.len() + 1).unwrap_or(u16::MAX);
            *ports.entry(address).or_insert(next)
        };
        let here = found.iter().find(|(_, listener)| listener.address == self.origin.listener);
        let here = here.map_or(self.origin.local, |(_, listener)| self.reachable(listener));
        let mut record = |kind, address, nqn: &str| {
            Some(DiscoveryRecord {
                kind,
                address,
                port_id: port_of(address),
                cntlid: ConnectData::ANY_CONTROLLER,
                admin_queue_entries: self.target.options.queue_depth.max(ADMIN_QUEUE_DEPTH_MIN),
                eflags: EFLAGS_PERSISTENT,
                // The configuration admits only names that fit.
                subsystem: nqn.parse().ok()?,
            })
        };
        let this = record(SubsystemKind::CurrentDiscovery, here, &self.member.subsystem.nqn);
        let others = found.iter().filter_map(|(subsystem, listener)| {
            record(SubsystemKind::Nvm, self.reachable(listener), &subsystem.nqn)
        });
        let records = this.into_iter().chain(others).collect();
        DiscoveryLog { generation, records }.to_bytes()
    }

    /// The address under which this host reaches a listener. One on all addresses is reached under
    /// the address that the host used to come here.
    fn reachable(&self, listener: &Listener) -> SocketAddr {
        match listener.advertised {
            Some(advertised) => advertised,
            None if listener.address.ip().is_unspecified() => {
                SocketAddr::new(self.origin.local.ip(), listener.address.port())
            }
            None => listener.address,
        }
    }
}
