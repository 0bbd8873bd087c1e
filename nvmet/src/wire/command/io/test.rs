use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use super::*;
use crate::wire::command::{
    AcquireAction, PersistChange, RegisterAction, ReleaseAction, ReservationType,
};

const INVALID: Status = Status::INVALID_FIELD.dnr();

fn sqe(opcode: u8, dwords: [u32; 4]) -> Sqe {
    let mut bytes = [0; 64];
    bytes[..8].copy_from_slice(&[opcode, 0x40, 0, 0, 1, 0, 0, 0]);
    for (field, dword) in bytes[40..].chunks_exact_mut(4).zip(dwords) {
        field.copy_from_slice(&dword.to_le_bytes());
    }
    Sqe::read_from_bytes(&bytes).expect("64 bytes")
}

fn parse(opcode: u8, dwords: [u32; 4]) -> Result<IoOperation, Status> {
    IoCommand::parse(&sqe(opcode, dwords)).map(|command| {
        assert_eq!(command.nsid, 1);
        command.operation
    })
}

#[test]
fn captured_commands_are_understood() {
    // IO Write slba=640 nlb=319; Read with Limited Retry and a hint; Write with FUA.
    let write = IoOperation::Write { blocks: Blocks { start: 640, count: 320 }, fua: false };
    assert_eq!(parse(1, [640, 0, 319, 0]), Ok(write));
    assert_eq!(write.data_rule(12), DataRule::Exact(Direction::HostToController, 1_310_720));
    let read = IoOperation::Read { blocks: Blocks { start: 0, count: 4 }, fua: false };
    assert_eq!(parse(2, [0, 0, 0x8000_0003, 7]), Ok(read));
    assert_eq!(read.data_rule(12), DataRule::Exact(Direction::ControllerToHost, 16384));
    let journal = IoOperation::Write { blocks: Blocks { start: 0, count: 8 }, fua: true };
    assert_eq!(parse(1, [0, 0, 0x4000_0007, 0]), Ok(journal));
    assert_eq!(parse(0, [0; 4]), Ok(IoOperation::Flush));
    // DatasetManagement nr=1 attr=0x4, 4096 B in capsule.
    let discard = IoOperation::DatasetManagement { ranges: 1, deallocate: true };
    assert_eq!(parse(9, [0, 4, 0, 0]), Ok(discard));
    assert_eq!(discard.data_rule(12), DataRule::FromHost { min: 16, max: 4096 });
    // WriteZeroes slba=256 nlb=255.
    let blocks = Blocks { start: 256, count: 256 };
    let zeroes = IoOperation::WriteZeroes { blocks, fua: false, deallocate: false };
    assert_eq!(parse(8, [256, 0, 255, 0]), Ok(zeroes));
    assert_eq!(zeroes.data_rule(12), DataRule::None);
}

#[test]
fn fields_are_in_place() {
    let blocks = Blocks { start: 0x1234_5678_9abc_def0, count: 65536 };
    let low_high = [0x9abc_def0, 0x1234_5678];
    let [low, high] = low_high;
    let all = IoOperation::WriteZeroes { blocks, fua: true, deallocate: true };
    assert_eq!(parse(8, [low, high, 0x4200_ffff, 0]), Ok(all));
    let compare = IoOperation::Compare { blocks, fua: false };
    assert_eq!(parse(5, [low, high, 0xffff, 0]), Ok(compare));
    assert_eq!(compare.data_rule(9), DataRule::Exact(Direction::HostToController, 1 << 25));
    let verify = IoOperation::Verify { blocks, fua: true };
    assert_eq!(parse(0x0c, [low, high, 0x4000_ffff, 0]), Ok(verify));
    assert_eq!((verify.blocks(), verify.data_rule(9)), (Some(blocks), DataRule::None));
    let most = IoOperation::DatasetManagement { ranges: 256, deallocate: false };
    assert_eq!(parse(9, [0xff, 3, 0, 0]), Ok(most));
    assert_eq!(most.data_rule(9), DataRule::FromHost { min: 4096, max: 4096 });
    assert_eq!(Blocks { start: u64::MAX, count: 1 }.end(), None);
    assert_eq!(Blocks { start: u64::MAX - 1, count: 1 }.end(), Some(u64::MAX));
}

#[test]
fn what_is_not_known_is_refused() {
    // Write Uncorrectable, Copy, a vendor's.
    for opcode in [0x04, 0x19, 0x80] {
        assert_eq!(parse(opcode, [0; 4]), Err(Status::INVALID_OPCODE.dnr()));
    }
    assert_eq!(parse(1, [0, 0, 1 << 20, 0]), Err(INVALID), "directive");
    assert_eq!(parse(8, [0, 0, 1 << 23, 0]), Err(INVALID), "whole namespace");
}

#[test]
fn reservations_are_understood() {
    let register = Reservation::Register {
        action: RegisterAction::Replace,
        ignore_key: true,
        persist: PersistChange::Set,
    };
    assert_eq!(parse(0x0d, [0xc000_000a, 0, 0, 0]), Ok(IoOperation::Reservation(register)));
    let acquire = Reservation::Acquire {
        action: AcquireAction::Preempt,
        kind: ReservationType::WriteExclusiveRegistrantsOnly,
    };
    assert_eq!(parse(0x11, [0x0301, 0, 0, 0]), Ok(IoOperation::Reservation(acquire)));
    let clear = Reservation::Release { action: ReleaseAction::Clear, kind: None };
    assert_eq!(parse(0x15, [0x0001, 0, 0, 0]), Ok(IoOperation::Reservation(clear)));
    let report = Reservation::Report { len: 4096, extended: true };
    assert_eq!(parse(0x0e, [1023, 1, 0, 0]), Ok(IoOperation::Reservation(report)));
    let cases = [
        (0x0d, 3, "action"),
        (0x0d, 1 << 30, "persistence"),
        (0x11, 0x0000, "type"),
        (0x11, 0x0700, "type"),
        (0x11, 0x0308, "ignored key"),
        (0x15, 0x0000, "release without type"),
        (0x15, 0x0102, "action"),
        (0x0e, u32::MAX, "16 GiB"),
    ];
    for (opcode, cdw10, what) in cases {
        assert_eq!(parse(opcode, [cdw10, 0, 0, 0]), Err(INVALID), "{what}");
    }
}

#[test]
fn ranges_end_with_their_count_or_with_the_data() {
    let mut data = [0; 4096];
    // (attributes 0, 256 blocks at 256), then the longest range.
    data[..16].copy_from_slice(&[0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    data[16..32].copy_from_slice(&[0xff; 16]);
    let first = Blocks { start: 256, count: 256 };
    let longest = Blocks { start: u64::MAX, count: u32::MAX };
    assert_eq!(ranges(&data, 1).collect::<Vec<_>>(), [first]);
    assert_eq!(ranges(&data, 2).collect::<Vec<_>>(), [first, longest]);
    assert_eq!(ranges(&data[..31], 2).collect::<Vec<_>>(), [first]);
    assert_eq!(ranges(&data, 256).count(), 256);
}

proptest! {
    #[test]
    fn any_command_is_understood_and_written_back_or_refused(
        opcode in prop_oneof![any::<u8>(), 0_u8..0x20],
        bytes: [[u8; 16]; 4],
    ) {
        let mut sqe = Sqe::read_from_bytes(bytes.as_bytes()).expect("64 bytes");
        sqe.opcode = opcode;
        match IoCommand::parse(&sqe) {
            Ok(command) => {
                prop_assert_eq!(IoCommand::parse(&command.to_sqe(1)), Ok(command));
                let _ = command.operation.data_rule(15);
            }
            Err(status) => prop_assert!(status.is_dnr() && !status.is_success()),
        }
    }
}
