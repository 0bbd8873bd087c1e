//! What a pool is called: one parser for all programs, and one sentence that says what it
//! understood.
//!
//! Does not: read the process's environment while parsing. [`Environment`] carries all that
//! matters, so that a name means the same in every program and in tests.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsvd_rados::ConnectOptions;
use thiserror::Error;

use crate::{ErrorKind, FileStore, ObjectStore, RadosStore, StoreError};

const POOL_ROOT_VARIABLE: &str = "LSVD_POOL_ROOT";
const SYSTEM_POOL_ROOT: &str = "/var/lib/lsvd/pools";
const SYSTEM_CEPH_CONF: &str = "/etc/ceph/ceph.conf";

/// What the meaning of a pool's name depends on besides the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// `LSVD_POOL_ROOT`: where bare words are directories.
    pub pool_root: Option<PathBuf>,
    /// `CEPH_CONF`, whether or not the file exists.
    pub ceph_conf: Option<PathBuf>,
    /// `LSVD_CEPH_USER`: who we are to a Ceph cluster, without `client.`; `admin` if unset.
    pub ceph_user: Option<String>,
    /// `LSVD_CEPH_KEYRING`: that user's keyring, instead of where the configuration says.
    pub ceph_keyring: Option<PathBuf>,
    /// The system's ceph.conf, if it exists.
    pub system_ceph_conf: Option<PathBuf>,
    /// `XDG_DATA_HOME`.
    pub data_home: Option<PathBuf>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// Whether the process runs as root.
    pub is_root: bool,
    /// The working directory, for relative paths.
    pub current_dir: PathBuf,
}

/// Where a pool is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolTarget {
    /// A directory, as an absolute path.
    Directory(PathBuf),
    /// A pool of a Ceph cluster.
    Rados {
        /// Name of the pool.
        pool: String,
        /// Namespace in it; `None` is the default one.
        namespace: Option<String>,
    },
    /// A bucket of an S3 service.
    S3 {
        /// Name of the bucket.
        bucket: String,
        /// Prefix of all keys, without `/` at its end.
        prefix: Option<String>,
    },
}

/// A pool as somebody named it, and how that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    text: String,
    target: PoolTarget,
    reason: Reason,
    ceph: CephLogin,
}

/// How to reach a Ceph cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct CephLogin {
    conf: Option<PathBuf>,
    user: Option<String>,
    keyring: Option<PathBuf>,
}

impl CephLogin {
    fn options(&self) -> ConnectOptions {
        let mut options = ConnectOptions {
            conf: self.conf.clone(),
            keyring: self.keyring.clone(),
            ..ConnectOptions::default()
        };
        if let Some(user) = &self.user {
            let name = user.strip_prefix("client.").unwrap_or(user);
            name.clone_into(&mut options.user);
        }
        options
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Reason {
    Url,
    Path,
    CephConf(PathBuf),
    PoolRoot(RootReason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RootReason {
    Variable,
    Root,
    User,
}

/// Why a pool's name was not understood, or the pool not opened.
#[derive(Debug, Error)]
pub enum PoolError {
    /// Nothing was given.
    #[error("the pool's name is empty; give a directory (./pool), a name, or a URL (file:///pool)")]
    Empty,
    /// The part before the colon is none of ours.
    #[error("pool `{text}`: unknown scheme `{scheme}`; {suggestion}")]
    UnknownScheme {
        /// What was given.
        text: String,
        /// The part before the colon.
        scheme: String,
        /// What may have been meant.
        suggestion: String,
    },
    /// The scheme is known and what follows it is not in its form.
    #[error("pool `{text}`: {problem}; write {expected}")]
    BadForm {
        /// What was given.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
        /// The form that is understood.
        expected: String,
    },
    /// A bare word with a character that no pool's name has.
    #[error(
        "pool `{text}`: a name has letters, digits, `.`, `_`, `-`; write ./{text} for a directory"
    )]
    BadWord {
        /// What was given.
        text: String,
    },
    /// The user's directories are unknown, so that `~` or a bare word leads nowhere.
    #[error(
        "pool `{text}`: HOME is not set; set it or {POOL_ROOT_VARIABLE}, or give an absolute path"
    )]
    NoHome {
        /// What was given.
        text: String,
    },
    /// `CEPH_CONF` names a file that does not exist. Falling back to a directory would write the
    /// data to a place where nobody looks for it.
    #[error(
        "pool `{text}`: CEPH_CONF names {}, which does not exist; correct or unset it",
        path.display()
    )]
    NoCephConf {
        /// What was given.
        text: String,
        /// What `CEPH_CONF` says.
        path: PathBuf,
    },
    /// Understood, and not part of this build.
    #[error("pool `{text}` is {kind}, which this build does not speak yet; {instead}")]
    Unsupported {
        /// What was given.
        text: String,
        /// What it is.
        kind: &'static str,
        /// What to use in its place.
        instead: String,
    },
    /// The directory does not exist.
    #[error("pool `{text}`: no directory {}; create it, or check the name", path.display())]
    NotFound {
        /// What was given.
        text: String,
        /// Where the pool should be.
        path: PathBuf,
    },
    /// The store behind it said no. Its own message is complete.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Environment {
    /// The environment of this process. An empty variable counts as unset.
    #[must_use]
    pub fn of_process() -> Self {
        let path =
            |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self {
            pool_root: path(POOL_ROOT_VARIABLE),
            ceph_conf: path("CEPH_CONF"),
            ceph_user: std::env::var("LSVD_CEPH_USER").ok().filter(|user| !user.is_empty()),
            ceph_keyring: path("LSVD_CEPH_KEYRING"),
            system_ceph_conf: Some(PathBuf::from(SYSTEM_CEPH_CONF)).filter(|path| path.exists()),
            data_home: path("XDG_DATA_HOME"),
            home: path("HOME"),
            is_root: rustix::process::geteuid().is_root(),
            current_dir: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
        }
    }

    fn home(&self, text: &str) -> Result<&Path, PoolError> {
        self.home.as_deref().ok_or_else(|| PoolError::NoHome { text: text.to_owned() })
    }

    fn pool_root(&self, text: &str) -> Result<(PathBuf, RootReason), PoolError> {
        if let Some(root) = &self.pool_root {
            return Ok((self.current_dir.join(root), RootReason::Variable));
        }
        if self.is_root {
            return Ok((PathBuf::from(SYSTEM_POOL_ROOT), RootReason::Root));
        }
        // The XDG specification says that a relative path there is to be ignored.
        let data_home = match self.data_home.as_ref().filter(|path| path.is_absolute()) {
            Some(path) => path.clone(),
            None => self.home(text)?.join(".local/share"),
        };
        Ok((data_home.join("lsvd/pools"), RootReason::User))
    }
}

impl PoolSpec {
    /// Understands a pool's name:
    ///
    /// - `file:///DIR`, or a path: starts with `/`, `.` or `~`, or contains `/`;
    /// - `rados:POOL[/NAMESPACE]`, `s3://BUCKET[/PREFIX]`;
    /// - a bare word: a Ceph pool where there is a ceph.conf, else a directory under the embedded
    ///   root.
    ///
    /// # Errors
    /// All kinds but `Unsupported`, `NotFound` and `Store`; each says what to write instead.
    pub fn parse(text: &str, environment: &Environment) -> Result<Self, PoolError> {
        let (target, reason) = understand(text, environment)?;
        let conf = environment.ceph_conf.as_ref().or(environment.system_ceph_conf.as_ref());
        let ceph = CephLogin {
            conf: conf.map(|conf| environment.current_dir.join(conf)),
            user: environment.ceph_user.clone(),
            keyring: environment.ceph_keyring.clone(),
        };
        Ok(Self { text: text.to_owned(), target, reason, ceph })
    }

    /// Where the pool is.
    #[must_use]
    pub fn target(&self) -> &PoolTarget {
        &self.target
    }

    /// One line for people: which pool this is and why.
    #[must_use]
    pub fn explain(&self) -> String {
        let text = &self.text;
        let why = match &self.reason {
            Reason::Url => "named by its URL".to_owned(),
            Reason::Path => "named by its path".to_owned(),
            Reason::CephConf(conf) => {
                format!("{} found; write ./{text} for a directory", conf.display())
            }
            Reason::PoolRoot(RootReason::Variable) => {
                format!("no ceph.conf found; {POOL_ROOT_VARIABLE} is set")
            }
            Reason::PoolRoot(RootReason::Root | RootReason::User) => {
                format!("no ceph.conf found; {POOL_ROOT_VARIABLE} changes the root")
            }
        };
        let what = match &self.target {
            PoolTarget::Directory(path) => format!("embedded store in {}", path.display()),
            PoolTarget::Rados { pool, namespace: None } => format!("Ceph pool {pool}"),
            PoolTarget::Rados { pool, namespace: Some(namespace) } => {
                format!("namespace {namespace} of Ceph pool {pool}")
            }
            PoolTarget::S3 { bucket, prefix: None } => format!("S3 bucket {bucket}"),
            PoolTarget::S3 { bucket, prefix: Some(prefix) } => {
                format!("prefix {prefix}/ of S3 bucket {bucket}")
            }
        };
        format!("pool `{text}`: {what} ({why})")
    }

    /// Opens the store, creating a directory if `create` says so. Blocks on the file system, or until
    /// a cluster answers.
    ///
    /// # Errors
    /// `NotFound` without `create`, `Unsupported`, `Store`.
    pub fn open(&self, create: bool) -> Result<Arc<dyn ObjectStore>, PoolError> {
        let text = self.text.clone();
        match &self.target {
            PoolTarget::Directory(path) => match FileStore::open(path, create) {
                Ok(store) => Ok(Arc::new(store)),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    Err(PoolError::NotFound { text, path: path.clone() })
                }
                Err(error) => Err(error.into()),
            },
            PoolTarget::Rados { pool, namespace } => {
                let store = RadosStore::open(pool, namespace.as_deref(), &self.ceph.options())?;
                Ok(Arc::new(store))
            }
            PoolTarget::S3 { bucket, .. } => Err(PoolError::Unsupported {
                kind: "in an S3 bucket",
                instead: format!("use a directory, for example ./{bucket}"),
                text,
            }),
        }
    }
}

/// The canonical spelling, which parses back to the same target in any environment.
impl fmt::Display for PoolTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "file://{}", path.display()),
            Self::Rados { pool, namespace: None } => write!(f, "rados:{pool}"),
            Self::Rados { pool, namespace: Some(namespace) } => {
                write!(f, "rados:{pool}/{namespace}")
            }
            Self::S3 { bucket, prefix: None } => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix: Some(prefix) } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

fn understand(text: &str, environment: &Environment) -> Result<(PoolTarget, Reason), PoolError> {
    if text.is_empty() {
        return Err(PoolError::Empty);
    }
    if text.starts_with(['/', '.', '~']) {
        return Ok((PoolTarget::Directory(path(text, environment)?), Reason::Path));
    }
    match (text.find(':'), text.find('/')) {
        (Some(colon), slash) if slash.is_none_or(|slash| colon < slash) => {
            let (scheme, rest) = (&text[..colon], &text[colon + 1..]);
            Ok((url(text, scheme, rest)?, Reason::Url))
        }
        (_, Some(_)) => Ok((PoolTarget::Directory(path(text, environment)?), Reason::Path)),
        (_, None) => word(text, environment),
    }
}

fn path(text: &str, environment: &Environment) -> Result<PathBuf, PoolError> {
    let expanded = match text.strip_prefix('~') {
        None => environment.current_dir.join(text),
        Some("") => environment.home(text)?.to_owned(),
        Some(rest) => match rest.strip_prefix('/') {
            Some(below) => environment.home(text)?.join(below.trim_start_matches('/')),
            None => return Err(bad_form(text, "`~` of another user is not expanded", "its path")),
        },
    };
    // Drops `.` and doubled `/` by parsing alone; `..` stays, since links may give it a meaning.
    Ok(expanded.components().collect())
}

fn url(text: &str, scheme: &str, rest: &str) -> Result<PoolTarget, PoolError> {
    match scheme {
        "file" => match rest.strip_prefix("//") {
            Some(path) if path.starts_with('/') => {
                Ok(PoolTarget::Directory(Path::new(path).components().collect()))
            }
            _ => {
                let path = rest.trim_start_matches('/');
                let expected = format!("file:///{path}, or ./{path} below the working directory");
                Err(bad_form(text, "`file` takes three slashes and an absolute path", &expected))
            }
        },
        "rados" => {
            let (pool, namespace) = split(rest);
            if rest.starts_with("//") || !is_word(pool) || namespace.is_some_and(|n| !is_word(n)) {
                let expected = "rados:POOL or rados:POOL/NAMESPACE";
                return Err(bad_form(
                    text,
                    "no pool, or more than a pool and a namespace",
                    expected,
                ));
            }
            let namespace = namespace.map(str::to_owned);
            Ok(PoolTarget::Rados { pool: pool.to_owned(), namespace })
        }
        "s3" => {
            let (bucket, prefix) = split(rest.strip_prefix("//").unwrap_or_default());
            let prefix = prefix.map(|prefix| prefix.trim_end_matches('/'));
            if !is_word(bucket) || prefix.is_some_and(|p| crate::name::check(p).is_err()) {
                let problem = "no bucket, or a prefix that no object's name can start with";
                return Err(bad_form(text, problem, "s3://BUCKET or s3://BUCKET/PREFIX"));
            }
            let prefix = prefix.map(str::to_owned);
            Ok(PoolTarget::S3 { bucket: bucket.to_owned(), prefix })
        }
        _ => Err(PoolError::UnknownScheme {
            text: text.to_owned(),
            scheme: scheme.to_owned(),
            suggestion: suggest(scheme, rest),
        }),
    }
}

/// What somebody who writes this scheme may want.
fn suggest(scheme: &str, rest: &str) -> String {
    let lower = scheme.to_ascii_lowercase();
    let rest = rest.trim_start_matches('/');
    match lower.as_str() {
        "file" | "dir" | "fs" | "path" | "local" => format!("write file:///{rest}"),
        "rados" | "ceph" | "rbd" => format!("write rados:{rest}"),
        "s3" | "s3a" | "s3n" | "aws" | "http" | "https" => "write s3://BUCKET/PREFIX".to_owned(),
        _ => format!(
            "known are file:///DIR, rados:POOL and s3://BUCKET; ./{scheme}:{rest} is a path"
        ),
    }
}

fn word(text: &str, environment: &Environment) -> Result<(PoolTarget, Reason), PoolError> {
    if !is_word(text) {
        return Err(PoolError::BadWord { text: text.to_owned() });
    }
    let conf = match &environment.ceph_conf {
        Some(path) if !environment.current_dir.join(path).exists() => {
            return Err(PoolError::NoCephConf { text: text.to_owned(), path: path.clone() });
        }
        Some(path) => Some(path),
        None => environment.system_ceph_conf.as_ref(),
    };
    if let Some(conf) = conf {
        let target = PoolTarget::Rados { pool: text.to_owned(), namespace: None };
        return Ok((target, Reason::CephConf(conf.clone())));
    }
    let (root, reason) = environment.pool_root(text)?;
    Ok((PoolTarget::Directory(root.join(text)), Reason::PoolRoot(reason)))
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(['.', '-'])
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// Splits at the first `/`; one `/` at the end, with nothing behind it, says nothing.
fn split(rest: &str) -> (&str, Option<&str>) {
    match rest.split_once('/') {
        Some((first, "")) => (first, None),
        Some((first, second)) => (first, Some(second)),
        None => (rest, None),
    }
}

fn bad_form(text: &str, problem: &'static str, expected: &str) -> PoolError {
    PoolError::BadForm { text: text.to_owned(), problem, expected: expected.to_owned() }
}

#[cfg(test)]
mod test;
