//! Fabrics commands (section 6).

use uuid::Uuid;
use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::nqn::Nqn;
use crate::wire::pdu::Direction;
use crate::wire::property::Property;
use crate::wire::sgl::DataRule;
use crate::wire::sqe::{OPCODE_FABRICS, Sqe};
use crate::wire::status::Status;

/// Fabrics Command Types (section 6).
mod fctype {
    pub(super) const PROPERTY_SET: u8 = 0x00;
    pub(super) const CONNECT: u8 = 0x01;
    pub(super) const PROPERTY_GET: u8 = 0x04;
    pub(super) const DISCONNECT: u8 = 0x08;
}

/// A command with opcode 7Fh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FabricsCommand {
    /// Makes this connection a queue (section 6.3); brings [`ConnectData`].
    Connect(Connect),
    /// Reads a controller property (section 6.5).
    PropertyGet(Property),
    /// Writes a controller property (section 6.6).
    PropertySet {
        /// Property Offset (OFST).
        property: Property,
        /// Value (VALUE), as wide as the property.
        value: u64,
    },
    /// Ends an I/O queue (section 6.4).
    Disconnect,
}

/// The command part of Connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connect {
    /// Queue ID (QID): 0 is the admin queue.
    pub qid: u16,
    /// Submission Queue Size (SQSIZE), 0-based entries; any value.
    pub sqsize: u16,
    /// CATTR bit 2: the host does without SQ flow control.
    pub without_flow_control: bool,
    /// Keep Alive Timeout (KATO) in milliseconds, 0 for none; admin queue only.
    pub kato_ms: u32,
}

/// Where Connect was wrong: DW0 of a completion with Connect Invalid Parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectError {
    /// Connect Incompatible Format: the record format is not 0.
    Format,
    /// A field of the command at this offset in bytes.
    Command(u16),
    /// A field of the data at this offset in bytes.
    Data(u16),
}

impl ConnectError {
    /// QID in the command.
    pub const QID: Self = Self::Command(42);
    /// SQSIZE in the command.
    pub const SQSIZE: Self = Self::Command(44);
    /// KATO in the command.
    pub const KATO: Self = Self::Command(48);
    /// HOSTID in the data.
    pub const HOST_ID: Self = Self::Data(0);
    /// CNTLID in the data.
    pub const CNTLID: Self = Self::Data(16);
    /// SUBNQN in the data.
    pub const SUBNQN: Self = Self::Data(256);
    /// HOSTNQN in the data.
    pub const HOSTNQN: Self = Self::Data(512);

    /// Status to answer with; the same command can not succeed later.
    #[must_use]
    pub const fn status(self) -> Status {
        match self {
            Self::Format => Status::CONNECT_INCOMPATIBLE_FORMAT.dnr(),
            Self::Command(_) | Self::Data(_) => Status::CONNECT_INVALID_PARAMETERS.dnr(),
        }
    }

    /// DW0: Invalid Parameter Offset (IPO) in bits 15:0, bit 16 (IATTR) set for the data. With
    /// Incompatible Format it is the record format that is supported, 0.
    #[must_use]
    pub const fn dw0(self) -> u32 {
        match self {
            Self::Format => 0,
            Self::Command(offset) => offset as u32,
            Self::Data(offset) => 1 << 16 | offset as u32,
        }
    }
}

impl FabricsCommand {
    /// Reads a command whose opcode is 7Fh.
    ///
    /// # Errors
    /// Invalid Field for types that are not known, authentication among them, and for a property
    /// that does not exist or has another width; the status of [`ConnectError::Format`].
    pub fn parse(sqe: &Sqe) -> Result<Self, Status> {
        match sqe.fctype() {
            fctype::CONNECT => Connect::parse(sqe).map(Self::Connect),
            fctype::PROPERTY_GET => property(sqe).map(Self::PropertyGet),
            fctype::PROPERTY_SET => {
                let property = property(sqe)?;
                let value = sqe.cdw12_13();
                let value = if property.is_wide() { value } else { value & u64::from(u32::MAX) };
                Ok(Self::PropertySet { property, value })
            }
            fctype::DISCONNECT if sqe.cdw10.get() as u16 == 0 => Ok(Self::Disconnect),
            fctype::DISCONNECT => Err(Status::CONNECT_INCOMPATIBLE_FORMAT.dnr()),
            // The opcode is right, and FCTYPE is a field. Connect never asks for authentication, so
            // that no host sends those commands.
            _ => Err(Status::INVALID_FIELD.dnr()),
        }
    }

    /// What the command demands of its data.
    #[must_use]
    pub const fn data_rule(&self) -> DataRule {
        match self {
            Self::Connect(_) => {
                DataRule::Exact(Direction::HostToController, ConnectData::BYTES as u32)
            }
            Self::PropertyGet(_) | Self::PropertySet { .. } | Self::Disconnect => DataRule::None,
        }
    }

    /// The entry that [`Self::parse`] reads, for hosts; the caller adds the SGL of Connect.
    #[must_use]
    pub fn to_sqe(&self, cid: u16) -> Sqe {
        let mut sqe = Sqe::new(OPCODE_FABRICS, cid, 0);
        match *self {
            Self::Connect(connect) => {
                sqe.nsid = u32::from(fctype::CONNECT).into();
                sqe.cdw10 = (u32::from(connect.qid) << 16).into();
                let cattr = u32::from(connect.without_flow_control) << CATTR_NO_FLOW_CONTROL_BIT;
                sqe.cdw11 = (u32::from(connect.sqsize) | cattr << 16).into();
                sqe.cdw12 = connect.kato_ms.into();
            }
            Self::PropertyGet(property) => {
                sqe.nsid = u32::from(fctype::PROPERTY_GET).into();
                sqe.cdw10 = u32::from(property.is_wide()).into();
                sqe.cdw11 = property.offset().into();
            }
            Self::PropertySet { property, value } => {
                sqe.nsid = u32::from(fctype::PROPERTY_SET).into();
                sqe.cdw10 = u32::from(property.is_wide()).into();
                sqe.cdw11 = property.offset().into();
                sqe.set_cdw12_13(value);
            }
            Self::Disconnect => sqe.nsid = u32::from(fctype::DISCONNECT).into(),
        }
        sqe
    }
}

/// CATTR bit 2: disable SQ flow control.
const CATTR_NO_FLOW_CONTROL_BIT: u32 = 2;

impl Connect {
    fn parse(sqe: &Sqe) -> Result<Self, Status> {
        let cdw10 = sqe.cdw10.get();
        let cdw11 = sqe.cdw11.get();
        if cdw10 as u16 != 0 {
            return Err(ConnectError::Format.status());
        }
        let cattr = cdw11 >> 16;
        Ok(Self {
            qid: (cdw10 >> 16) as u16,
            sqsize: cdw11 as u16,
            without_flow_control: cattr >> CATTR_NO_FLOW_CONTROL_BIT & 1 != 0,
            kato_ms: sqe.cdw12.get(),
        })
    }
}

/// ATTRIB bits 2:0 say 0 for 4 bytes and 1 for 8; OFST follows in dword 11.
fn property(sqe: &Sqe) -> Result<Property, Status> {
    Property::parse(sqe.cdw11.get())
        .filter(|property| sqe.cdw10.get() & 7 == u32::from(property.is_wide()))
        .ok_or(Status::INVALID_FIELD.dnr())
}

/// Data of Connect (section 6.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectData {
    /// Host Identifier (HOSTID); any value.
    pub host_id: Uuid,
    /// Controller ID (CNTLID): FFFFh on the admin queue asks for any, on an I/O queue it names the
    /// controller that the queue belongs to.
    pub cntlid: u16,
    /// Subsystem NQN (SUBNQN).
    pub subsystem: Nqn,
    /// Host NQN (HOSTNQN).
    pub host: Nqn,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ConnectBytes {
    host_id: [u8; 16],
    cntlid: U16,
    reserved18: [u8; 238],
    subnqn: [u8; 256],
    hostnqn: [u8; 256],
    reserved768: [u8; 256],
}

const _: () = assert!(size_of::<ConnectBytes>() == ConnectData::BYTES);

impl ConnectData {
    /// Size in bytes.
    pub const BYTES: usize = 1024;
    /// CNTLID that asks for any controller (dynamic controller model).
    pub const ANY_CONTROLLER: u16 = 0xffff;

    /// Reads the data.
    ///
    /// # Errors
    /// The name that is none.
    pub fn parse(data: &[u8; Self::BYTES]) -> Result<Self, ConnectError> {
        let bytes = ConnectBytes::read_from_bytes(data).expect("the size is that of the struct");
        Ok(Self {
            host_id: Uuid::from_bytes(bytes.host_id),
            cntlid: bytes.cntlid.get(),
            subsystem: Nqn::from_field(&bytes.subnqn).map_err(|_| ConnectError::SUBNQN)?,
            host: Nqn::from_field(&bytes.hostnqn).map_err(|_| ConnectError::HOSTNQN)?,
        })
    }

    /// The data that [`Self::parse`] reads.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let bytes = ConnectBytes {
            host_id: self.host_id.into_bytes(),
            cntlid: self.cntlid.into(),
            reserved18: [0; 238],
            subnqn: self.subsystem.to_field(),
            hostnqn: self.host.to_field(),
            reserved768: [0; 256],
        };
        zerocopy::transmute!(bytes)
    }
}

#[cfg(test)]
mod test;
