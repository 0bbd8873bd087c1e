use proptest::prelude::*;

use super::*;

#[test]
fn a_page_is_read_in_pieces_and_zeroes_follow_its_end() {
    let mut out = [9; 4];
    assert_eq!(copy_window(&[1, 2, 3, 4, 5, 6], 4, &mut out), Ok(()));
    assert_eq!(out, [5, 6, 0, 0]);
    assert_eq!(copy_window(&[1, 2], 2, &mut out), Ok(()));
    assert_eq!(out, [0; 4]);
    let invalid = Err(Status::INVALID_FIELD.dnr());
    assert_eq!(copy_window(&[1, 2], 3, &mut out), invalid);
    assert_eq!(copy_window(&[1, 2], u64::MAX, &mut out), invalid);
}

#[test]
fn supported_pages_and_commands_are_marked() {
    let log = supported_log_pages(&[LogPageId::Smart, LogPageId::Discovery]);
    assert_eq!(log.len(), 1024);
    let marked: Vec<usize> = (0..1024).filter(|&at| log[at] != 0).collect();
    assert_eq!(marked, [8, 0x70 * 4]);
    let io = [(IoOpcode::Write, Effect::Blocks), (IoOpcode::Read, Effect::None)];
    let log = command_effects(&[AdminOpcode::KeepAlive], &io);
    assert_eq!(log.len(), 4096);
    assert_eq!((log[0x18 * 4], log[1024 + 4], log[1024 + 8]), (1, 3, 1));
    assert_eq!(log.iter().filter(|&&byte| byte != 0).count(), 3);
}

#[test]
fn more_changes_than_fit_are_one_entry() {
    let log = changed_namespaces(&[2, 0x0103]);
    assert_eq!((log.len(), &log[..12]), (4096, &[2, 0, 0, 0, 3, 1, 0, 0, 0, 0, 0, 0][..]));
    let ids: Vec<u32> = (1..=1024).collect();
    assert_eq!(changed_namespaces(&ids)[4092..], [0, 4, 0, 0]);
    let ids: Vec<u32> = (1..=1025).collect();
    assert_eq!(changed_namespaces(&ids)[..8], [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
}

fn ana() -> AnaLog {
    let group = |id, state, namespaces| AnaGroup { id, change_count: 5, state, namespaces };
    AnaLog {
        change_count: 0x0102,
        groups: vec![
            group(1, AnaState::Optimized, vec![1, 7]),
            group(2, AnaState::Change, vec![]),
            group(3, AnaState::Inaccessible, vec![9]),
        ],
    }
}

#[test]
fn ana_groups_are_in_place() {
    let log = ana().to_bytes(false);
    assert_eq!(log.len(), 16 + 3 * 32 + 3 * 4);
    assert_eq!(log[..16], [2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(log[16..32], [1, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!((log[32], &log[48..56]), (1, &[1, 0, 0, 0, 7, 0, 0, 0][..]));
    assert_eq!((log[56], log[60], log[72]), (2, 0, 0xf));
    assert_eq!(AnaLog::parse(&log), Some(ana()));
    let groups_only = ana().to_bytes(true);
    assert_eq!(groups_only.len(), 16 + 3 * 32);
    assert!(AnaLog::parse(&groups_only).is_some_and(|log| log.groups[0].namespaces.is_empty()));
    assert_eq!(AnaLog::parse(&log[..log.len() - 1]), None);
}

fn discovery() -> DiscoveryLog {
    let record = |kind, address: &str, subsystem: &str| DiscoveryRecord {
        kind,
        address: address.parse().expect("an address"),
        port_id: 1,
        cntlid: 0xffff,
        admin_queue_entries: 32,
        eflags: 3,
        subsystem: subsystem.parse().expect("a name"),
    };
    DiscoveryLog {
        generation: 0x0a,
        records: vec![
            record(SubsystemKind::CurrentDiscovery, "10.0.2.2:4420", "nqn.disc"),
            record(SubsystemKind::Nvm, "[::1]:4421", "nqn.sub"),
        ],
    }
}

#[test]
fn discovery_records_are_in_place() {
    let log = discovery().to_bytes();
    assert_eq!(log.len(), 3072);
    assert_eq!(log[..18], [10, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let first = &log[1024..2048];
    assert_eq!(first[..12], [3, 1, 3, 6, 1, 0, 0xff, 0xff, 32, 0, 3, 0]);
    assert_eq!(first[32..38], *b"4420  ");
    assert_eq!(first[256..265], *b"nqn.disc\0");
    assert_eq!(first[512..521], *b"10.0.2.2 ");
    assert_eq!(first[768], 0);
    assert_eq!((log[2048 + 1], log[2048 + 2]), (2, 2));
    assert_eq!(log[2048 + 512..2048 + 516], *b"::1 ");
    assert_eq!(DiscoveryLog::parse(&log), Some(discovery()));
    assert_eq!(DiscoveryLog::parse(&log[..3071]), None);
}

#[test]
fn records_that_the_kernel_pads_with_nul_are_read_too() {
    let mut log = discovery().to_bytes();
    log[1024 + 36..1024 + 64].fill(0);
    log[1024 + 520..1024 + 768].fill(0);
    // A record of another transport (RDMA) is left out.
    log[2048] = 1;
    let parsed = DiscoveryLog::parse(&log).expect("whole");
    assert_eq!(parsed.records, discovery().records[..1]);
}

#[test]
fn errors_health_and_firmware_are_in_place() {
    let entry = ErrorEntry {
        count: 3,
        sqid: 1,
        cid: 0x0203,
        status: Status::LBA_OUT_OF_RANGE.dnr(),
        location: 0xffff,
        lba: 0x10,
        nsid: 4,
    };
    let log = ErrorEntry::log([&entry], 2);
    assert_eq!(log.len(), 128);
    assert_eq!(log[..16], [3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 3, 2, 0, 0x81, 0xff, 0xff]);
    assert_eq!(log[16..30], [16, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 3]);
    assert!(log[64..].iter().all(|&byte| byte == 0));
    assert_eq!(ErrorEntry::log([&entry, &entry], 1).len(), 64);

    let smart = SmartInfo {
        critical_warning: 4,
        temperature_kelvins: 300,
        spare_percent: 100,
        spare_threshold_percent: 10,
        used_percent: 1,
        units_read: 2,
        units_written: 3,
        error_entries: 0x11,
        ..SmartInfo::default()
    };
    let log = smart.to_bytes();
    assert_eq!((log.len(), &log[..6]), (512, &[4, 44, 1, 100, 10, 1][..]));
    assert_eq!((log[32], log[48], log[176]), (2, 3, 0x11));

    let log = firmware_slots("0.1.0");
    assert_eq!((log.len(), log[0], &log[8..16]), (512, 1, &b"0.1.0   "[..]));
}

proptest! {
    #[test]
    fn pieces_make_up_the_page(page: Vec<u8>, len in 1_usize..64) {
        let mut whole = Vec::new();
        let mut out = vec![0; len];
        for at in (0..=page.len()).step_by(len) {
            copy_window(&page, at as u64, &mut out).expect("not beyond the end");
            whole.extend_from_slice(&out);
        }
        prop_assert_eq!(&whole[..page.len()], &page[..]);
        prop_assert!(whole[page.len()..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn any_bytes_are_a_page_or_none(page: Vec<u8>, at in 0_usize..5000, byte: u8) {
        let _ = AnaLog::parse(&page);
        let _ = DiscoveryLog::parse(&page);
        for mut log in [ana().to_bytes(false), discovery().to_bytes()] {
            let at = at % log.len();
            log[at] = byte;
            let _ = AnaLog::parse(&log);
            let _ = DiscoveryLog::parse(&log);
        }
    }
}
