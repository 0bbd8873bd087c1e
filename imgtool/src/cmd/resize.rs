//! `imgtool resize`.

use lsvd_cli::{Answer, Negative, human, print_json, print_text};
use lsvd_common::name::ImageName;
use lsvd_engine::{Error, ErrorKind, image};

use super::{Context, outcome};
use crate::describe::Image;

pub(crate) async fn resize(
    context: &Context,
    name: &ImageName,
    size_bytes: u64,
) -> anyhow::Result<Answer> {
    let superblock = image::resize(&context.pool.store, name, size_bytes).await;
    let superblock = superblock.map_err(|error| refusal(error, name, size_bytes))?;
    if context.json {
        print_json(&Image::new(&context.pool, name, &superblock))?;
    } else {
        print_text(&format!("image {name} has {} now\n", human::exact_bytes(size_bytes)))?;
    }
    Ok(Answer::Done)
}

/// An image that is open grows in its gateway, which tells the hosts.
fn refusal(error: Error, name: &ImageName, size_bytes: u64) -> anyhow::Error {
    if error.kind() != ErrorKind::InUse {
        return outcome(error);
    }
    let mib = size_bytes.div_ceil(1 << 20);
    let how = format!("spdk-rpc --plugin rpc_plugin bdev_lsvd_resize {name} {mib}");
    Negative(format!("{}: {how}", error.report())).into()
}
