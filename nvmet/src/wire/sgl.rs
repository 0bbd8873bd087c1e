//! The one SGL descriptor of a command over TCP (section 4.1.2).

use super::pdu::Direction;
use super::status::Status;

/// Identifier byte of a data block at an offset into the capsule (type 0h, subtype 1h).
const ID_CAPSULE: u8 = 0x01;
/// Identifier byte of a transport data block (type 5h, subtype Ah).
const ID_TRANSPORT: u8 = 0x5a;

/// Where the data of a command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sgl {
    /// In the command capsule, `offset` bytes after the in-capsule data offset (ICDOFF, always 0).
    Capsule {
        /// Bytes from the start of the in-capsule data; any value.
        offset: u64,
        /// Bytes of data, not 0.
        len: u32,
    },
    /// Moved by data PDUs. A command without data says so with length 0.
    Transport {
        /// Bytes of data.
        len: u32,
    },
}

/// What a command demands of its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataRule {
    /// Without data.
    None,
    /// Exactly this many bytes in this direction.
    Exact(Direction, u32),
    /// From the host, at least `min` and at most `max` bytes. Linux sends 4096 bytes with Dataset
    /// Management, however few ranges it has.
    FromHost {
        /// Fewest bytes that hold what the command counts.
        min: u32,
        /// Most bytes that are taken.
        max: u32,
    },
}

/// What a command's data turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataSource {
    /// Nothing to move.
    None,
    /// Arrived with the command: this range of the in-capsule data.
    Capsule {
        /// First byte.
        offset: u32,
        /// Bytes.
        len: u32,
    },
    /// To be asked for with R2T.
    FromHost {
        /// Bytes.
        len: u32,
    },
    /// To be sent as C2HData.
    ToHost {
        /// Bytes.
        len: u32,
    },
}

impl Sgl {
    /// Reads a descriptor. One of length 0 describes no data, whatever its type: some hosts leave
    /// the field of a command without data empty.
    ///
    /// # Errors
    /// SGL Descriptor Type Invalid, do not retry, for all that TCP does not have.
    pub fn parse(bytes: &[u8; 16]) -> Result<Self, Status> {
        let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, _, _, _, id] = *bytes;
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        match id {
            _ if len == 0 => Ok(Self::Transport { len: 0 }),
            ID_TRANSPORT => Ok(Self::Transport { len }),
            ID_CAPSULE => Ok(Self::Capsule {
                offset: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
                len,
            }),
            _ => Err(Status::SGL_TYPE_INVALID.dnr()),
        }
    }

    /// The descriptor that [`Self::parse`] reads.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let (address, len, id) = match self {
            Self::Capsule { offset, len } => (offset, len, ID_CAPSULE),
            Self::Transport { len } => (0, len, ID_TRANSPORT),
        };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[15] = id;
        bytes
    }

    /// Bytes of data that the descriptor describes.
    #[must_use]
    pub const fn len(self) -> u32 {
        match self {
            Self::Capsule { len, .. } | Self::Transport { len } => len,
        }
    }

    /// Whether it describes no data.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Holds the descriptor against what the command demands and the `capsule_bytes` of data that
    /// came with it.
    ///
    /// # Errors
    /// All with do not retry: Data SGL Length Invalid if the length is not what the command
    /// demands; SGL Offset Invalid if the data is not all in the capsule; Invalid Field if data for
    /// the host is to be put into a capsule.
    pub fn check(self, rule: DataRule, capsule_bytes: u32) -> Result<DataSource, Status> {
        let (direction, min, max) = match rule {
            DataRule::None => (Direction::HostToController, 0, 0),
            DataRule::Exact(direction, len) => (direction, len, len),
            DataRule::FromHost { min, max } => (Direction::HostToController, min, max),
        };
        if !(min..=max).contains(&self.len()) {
            return Err(Status::SGL_DATA_LENGTH_INVALID.dnr());
        }
        match (self, direction) {
            _ if self.is_empty() => Ok(DataSource::None),
            (Self::Transport { len }, Direction::HostToController) => {
                Ok(DataSource::FromHost { len })
            }
            (Self::Transport { len }, Direction::ControllerToHost) => {
                Ok(DataSource::ToHost { len })
            }
            (Self::Capsule { .. }, Direction::ControllerToHost) => Err(Status::INVALID_FIELD.dnr()),
            (Self::Capsule { offset, len }, Direction::HostToController) => {
                match offset.checked_add(u64::from(len)) {
                    Some(end) if end <= u64::from(capsule_bytes) => {
                        Ok(DataSource::Capsule { offset: (end - u64::from(len)) as u32, len })
                    }
                    _ => Err(Status::SGL_OFFSET_INVALID.dnr()),
                }
            }
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use proptest::prelude::*;

    const TO_HOST: DataRule = DataRule::Exact(Direction::ControllerToHost, 4096);
    const FROM_HOST: DataRule = DataRule::Exact(Direction::HostToController, 4096);

    #[test]
    fn descriptors_have_their_fields_in_place() {
        let mut bytes = [0; 16];
        bytes[0] = 0x10;
        bytes[9] = 0x10;
        bytes[15] = 0x01;
        assert_eq!(Sgl::parse(&bytes), Ok(Sgl::Capsule { offset: 16, len: 4096 }));
        bytes[15] = 0x5a;
        assert_eq!(Sgl::parse(&bytes), Ok(Sgl::Transport { len: 4096 }));
    }

    #[test]
    fn other_descriptors_are_refused_unless_they_are_empty() {
        for id in 0..=u8::MAX {
            let mut bytes = [0; 16];
            bytes[15] = id;
            assert_eq!(Sgl::parse(&bytes), Ok(Sgl::Transport { len: 0 }));
            bytes[8] = 1;
            assert_eq!(Sgl::parse(&bytes).is_ok(), matches!(id, 0x01 | 0x5a), "{id:#x}");
        }
    }

    #[test]
    fn the_length_is_what_the_command_demands() {
        let invalid = Err(Status::SGL_DATA_LENGTH_INVALID.dnr());
        for len in [0, 4095, 4097] {
            assert_eq!(Sgl::Transport { len }.check(TO_HOST, 0), invalid);
            assert_eq!(Sgl::Transport { len }.check(FROM_HOST, 0), invalid);
        }
        assert_eq!(Sgl::Transport { len: 1 }.check(DataRule::None, 0), invalid);
        assert_eq!(Sgl::Transport { len: 0 }.check(DataRule::None, 0), Ok(DataSource::None));
        let ranges = DataRule::FromHost { min: 32, max: 4096 };
        assert_eq!(Sgl::Transport { len: 31 }.check(ranges, 0), invalid);
        assert_eq!(
            Sgl::Transport { len: 4096 }.check(ranges, 0),
            Ok(DataSource::FromHost { len: 4096 })
        );
        assert_eq!(
            Sgl::Transport { len: 4096 }.check(TO_HOST, 0),
            Ok(DataSource::ToHost { len: 4096 })
        );
    }

    #[test]
    fn data_in_the_capsule_must_all_be_there_and_come_from_the_host() {
        let sgl = Sgl::Capsule { offset: 4, len: 4096 };
        assert_eq!(sgl.check(FROM_HOST, 4100), Ok(DataSource::Capsule { offset: 4, len: 4096 }));
        assert_eq!(sgl.check(FROM_HOST, 4099), Err(Status::SGL_OFFSET_INVALID.dnr()));
        assert_eq!(sgl.check(TO_HOST, 4100), Err(Status::INVALID_FIELD.dnr()));
        let wrapping = Sgl::Capsule { offset: u64::MAX - 7, len: 4096 };
        assert_eq!(wrapping.check(FROM_HOST, 4100), Err(Status::SGL_OFFSET_INVALID.dnr()));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(offset: u64, len in 1u32.., capsule: bool) {
            let sgl = if capsule { Sgl::Capsule { offset, len } } else { Sgl::Transport { len } };
            prop_assert_eq!(Sgl::parse(&sgl.to_bytes()), Ok(sgl));
        }
    }
}
