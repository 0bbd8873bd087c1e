//! The program as people and programs meet it, on a pool with images made by the engine.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use lsvd_common::ids::{Epoch, LogId, ObjectSeq, Uuid, WriteSeq};
use lsvd_common::name::ImageName;
use lsvd_common::object::data::{DataHeader, plain_frames};
use lsvd_common::object::prefix::{ObjectId, ObjectKind};
use lsvd_common::object::superblock::{Child, Owner, Superblock};
use lsvd_common::units::{Sector, SectorRange, Sectors};
use lsvd_engine::image;
use lsvd_store::{FileStore, ObjectStore};

struct Scratch {
    directory: tempfile::TempDir,
}

impl Scratch {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("pool")).unwrap();
        Self { directory }
    }

    fn pool(&self) -> PathBuf {
        self.directory.path().join("pool")
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imgtool"));
        let home = self.directory.path();
        command.args(line.split_whitespace()).current_dir(home).env_clear().env("HOME", home);
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    fn with_image(name: &str) -> Self {
        let scratch = Self::new();
        let output = scratch.run(&format!("create ./pool {name} --size 1g"));
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        scratch
    }

    fn superblock(&self, name: &str) -> Superblock {
        Superblock::decode(&std::fs::read(self.superblock_path(name)).unwrap()).unwrap()
    }

    fn superblock_path(&self, name: &str) -> PathBuf {
        self.pool().join(name).join("superblock")
    }

    fn change_superblock(&self, name: &str, change: impl FnOnce(&mut Superblock)) {
        let mut superblock = self.superblock(name);
        change(&mut superblock);
        std::fs::write(self.superblock_path(name), superblock.encode().unwrap()).unwrap();
    }

    fn open(&self, name: &str) {
        self.change_superblock(name, |superblock| {
            superblock.epoch = Epoch(3);
            superblock.owner = Some(Owner {
                log: LogId(Uuid::from_u128(7)),
                claimed_ms: 1_700_000_000_000,
                pid: 4711,
                host: "gw1".into(),
                place: "/var/lib/lsvd/log".into(),
            });
        });
    }

    /// Puts a data object of one page as number `seq`.
    fn put_object(&self, name: &str, seq: u64) -> PathBuf {
        let payload = [0x5a; 4096];
        let header = DataHeader {
            id: ObjectId {
                image: self.superblock(name).image,
                epoch: Epoch(1),
                seq: ObjectSeq(seq),
                created_ms: 0,
            },
            kind: ObjectKind::Data,
            first_write: WriteSeq(1),
            last_write: WriteSeq(1),
            extents: vec![SectorRange::new(Sector(8), Sectors(8))],
            discards: Vec::new(),
            sources: Vec::new(),
            frames: plain_frames(&payload),
            salt: [0; 16],
        };
        let mut bytes = vec![0; header.header_len()];
        header.encode_into(&mut bytes);
        bytes.extend_from_slice(&payload);
        let path = self.pool().join(name).join(format!("{seq:016x}"));
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The exit code, and the last line of stderr, which every line of must be the program's.
fn refusal(output: &Output) -> (Option<i32>, String) {
    let lines: Vec<&str> = stderr(output).lines().collect();
    assert!(lines.iter().all(|line| line.starts_with("imgtool: ")), "{lines:?}");
    assert!(stdout(output).is_empty(), "{}", stdout(output));
    (output.status.code(), lines.last().copied().unwrap_or_default().to_owned())
}

#[test]
fn an_image_is_made_listed_shown_and_deleted() {
    let scratch = Scratch::with_image("disk1");
    let list = scratch.run("list ./pool");
    let row = stdout(&list).lines().find(|line| line.contains("disk1")).unwrap();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells, ["disk1", "1", "GiB", "1073741824", "new"]);
    let info = scratch.run("info ./pool disk1");
    assert!(stdout(&info).contains("1 GiB (1073741824 bytes)"), "{}", stdout(&info));
    assert!(stdout(&info).contains("new, never opened"), "{}", stdout(&info));
    let deleted = scratch.run("delete ./pool disk1 --yes");
    assert_eq!(deleted.status.code(), Some(0), "{}", stderr(&deleted));
    assert!(stdout(&deleted).starts_with("deleted image disk1 of 1 GiB: 1 object"));
    assert!(!scratch.superblock_path("disk1").exists());
    assert_eq!(scratch.run("info ./pool disk1").status.code(), Some(1));
}

#[test]
fn a_closed_image_grows_and_an_open_one_says_who_has_it_and_what_to_do() {
    let scratch = Scratch::with_image("disk1");
    let grown = scratch.run("resize ./pool disk1 --size 2g");
    assert_eq!(stdout(&grown), "image disk1 has 2 GiB (2147483648 bytes) now\n");
    let again = json(&scratch.run("resize ./pool disk1 --size 2g --json"));
    assert_eq!(
        (&again["image"], &again["size_bytes"]),
        (&"disk1".into(), &2_147_483_648_u64.into())
    );
    let (code, last) = refusal(&scratch.run("resize ./pool disk1 --size 1g"));
    assert_eq!(code, Some(2));
    assert!(last.contains("2147483648 bytes") && last.contains("shrinking is not"), "{last}");
    let (_, last) = refusal(&scratch.run("resize ./pool disk1 --size 16t"));
    assert!(last.contains("can grow to 8192 GiB"), "{last}");
    assert_eq!(refusal(&scratch.run("resize ./pool disk2 --size 2g")).0, Some(1));
    scratch.open("disk1");
    let (code, last) = refusal(&scratch.run("resize ./pool disk1 --size 3g"));
    assert_eq!(code, Some(1));
    let parts = ["in use by gw1 (process 4711, /var/lib/lsvd/log)", "bdev_lsvd_resize disk1 3072"];
    assert!(parts.iter().all(|part| last.contains(part)), "{last}");
    assert_eq!(scratch.superblock("disk1").size.checked_bytes(), Some(2 << 30));
}

#[test]
fn the_engine_opens_what_create_made() {
    let scratch = Scratch::new();
    json(&scratch.run("create ./pool disk1 --size 100g --sector-size 512 --json"));
    let store: Arc<dyn ObjectStore> = Arc::new(FileStore::open(scratch.pool(), false).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let name = ImageName::parse("disk1").unwrap();
    let superblock = runtime.block_on(image::superblock(&store, &name)).unwrap();
    assert_eq!(superblock.size.checked_bytes(), Some(107_374_182_400));
    assert_eq!(superblock.sector_size.bytes(), 512);
}

#[test]
fn the_flags_of_the_original_tool_work() {
    let scratch = Scratch::new();
    for line in [
        "-c create -p ./pool -i disk1 -s 1g",
        "--cmd create --pool ./pool --img disk2 --size 1g",
        "-c info -p ./pool -i disk1",
        "-c list -p ./pool",
    ] {
        assert_eq!(scratch.run(line).status.code(), Some(0), "{line}");
    }
    scratch.put_object("disk1", 0x14d);
    for line in
        ["-c objinfo -p ./pool -i disk1 -q 333 -x", "objinfo ./pool disk1 --seq 0x14d --hex"]
    {
        let output = scratch.run(line);
        assert_eq!(output.status.code(), Some(0), "{line}: {}", stderr(&output));
        assert!(stdout(&output).contains("5a 5a 5a 5a"), "{line}");
    }
    assert_eq!(scratch.run("-c delete -p ./pool -i disk1 --yes").status.code(), Some(0));
}

#[test]
fn pool_and_image_come_from_the_environment() {
    let scratch = Scratch::with_image("disk1");
    scratch.put_object("disk1", 333);
    let mut command = scratch.command("objinfo -q 333 --hex");
    let output = command.env("LSVD_POOL", "./pool").env("LSVD_IMAGE", "disk1").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("5a 5a 5a 5a"), "{}", stdout(&output));
    let mut command = scratch.command("info disk2");
    let output = command.env("LSVD_POOL", "./pool").env("LSVD_IMAGE", "disk1").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "the word beats the environment");
}

#[test]
fn talk_is_one_line_on_stderr_and_quiet_without_it() {
    let scratch = Scratch::with_image("disk1");
    let list = scratch.run("list ./pool");
    assert_eq!(stderr(&list).lines().count(), 1);
    assert!(stderr(&list).contains("embedded store in"), "{}", stderr(&list));
    assert!(stderr(&scratch.run("list ./pool --quiet")).is_empty());
}

#[test]
fn a_negative_answer_is_one_and_a_failure_two() {
    let scratch = Scratch::with_image("disk1");
    for (line, code, text) in [
        ("create ./pool disk1 --size 1g", 1, "there is an image disk1 already"),
        ("info ./pool disk2", 1, "there is no image disk2"),
        ("delete ./pool disk2 --yes", 1, "there is no image disk2"),
        ("objinfo ./pool disk1 -q 9", 1, "there is no object 9"),
        ("delete ./pool disk1", 2, "--yes"),
        ("list ./nowhere", 2, "no directory"),
        ("create ./pool disk2 --size 1k", 2, "1 MiB to 64 TiB"),
        ("create ./pool disk2 --size 1g --thick", 2, "always thin"),
        ("-c clone -p ./pool -i disk1 --dest disk2", 2, "not there yet"),
        ("info -p ./pool ./pool disk1", 2, "one word too many"),
        ("frobnicate", 2, "no command"),
        ("--no-such-flag", 2, "see imgtool --help"),
        ("", 2, "which command"),
    ] {
        let (found, last) = refusal(&scratch.run(line));
        assert_eq!(found, Some(code), "{line}: {last}");
        assert!(last.contains(text), "{line}: {last}");
    }
    assert!(scratch.superblock_path("disk1").exists());
    assert!(!scratch.pool().join("disk2").exists());
}

#[test]
fn a_bad_size_does_not_make_a_pool_and_a_good_one_says_that_it_did() {
    let scratch = Scratch::new();
    assert_eq!(scratch.run("create ./other disk1 --size 1x").status.code(), Some(2));
    assert!(!scratch.directory.path().join("other").exists());
    let created = scratch.run("create ./other disk1 --size 1g");
    assert_eq!(created.status.code(), Some(0));
    assert!(stderr(&created).contains("there was no such pool; made file://"));
}

#[test]
fn json_names_are_stable() {
    let scratch = Scratch::with_image("disk1");
    scratch.open("disk1");
    scratch.put_object("disk1", 1);
    scratch.put_object("disk1", 2);
    std::fs::write(scratch.pool().join("disk1/0000000000000003"), b"junk").unwrap();
    let info = json(&scratch.run("info ./pool disk1 --json"));
    assert_eq!(info["image"], "disk1");
    assert_eq!(info["size_bytes"], 1_073_741_824);
    assert_eq!(info["sector_bytes"], 4096);
    assert_eq!(info["state"], "open");
    assert_eq!((&info["owner"]["host"], &info["owner"]["pid"]), (&"gw1".into(), &4711.into()));
    assert_eq!(info["owner"]["claimed"], "2023-11-14 22:13:20 UTC");
    assert_eq!(info["objects"]["data"]["count"], 2);
    assert_eq!(info["objects"]["data"]["bytes"], 2 * 8192);
    assert_eq!(info["objects"]["damaged"]["bytes"], 4);
    assert_eq!(info["objects"]["all"]["count"], 4);
    let list = json(&scratch.run("list ./pool --json"));
    assert_eq!(list["images"][0]["image"], "disk1");
    assert_eq!(list["images"].as_array().unwrap().len(), 1);
    let object = json(&scratch.run("objinfo ./pool disk1 -q 1 --json"));
    assert_eq!((&object["format"], &object["whole"]), (&"data".into(), &true.into()));
}

#[test]
fn an_open_image_is_deleted_by_force_only() {
    let scratch = Scratch::with_image("disk1");
    scratch.open("disk1");
    scratch.put_object("disk1", 1);
    let (code, last) = refusal(&scratch.run("delete ./pool disk1 --yes"));
    assert_eq!(code, Some(1));
    assert!(last.contains("in use by gw1, process 4711, since 2023-11-14 22:13:20 UTC"), "{last}");
    let deleted = json(&scratch.run("delete ./pool disk1 --yes --force --json"));
    assert_eq!(deleted["deleted_objects"], 2);
    assert_eq!(stdout(&scratch.run("list ./pool")).lines().count(), 1);
}

#[test]
fn the_base_of_a_clone_is_not_deleted_even_by_force() {
    let scratch = Scratch::with_image("disk1");
    scratch.change_superblock("disk1", |superblock| {
        let child = Child { image: superblock.image, name: "disk2".into() };
        superblock.children.push(child);
    });
    let (code, last) = refusal(&scratch.run("delete ./pool disk1 --yes --force"));
    assert_eq!(code, Some(1));
    assert!(last.contains("base of disk2"), "{last}");
}

#[test]
fn an_interrupted_deletion_is_finished_by_another() {
    let scratch = Scratch::with_image("disk1");
    scratch.put_object("disk1", 1);
    scratch.put_object("disk1", 2);
    std::fs::remove_file(scratch.superblock_path("disk1")).unwrap();
    let output = scratch.run("delete ./pool disk1 --yes");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).starts_with("deleted what is left of image disk1: 2 objects"));
}

#[test]
fn a_damaged_superblock_is_named_listed_and_deletable_by_force() {
    let scratch = Scratch::with_image("disk1");
    let mut bytes = std::fs::read(scratch.superblock_path("disk1")).unwrap();
    bytes[40] ^= 1;
    std::fs::write(scratch.superblock_path("disk1"), bytes).unwrap();
    let (code, last) = refusal(&scratch.run("info ./pool disk1"));
    assert_eq!(code, Some(2));
    assert!(last.contains("checksum mismatch") && last.contains("objinspect"), "{last}");
    let list = scratch.run("list ./pool");
    assert_eq!(list.status.code(), Some(0));
    assert!(stdout(&list).contains("damaged"), "{}", stdout(&list));
    assert_eq!(json(&scratch.run("list ./pool --json"))["images"][0]["state"], "damaged");
    let (code, last) = refusal(&scratch.run("delete ./pool disk1 --yes"));
    assert_eq!(code, Some(2));
    assert!(last.contains("--force"), "{last}");
    assert_eq!(scratch.run("delete ./pool disk1 --yes --force").status.code(), Some(0));
}

#[test]
fn a_damaged_or_misplaced_object_is_answer_one() {
    let scratch = Scratch::with_image("disk1");
    let path = scratch.put_object("disk1", 1);
    let mut bytes = std::fs::read(&path).unwrap();
    std::fs::write(scratch.pool().join("disk1/0000000000000002"), &bytes).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let damaged = scratch.run("objinfo ./pool disk1 -q 1");
    assert_eq!(damaged.status.code(), Some(1));
    assert!(stdout(&damaged).contains("BAD frame 0 at 4096"), "{}", stdout(&damaged));
    let misplaced = scratch.run("objinfo ./pool disk1 -q 2");
    assert_eq!(misplaced.status.code(), Some(1));
    assert!(stdout(&misplaced).contains("the name says 2, the object 1"));
}

#[test]
fn a_reader_that_goes_away_is_success() {
    let scratch = Scratch::with_image("disk1");
    for line in ["list ./pool --quiet", "info ./pool disk1 --json --quiet", "--help"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = scratch.command(line);
        let child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{line}: {}", stderr(&output));
        assert!(stderr(&output).is_empty(), "{line}: {}", stderr(&output));
    }
}

#[test]
fn a_pool_may_be_a_bare_word_below_its_root() {
    let scratch = Scratch::new();
    let root = scratch.directory.path().join("root");
    let run = |line: &str| scratch.command(line).env("LSVD_POOL_ROOT", &root).output().unwrap();
    assert_eq!(run("create demo disk1 --size 1g").status.code(), Some(0));
    assert!(Path::new(&root).join("demo/disk1/superblock").exists());
    assert!(stderr(&run("list demo")).contains("LSVD_POOL_ROOT"));
}
