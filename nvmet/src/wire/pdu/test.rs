use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::wire::cqe::Cqe;
use crate::wire::sqe::Sqe;
use crate::wire::status::Status;

const DWORDS: Alignment = alignment(0);

const fn alignment(dwords: u8) -> Alignment {
    Alignment::from_field(dwords).expect("less than 32")
}

const AT_CONTROLLER: PduRules = PduRules {
    from: Direction::HostToController,
    connected: true,
    digests: Digests { header: false, data: false },
    alignment: DWORDS,
    capsule_data_max: 8192,
    data_max: 131_072,
};

const AT_HOST: PduRules = PduRules { from: Direction::ControllerToHost, ..AT_CONTROLLER };

const BOTH: Digests = Digests { header: true, data: true };

fn header(pdu_type: u8, flags: u8, hlen: u8, pdo: u8, plen: u32) -> [u8; 8] {
    let [p0, p1, p2, p3] = plen.to_le_bytes();
    [pdu_type, flags, hlen, pdo, p0, p1, p2, p3]
}

fn geometry(frame: PduFrame) -> (PduKind, usize, usize, u32, usize) {
    (frame.kind(), frame.header_len(), frame.data_offset(), frame.data_len(), frame.len())
}

#[test]
fn digests_are_those_of_the_iscsi_document() {
    // RFC 3720, appendix B.4: 32 bytes of zeroes, of ones, and counting up.
    assert_eq!(digest(&[0; 32]).to_le_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
    assert_eq!(digest(&[0xff; 32]).to_le_bytes(), [0x43, 0xab, 0xa8, 0x62]);
    let counting: Vec<u8> = (0..32).collect();
    assert_eq!(digest(&counting).to_le_bytes(), [0x4e, 0x79, 0xdd, 0x46]);
    let pieces = digest_append(digest_append(0, &counting[..5]), &counting[5..]);
    assert_eq!(pieces, digest(&counting));
}

#[test]
fn a_captured_connection_request_is_understood() {
    // Linux with `nvme connect -g -G`: pfv 0, hpda 0, dgst 3, maxr2t 0.
    let mut pdu = [0; 128];
    pdu[..12].copy_from_slice(&[0x00, 0, 128, 0, 128, 0, 0, 0, 0, 0, 0, 3]);
    let rules = PduRules { connected: false, ..AT_CONTROLLER };
    let frame = rules.check(pdu.first_chunk().expect("header")).expect("a connection request");
    assert_eq!(geometry(frame), (PduKind::IcReq, 128, 128, 0, 128));
    let request = IcReq { alignment: DWORDS, digests: BOTH, maxr2t: 0 };
    assert_eq!(IcReq::parse(&pdu), Ok(request));
    assert_eq!(request.to_bytes(), pdu);
}

#[test]
fn connection_parameters_that_do_not_exist_are_named() {
    let good = IcReq { alignment: alignment(3), digests: Digests::default(), maxr2t: 7 }.to_bytes();
    assert_eq!(good[10], 3);
    assert_eq!(good[12..16], [7, 0, 0, 0]);
    let with = |at: usize, value: u8| {
        let mut pdu = good;
        pdu[at] = value;
        IcReq::parse(&pdu)
    };
    assert_eq!(with(8, 1), Err(TermError::parameter(8)));
    assert_eq!(with(9, 1), Err(TermError::parameter(8)));
    assert_eq!(with(10, 32), Err(TermError::field(10)));
    assert!(with(10, 31).is_ok());
    assert!(with(11, 0xfc).is_ok_and(|request| request.digests == Digests::default()));
}

#[test]
fn a_connection_response_has_its_fields_in_place() {
    let response = IcResp { alignment: alignment(1), digests: BOTH, maxh2cdata: 0x0002_0000 };
    let pdu = response.to_bytes();
    assert_eq!(pdu[..16], [1, 0, 128, 0, 128, 0, 0, 0, 0, 0, 1, 3, 0, 0, 2, 0]);
    assert!(pdu[16..].iter().all(|&byte| byte == 0));
    assert_eq!(IcResp::parse(&pdu), Ok(response));
    for maxh2cdata in [0, 4092, 4098] {
        let pdu = IcResp { maxh2cdata, ..response }.to_bytes();
        assert_eq!(IcResp::parse(&pdu), Err(TermError::field(12)));
    }
}

#[test]
fn captured_headers_have_their_geometry() {
    let h2c = [
        // A read, a Connect with its data, a write of 4096 bytes in the capsule.
        (header(4, 0, 72, 0, 72), (PduKind::CapsuleCmd, 72, 72, 0, 72)),
        (header(4, 0, 72, 72, 1096), (PduKind::CapsuleCmd, 72, 72, 1024, 1096)),
        (header(4, 0, 72, 72, 4168), (PduKind::CapsuleCmd, 72, 72, 4096, 4168)),
        // H2CData len=20480 LAST pdo=24 plen=20504.
        (header(6, 4, 24, 24, 20504), (PduKind::H2cData, 24, 24, 20480, 20504)),
        (header(2, 0, 24, 0, 96), (PduKind::H2cTermReq, 24, 24, 72, 96)),
    ];
    for (header, expected) in h2c {
        assert_eq!(AT_CONTROLLER.check(&header).map(geometry), Ok(expected));
        assert_eq!(AT_HOST.check(&header), Err(TermError::field(0)));
    }
    let c2h = [
        (header(5, 0, 24, 0, 24), (PduKind::CapsuleResp, 24, 24, 0, 24)),
        (header(9, 0, 24, 0, 24), (PduKind::R2t, 24, 24, 0, 24)),
        (header(7, 0xc, 24, 24, 4120), (PduKind::C2hData, 24, 24, 4096, 4120)),
        (header(3, 0, 24, 0, 152), (PduKind::C2hTermReq, 24, 24, 128, 152)),
    ];
    for (header, expected) in c2h {
        assert_eq!(AT_HOST.check(&header).map(geometry), Ok(expected));
        assert_eq!(AT_CONTROLLER.check(&header), Err(TermError::field(0)));
    }
}

#[test]
fn digests_move_the_data() {
    let rules = PduRules { digests: BOTH, ..AT_CONTROLLER };
    let write = rules.check(&header(4, 3, 72, 76, 76 + 4096 + 4)).expect("a write");
    assert_eq!(geometry(write), (PduKind::CapsuleCmd, 76, 76, 4096, 4176));
    assert!(write.has_data_digest());
    // Without data there is no data digest, whatever was agreed.
    let read = rules.check(&header(4, 1, 72, 0, 76)).expect("a read");
    assert_eq!(geometry(read), (PduKind::CapsuleCmd, 76, 76, 0, 76));
    assert!(!read.has_data_digest());
}

#[test]
fn the_wrong_field_of_a_header_is_named() {
    let cases = [
        (header(8, 0, 24, 0, 24), TermError::field(0), "reserved type"),
        (header(5, 0, 24, 0, 24), TermError::field(0), "type of the other side"),
        (header(0, 0, 128, 0, 128), TermError::SEQUENCE, "second connection request"),
        (header(4, 1, 72, 0, 76), TermError::field(1), "header digest not agreed upon"),
        (header(4, 2, 72, 72, 200), TermError::field(1), "data digest not agreed upon"),
        (header(4, 0, 71, 0, 72), TermError::field(2), "header too short"),
        (header(6, 0, 25, 25, 72), TermError::field(2), "header too long"),
        (header(4, 0, 72, 68, 200), TermError::field(3), "data in the header"),
        (header(6, 0, 24, 26, 200), TermError::field(3), "data not aligned"),
        (header(4, 0, 72, 0, 71), TermError::field(3), "shorter than its header, no data offset"),
        (header(4, 0, 72, 72, 71), TermError::field(4), "shorter than its header"),
        (header(4, 0, 72, 76, 76), TermError::field(4), "only padding"),
        (header(4, 0, 72, 72, 72 + 8193), TermError::field(4), "more than fits a capsule"),
        (header(4, 0, 72, 72, u32::MAX), TermError::field(4), "longest"),
        (header(6, 0, 24, 24, 24), TermError::field(4), "data PDU without data"),
        (header(6, 0, 24, 24, 24 + 131_073), TermError::LIMIT, "more than MAXH2CDATA"),
        (header(2, 0, 24, 0, 153), TermError::field(4), "termination request too long"),
        (header(2, 0, 24, 0, 23), TermError::field(4), "termination request too short"),
    ];
    for (header, error, what) in cases {
        assert_eq!(AT_CONTROLLER.check(&header), Err(error), "{what}");
    }
    let success_alone = header(7, 8, 24, 24, 4120);
    assert_eq!(AT_HOST.check(&success_alone), Err(TermError::field(1)));
    assert_eq!(AT_HOST.check(&header(9, 0, 24, 0, 28)), Err(TermError::field(4)));
    let digests = PduRules { digests: BOTH, ..AT_CONTROLLER };
    assert_eq!(digests.check(&header(4, 0, 72, 0, 72)), Err(TermError::field(1)));
    assert_eq!(digests.check(&header(6, 1, 24, 28, 200)), Err(TermError::field(1)));
    // Reserved flags are not looked at.
    assert!(AT_CONTROLLER.check(&header(4, 0xf0, 72, 0, 72)).is_ok());
}

#[test]
fn nothing_but_the_connection_request_comes_first() {
    let rules = PduRules { connected: false, ..AT_CONTROLLER };
    assert_eq!(rules.check(&header(4, 0, 72, 0, 72)), Err(TermError::SEQUENCE));
    assert_eq!(rules.check(&header(0, 0, 128, 0, 129)), Err(TermError::field(4)));
    // A peer may give up at any time.
    assert!(rules.check(&header(2, 0, 24, 0, 24)).is_ok());
}

#[test]
fn the_alignment_that_was_asked_for_is_demanded() {
    let rules = PduRules { alignment: alignment(31), ..AT_CONTROLLER };
    assert_eq!(rules.check(&header(4, 0, 72, 72, 584)), Err(TermError::field(3)));
    let frame = rules.check(&header(4, 0, 72, 128, 640)).expect("aligned");
    assert_eq!(geometry(frame), (PduKind::CapsuleCmd, 72, 128, 512, 640));
}

#[test]
fn a_flipped_bit_in_the_header_is_found_by_its_digest() {
    let writer = PduWriter { digests: BOTH, alignment: DWORDS };
    let mut out = BytesMut::new();
    writer.capsule_command(&Sqe::new(2, 5, 1), 0, &mut out);
    let rules = PduRules { digests: BOTH, ..AT_CONTROLLER };
    let frame = rules.check(out.first_chunk().expect("header")).expect("well formed");
    assert_eq!(frame.check_header_digest(&out), Ok(()));
    out[20] ^= 0x10;
    let received = u32::from_le_bytes([out[72], out[73], out[74], out[75]]);
    let error = TermError { status: FatalStatus::HeaderDigest, information: received };
    assert_eq!(frame.check_header_digest(&out), Err(error));
}

#[test]
fn a_termination_request_has_its_fields_in_place() {
    let offending = [0x66; 200];
    let mut out = BytesMut::new();
    TermError::field(0x0403_0201).encode(Direction::ControllerToHost, &offending, &mut out);
    assert_eq!(out.len(), 152);
    assert_eq!(out[..14], [3, 0, 24, 0, 152, 0, 0, 0, 1, 0, 1, 2, 3, 4]);
    assert_eq!(out[14..24], [0; 10]);
    assert_eq!(out[24..], offending[..128]);
    let frame = AT_HOST.check(out.first_chunk().expect("header")).expect("well formed");
    assert_eq!(geometry(frame), (PduKind::C2hTermReq, 24, 24, 128, 152));
    let request = TermReq::parse(out.first_chunk().expect("header"));
    assert_eq!(request, TermReq { fes: 1, fei: 0x0403_0201 });

    out.clear();
    TermError::LIMIT.encode(Direction::HostToController, &[9, 0], &mut out);
    assert_eq!(out[..10], [2, 0, 24, 0, 26, 0, 0, 0, 5, 0]);
    assert_eq!(FatalStatus::parse(5), Some(FatalStatus::LimitExceeded));
    assert_eq!(FatalStatus::parse(0), None);
}

#[test]
fn a_request_for_data_has_its_fields_in_place() {
    let mut out = BytesMut::new();
    let r2t = R2t { cid: 0x1234, ttag: 0x5678, offset: 0x1000, len: 0x5000 };
    PduWriter::default().r2t(&r2t, &mut out);
    let expected = [
        9, 0, 24, 0, 24, 0, 0, 0, // common header
        0x34, 0x12, 0x78, 0x56, // CCCID, TTAG
        0, 0x10, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, // R2TO, R2TL, reserved
    ];
    assert_eq!(out[..], expected);
    let mut empty = expected;
    empty[17] = 0;
    assert_eq!(R2t::parse(&expected), Ok(r2t));
    assert_eq!(R2t::parse(&empty), Err(TermError::field(16)));
}

#[test]
fn a_data_pdu_has_its_fields_in_place() {
    let mut out = BytesMut::new();
    let data =
        DataPdu { cid: 7, ttag: 0, offset: 8192, len: 4096, is_last: true, is_success: true };
    PduWriter::default().data(Direction::ControllerToHost, &data, &mut out);
    let expected = [
        7, 0b1100, 24, 24, 0x18, 0x10, 0, 0, // common header, 4120 bytes in all
        7, 0, 0, 0, 0, 0x20, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(out[..], expected);
    let frame = AT_HOST.check(expected.first_chunk().expect("header")).expect("well formed");
    assert_eq!(DataPdu::parse(&expected, &frame), Ok(data));
    let mut lying = expected;
    lying[16] = 1;
    assert_eq!(DataPdu::parse(&lying, &frame), Err(TermError::field(16)));
}

#[test]
fn a_response_capsule_follows_its_common_header() {
    let mut out = BytesMut::new();
    let cqe = Cqe::new(9, 1, 2, 3, Status::SUCCESS);
    let writer = PduWriter { digests: BOTH, alignment: alignment(31) };
    writer.capsule_response(&cqe, &mut out);
    // Padding belongs to data, and there is none.
    assert_eq!(out[..8], [5, 1, 24, 0, 28, 0, 0, 0]);
    assert_eq!(out.len(), 28);
    assert_eq!(CapsuleResponse::parse(out.first_chunk().expect("header")), cqe);
}

fn digests() -> impl Strategy<Value = Digests> {
    (any::<bool>(), any::<bool>()).prop_map(|(header, data)| Digests { header, data })
}

fn alignments() -> impl Strategy<Value = Alignment> {
    (0_u8..32).prop_map(alignment)
}

proptest! {
    #[test]
    fn any_eight_bytes_are_a_frame_of_their_length_or_an_error(
        bytes: [u8; 8],
        pdu_type in 0_u8..10,
        plen in 0_u32..10_000,
        typed: bool,
        to_host: bool,
        connected: bool,
        digests in digests(),
        alignment in alignments(),
    ) {
        // Random bytes alone would hardly ever get past the type and the length of the header.
        let mut bytes = bytes;
        if typed && let Some(kind) = PduKind::parse(pdu_type) {
            bytes = header(pdu_type, bytes[1] & 15, kind.header_bytes() as u8, bytes[3], plen);
        }
        let from = if to_host { Direction::ControllerToHost } else { Direction::HostToController };
        let rules = PduRules { from, connected, digests, alignment, ..AT_CONTROLLER };
        if let Ok(frame) = rules.check(&bytes) {
            let [.., p0, p1, p2, p3] = bytes;
            prop_assert_eq!(frame.len(), u32::from_le_bytes([p0, p1, p2, p3]) as usize);
            prop_assert!(frame.header_len() <= frame.data_offset());
            prop_assert!(frame.data_offset() + frame.data_len() as usize <= frame.len());
            prop_assert!(frame.len() <= 255 + 131_072 + 4);
        }
    }

    #[test]
    fn what_is_written_is_read_back(
        digests in digests(),
        alignment in alignments(),
        to_host: bool,
        cid: u16,
        ttag: u16,
        offset: u32,
        len in 1_u32..=131_072,
        is_last: bool,
    ) {
        let from = if to_host { Direction::ControllerToHost } else { Direction::HostToController };
        let is_success = to_host && is_last;
        let data = DataPdu { cid, ttag, offset, len, is_last, is_success };
        let mut out = BytesMut::new();
        PduWriter { digests, alignment }.data(from, &data, &mut out);
        let rules = PduRules { from, digests, alignment, ..AT_CONTROLLER };
        let frame = rules.check(out.first_chunk().expect("header")).expect("well formed");
        prop_assert_eq!(frame.check_header_digest(&out), Ok(()));
        prop_assert_eq!(frame.data_offset(), out.len());
        prop_assert_eq!(DataPdu::parse(out.first_chunk().expect("header"), &frame), Ok(data));
    }

    #[test]
    fn commands_are_read_back(
        digests in digests(),
        alignment in alignments(),
        opcode: u8,
        cid: u16,
        nsid: u32,
        len in 0_u32..=8192,
    ) {
        let sqe = Sqe::new(opcode, cid, nsid);
        let mut out = BytesMut::new();
        PduWriter { digests, alignment }.capsule_command(&sqe, len, &mut out);
        prop_assert!(out.len() <= PduWriter::BYTES_MAX);
        let rules = PduRules { digests, alignment, ..AT_CONTROLLER };
        let frame = rules.check(out.first_chunk().expect("header")).expect("well formed");
        prop_assert_eq!(frame.check_header_digest(&out), Ok(()));
        prop_assert_eq!((frame.data_offset(), frame.data_len()), (out.len(), len));
        prop_assert_eq!(CapsuleCommand::parse(out.first_chunk().expect("header")), sqe);
    }

    #[test]
    fn any_header_is_read_or_refused(
        ic in prop::array::uniform32(any::<u8>()),
        short in prop::array::uniform24(any::<u8>()),
    ) {
        let mut pdu = [0; 128];
        pdu[..32].copy_from_slice(&ic);
        if let Ok(request) = IcReq::parse(&pdu) {
            prop_assert_eq!(IcReq::parse(&request.to_bytes()), Ok(request));
        }
        if let Ok(response) = IcResp::parse(&pdu) {
            prop_assert_eq!(IcResp::parse(&response.to_bytes()), Ok(response));
        }
        if let Ok(r2t) = R2t::parse(&short) {
            prop_assert!(r2t.len > 0);
        }
    }
}
