//! Discovery, page 70h (section 5.16.1.23).

use std::net::{IpAddr, SocketAddr};

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::nqn::Nqn;
use crate::wire::text::{padded, trimmed};

/// Subsystem Type (SUBTYPE).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SubsystemKind {
    /// Another discovery subsystem.
    Referral = 1,
    /// A subsystem with I/O controllers.
    Nvm = 2,
    /// The discovery subsystem that answers.
    CurrentDiscovery = 3,
}

/// One way to one subsystem, by TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryRecord {
    /// Subsystem Type.
    pub kind: SubsystemKind,
    /// Transport Address (TRADDR) and Service Identifier (TRSVCID).
    pub address: SocketAddr,
    /// Port ID (PORTID), the same for records of the same port.
    pub port_id: u16,
    /// Controller ID (CNTLID): FFFFh is the dynamic controller model.
    pub cntlid: u16,
    /// Admin Max SQ Size (ASQSZ) in entries, at least 32.
    pub admin_queue_entries: u16,
    /// Entry Flags (EFLAGS): bit 0 duplicates exist at other addresses, bit 1 explicit persistent
    /// connection is possible.
    pub eflags: u16,
    /// NVM Subsystem Qualified Name (SUBNQN).
    pub subsystem: Nqn,
}

/// The page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryLog {
    /// Generation Counter (GENCTR): changes whenever the page does.
    pub generation: u64,
    /// Records.
    pub records: Vec<DiscoveryRecord>,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct HeaderBytes {
    genctr: U64,
    numrec: U64,
    recfmt: U16,
    reserved18: [u8; 1006],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RecordBytes {
    trtype: u8,
    adrfam: u8,
    subtype: u8,
    treq: u8,
    portid: U16,
    cntlid: U16,
    asqsz: U16,
    eflags: U16,
    reserved12: [u8; 20],
    trsvcid: [u8; 32],
    reserved64: [u8; 192],
    subnqn: [u8; 256],
    traddr: [u8; 256],
    tsas: [u8; 256],
}

const _: () = assert!(size_of::<HeaderBytes>() == 1024);
const _: () = assert!(size_of::<RecordBytes>() == 1024);

const TRTYPE_TCP: u8 = 3;
const ADRFAM_IPV4: u8 = 1;
const ADRFAM_IPV6: u8 = 2;
/// TREQ: a secure channel is not required (bits 1:0), SQ flow control can be off (bit 2).
const TREQ: u8 = 0b110;

impl DiscoveryRecord {
    fn to_bytes(&self) -> RecordBytes {
        RecordBytes {
            trtype: TRTYPE_TCP,
            adrfam: match self.address.ip() {
                IpAddr::V4(_) => ADRFAM_IPV4,
                IpAddr::V6(_) => ADRFAM_IPV6,
            },
            subtype: self.kind as u8,
            treq: TREQ,
            portid: self.port_id.into(),
            cntlid: self.cntlid.into(),
            asqsz: self.admin_queue_entries.into(),
            eflags: self.eflags.into(),
            reserved12: [0; 20],
            trsvcid: padded(&self.address.port().to_string(), b' '),
            reserved64: [0; 192],
            subnqn: self.subsystem.to_field(),
            traddr: padded(&self.address.ip().to_string(), b' '),
            // SECTYPE 0: no transport security.
            tsas: [0; 256],
        }
    }

    fn parse(bytes: &RecordBytes) -> Option<Self> {
        if bytes.trtype != TRTYPE_TCP {
            return None;
        }
        let ip: IpAddr = trimmed(&bytes.traddr)?.parse().ok()?;
        let port: u16 = trimmed(&bytes.trsvcid)?.parse().ok()?;
        Some(Self {
            kind: match bytes.subtype {
                1 => SubsystemKind::Referral,
                2 => SubsystemKind::Nvm,
                3 => SubsystemKind::CurrentDiscovery,
                _ => return None,
            },
            address: SocketAddr::new(ip, port),
            port_id: bytes.portid.get(),
            cntlid: bytes.cntlid.get(),
            admin_queue_entries: bytes.asqsz.get(),
            eflags: bytes.eflags.get(),
            subsystem: Nqn::from_field(&bytes.subnqn).ok()?,
        })
    }
}

impl DiscoveryLog {
    /// The page.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let header = HeaderBytes {
            genctr: self.generation.into(),
            numrec: (self.records.len() as u64).into(),
            recfmt: U16::ZERO,
            reserved18: [0; 1006],
        };
        let mut log = Vec::with_capacity(size_of::<RecordBytes>() * (1 + self.records.len()));
        log.extend_from_slice(header.as_bytes());
        for record in &self.records {
            log.extend_from_slice(record.to_bytes().as_bytes());
        }
        log
    }

    /// Reads the page, for hosts. Records of other transports are left out; `None` if the page is
    /// cut off.
    #[must_use]
    pub fn parse(log: &[u8]) -> Option<Self> {
        let (header, rest) = HeaderBytes::ref_from_prefix(log).ok()?;
        let count = usize::try_from(header.numrec.get()).ok()?;
        let len = count.checked_mul(size_of::<RecordBytes>())?;
        let records = rest
            .get(..len)?
            .chunks_exact(size_of::<RecordBytes>())
            .filter_map(|bytes| DiscoveryRecord::parse(RecordBytes::ref_from_bytes(bytes).ok()?))
            .collect();
        Some(Self { generation: header.genctr.get(), records })
    }
}
