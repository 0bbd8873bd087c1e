//! The command line: as typed, in words or in the flags of the original tool, and as understood.

use clap::{Parser, ValueEnum};
use lsvd_cli::CephFlags;
use lsvd_cli::human::{self, parse_size};
use lsvd_common::ids::ObjectSeq;
use lsvd_common::limits::{IMAGE_SECTORS_MAX, IMAGE_SECTORS_MIN};
use lsvd_common::name::ImageName;
use lsvd_common::object::superblock::SectorSize;
use lsvd_common::units::SECTOR_BYTES;

const USAGE: &str = "imgtool COMMAND [POOL] [IMAGE] [OPTIONS]
       imgtool -c COMMAND -p POOL -i IMAGE [OPTIONS]";

const AFTER_HELP: &str = "Commands:
  create POOL IMAGE --size 100g [--sector-size 512|4096]
  list POOL
  info POOL IMAGE
  resize POOL IMAGE --size 200g
  delete POOL IMAGE [--force] [--yes]
  objinfo POOL IMAGE -q SEQ [--hex | --all]

A POOL is a directory (./pool), a name, or a URL (file:///pool). Words, flags and the environment
(LSVD_POOL, LSVD_IMAGE) may be mixed; what is given twice is an error.

Exit codes: 0 done, 1 the answer is no (no such image, image exists, in use, declined), 2 failed.";

/// Create, list, inspect, grow and delete images.
#[derive(Debug, Parser)]
#[command(name = "imgtool", version, override_usage = USAGE, after_help = AFTER_HELP)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag that somebody types")]
pub(crate) struct LowArgs {
    /// A command, a pool and an image, as far as they are not given by flags
    #[arg(value_name = "WORD", num_args = 0..=3)]
    words: Vec<String>,

    /// What to do
    #[arg(short = 'c', long = "cmd", value_name = "COMMAND", ignore_case = true)]
    command: Option<CommandName>,

    /// The pool
    #[arg(short, long, value_name = "POOL")]
    pool: Option<String>,

    /// The image
    #[arg(short, long = "img", visible_alias = "image", value_name = "IMAGE")]
    image: Option<String>,

    /// create, resize: its size, 1M to 64T; K, M, G and T are powers of two
    #[arg(short, long, value_name = "SIZE", allow_hyphen_values = true)]
    size: Option<String>,

    /// create: what clients see as a sector, in bytes [default: 4096]
    #[arg(long, value_name = "512|4096")]
    sector_size: Option<String>,

    /// create: refused, since an image is always thin
    #[arg(long)]
    thick: bool,

    /// clone: not there yet
    #[arg(long, value_name = "IMAGE")]
    dest: Option<String>,

    /// objinfo: the sequence of the object, decimal or 0x hexadecimal
    #[arg(short = 'q', long, value_name = "SEQ", allow_hyphen_values = true)]
    seq: Option<String>,

    /// objinfo: dump all bytes behind the fields
    #[arg(short = 'x', long)]
    hex: bool,

    /// objinfo: print every row of every table
    #[arg(long)]
    all: bool,

    /// delete: even if a gateway has it open
    #[arg(long)]
    force: bool,

    /// delete: without asking
    #[arg(short = 'y', long)]
    yes: bool,

    /// Print one JSON document
    #[arg(long, conflicts_with = "hex")]
    json: bool,

    /// Say nothing but warnings and errors
    #[arg(long)]
    quiet: bool,

    #[command(flatten)]
    ceph: CephFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CommandName {
    Create,
    List,
    Info,
    Resize,
    Delete,
    Objinfo,
    Clone,
}

/// What was asked for, checked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Args {
    pub(crate) command: Command,
    pub(crate) pool: String,
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    pub(crate) ceph: CephFlags,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Create { image: ImageName, size_bytes: u64, sector_size: SectorSize },
    List,
    Info { image: ImageName },
    Resize { image: ImageName, size_bytes: u64 },
    Delete { image: ImageName, force: bool, yes: bool },
    Objinfo { image: ImageName, seq: ObjectSeq, hex: bool, all: bool },
}

/// What the environment says where the command line does not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Defaults {
    /// `LSVD_POOL`.
    pub(crate) pool: Option<String>,
    /// `LSVD_IMAGE`.
    pub(crate) image: Option<String>,
}

impl Defaults {
    /// Of this process; an empty variable counts as unset.
    pub(crate) fn of_process() -> Self {
        let read = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self { pool: read("LSVD_POOL"), image: read("LSVD_IMAGE") }
    }
}

/// Why a command line was not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UsageError {
    #[error(
        "which command? one of create, list, info, resize, delete, objinfo; see imgtool --help"
    )]
    NoCommand,
    #[error("`{0}` is no command; one of create, list, info, resize, delete, objinfo")]
    UnknownCommand(String),
    #[error("which pool? name it behind the command, with -p, or in LSVD_POOL")]
    NoPool,
    #[error("which image? name it behind the pool, with -i, or in LSVD_IMAGE")]
    NoImage,
    #[error("`{word}` is one word too many: the {what} is given by a flag already")]
    Twice { word: String, what: &'static str },
    #[error("`{0}` is one word too many for this command")]
    TooMany(String),
    #[error("{flag} is for {of} only")]
    Stray { flag: &'static str, of: &'static str },
    #[error("image `{}`: {source}", name.escape_debug())]
    ImageName { name: String, source: lsvd_common::name::NameError },
    #[error("{0} needs a size, such as --size 100g")]
    NoSize(&'static str),
    #[error("size `{}`: {source}", text.escape_debug())]
    Size { text: String, source: human::SizeError },
    #[error("size `{}`: an image has 1 MiB to 64 TiB (1m to 64t)", .0.escape_debug())]
    SizeRange(String),
    #[error("size `{}`: it must be a multiple of the sector size, {sector} bytes", text.escape_debug())]
    SizeUnit { text: String, sector: u32 },
    #[error("sector size `{}`: 512 or 4096", .0.escape_debug())]
    SectorSize(String),
    #[error(
        "--thick: a log-structured image is always thin, space is taken when it is written; leave the flag out"
    )]
    Thick,
    #[error("clone is not there yet; create an empty image and copy the data through a gateway")]
    Clone,
    #[error("objinfo needs the sequence of an object, such as -q 333 or -q 0x14d")]
    NoSeq,
    #[error("sequence `{}`: a number from 1 on, decimal or 0x hexadecimal", .0.escape_debug())]
    Seq(String),
}

impl LowArgs {
    pub(crate) fn resolve(mut self, defaults: Defaults) -> Result<Args, UsageError> {
        let mut words = std::mem::take(&mut self.words);
        words.reverse();
        let name = match self.command {
            Some(name) => name,
            None => {
                let word = words.pop().ok_or(UsageError::NoCommand)?;
                CommandName::from_str(&word, true)
                    .map_err(|_| UsageError::UnknownCommand(word.escape_debug().to_string()))?
            }
        };
        if name == CommandName::Clone || self.dest.is_some() {
            return Err(UsageError::Clone);
        }
        self.check_strays(name)?;
        words.reverse();
        let wants_image = name != CommandName::List;
        let (pool, image) = self.places(words, wants_image, defaults)?;
        let command = self.command(name, image)?;
        Ok(Args { command, pool, json: self.json, quiet: self.quiet, ceph: self.ceph })
    }

    /// Flags that would be ignored are errors: whoever types `delete --size` means something else.
    fn check_strays(&self, name: CommandName) -> Result<(), UsageError> {
        use CommandName::{Create, Delete, Objinfo, Resize};
        if self.size.is_some() && !matches!(name, Create | Resize) {
            return Err(UsageError::Stray { flag: "--size", of: "create and resize" });
        }
        let given = [
            (self.sector_size.is_some(), "--sector-size", Create, "create"),
            (self.thick, "--thick", Create, "create"),
            (self.force, "--force", Delete, "delete"),
            (self.yes, "--yes", Delete, "delete"),
            (self.seq.is_some(), "--seq", Objinfo, "objinfo"),
            (self.hex, "--hex", Objinfo, "objinfo"),
            (self.all, "--all", Objinfo, "objinfo"),
        ];
        match given.iter().find(|(given, _, of, _)| *given && *of != name) {
            Some((_, flag, _, of)) => Err(UsageError::Stray { flag, of }),
            None => Ok(()),
        }
    }

    /// Pool and image, from words, flags and the environment. A word beats the environment; one
    /// word alone names what is not known yet, and the image if both or none are.
    fn places(
        &self,
        words: Vec<String>,
        wants_image: bool,
        defaults: Defaults,
    ) -> Result<(String, Option<String>), UsageError> {
        let (mut pool, mut image) = (self.pool.clone(), self.image.clone());
        if image.is_some() && !wants_image {
            return Err(UsageError::Stray { flag: "--img", of: "a command about one image" });
        }
        let known_pool = pool.is_some() || (defaults.pool.is_some() && wants_image);
        let known_image = image.is_some() || (defaults.image.is_some() && defaults.pool.is_none());
        let mut words = words.into_iter();
        match (words.next(), words.next(), words.next()) {
            (Some(_), Some(_), Some(word)) => return Err(UsageError::TooMany(word)),
            (Some(first), Some(second), None) => {
                if !wants_image {
                    return Err(UsageError::TooMany(second));
                }
                set(&mut pool, first, "pool")?;
                set(&mut image, second, "image")?;
            }
            (Some(word), None, _) => {
                let is_pool = !wants_image || image.is_some() || (known_image && !known_pool);
                if is_pool {
                    set(&mut pool, word, "pool")?;
                } else if known_pool {
                    set(&mut image, word, "image")?;
                } else {
                    // Nothing else is known, and the pool comes first.
                    return Err(UsageError::NoImage);
                }
            }
            (None, ..) => {}
        }
        let pool = pool.or(defaults.pool).ok_or(UsageError::NoPool)?;
        Ok((pool, image.or(defaults.image)))
    }

    fn command(&self, name: CommandName, image: Option<String>) -> Result<Command, UsageError> {
        let image = || {
            let name = image.ok_or(UsageError::NoImage)?;
            ImageName::parse(&name).map_err(|source| UsageError::ImageName { name, source })
        };
        Ok(match name {
            CommandName::Create => {
                if self.thick {
                    return Err(UsageError::Thick);
                }
                let image = image()?;
                let sector_size = self.sector_size()?;
                let size_bytes = self.size_bytes("create", sector_size)?;
                Command::Create { image, size_bytes, sector_size }
            }
            CommandName::List => Command::List,
            CommandName::Info => Command::Info { image: image()? },
            CommandName::Resize => {
                let image = image()?;
                // Which sectors the image shows, only the image knows; these are in any case whole.
                let size_bytes = self.size_bytes("resize", SectorSize::B512)?;
                Command::Resize { image, size_bytes }
            }
            CommandName::Delete => {
                Command::Delete { image: image()?, force: self.force, yes: self.yes }
            }
            CommandName::Objinfo => {
                let text = self.seq.as_deref().ok_or(UsageError::NoSeq)?;
                let seq = sequence(text).ok_or_else(|| UsageError::Seq(text.to_owned()))?;
                Command::Objinfo { image: image()?, seq, hex: self.hex, all: self.all }
            }
            CommandName::Clone => return Err(UsageError::Clone),
        })
    }

    fn sector_size(&self) -> Result<SectorSize, UsageError> {
        let Some(text) = &self.sector_size else { return Ok(SectorSize::B4096) };
        let bytes = parse_size(text).ok().and_then(|bytes| u32::try_from(bytes).ok());
        bytes.and_then(SectorSize::from_bytes).ok_or_else(|| UsageError::SectorSize(text.clone()))
    }

    fn size_bytes(
        &self,
        command: &'static str,
        sector_size: SectorSize,
    ) -> Result<u64, UsageError> {
        let text = self.size.clone().ok_or(UsageError::NoSize(command))?;
        let sector = sector_size.bytes();
        match parse_size(&text) {
            Err(human::SizeError::TooLarge) => Err(UsageError::SizeRange(text)),
            Err(source) => Err(UsageError::Size { text, source }),
            Ok(bytes) => {
                // First the limits: below a sector, what is wrong is not the remainder.
                let allowed = IMAGE_SECTORS_MIN * SECTOR_BYTES..=IMAGE_SECTORS_MAX * SECTOR_BYTES;
                if !allowed.contains(&bytes) {
                    Err(UsageError::SizeRange(text))
                } else if bytes.is_multiple_of(sector.into()) {
                    Ok(bytes)
                } else {
                    Err(UsageError::SizeUnit { text, sector })
                }
            }
        }
    }
}

fn set(place: &mut Option<String>, word: String, what: &'static str) -> Result<(), UsageError> {
    match place {
        Some(_) => Err(UsageError::Twice { word, what }),
        None => {
            *place = Some(word);
            Ok(())
        }
    }
}

fn sequence(text: &str) -> Option<ObjectSeq> {
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, radix) = hexadecimal.map_or((text, 10), |digits| (digits, 16));
    // The parser of the library would take a sign.
    let plain = digits.chars().all(|c| c.is_digit(radix));
    let seq = u64::from_str_radix(digits, radix).ok().filter(|seq| plain && *seq > 0)?;
    Some(ObjectSeq(seq))
}

#[cfg(test)]
mod test;
