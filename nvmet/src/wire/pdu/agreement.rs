//! What a connection agrees upon with ICReq and ICResp: digests and alignment.

/// Bytes of a digest, CRC-32C in little-endian order.
pub const DIGEST_BYTES: usize = 4;

/// Digests that a connection agreed upon (DGST of ICReq and ICResp).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digests {
    /// HDGST_ENABLE, bit 0.
    pub header: bool,
    /// DDGST_ENABLE, bit 1.
    pub data: bool,
}

impl Digests {
    /// Reads a DGST field; its other bits are reserved.
    #[must_use]
    pub const fn from_field(dgst: u8) -> Self {
        Self { header: dgst & 1 != 0, data: dgst & 2 != 0 }
    }

    /// The field that [`Self::from_field`] reads.
    #[must_use]
    pub const fn to_field(self) -> u8 {
        self.header as u8 | (self.data as u8) << 1
    }
}

/// Alignment of PDU data that a receiver asks for (HPDA of a host, CPDA of a controller).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Alignment(u8);

impl Alignment {
    /// Reads the 0-based count of dwords; `None` beyond 31.
    #[must_use]
    pub const fn from_field(dwords: u8) -> Option<Self> {
        if dwords < 32 { Some(Self(dwords)) } else { None }
    }

    /// The field that [`Self::from_field`] reads.
    #[must_use]
    pub const fn to_field(self) -> u8 {
        self.0
    }

    /// Multiple on which data starts, 4 to 128 bytes from the start of the PDU.
    #[must_use]
    pub const fn bytes(self) -> usize {
        (self.0 as usize + 1) * 4
    }
}

/// CRC-32C of `bytes` as the digest fields have it.
#[must_use]
pub fn digest(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// The digest of data that comes in pieces: start with 0.
#[must_use]
pub fn digest_append(digest: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(digest, bytes)
}

pub(super) const fn digest_bytes(present: bool) -> usize {
    if present { DIGEST_BYTES } else { 0 }
}
