//! Asymmetric namespace access.

use super::*;
use crate::testing::target_with;
use crate::wire::IoCommand;
use crate::wire::command::{Blocks, IoOperation};
use crate::wire::identify::{anacap, cmic};
use crate::wire::log_page::{AnaGroup, AnaLog, AnaState};
use crate::{ConfigError, PathState};

/// What a host asks for: one group and its namespaces.
const LOG_BYTES: u32 = 16 + 32 + 4 * 32;

fn ana_log(host: &mut Host, retain_event: bool) -> AnaLog {
    AnaLog::parse(&host.log(LogPageId::Ana, 0, LOG_BYTES, retain_event)).unwrap()
}

fn io_queue(target: &Arc<Target>, cntlid: u16) -> Wire {
    let mut io = Wire::new(target, PLAIN);
    let replies = io.send(&Script::new(PLAIN).connect(1, 127, cntlid).take());
    assert_eq!(replies[1].status(), Status::SUCCESS);
    io
}

/// The status of a read and of a write whose data is in the capsule.
fn io_statuses(io: &mut Wire) -> [Status; 2] {
    let mut script = Script::new(PLAIN);
    script.take();
    let blocks = Blocks { start: 0, count: 1 };
    let read = script.io(1, IoOperation::Read { blocks, fua: false }, 512).take();
    let write = script.io_with(2, IoOperation::Write { blocks, fua: false }, &[1; 512]).take();
    [read, write].map(|bytes| io.send(&bytes).last().unwrap().status())
}

#[test]
fn linux_finds_what_it_insists_on_for_ana() {
    let (target, _) = target_with(true);
    let mut host = Host::new(&target);
    let info = ControllerInfo::parse(&host.identify(IdentifyKind::Controller, 0)).unwrap();
    assert_eq!(info.cmic & cmic::ANA, cmic::ANA);
    assert_eq!((info.anacap, info.anatt_s), (0x07 | anacap::STABLE_GROUPS, 10));
    assert_eq!((info.nanagrpid, info.anagrpmax, info.mnan, info.nn), (1, 1, 32, 32));
    assert_eq!(info.oaes, AsyncEventMask(0x900));
    let namespace = NamespaceInfo::parse(&host.identify(IdentifyKind::Namespace, 1));
    assert_eq!(namespace.anagrpid, 1);
    let independent = host.identify(IdentifyKind::IndependentNamespace, 1);
    assert_eq!(independent[4..8], [1, 0, 0, 0]);
    let supported = host.log(LogPageId::Supported, 0, 1024, false);
    assert_eq!(supported[4 * 0x0c], 1);
    let group =
        AnaGroup { id: 1, change_count: 2, state: AnaState::Optimized, namespaces: vec![1] };
    assert_eq!(ana_log(&mut host, false), AnaLog { change_count: 2, groups: vec![group] });
}

#[test]
fn without_ana_reporting_nothing_says_that_there_is_ana() {
    let (target, _) = target();
    let mut host = Host::new(&target);
    let info = ControllerInfo::parse(&host.identify(IdentifyKind::Controller, 0)).unwrap();
    assert_eq!(info.cmic & cmic::ANA, 0);
    assert_eq!((info.anacap, info.anatt_s, info.nanagrpid), (0, 0, 0));
    assert_eq!((info.anagrpmax, info.mnan), (0, 0));
    let namespace = NamespaceInfo::parse(&host.identify(IdentifyKind::Namespace, 1));
    assert_eq!(namespace.anagrpid, 0);
    let supported = host.log(LogPageId::Supported, 0, 1024, false);
    assert_eq!(supported[4 * 0x0c], 0);
    let refused = target.set_ana_state(NQN, origin().listener, PathState::Inaccessible);
    assert_eq!(refused, Err(ConfigError::AnaNotReported));
}

#[test]
fn inaccessible_path_sends_hosts_to_another_one_until_it_is_back() {
    let (target, _) = target_with(true);
    let mut host = Host::new(&target);
    let mut io = io_queue(&target, 1);
    let set = |state| target.set_ana_state(NQN, origin().listener, state).unwrap();
    for (state, expected) in [
        (PathState::Optimized, Status::SUCCESS),
        (PathState::NonOptimized, Status::SUCCESS),
        (PathState::Inaccessible, Status::ANA_INACCESSIBLE),
        (PathState::Optimized, Status::SUCCESS),
    ] {
        set(state);
        assert_eq!(io_statuses(&mut io), [expected; 2], "{state:?}");
        assert_eq!(ana_log(&mut host, false).groups[0].state, state.to_wire());
        // What is there is still told.
        let namespace = NamespaceInfo::parse(&host.identify(IdentifyKind::Namespace, 1));
        assert_eq!(namespace.blocks, 8192);
    }
}

#[test]
fn write_that_was_begun_before_its_path_was_closed_is_completed() {
    let (target, _) = target_with(true);
    let _admin = Host::new(&target);
    let mut io = io_queue(&target, 1);
    let mut script = Script::new(PLAIN);
    script.take();
    let blocks = Blocks { start: 0, count: 1 };
    let write = IoCommand { nsid: 1, operation: IoOperation::Write { blocks, fua: false } };
    let sgl = crate::wire::Sgl::Transport { len: 512 };
    let sent = io.send(&script.capsule(write.to_sqe(5).with_sgl(sgl), &[]).take());
    let [Reply::R2t(r2t)] = sent[..] else { panic!("{sent:?}") };
    target.set_ana_state(NQN, origin().listener, PathState::Inaccessible).unwrap();
    let pdu = crate::wire::pdu::DataPdu {
        cid: r2t.cid,
        ttag: r2t.ttag,
        offset: 0,
        len: 512,
        is_last: true,
        is_success: false,
    };
    let sent = io.send(&script.h2c_data(&pdu, &[3; 512]).take());
    assert_eq!(sent[0].status(), Status::SUCCESS);
}

#[test]
fn state_changes_are_announced_once_until_the_log_is_read() {
    let (target, _) = target_with(true);
    let mut host = Host::new(&target);
    host.set(Feature::AsyncEvents(AsyncEventMask(0x900)));
    for cid in 100..102 {
        assert_eq!(host.with_id(cid, AdminCommand::AsyncEventRequest), []);
    }
    let before = ana_log(&mut host, true).change_count;
    let set = |state| target.set_ana_state(NQN, origin().listener, state).unwrap();
    set(PathState::Optimized);
    assert_eq!(host.wire.events(), [], "nothing has changed");
    set(PathState::NonOptimized);
    assert_eq!(event_of(&host.wire.events()), [AsyncEvent::AnaChanged]);
    set(PathState::Inaccessible);
    assert_eq!(host.wire.events(), [], "masked until the log is read");
    let log = ana_log(&mut host, true);
    assert_eq!(log.change_count, before + 2);
    assert_eq!(log.groups[0].change_count, before + 2);
    let log = GetLogPage {
        page: LogPageId::Ana,
        nsid: u32::MAX,
        lsp: 1,
        retain_event: false,
        offset: 0,
        len: LOG_BYTES,
    };
    let replies = host.admin(AdminCommand::GetLogPage(log));
    let [Reply::Data(_, groups_only), _, event] = &replies[..] else { panic!("{replies:?}") };
    assert_eq!(AnaLog::parse(groups_only).unwrap().groups[0].namespaces, []);
    assert_eq!(event_of(std::slice::from_ref(event)), [AsyncEvent::AnaChanged]);
}

#[test]
fn group_without_namespaces_is_not_reported() {
    let (target, _) = target_with(true);
    let mut host = Host::new(&target);
    let before = ana_log(&mut host, false).change_count;
    target.remove_namespace(NQN, 1).unwrap();
    let log = ana_log(&mut host, false);
    assert_eq!(log.groups, []);
    assert!(log.change_count > before);
}

#[test]
fn path_state_belongs_to_its_listener_and_goes_with_it() {
    let (target, _) = target_with(true);
    let other = "127.0.0.1:4421".parse().unwrap();
    let set = |listener| target.set_ana_state(NQN, listener, PathState::NonOptimized);
    assert_eq!(set(other), Err(ConfigError::NoSuchListener));
    let listener = Listener { address: other, advertised: None };
    target.add_listener(NQN, listener).unwrap();
    set(other).unwrap();
    let states = || target.subsystems()[1].path_states.clone();
    assert_eq!(states(), [PathState::Optimized, PathState::NonOptimized]);
    assert_eq!(ana_log(&mut Host::new(&target), false).groups[0].state, AnaState::Optimized);

    // A host that comes later finds the state that was set before.
    set(origin().listener).unwrap();
    assert_eq!(ana_log(&mut Host::new(&target), false).groups[0].state, AnaState::NonOptimized);
    target.remove_listener(NQN, other).unwrap();
    target.add_listener(NQN, listener).unwrap();
    assert_eq!(states(), [PathState::NonOptimized, PathState::Optimized]);
}
