//! What the tests need beyond the toolchain: clients and tools, installed where that is possible, else named.

use std::process::Command;

use crate::command::{cargo, program, run, succeeds};

/// A program, and the Debian package that has it.
const PROGRAMS: [(&str, &str); 10] = [
    ("fio", "fio"),
    ("qemu-img", "qemu-utils"),
    ("qemu-io", "qemu-utils"),
    ("qemu-nbd", "qemu-utils"),
    ("nbdinfo", "libnbd-bin"),
    ("nbdcopy", "libnbd-bin"),
    ("nbdkit", "nbdkit"),
    ("mkfs.ext4", "e2fsprogs"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("cpio", "cpio"),
];

/// A module of Python, and the Debian package that has it. With `ensurepip` comes pip, in the environment that a test
/// makes for SPDK's client; the client itself is installed by the test, from the package index.
const MODULES: [(&str, &str); 1] = [("ensurepip", "python3-venv")];

/// What is there.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) nextest: bool,
    pub(crate) deny: bool,
    missing: Vec<String>,
}

impl Prepared {
    /// Repeats at the end what was skipped at the start: nobody reads the start of a long log.
    pub(crate) fn say_what_is_missing(&self) {
        for missing in &self.missing {
            println!("SKIPPED: {missing}");
        }
    }
}

/// Looks, and installs nothing.
pub(crate) fn look() -> Prepared {
    Prepared { nextest: has_cargo("nextest"), deny: has_cargo("deny"), missing: Vec::new() }
}

/// Installs what is missing. That something cannot be installed is no failure: what needs it is skipped, aloud.
#[expect(clippy::unnecessary_wraps, reason = "a step like the others")]
pub(crate) fn install() -> anyhow::Result<Prepared> {
    let mut missing = Vec::new();
    install_packages(&mut missing);
    let mut tool = |name: &str, instead: &str| {
        let package = format!("cargo-{name}");
        let installed = has_cargo(name)
            || run(&mut cargo(["install", "--locked", "--quiet", &package])).is_ok();
        if !installed {
            missing.push(format!("{package} cannot be installed; {instead}"));
        }
        installed
    };
    let nextest = tool("nextest", "`cargo test` runs the tests, one crate after the other");
    let deny = tool("deny", "licences and sources are not checked");
    let prepared = Prepared { nextest, deny, missing };
    prepared.say_what_is_missing();
    Ok(prepared)
}

fn install_packages(missing: &mut Vec<String>) {
    let absent = || {
        let programs = PROGRAMS.into_iter().filter(|(program, _)| !is_installed(program));
        programs.chain(MODULES.into_iter().filter(|(module, _)| !has_module(module)))
    };
    let mut packages: Vec<&str> = absent().map(|(_, package)| package).collect();
    packages.dedup();
    if packages.is_empty() {
        return;
    }
    println!("missing: {}", packages.join(" "));
    if rustix::process::geteuid().is_root() && is_installed("apt-get") {
        let apt = |words: &[&str]| {
            let mut command = program("apt-get");
            command.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-y"]).args(words);
            run(&mut command)
        };
        let installed = apt(&["update"])
            .and_then(|()| apt(&[&["install", "--no-install-recommends"], &packages[..]].concat()));
        if let Err(error) = installed {
            println!("{error:#}");
        }
    }
    for (what, package) in absent() {
        missing.push(format!(
            "{what} is missing; as root, `apt-get install {package}` brings it. Its tests are \
             skipped"
        ));
    }
}

/// True if a program is on the search path, or where Debian puts those of the administrator.
fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    dirs.any(|dir| dir.join(program).is_file())
}

/// True if Python has a module.
fn has_module(module: &str) -> bool {
    succeeds(program("python3").args(["-c", &format!("import {module}")]))
}

fn has_cargo(tool: &str) -> bool {
    let mut command: Command = cargo([tool, "--version"]);
    succeeds(&mut command)
}
