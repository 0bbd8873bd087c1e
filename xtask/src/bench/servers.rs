//! The servers that are compared, each with its own data on the same disk and a unix socket.
//!
//! Concurrency: all run all the time, one is under load; whoever measures waits until the one before is quiet.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::command::{program, target_dir};

/// A server takes no longer to start, or to become quiet.
const PATIENCE: Duration = Duration::from_secs(60);

/// Nothing read or written for so long: whatever a server does behind its answers is done.
const QUIET: Duration = Duration::from_millis(1700);

/// What to compare, ours first.
pub(crate) const KINDS: [Kind; 3] = [Kind::Lsvd, Kind::QemuNbd, Kind::Nbdkit];

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Our gateway, on the embedded store.
    Lsvd,
    /// `qemu-nbd`, on a preallocated file, past the page cache.
    QemuNbd,
    /// `nbdkit file`, on a preallocated file, through the page cache.
    Nbdkit,
}

impl Kind {
    /// A heading.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lsvd => "lsvd-gw",
            Self::QemuNbd => "qemu-nbd",
            Self::Nbdkit => "nbdkit file",
        }
    }

    /// What an answer means.
    pub(crate) fn policy(self) -> &'static str {
        match self {
            Self::Lsvd => {
                "defaults; a write is answered when the log on the SSD has it (O_DIRECT), a flush \
                 after fdatasync of the log"
            }
            Self::QemuNbd => {
                "--cache=none --aio=native; a write is answered when the file has it (O_DIRECT), a \
                 flush after fdatasync"
            }
            Self::Nbdkit => {
                "a write is answered when the page cache has it, a flush after fdatasync"
            }
        }
    }
}

/// A running server, killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    uri: String,
}

impl Server {
    /// Starts a server in `dir` with `mib` MiB.
    pub(crate) fn start(kind: Kind, dir: &Path, mib: u32) -> anyhow::Result<Self> {
        let word = |name: &str| dir.join(name).display().to_string();
        let socket = dir.join(format!("{kind:?}.sock"));
        let (mut command, export) = match kind {
            Kind::Lsvd => {
                let mut command = program(target_dir().join("release/lsvd-gw"));
                command.args(["new", &word("pool"), "1", "--size", &format!("{mib}m")]);
                command.args(["--state-dir", &word("state"), "--log", "warn"]);
                command.args(["--nbd", &format!("unix:{}", socket.display())]);
                command.args(["--nvme", "none", "--rpc-socket", "none"]);
                (command, "auto_lsvddev_0")
            }
            Kind::QemuNbd => {
                let file = write_file(&dir.join("qemu.raw"), mib)?;
                let mut command = program("qemu-nbd");
                command.args(["--persistent", "--format=raw", "--cache=none", "--aio=native"]);
                command.args(["--shared=4", "--discard=unmap", "--export-name=disk", "--socket"]);
                command.arg(&socket).arg(file);
                (command, "disk")
            }
            Kind::Nbdkit => {
                let file = write_file(&dir.join("nbdkit.raw"), mib)?;
                let mut command = program("nbdkit");
                command.args(["--foreground", "--unix"]).arg(&socket).arg("file").arg(file);
                (command, "")
            }
        };
        // A probe that hangs up is worth a word to them, and none to us.
        let log_path = dir.join(format!("{kind:?}.log"));
        let log = File::create(&log_path).context("make a log")?;
        let child = command.stdout(Stdio::null()).stderr(log).spawn();
        let child = child.with_context(|| format!("start {}", kind.name()))?;
        let uri = format!("nbd+unix:///{export}?socket={}", socket.display());
        let mut server = Self { child, uri };
        server.wait_for(&socket).with_context(|| {
            let log = std::fs::read_to_string(&log_path).unwrap_or_default();
            format!("start {}: {}", kind.name(), log.trim())
        })?;
        Ok(server)
    }

    /// Where clients find it.
    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    fn wait_for(&mut self, socket: &PathBuf) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while std::os::unix::net::UnixStream::connect(socket).is_err() {
            let ended = self.child.try_wait().context("watch it")?;
            ensure!(ended.is_none(), "it ended at once");
            ensure!(Instant::now() < deadline, "{} does not answer", socket.display());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until the server does nothing any more, and the disk neither.
    pub(crate) fn settle(&self) -> anyhow::Result<()> {
        settle(&self.child)
    }
}

/// Waits until a process reads and writes nothing any more, and the disk neither.
pub(crate) fn settle(process: &Child) -> anyhow::Result<()> {
    let path = format!("/proc/{}/io", process.id());
    let deadline = Instant::now() + PATIENCE;
    let mut before = String::new();
    while Instant::now() < deadline {
        let now = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        if now == before {
            break;
        }
        before = now;
        std::thread::sleep(QUIET);
    }
    // Dirty pages of a server that answers from the page cache must not burden the next one.
    rustix::fs::sync();
    Ok(())
}

impl Drop for Server {
    fn drop(&mut self) {
        // A server that has ended already is no error worth a word.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A file with every byte written: first writes to reserved space would burden the others with allocations.
pub(crate) fn write_file(path: &Path, mib: u32) -> anyhow::Result<PathBuf> {
    let context = || format!("write {}", path.display());
    let mut file = File::create(path).with_context(context)?;
    let piece = vec![0x5a; 1 << 20];
    for _ in 0..mib {
        file.write_all(&piece).with_context(context)?;
    }
    file.sync_all().with_context(context)?;
    Ok(path.to_owned())
}
