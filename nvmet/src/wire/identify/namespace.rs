//! Identify Namespace: CNS 00h and 11h (NVM sections 4.1.5.1 and 4.1.5.5), 03h and 08h (sections
//! 5.17.2.3 and 5.17.2.8).

use uuid::Uuid;
use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{BYTES, EMPTY};

/// Bits of [`NamespaceInfo::nsfeat`].
pub mod nsfeat {
    /// Thin provisioning: NCAP may be less than NSZE.
    pub const THIN: u8 = 1 << 0;
    /// The namespace has atomic write units of its own.
    pub const ATOMICS: u8 = 1 << 1;
    /// OPTPERF: the preferred granularities and NOWS are given.
    pub const PREFERRED: u8 = 1 << 4;
}

/// Bits of [`NamespaceInfo::nmic`].
pub mod nmic {
    /// Several controllers may be attached at once; Linux wants it for a second path.
    pub const SHARED: u8 = 1 << 0;
}

/// What Identify says of a namespace with one LBA format and no metadata; fields without mention
/// are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamespaceInfo {
    /// Namespace Size (NSZE) in blocks.
    pub blocks: u64,
    /// Namespace Utilization (NUSE) in blocks.
    pub blocks_used: u64,
    /// Size of a block in bytes as a power of two (LBADS), 9 or more; Linux takes 9 to 12.
    pub block_bytes_log2: u8,
    /// Namespace Features (NSFEAT), see [`nsfeat`].
    pub nsfeat: u8,
    /// Namespace Multi-path I/O and Namespace Sharing Capabilities (NMIC), see [`nmic`].
    pub nmic: u8,
    /// Reservation Capabilities (RESCAP); 0 is none.
    pub rescap: u8,
    /// Deallocate Logical Block Features (DLFEAT): bits 2:0 are 001b if deallocated blocks read as
    /// zeroes, bit 3 is set if Write Zeroes takes DEAC.
    pub dlfeat: u8,
    /// Namespace Atomic Write Unit Normal (NAWUN) in blocks, 0-based.
    pub nawun: u16,
    /// Namespace Atomic Write Unit Power Fail (NAWUPF) in blocks, 0-based.
    pub nawupf: u16,
    /// Namespace Optimal I/O Boundary (NOIOB) in blocks; 0 is none.
    pub noiob: u16,
    /// Namespace Preferred Write Granularity (NPWG) in blocks, 0-based.
    pub npwg: u16,
    /// Namespace Preferred Write Alignment (NPWA) in blocks, 0-based.
    pub npwa: u16,
    /// Namespace Preferred Deallocate Granularity (NPDG) in blocks, 0-based.
    pub npdg: u16,
    /// Namespace Preferred Deallocate Alignment (NPDA) in blocks, 0-based.
    pub npda: u16,
    /// Namespace Optimal Write Size (NOWS) in blocks, 0-based.
    pub nows: u16,
    /// ANA Group Identifier (ANAGRPID); 0 without ANA.
    pub anagrpid: u32,
    /// NSATTR bit 0: the namespace refuses writes.
    pub is_write_protected: bool,
    /// Namespace Globally Unique Identifier (NGUID); zeroes are none.
    pub nguid: [u8; 16],
    /// IEEE Extended Unique Identifier (EUI64); zeroes are none.
    pub eui64: [u8; 8],
    /// Namespace UUID; nil is none.
    pub uuid: Uuid,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct NamespaceBytes {
    pub(super) nsze: U64,
    pub(super) ncap: U64,
    pub(super) nuse: U64,
    pub(super) nsfeat: u8,
    pub(super) nlbaf: u8,
    pub(super) flbas: u8,
    pub(super) mc: u8,
    pub(super) dpc: u8,
    pub(super) dps: u8,
    pub(super) nmic: u8,
    pub(super) rescap: u8,
    pub(super) fpi: u8,
    pub(super) dlfeat: u8,
    pub(super) nawun: U16,
    pub(super) nawupf: U16,
    pub(super) nacwu: U16,
    pub(super) nabsn: U16,
    pub(super) nabo: U16,
    pub(super) nabspf: U16,
    pub(super) noiob: U16,
    pub(super) nvmcap: U128,
    pub(super) npwg: U16,
    pub(super) npwa: U16,
    pub(super) npdg: U16,
    pub(super) npda: U16,
    pub(super) nows: U16,
    pub(super) reserved74: [u8; 18],
    pub(super) anagrpid: U32,
    pub(super) reserved96: [u8; 3],
    pub(super) nsattr: u8,
    pub(super) nvmsetid: U16,
    pub(super) endgid: U16,
    pub(super) nguid: [u8; 16],
    pub(super) eui64: [u8; 8],
    pub(super) lbaf: [LbaFormatBytes; 64],
    pub(super) vendor: [u8; 3712],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct LbaFormatBytes {
    pub(super) ms: U16,
    pub(super) lbads: u8,
    pub(super) rp: u8,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct IndependentBytes {
    nsfeat: u8,
    nmic: u8,
    rescap: u8,
    fpi: u8,
    anagrpid: U32,
    nsattr: u8,
    reserved9: u8,
    nvmsetid: U16,
    endgid: U16,
    nstat: u8,
}

const _: () = assert!(size_of::<NamespaceBytes>() == BYTES);

/// NSTAT bit 0: ready.
const NSTAT_READY: u8 = 1;

/// Namespace Identifier Types of the descriptors (NIDT).
mod nidt {
    pub(super) const EUI64: u8 = 1;
    pub(super) const NGUID: u8 = 2;
    pub(super) const UUID: u8 = 3;
    pub(super) const CSI: u8 = 4;
}

impl NamespaceInfo {
    /// The structure of CNS 00h and 11h.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; BYTES] {
        let mut page = EMPTY;
        let bytes = NamespaceBytes::mut_from_bytes(&mut page).expect("a page is of that size");
        bytes.nsze = self.blocks.into();
        bytes.ncap = self.blocks.into();
        bytes.nuse = self.blocks_used.into();
        bytes.nsfeat = self.nsfeat;
        bytes.nmic = self.nmic;
        bytes.rescap = self.rescap;
        bytes.dlfeat = self.dlfeat;
        bytes.nawun = self.nawun.into();
        bytes.nawupf = self.nawupf.into();
        bytes.noiob = self.noiob.into();
        bytes.nvmcap = (u128::from(self.blocks) << self.block_bytes_log2).into();
        bytes.npwg = self.npwg.into();
        bytes.npwa = self.npwa.into();
        bytes.npdg = self.npdg.into();
        bytes.npda = self.npda.into();
        bytes.nows = self.nows.into();
        bytes.anagrpid = self.anagrpid.into();
        bytes.nsattr = u8::from(self.is_write_protected);
        bytes.nguid = self.nguid;
        bytes.eui64 = self.eui64;
        bytes.lbaf[0].lbads = self.block_bytes_log2;
        page
    }

    /// Reads the structure of CNS 00h, for hosts; the UUID is not in it, see [`Self::uuid_of`].
    /// Of several LBA formats it is the one in use.
    #[must_use]
    pub fn parse(page: &[u8; BYTES]) -> Self {
        let bytes = NamespaceBytes::ref_from_bytes(page).expect("a page is of that size");
        // FLBAS: bits 3:0 are the low and bits 6:5 the high bits of the format's index.
        let format = usize::from(bytes.flbas & 15 | (bytes.flbas >> 5 & 3) << 4);
        Self {
            blocks: bytes.nsze.get(),
            blocks_used: bytes.nuse.get(),
            block_bytes_log2: bytes.lbaf[format].lbads,
            nsfeat: bytes.nsfeat,
            nmic: bytes.nmic,
            rescap: bytes.rescap,
            dlfeat: bytes.dlfeat,
            nawun: bytes.nawun.get(),
            nawupf: bytes.nawupf.get(),
            noiob: bytes.noiob.get(),
            npwg: bytes.npwg.get(),
            npwa: bytes.npwa.get(),
            npdg: bytes.npdg.get(),
            npda: bytes.npda.get(),
            nows: bytes.nows.get(),
            anagrpid: bytes.anagrpid.get(),
            is_write_protected: bytes.nsattr & 1 != 0,
            nguid: bytes.nguid,
            eui64: bytes.eui64,
            uuid: Uuid::nil(),
        }
    }

    /// The structure of CNS 08h of a namespace that is ready or not (NSTAT).
    #[must_use]
    pub fn independent_to_bytes(&self, is_ready: bool) -> [u8; BYTES] {
        let bytes = IndependentBytes {
            nsfeat: 0,
            nmic: self.nmic,
            rescap: self.rescap,
            fpi: 0,
            anagrpid: self.anagrpid.into(),
            nsattr: u8::from(self.is_write_protected),
            reserved9: 0,
            nvmsetid: U16::ZERO,
            endgid: U16::ZERO,
            nstat: if is_ready { NSTAT_READY } else { 0 },
        };
        let mut page = EMPTY;
        page[..size_of::<IndependentBytes>()].copy_from_slice(bytes.as_bytes());
        page
    }

    /// The descriptors of CNS 03h: UUID, NGUID and EUI64 as far as there are any, and the command
    /// set, without which Linux ignores the namespace if it chose all command sets.
    #[must_use]
    pub fn descriptors_to_bytes(&self) -> [u8; BYTES] {
        let mut page = EMPTY;
        let mut at = 0;
        let mut push = |kind: u8, id: &[u8]| {
            page[at] = kind;
            page[at + 1] = id.len() as u8;
            page[at + 4..at + 4 + id.len()].copy_from_slice(id);
            at += 4 + id.len();
        };
        if !self.uuid.is_nil() {
            push(nidt::UUID, self.uuid.as_bytes());
        }
        if self.nguid != [0; 16] {
            push(nidt::NGUID, &self.nguid);
        }
        if self.eui64 != [0; 8] {
            push(nidt::EUI64, &self.eui64);
        }
        push(nidt::CSI, &[0]);
        page
    }

    /// The UUID among the descriptors of CNS 03h, for hosts.
    #[must_use]
    pub fn uuid_of(page: &[u8; BYTES]) -> Option<Uuid> {
        let mut rest = &page[..];
        while let [kind, len, _, _, tail @ ..] = rest {
            let id = tail.get(..usize::from(*len)).filter(|id| !id.is_empty())?;
            if *kind == nidt::UUID {
                return Uuid::from_slice(id).ok();
            }
            rest = &tail[id.len()..];
        }
        None
    }
}
