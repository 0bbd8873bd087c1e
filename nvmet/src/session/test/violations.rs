//! Hosts that break the protocol.

use super::*;

fn term(replies: &[Reply]) -> FatalStatus {
    match replies {
        [.., Reply::Term(term)] => FatalStatus::parse(term.fes).unwrap(),
        other => panic!("no termination in {other:?}"),
    }
}

#[test]
fn protocol_errors_end_the_connection_with_a_reason() {
    type Spoil = fn(&mut BytesMut);
    let cases: [(Spoil, FatalStatus); 6] = [
        (|pdu| pdu[0] = 0x0a, FatalStatus::InvalidHeaderField),
        (|pdu| pdu[0] = 0x05, FatalStatus::InvalidHeaderField),
        (|pdu| pdu[0] = 0x00, FatalStatus::SequenceError),
        (|pdu| pdu[2] = 71, FatalStatus::InvalidHeaderField),
        (|pdu| pdu[7] = 0xff, FatalStatus::InvalidHeaderField),
        (|pdu| pdu[20] ^= 1, FatalStatus::HeaderDigest),
    ];
    for (at, (spoil, expected)) in cases.into_iter().enumerate() {
        let (target, _) = target();
        let mut host = Association::new(&target, BOTH);
        let mut bytes = host.script.io(7, IoOperation::Flush, 0).take();
        spoil(&mut bytes);
        assert_eq!(term(&host.io.send(&bytes)), expected, "case {at}");
        assert!(matches!(host.io.link.session.take_end(), Some(Err(Error::Violation(_)))));
        assert_eq!(target.stats().violations, 1);
    }
}

#[test]
fn data_that_does_not_answer_its_r2t_ends_the_connection() {
    type Spoil = fn(&mut DataPdu);
    let cases: [(Spoil, TermError); 9] = [
        (|pdu| pdu.ttag = 1, TermError::field(10)),
        (|pdu| pdu.ttag = u16::MAX, TermError::field(10)),
        (|pdu| pdu.cid = 7, TermError::field(8)),
        (|pdu| pdu.offset = 512, TermError::OUT_OF_RANGE),
        (|pdu| pdu.offset = u32::MAX - 3, TermError::OUT_OF_RANGE),
        (|pdu| pdu.len = 8192 + 512, TermError::OUT_OF_RANGE),
        (|pdu| (pdu.offset, pdu.len) = (2, 8190), TermError::field(12)),
        (|pdu| (pdu.len, pdu.is_last) = (4094, false), TermError::field(16)),
        (|pdu| pdu.is_last = false, TermError::field(1)),
    ];
    for (at, (spoil, expected)) in cases.into_iter().enumerate() {
        let (target, _) = target();
        let mut host = Association::new(&target, PLAIN);
        let request = remote_write(&mut host.script, 6, 8, 16);
        host.io.send(&request);
        let mut pdu =
            DataPdu { cid: 6, ttag: 0, offset: 0, len: 8192, is_last: true, is_success: false };
        spoil(&mut pdu);
        let bytes = host.script.h2c_data(&pdu, &pattern(pdu.len as usize)).take();
        let sent = host.io.send(&bytes);
        let [Reply::Term(found)] = sent[..] else { panic!("case {at}: {sent:?}") };
        let expected = TermReq { fes: expected.status as u16, fei: expected.information };
        assert_eq!(found, expected, "case {at}");
    }
}

#[test]
fn data_that_leaves_a_gap_or_comes_twice_is_out_of_sequence() {
    for offset in [0, 8192 - 512] {
        let (target, _) = target();
        let mut host = Association::new(&target, PLAIN);
        let request = remote_write(&mut host.script, 6, 8, 16);
        host.io.send(&request);
        let pdu = |offset, is_last| DataPdu {
            cid: 6,
            ttag: 0,
            offset,
            len: 512,
            is_last,
            is_success: false,
        };
        let first = host.script.h2c_data(&pdu(0, false), &pattern(512)).take();
        assert_eq!(host.io.send(&first), []);
        let second = host.script.h2c_data(&pdu(offset, offset > 0), &pattern(512)).take();
        assert_eq!(term(&host.io.send(&second)), FatalStatus::SequenceError, "at {offset}");
    }
}

#[test]
fn odd_end_of_odd_data_is_taken() {
    let (target, namespace) = target();
    let mut host = Association::new(&target, PLAIN);
    host.io.send(&host.script.io_with(1, write(7, 1), &pattern(512)).take());
    let mut ranges = [0; 17];
    (ranges[4], ranges[8]) = (1, 7);
    let operation = IoOperation::DatasetManagement { ranges: 1, deallocate: true };
    let command = IoCommand { nsid: 1, operation };
    let sqe = command.to_sqe(6).with_sgl(Sgl::Transport { len: 17 });
    let Reply::R2t(r2t) = host.io.send(&host.script.capsule(sqe, &[]).take())[0] else {
        panic!("no R2T")
    };
    assert_eq!(host.answer(&r2t, &ranges)[0].status(), Status::SUCCESS);
    assert_eq!(stored(&namespace, 7 * 512, 512), vec![0; 512]);
}

#[test]
fn data_that_nobody_asked_for_ends_the_connection() {
    let (target, _) = target();
    let mut host = Association::new(&target, PLAIN);
    let pdu = DataPdu { cid: 6, ttag: 0, offset: 0, len: 512, is_last: true, is_success: false };
    let bytes = host.script.h2c_data(&pdu, &pattern(512)).take();
    assert_eq!(term(&host.io.send(&bytes)), FatalStatus::InvalidHeaderField);
}

#[test]
fn capsule_longer_than_advertised_ends_the_connection() {
    let (target, _) = target();
    let mut host = Association::new(&target, PLAIN);
    let bytes = host.script.io_with(7, write(0, 17), &pattern(17 * 512)).take();
    assert_eq!(term(&host.io.send(&bytes)), FatalStatus::InvalidHeaderField);
}

#[test]
fn malformed_termination_request_closes_without_an_answer() {
    for (hlen, plen) in [(24, 23), (24, 153), (24, u32::MAX), (25, 24)] {
        let (target, _) = target();
        let mut host = Association::new(&target, PLAIN);
        let header = CommonHeader { pdu_type: 2, flags: 0, hlen, pdo: 0, plen: plen.into() };
        let mut pdu = zerocopy::IntoBytes::as_bytes(&header).to_vec();
        pdu.resize(200, 0xff);
        assert_eq!(host.io.send(&pdu), [], "PLEN {plen}");
        let end = host.io.link.session.take_end();
        assert!(matches!(end, Some(Err(Error::Terminated { status: 0 }))), "{end:?}");
    }
}

#[test]
fn command_in_a_full_queue_is_fatal_for_the_controller() {
    let (target, _) = target();
    let mut host = Association::new(&target, PLAIN);
    for cid in 0..QUEUE_DEPTH_MAX - 1 {
        let request = remote_write(&mut host.script, cid, 8, 1);
        assert!(matches!(host.io.send(&request)[..], [Reply::R2t(_)]));
    }
    let request = remote_write(&mut host.script, QUEUE_DEPTH_MAX, 8, 1);
    assert_eq!(term(&host.io.send(&request)), FatalStatus::SequenceError);
    // What was on its way at the admin queue still learns why.
    let property = crate::wire::property::Property::Status;
    let get = FabricsCommand::PropertyGet(property).to_sqe(3);
    let sent = host.admin.send(&host.script.capsule(get, &[]).take());
    assert_eq!(sent[0].result(), 2, "CSTS.CFS");
    assert!(matches!(host.admin.link.session.take_end(), Some(Ok(Ended::Removed))));
    assert_eq!(target.controllers(NQN).unwrap(), []);
}

#[test]
fn pdu_length_that_lies_costs_no_memory() {
    let (target, _) = target();
    let mut wire = Wire::new(&target, PLAIN);
    wire.send(&Script::new(PLAIN).take());
    let header = CommonHeader { pdu_type: 4, flags: 0, hlen: 72, pdo: 72, plen: u32::MAX.into() };
    let sent = wire.send(zerocopy::IntoBytes::as_bytes(&header));
    assert_eq!(term(&sent), FatalStatus::InvalidHeaderField);
}
