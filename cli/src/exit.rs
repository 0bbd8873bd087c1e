//! How a program begins and ends: its arguments, its exit code, and the one line that says what
//! went wrong.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

use crate::output;
use crate::talk::Talk;

const NEGATIVE: u8 = 1;
const FAILED: u8 = 2;

/// How a program that did not fail ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It did what was asked: exit code 0.
    Done,
    /// The answer is no, and everything about it has been said: exit code 1.
    No,
}

/// A no with a sentence to it, on its way up as an error: exit code 1 in place of 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Negative(pub String);

/// Parses the command line, does the work and turns the result into an exit code.
pub fn main_with<A: Parser>(
    tool: &'static str,
    work: impl FnOnce(A) -> anyhow::Result<Answer>,
) -> ExitCode {
    let arguments = match A::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => {
            Talk::new(tool, false).warn(&usage_line(tool, &error.render().to_string()));
            return ExitCode::from(FAILED);
        }
        Err(help) => {
            // Whoever closes the pipe has read enough of the help.
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    match work(arguments) {
        Ok(Answer::Done) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(NEGATIVE),
        Err(error) if output::is_closed_stdout(&error) => ExitCode::SUCCESS,
        Err(error) => {
            Talk::new(tool, false).warn(&format!("{error:#}"));
            let negative = error.chain().any(|cause| cause.is::<Negative>());
            ExitCode::from(if negative { NEGATIVE } else { FAILED })
        }
    }
}

/// Runs asynchronous work on this thread.
///
/// # Errors
/// Those of the work, or of starting a runtime.
pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start the runtime")?.block_on(work)
}

/// Clap's paragraphs about a usage error on one line: what is wrong, its tips, and where to read
/// on.
fn usage_line(tool: &str, rendered: &str) -> String {
    let said = rendered.split("Usage:").next().unwrap_or_default();
    let said = said.strip_prefix("error: ").unwrap_or(said);
    let said = said.split("For more information").next().unwrap_or_default();
    let parts: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    format!("{}; see {tool} --help", parts.join(" "))
}

/// Text that cannot end the line or write to the terminal on its own.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => line.push(' '),
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_usage_error_becomes_one_line_with_its_tip() {
        let rendered = "error: unexpected argument '--sise' found\n\n  tip: a similar argument exists: \
                        '--size'\n\nUsage: imgtool [OPTIONS]\n\nFor more information, try '--help'.\n";
        assert_eq!(
            usage_line("imgtool", rendered),
            "unexpected argument '--sise' found tip: a similar argument exists: '--size'; see \
             imgtool --help"
        );
    }

    #[test]
    fn an_error_line_is_one_line_and_harmless() {
        assert_eq!(one_line("a\nb\u{1b}[2J\u{e9}"), "a b\\u{1b}[2J\u{e9}");
    }
}
