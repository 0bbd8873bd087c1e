//! Crash loops: a gateway is killed at a random moment under load, started again, and must have
//! what it promised.
//!
//! With its state directory kept, everything that was acknowledged is there (a killed process takes
//! no page cache with it), and a write without an answer is there as a whole or not at all. With
//! the state directory wiped, the image is the state after some number of acknowledged writes, at
//! least those that the store had, and with `--flush backend` at least those that were flushed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use lsvd_common::object::data::DataHeader;
use lsvd_common::object::prefix::{ObjectKind, peek};
use rustix::process::{Signal, kill_process};

use crate::client::{Answer, Client, Failure};
use crate::gateway::{Gateway, IMAGE, Site};
use crate::model::{self, PAGE, Stamp};

/// Writers of the loop that keeps its state directory, each with a connection and a part of the
/// image.
const WRITERS: usize = 4;

/// Pages of each writer's part (32 MiB).
const PART_PAGES: usize = 8192;

/// Pages of the longest write.
const WRITE_PAGES_MAX: usize = 16;

/// Rounds when nobody says how many.
const ROUNDS: u32 = 5;

/// A restart is back in service in less than this.
const RESTART_MAX: Duration = Duration::from_secs(2);

/// The rounds that somebody asked for, who then wants the default sizes and the limit for restarts
/// as well.
fn asked_rounds() -> Option<u32> {
    let rounds = std::env::var("LSVD_CRASH_ROUNDS").ok()?;
    Some(rounds.parse().expect("LSVD_CRASH_ROUNDS is a number"))
}

/// Small logs and objects make every round wrap the log and write checkpoints.
fn crash_site() -> Site {
    match asked_rounds() {
        Some(_) => Site::new().with_defaults(),
        None => Site::new().with("--batch-size", "1m"),
    }
}

/// What the next request is.
enum Request {
    Write { pages: Range<usize>, fua: bool },
    Trim { pages: Range<usize> },
    Flush,
}

impl Request {
    fn choose(rng: &mut fastrand::Rng, part: Range<usize>) -> Self {
        let len = rng.usize(1..=WRITE_PAGES_MAX);
        let start = rng.usize(part.start..=part.end - len);
        let pages = start..start + len;
        match rng.u32(0..100) {
            0..20 => Self::Flush,
            20..28 => Self::Trim { pages },
            roll => Self::Write { pages, fua: roll < 33 },
        }
    }

    fn send(&self, client: &mut Client, stamp: Stamp) -> Answer<()> {
        match self {
            Self::Write { pages, fua } => {
                let data = model::data(stamp, pages.clone());
                client.write((pages.start * PAGE) as u64, &data, *fua)
            }
            Self::Trim { pages } => client.trim((pages.start * PAGE) as u64, pages.len() * PAGE),
            Self::Flush => client.flush(),
        }
    }

    /// The change that it makes, if it makes one.
    fn change(&self, stamp: Stamp) -> Option<Change> {
        match self {
            Self::Write { pages, .. } => Some(Change { pages: pages.clone(), stamp }),
            Self::Trim { pages } => Some(Change { pages: pages.clone(), stamp: 0 }),
            Self::Flush => None,
        }
    }
}

/// Pages that got a stamp.
#[derive(Clone, Debug)]
struct Change {
    pages: Range<usize>,
    stamp: Stamp,
}

/// Runs a load and kills the gateway under it after a random time. Returns when the load noticed.
fn kill_under(gateway: Gateway, load: impl FnOnce(&Gateway)) {
    let delay = Duration::from_millis(fastrand::u64(50..1500));
    let process = gateway.process();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(delay);
            kill_process(process, Signal::KILL).expect("it is our child and was not waited for");
        });
        load(&gateway);
    });
    gateway.kill();
}

/// What the loops report: figures of restarts, and how much was done.
#[derive(Default)]
struct Report {
    restarts: Vec<Duration>,
    changes: u64,
    flushes: u64,
}

impl Report {
    /// Prints all of it. Returns the longest restart.
    fn print(&mut self, what: &str) -> Duration {
        self.restarts.sort();
        let (median, max) = (self.restarts[self.restarts.len() / 2], self.restarts.last());
        let max = max.copied().unwrap_or_default();
        eprintln!(
            "{what}: {} rounds, {} writes and trims, {} flushes; ready after a kill in {} ms \
             (median), {} ms (max)",
            self.restarts.len(),
            self.changes,
            self.flushes,
            median.as_millis(),
            max.as_millis()
        );
        max
    }
}

/// A writer and what its part of the image must hold.
struct Writer {
    part: Range<usize>,
    stamps: Vec<Stamp>,
    next: Stamp,
    in_flight: Option<Change>,
    changes: u64,
    flushes: u64,
}

impl Writer {
    fn new(index: usize) -> Self {
        Self {
            part: index * PART_PAGES..(index + 1) * PART_PAGES,
            stamps: vec![0; PART_PAGES],
            next: (index as Stamp) << 48,
            in_flight: None,
            changes: 0,
            flushes: 0,
        }
    }

    /// Sends requests until the connection is lost.
    fn run(&mut self, mut client: Client) {
        let mut rng = fastrand::Rng::new();
        loop {
            self.next += 1;
            let request = Request::choose(&mut rng, self.part.clone());
            let change = request.change(self.next);
            match (request.send(&mut client, self.next), change) {
                (Ok(()), Some(change)) => {
                    self.apply(&change);
                    self.changes += 1;
                }
                (Ok(()), None) => self.flushes += 1,
                (Err(Failure::Lost(_)), change) => {
                    self.in_flight = change;
                    return;
                }
                (Err(Failure::Refused(error)), _) => panic!("refused with {error}"),
            }
        }
    }

    fn apply(&mut self, change: &Change) {
        for page in change.pages.clone() {
            self.stamps[page - self.part.start] = change.stamp;
        }
    }

    /// Everything acknowledged is there; what had no answer is there as a whole or not at all.
    fn check(&mut self, client: &mut Client) {
        let found = model::read_stamps(client, self.part.clone());
        if found != self.stamps
            && let Some(change) = self.in_flight.take()
        {
            self.apply(&change);
        }
        self.in_flight = None;
        let pages = found.iter().zip(&self.stamps).zip(self.part.clone());
        let wrong: Vec<_> = pages
            .filter(|((found, expected), _)| found != expected)
            .map(|((found, expected), page)| (page, *found, *expected))
            .collect();
        let first = &wrong[..wrong.len().min(8)];
        assert!(
            wrong.is_empty(),
            "{} pages differ (page, found, expected): {first:x?}",
            wrong.len()
        );
    }
}

#[test]
fn what_was_acknowledged_survives_kills() {
    let rounds = asked_rounds().unwrap_or(ROUNDS);
    let site = crash_site();
    let mut writers: Vec<Writer> = (0..WRITERS).map(Writer::new).collect();
    let size = (WRITERS * PART_PAGES * PAGE).to_string();
    let mut gateway = site.new_image(&size);
    let mut report = Report::default();
    for round in 1..=rounds {
        kill_under(gateway, |gateway| {
            std::thread::scope(|scope| {
                for writer in &mut writers {
                    let client = gateway.client();
                    scope.spawn(|| writer.run(client));
                }
            });
        });
        gateway = site.mount();
        report.restarts.push(gateway.started_in());
        for writer in &mut writers {
            writer.check(&mut gateway.client());
        }
        eprintln!("round {round}: ready in {} ms", gateway.started_in().as_millis());
        if std::env::var_os("XX").is_some() {
            eprintln!("{}", gateway.log());
        }
    }
    report.changes = writers.iter().map(|writer| writer.changes).sum();
    report.flushes = writers.iter().map(|writer| writer.flushes).sum();
    gateway.stop();
    let longest = report.print("state directory kept");
    // Only where somebody measures; elsewhere other tests may keep the machine busy.
    assert!(asked_rounds().is_none() || longest < RESTART_MAX, "a restart took {longest:?}");
}

/// One writer whose acknowledged order is known, so that every prefix of it is.
struct History {
    /// The image before the first of `changes`.
    base: Vec<Stamp>,
    changes: Vec<Change>,
    /// How many of `changes` were acknowledged before the last acknowledged flush.
    flushed: usize,
    next: Stamp,
}

impl History {
    fn run(&mut self, mut client: Client, report: &mut Report) {
        let mut rng = fastrand::Rng::new();
        loop {
            self.next += 1;
            let request = Request::choose(&mut rng, 0..self.base.len());
            let change = request.change(self.next);
            let acknowledged = match request.send(&mut client, self.next) {
                Ok(()) => true,
                Err(Failure::Lost(_)) => false,
                Err(Failure::Refused(error)) => panic!("refused with {error}"),
            };
            let durable = matches!(request, Request::Flush | Request::Write { fua: true, .. });
            report.flushes += u64::from(change.is_none());
            report.changes += u64::from(change.is_some());
            // A change without an answer may be there all the same: it is the end of the longest
            // prefix.
            self.changes.extend(change);
            if !acknowledged {
                return;
            }
            if durable {
                self.flushed = self.changes.len();
            }
        }
    }

    /// The numbers of changes after which the image looked like this.
    fn prefixes(&self, found: &[Stamp]) -> Vec<usize> {
        let mut of_page: BTreeMap<usize, Vec<(usize, Stamp)>> = BTreeMap::new();
        for (index, change) in self.changes.iter().enumerate() {
            for page in change.pages.clone() {
                of_page.entry(page).or_default().push((index + 1, change.stamp));
            }
        }
        // For every number of changes, how many pages agree: the running sum of these.
        let mut steps = vec![0_i64; self.changes.len() + 2];
        for (page, found) in found.iter().enumerate() {
            let mut state = self.base[page];
            let mut since = 0;
            let changes = of_page.get(&page).map_or(&[][..], Vec::as_slice);
            for (at, stamp) in changes.iter().copied().chain([(self.changes.len() + 1, 0)]) {
                if state == *found {
                    steps[since] += 1;
                    steps[at] -= 1;
                }
                (state, since) = (stamp, at);
            }
        }
        let mut agree = 0;
        let mut fits = Vec::new();
        for (count, step) in steps[..=self.changes.len()].iter().enumerate() {
            agree += step;
            if agree == found.len() as i64 {
                fits.push(count);
            }
        }
        fits
    }
}

/// The last write that the objects in the pool cover without a gap.
fn stored_write(site: &Site) -> u64 {
    let mut last = 0;
    for seq in 1_u64.. {
        let Ok(bytes) = std::fs::read(site.image_dir().join(format!("{seq:016x}"))) else { break };
        let kind = peek(&bytes).expect("objects get their names when they are whole").kind;
        if kind == ObjectKind::Data {
            last = DataHeader::decode(&bytes).expect("it is whole").0.last_write.0;
        }
    }
    last
}

#[test]
fn without_its_state_directory_the_image_is_a_prefix() {
    let rounds = asked_rounds().unwrap_or(ROUNDS);
    let site = crash_site();
    let pages = PART_PAGES;
    let mut history = History { base: vec![0; pages], changes: Vec::new(), flushed: 0, next: 0 };
    let mut gateway = site.new_image(&(pages * PAGE).to_string());
    let mut report = Report::default();
    let mut backend = false;
    for round in 1..=rounds {
        let stored_before = stored_write(&site);
        kill_under(gateway, |gateway| history.run(gateway.client(), &mut report));
        // Every change is one write to the engine, so what the store covers is a number of changes.
        let stored = (stored_write(&site) - stored_before) as usize;
        std::fs::remove_dir_all(site.state()).unwrap();
        let flushed = if backend { history.flushed } else { 0 };
        backend = round % 2 == 1;
        let policy = if backend { "backend" } else { "local" };
        let begun = Instant::now();
        gateway = site.start(&["mount", &site.pool_text(), IMAGE, "--takeover", "--flush", policy]);
        report.restarts.push(gateway.started_in());
        let found = model::read_stamps(&mut gateway.client(), 0..pages);
        let fits = history.prefixes(&found);
        let written = history.changes.len();
        let longest = fits.last().copied();
        let longest = longest.unwrap_or_else(|| panic!("no prefix of {written} writes"));
        assert!(longest >= stored, "{longest} of {written} writes, the store had {stored}");
        assert!(longest >= flushed, "{longest} of {written} writes, {flushed} were flushed");
        eprintln!(
            "round {round}: {longest} of {written} writes there, {stored} in the store, {flushed} \
             flushed to it; ready in {} ms, checked in {} ms",
            gateway.started_in().as_millis(),
            begun.elapsed().as_millis()
        );
        history.base = found;
        history.changes.clear();
        history.flushed = 0;
    }
    gateway.stop();
    report.print("state directory wiped");
}
