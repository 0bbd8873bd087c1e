//! Small file systems for tests of full and read-only media. They need root; without it the test is
//! skipped aloud.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools;

/// A mount that ends with its handle.
#[derive(Debug)]
pub(crate) struct Mount {
    path: PathBuf,
}

impl Mount {
    /// A file system in memory, of this size, on a new directory.
    pub(crate) fn tmpfs(path: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(path).expect("the directory is writable");
        let options = format!("size={size},mode=700");
        Self::new(path, &["-t", "tmpfs", "-o", &options, "lsvd-test"])
    }

    /// Makes a directory read-only for everybody, root included.
    pub(crate) fn read_only(path: &Path) -> Option<Self> {
        let text = path.display().to_string();
        let mount = Self::new(path, &["--bind", &text])?;
        mount.remount("bind,ro");
        Some(mount)
    }

    fn new(path: &Path, words: &[&str]) -> Option<Self> {
        let output = Command::new("mount").args(words).arg(path).output();
        match output {
            Ok(output) if output.status.success() => Some(Self { path: path.to_owned() }),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                tools::skip(format!("cannot mount: {}", why.trim()));
                None
            }
            Err(error) => {
                tools::skip(format!("cannot mount: {error}"));
                None
            }
        }
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        tools::run(Command::new("mount").args(["-o", &options]).arg(&self.path));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a gateway that is being killed may still have files open.
        let ended = Command::new("umount").arg("--lazy").arg(&self.path).status();
        if !ended.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.path.display());
        }
    }
}
