//! The settings of one image: the text behind `bdev_lsvd_create -c`.
//!
//! The text is a JSON object, or the path of a file with one. Whatever of it we do not know is an
//! error: a setting that is silently ignored is found out when it is needed.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::limits::SETTINGS_BYTES_MAX;
use crate::suggest::suggestion;

/// What an operator wants different for one image. What is left out is as the gateway has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Directory of the read cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rcache_dir: Option<PathBuf>,
    /// Directory of the write log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wlog_dir: Option<PathBuf>,
    /// Bytes of the write log.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "size")]
    pub wlog_size: Option<u64>,
    /// Bytes of data after which a batch is sealed.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "size")]
    pub batch_size: Option<u64>,
    /// Milliseconds after which a batch is sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_age_ms: Option<u64>,
    /// What a flush waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flush: Option<Flush>,
}

/// What a flush waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flush {
    /// The write log on the SSD.
    Local,
    /// The object store.
    Backend,
}

/// Every key, for suggestions; a test compares them with [`Settings`].
const KEYS: [&str; 6] =
    ["rcache_dir", "wlog_dir", "wlog_size", "batch_size", "batch_age_ms", "flush"];

/// Why a text holds no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The text is no path of a file that can be read.
    #[error("config is neither a JSON object nor a file: {}", path.display())]
    Read {
        /// The text, taken for a path.
        path: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// The text or the file is no JSON object, or a value is of the wrong kind.
    #[error("config does not parse")]
    Json(#[from] serde_json::Error),
    /// A key that we do not know.
    #[error("config has an unknown key {key:?}{suggestion}")]
    UnknownKey {
        /// The key.
        key: String,
        /// What it may have been meant to be.
        suggestion: String,
    },
}

impl Settings {
    /// Takes settings from a JSON object, or from the file that the text names. Reads the file, so
    /// it may block.
    pub fn resolve(text: &str) -> Result<Self, SettingsError> {
        let trimmed = text.trim();
        match trimmed.as_bytes().first() {
            None => Ok(Self::default()),
            Some(b'{') => Self::parse(trimmed),
            Some(_) => {
                let path = Path::new(trimmed);
                let text = read(path)
                    .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
                Self::parse(&text)
            }
        }
    }

    /// Takes settings from a JSON object.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let object: Map<String, Value> = serde_json::from_str(text)?;
        if let Some(key) = object.keys().find(|key| !KEYS.contains(&key.as_str())) {
            let suggestion = suggestion(key, &KEYS);
            return Err(SettingsError::UnknownKey { key: key.clone(), suggestion });
        }
        // From the text once more: an object of its own has forgotten keys that came twice.
        Ok(serde_json::from_str(text)?)
    }

    /// The settings as a JSON object that `parse` takes back.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("paths come from JSON text, so they are UTF-8")
    }
}

fn read(path: &Path) -> io::Result<String> {
    // Opening a pipe would wait for its other end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut text = String::new();
    let len = File::open(path)?.take(SETTINGS_BYTES_MAX + 1).read_to_string(&mut text)?;
    if len as u64 > SETTINGS_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too long for settings"));
    }
    Ok(text)
}

/// Bytes, or text as people write it: K, M, G and T are powers of two.
fn size<'de, D: Deserializer<'de>>(value: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a size is a number of bytes, or text as in \"512m\" or \"20g\"")]
    enum Size {
        Bytes(u64),
        Text(String),
    }
    match Size::deserialize(value)? {
        Size::Bytes(bytes) => Ok(Some(bytes)),
        Size::Text(text) => {
            let parsed = parse_size::Config::new().with_binary().parse_size(&text);
            parsed.map(Some).map_err(|_| {
                serde::de::Error::custom(format_args!(
                    "{text:?} is no size; write it as in 512m or 20g"
                ))
            })
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    const FULL: &str = r#"{"rcache_dir":"/r","wlog_dir":"/w","wlog_size":1048576,
        "batch_size":"8m","batch_age_ms":1500,"flush":"backend"}"#;

    #[test]
    fn every_key_is_known_and_comes_back() {
        let settings = Settings::parse(FULL).unwrap();
        assert_eq!(settings.batch_size, Some(8 << 20));
        assert_eq!(settings.flush, Some(Flush::Backend));
        let object: Map<String, Value> = serde_json::from_str(&settings.to_json()).unwrap();
        assert_eq!(object.len(), KEYS.len());
        assert!(KEYS.iter().all(|key| object.contains_key(*key)));
        assert_eq!(Settings::parse(&settings.to_json()).unwrap(), settings);
        assert_eq!(Settings::default().to_json(), "{}");
    }

    #[test]
    fn unknown_key_is_refused_with_a_suggestion() {
        let error = Settings::parse(r#"{"wlog_dri":"/x"}"#).unwrap_err().to_string();
        assert_eq!(error, "config has an unknown key \"wlog_dri\"; did you mean \"wlog_dir\"?");
        let error = Settings::parse(r#"{"zzz":1}"#).unwrap_err().to_string();
        assert!(error.contains("there are: rcache_dir, wlog_dir"), "{error}");
    }

    #[test]
    fn what_is_no_setting_is_refused() {
        for text in
            ["{", "[]", "{\"flush\":\"x\"}", "{\"batch_size\":\"x\"}", "{\"batch_size\":-1}"]
        {
            assert!(matches!(Settings::parse(text), Err(SettingsError::Json(_))), "{text}");
        }
        let twice = "{\"flush\":\"local\",\"flush\":\"backend\"}";
        assert!(Settings::parse(twice).is_err());
    }

    #[test]
    fn text_that_is_no_object_is_a_path() {
        assert_eq!(Settings::resolve(" ").unwrap(), Settings::default());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image.json");
        let text = path.to_str().unwrap();
        assert!(matches!(Settings::resolve(text), Err(SettingsError::Read { .. })));
        std::fs::write(&path, FULL).unwrap();
        assert_eq!(Settings::resolve(text).unwrap(), Settings::parse(FULL).unwrap());
        assert!(Settings::resolve(dir.path().to_str().unwrap()).is_err());
        std::fs::write(&path, " ".repeat(1 << 20)).unwrap();
        assert!(matches!(Settings::resolve(text), Err(SettingsError::Read { .. })));
    }
}
