use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::export::{BlockSizes, Extent, Failure, Outcome};

/// An export that is only talked about.
struct Idle(&'static str);

impl Export for Idle {
    fn info(&self) -> ExportInfo {
        ExportInfo {
            name: self.0.into(),
            description: "about".into(),
            size: 0x0102_0304_0506,
            block_sizes: BlockSizes::new(512, 4096, 1 << 20).unwrap(),
            read_only: self.0 == "ro",
            rotational: false,
            fast_zero: true,
            multi_conn: true,
        }
    }
    fn read(&self, _: u64, _: u32) -> Outcome<Bytes> {
        Outcome::Ready(Err(Failure::Io))
    }
    fn write(&self, _: u64, _: Bytes, _: bool) -> Outcome<()> {
        Outcome::Ready(Err(Failure::Io))
    }
    fn flush(&self) -> Outcome<()> {
        Outcome::Ready(Err(Failure::Io))
    }
    fn trim(&self, _: u64, _: u32, _: bool) -> Outcome<()> {
        Outcome::Ready(Err(Failure::Io))
    }
    fn write_zeroes(&self, _: u64, _: u32, _: bool, _: bool) -> Outcome<()> {
        Outcome::Ready(Err(Failure::Io))
    }
    fn block_status(&self, _: u64, _: u32, _: usize) -> Outcome<Vec<Extent>> {
        Outcome::Ready(Err(Failure::Io))
    }
}

struct Names(&'static [&'static str]);

impl Exports for Names {
    fn list(&self) -> Vec<String> {
        self.0.iter().map(|name| (*name).into()).collect()
    }
    fn open(&self, name: &str) -> Option<Arc<dyn Export>> {
        let name = self.0.iter().find(|known| **known == name)?;
        Some(Arc::new(Idle(name)))
    }
}

const ONE: Names = Names(&["disk"]);
const TWO: Names = Names(&["disk", "ro"]);
const FIXED: [u8; 4] = [0, 0, 0, 3];

#[derive(Debug, PartialEq)]
enum End {
    Starved,
    Aborted,
    Agreed { export: String, style: Style, allocation: bool },
    Violated(Violation),
}

/// Feeds pieces that end at `cuts`; returns what was said after the greeting, and how it ended.
fn haggle(exports: &Names, bytes: &[u8], cuts: &[usize]) -> (Vec<u8>, End) {
    let mut out = BytesMut::new();
    let mut handshake = Handshake::start(&mut out);
    out.clear();
    let (mut input, mut at) = (BytesMut::new(), 0);
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        input.extend_from_slice(&bytes[at..cut]);
        at = cut;
        loop {
            let end = match handshake.advance(&mut input, exports, &mut out) {
                Ok(Progress::Moved) => continue,
                Ok(Progress::Starved) => break,
                Ok(Progress::Aborted) => End::Aborted,
                Ok(Progress::Agreed(_, terms)) => End::Agreed {
                    export: terms.info.name,
                    style: terms.style,
                    allocation: terms.allocation,
                },
                Err(violation) => End::Violated(violation),
            };
            return (out.to_vec(), end);
        }
    }
    (out.to_vec(), End::Starved)
}

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).unwrap();
    [b"IHAVEOPT", &number.to_be_bytes()[..], &len.to_be_bytes(), data].concat()
}

fn string(text: &str) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
}

fn go(name: &str, wanted: &[u16]) -> Vec<u8> {
    let count = u16::try_from(wanted.len()).unwrap().to_be_bytes();
    let wanted: Vec<u8> = wanted.iter().flat_map(|kind| kind.to_be_bytes()).collect();
    [string(name), count.to_vec(), wanted].concat()
}

fn contexts(name: &str, queries: &[&str]) -> Vec<u8> {
    let count = u32::try_from(queries.len()).unwrap().to_be_bytes();
    let queries: Vec<u8> = queries.iter().flat_map(|query| string(query)).collect();
    [string(name), count.to_vec(), queries].concat()
}

fn reply(number: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).unwrap();
    let magic = 0x0003_e889_0455_65a9u64.to_be_bytes();
    let fields = [number, kind, len].map(u32::to_be_bytes).concat();
    [&magic[..], &fields, data].concat()
}

/// Haggles over `options`, one after the other.
fn answers(exports: &Names, options: &[Vec<u8>]) -> (Vec<u8>, End) {
    haggle(exports, &[&FIXED[..], &options.concat()].concat(), &[])
}

#[test]
fn greeting_is_eighteen_known_bytes() {
    let mut out = BytesMut::new();
    Handshake::start(&mut out);
    assert_eq!(&out[..], b"NBDMAGICIHAVEOPT\x00\x03");
}

#[test]
fn export_name_is_answered_with_size_flags_and_zeroes() {
    let mut expected = vec![
        0, 0, 1, 2, 3, 4, 5, 6, // size
        0x0d, 0x6d, // FAST_ZERO CACHE MULTI_CONN WRITE_ZEROES TRIM FUA FLUSH HAS_FLAGS
    ];
    let agreed = End::Agreed { export: "disk".into(), style: Style::Simple, allocation: false };
    let (said, end) = haggle(&TWO, &[&FIXED[..], &option(1, b"disk")].concat(), &[]);
    assert_eq!((&said, &end), (&expected, &agreed));

    expected.extend([0; 124]);
    let (said, end) = haggle(&TWO, &[&[0, 0, 0, 1][..], &option(1, b"disk")].concat(), &[]);
    assert_eq!((&said, &end), (&expected, &agreed));
    let (said, end) = haggle(&TWO, &[&[0, 0, 0, 0][..], &option(1, b"disk")].concat(), &[]);
    assert_eq!((said, end), (expected, agreed));
}

#[test]
fn export_name_that_is_unknown_ends_the_connection() {
    let (said, end) = answers(&TWO, &[option(1, b"other")]);
    assert_eq!((said.len(), end), (0, End::Violated(Violation::UnknownExport)));
    let (_, end) = answers(&TWO, &[option(1, b"\xff")]);
    assert_eq!(end, End::Violated(Violation::UnknownExport));
}

#[test]
fn go_with_everything_tells_everything_and_ends_haggling() {
    let (said, end) = answers(&TWO, &[option(8, &[]), option(7, &go("disk", &[3, 2, 1, 9]))]);
    let info = [
        reply(8, 1, &[]),
        reply(7, 3, &[0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 0x0d, 0xed]), // with SEND_DF
        reply(7, 3, b"\x00\x01disk"),
        reply(7, 3, b"\x00\x02about"),
        reply(7, 3, &[0, 3, 0, 0, 2, 0, 0, 0, 16, 0, 0, 16, 0, 0]), // 512, 4096, 1 MiB
        reply(7, 1, &[]),
    ];
    assert_eq!(said, info.concat());
    let style = Style::Structured;
    assert_eq!(end, End::Agreed { export: "disk".into(), style, allocation: false });
}

#[test]
fn info_tells_only_what_was_asked_and_haggling_goes_on() {
    let (said, end) = answers(&TWO, &[option(6, &go("ro", &[])), option(2, b"")]);
    let expected = [
        reply(6, 3, &[0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 0x0d, 0x6f]), // with READ_ONLY
        reply(6, 1, &[]),
        reply(2, 1, &[]),
    ];
    assert_eq!((said, end), (expected.concat(), End::Aborted));
}

#[test]
fn go_for_an_unknown_export_is_an_error_and_haggling_goes_on() {
    let (said, end) = answers(&TWO, &[option(7, &go("other", &[])), option(7, &go("ro", &[]))]);
    assert!(said.starts_with(&reply(7, 0x8000_0006, &[])));
    assert!(matches!(end, End::Agreed { export, .. } if export == "ro"));
}

#[test]
fn empty_name_means_the_only_export() {
    let (_, end) = answers(&ONE, &[option(7, &go("", &[]))]);
    assert!(matches!(end, End::Agreed { export, .. } if export == "disk"));
    let (said, _) = answers(&TWO, &[option(7, &go("", &[]))]);
    assert_eq!(said, reply(7, 0x8000_0006, &[]));
    let (_, end) = answers(&Names(&["disk", ""]), &[option(7, &go("", &[]))]);
    assert!(matches!(end, End::Agreed { export, .. } if export.is_empty()));
}

#[test]
fn lying_lengths_in_go_are_invalid() {
    let lies: [&[u8]; 6] = [
        &[],
        &[0, 0, 0],
        &[0, 0, 0, 9, b'd'],
        &[0xff, 0xff, 0xff, 0xff, b'd', 0, 0],
        &[0, 0, 0, 1, b'd', 0, 2, 0, 3],
        &[0, 0, 0, 1, b'd', 0, 0, 0, 3],
    ];
    for lie in lies {
        let (said, end) = answers(&ONE, &[option(7, lie)]);
        assert_eq!((said, end), (reply(7, 0x8000_0003, &[]), End::Starved), "{lie:?}");
    }
    let (said, _) = answers(&ONE, &[option(6, &go(&"d".repeat(4097), &[]))]);
    assert_eq!(said, reply(6, 0x8000_0009, &[]));
}

#[test]
fn list_names_every_export() {
    let (said, _) = answers(&TWO, &[option(3, &[]), option(3, &[1])]);
    let expected = [
        reply(3, 2, b"\x00\x00\x00\x04disk"),
        reply(3, 2, b"\x00\x00\x00\x02ro"),
        reply(3, 1, &[]),
        reply(3, 0x8000_0003, &[]),
    ];
    assert_eq!(said, expected.concat());
}

#[test]
fn tls_and_unknown_options_are_not_supported() {
    let (said, end) = answers(&ONE, &[option(5, &[]), option(11, &[]), option(77, b"xyz")]);
    let expected = [5, 11, 77].map(|number| reply(number, 0x8000_0001, &[]));
    assert_eq!((said, end), (expected.concat(), End::Starved));
}

#[test]
fn structured_reply_with_data_is_invalid() {
    let (said, _) = answers(&ONE, &[option(8, &[0])]);
    assert_eq!(said, reply(8, 0x8000_0003, &[]));
}

#[test]
fn contexts_are_listed_by_name_wildcard_or_no_query() {
    let context = [reply(9, 4, b"\x00\x00\x00\x00base:allocation"), reply(9, 1, &[])].concat();
    for queries in [&[][..], &["base:"], &["base:allocation"], &["x:", "base:allocation"]] {
        let list = option(9, &contexts("disk", queries));
        let (said, _) = answers(&ONE, &[option(8, &[]), list]);
        assert_eq!(said, [reply(8, 1, &[]), context.clone()].concat(), "{queries:?}");
    }
    let list = option(9, &contexts("disk", &["qemu:dirty"]));
    let (said, _) = answers(&ONE, &[option(8, &[]), list]);
    assert_eq!(said, [reply(8, 1, &[]), reply(9, 1, &[])].concat());
}

#[test]
fn context_is_selected_for_the_export_that_go_opens() {
    let set = |name, queries: &[&str]| option(10, &contexts(name, queries));
    let end = |options: &[Vec<u8>]| match answers(&TWO, options) {
        (_, End::Agreed { allocation, .. }) => allocation,
        other => panic!("{other:?}"),
    };
    let (structured, go) = (option(8, &[]), option(7, &go("disk", &[])));
    let selected = set("disk", &["base:allocation"]);
    assert!(end(&[structured.clone(), selected.clone(), go.clone()]));
    // The wildcard selects nothing here, nor does another export's selection.
    assert!(!end(&[structured.clone(), set("disk", &["base:"]), go.clone()]));
    assert!(!end(&[structured.clone(), set("ro", &["base:allocation"]), go.clone()]));
    // The last request counts, even if it selects nothing or fails.
    assert!(!end(&[structured.clone(), selected.clone(), set("disk", &[]), go.clone()]));
    assert!(!end(&[structured.clone(), selected.clone(), option(10, &[1]), go.clone()]));
    assert!(!end(&[structured, selected.clone(), set("other", &[]), go.clone()]));
    assert!(!end(&[selected, go]));
}

#[test]
fn set_context_answers_with_the_context_and_its_id() {
    let set = option(10, &contexts("disk", &["base:allocation", "base:allocation"]));
    let (said, _) = answers(&ONE, &[option(8, &[]), set.clone()]);
    let expected =
        [reply(8, 1, &[]), reply(10, 4, b"\x00\x00\x00\x01base:allocation"), reply(10, 1, &[])];
    assert_eq!(said, expected.concat());
    let (said, _) = answers(&ONE, &[set]);
    assert_eq!(said, reply(10, 0x8000_0003, &[]));
}

#[test]
fn lying_counts_and_lengths_of_queries_are_invalid() {
    let mut count = contexts("disk", &["base:"]);
    count[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
    let mut long = contexts("disk", &["base:"]);
    long[12..16].copy_from_slice(&6u32.to_be_bytes());
    let trailing = [contexts("disk", &["base:"]), vec![0]].concat();
    for data in [count, long, trailing, vec![]] {
        for number in [9, 10] {
            let (said, _) = answers(&ONE, &[option(8, &[]), option(number, &data)]);
            let expected = [reply(8, 1, &[]), reply(number, 0x8000_0003, &[])].concat();
            assert_eq!(said, expected);
        }
    }
}

#[test]
fn oversized_option_is_skipped_and_a_monstrous_one_ends_the_connection() {
    let big = option(7, &vec![0; OPTION_BYTES_MAX as usize + 1]);
    let (said, end) = answers(&ONE, &[big, option(2, &[])]);
    let expected = [reply(7, 0x8000_0009, &[]), reply(2, 1, &[])].concat();
    assert_eq!((said, end), (expected, End::Aborted));

    let len = OPTION_SKIP_MAX + 1;
    let monster = [&option(7, &[])[..12], &len.to_be_bytes()[..]].concat();
    let (_, end) = answers(&ONE, &[monster]);
    assert_eq!(end, End::Violated(Violation::OptionLength { number: 7, len }));
}

#[test]
fn bad_flags_magic_and_manners_end_the_connection() {
    let (_, end) = haggle(&ONE, &[0, 0, 0, 7], &[]);
    assert_eq!(end, End::Violated(Violation::ClientFlags { found: 7 }));
    let (_, end) = haggle(&ONE, &[&FIXED[..], &[1; 16]].concat(), &[]);
    assert_eq!(end, End::Violated(Violation::OptionMagic { found: 0x0101_0101_0101_0101 }));
    let (_, end) = haggle(&ONE, &[&[0; 4][..], &option(3, &[])].concat(), &[]);
    assert_eq!(end, End::Violated(Violation::NotFixedNewstyle { number: 3 }));
}

#[test]
fn every_single_cut_gives_the_same_conversation() {
    let options = [
        option(5, &[]),
        option(3, &[]),
        option(8, &[]),
        option(10, &contexts("disk", &["base:allocation"])),
        option(6, &go("disk", &[1, 3])),
        option(7, &go("disk", &[3])),
    ];
    let bytes = [&FIXED[..], &options.concat()].concat();
    let whole = haggle(&TWO, &bytes, &[]);
    assert!(matches!(whole.1, End::Agreed { allocation: true, .. }));
    for cut in 0..bytes.len() {
        assert_eq!(haggle(&TWO, &bytes, &[cut]), whole, "cut at {cut}");
    }
    let all: Vec<_> = (0..bytes.len()).collect();
    assert_eq!(haggle(&TWO, &bytes, &all), whole);
}

proptest! {
    #[test]
    fn arbitrary_options_never_panic(
        options in prop::collection::vec((0u32..13, prop::collection::vec(any::<u8>(), 0..64)), 0..8),
        tail in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let options: Vec<u8> =
            options.iter().flat_map(|(number, data)| option(*number, data)).collect();
        haggle(&TWO, &[&FIXED[..], &options, &tail].concat(), &[]);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        haggle(&ONE, &bytes, &[]);
    }
}
