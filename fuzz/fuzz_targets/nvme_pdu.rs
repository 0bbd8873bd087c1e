//! PDU headers of NVMe/TCP, as a controller and as a host reads them.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use lsvd_nvmet::wire::pdu::{
    Alignment, CapsuleCommand, CapsuleResponse, DataPdu, IcReq, IcResp, PduRules, PduWriter, R2t,
    TermReq, digest,
};
use lsvd_nvmet::wire::{Digests, Direction, PduKind};

const DATA_MAX: u32 = 128 << 10;

fuzz_target!(|input: &[u8]| {
    let Some((&[choice, alignment], pdu)) = input.split_first_chunk() else { return };
    let rules = PduRules {
        from: if choice & 1 == 0 {
            Direction::HostToController
        } else {
            Direction::ControllerToHost
        },
        connected: choice & 2 == 0,
        digests: Digests::from_field(choice >> 2),
        alignment: Alignment::from_field(alignment).unwrap_or_default(),
        capsule_data_max: 8192,
        data_max: DATA_MAX,
    };
    let Some(common) = pdu.first_chunk() else { return };
    let Ok(frame) = rules.check(common) else { return };
    let [.., p0, p1, p2, p3] = *common;
    assert_eq!(frame.len(), u32::from_le_bytes([p0, p1, p2, p3]) as usize);
    assert!(frame.header_len() <= frame.data_offset());
    assert!(frame.data_len() <= DATA_MAX);
    assert!(frame.len() <= 255 + DATA_MAX as usize + 4);

    let Some(header) = pdu.get(..frame.header_len()) else { return };
    let mut header = header.to_vec();
    let body_len = frame.kind().header_bytes();
    if choice & 16 == 0 && header.len() > body_len {
        // A fuzzer cannot guess a digest.
        let right = digest(&header[..body_len]).to_le_bytes();
        header[body_len..].copy_from_slice(&right);
    }
    if frame.check_header_digest(&header).is_err() {
        return;
    }
    let writer = PduWriter { digests: rules.digests, alignment: rules.alignment };
    let mut out = BytesMut::new();
    match frame.kind() {
        PduKind::IcReq => {
            if let Ok(request) = IcReq::parse(chunk(&header)) {
                assert_eq!(IcReq::parse(&request.to_bytes()), Ok(request));
            }
        }
        PduKind::IcResp => {
            if let Ok(response) = IcResp::parse(chunk(&header)) {
                assert_eq!(IcResp::parse(&response.to_bytes()), Ok(response));
            }
        }
        PduKind::H2cTermReq | PduKind::C2hTermReq => {
            let _ = TermReq::parse(chunk(&header));
        }
        PduKind::CapsuleCmd => {
            let sqe = CapsuleCommand::parse(chunk(&header));
            writer.capsule_command(&sqe, frame.data_len(), &mut out);
            assert_eq!(CapsuleCommand::parse(chunk(&out)), sqe);
        }
        PduKind::CapsuleResp => {
            let cqe = CapsuleResponse::parse(chunk(&header));
            writer.capsule_response(&cqe, &mut out);
            assert_eq!(CapsuleResponse::parse(chunk(&out)), cqe);
        }
        PduKind::H2cData | PduKind::C2hData => {
            if let Ok(data) = DataPdu::parse(chunk(&header), &frame) {
                writer.data(rules.from, &data, &mut out);
                assert_eq!(DataPdu::parse(chunk(&out), &frame), Ok(data));
            }
        }
        PduKind::R2t => {
            if let Ok(r2t) = R2t::parse(chunk(&header)) {
                writer.r2t(&r2t, &mut out);
                assert_eq!(R2t::parse(chunk(&out)), Ok(r2t));
            }
        }
    }
    if !out.is_empty() {
        // Our own writing keeps to the rules that the input kept to.
        let again = rules.check(chunk(&out)).expect("what is written is well formed");
        assert_eq!(again.check_header_digest(&out), Ok(()));
        assert_eq!((again.kind(), again.data_len()), (frame.kind(), frame.data_len()));
    }
});

fn chunk<const N: usize>(bytes: &[u8]) -> &[u8; N] {
    bytes.first_chunk().expect("a frame has its whole header")
}
