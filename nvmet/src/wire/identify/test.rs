use std::mem::offset_of;

use uuid::Uuid;

use super::controller::ControllerBytes;
use super::namespace::NamespaceBytes;
use super::*;
use crate::wire::async_event::AsyncEventMask;

/// What the kernel target reports of itself, as captured.
fn kernel_target() -> ControllerInfo {
    ControllerInfo {
        kind: ControllerKind::Io,
        vendor_id: 0x1af4,
        serial: "SPDK_000001".to_owned(),
        model: "LSVD NVMe controller".to_owned(),
        firmware: "0.1.0".to_owned(),
        rab: 6,
        ieee: [1, 2, 3],
        cmic: cmic::PORTS | cmic::CONTROLLERS | cmic::ANA,
        mdts: 5,
        cntlid: 0x0102,
        version: 0x0002_0000,
        rtd3e_us: 10_000_000,
        oaes: AsyncEventMask(0x900),
        ctratt: ctratt::HOST_ID_128 | ctratt::TRAFFIC_KEEP_ALIVE,
        crdt_100ms: [10, 20, 30],
        acl: 3,
        aerl: 4,
        frmw: 3,
        lpa: lpa::SMART_PER_NAMESPACE | lpa::EFFECTS | lpa::EXTENDED,
        elpe: 127,
        wctemp: 343,
        cctemp: 373,
        kas_100ms: 10,
        anatt_s: 9,
        anacap: anacap::ALL_STATES,
        anagrpmax: 128,
        nanagrpid: 127,
        maxcmd: 1024,
        nn: 1025,
        oncs: oncs::DATASET_MANAGEMENT | oncs::WRITE_ZEROES,
        vwc: vwc::PRESENT | vwc::FLUSH_ALL,
        awun: 7,
        awupf: 6,
        acwu: 1,
        sgls: sgls::SUPPORTED | sgls::OFFSET,
        mnan: 1026,
        subnqn: "nqn.2019-05.io.lsvd:cnode1".parse().expect("a name"),
        ioccsz: 1028,
        iorcsz: 1,
        fcatt: 0,
        msdbd: 1,
        ofcs: 1,
    }
}

fn namespace() -> NamespaceInfo {
    NamespaceInfo {
        blocks: 0x20_0000,
        blocks_used: 0x1000,
        block_bytes_log2: 9,
        nsfeat: nsfeat::PREFERRED,
        nmic: nmic::SHARED,
        rescap: 0x7f,
        dlfeat: 0x09,
        nawun: 1,
        nawupf: 2,
        noiob: 3,
        npwg: 7,
        npwa: 8,
        npdg: 9,
        npda: 10,
        nows: 255,
        anagrpid: 4,
        is_write_protected: true,
        nguid: [0xa5; 16],
        eui64: [0; 8],
        uuid: Uuid::from_bytes([0xc3; 16]),
    }
}

#[test]
fn controller_fields_are_where_the_figure_has_them() {
    let offsets = [
        (offset_of!(ControllerBytes, sn), 4),
        (offset_of!(ControllerBytes, mn), 24),
        (offset_of!(ControllerBytes, fr), 64),
        (offset_of!(ControllerBytes, cmic), 76),
        (offset_of!(ControllerBytes, mdts), 77),
        (offset_of!(ControllerBytes, cntlid), 78),
        (offset_of!(ControllerBytes, ver), 80),
        (offset_of!(ControllerBytes, rtd3e), 88),
        (offset_of!(ControllerBytes, oaes), 92),
        (offset_of!(ControllerBytes, ctratt), 96),
        (offset_of!(ControllerBytes, cntrltype), 111),
        (offset_of!(ControllerBytes, crdt), 128),
        (offset_of!(ControllerBytes, oacs), 256),
        (offset_of!(ControllerBytes, lpa), 261),
        (offset_of!(ControllerBytes, wctemp), 266),
        (offset_of!(ControllerBytes, tnvmcap), 280),
        (offset_of!(ControllerBytes, kas), 320),
        (offset_of!(ControllerBytes, anatt), 342),
        (offset_of!(ControllerBytes, anagrpmax), 344),
        (offset_of!(ControllerBytes, sqes), 512),
        (offset_of!(ControllerBytes, maxcmd), 514),
        (offset_of!(ControllerBytes, nn), 516),
        (offset_of!(ControllerBytes, oncs), 520),
        (offset_of!(ControllerBytes, vwc), 525),
        (offset_of!(ControllerBytes, acwu), 532),
        (offset_of!(ControllerBytes, sgls), 536),
        (offset_of!(ControllerBytes, mnan), 540),
        (offset_of!(ControllerBytes, subnqn), 768),
        (offset_of!(ControllerBytes, ioccsz), 1792),
        (offset_of!(ControllerBytes, icdoff), 1800),
        (offset_of!(ControllerBytes, ofcs), 1804),
        (offset_of!(ControllerBytes, psd), 2048),
        (offset_of!(ControllerBytes, vendor), 3072),
    ];
    for (at, (found, expected)) in offsets.into_iter().enumerate() {
        assert_eq!(found, expected, "row {at}");
    }
}

#[test]
fn a_controller_is_written_and_read_back() {
    let info = kernel_target();
    let page = info.to_bytes();
    assert_eq!(page[..4], [0xf4, 0x1a, 0xf4, 0x1a]);
    assert_eq!(page[4..24], *b"SPDK_000001         ");
    assert_eq!(page[24..64], *b"LSVD NVMe controller                    ");
    assert_eq!(page[64..72], *b"0.1.0   ");
    assert_eq!(page[72..84], [6, 1, 2, 3, 0xb, 5, 2, 1, 0, 0, 2, 0]);
    assert_eq!(page[92..100], [0, 9, 0, 0, 0x41, 0, 0, 0]);
    assert_eq!(page[111], 1);
    assert_eq!(page[128..134], [10, 0, 20, 0, 30, 0]);
    assert_eq!(page[258..264], [3, 4, 3, 7, 127, 0]);
    assert_eq!(page[320], 10);
    assert_eq!(page[342..352], [9, 0x1f, 128, 0, 0, 0, 127, 0, 0, 0]);
    assert_eq!(page[512..526], [0x66, 0x44, 0, 4, 1, 4, 0, 0, 0x0c, 0, 0, 0, 0, 7]);
    assert_eq!(page[526..544], [7, 0, 6, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0x10, 0, 2, 4, 0, 0]);
    assert_eq!(page[768..795], *b"nqn.2019-05.io.lsvd:cnode1\0");
    assert_eq!(page[1792..1806], [4, 4, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0]);
    assert_eq!(ControllerInfo::parse(&page), Ok(info));
}

#[test]
fn a_discovery_controller_has_no_queue_entry_sizes() {
    let info = ControllerInfo { kind: ControllerKind::Discovery, ..kernel_target() };
    let page = info.to_bytes();
    assert_eq!((page[111], &page[512..514]), (2, &[0, 0][..]));
    assert_eq!(ControllerInfo::parse(&page), Ok(info));
    assert!(ControllerInfo::parse(&EMPTY).is_err());
}

#[test]
fn namespace_fields_are_where_the_figure_has_them() {
    let offsets = [
        (offset_of!(NamespaceBytes, nsfeat), 24),
        (offset_of!(NamespaceBytes, flbas), 26),
        (offset_of!(NamespaceBytes, nmic), 30),
        (offset_of!(NamespaceBytes, dlfeat), 33),
        (offset_of!(NamespaceBytes, nawun), 34),
        (offset_of!(NamespaceBytes, noiob), 46),
        (offset_of!(NamespaceBytes, nvmcap), 48),
        (offset_of!(NamespaceBytes, npwg), 64),
        (offset_of!(NamespaceBytes, nows), 72),
        (offset_of!(NamespaceBytes, anagrpid), 92),
        (offset_of!(NamespaceBytes, nsattr), 99),
        (offset_of!(NamespaceBytes, nguid), 104),
        (offset_of!(NamespaceBytes, eui64), 120),
        (offset_of!(NamespaceBytes, lbaf), 128),
        (offset_of!(NamespaceBytes, vendor), 384),
    ];
    for (at, (found, expected)) in offsets.into_iter().enumerate() {
        assert_eq!(found, expected, "row {at}");
    }
}

#[test]
fn a_namespace_is_written_and_read_back() {
    let info = namespace();
    let page = info.to_bytes();
    assert_eq!(
        page[..24],
        [0, 0, 32, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(page[24..38], [0x10, 0, 0, 0, 0, 0, 1, 0x7f, 0, 9, 1, 0, 2, 0]);
    // 1 GiB.
    assert_eq!(page[46..56], [3, 0, 0, 0, 0, 0x40, 0, 0, 0, 0]);
    assert_eq!(page[64..74], [7, 0, 8, 0, 9, 0, 10, 0, 255, 0]);
    assert_eq!((page[92], page[99], page[104], page[130]), (4, 1, 0xa5, 9));
    assert_eq!(NamespaceInfo::parse(&page), NamespaceInfo { uuid: Uuid::nil(), ..info });
    let independent = info.independent_to_bytes(true);
    assert_eq!(independent[..15], [0, 1, 0x7f, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    assert_eq!(info.independent_to_bytes(false)[14], 0);
}

#[test]
fn the_format_in_use_is_read_from_its_index() {
    let mut page = namespace().to_bytes();
    page[26] = 0x21;
    page[128 + 17 * 4 + 2] = 12;
    assert_eq!(NamespaceInfo::parse(&page).block_bytes_log2, 12);
}

#[test]
fn descriptors_name_the_ids_that_exist_and_the_command_set() {
    let page = namespace().descriptors_to_bytes();
    assert_eq!(page[..5], [3, 16, 0, 0, 0xc3]);
    assert_eq!(page[20..25], [2, 16, 0, 0, 0xa5]);
    assert_eq!(page[40..46], [4, 1, 0, 0, 0, 0]);
    assert_eq!(NamespaceInfo::uuid_of(&page), Some(Uuid::from_bytes([0xc3; 16])));
    let bare = NamespaceInfo { nguid: [0; 16], eui64: [1; 8], uuid: Uuid::nil(), ..namespace() };
    let page = bare.descriptors_to_bytes();
    assert_eq!(page[..18], [1, 8, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 4, 1, 0, 0, 0, 0]);
    assert_eq!(NamespaceInfo::uuid_of(&page), None);
    assert_eq!(NamespaceInfo::uuid_of(&[0xff; BYTES]), None);
}

#[test]
fn lists_start_where_they_are_asked_to_and_are_cut_at_their_page() {
    let page = namespace_list([1, 2, 9], 1).expect("a list");
    assert_eq!(page[..12], [2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
    let full = namespace_list(1..=3000, 0).expect("a list");
    assert_eq!(parse_namespace_list(&full).count(), 1024);
    assert_eq!(parse_namespace_list(&full).last(), Some(1024));
    let rest = namespace_list(1..=3000, 2048).expect("a list");
    assert_eq!(parse_namespace_list(&rest).count(), 952);
    for above in [u32::MAX - 1, u32::MAX] {
        assert_eq!(namespace_list([1], above), Err(Status::INVALID_NAMESPACE.dnr()));
    }
    let page = controller_list([1, 2, 0x0103], 2);
    assert_eq!(page[..8], [2, 0, 2, 0, 3, 1, 0, 0]);
    let page = controller_list(0..4000, 0);
    assert_eq!(page[..2], [0xff, 7]);
    assert_eq!(page[4094..], 2046_u16.to_le_bytes());
}

#[test]
fn limits_of_the_command_set_are_in_place() {
    let limits = NvmLimits { vsl: 1, wzsl: 2, dmrl: 4, dmrsl: 0x0807_0605, dmsl: 0x09 };
    let page = limits.to_bytes();
    assert_eq!(page[..17], [1, 2, 0, 4, 5, 6, 7, 8, 9, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(NvmLimits::parse(&page), limits);
    assert_eq!(command_sets()[..9], [1, 0, 0, 0, 0, 0, 0, 0, 0]);
}
