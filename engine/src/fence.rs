//! One writer: this gateway's term on an image, claimed and kept by compare-and-swap of the
//! superblock.
//!
//! Invariants: 1. a change of the superblock is made only to a version that names us as the owner.
//! 2. `Fenced` is final. 3. Whatever is acknowledged as being in the store was put there *before* a
//! check found the term unbroken: a successor claims first and looks for objects afterwards, so it
//! finds ours. Concurrency: one change at a time, under a fair asynchronous lock.

use lsvd_common::ids::{Epoch, ImageId, LogId};
use lsvd_common::name::ImageName;
use lsvd_common::object::superblock::{RO_COMPAT_KNOWN, Superblock};
use lsvd_store::{ErrorKind as StoreKind, ObjectStore, PutMode, Version};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};

/// A superblock as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) superblock: Superblock,
    pub(crate) version: Version,
}

/// Reads the superblock of an image.
pub(crate) async fn load(store: &dyn ObjectStore, name: &ImageName) -> Result<Known> {
    let key = name.superblock();
    let object = store.get(&key).await.map_err(|error| match error.kind() {
        StoreKind::NotFound => {
            let context = format!("there is no image {name} in {}", store.describe());
            Error::new(ErrorKind::NotFound, context)
        }
        _ => Error::store(format!("read the superblock of image {name}"), error),
    })?;
    let superblock = Superblock::decode(&object.body).map_err(|error| {
        let context = format!(
            "the superblock of image {name} (object {key} in {}) is damaged",
            store.describe()
        );
        Error::corrupt(context, error)
    })?;
    Ok(Known { superblock, version: object.version })
}

/// Checks that this software knows every feature that it must know to write the image.
pub(crate) fn check_features(name: &ImageName, superblock: &Superblock) -> Result<()> {
    let bits = superblock.features.ro_compat & !RO_COMPAT_KNOWN;
    if bits == 0 {
        return Ok(());
    }
    let context = format!(
        "image {name} has features {bits:#x} that this software cannot write; use a newer one"
    );
    Err(Error::new(ErrorKind::ReadOnly, context))
}

/// Writes a changed superblock over the version that was read. `None` if somebody changed it
/// meanwhile.
pub(crate) async fn swap(
    store: &dyn ObjectStore,
    name: &ImageName,
    superblock: &Superblock,
    over: &Version,
) -> Result<Option<Version>> {
    let context = || format!("write the superblock of image {name}");
    let body =
        superblock.encode().map_err(|error| Error::with(ErrorKind::Invalid, context(), error))?;
    match store.put(&name.superblock(), body.into(), PutMode::IfMatch(over.clone())).await {
        Ok(version) => Ok(Some(version)),
        Err(error) if error.kind() == StoreKind::PreconditionFailed => Ok(None),
        Err(error) => Err(Error::store(context(), error)),
    }
}

/// A claimed term.
#[derive(Debug)]
pub(crate) struct Term {
    store: Arc<dyn ObjectStore>,
    name: ImageName,
    image: ImageId,
    log: LogId,
    epoch: Epoch,
    known: tokio::sync::Mutex<Known>,
}

impl Term {
    /// The term that `known` records as ours.
    pub(crate) fn new(
        store: Arc<dyn ObjectStore>,
        name: ImageName,
        log: LogId,
        known: Known,
    ) -> Self {
        let (image, epoch) = (known.superblock.image, known.superblock.epoch);
        Self { store, name, image, log, epoch, known: tokio::sync::Mutex::new(known) }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Checks that nobody has taken over.
    ///
    /// # Errors
    /// `Fenced`, or what the store says.
    pub(crate) async fn check(&self) -> Result<()> {
        let mut known = self.known.lock().await;
        let head = self.store.head(&self.name.superblock()).await;
        match head {
            Ok(meta) if meta.version == known.version => Ok(()),
            Ok(_) => {
                *known = self.reload().await?;
                Ok(())
            }
            Err(error) if error.kind() == StoreKind::NotFound => Err(self.deleted()),
            Err(error) => {
                Err(Error::store(format!("check the superblock of image {}", self.name), error))
            }
        }
    }

    /// Changes the superblock, as often as it takes while others change it too.
    ///
    /// # Errors
    /// `Fenced`, or what the store says; then nothing, or exactly this change, was made.
    pub(crate) async fn update(&self, change: impl Fn(&mut Superblock)) -> Result<()> {
        let mut known = self.known.lock().await;
        loop {
            let mut superblock = known.superblock.clone();
            change(&mut superblock);
            match swap(&*self.store, &self.name, &superblock, &known.version).await? {
                Some(version) => {
                    *known = Known { superblock, version };
                    return Ok(());
                }
                None => *known = self.reload().await?,
            }
        }
    }

    /// Ends the term: the image has no owner any more.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub(crate) async fn release(&self) -> Result<()> {
        let released = self.update(|superblock| superblock.owner = None).await;
        let Err(error) = released else { return Ok(()) };
        // If the answer to our own release was lost, it looks as if somebody had taken the image
        // from us.
        let now = load(&*self.store, &self.name).await.map(|known| known.superblock);
        let ours = |now: &Superblock| {
            now.image == self.image && now.epoch == self.epoch && now.owner.is_none()
        };
        if now.as_ref().is_ok_and(ours) { Ok(()) } else { Err(error) }
    }

    async fn reload(&self) -> Result<Known> {
        let known = load(&*self.store, &self.name).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => self.deleted(),
            _ => error,
        })?;
        let superblock = &known.superblock;
        let ours = superblock.image == self.image
            && superblock.epoch == self.epoch
            && superblock.owner.as_ref().is_some_and(|owner| owner.log == self.log);
        if ours {
            return Ok(known);
        }
        let by = match &superblock.owner {
            Some(owner) => format!("{} (process {}, {})", owner.host, owner.pid, owner.place),
            None => String::from("a gateway that has closed it since"),
        };
        let context = format!(
            "image {} was taken over by {by}: its epoch is {}, ours was {}; this gateway \
             acknowledges nothing any more for it",
            self.name, superblock.epoch, self.epoch
        );
        Err(Error::new(ErrorKind::Fenced, context))
    }

    fn deleted(&self) -> Error {
        Error::new(ErrorKind::Fenced, format!("image {} was deleted under this gateway", self.name))
    }
}
