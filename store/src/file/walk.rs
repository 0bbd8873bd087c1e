//! Lists a directory tree in the byte order of whole names.
//!
//! Does not: hold a snapshot. What vanishes during the walk is left out.

use std::fs::File;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, DirEntry, FileType, OFlags};

use super::directories::Directories;
use super::fault::Fault;
use crate::name;
use crate::page::Page;

struct Entry {
    /// Whole name, ending with `/` for a directory. Comparing these, and not the names in the
    /// directory, is what puts `a.b` before `a/x`.
    name: String,
    is_directory: bool,
}

/// Offers the page all objects below `start`, a directory with its final `/` or the root as "".
/// `false` once the page is full.
pub(super) fn walk(
    directories: &Directories,
    start: &str,
    page: &mut Page<'_>,
) -> Result<bool, Fault> {
    let mut entries = Vec::new();
    for entry in read(directories, start)? {
        let entry = entry?;
        let wanted = match entry.is_directory {
            true => page.wants_below(&entry.name),
            false => page.wants_object(&entry.name),
        };
        if wanted {
            entries.push(entry);
        }
    }
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    for Entry { name, is_directory } in entries {
        let go_on = if !is_directory {
            !page.wants_object(&name) || take(directories, &name, page)?
        } else if page.rolls_up(&name) {
            // Any object in there makes the one entry that this directory can add.
            match page.wants_below(&name).then(|| any_object(directories, &name)).transpose()? {
                Some(Some(object)) => take(directories, &object, page)?,
                _ => true,
            }
        } else {
            walk(directories, &name, page)?
        };
        if !go_on {
            return Ok(false);
        }
    }
    Ok(true)
}

fn take(directories: &Directories, name: &str, page: &mut Page<'_>) -> Result<bool, Fault> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match directories.open_file(name, flags).map_err(Fault::from) {
        Ok(file) => Ok(page.take(name, file.metadata()?.len())),
        Err(fault) if fault.is_missing() => Ok(true),
        Err(fault) => Err(fault),
    }
}

fn any_object(directories: &Directories, start: &str) -> Result<Option<String>, Fault> {
    let mut below = Vec::new();
    for entry in read(directories, start)? {
        let entry = entry?;
        if !entry.is_directory {
            return Ok(Some(entry.name));
        }
        below.push(entry.name);
    }
    for directory in below {
        if let Some(found) = any_object(directories, &directory)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The objects and directories right below `start`, as the file system orders them; nothing if it
/// is not there.
fn read(
    directories: &Directories,
    start: &str,
) -> Result<impl Iterator<Item = Result<Entry, Fault>>, Fault> {
    let found = match directories.open(Path::new(start)).map_err(Fault::from) {
        Err(fault) if fault.is_missing() => None,
        opened => {
            let directory = opened?;
            Some((Dir::read_from(&directory)?, directory))
        }
    };
    Ok(found.into_iter().flat_map(move |(entries, directory)| {
        entries.filter_map(move |entry| match entry {
            Ok(entry) => object_or_directory(&directory, start, &entry).map(Ok),
            Err(errno) => Some(Err(errno.into())),
        })
    }))
}

fn object_or_directory(directory: &File, start: &str, entry: &DirEntry) -> Option<Entry> {
    let leaf = entry.file_name().to_str().ok()?;
    let name = format!("{start}{leaf}");
    // What is no object's name was not put here by a store: not ours to report.
    name::check(&name).ok()?;
    match kind(directory, leaf, entry.file_type()) {
        FileType::RegularFile => Some(Entry { name, is_directory: false }),
        FileType::Directory => Some(Entry { name: name + "/", is_directory: true }),
        _ => None,
    }
}

/// Some file systems leave the type out of their directories.
fn kind(directory: &File, leaf: &str, listed: FileType) -> FileType {
    if listed != FileType::Unknown {
        return listed;
    }
    rustix::fs::statat(directory, leaf, AtFlags::SYMLINK_NOFOLLOW)
        .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode))
}
