//! How objects are named in a pool: parsing and formatting, side by side, and nowhere else.

use std::fmt;

use crate::ids::ObjectSeq;
use crate::limits::IMAGE_NAME_MAX;

/// A checked image name: 1 to 96 bytes of ASCII letters, digits, `.`, `_` and `-`, starting with
/// none of `.` and `-`.
///
/// `/` separates keys, `@` will name snapshots, and a leading dash would be taken for an option.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageName(String);

/// The key of an object in a pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ObjectName {
    /// `<image>/superblock`, the only mutable object of an image.
    Superblock(ImageName),
    /// `<image>/<16 hexadecimal digits>`: data, map part or checkpoint.
    Numbered(ImageName, ObjectSeq),
}

/// Why a text is no image name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The empty string.
    #[error("an image name must not be empty")]
    Empty,
    /// Longer than 96 bytes.
    #[error("an image name has at most {IMAGE_NAME_MAX} characters")]
    TooLong,
    /// A character that is not allowed.
    #[error(
        "an image name has letters, digits, '.', '_' and '-' only, and starts with none of '.' and '-'; found {0:?}"
    )]
    Character(char),
}

impl ImageName {
    /// Checks a name.
    ///
    /// # Errors
    /// The first rule that `text` breaks.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.len() > IMAGE_NAME_MAX {
            return Err(NameError::TooLong);
        }
        let first = text.chars().next().ok_or(NameError::Empty)?;
        if matches!(first, '.' | '-') {
            return Err(NameError::Character(first));
        }
        match text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
            Some(c) => Err(NameError::Character(c)),
            None => Ok(Self(text.to_owned())),
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The common prefix of all keys of this image, slash included.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("{}/", self.0)
    }

    /// The key of the superblock.
    #[must_use]
    pub fn superblock(&self) -> String {
        format!("{}/superblock", self.0)
    }

    /// The key of a numbered object.
    #[must_use]
    pub fn numbered(&self, seq: ObjectSeq) -> String {
        format!("{}/{:016x}", self.0, seq.0)
    }
}

impl ObjectName {
    /// Reads a key; `None` for a key that is not ours.
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        let (image, leaf) = key.split_once('/')?;
        let image = ImageName::parse(image).ok()?;
        if leaf == "superblock" {
            return Some(Self::Superblock(image));
        }
        let digits = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if leaf.len() != 16 || !leaf.chars().all(digits) {
            return None;
        }
        let seq = u64::from_str_radix(leaf, 16).ok()?;
        Some(Self::Numbered(image, ObjectSeq(seq)))
    }

    /// The image that the object belongs to.
    #[must_use]
    pub fn image(&self) -> &ImageName {
        match self {
            Self::Superblock(image) | Self::Numbered(image, _) => image,
        }
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Superblock(image) => f.write_str(&image.superblock()),
            Self::Numbered(image, seq) => f.write_str(&image.numbered(*seq)),
        }
    }
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_that_only_begins_like_another_is_another_image() {
        let one = ObjectName::parse("disk1/superblock").unwrap();
        let ten = ObjectName::parse("disk10/superblock").unwrap();
        assert_ne!(one.image(), ten.image());
        assert!(!ten.to_string().starts_with(&one.image().prefix()));
    }

    #[test]
    fn foreign_keys_are_not_ours() {
        for key in ["", "x", "a/b/superblock", "a/superblock2", "a/123", "a/000000000000000G"] {
            assert_eq!(ObjectName::parse(key), None, "{key}");
        }
        // Upper case digits would give one object two names.
        assert_eq!(ObjectName::parse("a/00000000000000AB"), None);
    }

    #[test]
    fn names_that_would_confuse_are_refused() {
        assert_eq!(ImageName::parse(""), Err(NameError::Empty));
        assert_eq!(ImageName::parse("-x"), Err(NameError::Character('-')));
        assert_eq!(ImageName::parse("a/b"), Err(NameError::Character('/')));
        assert_eq!(ImageName::parse("a@b"), Err(NameError::Character('@')));
        assert_eq!(ImageName::parse(&"a".repeat(97)), Err(NameError::TooLong));
        assert!(ImageName::parse("auto_lsvddev_0").is_ok());
    }

    proptest! {
        #[test]
        fn what_is_formatted_parses_back(image in "[a-z0-9_][a-z0-9._-]{0,20}", seq: u64) {
            let image = ImageName::parse(&image).unwrap();
            let name = ObjectName::Numbered(image, ObjectSeq(seq));
            prop_assert_eq!(ObjectName::parse(&name.to_string()), Some(name));
        }

        #[test]
        fn any_text_parses_or_not_without_panic(text in ".{0,60}") {
            if let Some(name) = ObjectName::parse(&text) {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
