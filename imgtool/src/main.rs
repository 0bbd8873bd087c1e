//! `imgtool`: create, list, inspect, grow and delete images.
#![forbid(unsafe_code)]

mod args;
mod cmd;
mod describe;

use std::process::ExitCode;

use lsvd_cli::{Answer, Pool, Talk, WhenMissing, block_on, main_with};

use crate::args::{Args, Command, Defaults, LowArgs};
use crate::cmd::Context;

const TOOL: &str = "imgtool";

fn main() -> ExitCode {
    main_with(TOOL, |low: LowArgs| run(low.resolve(Defaults::of_process())?))
}

fn run(args: Args) -> anyhow::Result<Answer> {
    let talk = Talk::new(TOOL, args.quiet);
    // Only an image that is to be made is a reason to make a pool.
    let missing = match args.command {
        Command::Create { .. } => WhenMissing::Create,
        _ => WhenMissing::Refuse,
    };
    let pool = Pool::open(&args.pool, &args.ceph.environment(), missing, talk)?;
    let context = Context { pool, talk, json: args.json };
    block_on(async {
        match args.command {
            Command::Create { image, size_bytes, sector_size } => {
                cmd::create(&context, &image, size_bytes, sector_size).await
            }
            Command::List => cmd::list(&context).await,
            Command::Info { image } => cmd::info(&context, &image).await,
            Command::Resize { image, size_bytes } => {
                cmd::resize(&context, &image, size_bytes).await
            }
            Command::Delete { image, force, yes } => {
                cmd::delete(&context, &image, force, yes).await
            }
            Command::Objinfo { image, seq, hex, all } => {
                cmd::objinfo(&context, &image, seq, hex, all).await
            }
        }
    })
}
