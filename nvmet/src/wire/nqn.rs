//! NVMe qualified names (section 4.5).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::text;

/// A name of a host or subsystem: 1 to 223 bytes of UTF-8 without control characters.
///
/// The `nqn.` prefix is not demanded: both Linux and SPDK connect with any name that fits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nqn(Arc<str>);

/// Why a text is not an [`Nqn`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NqnError {
    /// No text at all.
    #[error("name is empty")]
    Empty,
    /// More than [`Nqn::BYTES_MAX`] bytes, or not terminated within its field.
    #[error("name is longer than 223 bytes")]
    TooLong,
    /// Not UTF-8, or with a control character in it.
    #[error("name has a byte that is not text")]
    NotText,
}

impl Nqn {
    /// Longest name in bytes, the terminating NUL not counted (section 4.5).
    pub const BYTES_MAX: usize = 223;
    /// Bytes of the field that holds a name.
    pub const FIELD_BYTES: usize = 256;
    /// Well-known name of the discovery subsystem (section 4.5).
    pub const DISCOVERY: &str = "nqn.2014-08.org.nvmexpress.discovery";

    /// Reads a NUL-terminated field.
    pub fn from_field(field: &[u8; Self::FIELD_BYTES]) -> Result<Self, NqnError> {
        let end = field.iter().position(|&byte| byte == 0).ok_or(NqnError::TooLong)?;
        std::str::from_utf8(&field[..end]).map_err(|_| NqnError::NotText)?.parse()
    }

    /// The field that [`Self::from_field`] reads.
    #[must_use]
    pub fn to_field(&self) -> [u8; Self::FIELD_BYTES] {
        text::padded(&self.0, 0)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the well-known discovery subsystem.
    #[must_use]
    pub fn is_discovery(&self) -> bool {
        &*self.0 == Self::DISCOVERY
    }
}

impl FromStr for Nqn {
    type Err = NqnError;

    fn from_str(text: &str) -> Result<Self, NqnError> {
        if text.is_empty() {
            Err(NqnError::Empty)
        } else if text.len() > Self::BYTES_MAX {
            Err(NqnError::TooLong)
        } else if text.chars().any(char::is_control) {
            Err(NqnError::NotText)
        } else {
            Ok(Self(text.into()))
        }
    }
}

impl fmt::Display for Nqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Nqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn only_terminated_text_of_up_to_223_bytes_is_a_name() {
        let name: Nqn = "a".repeat(223).parse().expect("longest name");
        assert_eq!(Nqn::from_field(&name.to_field()), Ok(name));
        assert_eq!("a".repeat(224).parse::<Nqn>(), Err(NqnError::TooLong));
        assert_eq!("".parse::<Nqn>(), Err(NqnError::Empty));
        assert_eq!("a\nb".parse::<Nqn>(), Err(NqnError::NotText));
        assert_eq!(Nqn::from_field(&[b'a'; 256]), Err(NqnError::TooLong));
        assert_eq!(Nqn::from_field(&[0; 256]), Err(NqnError::Empty));
        let mut field = [0; 256];
        field[0] = 0xff;
        assert_eq!(Nqn::from_field(&field), Err(NqnError::NotText));
    }
}
