//! Controller properties (section 3.1.3).

/// A property that exists over fabrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property {
    /// Controller Capabilities (CAP), 8 bytes.
    Capabilities,
    /// Version (VS), 4 bytes.
    Version,
    /// Controller Configuration (CC), 4 bytes.
    Configuration,
    /// Controller Status (CSTS), 4 bytes.
    Status,
    /// NVM Subsystem Reset (NSSR), 4 bytes.
    SubsystemReset,
    /// Controller Ready Timeouts (CRTO), 4 bytes.
    ReadyTimeouts,
}

impl Property {
    const ALL: [Self; 6] = [
        Self::Capabilities,
        Self::Version,
        Self::Configuration,
        Self::Status,
        Self::SubsystemReset,
        Self::ReadyTimeouts,
    ];

    /// By its offset in bytes; `None` for one that does not exist over fabrics.
    #[must_use]
    pub fn parse(offset: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|property| property.offset() == offset)
    }

    /// Offset in bytes.
    #[must_use]
    pub const fn offset(self) -> u32 {
        match self {
            Self::Capabilities => 0x00,
            Self::Version => 0x08,
            Self::Configuration => 0x14,
            Self::Status => 0x1c,
            Self::SubsystemReset => 0x20,
            Self::ReadyTimeouts => 0x68,
        }
    }

    /// Whether it has 8 bytes and not 4.
    #[must_use]
    pub const fn is_wide(self) -> bool {
        matches!(self, Self::Capabilities)
    }
}

/// Version (VS): 2.0.
pub const VERSION_2_0: u32 = 0x0002_0000;

/// Controller Capabilities (section 3.1.3.1), as far as they differ between controllers here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// MQES: entries of the longest queue, 1 to 65536.
    pub queue_entries_max: u32,
    /// TO: longest time to get ready, in units of 500 ms.
    pub timeout_500ms: u8,
    /// CSS bit 6: the controller has I/O command sets. Then Identify CNS 1Ch is answered and every
    /// namespace names its command set. The NVM command set (bit 0) is always there.
    pub command_sets: bool,
    /// CRMS: the two modes of becoming ready, see CRTO. Both 0 for a controller before 2.0.
    pub ready_modes: u8,
}

const MQES: u64 = 0xffff;
const CQR: u64 = 1 << 16;
const CSS_NVM: u64 = 1 << 37;
const CSS_SETS: u64 = 1 << 43;

impl Capabilities {
    /// The 8 bytes: contiguous queues (CQR, always 1 over fabrics), 4 KiB pages.
    #[must_use]
    pub const fn to_field(&self) -> u64 {
        let sets = if self.command_sets { CSS_SETS } else { 0 };
        (self.queue_entries_max.saturating_sub(1) as u64 & MQES)
            | CQR
            | (self.timeout_500ms as u64) << 24
            | CSS_NVM
            | sets
            | (self.ready_modes as u64 & 3) << 59
    }

    /// Reads what a controller reports.
    #[must_use]
    pub const fn from_field(cap: u64) -> Self {
        Self {
            queue_entries_max: (cap & MQES) as u32 + 1,
            timeout_500ms: (cap >> 24) as u8,
            command_sets: cap & CSS_SETS != 0,
            ready_modes: (cap >> 59) as u8 & 3,
        }
    }
}

/// Controller Configuration (section 3.1.3.5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Configuration(pub u32);

/// What a host asks to shut down (CC.SHN).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// 00b and the reserved 11b: nothing.
    None,
    /// 01b.
    Normal,
    /// 10b.
    Abrupt,
}

impl Configuration {
    /// CC.CSS 000b: the NVM command set only.
    pub const CSS_NVM: u8 = 0;
    /// CC.CSS 110b: all supported I/O command sets.
    pub const CSS_ALL: u8 = 6;
    /// 64-byte submission (IOSQES 6) and 16-byte completion entries (IOCQES 4).
    pub const ENTRY_SIZES: Self = Self(0x0046_0000);

    /// EN: the controller is to process commands.
    #[must_use]
    pub const fn is_enabled(self) -> bool {
        self.0 & 1 != 0
    }

    /// CSS, 3 bits: the command sets that the host chose.
    #[must_use]
    pub const fn command_set(self) -> u8 {
        (self.0 >> 4) as u8 & 7
    }

    /// MPS, 4 bits: page size, 0 for 4 KiB.
    #[must_use]
    pub const fn page_size(self) -> u8 {
        (self.0 >> 7) as u8 & 15
    }

    /// AMS, 3 bits: arbitration, 0 for round robin.
    #[must_use]
    pub const fn arbitration(self) -> u8 {
        (self.0 >> 11) as u8 & 7
    }

    /// SHN: shutdown notification.
    #[must_use]
    pub const fn shutdown(self) -> Shutdown {
        match self.0 >> 14 & 3 {
            1 => Shutdown::Normal,
            2 => Shutdown::Abrupt,
            _ => Shutdown::None,
        }
    }

    /// IOSQES: size of a submission entry as a power of two.
    #[must_use]
    pub const fn submission_entry_log2(self) -> u8 {
        (self.0 >> 16) as u8 & 15
    }

    /// IOCQES: size of a completion entry as a power of two.
    #[must_use]
    pub const fn completion_entry_log2(self) -> u8 {
        (self.0 >> 20) as u8 & 15
    }

    /// CRIME: ready independent of media.
    #[must_use]
    pub const fn is_ready_independent_of_media(self) -> bool {
        self.0 & (1 << 24) != 0
    }

    /// The same with EN.
    #[must_use]
    pub const fn enabled(self) -> Self {
        Self(self.0 | 1)
    }

    /// The same with these command sets.
    #[must_use]
    pub const fn with_command_set(self, css: u8) -> Self {
        Self(self.0 & !(7 << 4) | (css as u32 & 7) << 4)
    }

    /// The same with a shutdown asked for.
    #[must_use]
    pub const fn with_shutdown(self, shutdown: Shutdown) -> Self {
        let shn = match shutdown {
            Shutdown::None => 0,
            Shutdown::Normal => 1,
            Shutdown::Abrupt => 2,
        };
        Self(self.0 & !(3 << 14) | shn << 14)
    }
}

/// Controller Status (section 3.1.3.6).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ControllerStatus {
    /// RDY.
    pub is_ready: bool,
    /// CFS: a fatal error; only a reset helps.
    pub is_fatal: bool,
    /// SHST.
    pub shutdown: ShutdownStatus,
}

/// How far a shutdown is (CSTS.SHST).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ShutdownStatus {
    /// 00b: none was asked for.
    #[default]
    None,
    /// 01b: under way.
    Processing,
    /// 10b: complete.
    Complete,
}

impl ControllerStatus {
    /// The 4 bytes.
    #[must_use]
    pub const fn to_field(self) -> u32 {
        let shst = match self.shutdown {
            ShutdownStatus::None => 0,
            ShutdownStatus::Processing => 1,
            ShutdownStatus::Complete => 2,
        };
        self.is_ready as u32 | (self.is_fatal as u32) << 1 | shst << 2
    }

    /// Reads what a controller reports.
    #[must_use]
    pub const fn from_field(csts: u32) -> Self {
        Self {
            is_ready: csts & 1 != 0,
            is_fatal: csts & 2 != 0,
            shutdown: match csts >> 2 & 3 {
                1 => ShutdownStatus::Processing,
                2 => ShutdownStatus::Complete,
                _ => ShutdownStatus::None,
            },
        }
    }
}

/// Controller Ready Timeouts (section 3.1.3.21) in units of 500 ms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadyTimeouts {
    /// CRWMT: with media.
    pub with_media: u16,
    /// CRIMT: independent of media.
    pub independent_of_media: u16,
}

impl ReadyTimeouts {
    /// The 4 bytes.
    #[must_use]
    pub const fn to_field(self) -> u32 {
        self.with_media as u32 | (self.independent_of_media as u32) << 16
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn capabilities_have_their_fields_in_place() {
        // The kernel target reports this, without CQR.
        let nvmet = Capabilities::from_field(0x0000_0820_0f00_03ff);
        let same = Capabilities {
            queue_entries_max: 1024,
            timeout_500ms: 15,
            command_sets: true,
            ready_modes: 0,
        };
        assert_eq!(nvmet, same);
        assert_eq!(same.to_field(), 0x0000_0820_0f01_03ff);
        let other = Capabilities { command_sets: false, ready_modes: 1, ..same };
        assert_eq!(other.to_field(), 0x0800_0020_0f01_03ff);
        assert_eq!(Capabilities::from_field(other.to_field()), other);
    }

    #[test]
    fn captured_configurations_are_understood() {
        let first = Configuration(0x0046_0060);
        assert!(!first.is_enabled());
        assert_eq!(first.command_set(), Configuration::CSS_ALL);
        assert_eq!((first.submission_entry_log2(), first.completion_entry_log2()), (6, 4));
        assert_eq!((first.page_size(), first.arbitration()), (0, 0));
        assert_eq!(first.shutdown(), Shutdown::None);
        assert_eq!(first.enabled(), Configuration(0x0046_0061));
        assert_eq!(Configuration(0x0046_4061).shutdown(), Shutdown::Normal);
        let made = Configuration::ENTRY_SIZES
            .with_command_set(Configuration::CSS_ALL)
            .enabled()
            .with_shutdown(Shutdown::Normal);
        assert_eq!(made, Configuration(0x0046_4061));
        assert!(Configuration(0x0100_0000).is_ready_independent_of_media());
    }

    #[test]
    fn captured_controller_status_is_understood() {
        let ready = ControllerStatus { is_ready: true, ..ControllerStatus::default() };
        assert_eq!(ready.to_field(), 1);
        let down =
            ControllerStatus { shutdown: ShutdownStatus::Complete, ..ControllerStatus::default() };
        assert_eq!(down.to_field(), 8);
        for csts in 0..12 {
            assert_eq!(ControllerStatus::from_field(csts).to_field(), csts);
        }
        let timeouts = ReadyTimeouts { with_media: 0x20, independent_of_media: 0x1 };
        assert_eq!(timeouts.to_field(), 0x0001_0020);
    }

    #[test]
    fn properties_are_found_by_their_offset() {
        assert_eq!(Property::parse(0x14), Some(Property::Configuration));
        assert_eq!(Property::parse(0x68), Some(Property::ReadyTimeouts));
        // INTMS has no meaning over fabrics.
        assert_eq!(Property::parse(0x0c), None);
    }
}
