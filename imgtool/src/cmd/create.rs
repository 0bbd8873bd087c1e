//! `imgtool create`.

use lsvd_cli::{Answer, human, print_json, print_text};
use lsvd_common::name::ImageName;
use lsvd_common::object::superblock::SectorSize;
use lsvd_engine::{SystemWorld, image};

use super::{Context, outcome};
use crate::describe::Image;

pub(crate) async fn create(
    context: &Context,
    name: &ImageName,
    size_bytes: u64,
    sector_size: SectorSize,
) -> anyhow::Result<Answer> {
    let new = image::NewImage { size_bytes, sector_size, region_shift: None };
    let superblock =
        image::create(&context.pool.store, name, new, &SystemWorld).await.map_err(outcome)?;
    if context.json {
        print_json(&Image::new(&context.pool, name, &superblock))?;
    } else {
        print_text(&format!(
            "created image {name}, {}, sectors of {} bytes, uuid {}\n",
            human::exact_bytes(size_bytes),
            sector_size.bytes(),
            superblock.image
        ))?;
    }
    Ok(Answer::Done)
}
