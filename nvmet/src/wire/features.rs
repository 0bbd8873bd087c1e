//! Features (section 5.27.1): their numbers, and their values in dword 11 and DW0.

use super::async_event::AsyncEventMask;
use super::status::Status;

/// Feature Identifiers that are known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum FeatureId {
    /// Arbitration.
    Arbitration = 0x01,
    /// Power Management.
    PowerManagement = 0x02,
    /// Temperature Threshold.
    TemperatureThreshold = 0x04,
    /// Error Recovery.
    ErrorRecovery = 0x05,
    /// Volatile Write Cache.
    VolatileWriteCache = 0x06,
    /// Number of Queues.
    NumberOfQueues = 0x07,
    /// Write Atomicity Normal.
    WriteAtomicity = 0x0a,
    /// Asynchronous Event Configuration.
    AsyncEvents = 0x0b,
    /// Keep Alive Timer.
    KeepAliveTimer = 0x0f,
    /// Host Behavior Support.
    HostBehavior = 0x16,
    /// I/O Command Set Profile.
    CommandSetProfile = 0x19,
    /// Host Identifier.
    HostIdentifier = 0x81,
    /// Reservation Notification Mask.
    ReservationMask = 0x82,
    /// Reservation Persistence.
    ReservationPersistence = 0x83,
}

impl FeatureId {
    /// Every feature.
    pub const ALL: [Self; 14] = [
        Self::Arbitration,
        Self::PowerManagement,
        Self::TemperatureThreshold,
        Self::ErrorRecovery,
        Self::VolatileWriteCache,
        Self::NumberOfQueues,
        Self::WriteAtomicity,
        Self::AsyncEvents,
        Self::KeepAliveTimer,
        Self::HostBehavior,
        Self::CommandSetProfile,
        Self::HostIdentifier,
        Self::ReservationMask,
        Self::ReservationPersistence,
    ];

    /// `None` for a feature that is not known here.
    #[must_use]
    pub fn parse(fid: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|id| *id as u8 == fid)
    }

    /// Bytes of data that its commands move beside the dword.
    #[must_use]
    pub const fn data_bytes(self) -> u32 {
        match self {
            Self::HostBehavior => 512,
            // Over fabrics it has always the extended size.
            Self::HostIdentifier => 16,
            _ => 0,
        }
    }
}

/// A feature with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Burst (bits 2:0) and weights of weighted round robin, which does not exist here; kept as it
    /// is for the host to read back.
    Arbitration(u32),
    /// Power Management.
    PowerManagement {
        /// Power State (PS), bits 4:0.
        state: u8,
        /// Workload Hint (WH), bits 7:5.
        workload: u8,
    },
    /// Temperature Threshold.
    TemperatureThreshold {
        /// Threshold (TMPTH), bits 15:0, in kelvins.
        kelvins: u16,
        /// Select (TMPSEL), bits 19:16: 0 is the composite temperature, 15 all sensors.
        sensor: u8,
        /// Type (THSEL), bits 21:20: an under-temperature threshold.
        is_under: bool,
    },
    /// Error Recovery.
    ErrorRecovery {
        /// Time Limited Error Recovery (TLER), bits 15:0, in units of 100 ms; 0 is no limit.
        limit_100ms: u16,
        /// Deallocated or Unwritten Logical Block Error (DULBE), bit 16.
        deallocated_error: bool,
    },
    /// Volatile Write Cache Enable (WCE), bit 0.
    VolatileWriteCache {
        /// Whether acknowledged writes may be lost with power until they are flushed.
        enabled: bool,
    },
    /// Number of Queues, without the admin queue.
    NumberOfQueues {
        /// Submission queues (NSQR, NSQA), bits 15:0 and 0-based there; here 1 to 65535.
        submission: u32,
        /// Completion queues (NCQR, NCQA), bits 31:16 and 0-based there; here 1 to 65535.
        completion: u32,
    },
    /// Disable Normal (DN), bit 0.
    WriteAtomicity {
        /// Whether the host does without AWUN.
        disable_normal: bool,
    },
    /// Asynchronous Event Configuration.
    AsyncEvents(AsyncEventMask),
    /// Keep Alive Timeout (KATO) in milliseconds; 0 is none.
    KeepAliveTimer {
        /// Milliseconds.
        ms: u32,
    },
    /// Host Behavior Support; the value is data, see [`accepts_retry_delay`].
    HostBehavior,
    /// I/O Command Set Combination Index (IOCSCI), bits 8:0.
    CommandSetProfile {
        /// Index into the list that Identify CNS 1Ch returns.
        index: u16,
    },
    /// Host Identifier; the value is data and comes from Connect.
    HostIdentifier,
    /// Reservation Notification Mask, bits 3:1.
    ReservationMask(u32),
    /// Persist Through Power Loss (PTPL), bit 0.
    ReservationPersistence {
        /// Whether reservations outlast a power loss.
        persist: bool,
    },
}

impl Feature {
    /// Reads dword 11 of Set Features, or DW0 of the completion of Get Features.
    ///
    /// # Errors
    /// Invalid Field, do not retry, for values that the section of the feature forbids.
    pub fn parse(id: FeatureId, dword: u32) -> Result<Self, Status> {
        let bit = |at: u32| dword >> at & 1 != 0;
        Ok(match id {
            FeatureId::Arbitration => Self::Arbitration(dword),
            FeatureId::PowerManagement => {
                Self::PowerManagement { state: dword as u8 & 31, workload: (dword >> 5) as u8 & 7 }
            }
            FeatureId::TemperatureThreshold => {
                if dword >> 20 & 3 > 1 {
                    return Err(Status::INVALID_FIELD.dnr());
                }
                Self::TemperatureThreshold {
                    kelvins: dword as u16,
                    sensor: (dword >> 16) as u8 & 15,
                    is_under: bit(20),
                }
            }
            FeatureId::ErrorRecovery => {
                Self::ErrorRecovery { limit_100ms: dword as u16, deallocated_error: bit(16) }
            }
            FeatureId::VolatileWriteCache => Self::VolatileWriteCache { enabled: bit(0) },
            FeatureId::NumberOfQueues => {
                let (submission, completion) = ((dword & 0xffff) + 1, (dword >> 16) + 1);
                if submission.max(completion) > 65535 {
                    return Err(Status::INVALID_FIELD.dnr());
                }
                Self::NumberOfQueues { submission, completion }
            }
            FeatureId::WriteAtomicity => Self::WriteAtomicity { disable_normal: bit(0) },
            FeatureId::AsyncEvents => Self::AsyncEvents(AsyncEventMask(dword)),
            FeatureId::KeepAliveTimer => Self::KeepAliveTimer { ms: dword },
            FeatureId::HostBehavior => Self::HostBehavior,
            FeatureId::CommandSetProfile => Self::CommandSetProfile { index: dword as u16 & 0x1ff },
            FeatureId::HostIdentifier => Self::HostIdentifier,
            FeatureId::ReservationMask => Self::ReservationMask(dword & 0b1110),
            FeatureId::ReservationPersistence => Self::ReservationPersistence { persist: bit(0) },
        })
    }

    /// The dword that [`Self::parse`] reads.
    #[must_use]
    pub fn to_dword(&self) -> u32 {
        match *self {
            Self::Arbitration(dword) | Self::ReservationMask(dword) => dword,
            Self::PowerManagement { state, workload } => {
                u32::from(state & 31) | u32::from(workload & 7) << 5
            }
            Self::TemperatureThreshold { kelvins, sensor, is_under } => {
                u32::from(kelvins) | u32::from(sensor & 15) << 16 | u32::from(is_under) << 20
            }
            Self::ErrorRecovery { limit_100ms, deallocated_error } => {
                u32::from(limit_100ms) | u32::from(deallocated_error) << 16
            }
            Self::VolatileWriteCache { enabled } => u32::from(enabled),
            Self::NumberOfQueues { submission, completion } => {
                (submission.saturating_sub(1) & 0xffff) | completion.saturating_sub(1) << 16
            }
            Self::WriteAtomicity { disable_normal } => u32::from(disable_normal),
            Self::AsyncEvents(mask) => mask.0,
            Self::KeepAliveTimer { ms } => ms,
            Self::HostBehavior | Self::HostIdentifier => 0,
            Self::CommandSetProfile { index } => u32::from(index & 0x1ff),
            Self::ReservationPersistence { persist } => u32::from(persist),
        }
    }

    /// Its identifier.
    #[must_use]
    pub const fn id(&self) -> FeatureId {
        match self {
            Self::Arbitration(_) => FeatureId::Arbitration,
            Self::PowerManagement { .. } => FeatureId::PowerManagement,
            Self::TemperatureThreshold { .. } => FeatureId::TemperatureThreshold,
            Self::ErrorRecovery { .. } => FeatureId::ErrorRecovery,
            Self::VolatileWriteCache { .. } => FeatureId::VolatileWriteCache,
            Self::NumberOfQueues { .. } => FeatureId::NumberOfQueues,
            Self::WriteAtomicity { .. } => FeatureId::WriteAtomicity,
            Self::AsyncEvents(_) => FeatureId::AsyncEvents,
            Self::KeepAliveTimer { .. } => FeatureId::KeepAliveTimer,
            Self::HostBehavior => FeatureId::HostBehavior,
            Self::CommandSetProfile { .. } => FeatureId::CommandSetProfile,
            Self::HostIdentifier => FeatureId::HostIdentifier,
            Self::ReservationMask(_) => FeatureId::ReservationMask,
            Self::ReservationPersistence { .. } => FeatureId::ReservationPersistence,
        }
    }
}

/// Advanced Command Retry Enable (ACRE), byte 0 of the Host Behavior Support data: whether the
/// host looks at [`Status::retry_after`](super::Status::retry_after).
#[must_use]
pub fn accepts_retry_delay(host_behavior: &[u8]) -> bool {
    host_behavior.first() == Some(&1)
}

/// DW0 of Get Features with [`FeatureSelect::Capabilities`](super::command::FeatureSelect).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FeatureCapabilities {
    /// Bit 0.
    pub saveable: bool,
    /// Bit 1.
    pub per_namespace: bool,
    /// Bit 2.
    pub changeable: bool,
}

impl FeatureCapabilities {
    /// The dword.
    #[must_use]
    pub const fn to_dword(self) -> u32 {
        self.saveable as u32 | (self.per_namespace as u32) << 1 | (self.changeable as u32) << 2
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn captured_values_are_understood() {
        // Linux with 2 CPUs asks for 10001h, the kernel target grants 7F007Fh.
        assert_eq!(
            Feature::parse(FeatureId::NumberOfQueues, 0x1_0001),
            Ok(Feature::NumberOfQueues { submission: 2, completion: 2 })
        );
        let granted = Feature::NumberOfQueues { submission: 128, completion: 128 };
        assert_eq!(granted.to_dword(), 0x7f_007f);
        assert_eq!(
            Feature::parse(FeatureId::AsyncEvents, 0x900),
            Ok(Feature::AsyncEvents(AsyncEventMask(0x900)))
        );
    }

    #[test]
    fn bits_are_where_the_sections_have_them() {
        let cases = [
            (Feature::PowerManagement { state: 31, workload: 5 }, 0xbf),
            (
                Feature::TemperatureThreshold { kelvins: 0x157, sensor: 3, is_under: true },
                0x0013_0157,
            ),
            (Feature::ErrorRecovery { limit_100ms: 7, deallocated_error: true }, 0x0001_0007),
            (Feature::VolatileWriteCache { enabled: true }, 1),
            (Feature::WriteAtomicity { disable_normal: true }, 1),
            (Feature::KeepAliveTimer { ms: 5000 }, 5000),
            (Feature::CommandSetProfile { index: 0x1ff }, 0x1ff),
            (Feature::ReservationMask(0b1010), 0b1010),
            (Feature::ReservationPersistence { persist: true }, 1),
        ];
        for (feature, dword) in cases {
            assert_eq!(feature.to_dword(), dword);
            assert_eq!(Feature::parse(feature.id(), dword), Ok(feature));
        }
    }

    #[test]
    fn forbidden_values_are_refused() {
        let invalid = Err(Status::INVALID_FIELD.dnr());
        assert_eq!(Feature::parse(FeatureId::NumberOfQueues, 0xffff), invalid);
        assert_eq!(Feature::parse(FeatureId::NumberOfQueues, 0xffff_0000), invalid);
        assert_eq!(Feature::parse(FeatureId::TemperatureThreshold, 2 << 20), invalid);
    }

    #[test]
    fn only_one_in_the_first_byte_accepts_retry_delays() {
        assert!(accepts_retry_delay(&[1, 0]));
        assert!(!accepts_retry_delay(&[0, 1]));
        assert!(!accepts_retry_delay(&[]));
        let all = FeatureCapabilities { saveable: true, per_namespace: false, changeable: true };
        assert_eq!(all.to_dword(), 5);
    }

    proptest! {
        #[test]
        fn a_value_that_was_read_is_written_the_same(fid: u8, dword: u32) {
            if let Some(id) = FeatureId::parse(fid)
                && let Ok(feature) = Feature::parse(id, dword)
            {
                prop_assert_eq!(feature.id(), id);
                prop_assert_eq!(Feature::parse(id, feature.to_dword()), Ok(feature));
            }
        }
    }
}
