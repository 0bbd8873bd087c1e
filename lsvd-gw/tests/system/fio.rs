//! fio with its NBD engine: verified load. Ten seconds each; the acceptance runs of a minute are
//! `LSVD_LONG=1`.

use std::process::Command;

use crate::gateway::{Gateway, IMAGE, Site};
use crate::tools;

fn seconds() -> u32 {
    if tools::is_long() { 60 } else { 10 }
}

/// Runs fio against the image; it fails at the first byte that is not what it wrote. Returns its report, or nothing if
/// there is no fio.
fn fio(site: &Site, gateway: &Gateway, words: &[&str]) -> Option<String> {
    let fio = tools::find("fio")?;
    let mut command = Command::new(fio);
    // It leaves a file about its state where it stands.
    command.current_dir(site.path(""));
    command.args(["--name=load", "--ioengine=nbd", "--verify=crc32c", "--verify_fatal=1"]);
    command.args(["--time_based", "--group_reporting", "--randrepeat=0"]);
    command.arg(format!("--runtime={}", seconds()));
    command.arg(format!("--uri={}", gateway.uri(IMAGE)));
    let text = tools::run(command.args(words));
    assert!(text.contains("err= 0"), "{text}");
    Some(text)
}

#[test]
fn random_writes_of_four_kib_verify() {
    let site = Site::new();
    let gateway = site.new_image("1g");
    let words = ["--rw=randwrite", "--bs=4k", "--iodepth=32", "--size=1g", "--verify_backlog=4096"];
    if fio(&site, &gateway, &words).is_some() {
        gateway.stop();
    }
}

/// fio verifies sizes that are multiples of each other only; `mixed` covers the others, with trims
/// in between.
#[test]
fn mixed_sizes_on_an_image_of_512_byte_sectors_verify() {
    let site = Site::new();
    let gateway = site.new_images(1, "512m", "512");
    let words = [
        "--rw=randwrite",
        "--bssplit=512/20:4k/40:64k/20:256k/10:1m/10",
        "--iodepth=16",
        "--serialize_overlap=1",
        "--size=512m",
        "--verify_backlog=512",
        "--fsync=64",
    ];
    if fio(&site, &gateway, &words).is_some() {
        gateway.stop();
    }
}

#[test]
fn trims_before_writes_verify() {
    let site = Site::new();
    let gateway = site.new_image("256m");
    let words = [
        "--rw=randtrimwrite",
        "--bs=16k",
        "--iodepth=16",
        "--serialize_overlap=1",
        "--size=256m",
        "--verify_backlog=512",
    ];
    if let Some(report) = fio(&site, &gateway, &words) {
        assert!(report.contains("trim: IOPS="), "it did trim: {report}");
        gateway.stop();
    }
}
