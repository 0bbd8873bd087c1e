use proptest::prelude::*;
use zerocopy::FromBytes;

use super::*;
use crate::wire::async_event::AsyncEventMask;

const INVALID: Status = Status::INVALID_FIELD.dnr();

fn sqe(opcode: u8, nsid: u32, dwords: [u32; 6]) -> Sqe {
    let mut bytes = [0; 64];
    bytes[0] = opcode;
    bytes[1] = 0x40;
    bytes[4..8].copy_from_slice(&nsid.to_le_bytes());
    for (field, dword) in bytes[40..].chunks_exact_mut(4).zip(dwords) {
        field.copy_from_slice(&dword.to_le_bytes());
    }
    Sqe::read_from_bytes(&bytes).expect("64 bytes")
}

#[test]
fn captured_identify_commands_are_understood() {
    let parse = |nsid, cdw10, cdw11| AdminCommand::parse(&sqe(6, nsid, [cdw10, cdw11, 0, 0, 0, 0]));
    let identify = |kind, nsid, cntid| Ok(AdminCommand::Identify(Identify { kind, nsid, cntid }));
    assert_eq!(parse(0, 1, 0), identify(IdentifyKind::Controller, 0, 0));
    assert_eq!(parse(7, 3, 0), identify(IdentifyKind::NamespaceDescriptors, 7, 0));
    assert_eq!(parse(0, 6, 0), identify(IdentifyKind::CommandSetController, 0, 0));
    assert_eq!(parse(0, 0x0009_0013, 0), identify(IdentifyKind::Controllers, 0, 9));
    // CSI 2 is the zoned command set; a structure that is not per command set ignores it.
    assert_eq!(parse(0, 6, 2 << 24), Err(INVALID));
    assert_eq!(parse(1, 0, 2 << 24), identify(IdentifyKind::Namespace, 1, 0));
    assert_eq!(parse(0, 4, 0), Err(INVALID));
    let command = parse(0, 1, 0).expect("parsed above");
    assert_eq!(command.data_rule(), DataRule::Exact(Direction::ControllerToHost, 4096));
}

#[test]
fn captured_log_commands_are_understood() {
    // GetLogPage LID=0x0c rae=0 numd=2052 nsid=0xffffffff, 8208 B.
    let ana = sqe(2, u32::MAX, [(2051 << 16) | 0x0c, 0, 0, 0, 0, 0]);
    let expected = GetLogPage {
        page: LogPageId::Ana,
        nsid: u32::MAX,
        lsp: 0,
        retain_event: false,
        offset: 0,
        len: 8208,
    };
    let command = AdminCommand::parse(&ana).expect("captured");
    assert_eq!(command, AdminCommand::GetLogPage(expected));
    assert_eq!(command.data_rule(), DataRule::Exact(Direction::ControllerToHost, 8208));
    // GetLogPage LID=0x70 rae=1 1024 B.
    let discovery = sqe(2, 0, [(255 << 16) | 0x8070, 0, 0, 0, 0, 0]);
    let expected = GetLogPage {
        page: LogPageId::Discovery,
        nsid: 0,
        retain_event: true,
        len: 1024,
        ..expected
    };
    assert_eq!(AdminCommand::parse(&discovery), Ok(AdminCommand::GetLogPage(expected)));
}

#[test]
fn log_commands_have_their_fields_in_place() {
    let page = |dwords| match AdminCommand::parse(&sqe(2, 0, dwords)) {
        Ok(AdminCommand::GetLogPage(page)) => Ok(page),
        Ok(other) => panic!("{other:?}"),
        Err(status) => Err(status),
    };
    let log = page([0x0000_7f02, 0x0001, 0x10, 0x20, 0, 0]).expect("SMART");
    assert_eq!((log.lsp, log.retain_event), (0x7f, false));
    assert_eq!(log.len, (0x1_0000 + 1) * 4);
    assert_eq!(log.offset, 0x20_0000_0010);
    assert_eq!(page([2, 0, 2, 0, 0, 0]), Err(INVALID), "offset not on a dword");
    assert_eq!(page([2, 0, 0, 0, 1 << 23, 0]), Err(INVALID), "offset by index");
    assert_eq!(page([0xffff_0002, 0xffff, 0, 0, 0, 0]), Err(INVALID), "16 GiB");
    assert_eq!(page([0x0d, 0, 0, 0, 0, 0]), Err(Status::INVALID_LOG_PAGE.dnr()));
}

#[test]
fn captured_feature_commands_are_understood() {
    let set = AdminCommand::parse(&sqe(9, 0, [0x07, 0x1_0001, 0, 0, 0, 0]));
    let queues = Feature::NumberOfQueues { submission: 2, completion: 2 };
    let expected = SetFeatures { feature: queues, save: false, nsid: 0 };
    assert_eq!(set, Ok(AdminCommand::SetFeatures(expected)));
    let set = AdminCommand::parse(&sqe(9, 0, [0x8000_000b, 0x900, 0, 0, 0, 0]));
    let events = Feature::AsyncEvents(AsyncEventMask(0x900));
    let expected = SetFeatures { feature: events, save: true, nsid: 0 };
    assert_eq!(set, Ok(AdminCommand::SetFeatures(expected)));
    let get = AdminCommand::parse(&sqe(10, 5, [0x306, 0, 0, 0, 0, 0]));
    let expected = GetFeatures {
        feature: FeatureId::VolatileWriteCache,
        select: FeatureSelect::Capabilities,
        nsid: 5,
        cdw11: 0,
    };
    assert_eq!(get, Ok(AdminCommand::GetFeatures(expected)));
    for cdw10 in [0x406, 0x00, 0x03, 0x7f] {
        let get = AdminCommand::parse(&sqe(10, 0, [cdw10, 0, 0, 0, 0, 0]));
        assert_eq!(get, Err(INVALID), "{cdw10:#x}");
    }
}

#[test]
fn features_with_data_move_it_in_the_direction_of_the_command() {
    let rule = |opcode, cdw10| {
        AdminCommand::parse(&sqe(opcode, 0, [cdw10, 0, 0, 0, 0, 0])).map(|it| it.data_rule())
    };
    assert_eq!(rule(9, 0x16), Ok(DataRule::Exact(Direction::HostToController, 512)));
    assert_eq!(rule(10, 0x16), Ok(DataRule::Exact(Direction::ControllerToHost, 512)));
    assert_eq!(rule(10, 0x81), Ok(DataRule::Exact(Direction::ControllerToHost, 16)));
    assert_eq!(rule(10, 0x381), Ok(DataRule::None));
    assert_eq!(rule(9, 0x06), Ok(DataRule::None));
}

#[test]
fn other_commands_are_understood_or_refused() {
    let parse = |opcode, cdw10| AdminCommand::parse(&sqe(opcode, 0, [cdw10, 0, 0, 0, 0, 0]));
    assert_eq!(parse(0x08, 0x1234_0005), Ok(AdminCommand::Abort { sqid: 5, cid: 0x1234 }));
    assert_eq!(parse(0x0c, 0), Ok(AdminCommand::AsyncEventRequest));
    assert_eq!(parse(0x18, 0), Ok(AdminCommand::KeepAlive));
    // Queues are made by Connect; there is no firmware to load and no medium to format.
    for opcode in [0x00, 0x01, 0x04, 0x05, 0x10, 0x11, 0x80, 0x81] {
        assert_eq!(parse(opcode, 0), Err(Status::INVALID_OPCODE.dnr()), "{opcode:#x}");
    }
}

proptest! {
    #[test]
    fn any_command_is_understood_and_written_back_or_refused(
        opcode in prop_oneof![
            any::<u8>(),
            prop::sample::select(AdminOpcode::ALL.map(|it| it as u8).to_vec()),
        ],
        nsid: u32,
        low in prop_oneof![any::<u8>(), 0_u8..0x20],
        high: u32,
        dwords: [u32; 5],
    ) {
        let cdw10 = high << 8 | u32::from(low);
        let [cdw11, cdw12, cdw13, cdw14, cdw15] = dwords;
        let sqe = sqe(opcode, nsid, [cdw10, cdw11, cdw12 & !3, cdw13, cdw14 & !(1 << 23), cdw15]);
        match AdminCommand::parse(&sqe) {
            Ok(command) => {
                prop_assert_eq!(AdminCommand::parse(&command.to_sqe(1)), Ok(command));
                // Must not panic either.
                let _ = command.data_rule();
            }
            Err(status) => prop_assert!(status.is_dnr() && !status.is_success()),
        }
    }
}
