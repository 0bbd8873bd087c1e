//! `lsvd-gw`: opens images and exports them.
//!
//! Standard output has one line, `ready`, once every export accepts I/O; everything else goes to
//! standard error. Exit codes: 0 closed cleanly, 1 a negative answer (no such image, in use), 2
//! failed.

mod args;
mod config;
mod export;
mod gateway;
mod machine;
mod memory;
mod nbd;
mod polling;
mod shutdown;
mod workers;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use crate::args::Args;
use crate::config::Settings;

fn main() -> ExitCode {
    memory::give_large_blocks_back();
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lsvd-gw: {error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let settings = Settings::resolve(args)?;
    start_log(&settings)?;
    gateway::run(&settings, args.command.as_ref())
}

fn start_log(settings: &Settings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.log)
        .map_err(|error| anyhow::anyhow!("log filter {:?}: {error}", settings.log))?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Colours are for people; in a file they are noise.
    subscriber.with_ansi(std::io::stderr().is_terminal()).init();
    Ok(())
}

/// 1 for an answer that is no, 2 for a failure.
fn exit_code(error: &anyhow::Error) -> u8 {
    use lsvd_engine::ErrorKind::{Exists, InUse, NotFound};
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<lsvd_engine::Error>());
    let mut kinds = kinds.map(lsvd_engine::Error::kind);
    if kinds.any(|kind| matches!(kind, Exists | InUse | NotFound)) { 1 } else { 2 }
}
