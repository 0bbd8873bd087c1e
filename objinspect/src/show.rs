//! From the store to the screen: what `objinspect` and `imgtool objinfo` have in common.

use std::io::{IsTerminal, Write};

use anyhow::Context as _;
use lsvd_cli::{Answer, Pool, Stdout, print_json};
use lsvd_common::limits::OBJECT_BYTES_MAX;
use lsvd_store::{ErrorKind, StoreError};

use crate::{Input, Options, inspect, render};

/// How a report is printed.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// For people.
    Text,
    /// For people, with a dump of all bytes behind it.
    TextAndHex,
    /// One JSON document.
    Json,
}

impl Form {
    /// By the flags of a command line, which do not take both.
    #[must_use]
    pub fn of_flags(json: bool, hex: bool) -> Self {
        match (json, hex) {
            (true, _) => Self::Json,
            (false, true) => Self::TextAndHex,
            (false, false) => Self::Text,
        }
    }
}

/// Reads an object, or the part of it that something of ours can have. `None` if there is no such
/// object.
///
/// # Errors
/// What the store says.
pub async fn fetch(pool: &Pool, key: &str) -> Result<Option<Input>, StoreError> {
    let found = async {
        let meta = pool.store.head(key).await?;
        // Nothing of ours is longer; the first byte behind the limit is enough to see that.
        let len = meta.size.min(OBJECT_BYTES_MAX as u64 + 1);
        pool.store.get_range(key, 0, len).await
    };
    match found.await {
        Ok(bytes) => Ok(Some(Input::memory(format!("{key} in {}", pool.target), bytes.to_vec()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Inspects and prints; the answer is no if anything is wrong with the bytes.
///
/// # Errors
/// Those of reading and writing.
pub fn show(input: &Input, options: &Options, form: Form) -> anyhow::Result<Answer> {
    let report = inspect(input, options).with_context(|| format!("read {}", input.name()))?;
    if let Form::Json = form {
        print_json(&report)?;
    } else {
        let mut out = Stdout::lock();
        out.write_all(render::text(&report).as_bytes())?;
        if let Form::TextAndHex = form {
            let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            writeln!(out)?;
            crate::hex::dump(input, color, &mut out).context("dump the bytes")?;
        }
        out.finish()?;
    }
    Ok(if report.whole { Answer::Done } else { Answer::No })
}
