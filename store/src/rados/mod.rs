//! A pool of a Ceph cluster, or a namespace of one.
//!
//! An object of ours is one RADOS object of the same name. Create-only is an exclusive create,
//! compare-and-swap asserts the object's version; each is one transaction on the OSD that owns the
//! object, so nothing is checked here and then done there. A put is durable on all replicas that
//! the pool asks for before it is answered.
//!
//! Does not: choose replication, or wait out a cluster that is away (the retrying layer does).
//! Invariants: every answer of `get` and `get_range` is of one version of the object.
//! Concurrency: joining and submitting a large put takes a millisecond of the caller's thread;
//! callers that may not wait put from elsewhere. Listing and connecting block threads of the
//! runtime that are there for it.

mod listing;
#[cfg(test)]
mod test;

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use lsvd_rados::{Cluster, ConnectOptions, Pool};
use parking_lot::Mutex;

use self::listing::Walks;
use crate::name::{self, Refused};
use crate::{
    ErrorKind, Listing, Meta, Object, ObjectStore, Op, Payload, PutMode, Result, StoreError,
    Version,
};

/// Bytes that a `get` asks for before it knows the size: every superblock is smaller.
const FIRST_READ: usize = 64 << 10;

/// Most attempts of a `get` to see one version of an object that is being replaced.
const GET_ATTEMPTS: u32 = 100;

/// A pool of a Ceph cluster, or a namespace of one.
#[derive(Debug)]
pub struct RadosStore {
    pool: Arc<Pool>,
    place: Arc<str>,
    walks: Walks,
}

impl RadosStore {
    /// Connects to the cluster and opens a pool. Blocks for up to the connection's timeout.
    ///
    /// # Errors
    /// `NotFound` without the pool, `Denied` for a wrong key or a user who may not, `Unavailable`
    /// when no monitor answers, `Invalid` for a configuration that is missing or wrong, and without
    /// librados.
    pub fn open(pool: &str, namespace: Option<&str>, options: &ConnectOptions) -> Result<Self> {
        let place: Arc<str> = match namespace {
            Some(namespace) => format!("rados:{pool}/{namespace}").into(),
            None => format!("rados:{pool}").into(),
        };
        let failed = |kind, why: String| {
            StoreError::new(kind, Op::Open, "").at(Arc::clone(&place)).because(why)
        };
        let cluster = connect(options).map_err(|error| {
            let (kind, why) = why_not_connected(&error, options);
            failed(kind, why)
        })?;
        let opened = cluster.pool(pool, namespace).map_err(|error| match error.code() {
            Some(ENOENT) => failed(
                ErrorKind::NotFound,
                format!("the cluster has no pool {pool}; make it: ceph osd pool create {pool}"),
            ),
            _ => failed(kind_of(&error, Op::Open), error.to_string()),
        })?;
        Ok(Self { pool: Arc::new(opened), place, walks: Walks::default() })
    }

    fn error(&self, op: Op, name: &str, error: lsvd_rados::Error) -> StoreError {
        let kind = kind_of(&error, op);
        let said = StoreError::new(kind, op, name).at(Arc::clone(&self.place));
        match (kind, error.code()) {
            // An answer, not a fault.
            (ErrorKind::NotFound | ErrorKind::AlreadyExists | ErrorKind::PreconditionFailed, _) => {
                said
            }
            (_, Some(ESHUTDOWN)) => said.because(
                "the cluster has this gateway on its blocklist: another one took its images over",
            ),
            _ => said.because(error),
        }
    }

    fn refuse(&self, op: Op, name: &str) -> impl FnOnce(Refused) -> StoreError {
        let error = StoreError::new(ErrorKind::Invalid, op, name).at(Arc::clone(&self.place));
        |why| error.because(why)
    }

    /// The whole object, if it stays the same from the first read to the last.
    async fn get_once(&self, name: &str) -> std::result::Result<Object, lsvd_rados::Error> {
        let first = self.pool.read(name, 0, FIRST_READ, None).await?;
        let version = version_of(first.stat.version);
        let size = usize::try_from(first.stat.size).unwrap_or(usize::MAX);
        if first.data.len() >= size {
            return Ok(Object { body: first.data, version });
        }
        let mut body = BytesMut::with_capacity(size);
        body.extend_from_slice(&first.data);
        while body.len() < size {
            let at = body.len();
            let next = self.pool.read(name, at as u64, size - at, Some(first.stat.version)).await?;
            if next.data.is_empty() {
                break;
            }
            body.extend_from_slice(&next.data);
        }
        Ok(Object { body: body.freeze(), version })
    }
}

#[async_trait]
impl ObjectStore for RadosStore {
    async fn put(&self, name: &str, body: Payload, mode: PutMode) -> Result<Version> {
        name::check(name).map_err(self.refuse(Op::Put, name))?;
        let body = body.into_bytes();
        let put = match &mode {
            PutMode::Create => self.pool.create(name, &body).await,
            PutMode::IfMatch(version) => match version.as_str().parse() {
                Ok(version) => self.pool.replace(name, version, &body).await,
                // No version of ours, so not that of this object.
                Err(_) => {
                    let kind = ErrorKind::PreconditionFailed;
                    return Err(StoreError::new(kind, Op::Put, name).at(Arc::clone(&self.place)));
                }
            },
        };
        put.map(version_of).map_err(|error| match (&mode, error.code()) {
            (PutMode::IfMatch(_), Some(ENOENT)) => {
                let kind = ErrorKind::PreconditionFailed;
                StoreError::new(kind, Op::Put, name).at(Arc::clone(&self.place))
            }
            _ => self.error(Op::Put, name, error),
        })
    }

    async fn get(&self, name: &str) -> Result<Object> {
        name::check(name).map_err(self.refuse(Op::Get, name))?;
        let mut attempts = 0;
        loop {
            match self.get_once(name).await {
                Ok(object) => return Ok(object),
                // Replaced between two reads.
                Err(error)
                    if kind_of(&error, Op::Get) == ErrorKind::PreconditionFailed
                        && attempts < GET_ATTEMPTS =>
                {
                    attempts += 1;
                }
                Err(error) => return Err(self.error(Op::Get, name, error)),
            }
        }
    }

    async fn get_range(&self, name: &str, offset: u64, len: u64) -> Result<Bytes> {
        name::check(name).map_err(self.refuse(Op::GetRange, name))?;
        // The buffer is made before the size is known, and no object has more.
        let most = len.min(OBJECT_BYTES_MAX);
        let most = usize::try_from(most).expect("a GiB fits memory's addresses");
        let read = self.pool.read(name, offset, most, None).await;
        let read = read.map_err(|error| self.error(Op::GetRange, name, error))?;
        name::check_range(offset, len, read.stat.size).map_err(self.refuse(Op::GetRange, name))?;
        if read.data.len() as u64 != len {
            let short = format!("{} of {len} bytes came back", read.data.len());
            let error = StoreError::new(ErrorKind::Corrupt, Op::GetRange, name);
            return Err(error.at(Arc::clone(&self.place)).because(short));
        }
        Ok(read.data)
    }

    async fn head(&self, name: &str) -> Result<Meta> {
        name::check(name).map_err(self.refuse(Op::Head, name))?;
        let stat = self.pool.stat(name).await;
        let stat = stat.map_err(|error| self.error(Op::Head, name, error))?;
        Ok(Meta { size: stat.size, version: version_of(stat.version) })
    }

    async fn list(
        &self,
        prefix: &str,
        delimiter: Option<char>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Listing> {
        name::check_prefix(prefix).map_err(self.refuse(Op::List, prefix))?;
        if limit == 0 {
            return Err(self.refuse(Op::List, prefix)(Refused::Limit));
        }
        let listed = self.walks.page(&self.pool, prefix, delimiter, after, limit).await;
        listed.map_err(|error| self.error(Op::List, prefix, error))
    }

    async fn delete(&self, name: &str) -> Result<()> {
        name::check(name).map_err(self.refuse(Op::Delete, name))?;
        let removed = self.pool.remove(name).await;
        removed.map_err(|error| self.error(Op::Delete, name, error))
    }

    fn describe(&self) -> String {
        self.place.to_string()
    }
}

/// Connects, or shares a connection that is there: one has threads of its own, and a gateway may
/// have hundreds of images.
fn connect(options: &ConnectOptions) -> lsvd_rados::Result<Arc<Cluster>> {
    static CLUSTERS: Mutex<Vec<(ConnectOptions, Weak<Cluster>)>> = Mutex::new(Vec::new());
    // Held while connecting, so that two who come together share one, too.
    let mut clusters = CLUSTERS.lock();
    clusters.retain(|(_, cluster)| cluster.strong_count() > 0);
    let known = clusters.iter().find(|(known, _)| known == options);
    if let Some(cluster) = known.and_then(|(_, cluster)| cluster.upgrade()) {
        return Ok(cluster);
    }
    let cluster = Cluster::connect(options)?;
    clusters.push((options.clone(), Arc::downgrade(&cluster)));
    Ok(cluster)
}

/// More than any cluster allows an object to have (`osd_max_object_size` is 128 MiB by default).
const OBJECT_BYTES_MAX: u64 = 1 << 30;

fn version_of(version: u64) -> Version {
    Version::new(version.to_string())
}

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EIO: i32 = 5;
const E2BIG: i32 = 7;
const EACCES: i32 = 13;
const EEXIST: i32 = 17;
const EINVAL: i32 = 22;
const EFBIG: i32 = 27;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const ERANGE: i32 = 34;
const ENAMETOOLONG: i32 = 36;
const EOVERFLOW: i32 = 75;
const EMSGSIZE: i32 = 90;
const ESHUTDOWN: i32 = 108;
const ETIMEDOUT: i32 = 110;
const EDQUOT: i32 = 122;

/// What an error of an operation on an object means.
fn kind_of(error: &lsvd_rados::Error, op: Op) -> ErrorKind {
    let unknown = if op.is_mutation() { ErrorKind::Ambiguous } else { ErrorKind::Unavailable };
    let Some(code) = error.code() else {
        return match error {
            lsvd_rados::Error::Closed { .. } => unknown,
            _ => ErrorKind::Invalid,
        };
    };
    match code {
        ENOENT => ErrorKind::NotFound,
        EEXIST => ErrorKind::AlreadyExists,
        ERANGE | EOVERFLOW => ErrorKind::PreconditionFailed,
        EPERM | EACCES | EROFS | ESHUTDOWN => ErrorKind::Denied,
        ENOSPC | EDQUOT => ErrorKind::Full,
        // No replica has bytes that match their checksum.
        EIO => ErrorKind::Corrupt,
        EINVAL | E2BIG | EFBIG | ENAMETOOLONG | EMSGSIZE => ErrorKind::Invalid,
        _ => unknown,
    }
}

/// Why there is no connection, in words that name what to look at.
fn why_not_connected(error: &lsvd_rados::Error, options: &ConnectOptions) -> (ErrorKind, String) {
    let conf = options.conf.as_ref().map_or_else(
        || String::from("the usual places (/etc/ceph/ceph.conf, ~/.ceph/config)"),
        |path| path.display().to_string(),
    );
    let user = &options.user;
    let text = error.to_string();
    let is_conf = text.starts_with("read the configuration");
    match error.code() {
        Some(ENOENT) if is_conf => (
            ErrorKind::Invalid,
            format!("no Ceph configuration in {conf}; say --ceph-conf FILE or set CEPH_CONF"),
        ),
        Some(_) if is_conf => (
            ErrorKind::Invalid,
            format!("the Ceph configuration in {conf} is not readable: {text}"),
        ),
        Some(ENOENT) => (
            ErrorKind::Denied,
            format!(
                "no keyring with a key of client.{user} where {conf} says; say --ceph-keyring FILE \
                 or --ceph-user NAME"
            ),
        ),
        Some(EACCES | EPERM | EINVAL) => (
            ErrorKind::Denied,
            format!(
                "the monitors refuse client.{user}: the key in its keyring is not the cluster's, \
                 or there is no such user; compare `ceph auth get client.{user}`"
            ),
        ),
        Some(ETIMEDOUT) => (
            ErrorKind::Unavailable,
            format!(
                "no monitor answered within {} s; compare mon_host in {conf} with where they are",
                options.connect_timeout.as_secs()
            ),
        ),
        Some(_) => (ErrorKind::Unavailable, text),
        None => (ErrorKind::Invalid, text),
    }
}
