//! `imgtool info`.

use std::sync::Arc;

use lsvd_cli::{Answer, Progress, human, print_json, print_text, table};
use lsvd_common::name::{ImageName, ObjectName};
use lsvd_common::object::prefix::{ObjectKind, PREFIX_LAYOUT, peek};
use lsvd_common::object::superblock::Superblock;
use lsvd_engine::image::{self, Listed};
use lsvd_engine::{SystemWorld, World};
use lsvd_store::{ErrorKind, ObjectStore, StoreError};
use serde::Serialize;
use tokio::task::JoinSet;

use super::{Context, outcome};
use crate::describe::{Image, State, owner_words, region_bytes, size_bytes};

/// Headers that are read at a time.
const PARALLEL: usize = 16;

#[derive(Serialize)]
struct Info {
    #[serde(flatten)]
    image: Image,
    objects: Tally,
}

/// Objects and their bytes.
#[derive(Clone, Copy, Default, Serialize)]
struct Count {
    count: u64,
    bytes: u64,
}

/// What an image has in the store, by kind.
#[derive(Default, Serialize)]
struct Tally {
    all: Count,
    superblock: Count,
    data: Count,
    moved: Count,
    map_part: Count,
    checkpoint: Count,
    damaged: Count,
}

impl Count {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

pub(crate) async fn info(context: &Context, name: &ImageName) -> anyhow::Result<Answer> {
    let store = &context.pool.store;
    let superblock = image::superblock(store, name).await.map_err(outcome)?;
    let listed = image::objects(store, name).await.map_err(outcome)?;
    let objects = tally(context, listed).await?;
    if context.json {
        let image = Image::new(&context.pool, name, &superblock);
        print_json(&Info { image, objects })?;
    } else {
        print_text(&text(name, &superblock, &objects))?;
    }
    Ok(Answer::Done)
}

/// Sorts the objects by kind. Names do not tell kinds, so the first bytes of each are read.
async fn tally(context: &Context, listed: Vec<Listed>) -> anyhow::Result<Tally> {
    let progress = Progress::new(context.talk, "reading headers", listed.len() as u64);
    let mut tally = Tally::default();
    let mut running: JoinSet<Result<_, StoreError>> = JoinSet::new();
    let mut waiting = listed.into_iter();
    loop {
        while running.len() < PARALLEL
            && let Some(Listed { name, bytes }) = waiting.next()
        {
            if let ObjectName::Superblock(_) = name {
                tally.all.add(bytes);
                tally.superblock.add(bytes);
                progress.step();
                continue;
            }
            let store = Arc::clone(&context.pool.store);
            running.spawn(async move { Ok((kind_of(&*store, &name, bytes).await?, bytes)) });
        }
        let Some(result) = running.join_next().await else { return Ok(tally) };
        progress.step();
        let (kind, bytes) = result??;
        let count = match kind {
            Kind::Gone => continue,
            Kind::Damaged => &mut tally.damaged,
            Kind::Known(ObjectKind::Data) => &mut tally.data,
            Kind::Known(ObjectKind::Moved) => &mut tally.moved,
            Kind::Known(ObjectKind::MapPart) => &mut tally.map_part,
            Kind::Known(ObjectKind::Checkpoint) => &mut tally.checkpoint,
        };
        count.add(bytes);
        tally.all.add(bytes);
    }
}

enum Kind {
    Known(ObjectKind),
    Damaged,
    /// Deleted since it was listed.
    Gone,
}

async fn kind_of(
    store: &dyn ObjectStore,
    name: &ObjectName,
    bytes: u64,
) -> Result<Kind, StoreError> {
    let len = (PREFIX_LAYOUT.size as u64).min(bytes);
    match store.get_range(&name.to_string(), 0, len).await {
        Ok(first) => Ok(peek(&first).map_or(Kind::Damaged, |peek| Kind::Known(peek.kind))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Kind::Gone),
        Err(error) => Err(error),
    }
}

fn text(name: &ImageName, superblock: &Superblock, objects: &Tally) -> String {
    let now = SystemWorld.wall_ms();
    let state = match (&superblock.owner, State::of(superblock)) {
        (Some(owner), _) => format!("open: {}", owner_words(owner, now)),
        (None, State::New) => "new, never opened".to_owned(),
        (None, _) => "closed".to_owned(),
    };
    let features = superblock.features;
    let mut lines = table([""; 2]);
    let mut add = |what: &str, value: String| {
        lines.add_row([what.to_owned(), value]);
    };
    add("image", name.to_string());
    add("uuid", superblock.image.to_string());
    add("size", human::exact_bytes(size_bytes(superblock)));
    add("sector size", format!("{} bytes", superblock.sector_size.bytes()));
    add("created", since(superblock.created_ms, now));
    add("state", state);
    add("epoch", superblock.epoch.to_string());
    let fence = superblock.fence;
    add("fence", format!("epoch {} from object {} on", fence.epoch, fence.seq));
    add("oldest object", superblock.floor.to_string());
    add("map region", human::exact_bytes(region_bytes(superblock)));
    add(
        "features",
        format!(
            "compatible {:#x}, read-only compatible {:#x}, incompatible {:#x}",
            features.compat, features.ro_compat, features.incompat
        ),
    );
    add(
        "checkpoints",
        or_none(superblock.checkpoints.iter().map(|checkpoint| {
            format!("object {}, covers up to {}", checkpoint.seq, checkpoint.covers)
        })),
    );
    for snapshot in &superblock.snapshots {
        let name = snapshot.name.escape_debug();
        let when = since(snapshot.created_ms, now);
        add("snapshot", format!("{name}, checkpoint {}, {when}", snapshot.seq));
    }
    for base in &superblock.lineage {
        let name = base.name.escape_debug();
        add("cloned from", format!("{name} ({}) up to object {}", base.image, base.last_seq));
    }
    for child in &superblock.children {
        add("clone", format!("{} ({})", child.name.escape_debug(), child.image));
    }
    let count = |count: Count| {
        format!("{}, {}", human::count(count.count, "object"), human::exact_bytes(count.bytes))
    };
    add("in the store", count(objects.all));
    add("  superblock", count(objects.superblock));
    add("  data", count(objects.data));
    add("  moved data", count(objects.moved));
    add("  map parts", count(objects.map_part));
    add("  checkpoints", count(objects.checkpoint));
    if objects.damaged.count > 0 {
        add("  DAMAGED", count(objects.damaged));
    }
    format!("{}\n", lines.trim_fmt())
}

fn since(ms: u64, now_ms: u64) -> String {
    format!("{} ({})", human::time(ms), human::ago(ms, now_ms))
}

fn or_none(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    if items.is_empty() { "none".to_owned() } else { items.join("; ") }
}
