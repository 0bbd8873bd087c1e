//! Identify Controller: CNS 01h (section 5.17.2.1) and 06h (NVM section 4.1.5.4).

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::BYTES;
use crate::wire::async_event::AsyncEventMask;
use crate::wire::nqn::Nqn;
use crate::wire::nqn::NqnError;
use crate::wire::text::{padded, trimmed};

/// Bits of [`ControllerInfo::cmic`].
pub mod cmic {
    /// The subsystem may have several ports.
    pub const PORTS: u8 = 1 << 0;
    /// The subsystem may have several controllers; Linux refuses a second path without it.
    pub const CONTROLLERS: u8 = 1 << 1;
    /// Asymmetric namespace access is reported.
    pub const ANA: u8 = 1 << 3;
}

/// Bits of [`ControllerInfo::ctratt`].
pub mod ctratt {
    /// Host identifiers of 16 bytes.
    pub const HOST_ID_128: u32 = 1 << 0;
    /// Traffic Based Keep Alive (TBKAS): any command counts as a sign of life.
    pub const TRAFFIC_KEEP_ALIVE: u32 = 1 << 6;
}

/// Bits of [`ControllerInfo::lpa`].
pub mod lpa {
    /// SMART log page for a single namespace.
    pub const SMART_PER_NAMESPACE: u8 = 1 << 0;
    /// Commands Supported and Effects log page.
    pub const EFFECTS: u8 = 1 << 1;
    /// Log pages can be read from an offset and in lengths beyond 12 bits.
    pub const EXTENDED: u8 = 1 << 2;
}

/// Bits of [`ControllerInfo::oncs`].
pub mod oncs {
    /// Compare.
    pub const COMPARE: u16 = 1 << 0;
    /// Dataset Management.
    pub const DATASET_MANAGEMENT: u16 = 1 << 2;
    /// Write Zeroes.
    pub const WRITE_ZEROES: u16 = 1 << 3;
    /// SV of Set Features and SEL of Get Features.
    pub const SAVE_AND_SELECT: u16 = 1 << 4;
    /// Reservations.
    pub const RESERVATIONS: u16 = 1 << 5;
    /// Verify.
    pub const VERIFY: u16 = 1 << 7;
}

/// Bits of [`ControllerInfo::vwc`].
pub mod vwc {
    /// There is a volatile write cache: hosts flush.
    pub const PRESENT: u8 = 1 << 0;
    /// Flush with NSID FFFFFFFFh is refused.
    pub const FLUSH_ALL_REFUSED: u8 = 0b10 << 1;
    /// Flush with NSID FFFFFFFFh flushes all namespaces.
    pub const FLUSH_ALL: u8 = 0b11 << 1;
}

/// Bits of [`ControllerInfo::anacap`].
pub mod anacap {
    /// All five states may be reported: optimized, non-optimized, inaccessible, persistent loss,
    /// change.
    pub const ALL_STATES: u8 = 0x1f;
    /// The first three of them may be.
    pub const REPORTED: u8 = 0x07;
    /// The group of a namespace does not change while it is attached.
    pub const STABLE_GROUPS: u8 = 1 << 6;
}

/// Bits of [`ControllerInfo::sgls`].
pub mod sgls {
    /// SGLs without alignment rules.
    pub const SUPPORTED: u32 = 1 << 0;
    /// The address of a data block may be an offset into the capsule.
    pub const OFFSET: u32 = 1 << 20;
}

/// Controller Type (CNTRLTYPE).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ControllerKind {
    /// With I/O queues.
    Io = 1,
    /// Of a discovery subsystem.
    Discovery = 2,
}

/// What Identify Controller says of a controller; fields without mention are 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerInfo {
    /// Controller Type.
    pub kind: ControllerKind,
    /// PCI Vendor ID (VID) and PCI Subsystem Vendor ID (SSVID).
    pub vendor_id: u16,
    /// Serial Number (SN), at most 20 bytes of ASCII.
    pub serial: String,
    /// Model Number (MN), at most 40 bytes of ASCII.
    pub model: String,
    /// Firmware Revision (FR), at most 8 bytes of ASCII.
    pub firmware: String,
    /// Recommended Arbitration Burst (RAB), a power of two.
    pub rab: u8,
    /// IEEE OUI Identifier (IEEE), last byte first.
    pub ieee: [u8; 3],
    /// Controller Multi-Path I/O and Namespace Sharing Capabilities (CMIC), see [`cmic`].
    pub cmic: u8,
    /// Maximum Data Transfer Size (MDTS): 4 KiB times two to this; 0 is no limit, and makes Linux
    /// cut long Write Zeroes to 16 bits of length.
    pub mdts: u8,
    /// Controller ID (CNTLID), as in the answer to Connect.
    pub cntlid: u16,
    /// Version (VER).
    pub version: u32,
    /// RTD3 Entry Latency (RTD3E) in microseconds: how long hosts wait for a shutdown.
    pub rtd3e_us: u32,
    /// Optional Asynchronous Events Supported (OAES).
    pub oaes: AsyncEventMask,
    /// Controller Attributes (CTRATT), see [`ctratt`].
    pub ctratt: u32,
    /// Command Retry Delay Times 1 to 3 (CRDT) in units of 100 ms.
    pub crdt_100ms: [u16; 3],
    /// Abort Command Limit (ACL), 0-based.
    pub acl: u8,
    /// Asynchronous Event Request Limit (AERL), 0-based.
    pub aerl: u8,
    /// Firmware Updates (FRMW): bit 0 slot 1 is read-only, bits 3:1 number of slots.
    pub frmw: u8,
    /// Log Page Attributes (LPA), see [`lpa`].
    pub lpa: u8,
    /// Error Log Page Entries (ELPE), 0-based.
    pub elpe: u8,
    /// Warning Composite Temperature Threshold (WCTEMP) in kelvins.
    pub wctemp: u16,
    /// Critical Composite Temperature Threshold (CCTEMP) in kelvins.
    pub cctemp: u16,
    /// Keep Alive Support (KAS): granularity in units of 100 ms; 0 is no keep alive.
    pub kas_100ms: u16,
    /// ANA Transition Time (ANATT) in seconds.
    pub anatt_s: u8,
    /// Asymmetric Namespace Access Capabilities (ANACAP), see [`anacap`].
    pub anacap: u8,
    /// ANA Group Identifier Maximum (ANAGRPMAX).
    pub anagrpmax: u32,
    /// Number of ANA Group Identifiers (NANAGRPID).
    pub nanagrpid: u32,
    /// Maximum Outstanding Commands (MAXCMD) of a queue.
    pub maxcmd: u16,
    /// Number of Namespaces (NN): greatest NSID.
    pub nn: u32,
    /// Optional NVM Command Support (ONCS), see [`oncs`].
    pub oncs: u16,
    /// Volatile Write Cache (VWC), see [`vwc`].
    pub vwc: u8,
    /// Atomic Write Unit Normal (AWUN) in blocks, 0-based.
    pub awun: u16,
    /// Atomic Write Unit Power Fail (AWUPF) in blocks, 0-based.
    pub awupf: u16,
    /// Atomic Compare and Write Unit (ACWU) in blocks, 0-based.
    pub acwu: u16,
    /// SGL Support (SGLS), see [`sgls`].
    pub sgls: u32,
    /// Maximum Number of Allowed Namespaces (MNAN), at most NN; needed with ANA.
    pub mnan: u32,
    /// NVM Subsystem NQN (SUBNQN).
    pub subnqn: Nqn,
    /// I/O Queue Command Capsule Supported Size (IOCCSZ) in units of 16 bytes, 4 without data.
    pub ioccsz: u32,
    /// I/O Queue Response Capsule Supported Size (IORCSZ) in units of 16 bytes, at least 1.
    pub iorcsz: u32,
    /// Fabrics Controller Attributes (FCATT): bit 0 is the static controller model.
    pub fcatt: u8,
    /// Maximum SGL Data Block Descriptors (MSDBD).
    pub msdbd: u8,
    /// Optional Fabric Commands Support (OFCS): bit 0 is Disconnect.
    pub ofcs: u16,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct ControllerBytes {
    pub(super) vid: U16,
    pub(super) ssvid: U16,
    pub(super) sn: [u8; 20],
    pub(super) mn: [u8; 40],
    pub(super) fr: [u8; 8],
    pub(super) rab: u8,
    pub(super) ieee: [u8; 3],
    pub(super) cmic: u8,
    pub(super) mdts: u8,
    pub(super) cntlid: U16,
    pub(super) ver: U32,
    pub(super) rtd3r: U32,
    pub(super) rtd3e: U32,
    pub(super) oaes: U32,
    pub(super) ctratt: U32,
    pub(super) reserved100: [u8; 11],
    pub(super) cntrltype: u8,
    pub(super) fguid: [u8; 16],
    pub(super) crdt: [U16; 3],
    pub(super) reserved134: [u8; 122],
    pub(super) oacs: U16,
    pub(super) acl: u8,
    pub(super) aerl: u8,
    pub(super) frmw: u8,
    pub(super) lpa: u8,
    pub(super) elpe: u8,
    pub(super) npss: u8,
    pub(super) avscc: u8,
    pub(super) apsta: u8,
    pub(super) wctemp: U16,
    pub(super) cctemp: U16,
    pub(super) reserved270: [u8; 10],
    pub(super) tnvmcap: U128,
    pub(super) unvmcap: U128,
    pub(super) reserved312: [u8; 8],
    pub(super) kas: U16,
    pub(super) reserved322: [u8; 20],
    pub(super) anatt: u8,
    pub(super) anacap: u8,
    pub(super) anagrpmax: U32,
    pub(super) nanagrpid: U32,
    pub(super) reserved352: [u8; 160],
    pub(super) sqes: u8,
    pub(super) cqes: u8,
    pub(super) maxcmd: U16,
    pub(super) nn: U32,
    pub(super) oncs: U16,
    pub(super) fuses: U16,
    pub(super) fna: u8,
    pub(super) vwc: u8,
    pub(super) awun: U16,
    pub(super) awupf: U16,
    pub(super) reserved530: U16,
    pub(super) acwu: U16,
    pub(super) reserved534: U16,
    pub(super) sgls: U32,
    pub(super) mnan: U32,
    pub(super) reserved544: [u8; 224],
    pub(super) subnqn: [u8; 256],
    pub(super) reserved1024: [u8; 768],
    pub(super) ioccsz: U32,
    pub(super) iorcsz: U32,
    pub(super) icdoff: U16,
    pub(super) fcatt: u8,
    pub(super) msdbd: u8,
    pub(super) ofcs: U16,
    pub(super) reserved1806: [u8; 242],
    pub(super) psd: [[u8; 32]; 32],
    pub(super) vendor: [u8; 1024],
}

const _: () = assert!(size_of::<ControllerBytes>() == BYTES);

/// SQES and CQES of an I/O controller: 64 and 16 bytes, both required and greatest.
const SQES: u8 = 0x66;
const CQES: u8 = 0x44;

impl ControllerInfo {
    /// The structure of CNS 01h.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; BYTES] {
        let mut page = super::EMPTY;
        let bytes = ControllerBytes::mut_from_bytes(&mut page).expect("a page is of that size");
        bytes.vid = self.vendor_id.into();
        bytes.ssvid = self.vendor_id.into();
        bytes.sn = padded(&self.serial, b' ');
        bytes.mn = padded(&self.model, b' ');
        bytes.fr = padded(&self.firmware, b' ');
        bytes.rab = self.rab;
        bytes.ieee = self.ieee;
        bytes.cmic = self.cmic;
        bytes.mdts = self.mdts;
        bytes.cntlid = self.cntlid.into();
        bytes.ver = self.version.into();
        bytes.rtd3e = self.rtd3e_us.into();
        bytes.oaes = self.oaes.0.into();
        bytes.ctratt = self.ctratt.into();
        bytes.cntrltype = self.kind as u8;
        bytes.crdt = self.crdt_100ms.map(U16::new);
        bytes.acl = self.acl;
        bytes.aerl = self.aerl;
        bytes.frmw = self.frmw;
        bytes.lpa = self.lpa;
        bytes.elpe = self.elpe;
        bytes.wctemp = self.wctemp.into();
        bytes.cctemp = self.cctemp.into();
        bytes.kas = self.kas_100ms.into();
        bytes.maxcmd = self.maxcmd.into();
        bytes.sgls = self.sgls.into();
        bytes.subnqn = self.subnqn.to_field();
        if self.kind == ControllerKind::Io {
            bytes.sqes = SQES;
            bytes.cqes = CQES;
        }
        self.write_namespaces(bytes);
        self.write_fabrics(bytes);
        page
    }

    fn write_namespaces(&self, bytes: &mut ControllerBytes) {
        bytes.anatt = self.anatt_s;
        bytes.anacap = self.anacap;
        bytes.anagrpmax = self.anagrpmax.into();
        bytes.nanagrpid = self.nanagrpid.into();
        bytes.nn = self.nn.into();
        bytes.mnan = self.mnan.into();
        bytes.oncs = self.oncs.into();
        bytes.vwc = self.vwc;
        bytes.awun = self.awun.into();
        bytes.awupf = self.awupf.into();
        bytes.acwu = self.acwu.into();
    }

    fn write_fabrics(&self, bytes: &mut ControllerBytes) {
        bytes.ioccsz = self.ioccsz.into();
        bytes.iorcsz = self.iorcsz.into();
        bytes.fcatt = self.fcatt;
        bytes.msdbd = self.msdbd;
        bytes.ofcs = self.ofcs.into();
    }

    /// Reads the structure of CNS 01h, for hosts. A type of controller that is not known here
    /// counts as one with I/O queues, as it did before there were types.
    ///
    /// # Errors
    /// The subsystem has no readable name.
    pub fn parse(page: &[u8; BYTES]) -> Result<Self, NqnError> {
        let bytes = ControllerBytes::ref_from_bytes(page).expect("a page is of that size");
        let text = |field: &[u8]| trimmed(field).unwrap_or_default().to_owned();
        Ok(Self {
            kind: match bytes.cntrltype {
                2 => ControllerKind::Discovery,
                _ => ControllerKind::Io,
            },
            vendor_id: bytes.vid.get(),
            serial: text(&bytes.sn),
            model: text(&bytes.mn),
            firmware: text(&bytes.fr),
            rab: bytes.rab,
            ieee: bytes.ieee,
            cmic: bytes.cmic,
            mdts: bytes.mdts,
            cntlid: bytes.cntlid.get(),
            version: bytes.ver.get(),
            rtd3e_us: bytes.rtd3e.get(),
            oaes: AsyncEventMask(bytes.oaes.get()),
            ctratt: bytes.ctratt.get(),
            crdt_100ms: bytes.crdt.map(U16::get),
            acl: bytes.acl,
            aerl: bytes.aerl,
            frmw: bytes.frmw,
            lpa: bytes.lpa,
            elpe: bytes.elpe,
            wctemp: bytes.wctemp.get(),
            cctemp: bytes.cctemp.get(),
            kas_100ms: bytes.kas.get(),
            anatt_s: bytes.anatt,
            anacap: bytes.anacap,
            anagrpmax: bytes.anagrpmax.get(),
            nanagrpid: bytes.nanagrpid.get(),
            maxcmd: bytes.maxcmd.get(),
            nn: bytes.nn.get(),
            oncs: bytes.oncs.get(),
            vwc: bytes.vwc,
            awun: bytes.awun.get(),
            awupf: bytes.awupf.get(),
            acwu: bytes.acwu.get(),
            sgls: bytes.sgls.get(),
            mnan: bytes.mnan.get(),
            subnqn: Nqn::from_field(&bytes.subnqn)?,
            ioccsz: bytes.ioccsz.get(),
            iorcsz: bytes.iorcsz.get(),
            fcatt: bytes.fcatt,
            msdbd: bytes.msdbd,
            ofcs: bytes.ofcs.get(),
        })
    }
}

/// Limits of the NVM command set: CNS 06h. 0 is no limit of its own; sizes are 4 KiB times two to
/// the value, as MDTS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NvmLimits {
    /// Verify Size Limit (VSL).
    pub vsl: u8,
    /// Write Zeroes Size Limit (WZSL).
    pub wzsl: u8,
    /// Dataset Management Ranges Limit (DMRL).
    pub dmrl: u8,
    /// Dataset Management Range Size Limit (DMRSL) in blocks.
    pub dmrsl: u32,
    /// Dataset Management Size Limit (DMSL) in blocks.
    pub dmsl: u64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct NvmLimitsBytes {
    vsl: u8,
    wzsl: u8,
    wusl: u8,
    dmrl: u8,
    dmrsl: U32,
    dmsl: U64,
}

impl NvmLimits {
    /// The structure of CNS 06h.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; BYTES] {
        let bytes = NvmLimitsBytes {
            vsl: self.vsl,
            wzsl: self.wzsl,
            wusl: 0,
            dmrl: self.dmrl,
            dmrsl: self.dmrsl.into(),
            dmsl: self.dmsl.into(),
        };
        let mut page = super::EMPTY;
        page[..size_of::<NvmLimitsBytes>()].copy_from_slice(bytes.as_bytes());
        page
    }

    /// Reads the structure of CNS 06h, for hosts.
    #[must_use]
    pub fn parse(page: &[u8; BYTES]) -> Self {
        let (bytes, _) = NvmLimitsBytes::ref_from_prefix(page).expect("a page is longer than that");
        Self {
            vsl: bytes.vsl,
            wzsl: bytes.wzsl,
            dmrl: bytes.dmrl,
            dmrsl: bytes.dmrsl.get(),
            dmsl: bytes.dmsl.get(),
        }
    }
}
