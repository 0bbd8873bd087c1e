//! The tools that people use with NBD: qemu-img, qemu-io, nbdcopy, nbdinfo.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use crate::gateway::{IMAGE, Site};
use crate::tools::{self, noise};

const MIB: u64 = 1 << 20;

/// A file with an ext4 file system that holds a few hundred files.
fn ext4_image(site: &Site, bytes: u64) -> Option<std::path::PathBuf> {
    let mkfs = tools::find("mkfs.ext4")?;
    let tree = site.path("tree");
    for file in 0..300 {
        let dir = tree.join(format!("dir-{}", file % 17));
        std::fs::create_dir_all(&dir).expect("the directory is writable");
        let contents = noise(file, 100 + file as usize * 331);
        std::fs::write(dir.join(format!("file-{file}")), contents).expect("it is new");
    }
    let image = site.path("ext4.img");
    let file = File::create(&image).expect("it is new");
    file.set_len(bytes).expect("a sparse file");
    tools::run(Command::new(mkfs).args(["-q", "-F", "-d"]).arg(&tree).arg(&image));
    Some(image)
}

fn assert_same(a: &Path, b: &Path) {
    tools::run(Command::new("cmp").args([a, b]));
}

#[test]
fn qemu_img_copies_a_file_system_in_and_out() {
    let Some(qemu_img) = tools::find("qemu-img") else { return };
    let site = Site::new();
    let Some(ext4) = ext4_image(&site, 128 * MIB) else { return };
    let gateway = site.new_image("128m");
    let uri = gateway.uri(IMAGE);
    let convert = |words: &[&str]| {
        let raw = ["convert", "-f", "raw", "-O", "raw"];
        tools::run(Command::new(&qemu_img).args(raw).args(words));
    };
    let (from, back) = (ext4.display().to_string(), site.path("back.img"));
    convert(&["-n", &from, &uri]);
    convert(&[&uri, &back.display().to_string()]);
    assert_same(&ext4, &back);
    let compare = ["compare", "-f", "raw", "-F", "raw", &from, &uri];
    let text = tools::run(Command::new(&qemu_img).args(compare));
    assert!(text.contains("Images are identical"), "{text}");
    gateway.stop();

    // And again from the store, after a restart.
    let gateway = site.mount();
    let again = site.path("again.img");
    convert(&[&gateway.uri(IMAGE), &again.display().to_string()]);
    assert_same(&ext4, &again);
    if let Some(fsck) = tools::find("e2fsck") {
        tools::run(Command::new(fsck).args(["-f", "-n"]).arg(&again));
    }
    gateway.stop();
}

#[test]
fn nbdcopy_copies_in_and_out() {
    let Some(nbdcopy) = tools::find("nbdcopy") else { return };
    let site = Site::new();
    let (source, back) = (site.path("source"), site.path("back"));
    let mut bytes = noise(5, 48 << 20);
    // Holes at both ends and in between.
    for hole in [0..8, 20..21, 40..48] {
        bytes[hole.start << 20..hole.end << 20].fill(0);
    }
    std::fs::write(&source, &bytes).unwrap();
    let gateway = site.new_image("48m");
    let uri = gateway.uri(IMAGE);
    tools::run(Command::new(&nbdcopy).arg("--flush").arg(&source).arg(&uri));
    tools::run(Command::new(&nbdcopy).arg(&uri).arg(&back));
    assert_same(&source, &back);
    gateway.stop();
}

#[test]
fn nbdinfo_shows_size_abilities_and_holes() {
    let Some(nbdinfo) = tools::find("nbdinfo") else { return };
    let site = Site::new();
    let gateway = site.new_image("64m");
    let uri = gateway.uri(IMAGE);
    let text = tools::run(Command::new(&nbdinfo).args(["--json", &uri]));
    let info: serde_json::Value = serde_json::from_str(&text).unwrap();
    let export = &info["exports"][0];
    assert_eq!(export["export-size"], 64 * MIB, "{text}");
    assert_eq!(export["block_size_minimum"], 4096, "{text}");
    for can in ["can_flush", "can_fua", "can_trim", "can_zero", "can_multi_conn", "can_fast_zero"] {
        assert_eq!(export[can], true, "{can} in {text}");
    }
    assert_eq!(export["is_read_only"], false, "{text}");

    let mut client = gateway.client();
    client.write(0, &noise(1, 4 << 20), false).unwrap();
    client.trim(MIB, 1 << 20).unwrap();
    client.write_zeroes(3 * MIB, 1 << 20).unwrap();
    let map = || {
        let text = tools::run(Command::new(&nbdinfo).args(["--map", "--json", &uri]));
        let map: serde_json::Value = serde_json::from_str(&text).unwrap();
        let entry = |entry: &serde_json::Value| {
            let at = |key: &str| entry[key].as_u64().unwrap();
            (at("offset") / MIB, at("length") / MIB, at("type"))
        };
        let entries = map.as_array().unwrap().iter().map(entry);
        // Neighbours of one type may come in several answers.
        let mut merged: Vec<(u64, u64, u64)> = Vec::new();
        for (offset, length, kind) in entries {
            match merged.last_mut() {
                Some(last) if last.2 == kind => last.1 += length,
                _ => merged.push((offset, length, kind)),
            }
        }
        merged
    };
    let expected = [(0, 1, 0), (1, 1, 3), (2, 1, 0), (3, 61, 3)];
    assert_eq!(map(), expected, "before it is in the store");
    gateway.stop();
    let gateway = site.mount();
    assert_eq!(map(), expected, "and from a checkpoint");
    gateway.stop();
}

#[test]
fn qemu_io_writes_zeroes_discards_and_reads() {
    let Some(qemu_io) = tools::find("qemu-io") else { return };
    let site = Site::new();
    let gateway = site.new_images(1, "64m", "512");
    let io = |uri: &str, commands: &[&str]| {
        let mut command = Command::new(&qemu_io);
        command.args(["-f", "raw"]);
        for each in commands {
            command.args(["-c", each]);
        }
        let text = tools::run(command.arg(uri));
        assert!(!text.contains("failed"), "{text}");
    };
    let uri = gateway.uri(IMAGE);
    io(&uri, &["write -P 17 0 1M", "write -f -P 18 512 512", "write -P 19 5M 3584", "flush"]);
    io(
        &uri,
        &[
            "write -z 64k 64k",
            "discard 256k 128k",
            "write -z -u 512k 4k",
            "writev -P 20 9M 512 512",
        ],
    );
    let checks = [
        "read -P 17 0 512",
        "read -P 18 512 512",
        "read -P 17 1k 63k",
        "read -P 0 64k 64k",
        "read -P 17 128k 128k",
        "read -P 0 256k 128k",
        "read -P 17 384k 128k",
        "read -P 0 512k 4k",
        "read -P 19 5M 3584",
        "read -P 0 5246464 512",
        "read -P 20 9M 1k",
    ];
    io(&uri, &checks);
    gateway.kill();
    let gateway = site.mount();
    io(&gateway.uri(IMAGE), &checks);
    gateway.stop();
    let gateway = site.mount();
    io(&gateway.uri(IMAGE), &checks);
    let text = tools::run_refused(Command::new(&qemu_io).args([
        "-f",
        "raw",
        "-c",
        "read -P 1 0 512",
        &gateway.uri(IMAGE),
    ]));
    assert!(text.contains("Pattern verification failed"), "the checks can fail: {text}");
    gateway.stop();
}
