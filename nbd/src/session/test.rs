use bytes::BufMut as _;
use proptest::prelude::*;

use super::*;
use crate::export::BlockSizes;
use crate::limits::PAYLOAD_MAX;

const SIZE: u64 = 1 << 40;
const READ: u16 = 0;
const WRITE: u16 = 1;
const DISC: u16 = 2;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const CACHE: u16 = 5;
const WRITE_ZEROES: u16 = 6;
const BLOCK_STATUS: u16 = 7;

fn terms() -> Terms {
    Terms {
        info: ExportInfo {
            name: "a".into(),
            description: String::new(),
            size: SIZE,
            block_sizes: BlockSizes::new(512, 4096, PAYLOAD_MAX).unwrap(),
            read_only: false,
            rotational: false,
            fast_zero: true,
            multi_conn: true,
        },
        style: Style::Structured,
        allocation: true,
    }
}

fn request(kind: u16, flags: u16, offset: u64, len: u32) -> Vec<u8> {
    let mut bytes = vec![0x25, 0x60, 0x95, 0x13];
    bytes.extend(flags.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(0x77u64.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes
}

/// All events of `bytes`, which reach the session in pieces that end at `cuts`.
fn events_of_pieces(terms: Terms, bytes: &[u8], cuts: &[usize]) -> Result<Vec<Event>, Violation> {
    let mut session = Session::new(terms, BufPool::default());
    let (mut input, mut events, mut at) = (BytesMut::new(), Vec::new(), 0);
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        while at < cut {
            // As the driver does: a large payload goes past the receive buffer.
            at += match session.payload_target() {
                Some(target) => {
                    assert!(input.is_empty());
                    let take = target.len().min(cut - at);
                    target[..take].copy_from_slice(&bytes[at..at + take]);
                    session.payload_arrived(take);
                    take
                }
                None => {
                    input.extend_from_slice(&bytes[at..cut]);
                    cut - at
                }
            };
            while let Some(event) = session.next(&mut input)? {
                events.push(event);
            }
        }
    }
    Ok(events)
}

fn events(terms: Terms, bytes: &[u8]) -> Vec<Event> {
    events_of_pieces(terms, bytes, &[]).unwrap()
}

fn only(terms: Terms, bytes: &[u8]) -> Event {
    let mut events = events(terms, bytes);
    assert_eq!(events.len(), 1, "{events:?}");
    events.remove(0)
}

/// The error for a request without payload.
fn errno(terms: Terms, kind: u16, flags: u16, offset: u64, len: u32) -> Option<Errno> {
    match only(terms, &request(kind, flags, offset, len)) {
        Event::Settled(tag, Err(errno)) => {
            assert_eq!(tag.cookie, 0x77);
            assert_eq!(tag.charge(), 0);
            Some(errno)
        }
        _ => None,
    }
}

fn command(kind: u16, flags: u16, offset: u64, len: u32) -> Command {
    match only(terms(), &request(kind, flags, offset, len)) {
        Event::Request(tag, command) => {
            assert_eq!(tag.cookie, 0x77);
            command
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_command_becomes_a_typed_request() {
    assert_eq!(command(READ, flag::DF, 512, 1024), Command::Read { offset: 512, len: 1024 });
    assert_eq!(command(FLUSH, 0, 0, 0), Command::Flush);
    let len = u32::MAX - 511;
    assert_eq!(command(TRIM, flag::FUA, 512, len), Command::Trim { offset: 512, len, fua: true });
    assert_eq!(command(CACHE, 0, 0, len), Command::Cache { offset: 0, len });
    let zeroes = Command::WriteZeroes { offset: 0, len, fua: false, no_hole: true };
    assert_eq!(command(WRITE_ZEROES, flag::NO_HOLE, 0, len), zeroes);
    let zeroes = Command::WriteZeroes { offset: 0, len, fua: true, no_hole: false };
    assert_eq!(command(WRITE_ZEROES, flag::FAST_ZERO | flag::FUA, 0, len), zeroes);
    let one = Command::BlockStatus { offset: 0, len, extents_max: 1 };
    assert_eq!(command(BLOCK_STATUS, flag::REQ_ONE, 0, len), one);
    let many = Command::BlockStatus { offset: 0, len, extents_max: EXTENTS_MAX };
    assert_eq!(command(BLOCK_STATUS, 0, 0, len), many);
    assert_eq!(only(terms(), &request(DISC, 0xffff, 1, 1)), Event::Disconnect);
}

#[test]
fn write_payload_is_a_slice_of_the_receive_buffer_when_small() {
    let mut input = BytesMut::with_capacity(4096);
    input.extend_from_slice(&request(WRITE, flag::FUA, 1024, 512));
    input.extend_from_slice(&[7; 512]);
    let payload = input[28..].as_ptr();
    let mut session = Session::new(terms(), BufPool::default());
    let Some(Event::Request(tag, Command::Write { offset: 1024, data, fua: true })) =
        session.next(&mut input).unwrap()
    else {
        panic!("a write");
    };
    assert_eq!(data.as_ptr(), payload);
    assert_eq!(data, vec![7; 512]);
    assert_eq!(tag.charge(), 512);
}

#[test]
fn fua_is_accepted_with_every_command() {
    for kind in [READ, CACHE, TRIM, WRITE_ZEROES, BLOCK_STATUS] {
        assert_eq!(errno(terms(), kind, flag::FUA, 0, 512), None, "{kind}");
    }
    assert_eq!(errno(terms(), FLUSH, flag::FUA, 0, 0), None);
}

#[test]
fn flags_that_are_not_for_the_command_are_refused() {
    let wrong = [
        (READ, flag::NO_HOLE),
        (READ, 1 << 5),
        (CACHE, flag::DF),
        (TRIM, flag::REQ_ONE),
        (WRITE_ZEROES, flag::DF),
        (BLOCK_STATUS, flag::FAST_ZERO),
        (FLUSH, 1 << 15),
    ];
    for (kind, flags) in wrong {
        let len = if kind == FLUSH { 0 } else { 512 };
        assert_eq!(errno(terms(), kind, flags, 0, len), Some(Errno::Invalid), "{kind} {flags}");
    }
    let simple = Terms { style: Style::Simple, ..terms() };
    assert_eq!(errno(simple, READ, flag::DF, 0, 512), Some(Errno::Invalid));
    let mut slow = terms();
    slow.info.fast_zero = false;
    assert_eq!(errno(slow, WRITE_ZEROES, flag::FAST_ZERO, 0, 512), Some(Errno::Invalid));
}

#[test]
fn fast_zeroes_that_keep_their_space_are_not_supported() {
    let flags = flag::FAST_ZERO | flag::NO_HOLE;
    assert_eq!(errno(terms(), WRITE_ZEROES, flags, 0, 512), Some(Errno::NotSupported));
}

#[test]
fn unknown_commands_are_refused_and_the_stream_goes_on() {
    let bytes = [request(99, 0, 0, 512), request(FLUSH, 0, 0, 0)].concat();
    let events = events(terms(), &bytes);
    assert!(matches!(events[0], Event::Settled(_, Err(Errno::Invalid))));
    assert!(matches!(events[1], Event::Request(_, Command::Flush)));
}

#[test]
fn ranges_beyond_the_end_get_the_error_of_their_command() {
    for (kind, expected) in [
        (READ, Errno::Invalid),
        (TRIM, Errno::Invalid),
        (CACHE, Errno::Invalid),
        (BLOCK_STATUS, Errno::Invalid),
        (WRITE_ZEROES, Errno::NoSpace),
    ] {
        assert_eq!(errno(terms(), kind, 0, SIZE - 512, 512), None);
        assert_eq!(errno(terms(), kind, 0, SIZE - 512, 1024), Some(expected));
        assert_eq!(errno(terms(), kind, 0, SIZE, 512), Some(expected));
        assert_eq!(errno(terms(), kind, 0, u64::MAX - 511, 512), Some(expected));
    }
}

#[test]
fn unaligned_requests_are_invalid() {
    for kind in [READ, TRIM, CACHE, BLOCK_STATUS, WRITE_ZEROES] {
        assert_eq!(errno(terms(), kind, 0, 1, 512), Some(Errno::Invalid));
        assert_eq!(errno(terms(), kind, 0, 0, 513), Some(Errno::Invalid));
    }
}

#[test]
fn read_only_export_refuses_changes_only() {
    let mut terms = terms();
    terms.info.read_only = true;
    for kind in [TRIM, WRITE_ZEROES] {
        assert_eq!(errno(terms.clone(), kind, 0, 0, 512), Some(Errno::Perm));
    }
    for kind in [READ, CACHE, BLOCK_STATUS] {
        assert_eq!(errno(terms.clone(), kind, 0, 0, 512), None);
    }
    let bytes = [request(WRITE, 0, 0, 512), vec![0; 512]].concat();
    assert!(matches!(only(terms, &bytes), Event::Settled(_, Err(Errno::Perm))));
}

#[test]
fn reads_beyond_the_payload_limit_are_refused() {
    let len = PAYLOAD_MAX + 512;
    assert_eq!(errno(terms(), READ, 0, 0, PAYLOAD_MAX), None);
    assert_eq!(errno(terms(), READ, 0, 0, len), Some(Errno::Invalid));
    assert_eq!(errno(terms(), READ, flag::DF, 0, len), Some(Errno::Overflow));
}

#[test]
fn payload_of_a_refused_write_is_consumed_without_being_kept() {
    let refused = [
        (flag::DF, 0, 1024, Errno::Invalid),
        (0, 1, 1024, Errno::Invalid),
        (0, SIZE, 1024, Errno::NoSpace),
        (0, 0, PAYLOAD_MAX + 512, Errno::Invalid),
    ];
    for (flags, offset, len, expected) in refused {
        let mut session = Session::new(terms(), BufPool::default());
        let mut input = BytesMut::from(&request(WRITE, flags, offset, len)[..]);
        let mut left = len as usize;
        while left > 0 {
            assert_eq!(session.next(&mut input), Ok(None));
            assert!(input.is_empty());
            assert!(session.payload_target().is_none());
            assert!(!session.is_between_requests());
            let take = left.min(1 << 20);
            input.put_bytes(0x25, take);
            left -= take;
        }
        input.extend_from_slice(&request(FLUSH, 0, 0, 0));
        let Ok(Some(Event::Settled(tag, Err(errno)))) = session.next(&mut input) else {
            panic!("refused");
        };
        assert_eq!((errno, tag.charge()), (expected, 0));
        let next = session.next(&mut input);
        assert!(matches!(next, Ok(Some(Event::Request(_, Command::Flush)))), "{next:?}");
    }
}

#[test]
fn requests_for_nothing_succeed_without_the_export() {
    let read = only(terms(), &request(READ, 0, 512, 0));
    assert!(matches!(read, Event::Settled(_, Ok(Answer::Data(data))) if data.is_empty()));
    for kind in [WRITE, TRIM, CACHE, WRITE_ZEROES] {
        let event = only(terms(), &request(kind, 0, SIZE, 0));
        assert!(matches!(event, Event::Settled(_, Ok(Answer::Done))), "{event:?}");
    }
    assert_eq!(errno(terms(), BLOCK_STATUS, 0, 0, 0), Some(Errno::Invalid));
    assert_eq!(errno(terms(), READ, 0, SIZE + 512, 0), Some(Errno::Invalid));
}

#[test]
fn refused_write_of_nothing_is_answered_at_once() {
    let event = only(terms(), &request(WRITE, flag::DF, 0, 0));
    assert!(matches!(event, Event::Settled(_, Err(Errno::Invalid))));
}

#[test]
fn flush_with_a_range_is_invalid() {
    assert_eq!(errno(terms(), FLUSH, 0, 512, 0), Some(Errno::Invalid));
    assert_eq!(errno(terms(), FLUSH, 0, 0, 512), Some(Errno::Invalid));
}

#[test]
fn block_status_needs_a_selected_context() {
    let without = Terms { allocation: false, ..terms() };
    assert_eq!(errno(without, BLOCK_STATUS, 0, 0, 512), Some(Errno::Invalid));
}

#[test]
fn wrong_magic_ends_the_session() {
    let mut bytes = request(FLUSH, 0, 0, 0);
    bytes[0] = 0x26;
    let result = events_of_pieces(terms(), &bytes, &[]);
    assert_eq!(result, Err(Violation::RequestMagic { found: 0x2660_9513 }));
}

/// Requests as clients send them, most of them valid, with the payload that belongs to them.
fn any_request() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![
        4 => (0u32..8).prop_map(|n| n * 512),
        1 => Just(LARGE_PAYLOAD),
        1 => Just(LARGE_PAYLOAD + 512),
        1 => 0u32..4096,
    ];
    let offset = prop_oneof![(0u64..64).prop_map(|n| n * 512), Just(SIZE - 512), any::<u64>()];
    let flags = prop_oneof![Just(0), Just(flag::FUA), 0u16..64];
    let kind = prop_oneof![0u16..2, 3u16..10];
    (kind, flags, offset, len).prop_map(|(kind, flags, offset, len)| {
        let mut bytes = request(kind, flags, offset, len);
        if kind == WRITE {
            bytes.extend((0..len).map(|i| u8::try_from(i % 251).unwrap()));
        }
        bytes
    })
}

proptest! {
    #[test]
    fn pieces_do_not_matter(
        requests in prop::collection::vec(any_request(), 1..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let bytes = requests.concat();
        let whole = events_of_pieces(terms(), &bytes, &[]).unwrap();
        prop_assert_eq!(whole.len(), requests.len());
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.sort_unstable();
        prop_assert_eq!(events_of_pieces(terms(), &bytes, &cuts).unwrap(), whole);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..2000),
        allocation in any::<bool>(),
    ) {
        if bytes.len() >= 8 {
            // Past the magic, or nearly all runs would end there.
            bytes[..4].copy_from_slice(&[0x25, 0x60, 0x95, 0x13]);
            bytes[6] = 0;
            bytes[7] %= 9;
        }
        let _ = events_of_pieces(Terms { allocation, ..terms() }, &bytes, &[]);
    }
}

#[test]
fn every_single_cut_gives_the_same_events() {
    let bytes = [
        request(READ, 0, 0, 4096),
        [request(WRITE, 0, 512, 512), vec![1; 512]].concat(),
        [request(WRITE, 0, 513, 512), vec![2; 512]].concat(),
        request(FLUSH, 0, 0, 0),
        request(DISC, 0, 0, 0),
    ]
    .concat();
    let whole = events(terms(), &bytes);
    assert_eq!(whole.len(), 5);
    for cut in 0..bytes.len() {
        assert_eq!(events_of_pieces(terms(), &bytes, &[cut]).unwrap(), whole, "cut at {cut}");
    }
    let all: Vec<_> = (0..bytes.len()).collect();
    assert_eq!(events_of_pieces(terms(), &bytes, &all).unwrap(), whole);
}
