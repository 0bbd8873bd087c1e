//! `imgtool objinfo`: one object, decoded by the code of `objinspect`.

use lsvd_cli::{Answer, Negative};
use lsvd_common::ids::ObjectSeq;
use lsvd_common::name::ImageName;
use lsvd_engine::image;
use objinspect::{Expected, Form, Format, Options, fetch, show};

use super::Context;

pub(crate) async fn objinfo(
    context: &Context,
    name: &ImageName,
    seq: ObjectSeq,
    hex: bool,
    all: bool,
) -> anyhow::Result<Answer> {
    let key = name.numbered(seq);
    let Some(input) = fetch(&context.pool, &key).await? else {
        let no = format!("there is no object {seq} ({key}) in {}", context.pool.target);
        return Err(Negative(no).into());
    };
    let image = match image::superblock(&context.pool.store, name).await {
        Ok(superblock) => Some(superblock.image),
        Err(error) => {
            let report = error.report();
            context.talk.warn(&format!("whose the object is cannot be checked: {report}"));
            None
        }
    };
    let expected = Expected { image, seq: Some(seq) };
    let options = Options { all, format: Some(Format::Object), expected };
    show(&input, &options, Form::of_flags(context.json, hex))
}
