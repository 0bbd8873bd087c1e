//! The command line: as typed, and as understood.

use clap::Parser;
use lsvd_cli::CephFlags;
use lsvd_common::name::{ImageName, NameError};

/// Delete all objects of a pool whose names start with a prefix: a rescue tool, for what `imgtool
/// delete` cannot.
#[derive(Debug, Parser)]
#[command(
    name = "remove-objs",
    version,
    override_usage = "remove-objs POOL PREFIX [OPTIONS]\n       remove-objs POOL --image IMAGE [OPTIONS]"
)]
#[command(
    after_help = "It says what it would delete, image by image, and asks. Superblocks go first; an interrupted \
    run can be repeated.\n\nExit codes: 0 done, 1 the answer is no (nothing matches, an image is open, declined), \
    2 failed."
)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag that somebody types")]
pub(crate) struct LowArgs {
    /// The pool: a directory, a name, or a URL
    pool: String,

    /// How the names start; `disk1` also takes `disk10`, `disk1/` does not
    #[arg(required_unless_present = "image", conflicts_with = "image")]
    prefix: Option<String>,

    /// Exactly this image, all of it
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,

    /// Only say what would be deleted
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Delete without asking
    #[arg(short = 'y', long)]
    yes: bool,

    /// Even images that a gateway has open, that clones depend on, or whose superblock is damaged
    #[arg(long)]
    force: bool,

    /// Print one JSON document
    #[arg(long)]
    json: bool,

    /// Say nothing but warnings and errors
    #[arg(long)]
    quiet: bool,

    #[command(flatten)]
    ceph: CephFlags,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag that somebody types")]
pub(crate) struct Args {
    pub(crate) pool: String,
    pub(crate) prefix: String,
    pub(crate) dry_run: bool,
    pub(crate) yes: bool,
    pub(crate) force: bool,
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    pub(crate) ceph: CephFlags,
}

/// Why a command line was not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("the empty prefix is the whole pool; name what is to go, or delete the pool itself")]
    EmptyPrefix,
    #[error("image `{}`: {source}", name.escape_debug())]
    ImageName { name: String, source: NameError },
}

impl LowArgs {
    pub(crate) fn resolve(self) -> Result<Args, UsageError> {
        let prefix = match self.image {
            Some(name) => match ImageName::parse(&name) {
                Ok(image) => image.prefix(),
                Err(source) => return Err(UsageError::ImageName { name, source }),
            },
            None => self.prefix.unwrap_or_default(),
        };
        if prefix.is_empty() {
            return Err(UsageError::EmptyPrefix);
        }
        let Self { pool, dry_run, yes, force, json, quiet, ceph, .. } = self;
        Ok(Args { pool, prefix, dry_run, yes, force, json, quiet, ceph })
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn prefix(line: &str) -> Result<String, UsageError> {
        let words = std::iter::once("remove-objs").chain(line.split(' '));
        LowArgs::try_parse_from(words).expect("clap takes it").resolve().map(|args| args.prefix)
    }

    #[test]
    fn an_image_is_its_whole_name() {
        assert_eq!(prefix("p --image disk1"), Ok("disk1/".into()));
        assert_eq!(prefix("p disk1"), Ok("disk1".into()));
        assert!(matches!(prefix("p --image a/b"), Err(UsageError::ImageName { .. })));
    }

    #[test]
    fn the_whole_pool_is_refused() {
        assert_eq!(prefix("p "), Err(UsageError::EmptyPrefix));
        assert!(LowArgs::try_parse_from(["remove-objs", "p"]).is_err());
        assert!(LowArgs::try_parse_from(["remove-objs", "p", "x", "--image", "x"]).is_err());
    }
}
