//! The program as people and programs meet it.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use lsvd_common::ids::{Epoch, ImageId, ObjectSeq, Uuid};
use lsvd_common::object::superblock::{Features, Fence, SectorSize, Superblock};
use lsvd_common::units::Sectors;

fn superblock() -> Vec<u8> {
    let superblock = Superblock {
        image: ImageId(Uuid::from_u128(0x1111)),
        sector_size: SectorSize::B4096,
        size: Sectors(1 << 21),
        features: Features::default(),
        epoch: Epoch(0),
        fence: Fence::default(),
        floor: ObjectSeq(1),
        created_ms: 1_700_000_000_000,
        region_shift: 17,
        owner: None,
        checkpoints: Vec::new(),
        snapshots: Vec::new(),
        lineage: Vec::new(),
        children: Vec::new(),
    };
    superblock.encode().unwrap()
}

fn pool_with(bytes: &[u8]) -> tempfile::TempDir {
    let pool = tempfile::tempdir().unwrap();
    std::fs::create_dir(pool.path().join("disk1")).unwrap();
    std::fs::write(pool.path().join("disk1/superblock"), bytes).unwrap();
    pool
}

fn run(arguments: &[&str], directory: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_objinspect"))
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn a_file_and_an_object_of_a_pool_are_told_alike() {
    let pool = pool_with(&superblock());
    let file = run(&["disk1/superblock"], pool.path());
    assert_eq!(file.status.code(), Some(0), "{}", stderr(&file));
    assert!(stdout(&file).contains("size_sectors"), "{}", stdout(&file));
    assert!(stdout(&file).ends_with("nothing wrong was found\n"));
    let object = run(&["./", "disk1/superblock"], pool.path());
    assert_eq!(object.status.code(), Some(0), "{}", stderr(&object));
    let behind = |output: &Output| stdout(output).split_once('\n').unwrap().1.to_owned();
    assert_eq!(behind(&file), behind(&object));
    assert_eq!(stderr(&object).lines().count(), 1);
    assert!(stderr(&run(&["./", "disk1/superblock", "--quiet"], pool.path())).is_empty());
}

#[test]
fn looking_at_a_pool_changes_nothing_in_it() {
    let pool = pool_with(&superblock());
    std::fs::create_dir(pool.path().join(".lsvd-staging")).unwrap();
    std::fs::write(pool.path().join(".lsvd-staging/1-1"), b"left by a dead writer").unwrap();
    run(&["./", "disk1/superblock"], pool.path());
    assert!(pool.path().join(".lsvd-staging/1-1").exists());
}

#[test]
fn damage_is_answer_one_and_nothing_there_too_but_a_missing_file_is_a_failure() {
    let mut bytes = superblock();
    bytes[40] ^= 1;
    let pool = pool_with(&bytes);
    let damaged = run(&["disk1/superblock"], pool.path());
    assert_eq!(damaged.status.code(), Some(1));
    assert!(stdout(&damaged).contains("BAD superblock checksum"), "{}", stdout(&damaged));
    let missing = run(&["./", "disk1/0000000000000001"], pool.path());
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("there is no object"), "{}", stderr(&missing));
    for arguments in [&["nothing-here"][..], &["./", "../etc/passwd"], &["./gone", "a/b"], &[]] {
        let failed = run(arguments, pool.path());
        assert_eq!(failed.status.code(), Some(2), "{arguments:?}");
        assert!(stdout(&failed).is_empty());
        let lines: Vec<&str> = stderr(&failed).lines().collect();
        assert!(lines.iter().all(|line| line.starts_with("objinspect: ")), "{lines:?}");
    }
}

#[test]
fn what_is_not_ours_is_not_called_damaged() {
    let pool = pool_with(b"#!/bin/sh");
    let output = run(&["disk1/superblock"], pool.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).ends_with("not recognised\n"), "{}", stdout(&output));
    let as_named = run(&["disk1/superblock", "--as", "superblock"], pool.path());
    assert!(stdout(&as_named).contains("192 bytes needed and 9 there"), "{}", stdout(&as_named));
    assert_eq!(run(&["/dev/null"], pool.path()).status.code(), Some(2));
}

#[test]
fn json_is_one_document_with_every_field() {
    let pool = pool_with(&superblock());
    let output = run(&["disk1/superblock", "--json"], pool.path());
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["format"], "superblock");
    assert_eq!(document["whole"], true);
    let part = &document["parts"][0];
    assert_eq!((&part["part"], &part["layout"]), (&"structure".into(), &"SuperblockFields".into()));
    let fields = part["fields"].as_array().unwrap();
    let size = fields.iter().find(|field| field["name"] == "size_sectors").unwrap();
    assert_eq!((&size["offset"], &size["size"]), (&40.into(), &8.into()));
    assert_eq!((&size["raw"], &size["value"]), (&"0000200000000000".into(), &2_097_152.into()));
    assert_eq!(run(&["x", "--json", "--hex"], pool.path()).status.code(), Some(2));
}

#[test]
fn hex_dumps_all_bytes() {
    let pool = pool_with(&superblock());
    let output = run(&["disk1/superblock", "--hex"], pool.path());
    assert!(stdout(&output).contains("4c 53 56 44 73 75 70 01"), "{}", stdout(&output));
}

#[test]
fn a_reader_that_goes_away_is_success() {
    let pool = pool_with(&vec![0x5a; 4 << 20]);
    // Bytes that do not repeat are not squeezed, so the dump is longer than any pipe.
    let bytes: Vec<u8> = (0..1_u32 << 20).flat_map(u32::to_le_bytes).collect();
    std::fs::write(pool.path().join("disk1/superblock"), bytes).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_objinspect"))
        .args(["disk1/superblock", "--hex"])
        .current_dir(pool.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).is_empty(), "{}", stderr(&output));
}
