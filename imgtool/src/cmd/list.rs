//! `imgtool list`.

use lsvd_cli::{Answer, human, print_json, print_text, table};
use lsvd_common::name::ImageName;
use lsvd_common::object::superblock::Superblock;
use lsvd_engine::{Error, ErrorKind, image};
use serde::Serialize;

use super::{Context, outcome};
use crate::describe::{Image, State, size_bytes};

#[derive(Serialize)]
struct List {
    pool: String,
    images: Vec<Listed>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Listed {
    Whole(Box<Image>),
    Damaged { image: String, state: State, error: String },
}

type Found = (ImageName, Result<Superblock, Error>);

pub(crate) async fn list(context: &Context) -> anyhow::Result<Answer> {
    let store = &context.pool.store;
    let mut found: Vec<Found> = Vec::new();
    for name in image::list(store).await.map_err(outcome)? {
        match image::superblock(store, &name).await {
            // Deleted while we were looking.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() != ErrorKind::Corrupt => return Err(outcome(error)),
            superblock => found.push((name, superblock)),
        }
    }
    for (_, superblock) in &found {
        if let Err(error) = superblock {
            context.talk.warn(&error.report());
        }
    }
    if context.json {
        let images = found.iter().map(|(name, found)| listed(context, name, found)).collect();
        print_json(&List { pool: context.pool.target.to_string(), images })?;
    } else {
        print_text(&text(&found))?;
    }
    Ok(Answer::Done)
}

fn listed(context: &Context, name: &ImageName, found: &Result<Superblock, Error>) -> Listed {
    match found {
        Ok(superblock) => Listed::Whole(Box::new(Image::new(&context.pool, name, superblock))),
        Err(error) => Listed::Damaged {
            image: name.to_string(),
            state: State::Damaged,
            error: error.report(),
        },
    }
}

fn text(found: &[Found]) -> String {
    let mut lines = table(["IMAGE", "SIZE", "BYTES", "STATE"]);
    for (name, superblock) in found {
        let (size, bytes, state) = match superblock {
            Ok(superblock) => {
                let bytes = size_bytes(superblock);
                (human::bytes(bytes), bytes.to_string(), state(superblock))
            }
            Err(_) => ("-".to_owned(), "-".to_owned(), State::Damaged.word().to_owned()),
        };
        lines.add_row([name.to_string(), size, bytes, state]);
    }
    format!("{}\n", lines.trim_fmt())
}

fn state(superblock: &Superblock) -> String {
    let word = State::of(superblock).word();
    match &superblock.owner {
        Some(owner) => format!("{word} on {}", owner.host.escape_debug()),
        None => word.to_owned(),
    }
}
