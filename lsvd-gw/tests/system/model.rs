//! What pages of an image must hold: each write stamps its pages with its number, so that every
//! page tells which write it came from and whether it is whole.

use crate::client::Client;

/// The unit of stamps, in bytes.
pub(crate) const PAGE: usize = 4096;

/// Bytes read at a time when an image is looked through.
const CHUNK: usize = 4 << 20;

/// The number of a write; zero stands for pages that read as zeros.
pub(crate) type Stamp = u64;

/// What a write with this number puts into a page.
fn contents(stamp: Stamp, page: usize) -> [u8; PAGE] {
    let mut bytes = [0; PAGE];
    if stamp == 0 {
        return bytes;
    }
    fastrand::Rng::with_seed(stamp ^ ((page as u64) << 40)).fill(&mut bytes[8..]);
    bytes[..8].copy_from_slice(&stamp.to_le_bytes());
    bytes
}

/// What a write with this number puts into pages.
pub(crate) fn data(stamp: Stamp, pages: std::ops::Range<usize>) -> Vec<u8> {
    pages.flat_map(|page| contents(stamp, page)).collect()
}

/// Reads the stamps of pages, each checked to the last byte.
pub(crate) fn read_stamps(client: &mut Client, pages: std::ops::Range<usize>) -> Vec<Stamp> {
    let mut stamps = Vec::with_capacity(pages.len());
    let mut at = pages.start;
    while at < pages.end {
        let end = pages.end.min(at + CHUNK / PAGE);
        let bytes = client.read((at * PAGE) as u64, (end - at) * PAGE);
        let bytes = bytes.unwrap_or_else(|error| panic!("read pages {at} to {end}: {error:?}"));
        for (page, bytes) in (at..end).zip(bytes.chunks_exact(PAGE)) {
            stamps.push(stamp_of(page, bytes));
        }
        at = end;
    }
    stamps
}

fn stamp_of(page: usize, bytes: &[u8]) -> Stamp {
    let stamp = Stamp::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    let expected = contents(stamp, page);
    let torn = bytes.iter().zip(&expected).position(|(found, expected)| found != expected);
    if let Some(at) = torn {
        panic!("page {page} claims to be of write {stamp:#x}, but differs from it at byte {at}");
    }
    stamp
}
