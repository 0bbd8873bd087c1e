//! CRC-32C (Castagnoli), the checksum of every structure of every format.

/// Seed and domain: a checksum of one kind of content never passes for one of another kind at the
/// same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Domain {
    /// Headers of objects and of the superblock.
    Header = 0,
    /// Payload: the data of a log entry and the stored bytes of a frame. They share a domain so
    /// that the checksum made when a write enters the log goes with its data into the object,
    /// and nothing in between can change it unseen.
    Data = 0x4d52_4601,
    /// A section of a map part.
    Section = 0x4345_5301,
}

/// CRC-32C of `bytes`, seeded with the domain.
#[must_use]
pub fn crc(domain: Domain, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(domain as u32, bytes)
}

/// Goes on with the checksum of content that comes in pieces.
#[must_use]
pub fn crc_more(so_far: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(so_far, bytes)
}

/// CRC-32C of a header whose own checksum field, 4 bytes at `field`, counts as zero.
///
/// # Panics
/// If the field is not inside `header`; offsets are constants of the formats.
#[must_use]
pub fn header_crc(header: &[u8], field: usize) -> u32 {
    let (before, rest) = header.split_at(field);
    let after = rest.get(4..).expect("the checksum field is inside its header");
    let crc = crc32c::crc32c_append(Domain::Header as u32, before);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, after)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn it_is_castagnoli() {
        // RFC 3720, appendix B.4: 32 bytes of zeros.
        assert_eq!(crc(Domain::Header, &[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn the_field_itself_does_not_count() {
        let mut header = [7_u8; 40];
        let first = header_crc(&header, 12);
        header[12..16].copy_from_slice(&first.to_le_bytes());
        assert_eq!(header_crc(&header, 12), first);
        header[16] ^= 1;
        assert_ne!(header_crc(&header, 12), first);
    }

    #[test]
    fn pieces_are_the_same_as_the_whole() {
        assert_eq!(crc_more(crc(Domain::Data, b"ab"), b"c"), crc(Domain::Data, b"abc"));
    }

    #[test]
    fn domains_differ() {
        assert_ne!(crc(Domain::Data, b"x"), crc(Domain::Section, b"x"));
    }
}
