//! Operations on closed images: create, inspect, list, grow, delete.

use std::sync::Arc;

use lsvd_common::ids::{Epoch, ImageId, ObjectSeq};
use lsvd_common::limits::{IMAGE_SECTORS_MAX, IMAGE_SECTORS_MIN, region_shift_for};
use lsvd_common::name::{ImageName, ObjectName};
use lsvd_common::object::superblock::{Features, Fence, SectorSize, Superblock};
use lsvd_common::units::{SECTOR_BYTES, Sectors};
use lsvd_store::{ErrorKind as StoreKind, ObjectStore, PutMode};
use tokio::task::JoinSet;

use crate::error::{Error, ErrorKind, Result};
use crate::fence;
use crate::options::World;
use crate::volume::Geometry;

/// Deletes at one time.
const PARALLEL: usize = 16;

/// Names that one listing request returns.
const LIST_PAGE: usize = 1000;

/// What a new image is like.
#[derive(Clone, Copy, Debug)]
pub struct NewImage {
    /// Size in bytes: whole sectors, 1 MiB to 64 TiB.
    pub size_bytes: u64,
    /// What clients see as a sector.
    pub sector_size: SectorSize,
    /// Region size of checkpoints, as a power of two of sectors; by size of the image if none.
    pub region_shift: Option<u8>,
}

/// Creates an image. Objects of a deleted image of that name may still be there: they carry another
/// identity, count for nothing, and are replaced when their names are used.
///
/// # Errors
/// `Exists`, `Invalid` size, or what the store says.
pub async fn create(
    store: &Arc<dyn ObjectStore>,
    name: &ImageName,
    new: NewImage,
    world: &dyn World,
) -> Result<Superblock> {
    let size = Sectors(new.size_bytes / SECTOR_BYTES);
    let sector = u64::from(new.sector_size.bytes());
    if !new.size_bytes.is_multiple_of(sector) {
        let context = format!("the size must be a multiple of the sector size, {sector} bytes");
        return Err(Error::new(ErrorKind::Invalid, context));
    }
    if !(IMAGE_SECTORS_MIN..=IMAGE_SECTORS_MAX).contains(&size.0) {
        return Err(Error::new(ErrorKind::Invalid, "an image has 1 MiB to 64 TiB"));
    }
    let superblock = Superblock {
        image: ImageId(world.uuid()),
        sector_size: new.sector_size,
        size,
        features: Features::default(),
        epoch: Epoch(0),
        fence: Fence::default(),
        floor: ObjectSeq(1),
        created_ms: world.wall_ms(),
        region_shift: new.region_shift.unwrap_or_else(|| region_shift_for(size.0)),
        owner: None,
        checkpoints: Vec::new(),
        snapshots: Vec::new(),
        lineage: Vec::new(),
        children: Vec::new(),
    };
    let context = || format!("create image {name}");
    let body =
        superblock.encode().map_err(|error| Error::with(ErrorKind::Invalid, context(), error))?;
    let exists = || Error::new(ErrorKind::Exists, format!("there is an image {name} already"));
    match store.head(&name.superblock()).await {
        Ok(_) => return Err(exists()),
        Err(error) if error.kind() == StoreKind::NotFound => {}
        Err(error) => return Err(Error::store(context(), error)),
    }
    match store.put(&name.superblock(), body.into(), PutMode::Create).await {
        Ok(_) => Ok(superblock),
        Err(error) if error.kind() == StoreKind::AlreadyExists => Err(exists()),
        Err(error) => Err(Error::store(context(), error)),
    }
}

/// Grows an image that nobody has open. Returns its superblock as it is then; nothing is written if
/// it has that size already.
///
/// # Errors
/// `InUse` naming the owner, `Invalid` for a size that [`Volume::resize`](crate::Volume::resize)
/// would refuse, `NotFound`, `ReadOnly`, or what the store says: then the image has either size.
pub async fn resize(
    store: &Arc<dyn ObjectStore>,
    name: &ImageName,
    size_bytes: u64,
) -> Result<Superblock> {
    loop {
        let known = fence::load(&**store, name).await?;
        let mut superblock = known.superblock;
        fence::check_features(name, &superblock)?;
        if let Some(owner) = &superblock.owner {
            let context = format!(
                "image {name} is in use by {} (process {}, {}); grow it there, or close it there \
                 first",
                owner.host, owner.pid, owner.place
            );
            return Err(Error::new(ErrorKind::InUse, context));
        }
        let geometry = Geometry::of(&superblock);
        let size = geometry.grown(name, size_bytes)?;
        if size == superblock.size {
            return Ok(superblock);
        }
        superblock.size = size;
        // Whoever claims the image meanwhile makes this swap fail: it is looked at again.
        if fence::swap(&**store, name, &superblock, &known.version).await?.is_some() {
            return Ok(superblock);
        }
    }
}

/// Reads the superblock of an image.
///
/// # Errors
/// `NotFound`, `Corrupt`, or what the store says.
pub async fn superblock(store: &Arc<dyn ObjectStore>, name: &ImageName) -> Result<Superblock> {
    fence::load(&**store, name).await.map(|known| known.superblock)
}

/// The names of all images in a pool, sorted.
///
/// # Errors
/// What the store says.
pub async fn list(store: &Arc<dyn ObjectStore>) -> Result<Vec<ImageName>> {
    let mut names = Vec::new();
    let mut after = None;
    loop {
        let page = store.list("", Some('/'), after.as_deref(), LIST_PAGE).await;
        let page = page.map_err(|error| Error::store("list the pool", error))?;
        for prefix in &page.prefixes {
            let Ok(name) = ImageName::parse(prefix.trim_end_matches('/')) else { continue };
            match store.head(&name.superblock()).await {
                Ok(_) => names.push(name),
                Err(error) if error.kind() == StoreKind::NotFound => {}
                Err(error) => return Err(Error::store(format!("look at image {name}"), error)),
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(names),
        }
    }
}

/// An object of an image, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: ObjectName,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Every object of an image, the superblock included, sorted by name.
///
/// # Errors
/// What the store says.
pub async fn objects(store: &Arc<dyn ObjectStore>, image: &ImageName) -> Result<Vec<Listed>> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = store.list(&image.prefix(), None, after.as_deref(), LIST_PAGE).await;
        let page = page
            .map_err(|error| Error::store(format!("list the objects of image {image}"), error))?;
        for (key, bytes) in &page.objects {
            if let Some(name) = ObjectName::parse(key) {
                found.push(Listed { name, bytes: *bytes });
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(found),
        }
    }
}

/// Deletes an image and everything of it; an interrupted deletion is finished by another.
/// `progress` is told how many objects of how many are gone. Returns how many objects were deleted,
/// the superblock included.
///
/// # Errors
/// `InUse` naming the clones that need it, or the owner unless `force`, `NotFound` if there is
/// nothing, or what the store says.
pub async fn delete(
    store: &Arc<dyn ObjectStore>,
    name: &ImageName,
    force: bool,
    progress: &mut (dyn FnMut(usize, usize) + Send),
) -> Result<usize> {
    match fence::load(&**store, name).await {
        Ok(known) => {
            if !known.superblock.children.is_empty() {
                let names: Vec<&str> =
                    known.superblock.children.iter().map(|child| child.name.as_str()).collect();
                let context = format!("image {name} is needed by its clones: {}", names.join(", "));
                return Err(Error::new(ErrorKind::InUse, context));
            }
            if let Some(owner) = known.superblock.owner.filter(|_| !force) {
                let context = format!(
                    "image {name} is in use by {} (process {}, {}); close it there first, or force \
                     its deletion",
                    owner.host, owner.pid, owner.place
                );
                return Err(Error::new(ErrorKind::InUse, context));
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if objects(store, name).await?.is_empty() {
                return Err(error);
            }
        }
        Err(error) if error.kind() == ErrorKind::Corrupt && force => {}
        Err(error) => return Err(error),
    }
    // The superblock goes first: an image is there as a whole or not at all.
    let superblock = match store.delete(&name.superblock()).await {
        Ok(()) => 1,
        Err(error) if error.kind() == StoreKind::NotFound => 0,
        Err(error) => return Err(Error::store(format!("delete image {name}"), error)),
    };
    Ok(superblock + delete_objects(store, name, progress).await?)
}

async fn delete_objects(
    store: &Arc<dyn ObjectStore>,
    name: &ImageName,
    progress: &mut (dyn FnMut(usize, usize) + Send),
) -> Result<usize> {
    let objects = objects(store, name).await?;
    let numbered: Vec<String> = objects
        .iter()
        .filter(|object| matches!(object.name, ObjectName::Numbered(..)))
        .map(|object| object.name.to_string())
        .collect();
    let total = numbered.len();
    let mut done = 0;
    let mut running = JoinSet::new();
    let mut waiting = numbered.into_iter();
    loop {
        while running.len() < PARALLEL
            && let Some(key) = waiting.next()
        {
            let store = Arc::clone(store);
            running.spawn(async move {
                match store.delete(&key).await {
                    Err(error) if error.kind() != StoreKind::NotFound => {
                        Err(Error::store(format!("delete object {key}"), error))
                    }
                    _ => Ok(()),
                }
            });
        }
        let Some(result) = running.join_next().await else { return Ok(done) };
        result.map_err(|error| Error::with(ErrorKind::Failed, "a delete ended", error))??;
        done += 1;
        progress(done, total);
    }
}
