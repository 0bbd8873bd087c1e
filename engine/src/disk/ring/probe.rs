//! Whether and how this process may use io_uring.

use std::fmt;
use std::io;
use std::sync::OnceLock;

use io_uring::{IoUring, Probe, opcode};

/// How a ring tells that completions are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingMode {
    /// The kernel waits for our next system call instead of interrupting us (Linux 5.19).
    Cooperative,
    /// As io_uring always was.
    Plain,
}

impl fmt::Display for RingMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cooperative => "io_uring (cooperative)",
            Self::Plain => "io_uring (plain)",
        })
    }
}

/// Why this process has no io_uring: too old a kernel, a sysctl, a seccomp filter of a container.
#[derive(Debug, thiserror::Error)]
#[error("no io_uring: {step} failed")]
pub struct RingRefused {
    step: &'static str,
    pub(super) source: io::Error,
}

/// Whether this process may use io_uring, and how. Asked of the kernel once; the answer stays.
pub fn support() -> Result<RingMode, &'static RingRefused> {
    static SUPPORT: OnceLock<Result<RingMode, RingRefused>> = OnceLock::new();
    SUPPORT.get_or_init(probe).as_ref().copied()
}

fn probe() -> Result<RingMode, RingRefused> {
    let refused = |step| move |source| RingRefused { step, source };
    let (mode, uring) = match build(RingMode::Cooperative, 1) {
        Ok(uring) => (RingMode::Cooperative, uring),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            let uring = build(RingMode::Plain, 1).map_err(refused("io_uring_setup"))?;
            (RingMode::Plain, uring)
        }
        Err(error) => return Err(refused("io_uring_setup")(error)),
    };
    let mut known = Probe::new();
    uring.submitter().register_probe(&mut known).map_err(refused("io_uring_register"))?;
    let needed = [opcode::Write::CODE, opcode::Read::CODE, opcode::Fsync::CODE];
    if needed.iter().all(|&code| known.is_supported(code)) {
        Ok(mode)
    } else {
        Err(refused("probe for read, write and fsync")(io::ErrorKind::Unsupported.into()))
    }
}

/// Makes a ring; `InvalidInput` if the kernel does not know the mode.
pub(super) fn build(mode: RingMode, entries: u32) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.dontfork();
    if mode == RingMode::Cooperative {
        builder.setup_coop_taskrun().setup_taskrun_flag();
    }
    builder.build(entries)
}
