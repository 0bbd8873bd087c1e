//! `cargo xtask`: the one door for developers. What CI runs is `cargo xtask ci`, in the order that it prints.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "what a developer's tool says is its output")]

mod bench;
mod ci;
mod command;
mod crash;
mod fuzz;
mod graph;
mod prepare;
mod simulate;
mod suite;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Checks, tests, simulates and measures this workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Install what the tests need, then run everything that CI runs
    Ci,
    /// Run the tests; words go to the test runner, as in `test -p lsvd-engine torn`
    Test {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Run the simulator; words go to it, as in `sim --seeds 20000`
    Sim {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Run every fuzz target for a moment, with the compiler that builds everything else
    Fuzz,
    /// Check the rules of the house that no other tool knows
    Tidy,
    /// Check which member depends on which
    Graph,
    /// Kill a gateway at random moments under load and verify what it promised
    Crash(crash::Args),
    /// Measure
    #[command(subcommand)]
    Bench(bench::Verb),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.verb {
        Verb::Ci => return ci::run(),
        Verb::Test { words } => suite::run_some(&words),
        Verb::Sim { words } => simulate::run(&words),
        Verb::Fuzz => fuzz::smoke(),
        Verb::Tidy => tidy::check(),
        Verb::Graph => graph::check(),
        Verb::Crash(args) => crash::run(&args),
        Verb::Bench(verb) => bench::run(&verb),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
