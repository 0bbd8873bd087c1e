//! `imgtool objinfo`: one object, decoded by the code of `objinspect`.

use std::io::{IsTerminal, Write};

use anyhow::Context as _;
use lsvd_cli::{Answer, Negative, Stdout, print_json};
use lsvd_common::ids::ObjectSeq;
use lsvd_common::limits::OBJECT_BYTES_MAX;
use lsvd_common::name::ImageName;
use lsvd_engine::image;
use lsvd_store::ErrorKind;
use objinspect::{Expected, Format, Input, Options, inspect};

use super::Context;

pub(crate) async fn objinfo(
    context: &Context,
    name: &ImageName,
    seq: ObjectSeq,
    hex: bool,
    all: bool,
) -> anyhow::Result<Answer> {
    let store = &context.pool.store;
    let key = name.numbered(seq);
    let meta = match store.head(&key).await {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let no = format!("there is no object {seq} ({key}) in {}", store.describe());
            return Err(Negative(no).into());
        }
        Err(error) => return Err(error.into()),
    };
    // Nothing of ours is longer; the first byte behind the limit is enough to see that.
    let len = meta.size.min(OBJECT_BYTES_MAX as u64 + 1);
    let bytes = store.get_range(&key, 0, len).await?;
    let image = match image::superblock(store, name).await {
        Ok(superblock) => Some(superblock.image),
        Err(error) => {
            let report = error.report();
            context.talk.warn(&format!("whose the object is cannot be checked: {report}"));
            None
        }
    };
    let input = Input::memory(format!("{key} in {}", context.pool.target), bytes.to_vec());
    let expected = Expected { image, seq: Some(seq) };
    let options = Options { all, format: Some(Format::Object), expected };
    let report = inspect(&input, &options).with_context(|| format!("read {}", input.name()))?;
    if context.json {
        print_json(&report)?;
    } else {
        let mut out = Stdout::lock();
        out.write_all(objinspect::text(&report).as_bytes())?;
        if hex {
            let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            writeln!(out)?;
            objinspect::dump(&input, color, &mut out).context("dump the bytes")?;
        }
        out.finish()?;
    }
    Ok(if report.whole { Answer::Done } else { Answer::No })
}
