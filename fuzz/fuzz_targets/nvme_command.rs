//! Commands of NVMe: submission entries of all three kinds with their data, and log pages as a host
//! reads them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lsvd_nvmet::wire::command::{ConnectData, IoOperation, ranges};
use lsvd_nvmet::wire::identify::{ControllerInfo, NamespaceInfo, parse_namespace_list};
use lsvd_nvmet::wire::log_page::{AnaLog, DiscoveryLog};
use lsvd_nvmet::wire::sqe::OPCODE_FABRICS;
use lsvd_nvmet::wire::{
    AdminCommand, DataRule, DataSource, FabricsCommand, IoCommand, Sgl, Sqe, Status,
};
use zerocopy::FromBytes;

fuzz_target!(|input: &[u8]| {
    let Some((&[choice], input)) = input.split_first_chunk() else { return };
    if choice & 0x80 != 0 {
        return structures(input);
    }
    let Some((entry, data)) = input.split_first_chunk::<{ Sqe::BYTES }>() else { return };
    let mut sqe = Sqe::read_from_bytes(entry).expect("any 64 bytes are an entry");
    let checked = sqe.check();
    assert_eq!(checked.is_ok(), sqe.is_fabrics() || entry[1] & 0xc3 == 0x40);
    let rule = match choice % 3 {
        0 => {
            sqe.opcode = OPCODE_FABRICS;
            FabricsCommand::parse(&sqe).map(|command| {
                assert_eq!(FabricsCommand::parse(&command.to_sqe(1)), Ok(command));
                command.data_rule()
            })
        }
        1 => AdminCommand::parse(&sqe).map(|command| {
            assert_eq!(AdminCommand::parse(&command.to_sqe(1)), Ok(command));
            command.data_rule()
        }),
        _ => IoCommand::parse(&sqe).map(|command| {
            assert_eq!(IoCommand::parse(&command.to_sqe(1)), Ok(command));
            if let IoOperation::DatasetManagement { ranges: count, .. } = command.operation {
                assert!(ranges(data, count).count() <= usize::from(count));
            }
            command.operation.data_rule(9 + (choice >> 2) % 4)
        }),
    };
    match (rule, sqe.sgl()) {
        (Ok(rule), Ok(sgl)) => place(rule, sgl, data.len() as u32),
        (Err(status), _) | (_, Err(status)) => refused(status),
    }
});

/// What a command is told about its data is all there.
fn place(rule: DataRule, sgl: Sgl, capsule_bytes: u32) {
    match sgl.check(rule, capsule_bytes) {
        Ok(DataSource::Capsule { offset, len }) => {
            assert!(offset.checked_add(len).is_some_and(|end| end <= capsule_bytes));
            assert_eq!(len, sgl.len());
        }
        Ok(DataSource::FromHost { len } | DataSource::ToHost { len }) => {
            assert_eq!(len, sgl.len());
            assert!(len > 0);
        }
        Ok(DataSource::None) => assert_eq!(sgl.len(), 0),
        Err(status) => refused(status),
    }
}

/// None of these commands can succeed later.
fn refused(status: Status) {
    assert!(status.is_dnr() && !status.is_success());
}

fn structures(input: &[u8]) {
    let mut page = [0; 4096];
    let len = input.len().min(page.len());
    page[..len].copy_from_slice(&input[..len]);
    if let Ok(info) = ControllerInfo::parse(&page) {
        assert_eq!(ControllerInfo::parse(&info.to_bytes()), Ok(info));
    }
    let _ = NamespaceInfo::parse(&page);
    let _ = NamespaceInfo::uuid_of(&page);
    assert!(parse_namespace_list(&page).count() <= 1024);
    if let Some(log) = AnaLog::parse(input) {
        assert_eq!(AnaLog::parse(&log.to_bytes(false)), Some(log));
    }
    if let Some(log) = DiscoveryLog::parse(&page) {
        assert_eq!(DiscoveryLog::parse(&log.to_bytes()), Some(log));
    }
    if let Some(data) = page.first_chunk()
        && let Ok(connect) = ConnectData::parse(data)
    {
        assert_eq!(ConnectData::parse(&connect.to_bytes()), Ok(connect));
    }
}
