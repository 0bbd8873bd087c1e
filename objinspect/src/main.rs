//! `objinspect`: what is inside an object, a superblock, a write log or a cache file.
#![forbid(unsafe_code)]

mod args;

use std::path::{Component, Path};
use std::process::ExitCode;

use anyhow::{Context, bail};
use lsvd_cli::{Answer, Negative, Pool, Talk, WhenMissing, block_on, main_with};
use lsvd_common::name::ObjectName;
use lsvd_store::{Environment, PoolSpec, PoolTarget};
use objinspect::{Expected, Form, Format, Input, Options, show};

use crate::args::{Args, LowArgs, Place};

const TOOL: &str = "objinspect";

fn main() -> ExitCode {
    main_with(TOOL, |low: LowArgs| run(&low.resolve()?))
}

fn run(args: &Args) -> anyhow::Result<Answer> {
    let talk = Talk::new(TOOL, args.quiet);
    let (input, options) = match &args.place {
        Place::File(path) => {
            let input = Input::file(path).with_context(|| format!("open {}", path.display()))?;
            (input, Options { all: args.all, format: args.format, expected: Expected::default() })
        }
        Place::Object { pool, name } => {
            (fetch(pool, name, &args.ceph.environment(), talk)?, by_name(name, args))
        }
    };
    show(&input, &options, Form::of_flags(args.json, args.hex))
}

/// What an object's name says about it, which helps where its magic is damaged.
fn by_name(name: &str, args: &Args) -> Options {
    let (format, seq) = match ObjectName::parse(name) {
        Some(ObjectName::Superblock(_)) => (Some(Format::Superblock), None),
        Some(ObjectName::Numbered(_, seq)) => (Some(Format::Object), Some(seq)),
        None => (None, None),
    };
    let expected = Expected { image: None, seq };
    Options { all: args.all, format: args.format.or(format), expected }
}

fn fetch(pool: &str, name: &str, environment: &Environment, talk: Talk) -> anyhow::Result<Input> {
    let spec = PoolSpec::parse(pool, environment)?;
    if let PoolTarget::Directory(root) = spec.target() {
        // Opening the store sweeps its staging area, and whoever looks at evidence wants nothing
        // touched.
        talk.say(&spec.explain());
        return in_directory(root, name);
    }
    let pool = Pool::open(pool, environment, WhenMissing::Refuse, talk)?;
    match block_on(async { Ok(objinspect::fetch(&pool, name).await?) })? {
        Some(input) => Ok(input),
        None => Err(missing(name)),
    }
}

fn in_directory(root: &Path, name: &str) -> anyhow::Result<Input> {
    let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    if !inside || name.is_empty() {
        bail!("`{}` is no name of an object", name.escape_debug());
    }
    if !root.is_dir() {
        bail!("no directory {}; check the pool's name", root.display());
    }
    match Input::file(&root.join(name)) {
        Ok(input) => Ok(input),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(missing(name)),
        Err(error) => Err(error).with_context(|| format!("open {name} in {}", root.display())),
    }
}

fn missing(name: &str) -> anyhow::Error {
    Negative(format!("there is no object `{}` in that pool", name.escape_debug())).into()
}
