//! A gateway under test: started on directories of its own, watched, and always killed by its
//! process id.
//!
//! Invariants: 1. No gateway outlives its handle. 2. A log line of level WARN or ERROR that the
//! test did not name, and any panic, fails the test.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::client::Client;

/// The image that `new POOL 1` makes.
pub(crate) const IMAGE: &str = "auto_lsvddev_0";

/// Nothing that a gateway does in these tests takes so long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Directories for gateways, and the flags that they are started with.
pub(crate) struct Site {
    dir: TempDir,
    flags: BTreeMap<&'static str, String>,
    variable: Option<(&'static str, PathBuf)>,
    starts: RefCell<u32>,
}

impl Site {
    /// Small caches and logs, so that tests are quick and logs wrap.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("tests need a temporary directory");
        let small = [("--cache-ram", "32m"), ("--cache-nvm", "32m"), ("--log-size", "64m")];
        let flags = small.map(|(flag, value)| (flag, value.to_owned())).into();
        let site = Self { dir, flags, variable: None, starts: RefCell::new(0) };
        std::fs::create_dir(site.pool()).expect("the directory is new");
        site
    }

    /// The same with a flag changed.
    pub(crate) fn with(mut self, flag: &'static str, value: &str) -> Self {
        self.flags.insert(flag, value.to_owned());
        self
    }

    /// The same with a variable set.
    pub(crate) fn with_variable(mut self, name: &'static str, value: &Path) -> Self {
        self.variable = Some((name, value.to_owned()));
        self
    }

    /// The same with the gateway's own defaults for sizes.
    pub(crate) fn with_defaults(mut self) -> Self {
        self.flags.clear();
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn pool(&self) -> PathBuf {
        self.path("pool")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// The objects of an image in the pool.
    pub(crate) fn image_dir(&self) -> PathBuf {
        self.pool().join(IMAGE)
    }

    fn socket(&self) -> PathBuf {
        self.path("nbd.sock")
    }

    /// A gateway's command line; `words` may name another state directory or address.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lsvd-gw"));
        command.args(words).env("NO_COLOR", "1").env_remove("LSVD_LOG").env_remove("LSVD_CONFIG");
        command.env("LSVD_POOL_ROOT", self.path("root")).stdin(Stdio::null());
        command.env_remove("NOTIFY_SOCKET");
        command.envs(self.variable.iter().map(|(name, value)| (name, value)));
        if !words.contains(&"--state-dir") {
            command.arg("--state-dir").arg(self.state());
        }
        if !words.contains(&"--nbd") {
            command.arg("--nbd").arg(format!("unix:{}", self.socket().display()));
        }
        for front_end in ["--nvme", "--rpc-socket"] {
            // Their defaults are one for the whole machine.
            if !words.contains(&front_end) {
                command.args([front_end, "none"]);
            }
        }
        for (flag, value) in self.flags.iter().filter(|(flag, _)| !words.contains(flag)) {
            command.args([*flag, value]);
        }
        command
    }

    fn log_path(&self) -> PathBuf {
        let mut starts = self.starts.borrow_mut();
        *starts += 1;
        self.path(&format!("gateway-{starts}.log"))
    }

    /// Starts a gateway and waits until it is ready.
    pub(crate) fn start(&self, words: &[&str]) -> Gateway {
        let log_path = self.log_path();
        let log = File::create(&log_path).expect("the directory is writable");
        let begun = Instant::now();
        let mut child = self
            .command(words)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the gateway was built with its tests");
        let stdout = child.stdout.take().expect("it is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut gateway = Gateway {
            child,
            lines,
            log_path,
            socket: self.socket(),
            expected: Vec::new(),
            started_in: Duration::ZERO,
        };
        let ready = gateway.lines.recv_timeout(PATIENCE);
        assert_eq!(ready.as_deref(), Ok("ready"), "{}", gateway.log());
        gateway.started_in = begun.elapsed();
        gateway
    }

    /// Starts a gateway with one new image of this size.
    pub(crate) fn new_image(&self, size: &str) -> Gateway {
        self.new_images(1, size, "4096")
    }

    /// Starts a gateway with new images.
    pub(crate) fn new_images(&self, count: u32, size: &str, sector_size: &str) -> Gateway {
        let (pool, count) = (self.pool_text(), count.to_string());
        self.start(&["new", &pool, &count, "--size", size, "--sector-size", sector_size])
    }

    /// Starts a gateway with the image that an earlier one made.
    pub(crate) fn mount(&self) -> Gateway {
        self.start(&["mount", &self.pool_text(), IMAGE])
    }

    pub(crate) fn pool_text(&self) -> String {
        self.pool().display().to_string()
    }

    /// Runs a gateway that must not get ready. Returns its exit code and what it said.
    pub(crate) fn refused(&self, words: &[&str]) -> (i32, String) {
        let log_path = self.log_path();
        let log = File::create(&log_path).expect("the directory is writable");
        let mut child = self
            .command(words)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the gateway was built with its tests");
        let status = wait(&mut child);
        let text = read_log(&log_path);
        assert_no_panic(&text);
        let code = status.and_then(|status| status.code());
        (code.unwrap_or_else(|| panic!("it did not give up: {text}")), text)
    }
}

/// A running gateway.
pub(crate) struct Gateway {
    child: Child,
    lines: Receiver<String>,
    log_path: PathBuf,
    socket: PathBuf,
    expected: Vec<&'static str>,
    started_in: Duration,
}

impl Gateway {
    /// Time from its start to `ready`.
    pub(crate) fn started_in(&self) -> Duration {
        self.started_in
    }

    /// Troubles with this text in their line are part of the test.
    pub(crate) fn expect_trouble(&mut self, text: &'static str) {
        self.expected.push(text);
    }

    /// What it wrote to standard error so far.
    pub(crate) fn log(&self) -> String {
        read_log(&self.log_path)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Bytes of memory that it has in RAM.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("it is our child");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).expect("Linux says");
        kib.trim().parse::<u64>().expect("a number") << 10
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Where other programs find an export.
    pub(crate) fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.socket.display())
    }

    /// A connection to the image that [`Site::new_image`] made.
    pub(crate) fn client(&self) -> Client {
        self.client_of(IMAGE)
    }

    pub(crate) fn client_of(&self, export: &str) -> Client {
        Client::connect(&self.socket, export)
            .unwrap_or_else(|error| panic!("connect to {export}: {error:?}\n{}", self.log()))
    }

    /// For threads that only send signals.
    pub(crate) fn process(&self) -> Pid {
        let pid = i32::try_from(self.child.id()).expect("a process id is small");
        Pid::from_raw(pid).expect("a process id is not zero")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.process(), signal).expect("it is our child and was not waited for");
    }

    /// Kills it without a warning.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it is our child");
        let status = self.child.wait().expect("it is our child");
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{}", self.log());
    }

    /// Waits for it to end by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = wait(&mut self.child);
        status.unwrap_or_else(|| panic!("it hangs: {}", self.log()))
    }

    /// Asks it to stop and checks that it did so cleanly.
    pub(crate) fn stop(mut self) -> String {
        self.signal(Signal::TERM);
        let status = self.wait();
        let log = self.log();
        assert_eq!(status.code(), Some(0), "{log}");
        let more: Vec<String> = self.lines.iter().collect();
        assert_eq!(more, Vec::<String>::new(), "one line on standard output");
        log
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Killing a process that has ended is no error worth a word.
        drop(self.child.kill());
        drop(self.child.wait());
        let log = self.log();
        if std::thread::panicking() {
            eprintln!("--- log of the gateway ---\n{log}");
            return;
        }
        assert_no_panic(&log);
        let trouble = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
        let listed = |line: &&str| self.expected.iter().any(|text| line.contains(text));
        let unlisted: Vec<&str> =
            log.lines().filter(trouble).filter(|line| !listed(line)).collect();
        assert!(unlisted.is_empty(), "trouble that the test does not list: {unlisted:#?}");
    }
}

fn assert_no_panic(log: &str) {
    assert!(!log.contains("panicked at"), "{log}");
}

/// Also called while a panic unwinds, so it must not panic itself.
fn read_log(path: &Path) -> String {
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    text.unwrap_or_else(|error| format!("its log is gone: {error}"))
}

/// Waits for a child; none if it takes too long, and then it is killed.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().expect("it is our child") {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(child.kill());
    drop(child.wait());
    None
}
