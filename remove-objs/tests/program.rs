//! The program as people and programs meet it.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use lsvd_common::ids::{Epoch, ImageId, LogId, ObjectSeq, Uuid};
use lsvd_common::object::superblock::{Features, Fence, Owner, SectorSize, Superblock};
use lsvd_common::units::Sectors;

struct Scratch {
    pool: tempfile::TempDir,
}

impl Scratch {
    /// Images of three objects each, and one object that is not ours.
    fn with(images: &[&str]) -> Self {
        let scratch = Self { pool: tempfile::tempdir().unwrap() };
        for image in images {
            scratch.put(&format!("{image}/superblock"), &superblock(None));
            scratch.put(&format!("{image}/0000000000000001"), &[1; 100]);
            scratch.put(&format!("{image}/0000000000000002"), &[2; 200]);
        }
        scratch.put("other/thing", b"x");
        scratch
    }

    fn put(&self, key: &str, bytes: &[u8]) {
        let path = self.path(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn path(&self, key: &str) -> PathBuf {
        self.pool.path().join(key)
    }

    fn has(&self, key: &str) -> bool {
        self.path(key).exists()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_remove-objs"));
        command.arg(self.pool.path()).args(arguments).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
}

fn superblock(owner: Option<Owner>) -> Vec<u8> {
    let superblock = Superblock {
        image: ImageId(Uuid::from_u128(0x1111)),
        sector_size: SectorSize::B4096,
        size: Sectors(1 << 21),
        features: Features::default(),
        epoch: Epoch(1),
        fence: Fence::default(),
        floor: ObjectSeq(1),
        created_ms: 0,
        region_shift: 17,
        owner,
        checkpoints: Vec::new(),
        snapshots: Vec::new(),
        lineage: Vec::new(),
        children: Vec::new(),
    };
    superblock.encode().unwrap()
}

fn owner() -> Owner {
    Owner {
        log: LogId(Uuid::from_u128(7)),
        claimed_ms: 1_700_000_000_000,
        pid: 4711,
        host: "gw1".into(),
        place: "/log".into(),
    }
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn a_prefix_names_every_image_that_it_takes() {
    let scratch = Scratch::with(&["disk1", "disk10", "disk2"]);
    let output = scratch.run(&["disk1", "--dry-run"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("disk10") && !stdout(&output).contains("disk2"));
    assert!(stderr(&output).contains("also takes disk10; --image disk1"), "{}", stderr(&output));
    assert!(scratch.has("disk1/superblock"), "a dry run deletes nothing");
    let output = scratch.run(&["disk1", "--yes"]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(0), "deleted 6 objects\n"));
    assert!(!scratch.has("disk10/superblock"));
    assert!(scratch.has("disk2/superblock") && scratch.has("other/thing"));
}

#[test]
fn one_image_is_taken_without_its_namesakes() {
    let scratch = Scratch::with(&["disk1", "disk10"]);
    let output = scratch.run(&["--image", "disk1", "--yes", "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&document["deleted"], &document["dry_run"]), (&3.into(), &false.into()));
    assert_eq!(document["images"].as_array().unwrap().len(), 1);
    let image = &document["images"][0];
    assert_eq!((&image["image"], &image["objects"]), (&"disk1".into(), &3.into()));
    assert_eq!((&image["superblock"], &image["state"]), (&true.into(), &"closed".into()));
    assert!(document["warnings"].as_array().unwrap().is_empty());
    assert!(!scratch.has("disk1/superblock") && scratch.has("disk10/superblock"));
}

#[test]
fn without_a_terminal_nothing_is_deleted_unasked() {
    let scratch = Scratch::with(&["disk1"]);
    let output = scratch.run(&["disk1"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--yes"), "{}", stderr(&output));
    assert!(stdout(&output).is_empty());
    assert!(scratch.has("disk1/superblock") && scratch.has("disk1/0000000000000001"));
}

#[test]
fn an_open_image_is_refused_even_if_the_prefix_spares_its_superblock() {
    let scratch = Scratch::with(&["disk1", "disk2"]);
    scratch.put("disk1/superblock", &superblock(Some(owner())));
    for prefix in ["disk", "disk1/", "disk1/0"] {
        let output = scratch.run(&[prefix, "--yes"]);
        assert_eq!(output.status.code(), Some(1), "{prefix}");
        let last = stderr(&output).lines().last().unwrap();
        assert!(last.contains("disk1 is in use by gw1 (process 4711"), "{last}");
        assert!(scratch.has("disk2/superblock") && scratch.has("disk1/0000000000000001"));
    }
    let output = scratch.run(&["disk", "--yes", "--force"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(!scratch.has("disk1/superblock"));
}

#[test]
fn an_image_whose_superblock_is_damaged_needs_force() {
    let scratch = Scratch::with(&["disk1"]);
    scratch.put("disk1/superblock", b"junk");
    let output = scratch.run(&["--image", "disk1", "--yes"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("superblock of image disk1 is damaged"));
    assert_eq!(scratch.run(&["--image", "disk1", "--yes", "--force"]).status.code(), Some(0));
}

#[test]
fn an_interrupted_run_can_be_repeated_until_nothing_matches() {
    let scratch = Scratch::with(&["disk1"]);
    // As after a run that got no further than the superblock.
    std::fs::remove_file(scratch.path("disk1/superblock")).unwrap();
    let output = scratch.run(&["--image", "disk1", "--yes"]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(0), "deleted 2 objects\n"));
    let output = scratch.run(&["--image", "disk1", "--yes"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no object in file://"), "{}", stderr(&output));
}

#[test]
fn objects_that_are_not_ours_are_pointed_out() {
    let scratch = Scratch::with(&[]);
    let output = scratch.run(&["other", "--yes"]);
    assert!(stderr(&output).contains("1 object that this software did not write"));
    assert_eq!(output.status.code(), Some(0));
    assert!(!scratch.has("other/thing"));
}

#[test]
fn a_reader_that_goes_away_does_not_stop_the_deletion() {
    let scratch = Scratch::with(&["disk1"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = scratch.command(&["--image", "disk1", "--yes"]);
    let output = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let output = output.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(!scratch.has("disk1/superblock") && !scratch.has("disk1/0000000000000002"));
}

#[test]
fn bad_usage_is_a_failure_on_one_line() {
    let scratch = Scratch::with(&["disk1"]);
    for arguments in [&[""][..], &[], &["a", "--image", "b"], &["--image", "a/b"], &["--sim", "x"]]
    {
        let output = scratch.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
        assert!(stderr(&output).starts_with("remove-objs: "));
    }
    assert!(scratch.has("disk1/superblock"));
}
