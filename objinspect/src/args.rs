//! The command line: as typed, and as understood.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Parser, ValueEnum};
use lsvd_cli::CephFlags;
use objinspect::Format;

/// Print what is inside an object, a superblock, a write log or a cache file, and verify every
/// checksum.
///
/// Works on damaged input, says where and why it stopped, and never writes.
#[derive(Debug, Parser)]
#[command(
    name = "objinspect",
    version,
    override_usage = "objinspect FILE\n       objinspect POOL OBJECT"
)]
#[command(
    after_help = "Exit codes: 0 nothing wrong found, 1 damaged or unknown, 2 not looked at.\n\n\
    Examples:\n  objinspect /var/lib/lsvd/log/0a1b.log\n  objinspect rbd disk1/000000000000001f --hex\n  \
    objinspect ./pool disk1/superblock --json"
)]
pub(crate) struct LowArgs {
    /// A file (an object, a write log, a cache file), or a pool and the name of an object in it
    #[arg(value_name = "FILE | POOL OBJECT", required = true, num_args = 1..=2)]
    words: Vec<String>,

    /// Print one JSON document
    #[arg(long, conflicts_with = "hex")]
    json: bool,

    /// Dump all bytes in hexadecimal behind the fields
    #[arg(short = 'x', long)]
    hex: bool,

    /// Print every row of every table, and what tables refer to; prove every claim of a cache
    #[arg(long)]
    all: bool,

    /// Take the bytes for this, whatever their magic says
    #[arg(long = "as", value_name = "FORMAT")]
    format: Option<FormatName>,

    /// Do not say which pool was taken
    #[arg(long)]
    quiet: bool,

    #[command(flatten)]
    ceph: CephFlags,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatName {
    /// A numbered object
    Object,
    /// The superblock of an image
    Superblock,
    /// A write log
    Log,
    /// A read cache
    Cache,
}

/// Where the bytes are.
#[derive(Debug)]
pub(crate) enum Place {
    /// In a file.
    File(PathBuf),
    /// In a pool, under a name.
    Object { pool: String, name: String },
}

#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) place: Place,
    pub(crate) json: bool,
    pub(crate) hex: bool,
    pub(crate) all: bool,
    pub(crate) format: Option<Format>,
    pub(crate) quiet: bool,
    pub(crate) ceph: CephFlags,
}

impl LowArgs {
    pub(crate) fn resolve(self) -> anyhow::Result<Args> {
        let place = match <[String; 2]>::try_from(self.words) {
            Ok([pool, name]) => Place::Object { pool, name },
            Err(mut words) => match words.pop() {
                Some(file) => Place::File(PathBuf::from(file)),
                None => bail!("name a file, or a pool and an object"),
            },
        };
        let format = self.format.map(|name| match name {
            FormatName::Object => Format::Object,
            FormatName::Superblock => Format::Superblock,
            FormatName::Log => Format::Log,
            FormatName::Cache => Format::Cache,
        });
        let Self { json, hex, all, quiet, ceph, .. } = self;
        Ok(Args { place, json, hex, all, format, quiet, ceph })
    }
}
