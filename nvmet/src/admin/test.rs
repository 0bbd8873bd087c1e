mod ana;

use std::sync::Arc;

use uuid::Uuid;

use crate::limits::{ASYNC_EVENTS_MAX, MDTS};
use crate::target::DISCOVERY_NQN;
use crate::testing::{HOST, NQN, Reply, Script, Wire, connect_admin, origin, target};
use crate::wire::command::{
    FeatureSelect, GetFeatures, GetLogPage, Identify, IdentifyKind, LogPageId, SetFeatures,
};
use crate::wire::features::{Feature, FeatureId};
use crate::wire::identify::{
    ControllerInfo, ControllerKind, NamespaceInfo, NvmLimits, parse_namespace_list,
};
use crate::wire::log_page::{DiscoveryLog, SubsystemKind};
use crate::wire::property::{Capabilities, Property};
use crate::wire::{AdminCommand, AsyncEvent, AsyncEventMask, Digests, FabricsCommand, Status};
use crate::{LbaSize, Listener, NamespaceOptions, RamNamespace, Target};

const PLAIN: Digests = Digests { header: false, data: false };

/// A host's admin connection, one command at a time.
struct Host {
    wire: Wire,
    script: Script,
}

impl Host {
    fn new(target: &Arc<Target>) -> Self {
        let (wire, _) = connect_admin(target, PLAIN);
        Self::on(wire)
    }

    fn on(wire: Wire) -> Self {
        let mut script = Script::new(PLAIN);
        script.take();
        Self { wire, script }
    }

    fn discovery(target: &Arc<Target>) -> Self {
        let mut wire = Wire::new(target, PLAIN);
        let mut script = Script::new(PLAIN);
        script.connect_to(DISCOVERY_NQN, HOST, 0, 31, 0xffff).enable();
        let replies = wire.send(&script.take());
        assert_eq!(replies[2].status(), Status::SUCCESS);
        Self::on(wire)
    }

    fn fabrics(&mut self, command: FabricsCommand) -> u64 {
        let bytes = self.script.capsule(command.to_sqe(1), &[]).take();
        self.wire.send(&bytes)[0].result()
    }

    fn admin(&mut self, command: AdminCommand) -> Vec<Reply> {
        self.with_id(9, command)
    }

    fn with_id(&mut self, cid: u16, command: AdminCommand) -> Vec<Reply> {
        let len = match command {
            AdminCommand::Identify(_) => 4096,
            AdminCommand::GetLogPage(log) => log.len,
            _ => 0,
        };
        let bytes = self.script.admin(cid, command, len).take();
        self.wire.send(&bytes)
    }

    fn data(&mut self, command: AdminCommand) -> Vec<u8> {
        match &self.admin(command)[..] {
            [Reply::Data(_, data), Reply::Done(cqe)] => {
                assert_eq!(cqe.status(), Status::SUCCESS);
                data.clone()
            }
            other => panic!("{other:?}"),
        }
    }

    fn identify(&mut self, kind: IdentifyKind, nsid: u32) -> [u8; 4096] {
        let identify = Identify { kind, nsid, cntid: 0 };
        self.data(AdminCommand::Identify(identify)).try_into().unwrap()
    }

    fn log(&mut self, page: LogPageId, offset: u64, len: u32, retain_event: bool) -> Vec<u8> {
        let nsid = u32::MAX;
        let log = GetLogPage { page, nsid, lsp: 0, retain_event, offset, len };
        self.data(AdminCommand::GetLogPage(log))
    }

    fn set(&mut self, feature: Feature) -> u64 {
        let set = SetFeatures { feature, save: false, nsid: 0 };
        self.admin(AdminCommand::SetFeatures(set))[0].result()
    }
}

fn event_of(replies: &[Reply]) -> Vec<AsyncEvent> {
    replies.iter().map(|reply| AsyncEvent::parse(reply.result() as u32).unwrap()).collect()
}

#[test]
fn linux_finds_what_it_insists_on() {
    let (target, _) = target();
    let mut host = Host::new(&target);
    let cap =
        Capabilities::from_field(host.fabrics(FabricsCommand::PropertyGet(Property::Capabilities)));
    assert_eq!((cap.queue_entries_max, cap.command_sets), (128, false));
    assert_eq!(host.fabrics(FabricsCommand::PropertyGet(Property::Status)), 1);
    assert_eq!(host.fabrics(FabricsCommand::PropertyGet(Property::Version)), 0x2_0000);

    let page = host.identify(IdentifyKind::Controller, 0);
    let info = ControllerInfo::parse(&page).unwrap();
    assert_eq!(info.kind, ControllerKind::Io);
    assert_eq!(
        (info.serial.as_str(), info.model.as_str()),
        ("SPDK_000001", "LSVD NVMe controller")
    );
    assert_eq!((info.cntlid, info.mdts, info.kas_100ms), (1, MDTS, 10));
    assert_eq!((info.ioccsz, info.iorcsz), ((64 + 8192) / 16, 1));
    assert_eq!((info.sgls, info.vwc & 1, info.maxcmd), (0x10_0001, 1, 128));
    assert_eq!(info.ctratt & 0x40, 0x40);
    assert_eq!(info.oaes, AsyncEventMask(0x100));
    assert_eq!(info.subnqn.as_str(), NQN);

    assert_eq!(host.log(LogPageId::CommandEffects, 0, 4096, false).len(), 4096);
    assert_eq!(host.log(LogPageId::Smart, 0, 512, false).len(), 512);
    let queues = host.set(Feature::NumberOfQueues { submission: 2, completion: 2 });
    assert_eq!(queues, 0x1_0001);
    assert_eq!(host.set(Feature::AsyncEvents(AsyncEventMask(0x900))), 0x900);
    assert_eq!(host.with_id(31, AdminCommand::AsyncEventRequest), []);
    let limits = NvmLimits::parse(&host.identify(IdentifyKind::CommandSetController, 0));
    assert_eq!((limits.wzsl, limits.vsl), (13, MDTS));
    let page = host.identify(IdentifyKind::ActiveNamespaces, 0);
    assert_eq!(parse_namespace_list(&page).collect::<Vec<_>>(), [1]);
    let page = host.identify(IdentifyKind::NamespaceDescriptors, 1);
    assert_eq!(NamespaceInfo::uuid_of(&page), Some(Uuid::from_u128(0x1234)));
    let info = NamespaceInfo::parse(&host.identify(IdentifyKind::Namespace, 1));
    assert_eq!((info.blocks, info.block_bytes_log2, info.npwg), (8192, 9, 7));
    assert_eq!(info.nguid, *Uuid::from_u128(0x1234).as_bytes());
    assert_eq!(host.identify(IdentifyKind::Namespace, 2), [0; 4096]);
    assert_eq!(host.admin(AdminCommand::KeepAlive)[0].status(), Status::SUCCESS);
}

#[test]
fn commands_that_are_not_offered_are_refused_for_good() {
    let (target, _) = target();
    let mut host = Host::new(&target);
    let mut status = |command| host.admin(command)[0].status();
    let identify = |kind, nsid| AdminCommand::Identify(Identify { kind, nsid, cntid: 0 });
    let invalid_namespace = Status::INVALID_NAMESPACE.dnr();
    assert_eq!(status(identify(IdentifyKind::Namespace, 0)), invalid_namespace);
    assert_eq!(status(identify(IdentifyKind::Namespace, u32::MAX)), invalid_namespace);
    let log = |page, len| GetLogPage { page, nsid: 0, lsp: 0, retain_event: false, offset: 0, len };
    let ana = AdminCommand::GetLogPage(log(LogPageId::Ana, 4096));
    assert_eq!(status(ana), Status::INVALID_LOG_PAGE.dnr());
    let huge = AdminCommand::GetLogPage(log(LogPageId::Error, (1 << 20) + 4));
    assert_eq!(status(huge), Status::INVALID_FIELD.dnr());
    let feature = Feature::VolatileWriteCache { enabled: false };
    let set = SetFeatures { feature, save: false, nsid: 0 };
    assert_eq!(status(AdminCommand::SetFeatures(set)), Status::FEATURE_NOT_CHANGEABLE.dnr());
    let set = SetFeatures { save: true, ..set };
    assert_eq!(status(AdminCommand::SetFeatures(set)), Status::FEATURE_NOT_SAVEABLE.dnr());
}

#[test]
fn inactive_namespace_is_zeroes_where_it_is_described_and_refused_elsewhere() {
    use IdentifyKind as Kind;
    let (target, _) = target();
    let mut host = Host::new(&target);
    let described = [
        Kind::Namespace,
        Kind::CommandSetNamespace,
        Kind::IndependentNamespace,
        Kind::AllocatedNamespace,
    ];
    let listed = [Kind::NamespaceDescriptors, Kind::NamespaceControllers];
    for kind in described {
        assert_eq!(host.identify(kind, 2), [0; 4096], "{kind:?}");
    }
    let mut status = |kind, nsid| {
        host.admin(AdminCommand::Identify(Identify { kind, nsid, cntid: 0 }))[0].status()
    };
    for kind in listed {
        assert_eq!(status(kind, 2), Status::INVALID_FIELD.dnr(), "{kind:?}");
    }
    for kind in described.into_iter().chain(listed) {
        for nsid in [0, 33, u32::MAX - 1] {
            assert_eq!(status(kind, nsid), Status::INVALID_NAMESPACE.dnr(), "{kind:?} {nsid}");
        }
    }
    assert_eq!(status(Kind::NamespaceControllers, u32::MAX), Status::INVALID_FIELD.dnr());
    // It describes the controller, and takes no namespace.
    assert_eq!(NvmLimits::parse(&host.identify(Kind::CommandSetController, 2)).vsl, MDTS);
}

#[test]
fn features_can_be_read_back() {
    let (target, _) = target();
    let mut host = Host::new(&target);
    host.set(Feature::KeepAliveTimer { ms: 5000 });
    let mut get = |feature, select| {
        let get = GetFeatures { feature, select, nsid: 0, cdw11: 0 };
        host.admin(AdminCommand::GetFeatures(get))[0].result()
    };
    assert_eq!(get(FeatureId::KeepAliveTimer, FeatureSelect::Current), 5000);
    assert_eq!(get(FeatureId::KeepAliveTimer, FeatureSelect::Default), 0);
    assert_eq!(get(FeatureId::KeepAliveTimer, FeatureSelect::Capabilities), 4);
    assert_eq!(get(FeatureId::VolatileWriteCache, FeatureSelect::Current), 1);
    assert_eq!(get(FeatureId::NumberOfQueues, FeatureSelect::Current), 0x3f_003f);
}

#[test]
fn discovery_shows_what_the_host_may_reach() {
    let (target, _) = target();
    let mut host = Host::discovery(&target);
    let info = ControllerInfo::parse(&host.identify(IdentifyKind::Controller, 0)).unwrap();
    assert_eq!(info.kind, ControllerKind::Discovery);
    assert_eq!(info.oaes, AsyncEventMask(1 << 31));
    assert_eq!(info.subnqn.as_str(), "nqn.2019-05.io.lsvd:discovery");

    let log = host.log(LogPageId::Discovery, 0, 3072, false);
    let parsed = DiscoveryLog::parse(&log).unwrap();
    let [this, subsystem] = &parsed.records[..] else { panic!("{parsed:?}") };
    assert_eq!(this.kind, SubsystemKind::CurrentDiscovery);
    assert_eq!((subsystem.kind, subsystem.address), (SubsystemKind::Nvm, origin().listener));
    assert_eq!(subsystem.subsystem.as_str(), NQN);
    assert_eq!((subsystem.port_id, subsystem.cntlid), (this.port_id, 0xffff));

    host.set(Feature::AsyncEvents(AsyncEventMask(1 << 31)));
    host.with_id(31, AdminCommand::AsyncEventRequest);
    let advertised = "10.0.2.2:4421".parse().unwrap();
    let address = "0.0.0.0:4421".parse().unwrap();
    target.add_listener(NQN, Listener { address, advertised: Some(advertised) }).unwrap();
    assert_eq!(event_of(&host.wire.events()), [AsyncEvent::DiscoveryChanged]);
    let log = host.log(LogPageId::Discovery, 0, 8192, false);
    let changed = DiscoveryLog::parse(&log).unwrap();
    assert!(changed.generation > parsed.generation);
    assert_eq!(changed.records[2].address, advertised);

    target.set_allow_any_host(NQN, false).unwrap();
    let log = host.log(LogPageId::Discovery, 0, 8192, false);
    assert_eq!(DiscoveryLog::parse(&log).unwrap().records.len(), 1);
}

#[test]
fn namespace_changes_are_announced_once_until_the_list_is_read() {
    let (target, namespace) = target();
    let mut host = Host::new(&target);
    host.set(Feature::AsyncEvents(AsyncEventMask(0x100)));
    for cid in 100..102 {
        assert_eq!(host.with_id(cid, AdminCommand::AsyncEventRequest), []);
    }
    let other = RamNamespace::new(Uuid::from_u128(99), LbaSize::B4096, 64);
    let options = NamespaceOptions { nsid: Some(7), ..NamespaceOptions::default() };
    target.add_namespace(NQN, Arc::new(other), options).unwrap();
    assert_eq!(event_of(&host.wire.events()), [AsyncEvent::NamespaceChanged]);
    namespace.resize(4096);
    target.namespace_resized(NQN, 1).unwrap();
    assert_eq!(host.wire.events(), [], "masked until the list is read");

    let listed = host.log(LogPageId::ChangedNamespaces, 0, 4096, true);
    assert_eq!(listed[..12], [1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
    let log = GetLogPage {
        page: LogPageId::ChangedNamespaces,
        nsid: u32::MAX,
        lsp: 0,
        retain_event: false,
        offset: 0,
        len: 4096,
    };
    let replies = host.admin(AdminCommand::GetLogPage(log));
    let [Reply::Data(_, data), _, event] = &replies[..] else { panic!("{replies:?}") };
    assert_eq!(data[..8], [1, 0, 0, 0, 7, 0, 0, 0]);
    assert_eq!(event_of(std::slice::from_ref(event)), [AsyncEvent::NamespaceChanged]);
    let info = NamespaceInfo::parse(&host.identify(IdentifyKind::Namespace, 1));
    assert_eq!(info.blocks, 4096);
}

#[test]
fn event_requests_are_limited_and_can_be_aborted() {
    let (target, _) = target();
    let mut host = Host::new(&target);
    for cid in 0..ASYNC_EVENTS_MAX as u16 {
        assert_eq!(host.with_id(100 + cid, AdminCommand::AsyncEventRequest), []);
    }
    let refused = host.with_id(200, AdminCommand::AsyncEventRequest)[0].status();
    assert_eq!(refused, Status::ASYNC_EVENT_LIMIT_EXCEEDED.dnr());
    let replies = host.admin(AdminCommand::Abort { sqid: 0, cid: 101 });
    assert_eq!(replies[0].status(), Status::ABORT_REQUESTED);
    assert_eq!(replies[1].result(), 0);
    assert_eq!(host.admin(AdminCommand::Abort { sqid: 0, cid: 101 })[0].result(), 1);
    assert_eq!(host.with_id(101, AdminCommand::AsyncEventRequest), []);
}

#[test]
fn log_pages_read_in_pieces_are_whole() {
    let (target, _) = target();
    for port in 5000..5040 {
        let address = format!("127.0.0.1:{port}").parse().unwrap();
        target.add_listener(NQN, Listener { address, advertised: None }).unwrap();
    }
    let mut host = Host::discovery(&target);
    let whole = host.log(LogPageId::Discovery, 0, 43 << 10, true);
    for piece in [512, 1024, 4096, 12_000] {
        let mut pieces = Vec::new();
        while pieces.len() < whole.len() {
            pieces.extend(host.log(LogPageId::Discovery, pieces.len() as u64, piece, true));
        }
        assert!(pieces[..whole.len()] == whole[..], "in pieces of {piece}");
    }
    assert_eq!(DiscoveryLog::parse(&whole).unwrap().records.len(), 42);
}

#[test]
fn many_namespaces_and_controllers_work() {
    let (target, _) = target();
    let config = crate::SubsystemConfig {
        nqn: "nqn.2019-05.io.lsvd:many".to_owned(),
        serial: "1".to_owned(),
        model: "2".to_owned(),
        allow_any_host: true,
        namespaces_max: 300,
        ana_reporting: false,
    };
    let nqn = config.nqn.clone();
    target.add_subsystem(config).unwrap();
    target.add_listener(&nqn, Listener { address: origin().listener, advertised: None }).unwrap();
    for id in 1..=300 {
        let namespace = RamNamespace::new(Uuid::from_u128(id), LbaSize::B512, 8);
        let added = target.add_namespace(&nqn, Arc::new(namespace), NamespaceOptions::default());
        assert_eq!(u128::from(added.unwrap()), id);
    }
    let connect = |_| {
        let mut wire = Wire::new(&target, PLAIN);
        let bytes = Script::new(PLAIN).connect_to(&nqn, HOST, 0, 31, 0xffff).enable().take();
        assert_eq!(wire.send(&bytes)[2].status(), Status::SUCCESS);
        Host::on(wire)
    };
    let mut hosts: Vec<_> = (0..64).map(connect).collect();
    assert_eq!(target.controllers(&nqn).unwrap().len(), 64);
    let page = hosts[63].identify(IdentifyKind::ActiveNamespaces, 0);
    assert_eq!(parse_namespace_list(&page).count(), 300);
    target.remove_subsystem(&nqn).unwrap();
    for host in &mut hosts {
        host.wire.events();
        assert!(!host.wire.link.session.is_running());
    }
}
