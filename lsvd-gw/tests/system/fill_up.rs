//! Full and read-only media: a full SSD, a full store, a log directory that cannot be written.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::gateway::{IMAGE, Site};
use crate::model::{self, PAGE};
use crate::place::Mount;

const MIB: usize = 1 << 20;

/// Long enough for anything but a hang.
const PATIENCE: Duration = Duration::from_secs(90);

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_ssd_without_space_for_the_log_is_refused() {
    let site = Site::new().with("--cache-nvm", "0");
    let Some(_mount) = Mount::tmpfs(&site.state(), "48m") else { return };
    let (code, text) = site.refused(&["new", &site.pool_text(), "1", "--size", "64m"]);
    assert_eq!(code, 2, "{text}");
    for part in ["make a write log of 64 MiB", "No space left on device"] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    // With a log that fits, the image that was made is served.
    let site = site.with("--log-size", "32m").with("--batch-size", "1m");
    let gateway = site.mount();
    gateway.client().write(0, &model::data(1, 0..1), true).unwrap();
    gateway.stop();
}

#[test]
fn an_ssd_without_space_for_the_cache_is_refused() {
    let site = Site::new().with("--cache-nvm", "64m");
    let Some(_mount) = Mount::tmpfs(&site.state(), "16m") else { return };
    let (code, text) = site.refused(&[]);
    assert_eq!(code, 2, "{text}");
    for part in ["make the read cache of 64 MiB", "--cache-nvm", "No space left on device"] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
}

#[test]
fn a_log_directory_that_is_read_only_is_refused() {
    let site = Site::new().with("--cache-nvm", "0");
    let gateway = site.new_image("64m");
    gateway.client().write(0, &model::data(5, 0..4), true).unwrap();
    gateway.kill();
    {
        let Some(_mount) = Mount::read_only(&site.state().join("logs")) else { return };
        let (code, text) = site.refused(&["mount", &site.pool_text(), IMAGE]);
        assert_eq!(code, 2, "{text}");
        assert!(text.contains("Read-only file system"), "{text}");
        assert!(text.contains("logs"), "{text}");
    }
    {
        let Some(_mount) = Mount::read_only(&site.state()) else { return };
        let (code, text) = site.refused(&["mount", &site.pool_text(), IMAGE]);
        assert_eq!(code, 2, "{text}");
        assert!(text.contains("Read-only file system"), "{text}");
        assert!(text.contains("gateway.lock"), "{text}");
    }
    let gateway = site.mount();
    assert_eq!(model::read_stamps(&mut gateway.client(), 0..4), [5; 4]);
    gateway.stop();
}

/// Pages of one write.
const WRITE_PAGES: usize = 16;

/// Writes of the test below go round so many pages.
const PAGES: usize = 24 * MIB / PAGE;

#[test]
fn when_the_store_is_full_the_log_takes_over_and_everything_resumes() {
    let site = Site::new().with("--batch-size", "1m").with("--cache-nvm", "0");
    let Some(_mount) = Mount::tmpfs(&site.pool(), "400m") else { return };
    let ballast = site.pool().join("ballast");
    // 16 MiB are left for objects.
    std::fs::write(&ballast, vec![1; 384 * MIB]).unwrap();
    let mut gateway = site.new_image("64m");
    gateway.expect_trouble("the store does not take objects; writes go on into the log");
    gateway.expect_trouble("the store takes objects again");
    let (written, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut client = gateway.client();
    std::thread::scope(|scope| {
        let _stops = StopOnDrop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                let write = written.load(Ordering::Acquire);
                let page = write as usize * WRITE_PAGES % PAGES;
                let data = model::data(write + 1, page..page + WRITE_PAGES);
                client.write((page * PAGE) as u64, &data, false).unwrap();
                written.fetch_add(1, Ordering::AcqRel);
                std::thread::sleep(Duration::from_micros(500));
            }
        });
        let bytes = || written.load(Ordering::Acquire) as usize * WRITE_PAGES * PAGE;
        wait_until("trouble", || gateway.log().contains("the store does not take objects"));
        let at_trouble = bytes();
        wait_until("writes into the log", || bytes() > at_trouble + 16 * MIB);
        // The log has 64 MiB and the store less than 16: more cannot have been acknowledged.
        std::thread::sleep(Duration::from_secs(5));
        assert!(bytes() < 80 * MIB, "{} bytes", bytes());
        let mut reader = gateway.client();
        let before = written.load(Ordering::Acquire);
        let stamps = model::read_stamps(&mut reader, 0..PAGES);
        assert!(stamps.iter().all(|stamp| *stamp > 0), "every page was written");
        let fresh = stamps.iter().filter(|stamp| **stamp + (PAGES / WRITE_PAGES) as u64 > before);
        assert!(fresh.count() + 1 >= PAGES, "the newest write of every page is read");
        reader.flush().unwrap();

        std::fs::remove_file(&ballast).unwrap();
        wait_until("the store again", || gateway.log().contains("the store takes objects again"));
        wait_until("more than the log holds", || bytes() > at_trouble + 160 * MIB);
        stop.store(true, Ordering::Release);
    });
    let last = written.load(Ordering::Acquire);
    gateway.stop();
    let gateway = site.mount();
    let stamps = model::read_stamps(&mut gateway.client(), 0..PAGES);
    let round = (PAGES / WRITE_PAGES) as u64;
    for (page, stamp) in stamps.into_iter().enumerate() {
        let slot = (page / WRITE_PAGES) as u64;
        let newest = slot + 1 + (last - slot - 1) / round * round;
        assert_eq!(stamp, newest, "page {page} after {last} writes");
    }
    gateway.stop();
}

/// Stops the writer also when an assertion fails: a scope waits for its threads.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
