//! Standard output: buffered, and told apart from every other place that can break.

use std::io::{self, BufWriter, StdoutLock, Write};

use anyhow::Context as _;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// The reader of our output went away; it has what it wanted.
#[derive(Debug, thiserror::Error)]
#[error("the reader of the output went away")]
struct StdoutClosed;

/// Standard output for one program's data. Call [`Stdout::finish`] at the end; dropping it loses
/// errors.
#[derive(Debug)]
pub struct Stdout {
    out: BufWriter<StdoutLock<'static>>,
}

impl Stdout {
    /// Takes standard output.
    #[must_use]
    pub fn lock() -> Self {
        Self { out: BufWriter::with_capacity(64 << 10, io::stdout().lock()) }
    }

    /// Sends everything on its way.
    ///
    /// # Errors
    /// Those of writing; a reader that went away ends a program with success.
    pub fn finish(mut self) -> anyhow::Result<()> {
        self.flush().context("write the output")
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes).map_err(mark)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush().map_err(mark)
    }
}

/// Prints one JSON document.
///
/// # Errors
/// Those of writing.
pub fn print_json<T: Serialize>(document: &T) -> anyhow::Result<()> {
    let mut out = Stdout::lock();
    // serde_json hands an error of the writer on inside its own.
    serde_json::to_writer_pretty(&mut out, document).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    out.finish()
}

/// Prints text that ends with a line feed.
///
/// # Errors
/// Those of writing.
pub fn print_text(text: &str) -> anyhow::Result<()> {
    let mut out = Stdout::lock();
    out.write_all(text.as_bytes()).context("write the output")?;
    out.finish()
}

/// An empty table in the one style of all programs: aligned columns without borders, so that `grep`
/// and `awk` work.
#[must_use]
pub fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    if header.iter().any(|title| !title.is_empty()) {
        table.set_header(header);
    }
    table
}

fn mark(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => io::Error::new(io::ErrorKind::BrokenPipe, StdoutClosed),
        _ => error,
    }
}

/// Only our own stdout: a broken pipe to a store is a failure.
pub(crate) fn is_closed_stdout(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        inner.is_some_and(|inner| inner.is::<StdoutClosed>())
    })
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn only_a_closed_stdout_is_success() {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(!is_closed_stdout(&anyhow::Error::from(broken())));
        assert!(is_closed_stdout(&anyhow::Error::from(mark(broken())).context("write")));
        let full = mark(io::Error::from(io::ErrorKind::StorageFull));
        assert!(!is_closed_stdout(&anyhow::Error::from(full)));
    }
}
