//! A connection to a cluster.

use std::ffi::{CString, c_char};
use std::fmt;
use std::path::PathBuf;
use std::ptr::{null, null_mut};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result, check};
use crate::ffi::{self, Api, Handle};
use crate::operation::Running;
use crate::pool::Pool;

/// Bytes of a cluster's id, as text, with the zero behind it.
const FSID_BYTES: usize = 37;

/// How to reach a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectOptions {
    /// The configuration file; librados looks in its usual places if there is none.
    pub conf: Option<PathBuf>,
    /// The user without `client.`.
    pub user: String,
    /// The user's keyring, instead of what the configuration says.
    pub keyring: Option<PathBuf>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long an operation may go without an answer.
    pub op_timeout: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            conf: None,
            user: String::from("admin"),
            keyring: None,
            connect_timeout: Duration::from_secs(8),
            op_timeout: Duration::from_secs(30),
        }
    }
}

/// A connection to a cluster, shared by its pools. Its drop waits for operations under way.
pub struct Cluster {
    pub(crate) api: &'static Api,
    pub(crate) running: Arc<Running>,
    handle: Handle,
}

// SAFETY: a `rados_t` may be used from any thread and by several at once (librados.h); what is
// done with it between `create` and `connect` is done by one.
unsafe impl Send for Cluster {}
// SAFETY: as above.
unsafe impl Sync for Cluster {}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

impl Cluster {
    /// Connects. Blocks for up to the connection's timeout.
    ///
    /// # Errors
    /// `Load`; `Conf`; `ENOENT` without a keyring; `EACCES` and `EPERM` for a wrong key;
    /// `ETIMEDOUT` when no monitor answers.
    pub fn connect(options: &ConnectOptions) -> Result<Arc<Self>> {
        let api = ffi::api()?;
        let user = text("the user", &format!("client.{}", options.user))?;
        let cluster_name = text("the cluster", "ceph")?;
        let mut handle: Handle = null_mut();
        // SAFETY: the texts live through the call, which fills in the handle.
        let made =
            unsafe { (api.create2)(&raw mut handle, cluster_name.as_ptr(), user.as_ptr(), 0) };
        check("make a cluster handle", made)?;
        let cluster = Self { api, running: Arc::default(), handle };
        let conf = options.conf.as_ref().map(|path| path.to_string_lossy());
        let conf = conf.map(|path| text("the configuration file", &path)).transpose()?;
        let path = conf.as_ref().map_or(null(), |path| path.as_ptr());
        // SAFETY: the path lives through the call; null stands for the usual places.
        let read = unsafe { (api.conf_read_file)(handle, path) };
        if read < 0 {
            return Err(Error::Conf { code: read.saturating_neg() });
        }
        let mount = options.connect_timeout.as_secs().max(1).to_string();
        let operation = options.op_timeout.as_secs().max(1).to_string();
        cluster.set("client_mount_timeout", &mount)?;
        cluster.set("rados_mon_op_timeout", &mount)?;
        cluster.set("rados_osd_op_timeout", &operation)?;
        // We say what is wrong ourselves, in one line.
        for option in ["log_to_stderr", "err_to_stderr"] {
            cluster.set(option, "false")?;
        }
        if let Some(keyring) = &options.keyring {
            cluster.set("keyring", &keyring.to_string_lossy())?;
        }
        // SAFETY: the handle is valid and not connected yet.
        let connected = unsafe { (api.connect)(handle) };
        check("connect to the cluster", connected)?;
        Ok(Arc::new(cluster))
    }

    fn set(&self, option: &str, value: &str) -> Result<()> {
        let (option, value) = (text("an option", option)?, text("an option's value", value)?);
        // SAFETY: handle and texts are valid.
        let set = unsafe { (self.api.conf_set)(self.handle, option.as_ptr(), value.as_ptr()) };
        check("set an option", set).map(drop)
    }

    /// What an option of the configuration says; none if it is unknown or very long.
    #[must_use]
    pub fn option(&self, name: &str) -> Option<String> {
        let name = text("an option", name).ok()?;
        let mut value = vec![0_u8; 4096];
        let pointer = value.as_mut_ptr().cast::<c_char>();
        // SAFETY: the buffer is as long as it is said to be.
        let got = unsafe { (self.api.conf_get)(self.handle, name.as_ptr(), pointer, value.len()) };
        check("get an option", got).ok()?;
        Some(until_zero(&value))
    }

    /// The cluster's id.
    ///
    /// # Errors
    /// librados'.
    pub fn fsid(&self) -> Result<String> {
        let mut id = [0_u8; FSID_BYTES];
        // SAFETY: the buffer is as long as it is said to be.
        let got = unsafe {
            (self.api.cluster_fsid)(self.handle, id.as_mut_ptr().cast::<c_char>(), id.len())
        };
        check("ask for the cluster's id", got)?;
        Ok(until_zero(&id))
    }

    /// Opens a pool, or a namespace of it. Blocks until the map of the cluster is here.
    ///
    /// # Errors
    /// `ENOENT` if there is no such pool.
    pub fn pool(self: &Arc<Self>, name: &str, namespace: Option<&str>) -> Result<Pool> {
        let name = text("the pool's name", name)?;
        let namespace = namespace.map(|name| text("the namespace", name)).transpose()?;
        let mut io: Handle = null_mut();
        // SAFETY: handle and name are valid; the call fills in `io`.
        let opened = unsafe { (self.api.ioctx_create)(self.handle, name.as_ptr(), &raw mut io) };
        check("open the pool", opened)?;
        let pool = Pool { cluster: Arc::clone(self), io };
        if let Some(namespace) = namespace {
            // SAFETY: before anybody else has it, since this call is not safe beside others.
            unsafe { (self.api.ioctx_set_namespace)(io, namespace.as_ptr()) };
        }
        Ok(pool)
    }

    /// Keeps a client out of the cluster for so long: what it has under way is refused from the
    /// moment this returns, as far as OSDs have the map that says so; ours have it then.
    ///
    /// `address` is that of [`Locker::address`](crate::Locker). Blocks.
    ///
    /// # Errors
    /// `EACCES` if our user may not do so, and librados' others.
    pub fn blocklist(&self, address: &str, expire: Duration) -> Result<()> {
        let mut address = text("the address", address)?.into_bytes_with_nul();
        let seconds = u32::try_from(expire.as_secs()).unwrap_or(u32::MAX);
        // SAFETY: the text lives through the call, which is declared to change it and does not.
        let added = unsafe {
            (self.api.blocklist_add)(self.handle, address.as_mut_ptr().cast::<c_char>(), seconds)
        };
        check("put a client on the blocklist", added)?;
        // SAFETY: the handle is connected.
        let waited = unsafe { (self.api.wait_for_latest_osdmap)(self.handle) };
        check("wait for the map that has the blocklist", waited).map(drop)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.running.wait_for_none();
        // SAFETY: pools hold the cluster, so none is left; no operation is under way; nobody uses
        // the handle again.
        unsafe { (self.api.shutdown)(self.handle) };
    }
}

/// A text for C.
pub(crate) fn text(what: &'static str, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::ZeroByte { what })
}

/// What C wrote into a buffer.
fn until_zero(buffer: &[u8]) -> String {
    let end = buffer.iter().position(|byte| *byte == 0).unwrap_or(buffer.len());
    String::from_utf8_lossy(&buffer[..end]).into_owned()
}
