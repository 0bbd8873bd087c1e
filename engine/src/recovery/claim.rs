//! Claiming an image: who may write it, and with which log.
//!
//! The superblock names the log of the current term. Whoever holds that log (its file is locked, so
//! its last user is dead) may go on without asking: nobody else wrote since. Anybody else is
//! refused with the owner's name, or takes over; a log that is not the one named holds writes that
//! are not part of the image any more and is set aside, never deleted.

use std::sync::Arc;

use lsvd_common::ids::{Epoch, ImageId};
use lsvd_common::log::header::LogSuperblock;
use lsvd_common::name::ImageName;
use lsvd_common::object::superblock::{Owner, Superblock};
use lsvd_common::units::PAGE_BYTES;

use crate::disk::Disk;
use crate::error::{Error, ErrorKind, Result};
use crate::fence::{Known, check_features, load, swap};
use crate::log::scan;
use crate::options::VolumeOptions;
use crate::recovery::{Places, new_log, renew_log};

/// The claimed image and its log.
pub(super) struct Claimed {
    pub(super) known: Known,
    pub(super) log: Arc<dyn Disk>,
    pub(super) log_superblock: LogSuperblock,
    /// The log is the one of the last term: what it holds is part of the image.
    pub(super) resumed: bool,
    pub(super) stranded: Option<Stranded>,
}

/// A log that was set aside.
#[derive(Debug)]
pub(super) struct Stranded {
    pub(super) name: String,
}

/// The file name of the write log of an image.
#[must_use]
pub fn log_name(image: ImageId) -> String {
    format!("{image}.log")
}

pub(super) async fn claim(
    places: &Places,
    name: &ImageName,
    options: &VolumeOptions,
    takeover: bool,
) -> Result<Claimed> {
    let known = load(&*places.store, name).await?;
    check_features(name, &known.superblock)?;
    let image = known.superblock.image;
    let file = log_name(image);
    let found = find_log(places, &file, image).await?;
    let ours = |superblock: &Superblock| {
        let log = found.as_ref().and_then(|(_, log)| log.as_ref().ok());
        let owner = superblock.owner.as_ref();
        owner.zip(log).is_some_and(|(owner, log)| owner.log == log.log)
    };
    let resumed = ours(&known.superblock);
    if !resumed && let Some(owner) = known.superblock.owner.as_ref().filter(|_| !takeover) {
        return Err(in_use(name, owner, found.as_ref().map(|(_, log)| log), places));
    }
    let mut usable_log = None;
    let mut stranded = None;
    match found {
        // With a takeover, a log that cannot be replayed must not stand in the way: it is lost, as
        // the caller accepts.
        Some((log, Ok(superblock))) if resumed => {
            let damaged = match scan::scan(&*log, &superblock, false).await {
                Err(error) => error.kind() == ErrorKind::Corrupt,
                Ok(_) => false,
            };
            let usable = !takeover || !damaged;
            if usable {
                check_log_size(&superblock, options, name)?;
                usable_log = Some((log, superblock, true));
            } else {
                drop(log);
                stranded = Some(set_aside(places, name, &file, known.superblock.epoch).await?);
            }
        }
        Some((log, Ok(superblock))) if is_drained(&superblock, &known.superblock) => {
            if check_log_size(&superblock, options, name).is_ok() {
                let renewed = renew_log(&*log, &superblock, options).await?;
                usable_log = Some((log, renewed, false));
            } else {
                drop(log);
                places.logs.remove(&file).await.map_err(|error| {
                    Error::disk(format!("remove the write log {file}, which is too small"), error)
                })?;
            }
        }
        Some((log, _)) => {
            drop(log);
            stranded = Some(set_aside(places, name, &file, known.superblock.epoch).await?);
        }
        None => {}
    }
    let (log, log_superblock, resumed) = match usable_log {
        Some(found) => found,
        None => {
            let (log, superblock) = new_log(&*places.logs, &file, options, image).await?;
            (log, superblock, false)
        }
    };
    let known = take(places, name, options, known, &log_superblock).await?;
    Ok(Claimed { known, log, log_superblock, resumed, stranded })
}

type FoundLog = (Arc<dyn Disk>, Result<LogSuperblock>);

/// The log file of an image on this machine, locked, with its superblock or what is wrong with it.
async fn find_log(places: &Places, file: &str, image: ImageId) -> Result<Option<FoundLog>> {
    let opened = places.logs.open(file).await.map_err(|error| {
        let busy = error.kind() == std::io::ErrorKind::ResourceBusy;
        let context = if busy {
            format!("a gateway on this machine has the write log {file} open")
        } else {
            format!("open the write log {file} in {}", places.logs.describe())
        };
        Error::disk(context, error)
    })?;
    let Some(log) = opened else { return Ok(None) };
    let superblock = scan::superblock(&*log).await.and_then(|superblock| {
        if superblock.image == image {
            return Ok(superblock);
        }
        let context = format!("the write log {file} belongs to image {}", superblock.image);
        Err(Error::new(ErrorKind::Corrupt, context))
    });
    match superblock {
        // An SSD that does not answer says nothing about what the log holds.
        Err(error) if error.kind() != ErrorKind::Corrupt => Err(error),
        other => Ok(Some((log, other))),
    }
}

fn in_use(
    name: &ImageName,
    owner: &Owner,
    log: Option<&Result<LogSuperblock>>,
    places: &Places,
) -> Error {
    let here = match log {
        Some(Err(error)) => format!("; its write log here cannot be used: {}", error.report()),
        Some(Ok(_)) | None => {
            format!("; its write log is not in {}", places.logs.describe())
        }
    };
    let context = format!(
        "image {name} is in use by {} (process {}, write log {} in {}){here}. If that gateway is gone for good, take the image over: what it had not sent \
         to the store is then lost",
        owner.host, owner.pid, owner.log, owner.place
    );
    Error::new(ErrorKind::InUse, context)
}

/// True if nothing in the log is needed: it was closed cleanly, or we released the image and nobody
/// had it since.
fn is_drained(log: &LogSuperblock, image: &Superblock) -> bool {
    log.clean || (log.epoch == image.epoch && image.owner.is_none())
}

/// A log keeps its size for as long as it is used; other options may ask too much of it.
fn check_log_size(log: &LogSuperblock, options: &VolumeOptions, name: &ImageName) -> Result<()> {
    let log_bytes = log.ring_pages * PAGE_BYTES;
    VolumeOptions { log_bytes, ..options.clone() }.check().map_err(|error| {
        let context = format!(
            "the write log of image {name} has {} MiB and still holds writes; open the image with \
             the options it was used with, close it, and try again: {}",
            log_bytes >> 20,
            error.report()
        );
        Error::new(ErrorKind::Invalid, context)
    })
}

async fn set_aside(
    places: &Places,
    name: &ImageName,
    file: &str,
    epoch: Epoch,
) -> Result<Stranded> {
    let aside = format!("{file}.stranded-{epoch}");
    places.logs.rename(file, &aside).await.map_err(|error| {
        Error::disk(format!("set the old write log {file} aside as {aside}"), error)
    })?;
    tracing::warn!(
        image = %name, log = %aside, place = places.logs.describe(),
        "a write log was set aside: it holds writes that are not part of the image any more"
    );
    Ok(Stranded { name: aside })
}

/// Writes the claim. If the superblock changes under us, the caller starts over: who owns it may
/// have changed.
async fn take(
    places: &Places,
    name: &ImageName,
    options: &VolumeOptions,
    known: Known,
    log: &LogSuperblock,
) -> Result<Known> {
    let mut superblock = known.superblock;
    superblock.epoch = superblock.epoch.next();
    superblock.owner = Some(Owner {
        log: log.log,
        claimed_ms: options.world.wall_ms(),
        pid: options.owner_pid,
        host: options.owner_host.clone(),
        place: options.owner_place.clone(),
    });
    match swap(&*places.store, name, &superblock, &known.version).await? {
        Some(version) => Ok(Known { superblock, version }),
        None => {
            let context = format!(
                "image {name} was claimed by another gateway, or resized, at the same moment"
            );
            Err(Error::new(ErrorKind::InUse, context))
        }
    }
}
