mod violations;

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::limits::{PAYLOAD_IN_FLIGHT_MAX, QUEUE_DEPTH_MAX, TRANSFER_MAX};
use crate::namespace::Namespace;
use crate::testing::{Association, HOST, NQN, Reply, Script, Wire, connect_admin, pattern, target};
use crate::wire::command::{Blocks, Identify, IdentifyKind, IoOperation};
use crate::wire::pdu::{CommonHeader, DataPdu, FatalStatus, TermReq};
use crate::wire::sgl::Sgl;
use crate::wire::{AdminCommand, Digests, IoCommand};
use crate::{Outcome, RamNamespace};

const PLAIN: Digests = Digests { header: false, data: false };
const BOTH: Digests = Digests { header: true, data: true };

/// Where Connect says in bit 2 that the host does without flow control: the third byte of dword 11
/// of the capsule behind ICReq.
const AT_CATTR: usize = 128 + 8 + 46;

fn blocks(start: u64, count: u32) -> Blocks {
    Blocks { start, count }
}

fn read(start: u64, count: u32) -> IoOperation {
    IoOperation::Read { blocks: blocks(start, count), fua: false }
}

fn write(start: u64, count: u32) -> IoOperation {
    IoOperation::Write { blocks: blocks(start, count), fua: false }
}

fn stored(namespace: &RamNamespace, offset: u64, len: u32) -> Bytes {
    match namespace.read(offset, len) {
        Outcome::Ready(Ok(data)) => data,
        other => panic!("{other:?}"),
    }
}

/// A write whose data the target has to ask for.
fn remote_write(script: &mut Script, cid: u16, start: u64, count: u32) -> BytesMut {
    let sgl = Sgl::Transport { len: count * 512 };
    let command = IoCommand { nsid: 1, operation: write(start, count) };
    script.capsule(command.to_sqe(cid).with_sgl(sgl), &[]).take()
}

#[test]
fn data_goes_in_the_capsule_or_by_r2t_and_comes_back() {
    for digests in [PLAIN, BOTH, Digests { header: true, data: false }] {
        let (target, namespace) = target();
        let mut host = Association::new(&target, digests);
        let small = pattern(4096);
        let sent = host.io.send(&host.script.io_with(5, write(8, 8), &small).take());
        assert_eq!(sent[0].status(), Status::SUCCESS);

        let large = pattern(64 << 10);
        let request = remote_write(&mut host.script, 6, 100, 128);
        let sent = host.io.send(&request);
        let [Reply::R2t(r2t)] = sent[..] else { panic!("{sent:?}") };
        assert_eq!((r2t.cid, r2t.offset, r2t.len), (6, 0, 64 << 10));
        let sent = host.answer(&r2t, &large);
        assert_eq!(sent[0].status(), Status::SUCCESS);
        assert_eq!(stored(&namespace, 100 * 512, 64 << 10), large);

        let sent = host.io.send(&host.script.io(7, read(8, 8), 4096).take());
        let [Reply::Data(pdu, data), done] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!((pdu.cid, pdu.offset, pdu.is_last, pdu.is_success), (7, 0, true, false));
        assert_eq!(data[..], small);
        assert_eq!(done.status(), Status::SUCCESS);
        assert_eq!(target.subsystems()[1].namespaces[0].counters.written_bytes, 4096 + (64 << 10));
    }
}

#[test]
fn success_flag_replaces_the_response_only_without_flow_control() {
    let (target, _) = target();
    let (_admin, cntlid) = connect_admin(&target, PLAIN);
    let mut script = Script::new(PLAIN);
    script.connect(1, 127, cntlid);
    script.bytes[AT_CATTR] |= 4;
    let mut io = Wire::new(&target, PLAIN);
    assert_eq!(io.send(&script.take())[1].status(), Status::SUCCESS);
    let sent = io.send(&script.io(7, read(8, 8), 4096).take());
    let [Reply::Data(pdu, _)] = &sent[..] else { panic!("{sent:?}") };
    assert!(pdu.is_success && pdu.is_last);
    let sent = io.send(&script.io(8, IoOperation::Flush, 0).take());
    assert_eq!(sent[0].status(), Status::SUCCESS);
}

#[test]
fn all_other_commands_do_what_they_say() {
    let (target, namespace) = target();
    let mut host = Association::new(&target, PLAIN);
    let data = pattern(4096);
    host.io.send(&host.script.io_with(1, write(0, 8), &data).take());
    let mut run = |operation, data: &[u8]| {
        let bytes = host.script.io_with(2, operation, data).take();
        host.io.send(&bytes)[0].status()
    };
    let compare = IoOperation::Compare { blocks: blocks(0, 8), fua: false };
    assert_eq!(run(compare, &data), Status::SUCCESS);
    assert_eq!(run(compare, &[1; 4096]), Status::COMPARE_FAILURE.dnr());
    let durable = IoOperation::Compare { blocks: blocks(0, 8), fua: true };
    assert_eq!(run(durable, &data), Status::SUCCESS);
    let verify = IoOperation::Verify { blocks: blocks(0, 8), fua: true };
    assert_eq!(run(verify, &[]), Status::SUCCESS);
    let mut ranges = [0; 4096];
    ranges[4] = 1;
    ranges[8] = 7;
    let trim = IoOperation::DatasetManagement { ranges: 1, deallocate: true };
    assert_eq!(run(trim, &ranges), Status::SUCCESS);
    assert_eq!(stored(&namespace, 7 * 512, 512), vec![0; 512]);
    assert_eq!(stored(&namespace, 0, 512), data[..512]);
    let zero = IoOperation::WriteZeroes { blocks: blocks(0, 1), fua: true, deallocate: true };
    assert_eq!(run(zero, &[]), Status::SUCCESS);
    assert_eq!(stored(&namespace, 0, 512), vec![0; 512]);
}

#[test]
fn one_range_beyond_the_end_leaves_all_ranges_alone() {
    let (target, namespace) = target();
    let mut host = Association::new(&target, PLAIN);
    host.io.send(&host.script.io_with(1, write(0, 1), &pattern(512)).take());
    let mut ranges = [0; 4096];
    ranges[4] = 1;
    ranges[16 + 4] = 1;
    ranges[16 + 8..16 + 12].copy_from_slice(&8192_u32.to_le_bytes());
    let trim = IoOperation::DatasetManagement { ranges: 2, deallocate: true };
    let sent = host.io.send(&host.script.io_with(2, trim, &ranges).take());
    assert_eq!(sent[0].status(), Status::LBA_OUT_OF_RANGE.dnr());
    assert_eq!(stored(&namespace, 0, 512), pattern(512));
}

#[test]
fn commands_that_cannot_be_done_say_whether_to_retry() {
    let (target, namespace) = target();
    let mut host = Association::new(&target, PLAIN);
    let mut run = |operation, to_host| {
        let bytes = host.script.io(3, operation, to_host).take();
        host.io.send(&bytes)[0].status()
    };
    assert_eq!(run(read(8191, 2), 1024), Status::LBA_OUT_OF_RANGE.dnr());
    assert_eq!(run(read(u64::MAX, 2), 1024), Status::LBA_OUT_OF_RANGE.dnr());
    assert_eq!(run(read(0, 2), 512), Status::SGL_DATA_LENGTH_INVALID.dnr());
    let most = TRANSFER_MAX / 512;
    assert_eq!(run(read(0, most + 1), TRANSFER_MAX + 512), Status::INVALID_FIELD.dnr());
    namespace.set_read_only(true);
    assert_eq!(run(write(0, 1), 512), Status::NAMESPACE_WRITE_PROTECTED.dnr());
    namespace.set_ready(false);
    assert_eq!(run(read(0, 1), 512), Status::NAMESPACE_NOT_READY);
    target.remove_namespace(NQN, 1).unwrap();
    assert_eq!(run(read(0, 1), 512), Status::INVALID_NAMESPACE.dnr());
    let errors = host.admin.link.session.member().unwrap().controller.errors().0;
    assert_eq!(errors, 7);
}

#[test]
fn removed_namespace_is_let_go_of_by_idle_connections() {
    let (target, namespace) = target();
    let mut host = Association::new(&target, PLAIN);
    host.io.send(&host.script.io(3, read(0, 1), 512).take());
    drop(target.remove_namespace(NQN, 1).unwrap());
    host.io.events();
    host.admin.events();
    assert_eq!(Arc::strong_count(&namespace), 1);
}

#[test]
fn wrong_data_digest_fails_the_command_and_not_the_connection() {
    let (target, namespace) = target();
    let mut host = Association::new(&target, BOTH);
    let mut bytes = host.script.io_with(5, write(8, 1), &pattern(512)).take();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let sent = host.io.send(&bytes);
    assert_eq!(sent[0].status(), Status::TRANSIENT_TRANSPORT_ERROR);

    let request = remote_write(&mut host.script, 6, 8, 16);
    let Reply::R2t(r2t) = host.io.send(&request)[0] else { panic!("no R2T") };
    let pdu = DataPdu {
        cid: r2t.cid,
        ttag: r2t.ttag,
        offset: 0,
        len: r2t.len,
        is_last: true,
        is_success: false,
    };
    let mut bytes = host.script.h2c_data(&pdu, &pattern(8192)).take();
    bytes[40] ^= 1;
    assert_eq!(host.io.send(&bytes)[0].status(), Status::TRANSIENT_TRANSPORT_ERROR);
    assert_eq!(stored(&namespace, 8 * 512, 8192), vec![0; 8192]);
    let sent = host.io.send(&host.script.io(7, IoOperation::Flush, 0).take());
    assert_eq!(sent[0].status(), Status::SUCCESS);
}

#[test]
fn only_io_queues_can_be_disconnected() {
    let (target, _) = target();
    let mut host = Association::new(&target, PLAIN);
    let disconnect = host.script.capsule(FabricsCommand::Disconnect.to_sqe(3), &[]).take();
    let refused = host.admin.send(&disconnect)[0].status();
    assert_eq!(refused, Status::INVALID_QUEUE_TYPE.dnr());
    assert_eq!(host.io.send(&disconnect)[0].status(), Status::SUCCESS);
    assert!(matches!(host.io.link.session.take_end(), Some(Ok(Ended::Disconnected))));
    assert!(host.admin.link.session.is_running());
}

#[test]
fn queue_head_counts_completions_modulo_the_queue() {
    let (target, _) = target();
    let (_admin, cntlid) = connect_admin(&target, PLAIN);
    let mut io = Wire::new(&target, PLAIN);
    let mut script = Script::new(PLAIN);
    let head = |reply: &Reply| match reply {
        Reply::Done(cqe) => cqe.sqhd.get(),
        other => panic!("{other:?}"),
    };
    let mut heads = vec![head(&io.send(&script.connect(1, 3, cntlid).take())[1])];
    // Two writes that wait for their data keep their entries.
    for cid in [7, 8] {
        let request = remote_write(&mut script, cid, 8, 1);
        assert!(matches!(io.send(&request)[..], [Reply::R2t(_)]));
    }
    for cid in 0..4 {
        heads.push(head(&io.send(&script.io(cid, IoOperation::Flush, 0).take())[0]));
    }
    assert_eq!(heads, [1, 2, 3, 0, 1]);
}

#[test]
fn queue_head_without_flow_control_is_all_ones_at_connect_and_reserved_later() {
    let (target, _) = target();
    let (_admin, cntlid) = connect_admin(&target, PLAIN);
    let mut script = Script::new(PLAIN);
    script.connect(1, 127, cntlid);
    script.bytes[AT_CATTR] |= 4;
    let mut io = Wire::new(&target, PLAIN);
    let bytes = script.take();
    let connected = io.send(&bytes);
    let flush = script.io(8, IoOperation::Flush, 0).take();
    let heads =
        [&connected[1], &io.send(&flush)[0], &io.send(&flush)[0]].map(|reply| match reply {
            Reply::Done(cqe) => cqe.sqhd.get(),
            other => panic!("{other:?}"),
        });
    assert_eq!(heads, [0xffff, 0, 0]);
}

#[test]
fn command_id_in_use_is_a_conflict_and_leaves_the_first_command_alone() {
    let (target, namespace) = target();
    let mut host = Association::new(&target, PLAIN);
    let request = remote_write(&mut host.script, 6, 8, 16);
    let Reply::R2t(r2t) = host.io.send(&request)[0] else { panic!("no R2T") };
    let sent = host.io.send(&host.script.io(6, IoOperation::Flush, 0).take());
    assert_eq!(sent[0].status(), Status::CID_CONFLICT.dnr());
    assert_eq!(host.answer(&r2t, &pattern(8192))[0].status(), Status::SUCCESS);
    assert_eq!(stored(&namespace, 8 * 512, 8192), pattern(8192));
}

#[test]
fn commands_beyond_the_payload_limit_wait_for_room() {
    let (target, _) = target();
    let mut host = Association::new(&target, PLAIN);
    let per_write = TRANSFER_MAX / 512;
    let mut r2ts = Vec::new();
    for cid in 0..40 {
        let request = remote_write(&mut host.script, cid, 0, per_write);
        r2ts.extend(host.io.send(&request));
    }
    assert_eq!(r2ts.len(), PAYLOAD_IN_FLIGHT_MAX / TRANSFER_MAX as usize);
    let Reply::R2t(first) = r2ts[0] else { panic!("no R2T") };
    let sent = host.answer(&first, &pattern(TRANSFER_MAX as usize));
    let [done, Reply::R2t(next)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(done.status(), Status::SUCCESS);
    assert_eq!(usize::from(next.cid), r2ts.len());
}

#[test]
fn many_queues_share_the_memory_of_the_target() {
    let (target, _) = target();
    let mut host = Association::new(&target, PLAIN);
    let others: Vec<_> = (0..62).map(|_| target.count_queue()).collect();
    let per_write = TRANSFER_MAX / 512;
    let begun = |host: &mut Association, cids: std::ops::Range<u16>| {
        let replies = cids.flat_map(|cid| {
            let request = remote_write(&mut host.script, cid, 0, per_write);
            host.io.send(&request)
        });
        replies.collect::<Vec<_>>()
    };
    // 64 queues with 4 MiB each.
    let r2ts = begun(&mut host, 0..20);
    assert_eq!(r2ts.len(), 4);
    drop(others);
    let Reply::R2t(first) = r2ts[0] else { panic!("no R2T") };
    let sent = host.answer(&first, &pattern(TRANSFER_MAX as usize));
    assert_eq!(sent[0].status(), Status::SUCCESS);
    assert_eq!(sent.len() - 1 + 3, PAYLOAD_IN_FLIGHT_MAX / TRANSFER_MAX as usize);
}

#[test]
fn association_ends_with_its_admin_connection() {
    let (target, _) = target();
    let mut host = Association::new(&target, PLAIN);
    assert_eq!(target.queues(NQN).unwrap().len(), 2);
    drop(host.admin);
    host.io.events();
    assert!(matches!(host.io.link.session.take_end(), Some(Ok(Ended::Removed))));
    drop(host.io);
    assert_eq!(target.controllers(NQN).unwrap(), []);
}

#[test]
fn reset_and_shutdown_end_the_io_queues() {
    for (value, status) in [(0x46_0000, 0), (0x46_4001, 8)] {
        let (target, _) = target();
        let mut host = Association::new(&target, PLAIN);
        let property = crate::wire::property::Property::Configuration;
        let set = FabricsCommand::PropertySet { property, value };
        let property = crate::wire::property::Property::Status;
        let get = FabricsCommand::PropertyGet(property);
        host.script.capsule(set.to_sqe(3), &[]).capsule(get.to_sqe(4), &[]);
        let sent = host.admin.send(&host.script.take());
        assert_eq!(sent[1].result(), status);
        host.io.events();
        assert!(matches!(host.io.link.session.take_end(), Some(Ok(Ended::Removed))));
    }
}

#[test]
fn hosts_and_addresses_that_are_not_listed_are_turned_away() {
    let (target, _) = target();
    target.set_allow_any_host(NQN, false).unwrap();
    let other = "nqn.2014-08.org.nvmexpress:uuid:other";
    let connect = |nqn: &str, host: &str| {
        let mut wire = Wire::new(&target, PLAIN);
        let bytes = Script::new(PLAIN).connect_to(nqn, host, 0, 31, 0xffff).take();
        let status = wire.send(&bytes)[1].status();
        assert_eq!(wire.link.session.member().is_some(), status == Status::SUCCESS);
        status
    };
    assert_eq!(connect(NQN, HOST), Status::CONNECT_INVALID_HOST.dnr());
    target.add_host(NQN, HOST).unwrap();
    assert_eq!(connect(NQN, HOST), Status::SUCCESS);
    assert_eq!(connect(NQN, other), Status::CONNECT_INVALID_HOST.dnr());
    let unknown = "nqn.2019-05.io.lsvd:none";
    assert_eq!(connect(unknown, HOST), Status::CONNECT_INVALID_PARAMETERS.dnr());
    target.set_accepting(false);
    assert_eq!(connect(NQN, HOST), Status::CONNECT_CONTROLLER_BUSY);
    target.set_accepting(true);
    target.remove_listener(NQN, crate::testing::origin().listener).unwrap();
    assert_eq!(connect(NQN, HOST), Status::CONNECT_INVALID_PARAMETERS.dnr());
}

#[test]
fn io_queue_needs_a_ready_controller_of_the_same_host_and_a_free_id() {
    let (target, _) = target();
    let mut host = Association::new(&target, PLAIN);
    let cntlid = target.controllers(NQN).unwrap()[0].cntlid;
    let connect = |host: &str, qid, cntlid| {
        let mut wire = Wire::new(&target, PLAIN);
        let bytes = Script::new(PLAIN).connect_to(NQN, host, qid, 127, cntlid).take();
        wire.send(&bytes)[1].status()
    };
    let invalid = Status::CONNECT_INVALID_PARAMETERS.dnr();
    assert_eq!(connect(HOST, 1, cntlid), invalid, "queue ID in use");
    assert_eq!(connect(HOST, 2, cntlid + 1), invalid, "no such controller");
    assert_eq!(connect("nqn.2014-08.org:other", 2, cntlid), invalid, "another host");
    assert_eq!(connect(HOST, 500, cntlid), invalid, "too many queues");
    assert_eq!(connect(HOST, 2, cntlid), Status::SUCCESS);
    let property = crate::wire::property::Property::Configuration;
    let disable = FabricsCommand::PropertySet { property, value: 0x46_0000 };
    host.admin.send(&host.script.capsule(disable.to_sqe(3), &[]).take());
    assert_eq!(connect(HOST, 2, cntlid), Status::COMMAND_SEQUENCE_ERROR.dnr());
}

#[test]
fn nothing_but_connect_comes_before_connect() {
    let (target, _) = target();
    let mut wire = Wire::new(&target, PLAIN);
    let identify = Identify { kind: IdentifyKind::Controller, nsid: 0, cntid: 0 };
    let mut script = Script::new(PLAIN);
    let bytes = script.admin(1, AdminCommand::Identify(identify), 4096).take();
    assert_eq!(wire.send(&bytes)[1].status(), Status::COMMAND_SEQUENCE_ERROR.dnr());
    let bytes = script.io(2, IoOperation::Flush, 0).take();
    assert_eq!(wire.send(&bytes)[0].status(), Status::COMMAND_SEQUENCE_ERROR.dnr());
}

/// Everything that goes over an I/O connection, in one stream; transfer tags are predictable.
fn stream(digests: Digests, cntlid: u16) -> BytesMut {
    let mut script = Script::new(digests);
    script.connect(1, 127, cntlid);
    script.io_with(1, write(0, 3), &pattern(3 * 512));
    let sgl = Sgl::Transport { len: 40 * 512 };
    let command = IoCommand { nsid: 1, operation: write(10, 40) };
    script.capsule(command.to_sqe(2).with_sgl(sgl), &[]);
    let data = pattern(40 * 512);
    let split = 36 * 512;
    let pdu = |offset: usize, len: usize, is_last| DataPdu {
        cid: 2,
        ttag: 0,
        offset: offset as u32,
        len: len as u32,
        is_last,
        is_success: false,
    };
    script.h2c_data(&pdu(0, split, false), &data[..split]);
    script.h2c_data(&pdu(split, 4 * 512, true), &data[split..]);
    script.io(3, IoOperation::Flush, 0);
    script.io(4, read(0, 12), 12 * 512);
    script.io(5, read(9000, 1), 512);
    script.take()
}

/// What the host sees of `stream`, delivered in pieces that end at `cuts`, and the namespace.
fn delivered(digests: Digests, cuts: &[usize]) -> (Vec<u8>, Bytes) {
    let (target, namespace) = target();
    let (_admin, cntlid) = connect_admin(&target, digests);
    let mut wire = Wire::new(&target, digests);
    let stream = stream(digests, cntlid);
    let (mut sent, mut from) = (Vec::new(), 0);
    for cut in cuts.iter().copied().chain([stream.len()]) {
        sent.extend(wire.send_raw(&stream[from..cut]));
        from = cut;
    }
    assert!(wire.link.session.is_running());
    (sent, stored(&namespace, 0, 64 << 10))
}

#[test]
fn stream_split_at_any_byte_gives_the_same_result() {
    let whole = delivered(BOTH, &[]);
    let len = stream(BOTH, 1).len();
    assert!(whole.1[10 * 512..50 * 512] == pattern(40 * 512)[..]);
    let step = |at: usize| {
        // Headers and digests byte by byte; the inside of the long payload in larger steps.
        if (3600..21_000).contains(&at) { 97 } else { 1 }
    };
    let mut at = 1;
    while at < len {
        assert!(delivered(BOTH, &[at]) == whole, "split at {at}");
        at += step(at);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn stream_in_any_pieces_gives_the_same_result(
        digests in any::<(bool, bool)>(),
        mut cuts in prop::collection::vec(0_usize..24_000, 0..200),
    ) {
        let digests = Digests { header: digests.0, data: digests.1 };
        let len = stream(digests, 1).len();
        cuts.sort_unstable();
        cuts.retain(|&cut| cut < len);
        prop_assert!(delivered(digests, &cuts) == delivered(digests, &[]));
    }

    #[test]
    fn noise_ends_in_a_termination_or_waits_and_never_panics(
        noise in prop::collection::vec(any::<u8>(), 0..600),
        flips in prop::collection::vec((0_usize..24_000, any::<u8>()), 0..6),
        ic in any::<bool>(),
    ) {
        let (target, _) = target();
        let mut wire = Wire::new(&target, PLAIN);
        if ic {
            wire.send_raw(&Script::new(PLAIN).take());
        }
        wire.send_raw(&noise);
        let (_admin, cntlid) = connect_admin(&target, PLAIN);
        let mut bytes = stream(PLAIN, cntlid);
        for (at, flip) in flips {
            let len = bytes.len();
            bytes[at % len] ^= flip;
        }
        Wire::new(&target, PLAIN).send_raw(&bytes);
    }
}
