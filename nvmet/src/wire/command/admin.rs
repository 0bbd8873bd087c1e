//! Admin commands (section 5).

use crate::wire::features::{Feature, FeatureId};
use crate::wire::pdu::Direction;
use crate::wire::sgl::DataRule;
use crate::wire::sqe::Sqe;
use crate::wire::status::Status;

/// Opcodes of the admin commands that are known here (section 5, "Opcodes for Admin Commands").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum AdminOpcode {
    /// Get Log Page.
    GetLogPage = 0x02,
    /// Identify.
    Identify = 0x06,
    /// Abort.
    Abort = 0x08,
    /// Set Features.
    SetFeatures = 0x09,
    /// Get Features.
    GetFeatures = 0x0a,
    /// Asynchronous Event Request.
    AsyncEventRequest = 0x0c,
    /// Keep Alive.
    KeepAlive = 0x18,
}

impl AdminOpcode {
    /// Every opcode.
    pub const ALL: [Self; 7] = [
        Self::GetLogPage,
        Self::Identify,
        Self::Abort,
        Self::SetFeatures,
        Self::GetFeatures,
        Self::AsyncEventRequest,
        Self::KeepAlive,
    ];
}

/// A command on the admin queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminCommand {
    /// Section 5.17.
    Identify(Identify),
    /// Section 5.16.
    GetLogPage(GetLogPage),
    /// Section 5.15.
    GetFeatures(GetFeatures),
    /// Section 5.27.
    SetFeatures(SetFeatures),
    /// Section 5.18.
    KeepAlive,
    /// Section 5.2.
    AsyncEventRequest,
    /// Section 5.1.
    Abort {
        /// Submission Queue Identifier (SQID), dword 10 bits 15:0.
        sqid: u16,
        /// Command Identifier (CID) to abort, dword 10 bits 31:16.
        cid: u16,
    },
}

/// The Identify command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identify {
    /// Controller or Namespace Structure (CNS), dword 10 bits 7:0.
    pub kind: IdentifyKind,
    /// Namespace Identifier; its meaning depends on the structure.
    pub nsid: u32,
    /// Controller Identifier (CNTID), dword 10 bits 31:16.
    pub cntid: u16,
}

/// Structures that Identify returns (section 5.17.1). Those that exist once per I/O command set
/// are those of the NVM command set; [`AdminCommand::parse`] refuses any other (CSI).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum IdentifyKind {
    /// Identify Namespace of an active namespace; FFFFFFFFh for what all have in common.
    Namespace = 0x00,
    /// Identify Controller.
    Controller = 0x01,
    /// Active namespaces above the given NSID.
    ActiveNamespaces = 0x02,
    /// Namespace identification descriptors.
    NamespaceDescriptors = 0x03,
    /// I/O command set specific Identify Namespace.
    CommandSetNamespace = 0x05,
    /// I/O command set specific Identify Controller.
    CommandSetController = 0x06,
    /// Active namespaces of the command set above the given NSID.
    CommandSetActiveNamespaces = 0x07,
    /// I/O command set independent Identify Namespace.
    IndependentNamespace = 0x08,
    /// Allocated namespaces above the given NSID.
    AllocatedNamespaces = 0x10,
    /// Identify Namespace of an allocated namespace.
    AllocatedNamespace = 0x11,
    /// Controllers from CNTID on that the namespace is attached to.
    NamespaceControllers = 0x12,
    /// Controllers of the subsystem from CNTID on.
    Controllers = 0x13,
    /// Allocated namespaces of the command set above the given NSID.
    CommandSetAllocatedNamespaces = 0x1a,
    /// Combinations of I/O command sets.
    CommandSets = 0x1c,
}

impl IdentifyKind {
    const ALL: [Self; 14] = [
        Self::Namespace,
        Self::Controller,
        Self::ActiveNamespaces,
        Self::NamespaceDescriptors,
        Self::CommandSetNamespace,
        Self::CommandSetController,
        Self::CommandSetActiveNamespaces,
        Self::IndependentNamespace,
        Self::AllocatedNamespaces,
        Self::AllocatedNamespace,
        Self::NamespaceControllers,
        Self::Controllers,
        Self::CommandSetAllocatedNamespaces,
        Self::CommandSets,
    ];

    const fn is_per_command_set(self) -> bool {
        matches!(
            self,
            Self::CommandSetNamespace
                | Self::CommandSetController
                | Self::CommandSetActiveNamespaces
                | Self::CommandSetAllocatedNamespaces
        )
    }
}

/// Bytes of every Identify structure.
const IDENTIFY_BYTES: u32 = 4096;

impl Identify {
    fn parse(sqe: &Sqe) -> Result<Self, Status> {
        let cdw10 = sqe.cdw10.get();
        // CSI, dword 11 bits 31:24: 0 is the NVM command set.
        let csi = sqe.cdw11.get() >> 24;
        let kind = IdentifyKind::ALL
            .into_iter()
            .find(|kind| *kind as u8 == cdw10 as u8)
            .filter(|kind| csi == 0 || !kind.is_per_command_set())
            .ok_or(Status::INVALID_FIELD.dnr())?;
        Ok(Self { kind, nsid: sqe.nsid.get(), cntid: (cdw10 >> 16) as u16 })
    }
}

/// Log pages (section 5.16.1) that are known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum LogPageId {
    /// Supported Log Pages.
    Supported = 0x00,
    /// Error Information.
    Error = 0x01,
    /// SMART / Health Information.
    Smart = 0x02,
    /// Firmware Slot Information.
    Firmware = 0x03,
    /// Changed Namespace List.
    ChangedNamespaces = 0x04,
    /// Commands Supported and Effects.
    CommandEffects = 0x05,
    /// Asymmetric Namespace Access.
    Ana = 0x0c,
    /// Discovery.
    Discovery = 0x70,
    /// Reservation Notification.
    ReservationNotification = 0x80,
}

impl LogPageId {
    /// Every page.
    pub const ALL: [Self; 9] = [
        Self::Supported,
        Self::Error,
        Self::Smart,
        Self::Firmware,
        Self::ChangedNamespaces,
        Self::CommandEffects,
        Self::Ana,
        Self::Discovery,
        Self::ReservationNotification,
    ];
}

/// The Get Log Page command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GetLogPage {
    /// Log Page Identifier (LID), dword 10 bits 7:0.
    pub page: LogPageId,
    /// Namespace Identifier; 0 and FFFFFFFFh stand for the controller.
    pub nsid: u32,
    /// Log Specific Parameter (LSP), dword 10 bits 14:8; for page 0Ch bit 0 asks for the groups
    /// without their namespaces.
    pub lsp: u8,
    /// Retain Asynchronous Event (RAE), dword 10 bit 15: reading does not acknowledge the event.
    pub retain_event: bool,
    /// Log Page Offset (LPOL and LPOU, dwords 12 and 13) in bytes, a multiple of 4.
    pub offset: u64,
    /// Length in bytes, from the 0-based dwords NUMDL and NUMDU; a multiple of 4 and not 0.
    pub len: u32,
}

impl GetLogPage {
    fn parse(sqe: &Sqe) -> Result<Self, Status> {
        let cdw10 = sqe.cdw10.get();
        let page = LogPageId::ALL
            .into_iter()
            .find(|page| *page as u8 == cdw10 as u8)
            .ok_or(Status::INVALID_LOG_PAGE.dnr())?;
        let dwords = u64::from(sqe.cdw11.get() & 0xffff) << 16 | u64::from(cdw10 >> 16);
        let len = u32::try_from((dwords + 1) * 4).map_err(|_| Status::INVALID_FIELD.dnr())?;
        let offset = sqe.cdw12_13();
        // OT, dword 14 bit 23: an offset that counts entries, which LPA does not offer.
        let by_index = sqe.cdw14.get() >> 23 & 1 != 0;
        if by_index || !offset.is_multiple_of(4) {
            return Err(Status::INVALID_FIELD.dnr());
        }
        Ok(Self {
            page,
            nsid: sqe.nsid.get(),
            lsp: (cdw10 >> 8) as u8 & 0x7f,
            retain_event: cdw10 >> 15 & 1 != 0,
            offset,
            len,
        })
    }

    fn write(&self, sqe: &mut Sqe) {
        let dwords = (self.len / 4).saturating_sub(1);
        let rae = u32::from(self.retain_event) << 15;
        let lsp = u32::from(self.lsp & 0x7f) << 8;
        sqe.cdw10 = (dwords << 16 | rae | lsp | self.page as u32).into();
        sqe.cdw11 = (dwords >> 16).into();
        sqe.set_cdw12_13(self.offset);
    }
}

/// Which value Get Features asks for (SEL, dword 10 bits 10:8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FeatureSelect {
    /// The one in force.
    Current = 0,
    /// The one after power-on.
    Default = 1,
    /// The one that survives power-off.
    Saved = 2,
    /// Not a value but what can be done with it: saveable, per namespace, changeable.
    Capabilities = 3,
}

/// The Get Features command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GetFeatures {
    /// Feature Identifier (FID), dword 10 bits 7:0.
    pub feature: FeatureId,
    /// Which of its values.
    pub select: FeatureSelect,
    /// Namespace Identifier.
    pub nsid: u32,
    /// Dword 11; what it means depends on the feature (temperature sensor, size of the host
    /// identifier).
    pub cdw11: u32,
}

impl GetFeatures {
    fn parse(sqe: &Sqe) -> Result<Self, Status> {
        let cdw10 = sqe.cdw10.get();
        let select = match cdw10 >> 8 & 7 {
            0 => FeatureSelect::Current,
            1 => FeatureSelect::Default,
            2 => FeatureSelect::Saved,
            3 => FeatureSelect::Capabilities,
            _ => return Err(Status::INVALID_FIELD.dnr()),
        };
        let feature = FeatureId::parse(cdw10 as u8).ok_or(Status::INVALID_FIELD.dnr())?;
        Ok(Self { feature, select, nsid: sqe.nsid.get(), cdw11: sqe.cdw11.get() })
    }

    fn data_rule(&self) -> DataRule {
        match (self.select, self.feature.data_bytes()) {
            (FeatureSelect::Capabilities, _) | (_, 0) => DataRule::None,
            (_, bytes) => DataRule::Exact(Direction::ControllerToHost, bytes),
        }
    }
}

/// The Set Features command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetFeatures {
    /// Feature (FID, dword 10 bits 7:0) with its new value (dword 11 on).
    pub feature: Feature,
    /// Save (SV), dword 10 bit 31.
    pub save: bool,
    /// Namespace Identifier.
    pub nsid: u32,
}

impl SetFeatures {
    fn parse(sqe: &Sqe) -> Result<Self, Status> {
        let cdw10 = sqe.cdw10.get();
        let id = FeatureId::parse(cdw10 as u8).ok_or(Status::INVALID_FIELD.dnr())?;
        let feature = Feature::parse(id, sqe.cdw11.get())?;
        Ok(Self { feature, save: cdw10 >> 31 != 0, nsid: sqe.nsid.get() })
    }

    fn data_rule(&self) -> DataRule {
        match self.feature.id().data_bytes() {
            0 => DataRule::None,
            bytes => DataRule::Exact(Direction::HostToController, bytes),
        }
    }
}

impl AdminCommand {
    /// Reads a command that is not a fabrics command.
    ///
    /// # Errors
    /// All with do not retry: Invalid Opcode, Invalid Log Page, Invalid Field for values that are
    /// not known here.
    pub fn parse(sqe: &Sqe) -> Result<Self, Status> {
        let opcode = AdminOpcode::ALL
            .into_iter()
            .find(|opcode| *opcode as u8 == sqe.opcode)
            .ok_or(Status::INVALID_OPCODE.dnr())?;
        let cdw10 = sqe.cdw10.get();
        match opcode {
            AdminOpcode::GetLogPage => GetLogPage::parse(sqe).map(Self::GetLogPage),
            AdminOpcode::Identify => Identify::parse(sqe).map(Self::Identify),
            AdminOpcode::Abort => Ok(Self::Abort { sqid: cdw10 as u16, cid: (cdw10 >> 16) as u16 }),
            AdminOpcode::SetFeatures => SetFeatures::parse(sqe).map(Self::SetFeatures),
            AdminOpcode::GetFeatures => GetFeatures::parse(sqe).map(Self::GetFeatures),
            AdminOpcode::AsyncEventRequest => Ok(Self::AsyncEventRequest),
            AdminOpcode::KeepAlive => Ok(Self::KeepAlive),
        }
    }

    /// Opcode of this command.
    #[must_use]
    pub const fn opcode(&self) -> AdminOpcode {
        match self {
            Self::Identify(_) => AdminOpcode::Identify,
            Self::GetLogPage(_) => AdminOpcode::GetLogPage,
            Self::GetFeatures(_) => AdminOpcode::GetFeatures,
            Self::SetFeatures(_) => AdminOpcode::SetFeatures,
            Self::KeepAlive => AdminOpcode::KeepAlive,
            Self::AsyncEventRequest => AdminOpcode::AsyncEventRequest,
            Self::Abort { .. } => AdminOpcode::Abort,
        }
    }

    /// What the command demands of its data.
    #[must_use]
    pub fn data_rule(&self) -> DataRule {
        match self {
            Self::Identify(_) => DataRule::Exact(Direction::ControllerToHost, IDENTIFY_BYTES),
            Self::GetLogPage(log) => DataRule::Exact(Direction::ControllerToHost, log.len),
            Self::GetFeatures(get) => get.data_rule(),
            Self::SetFeatures(set) => set.data_rule(),
            Self::KeepAlive | Self::AsyncEventRequest | Self::Abort { .. } => DataRule::None,
        }
    }

    /// The entry that [`Self::parse`] reads, for hosts; the caller adds the SGL.
    #[must_use]
    pub fn to_sqe(&self, cid: u16) -> Sqe {
        let mut sqe = Sqe::new(self.opcode() as u8, cid, 0);
        match self {
            Self::Identify(identify) => {
                sqe.nsid = identify.nsid.into();
                sqe.cdw10 = (u32::from(identify.cntid) << 16 | identify.kind as u32).into();
            }
            Self::GetLogPage(log) => {
                sqe.nsid = log.nsid.into();
                log.write(&mut sqe);
            }
            Self::GetFeatures(get) => {
                sqe.nsid = get.nsid.into();
                sqe.cdw10 = ((get.select as u32) << 8 | get.feature as u32).into();
                sqe.cdw11 = get.cdw11.into();
            }
            Self::SetFeatures(set) => {
                sqe.nsid = set.nsid.into();
                sqe.cdw10 = (u32::from(set.save) << 31 | set.feature.id() as u32).into();
                sqe.cdw11 = set.feature.to_dword().into();
            }
            Self::Abort { sqid, cid } => {
                sqe.cdw10 = (u32::from(*cid) << 16 | u32::from(*sqid)).into();
            }
            Self::KeepAlive | Self::AsyncEventRequest => {}
        }
        sqe
    }
}

#[cfg(test)]
mod test;
