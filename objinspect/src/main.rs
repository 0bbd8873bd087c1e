//! `objinspect`: what is inside an object, a superblock, a write log or a cache file.
#![forbid(unsafe_code)]

mod args;

use std::io::{IsTerminal, Write};
use std::path::{Component, Path};
use std::process::ExitCode;

use anyhow::{Context, bail};
use lsvd_cli::{Answer, Negative, Pool, Stdout, Talk, WhenMissing, block_on, main_with};
use lsvd_common::limits::OBJECT_BYTES_MAX;
use lsvd_common::name::ObjectName;
use lsvd_store::{Environment, ErrorKind, PoolSpec, PoolTarget};
use objinspect::{Expected, Format, Input, Options, inspect};

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
        Place::Object { pool, name } => (fetch(pool, name, talk)?, by_name(name, args)),
    };
    let report = inspect(&input, &options).with_context(|| format!("read {}", input.name()))?;
    if args.json {
        lsvd_cli::print_json(&report)?;
    } else {
        let mut out = Stdout::lock();
        out.write_all(objinspect::text(&report).as_bytes())?;
        if args.hex {
            let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            writeln!(out)?;
            objinspect::dump(&input, color, &mut out).context("dump the bytes")?;
        }
        out.finish()?;
    }
    Ok(if report.whole { Answer::Done } else { Answer::No })
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

fn fetch(pool: &str, name: &str, talk: Talk) -> anyhow::Result<Input> {
    let spec = PoolSpec::parse(pool, &Environment::of_process())?;
    if let PoolTarget::Directory(root) = spec.target() {
        // Opening the store sweeps its staging area, and whoever looks at evidence wants nothing touched.
        talk.say(&spec.explain());
        return in_directory(root, name);
    }
    let pool = Pool::open(pool, WhenMissing::Refuse, talk)?;
    block_on(async {
        let meta = match pool.store.head(name).await {
            Ok(meta) => meta,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(missing(name)),
            Err(error) => return Err(error.into()),
        };
        // Nothing of ours is longer; the first byte behind the limit is enough to see that.
        let len = meta.size.min(OBJECT_BYTES_MAX as u64 + 1);
        let bytes = pool.store.get_range(name, 0, len).await?;
        Ok(Input::memory(format!("{name} in {}", pool.target), bytes.to_vec()))
    })
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
