//! `imgtool delete`.

use anyhow::bail;
use lsvd_cli::{Answer, Consent, Negative, Progress, ask, human, print_json, print_text};
use lsvd_common::name::{ImageName, ObjectName};
use lsvd_engine::{Error, ErrorKind, image};
use serde::Serialize;

use super::{Context, outcome};
use crate::describe::{owner_words, size_bytes};

#[derive(Serialize)]
struct Deleted {
    pool: String,
    image: String,
    deleted_objects: u64,
    deleted_bytes: u64,
}

pub(crate) async fn delete(
    context: &Context,
    name: &ImageName,
    force: bool,
    yes: bool,
) -> anyhow::Result<Answer> {
    let store = &context.pool.store;
    let what = describe(context, name, force).await?;
    let objects = image::objects(store, name).await.map_err(outcome)?;
    let bytes: u64 = objects.iter().map(|object| object.bytes).sum();
    let amount =
        format!("{}, {}", human::count(objects.len() as u64, "object"), human::bytes(bytes));
    if !yes {
        match ask(&format!("Delete {what} ({amount} in the store)?"))? {
            Consent::Yes => {}
            Consent::No => return Err(Negative("nothing was deleted".to_owned()).into()),
            Consent::NobodyThere => {
                bail!("delete {what} ({amount} in the store)? nobody to ask; say so with --yes");
            }
        }
    }
    let progress = Progress::new(context.talk, "deleting", objects.len() as u64);
    // What the engine finds when it comes to it, which need not be what was listed above.
    let mut numbered = 0;
    image::delete(store, name, force, &mut |done, total| {
        numbered = done;
        progress.set(done, total);
    })
    .await
    .map_err(|error| advise(error, name))?;
    drop(progress);
    let superblock =
        objects.iter().filter(|object| matches!(object.name, ObjectName::Superblock(_))).count();
    let deleted = (numbered + superblock) as u64;
    if context.json {
        print_json(&Deleted {
            pool: context.pool.target.to_string(),
            image: name.to_string(),
            deleted_objects: deleted,
            deleted_bytes: bytes,
        })?;
    } else {
        let count = human::count(deleted, "object");
        print_text(&format!("deleted {what}: {count}, {}\n", human::exact_bytes(bytes)))?;
    }
    Ok(Answer::Done)
}

/// The image in words, for the question; refuses what must not be deleted.
async fn describe(context: &Context, name: &ImageName, force: bool) -> anyhow::Result<String> {
    let superblock = match image::superblock(&context.pool.store, name).await {
        Ok(superblock) => superblock,
        // Leftovers of an interrupted deletion are finished by the engine, which also says if there
        // are none.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(format!("what is left of image {name}"));
        }
        Err(error) if error.kind() == ErrorKind::Corrupt && force => {
            context.talk.warn(&error.report());
            return Ok(format!("image {name}, whose superblock is damaged"));
        }
        Err(error) => return Err(advise(error, name)),
    };
    if !superblock.children.is_empty() {
        let clones: Vec<String> =
            superblock.children.iter().map(|child| child.name.escape_debug().to_string()).collect();
        let clones = clones.join(", ");
        let no = format!("image {name} is the base of {clones}; delete those first");
        return Err(Negative(no).into());
    }
    if let Some(owner) = &superblock.owner {
        let now = lsvd_engine::World::wall_ms(&lsvd_engine::SystemWorld);
        let owner = owner_words(owner, now);
        if !force {
            let no = format!(
                "image {name} is in use by {owner}; close it there, or add --force if that gateway \
                 is gone for good"
            );
            return Err(Negative(no).into());
        }
        context.talk.warn(&format!("image {name} is marked as open: {owner}"));
    }
    Ok(format!("image {name} of {}", human::bytes(size_bytes(&superblock))))
}

fn advise(error: Error, name: &ImageName) -> anyhow::Error {
    if error.kind() == ErrorKind::Corrupt {
        let report = error.report();
        return anyhow::anyhow!("{report}; add --force to delete image {name} unseen");
    }
    outcome(error)
}
