//! Log pages (section 5.16.1), built whole and read in pieces.

mod ana;
mod discovery;
mod health;

pub use ana::{AnaGroup, AnaLog, AnaState};
pub use discovery::{DiscoveryLog, DiscoveryRecord, SubsystemKind};
pub use health::{ErrorEntry, SmartInfo, firmware_slots};

use super::command::{AdminOpcode, IoOpcode, LogPageId};
use super::identify::NAMESPACE_LIST_MAX;
use super::status::Status;

/// Copies what [`GetLogPage`](super::command::GetLogPage) asks for: `out` from `offset` on. Beyond
/// the end there are zeroes.
///
/// # Errors
/// Invalid Field, do not retry, if even the first byte is beyond the end.
pub fn copy_window(page: &[u8], offset: u64, out: &mut [u8]) -> Result<(), Status> {
    let rest = usize::try_from(offset)
        .ok()
        .and_then(|offset| page.get(offset..))
        .ok_or(Status::INVALID_FIELD.dnr())?;
    let len = rest.len().min(out.len());
    let (head, tail) = out.split_at_mut(len);
    head.copy_from_slice(&rest[..len]);
    tail.fill(0);
    Ok(())
}

/// Page 00h (section 5.16.1.1): LSUPP, bit 0, of each page that is supported.
#[must_use]
pub fn supported_log_pages(pages: &[LogPageId]) -> Vec<u8> {
    let mut log = vec![0; 1024];
    for page in pages {
        log[4 * *page as usize] = 1;
    }
    log
}

/// Page 04h (section 5.16.1.5): the ascending `ids` of namespaces that changed; FFFFFFFFh alone if
/// there are more than 1024.
#[must_use]
pub fn changed_namespaces(ids: &[u32]) -> Vec<u8> {
    let ids = if ids.len() > NAMESPACE_LIST_MAX { &[u32::MAX] } else { ids };
    let mut log: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    log.resize(4 * NAMESPACE_LIST_MAX, 0);
    log
}

/// What page 05h says of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Supported (CSUPP), nothing else to know.
    None,
    /// May change the content of blocks as well (LBCC).
    Blocks,
}

/// Page 05h (section 5.16.1.6), with what each command does beside being supported.
#[must_use]
pub fn command_effects(admin: &[AdminOpcode], io: &[(IoOpcode, Effect)]) -> Vec<u8> {
    const IO_AT: usize = 1024;
    const SUPPORTED: u8 = 1 << 0;
    const BLOCK_CONTENT_CHANGE: u8 = 1 << 1;
    let mut log = vec![0; 4096];
    for opcode in admin {
        log[4 * *opcode as usize] = SUPPORTED;
    }
    for (opcode, effect) in io {
        log[IO_AT + 4 * *opcode as usize] = match effect {
            Effect::None => SUPPORTED,
            Effect::Blocks => SUPPORTED | BLOCK_CONTENT_CHANGE,
        };
    }
    log
}

#[cfg(test)]
mod test;
