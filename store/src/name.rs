//! The one place that decides which object names are allowed.

use thiserror::Error;

/// Longest object name in bytes: the limit of S3, and enough for every name of ours.
///
/// A name is a sequence of parts joined by `/`. No part may be empty, `.`, `..`, longer than
/// [`PART_BYTES_MAX`], or start with `.lsvd-` (the stores' own files). Names are UTF-8 without
/// control characters; everything else is allowed and kept as it is.
pub const NAME_BYTES_MAX: usize = 1024;

/// Longest part of a name between two `/`, in bytes: the limit of the common file systems.
pub const PART_BYTES_MAX: usize = 255;

/// Parts that start like this belong to the stores themselves and never show in listings.
pub(crate) const RESERVED: &str = ".lsvd-";

/// Why a name, a range or a listing was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Refused {
    #[error("the name is empty")]
    Empty,
    #[error("the name is longer than {NAME_BYTES_MAX} bytes")]
    TooLong,
    #[error("a part of the name is longer than {PART_BYTES_MAX} bytes")]
    PartTooLong,
    #[error("a part of the name is empty: two `/` in a row, or one at either end")]
    PartEmpty,
    #[error("a part of the name is `.` or `..`")]
    PartDots,
    #[error("names that start with `{RESERVED}` are the store's own")]
    PartReserved,
    #[error("the name contains a control character")]
    Control,
    #[error("the name is a directory of other objects, or has an object as its directory")]
    Nested,
    #[error("bytes {offset}..{offset}+{len} reach past the object's end at {size}")]
    Range { offset: u64, len: u64, size: u64 },
    #[error("a listing needs a limit of at least 1")]
    Limit,
}

/// Checks the name of an object.
pub(crate) fn check(name: &str) -> Result<(), Refused> {
    if name.is_empty() {
        return Err(Refused::Empty);
    }
    check_length(name)?;
    name.split('/').try_for_each(check_part)
}

/// Checks that some name could start with `prefix`.
pub(crate) fn check_prefix(prefix: &str) -> Result<(), Refused> {
    check_length(prefix)?;
    match prefix.rsplit_once('/') {
        // The last part is only the beginning of one: `..` may yet become `..x`.
        Some((complete, _)) => complete.split('/').try_for_each(check_part),
        None => Ok(()),
    }
}

/// Checks that bytes `offset..offset + len` lie within an object of `size` bytes.
pub(crate) fn check_range(offset: u64, len: u64, size: u64) -> Result<(), Refused> {
    match offset.checked_add(len) {
        Some(end) if end <= size => Ok(()),
        _ => Err(Refused::Range { offset, len, size }),
    }
}

fn check_length(name: &str) -> Result<(), Refused> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Refused::TooLong);
    }
    if name.chars().any(char::is_control) {
        return Err(Refused::Control);
    }
    Ok(())
}

fn check_part(part: &str) -> Result<(), Refused> {
    match part {
        "" => Err(Refused::PartEmpty),
        "." | ".." => Err(Refused::PartDots),
        _ if part.len() > PART_BYTES_MAX => Err(Refused::PartTooLong),
        _ if part.starts_with(RESERVED) => Err(Refused::PartReserved),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn names_that_could_leave_the_pool_are_refused() {
        for name in ["..", "a/../b", "/etc/passwd", "a/", "a//b", ".", "a/.", "", "a\0b", "a\nb"] {
            assert!(check(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn odd_but_harmless_names_are_allowed() {
        for name in ["...", "a..b", ".hidden", "a b", "%2e%2e", "\u{e9}", "a\\b", "-rf", "..a/b"] {
            assert_eq!(check(name), Ok(()), "{name:?}");
        }
    }

    #[test]
    fn limits_are_inclusive() {
        let part = "p".repeat(PART_BYTES_MAX);
        let longest = [part.as_str(); 4].join("/");
        assert_eq!(check(&part), Ok(()));
        assert_eq!(check(&format!("{part}p")), Err(Refused::PartTooLong));
        assert_eq!(longest.len(), NAME_BYTES_MAX - 1);
        assert_eq!(check(&longest), Ok(()));
        assert_eq!(check(&format!("{longest}/p")), Err(Refused::TooLong));
    }

    #[test]
    fn every_beginning_of_a_name_is_a_prefix() {
        let name = "..a/b c/.x";
        assert!(name.char_indices().all(|(at, _)| check_prefix(&name[..at]).is_ok()));
        for prefix in ["/", "a//", "../", "a/../b", "a/./"] {
            assert!(check_prefix(prefix).is_err(), "{prefix:?}");
        }
    }

    #[test]
    fn a_range_that_overflows_is_refused() {
        assert!(check_range(u64::MAX, 1, u64::MAX).is_err());
        assert!(check_range(u64::MAX, 0, u64::MAX).is_ok());
    }
}
