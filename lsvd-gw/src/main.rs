//! `lsvd-gw`: opens images and exports them.
//!
//! Standard output has one line, `ready`, once every export accepts I/O; everything else goes to
//! standard error. Exit codes: 0 closed cleanly, 1 a negative answer (no such image, in use), 2
//! failed.

mod admission;
mod args;
mod config;
mod diagnostics;
mod export;
mod gateway;
mod images;
mod machine;
mod memory;
mod namespace;
mod nbd;
mod nvme;
mod polling;
mod rpc;
mod shutdown;
mod workers;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Args;
use crate::config::Settings;
use crate::diagnostics::LogControl;

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
    let log = LogControl::start(&settings.log)?;
    gateway::run(&settings, args.command.as_ref(), log)
}

/// 1 for an answer that is no, 2 for a failure.
fn exit_code(error: &anyhow::Error) -> u8 {
    use lsvd_engine::ErrorKind::{Exists, InUse, NotFound};
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<lsvd_engine::Error>());
    let mut kinds = kinds.map(lsvd_engine::Error::kind);
    if kinds.any(|kind| matches!(kind, Exists | InUse | NotFound)) { 1 } else { 2 }
}
