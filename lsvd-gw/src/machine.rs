//! Defaults that fit the machine, and who we are on it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// RAM that the read cache gets at most unless told otherwise: a gateway is a guest on its machine.
const CACHE_RAM_MAX: u64 = 1 << 30;

/// `percent` of `whole`, within limits, in whole MiB.
pub(crate) fn share(whole: u64, percent: u64, min: u64, max: u64) -> u64 {
    (whole / 100 * percent).clamp(min, max) >> 20 << 20
}

/// An eighth of what the machine has, 64 MiB to 1 GiB.
pub(crate) fn default_cache_ram() -> u64 {
    let info = rustix::system::sysinfo();
    let ram = info.totalram as u64 * u64::from(info.mem_unit);
    share(ram, 12, 64 << 20, CACHE_RAM_MAX)
}

/// One for each CPU that we may use.
pub(crate) fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(16)
}

/// Where logs and cache go unless told otherwise.
pub(crate) fn default_state_dir() -> anyhow::Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/lsvd/state"));
    }
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local/state")));
    let state = state.context("neither XDG_STATE_HOME nor HOME is set; say --state-dir")?;
    Ok(state.join("lsvd"))
}

/// Free space where a directory is or will be; 0 if nobody knows.
pub(crate) fn free_bytes(dir: &Path) -> u64 {
    let existing = dir.ancestors().find(|ancestor| ancestor.is_dir());
    let existing = existing.unwrap_or_else(|| Path::new("."));
    rustix::fs::statvfs(existing).map_or(0, |free| free.f_bavail.saturating_mul(free.f_frsize))
}

/// The name of this host.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
