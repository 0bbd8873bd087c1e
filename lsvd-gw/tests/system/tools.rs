//! Programs that tests use, and what happens when one is missing: the test says SKIPPED and why,
//! and does not fail.

use std::fmt::Display;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Says that the current test does not test what it is for. `cargo xtask` collects these lines.
pub(crate) fn skip(why: impl Display) {
    let thread = std::thread::current();
    let line = format!("SKIPPED {}: {why}\n", thread.name().unwrap_or("a test"));
    eprint!("{line}");
    if let Some(path) = std::env::var_os("LSVD_SKIPPED") {
        let file = std::fs::File::options().append(true).create(true).open(path);
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        written.expect("the list of skipped tests is writable");
    }
}

/// A program on the search path; none, said aloud, if there is none.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = places.map(|dir| dir.join(program)).find(|path| path.is_file());
    if found.is_none() {
        skip(format!("{program} is not installed"));
    }
    found
}

/// A program of this workspace that was built next to the gateway.
pub(crate) fn ours(program: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_BIN_EXE_lsvd-gw")).with_file_name(program);
    if !path.is_file() {
        skip(format!("{program} is not built; `cargo xtask test` builds it"));
        return None;
    }
    Some(path)
}

/// True for tests that should last as long as the acceptance runs.
pub(crate) fn is_long() -> bool {
    std::env::var_os("LSVD_LONG").is_some_and(|value| value != "0")
}

/// Runs a command that must succeed. Returns what it printed.
pub(crate) fn run(command: &mut Command) -> String {
    let output = output(command);
    let text = text_of(&output);
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

/// Runs a command that must fail. Returns what it printed.
pub(crate) fn run_refused(command: &mut Command) -> String {
    let output = output(command);
    let text = text_of(&output);
    assert!(!output.status.success(), "{command:?} went well\n{text}");
    text
}

fn output(command: &mut Command) -> Output {
    let output = command.stdin(std::process::Stdio::null()).output();
    output.unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn text_of(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

/// An address that nobody listens on. Free a moment ago; another program may take it, but hardly in
/// this moment.
pub(crate) fn free_address() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("it is bound")
}

/// `len` bytes that no other seed gives.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}
