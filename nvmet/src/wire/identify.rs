//! Identify data structures (section 5.17.2, NVM section 4.1.5).
//!
//! What a controller is and can do is decided by who fills in [`ControllerInfo`] and
//! [`NamespaceInfo`]; here is only where each value goes.

mod controller;
mod namespace;

pub use controller::{
    ControllerInfo, ControllerKind, NvmLimits, anacap, cmic, ctratt, lpa, oncs, sgls, vwc,
};
pub use namespace::{NamespaceInfo, nmic, nsfeat};

use super::status::Status;

/// Bytes of every Identify structure.
pub const BYTES: usize = 4096;

/// Most entries of a namespace list.
pub const NAMESPACE_LIST_MAX: usize = BYTES / 4;
/// Most entries of a controller list.
pub const CONTROLLER_LIST_MAX: usize = BYTES / 2 - 1;

/// A page of zeroes: the structures of which no field applies, among them CNS 05h for a namespace
/// without metadata and protection information.
pub const EMPTY: [u8; BYTES] = [0; BYTES];

/// CNS 02h, 07h, 10h and 1Ah: the first 1024 of the ascending `ids` that are greater than `above`.
///
/// # Errors
/// Invalid Namespace, do not retry, if `above` is FFFFFFFEh or FFFFFFFFh: nothing can follow.
pub fn namespace_list(
    ids: impl IntoIterator<Item = u32>,
    above: u32,
) -> Result<[u8; BYTES], Status> {
    if above >= u32::MAX - 1 {
        return Err(Status::INVALID_NAMESPACE.dnr());
    }
    let mut page = EMPTY;
    let (fields, _) = page.as_chunks_mut();
    for (field, id) in fields.iter_mut().zip(ids.into_iter().filter(|&id| id > above)) {
        *field = id.to_le_bytes();
    }
    Ok(page)
}

/// The entries of a namespace list, up to the first unused one.
pub fn parse_namespace_list(page: &[u8; BYTES]) -> impl Iterator<Item = u32> {
    let (fields, _) = page.as_chunks();
    fields.iter().map(|field| u32::from_le_bytes(*field)).take_while(|&id| id != 0)
}

/// CNS 12h and 13h: the first 2047 of the ascending `ids` from `from` on.
pub fn controller_list(ids: impl IntoIterator<Item = u16>, from: u16) -> [u8; BYTES] {
    let mut page = EMPTY;
    let (fields, _) = page.as_chunks_mut();
    let [count, fields @ ..] = fields else { unreachable!("a page has 2048 fields") };
    let mut used = 0_u16;
    for (field, id) in fields.iter_mut().zip(ids.into_iter().filter(|&id| id >= from)) {
        *field = id.to_le_bytes();
        used += 1;
    }
    *count = used.to_le_bytes();
    page
}

/// CNS 1Ch: one combination, the NVM command set alone (bit 0).
#[must_use]
pub fn command_sets() -> [u8; BYTES] {
    let mut page = EMPTY;
    page[0] = 1;
    page
}

#[cfg(test)]
mod test;
