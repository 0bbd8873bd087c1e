//! Status of a completion (section 3.3.3.2.1).

use std::fmt;

/// Status field of a completion without its phase bit: code, type, retry delay, more, do not retry.
///
/// The constants carry no flags: whether a retry can help is known where the error arises, see
/// [`Status::dnr`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(u16);

const DNR: u16 = 1 << 14;
const MORE: u16 = 1 << 13;
const CRD_SHIFT: u32 = 11;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = ($sct:literal, $sc:literal);)*) => {
        impl Status {
            $($(#[$doc])* pub const $name: Self = Self::new($sct, $sc);)*

            /// Name of the code as in the specification's tables, `None` for one not in use here.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match (self.sct(), self.sc()) {
                    $(($sct, $sc) => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// Successful completion.
    SUCCESS = (0, 0x00);
    /// Invalid Command Opcode.
    INVALID_OPCODE = (0, 0x01);
    /// Invalid Field in Command.
    INVALID_FIELD = (0, 0x02);
    /// Command ID Conflict.
    CID_CONFLICT = (0, 0x03);
    /// Data Transfer Error.
    DATA_TRANSFER_ERROR = (0, 0x04);
    /// Internal Error.
    INTERNAL_ERROR = (0, 0x06);
    /// Command Abort Requested.
    ABORT_REQUESTED = (0, 0x07);
    /// Command Aborted due to SQ Deletion.
    ABORTED_SQ_DELETION = (0, 0x08);
    /// Invalid Namespace or Format.
    INVALID_NAMESPACE = (0, 0x0b);
    /// Command Sequence Error.
    COMMAND_SEQUENCE_ERROR = (0, 0x0c);
    /// Invalid SGL Segment Descriptor.
    SGL_SEGMENT_INVALID = (0, 0x0d);
    /// Invalid Number of SGL Descriptors.
    SGL_COUNT_INVALID = (0, 0x0e);
    /// Data SGL Length Invalid.
    SGL_DATA_LENGTH_INVALID = (0, 0x0f);
    /// SGL Descriptor Type Invalid.
    SGL_TYPE_INVALID = (0, 0x11);
    /// SGL Offset Invalid.
    SGL_OFFSET_INVALID = (0, 0x16);
    /// Host Identifier Inconsistent Format.
    HOST_ID_INCONSISTENT = (0, 0x18);
    /// Keep Alive Timer Expired.
    KEEP_ALIVE_EXPIRED = (0, 0x19);
    /// Keep Alive Timeout Invalid.
    KEEP_ALIVE_INVALID = (0, 0x1a);
    /// Transient Transport Error.
    TRANSIENT_TRANSPORT_ERROR = (0, 0x22);
    /// Command Interrupted: retry later.
    COMMAND_INTERRUPTED = (0, 0x21);
    /// Namespace is Write Protected.
    NAMESPACE_WRITE_PROTECTED = (0, 0x20);
    /// LBA Out of Range.
    LBA_OUT_OF_RANGE = (0, 0x80);
    /// Capacity Exceeded.
    CAPACITY_EXCEEDED = (0, 0x81);
    /// Namespace Not Ready.
    NAMESPACE_NOT_READY = (0, 0x82);
    /// Reservation Conflict.
    RESERVATION_CONFLICT = (0, 0x83);

    /// Invalid Queue Identifier.
    INVALID_QUEUE_ID = (1, 0x01);
    /// Abort Command Limit Exceeded.
    ABORT_LIMIT_EXCEEDED = (1, 0x03);
    /// Asynchronous Event Request Limit Exceeded.
    ASYNC_EVENT_LIMIT_EXCEEDED = (1, 0x05);
    /// Invalid Log Page.
    INVALID_LOG_PAGE = (1, 0x09);
    /// Feature Identifier Not Saveable.
    FEATURE_NOT_SAVEABLE = (1, 0x0d);
    /// Feature Not Changeable.
    FEATURE_NOT_CHANGEABLE = (1, 0x0e);
    /// Feature Not Namespace Specific.
    FEATURE_NOT_NAMESPACE_SPECIFIC = (1, 0x0f);
    /// I/O Command Set Not Supported.
    COMMAND_SET_NOT_SUPPORTED = (1, 0x29);
    /// I/O Command Set Combination Rejected.
    COMMAND_SET_COMBINATION_REJECTED = (1, 0x2b);
    /// Connect Incompatible Format.
    CONNECT_INCOMPATIBLE_FORMAT = (1, 0x80);
    /// Connect Controller Busy.
    CONNECT_CONTROLLER_BUSY = (1, 0x81);
    /// Connect Invalid Parameters.
    CONNECT_INVALID_PARAMETERS = (1, 0x82);
    /// Connect Restart Discovery.
    CONNECT_RESTART_DISCOVERY = (1, 0x83);
    /// Connect Invalid Host.
    CONNECT_INVALID_HOST = (1, 0x84);
    /// Invalid Queue Type.
    INVALID_QUEUE_TYPE = (1, 0x85);
    /// Authentication Required.
    AUTHENTICATION_REQUIRED = (1, 0x91);

    /// Write Fault.
    WRITE_FAULT = (2, 0x80);
    /// Unrecovered Read Error.
    UNRECOVERED_READ_ERROR = (2, 0x81);
    /// Compare Failure.
    COMPARE_FAILURE = (2, 0x85);
    /// Access Denied.
    ACCESS_DENIED = (2, 0x86);

    /// Internal Path Error.
    INTERNAL_PATH_ERROR = (3, 0x00);
    /// Asymmetric Access Persistent Loss.
    ANA_PERSISTENT_LOSS = (3, 0x01);
    /// Asymmetric Access Inaccessible.
    ANA_INACCESSIBLE = (3, 0x02);
    /// Asymmetric Access Transition.
    ANA_TRANSITION = (3, 0x03);
    /// Host Aborted Command.
    HOST_ABORTED_COMMAND = (3, 0x71);
}

impl Status {
    const fn new(sct: u8, sc: u8) -> Self {
        Self((sct as u16) << 8 | sc as u16)
    }

    /// With Do Not Retry: the same command can not succeed later.
    #[must_use]
    pub const fn dnr(self) -> Self {
        Self(self.0 | DNR)
    }

    /// With More: the error log has an entry about it.
    #[must_use]
    pub const fn more(self) -> Self {
        Self(self.0 | MORE)
    }

    /// Asks the host to wait for delay 1 to 3 (CRDT of the controller) before it retries; 0 is
    /// at once. Other values are cut to two bits.
    #[must_use]
    pub const fn retry_after(self, crdt: u8) -> Self {
        Self(self.0 & !(3 << CRD_SHIFT) | ((crdt as u16 & 3) << CRD_SHIFT))
    }

    /// Status code type, 0 to 7.
    #[must_use]
    pub const fn sct(self) -> u8 {
        (self.0 >> 8) as u8 & 7
    }

    /// Status code.
    #[must_use]
    pub const fn sc(self) -> u8 {
        self.0 as u8
    }

    /// Type and code without flags, to compare with the constants.
    #[must_use]
    pub const fn code(self) -> Self {
        Self(self.0 & 0x7ff)
    }

    /// Whether type and code say success.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.code().0 == 0
    }

    /// Whether Do Not Retry is set.
    #[must_use]
    pub const fn is_dnr(self) -> bool {
        self.0 & DNR != 0
    }

    /// Bytes 14 and 15 of a completion; the phase bit is reserved over fabrics and 0.
    #[must_use]
    pub const fn to_field(self) -> u16 {
        self.0 << 1
    }

    /// Reads what [`Self::to_field`] wrote.
    #[must_use]
    pub const fn from_field(field: u16) -> Self {
        Self(field >> 1)
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name)?,
            None => write!(f, "{:#x}/{:#x}", self.sct(), self.sc())?,
        }
        if self.is_dnr() { f.write_str(" DNR") } else { Ok(()) }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn fields_are_in_the_bits_of_the_status_field() {
        // Bit 15 DNR, 14 M, 13:12 CRD, 11:9 SCT, 8:1 SC, 0 phase.
        assert_eq!(Status::INVALID_FIELD.dnr().to_field(), 0x8004);
        assert_eq!(Status::CONNECT_INVALID_PARAMETERS.dnr().to_field(), 0x8304);
        assert_eq!(Status::INVALID_OPCODE.more().to_field(), 0x4002);
        assert_eq!(Status::NAMESPACE_NOT_READY.retry_after(1).to_field(), 0x1104);
        assert_eq!(Status::ANA_INACCESSIBLE.to_field(), 0x0604);
        assert_eq!(Status::SUCCESS.to_field(), 0);
    }

    #[test]
    fn flags_do_not_change_the_code() {
        let status = Status::LBA_OUT_OF_RANGE.dnr().more().retry_after(3);
        assert_eq!(status.code(), Status::LBA_OUT_OF_RANGE);
        assert_eq!(Status::from_field(status.to_field()), status);
        assert!(status.is_dnr() && !status.is_success());
        assert_eq!(format!("{status}"), "LBA_OUT_OF_RANGE DNR");
    }
}
