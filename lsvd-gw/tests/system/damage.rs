//! Damaged bytes on every medium: each gives the documented error or recovery, never a wrong byte
//! and never a panic.
//!
//! Reads go to the store in these tests: the caches are small or off, so that they do not hide the
//! damage.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use lsvd_common::log::record::RecordHeader;
use lsvd_common::object::data::DataHeader;
use lsvd_common::object::prefix::{ObjectKind, peek};
use lsvd_common::object::superblock::Superblock;

use crate::client::{Client, EIO, Failure};
use crate::gateway::{Gateway, IMAGE, Site};
use crate::model::{self, PAGE};

/// Pages that hold data, each batch of them in an object of its own.
const PAGES: usize = 2048;

/// Pages of one write: a batch of a mebibyte takes four.
const WRITE_PAGES: usize = 64;

/// A site whose gateway destages early and caches little.
fn site() -> Site {
    Site::new().with("--batch-size", "1m").with("--cache-nvm", "0").with("--cache-ram", "1m")
}

/// Writes every page; page `p` gets the stamp of its write, `1 + p / WRITE_PAGES`.
fn fill(client: &mut Client) {
    for start in (0..PAGES).step_by(WRITE_PAGES) {
        let data = model::data(expected(start), start..start + WRITE_PAGES);
        client.write((start * PAGE) as u64, &data, false).expect("the gateway is healthy");
    }
    client.flush().expect("the gateway is healthy");
}

fn expected(page: usize) -> u64 {
    1 + (page / WRITE_PAGES) as u64
}

fn assert_all_there(client: &mut Client) {
    let stamps = model::read_stamps(client, 0..PAGES);
    let wrong = stamps.iter().zip(0..).find(|(stamp, page)| **stamp != expected(*page));
    assert_eq!(wrong, None, "stamp and page");
}

/// The image is some prefix of the writes of [`fill`]. Returns how many.
fn prefix_len(client: &mut Client) -> u64 {
    let stamps = model::read_stamps(client, 0..PAGES);
    let len = stamps.iter().copied().max().unwrap_or(0);
    for (page, stamp) in stamps.iter().enumerate() {
        let there = if expected(page) <= len { expected(page) } else { 0 };
        assert_eq!(*stamp, there, "page {page} of a prefix of {len} writes");
    }
    len
}

/// A filled image that was closed.
fn closed() -> Site {
    let site = site();
    let gateway = site.new_image("64m");
    fill(&mut gateway.client());
    gateway.stop();
    site
}

/// The numbered objects of the image, in order.
fn objects(site: &Site) -> Vec<(PathBuf, ObjectKind)> {
    let entries = std::fs::read_dir(site.image_dir()).expect("the image is there");
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.expect("it is readable").path()).collect();
    paths.sort();
    let kind = |path: PathBuf| {
        let bytes = std::fs::read(&path).expect("it was listed");
        peek(&bytes).ok().map(|peek| (path, peek.kind))
    };
    paths.into_iter().filter_map(kind).collect()
}

fn objects_of(site: &Site, kind: ObjectKind) -> Vec<PathBuf> {
    objects(site).into_iter().filter(|(_, of)| *of == kind).map(|(path, _)| path).collect()
}

fn data_header(path: &Path) -> DataHeader {
    DataHeader::decode(&std::fs::read(path).expect("it was listed")).expect("it is whole").0
}

/// Flips one bit of a file.
fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).expect("it is there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("it is inside the file");
    byte[0] ^= 0x10;
    file.write_all_at(&byte, at).expect("it is writable");
}

fn truncate(path: &Path, len: u64) {
    let file = File::options().write(true).open(path).expect("it is there");
    file.set_len(len).expect("it is writable");
}

fn name_of(path: &Path) -> String {
    let leaf = path.file_name().expect("an object has a name").to_string_lossy().into_owned();
    format!("{IMAGE}/{leaf}")
}

/// A start that must fail as damage, naming all `parts`.
fn assert_refused(site: &Site, parts: &[&str]) {
    let (code, text) = site.refused(&["mount", &site.pool_text(), IMAGE]);
    assert_eq!(code, 2, "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} in {text}");
    }
}

/// Reads every page by itself: those that `damaged` names fail with EIO, all others hold what was
/// written.
fn assert_damage_is_confined(client: &mut Client, damaged: impl Fn(usize) -> bool) {
    let mut errors = 0;
    for page in 0..PAGES {
        match client.read((page * PAGE) as u64, PAGE) {
            Ok(bytes) => {
                assert_eq!(bytes, model::data(expected(page), page..page + 1), "page {page}");
                assert!(!damaged(page), "page {page} cannot have been read from its object");
            }
            Err(Failure::Refused(error)) => {
                assert_eq!(error, EIO);
                assert!(damaged(page), "page {page} is nowhere near the damage");
                errors += 1;
            }
            Err(lost) => panic!("page {page}: {lost:?}"),
        }
    }
    assert!(errors > 0, "the damage was read");
}

/// Pages of the image that an object holds.
fn pages_of(path: &Path) -> Vec<usize> {
    let header = data_header(path);
    let page = |sector: u64| usize::try_from(sector / 8).expect("a small image");
    header.extents.iter().flat_map(|extent| page(extent.start.0)..page(extent.end().0)).collect()
}

fn stop_after_read_errors(mut gateway: Gateway) {
    gateway.expect_trouble("read failed");
    gateway.expect_trouble("damaged object");
    gateway.expect_trouble("an object is missing or short");
    gateway.stop();
}

#[test]
fn a_flipped_bit_in_the_superblock_is_refused() {
    let site = closed();
    flip(&site.image_dir().join("superblock"), 100);
    assert_refused(&site, &["superblock", IMAGE, "damaged", "expected", "found"]);
}

#[test]
fn a_truncated_or_empty_superblock_is_refused() {
    let site = closed();
    let superblock = site.image_dir().join("superblock");
    truncate(&superblock, 70);
    assert_refused(&site, &["superblock", IMAGE, "damaged"]);
    truncate(&superblock, 0);
    assert_refused(&site, &["superblock", IMAGE, "damaged"]);
}

#[test]
fn a_flipped_bit_in_an_objects_payload_is_a_read_error_there_and_nowhere_else() {
    let site = closed();
    let object = objects_of(&site, ObjectKind::Data)[1].clone();
    let header_len = data_header(&object).header_len() as u64;
    flip(&object, header_len + (3 << 16) + 7);
    let gateway = site.mount();
    // The third frame holds sixteen pages.
    let damaged = pages_of(&object)[48..64].to_vec();
    assert_damage_is_confined(&mut gateway.client(), |page| damaged.contains(&page));
    let log = gateway.log();
    let at = format!("damaged at byte {}", header_len + (3 << 16));
    for part in [name_of(&object).as_str(), "of image auto_lsvddev_0", &at, "expected", "found"] {
        assert!(log.contains(part), "{part:?} in {log}");
    }
    stop_after_read_errors(gateway);
}

#[test]
fn a_flipped_bit_in_an_objects_header_is_a_read_error() {
    let site = closed();
    let object = objects_of(&site, ObjectKind::Data)[0].clone();
    flip(&object, 200);
    // The checkpoint covers the object, so the image opens; its frames cannot be verified, so they
    // are not returned.
    let gateway = site.mount();
    let mut pages = Vec::new();
    for page in 0..PAGES {
        if gateway.client().read((page * PAGE) as u64, PAGE).is_err() {
            pages.push(page);
        }
    }
    assert_damage_is_confined(&mut gateway.client(), |page| pages.contains(&page));
    assert!(gateway.log().contains(&name_of(&object)), "{}", gateway.log());
    stop_after_read_errors(gateway);
}

#[test]
fn a_truncated_or_missing_object_is_a_read_error() {
    let site = closed();
    let paths = objects_of(&site, ObjectKind::Data);
    let mut lost = pages_of(&paths[0]);
    let tail = data_header(&paths[2]).header_len() as u64 + (1 << 16);
    // Behind the first frame.
    lost.extend_from_slice(&pages_of(&paths[2])[16..]);
    std::fs::remove_file(&paths[0]).unwrap();
    truncate(&paths[2], tail);
    let gateway = site.mount();
    assert_damage_is_confined(&mut gateway.client(), |page| lost.contains(&page));
    stop_after_read_errors(gateway);
}

#[test]
fn an_object_that_recovery_needs_and_cannot_read_is_refused() {
    let site = site();
    let gateway = site.new_image("64m");
    fill(&mut gateway.client());
    while objects_of(&site, ObjectKind::Data).len() < 6 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    gateway.kill();
    let object = objects_of(&site, ObjectKind::Data)[1].clone();
    flip(&object, 70);
    assert_refused(&site, &[&name_of(&object), "damaged", "expected", "found"]);
    flip(&object, 70);
    let gateway = site.mount();
    assert_all_there(&mut gateway.client());
    gateway.stop();
}

#[test]
fn an_object_lost_after_it_was_confirmed_is_refused() {
    let site = site();
    let gateway = site.new_image("64m");
    let mut client = gateway.client();
    fill(&mut client);
    gateway.kill();
    // Recovered once, the log knows that the store has the objects and has no copy any more.
    let gateway = site.mount();
    assert_all_there(&mut gateway.client());
    while objects_of(&site, ObjectKind::Data).len() < PAGES / 256 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    gateway.kill();
    gateway_needs(&site, objects_of(&site, ObjectKind::Data).last().unwrap());
}

/// Without this object the image must not open as if nothing had happened.
fn gateway_needs(site: &Site, object: &Path) {
    let aside = site.path("aside");
    std::fs::rename(object, &aside).expect("it was listed");
    assert_refused(site, &["lost acknowledged objects"]);
    std::fs::rename(&aside, object).expect("the name is free");
    let gateway = site.mount();
    assert_all_there(&mut gateway.client());
    gateway.stop();
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let site = closed();
    for checkpoint in objects_of(&site, ObjectKind::Checkpoint) {
        flip(&checkpoint, 90);
    }
    let mut gateway = site.mount();
    gateway.expect_trouble("a checkpoint is damaged; recovery starts from an earlier one");
    assert_all_there(&mut gateway.client());
    let log = gateway.stop();
    assert!(log.contains("a checkpoint is damaged"), "{log}");
}

#[test]
fn a_damaged_map_part_is_passed_over() {
    let site = closed();
    let part = objects_of(&site, ObjectKind::MapPart).pop().unwrap();
    let bytes = std::fs::read(&part).unwrap();
    let header_len = peek(&bytes).unwrap().header_len as u64;
    flip(&part, header_len + 33);
    let mut gateway = site.mount();
    gateway.expect_trouble("a checkpoint is damaged; recovery starts from an earlier one");
    assert_all_there(&mut gateway.client());
    let log = gateway.stop();
    assert!(log.contains(&format!("map part {} is damaged", name_of(&part))), "{log}");
}

/// An image whose gateway was killed while its log holds everything, and the log's file.
fn in_the_log() -> (Site, PathBuf) {
    // A batch that never fills: nothing but the log has the data.
    let site = Site::new().with("--cache-nvm", "0").with("--batch-size", "16m");
    let config = site.path("gw.toml");
    std::fs::write(&config, "batch_age_ms = 600000\n").expect("the directory is writable");
    let site = site.with("--config", &config.display().to_string());
    let gateway = site.new_image("64m");
    fill(&mut gateway.client());
    let mut client = gateway.client();
    // A record behind the flush: it says that all before it was durable.
    client.write(0, &model::data(expected(0), 0..1), false).expect("the gateway is healthy");
    gateway.kill();
    let entries = std::fs::read_dir(site.state().join("logs")).expect("it is there");
    let log = entries.map(|entry| entry.expect("it is readable").path()).next();
    (site, log.expect("the image has a log"))
}

/// Byte offsets of the records in a log that never wrapped.
fn records(log: &Path) -> Vec<u64> {
    let bytes = std::fs::read(log).expect("it is there");
    let mut at = 2 * PAGE;
    let mut found = Vec::new();
    while let Ok((header, _)) = RecordHeader::decode(&bytes[at..]) {
        found.push(at as u64);
        at += usize::try_from(header.pages()).expect("a record is small") * PAGE;
    }
    found
}

#[test]
fn a_damaged_record_in_the_middle_is_refused_until_a_takeover() {
    let (site, log) = in_the_log();
    let records = records(&log);
    assert!(records.len() > 8, "{} records", records.len());
    let middle = records[records.len() / 2];
    // In its data: the header still says what should be there.
    flip(&log, middle + PAGE as u64 + 5);
    let at = format!("damaged at byte {middle}");
    assert_refused(&site, &["write log", &at, "take the image over"]);
    assert_refused(&site, &[&at]);
    let mut gateway = site.start(&["mount", &site.pool_text(), IMAGE, "--takeover"]);
    gateway.expect_trouble("set aside");
    prefix_len(&mut gateway.client());
    gateway.stop();
    let aside = std::fs::read_dir(site.state().join("logs")).unwrap();
    let kept = aside
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("stranded"));
    assert_eq!(kept.count(), 1, "the damaged log is kept for whoever wants to look");
}

#[test]
fn a_torn_record_at_the_end_is_the_end() {
    let (site, log) = in_the_log();
    let last = *records(&log).last().unwrap();
    flip(&log, last + PAGE as u64 + 5);
    let gateway = site.mount();
    assert_eq!(prefix_len(&mut gateway.client()), expected(PAGES - 1));
    gateway.stop();
}

#[test]
fn one_log_superblock_is_enough() {
    for page in [0, 1] {
        let (site, log) = in_the_log();
        flip(&log, page * PAGE as u64 + 60);
        let gateway = site.mount();
        assert_all_there(&mut gateway.client());
        gateway.stop();
    }
}

#[test]
fn without_both_log_superblocks_the_image_needs_a_takeover() {
    let (site, log) = in_the_log();
    flip(&log, 60);
    flip(&log, PAGE as u64 + 60);
    let (code, text) = site.refused(&["mount", &site.pool_text(), IMAGE]);
    assert_eq!(code, 1, "{text}");
    for part in ["in use", "both superblocks of the write log", "are damaged", "--takeover"] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    let mut gateway = site.start(&["mount", &site.pool_text(), IMAGE, "--takeover"]);
    gateway.expect_trouble("set aside");
    prefix_len(&mut gateway.client());
    gateway.stop();
}

#[test]
fn a_truncated_log_is_refused() {
    let (site, log) = in_the_log();
    truncate(&log, 1 << 20);
    let (code, text) = site.refused(&["mount", &site.pool_text(), IMAGE]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("its superblock says"), "{text}");
}

/// Flips a byte in every slot of the read cache that holds something. Returns how many there were.
fn damage_cache(cache: &Path) -> usize {
    let file = File::options().read(true).write(true).open(cache).expect("the cache is there");
    let bytes = std::fs::read(cache).expect("the cache is there");
    let mut damaged = 0;
    // The superblock and the index of a cache of this size fill three slots.
    for (slot, frame) in bytes.chunks_exact(1 << 16).enumerate().skip(3) {
        if frame.iter().any(|byte| *byte != 0) {
            let at = (slot << 16) as u64 + 100;
            file.write_all_at(&[!frame[100]], at).expect("it is writable");
            damaged += 1;
        }
    }
    file.sync_all().expect("it is writable");
    damaged
}

#[test]
fn damaged_cache_frames_are_dropped_and_fetched_again() {
    let site = site().with("--cache-nvm", "64m");
    let gateway = site.new_image("64m");
    fill(&mut gateway.client());
    gateway.stop();
    // Read by page in no order, and again: that is what the cache on the SSD is for.
    let read_all = |client: &mut Client| {
        let mut pages: Vec<usize> = (0..PAGES).collect();
        fastrand::Rng::with_seed(1).shuffle(&mut pages);
        for page in pages {
            let bytes = client.read((page * PAGE) as u64, PAGE).expect("the store has it");
            assert_eq!(bytes, model::data(expected(page), page..page + 1), "page {page}");
        }
    };
    let gateway = site.mount();
    read_all(&mut gateway.client());
    read_all(&mut gateway.client());
    gateway.stop();
    let cache = site.state().join("cache/read-cache");
    let damaged = damage_cache(&cache);
    assert!(damaged > 8, "{damaged} frames were in the cache");
    // What it claims to have after a restart is checked before it is believed.
    let gateway = site.mount();
    read_all(&mut gateway.client());
    read_all(&mut gateway.client());
    gateway.stop();
    // And what was right before is checked on every read.
    let mut gateway = site.mount();
    gateway.expect_trouble("read cache dropped a damaged frame");
    read_all(&mut gateway.client());
    assert!(damage_cache(&cache) > 8);
    read_all(&mut gateway.client());
    let log = gateway.stop();
    assert!(log.contains("dropped a damaged frame"), "{log}");
}

#[test]
fn a_superblock_that_is_whole_says_who_had_the_image() {
    let site = closed();
    let bytes = std::fs::read(site.image_dir().join("superblock")).unwrap();
    let superblock = Superblock::decode(&bytes).unwrap();
    assert_eq!(superblock.owner, None, "closed");
    assert!(!superblock.checkpoints.is_empty());
}
