//! Reservation commands (sections 7.2 to 7.5).

use super::io::IoOpcode;
use crate::wire::pdu::Direction;
use crate::wire::sgl::DataRule;
use crate::wire::sqe::Sqe;
use crate::wire::status::Status;

/// A reservation command without its keys, which are its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reservation {
    /// Section 7.3; data: current key, new key.
    Register {
        /// Reservation Register Action (RREGA), dword 10 bits 2:0.
        action: RegisterAction,
        /// Ignore Existing Key (IEKEY), dword 10 bit 3.
        ignore_key: bool,
        /// Change Persist Through Power Loss State (CPTPL), dword 10 bits 31:30.
        persist: PersistChange,
    },
    /// Section 7.5.
    Report {
        /// Length in bytes, from the 0-based Number of Dwords (NUMD) in dword 10.
        len: u32,
        /// Extended Data Structure (EDS), dword 11 bit 0; hosts over fabrics must set it.
        extended: bool,
    },
    /// Section 7.2; data: current key, key to preempt.
    Acquire {
        /// Reservation Acquire Action (RACQA), dword 10 bits 2:0.
        action: AcquireAction,
        /// Reservation Type (RTYPE), dword 10 bits 15:8.
        kind: ReservationType,
    },
    /// Section 7.4; data: current key.
    Release {
        /// Reservation Release Action (RRELA), dword 10 bits 2:0.
        action: ReleaseAction,
        /// Reservation Type (RTYPE), dword 10 bits 15:8; `None` where Clear leaves it 0.
        kind: Option<ReservationType>,
    },
}

/// RREGA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum RegisterAction {
    /// Register the new key.
    Register = 0,
    /// Remove the registration.
    Unregister = 1,
    /// Replace the current key by the new one.
    Replace = 2,
}

/// CPTPL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum PersistChange {
    /// No change.
    Keep = 0,
    /// Reservations end with power.
    Clear = 2,
    /// Reservations outlast a power loss.
    Set = 3,
}

/// RACQA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum AcquireAction {
    /// Take a free reservation.
    Acquire = 0,
    /// Take it from its holder.
    Preempt = 1,
    /// Take it from its holder and abort the holder's commands.
    PreemptAndAbort = 2,
}

/// RRELA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ReleaseAction {
    /// Give the reservation up.
    Release = 0,
    /// Remove the reservation and all registrations.
    Clear = 1,
}

/// RTYPE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ReservationType {
    /// Only the holder writes.
    WriteExclusive = 1,
    /// Only the holder reads and writes.
    ExclusiveAccess = 2,
    /// Only registrants write.
    WriteExclusiveRegistrantsOnly = 3,
    /// Only registrants read and write.
    ExclusiveAccessRegistrantsOnly = 4,
    /// Only registrants write, and all of them hold it.
    WriteExclusiveAllRegistrants = 5,
    /// Only registrants read and write, and all of them hold it.
    ExclusiveAccessAllRegistrants = 6,
}

impl ReservationType {
    fn parse(rtype: u8) -> Option<Self> {
        Some(match rtype {
            1 => Self::WriteExclusive,
            2 => Self::ExclusiveAccess,
            3 => Self::WriteExclusiveRegistrantsOnly,
            4 => Self::ExclusiveAccessRegistrantsOnly,
            5 => Self::WriteExclusiveAllRegistrants,
            6 => Self::ExclusiveAccessAllRegistrants,
            _ => return None,
        })
    }
}

const ACTION: u32 = 7;
const IGNORE_KEY: u32 = 1 << 3;
const RTYPE_SHIFT: u32 = 8;
const CPTPL_SHIFT: u32 = 30;

impl Reservation {
    pub(super) fn parse(opcode: IoOpcode, sqe: &Sqe) -> Result<Self, Status> {
        let cdw10 = sqe.cdw10.get();
        let parsed = match opcode {
            IoOpcode::ReservationRegister => register(cdw10),
            IoOpcode::ReservationAcquire => acquire(cdw10),
            IoOpcode::ReservationRelease => release(cdw10),
            // Every other opcode was parsed elsewhere.
            _ => report(cdw10, sqe.cdw11.get()),
        };
        parsed.ok_or(Status::INVALID_FIELD.dnr())
    }

    pub(super) fn write(self, sqe: &mut Sqe) {
        match self {
            Self::Register { action, ignore_key, persist } => {
                let ignore_key = if ignore_key { IGNORE_KEY } else { 0 };
                let persist = (persist as u32) << CPTPL_SHIFT;
                sqe.cdw10 = (action as u32 | ignore_key | persist).into();
            }
            Self::Report { len, extended } => {
                sqe.cdw10 = (len / 4).saturating_sub(1).into();
                sqe.cdw11 = u32::from(extended).into();
            }
            Self::Acquire { action, kind } => {
                sqe.cdw10 = (action as u32 | (kind as u32) << RTYPE_SHIFT).into();
            }
            Self::Release { action, kind } => {
                let kind = kind.map_or(0, |kind| kind as u32);
                sqe.cdw10 = (action as u32 | kind << RTYPE_SHIFT).into();
            }
        }
    }

    pub(super) const fn opcode(self) -> IoOpcode {
        match self {
            Self::Register { .. } => IoOpcode::ReservationRegister,
            Self::Report { .. } => IoOpcode::ReservationReport,
            Self::Acquire { .. } => IoOpcode::ReservationAcquire,
            Self::Release { .. } => IoOpcode::ReservationRelease,
        }
    }

    pub(super) const fn data_rule(self) -> DataRule {
        match self {
            Self::Register { .. } | Self::Acquire { .. } => {
                DataRule::Exact(Direction::HostToController, 16)
            }
            Self::Release { .. } => DataRule::Exact(Direction::HostToController, 8),
            Self::Report { len, .. } => DataRule::Exact(Direction::ControllerToHost, len),
        }
    }
}

fn register(cdw10: u32) -> Option<Reservation> {
    Some(Reservation::Register {
        action: match cdw10 & ACTION {
            0 => RegisterAction::Register,
            1 => RegisterAction::Unregister,
            2 => RegisterAction::Replace,
            _ => return None,
        },
        ignore_key: cdw10 & IGNORE_KEY != 0,
        persist: match cdw10 >> CPTPL_SHIFT {
            0 => PersistChange::Keep,
            2 => PersistChange::Clear,
            3 => PersistChange::Set,
            _ => return None,
        },
    })
}

fn report(cdw10: u32, cdw11: u32) -> Option<Reservation> {
    let len = u32::try_from((u64::from(cdw10) + 1) * 4).ok()?;
    Some(Reservation::Report { len, extended: cdw11 & 1 != 0 })
}

/// IEKEY with Acquire and Release existed up to 1.2 and must be 0 since.
fn without_ignored_key(cdw10: u32) -> Option<u8> {
    (cdw10 & IGNORE_KEY == 0).then_some((cdw10 >> RTYPE_SHIFT) as u8)
}

fn acquire(cdw10: u32) -> Option<Reservation> {
    Some(Reservation::Acquire {
        action: match cdw10 & ACTION {
            0 => AcquireAction::Acquire,
            1 => AcquireAction::Preempt,
            2 => AcquireAction::PreemptAndAbort,
            _ => return None,
        },
        kind: ReservationType::parse(without_ignored_key(cdw10)?)?,
    })
}

fn release(cdw10: u32) -> Option<Reservation> {
    let rtype = without_ignored_key(cdw10)?;
    match cdw10 & ACTION {
        0 => Some(Reservation::Release {
            action: ReleaseAction::Release,
            kind: Some(ReservationType::parse(rtype)?),
        }),
        1 => Some(Reservation::Release {
            action: ReleaseAction::Clear,
            kind: ReservationType::parse(rtype),
        }),
        _ => None,
    }
}
