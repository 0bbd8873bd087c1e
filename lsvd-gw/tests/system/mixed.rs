//! Requests of every size on an image of 512-byte sectors, compared with a copy in memory to the
//! last byte.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::gateway::Site;
use crate::tools::is_long;

/// Connections, each with a part of the image of its own.
const PARTS: u64 = 4;

/// Bytes of each part.
const PART_BYTES: usize = 24 << 20;

/// Bytes of the longest request.
const REQUEST_MAX: usize = 1 << 20;

/// Requests of each connection, unless the test runs for a minute.
const REQUESTS: u32 = 1500;

/// A connection with the copy of its part.
struct Part {
    client: Client,
    start: u64,
    copy: Vec<u8>,
    rng: fastrand::Rng,
}

impl Part {
    /// A range of sectors: often short, sometimes long, of any alignment.
    fn range(&mut self) -> Range<usize> {
        let sectors = match self.rng.u32(0..10) {
            0..4 => self.rng.usize(1..=8),
            4..8 => self.rng.usize(1..=128),
            _ => self.rng.usize(1..=REQUEST_MAX / 512),
        };
        let start = self.rng.usize(0..=PART_BYTES / 512 - sectors);
        start * 512..(start + sectors) * 512
    }

    fn request(&mut self) {
        let range = self.range();
        let at = self.start + range.start as u64;
        let (client, copy) = (&mut self.client, &mut self.copy);
        let answer = match self.rng.u32(0..100) {
            0..50 => {
                self.rng.fill(&mut copy[range.clone()]);
                client.write(at, &copy[range], self.rng.u32(0..50) == 0)
            }
            50..60 => {
                copy[range.clone()].fill(0);
                client.trim(at, range.len())
            }
            60..65 => {
                copy[range.clone()].fill(0);
                client.write_zeroes(at, range.len())
            }
            65..70 => client.flush(),
            _ => client.read(at, range.len()).map(|found| assert_same(&found, &copy[range], at)),
        };
        answer.unwrap_or_else(|error| panic!("request at {at}: {error:?}"));
    }

    fn check(&mut self, mut client: Client) {
        for at in (0..PART_BYTES).step_by(REQUEST_MAX) {
            let offset = self.start + at as u64;
            let found = client.read(offset, REQUEST_MAX).expect("the gateway is healthy");
            assert_same(&found, &self.copy[at..at + REQUEST_MAX], offset);
        }
    }
}

fn assert_same(found: &[u8], expected: &[u8], offset: u64) {
    let wrong = found.iter().zip(expected).position(|(found, expected)| found != expected);
    assert_eq!(wrong, None, "the first wrong byte of {} at {offset}", found.len());
}

#[test]
fn requests_of_any_size_and_alignment_read_as_written() {
    let site = Site::new().with("--batch-size", "2m");
    let size = (PARTS * PART_BYTES as u64).to_string();
    let gateway = site.new_images(1, &size, "512");
    let part = |index: u64| Part {
        client: gateway.client(),
        start: index * PART_BYTES as u64,
        copy: vec![0; PART_BYTES],
        rng: fastrand::Rng::with_seed(index),
    };
    let mut parts: Vec<Part> = (0..PARTS).map(part).collect();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for part in &mut parts {
            scope.spawn(|| {
                let mut requests = 0;
                while requests < REQUESTS || (is_long() && begun.elapsed() < Duration::from_mins(1))
                {
                    part.request();
                    requests += 1;
                }
            });
        }
    });
    gateway.kill();
    // A killed process loses nothing that was acknowledged: from the log, and then from the store.
    for _ in 0..2 {
        let gateway = site.mount();
        for part in &mut parts {
            part.check(gateway.client());
        }
        gateway.stop();
    }
}
