//! A pool, or a namespace of one, and operations on its objects.
//!
//! Each operation on an object is one transaction on its OSD.

use std::ffi::{c_char, c_int};
use std::fmt;
use std::ptr::{null, null_mut};
use std::sync::Arc;

use bytes::Bytes;

use crate::cluster::{Cluster, text};
use crate::error::{Error, Result, check};
use crate::ffi::{Api, Handle};
use crate::operation::{Outcome, finish, start};

/// `LIBRADOS_CREATE_EXCLUSIVE`.
const EXCLUSIVE: c_int = 1;

/// `LIBRADOS_OPERATION_FULL_TRY`: a full pool is an answer, not a reason to wait for ever.
const FULL_TRY: c_int = 64;

/// Bytes of each list of lockers: names, cookies, addresses.
const LOCKERS_BYTES: usize = 16 << 10;

/// A pool or a namespace of one.
pub struct Pool {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) io: Handle,
}

// SAFETY: a `rados_ioctx_t` may be used by several threads as long as nobody changes its namespace
// or snapshot; only `Cluster::pool` does, before anybody has it.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

/// What is known of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Bytes of its data.
    pub size: u64,
    /// Changes with every write to the object, and never comes back, not even after the object was
    /// removed and made anew. To be compared for equality only.
    pub version: u64,
}

/// A part of an object, and the object at the same moment.
#[derive(Clone, Debug)]
pub struct Read {
    /// What was read: less than was asked for only at the end of the object.
    pub data: Bytes,
    /// The object.
    pub stat: Stat,
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locker {
    /// The client, such as `client.4142`.
    pub client: String,
    /// What it chose.
    pub cookie: String,
    /// Its address, which the blocklist wants.
    pub address: String,
}

/// A compound write, released when dropped.
struct WriteOp {
    api: &'static Api,
    handle: Handle,
}

impl WriteOp {
    fn new(api: &'static Api) -> Self {
        // SAFETY: takes nothing, and gives something that has to be released.
        Self { api, handle: unsafe { (api.create_write_op)() } }
    }
}

impl Drop for WriteOp {
    fn drop(&mut self) {
        // SAFETY: ours alone; an operation that was submitted has its own copy.
        unsafe { (self.api.release_write_op)(self.handle) };
    }
}

/// Where librados writes what it read.
struct Landing {
    data: Vec<u8>,
    read: usize,
    read_code: c_int,
    size: u64,
    modified: i64,
    stat_code: c_int,
}

impl Pool {
    /// Makes an object that must not exist; returns its version.
    ///
    /// # Errors
    /// `EEXIST`; `ENOSPC` and `EDQUOT` when the pool is full; `ETIMEDOUT`: then it may or may not
    /// have happened.
    pub async fn create(&self, name: &str, data: &[u8]) -> Result<u64> {
        let api = self.cluster.api;
        self.write("create an object", name, |op| {
            // SAFETY: `op` is a write operation; the category is a relic that must be null.
            unsafe { (api.write_op_create)(op, EXCLUSIVE, null()) };
            put_all(api, op, data);
        })
        .await
    }

    /// Replaces all of an object that has `version`; returns its new version.
    ///
    /// # Errors
    /// `ERANGE` and `EOVERFLOW` if the version is another, `ENOENT` if there is no object, and as
    /// [`Self::create`].
    pub async fn replace(&self, name: &str, version: u64, data: &[u8]) -> Result<u64> {
        let api = self.cluster.api;
        self.write("replace an object", name, |op| {
            // SAFETY: `op` is a write operation.
            unsafe { (api.write_op_assert_version)(op, version) };
            put_all(api, op, data);
        })
        .await
    }

    /// Removes an object.
    ///
    /// # Errors
    /// `ENOENT`, and as [`Self::create`].
    pub async fn remove(&self, name: &str) -> Result<()> {
        let api = self.cluster.api;
        // SAFETY: `op` is a write operation.
        let remove = |op| unsafe { (api.write_op_remove)(op) };
        self.write("remove an object", name, remove).await.map(drop)
    }

    async fn write(
        &self,
        what: &'static str,
        name: &str,
        fill: impl FnOnce(Handle),
    ) -> Result<u64> {
        let operation = {
            let (api, io) = (self.cluster.api, self.io);
            let name = text("the object's name", name)?;
            let op = WriteOp::new(api);
            fill(op.handle);
            start(api, &self.cluster.running, what, (), |completion, ()| {
                // SAFETY: all handles are valid; the data was copied when `fill` added it; no time
                // of modification is given.
                unsafe {
                    let name = name.as_ptr();
                    (api.aio_write_op_operate)(
                        op.handle,
                        io,
                        completion,
                        name,
                        null_mut(),
                        FULL_TRY,
                    )
                }
            })?
        };
        let outcome = finish(what, operation).await?;
        check(what, outcome.value)?;
        Ok(outcome.version)
    }

    /// Reads up to `len` bytes from `offset` on, of the object as `version` left it if one is given.
    ///
    /// # Errors
    /// `ENOENT`; `ERANGE` and `EOVERFLOW` if the version is another; `ETIMEDOUT`.
    pub async fn read(
        &self,
        name: &str,
        offset: u64,
        len: usize,
        version: Option<u64>,
    ) -> Result<Read> {
        const WHAT: &str = "read an object";
        let operation = {
            let (api, io) = (self.cluster.api, self.io);
            let name = text("the object's name", name)?;
            let landing = Landing {
                data: Vec::with_capacity(len),
                read: 0,
                read_code: 0,
                size: 0,
                modified: 0,
                stat_code: 0,
            };
            start(
                api,
                &self.cluster.running,
                WHAT,
                landing,
                |completion, landing: &mut Landing| {
                    // SAFETY: `landing` stays where it is until the callback, and has room for `len`
                    // bytes; the operation may be released once it is submitted.
                    unsafe {
                        let op = (api.create_read_op)();
                        if let Some(version) = version {
                            (api.read_op_assert_version)(op, version);
                        }
                        let (size, modified) = (&raw mut landing.size, &raw mut landing.modified);
                        (api.read_op_stat)(op, size, modified, &raw mut landing.stat_code);
                        // To an OSD, a length of 0 means all there is.
                        if len > 0 {
                            let data = landing.data.as_mut_ptr().cast::<c_char>();
                            let (read, code) = (&raw mut landing.read, &raw mut landing.read_code);
                            (api.read_op_read)(op, offset, len, data, read, code);
                        }
                        let submitted =
                            (api.aio_read_op_operate)(op, io, completion, name.as_ptr(), 0);
                        (api.release_read_op)(op);
                        submitted
                    }
                },
            )?
        };
        let Outcome { value, version, held: mut landing } = finish(WHAT, operation).await?;
        check(WHAT, value)?;
        check(WHAT, landing.stat_code)?;
        check(WHAT, landing.read_code)?;
        assert!(landing.read <= landing.data.capacity(), "librados keeps to the buffer");
        // SAFETY: librados has written so many bytes, and the room is there.
        unsafe { landing.data.set_len(landing.read) };
        let stat = Stat { size: landing.size, version };
        Ok(Read { data: Bytes::from(landing.data), stat })
    }

    /// Size and version of an object.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn stat(&self, name: &str) -> Result<Stat> {
        self.read(name, 0, 0, None).await.map(|read| read.stat)
    }

    /// Hands the names of all objects to `each`, in no order, until it returns false. Names that
    /// are not UTF-8 are left out. Blocks.
    ///
    /// # Errors
    /// librados'.
    pub fn list(&self, mut each: impl FnMut(&str) -> bool) -> Result<()> {
        let api = self.cluster.api;
        let mut list = List { api, handle: null_mut() };
        // SAFETY: the pool is valid; the call fills in the list's handle.
        let opened = unsafe { (api.nobjects_list_open)(self.io, &raw mut list.handle) };
        check("list the pool", opened)?;
        loop {
            let (mut entry, mut len) = (null::<c_char>(), 0_usize);
            // SAFETY: what is not wanted may be null; the entry is valid until the next call.
            let next = unsafe {
                let (none, no_len) = (null_mut(), null_mut());
                let (entry, len) = (&raw mut entry, &raw mut len);
                (api.nobjects_list_next2)(list.handle, entry, none, none, len, no_len, no_len)
            };
            match check("list the pool", next) {
                Err(Error::Failed { code, .. }) if code == ENOENT => return Ok(()),
                other => other?,
            };
            if entry.is_null() {
                continue;
            }
            // SAFETY: librados says how long the entry is, and keeps it until the next call.
            let name = unsafe { std::slice::from_raw_parts(entry.cast::<u8>(), len) };
            if let Ok(name) = std::str::from_utf8(name)
                && !each(name)
            {
                return Ok(());
            }
        }
    }

    /// Takes an advisory lock that does not expire, on an object that need not exist. Blocks.
    ///
    /// # Errors
    /// `EBUSY` if another client or cookie has it, `EEXIST` if we have it already.
    pub fn lock(&self, object: &str, lock: &str, cookie: &str, description: &str) -> Result<()> {
        let [object, lock, cookie, description] =
            [object, lock, cookie, description].map(|word| text("a lock's parameter", word));
        let (object, lock, cookie, description) = (object?, lock?, cookie?, description?);
        // SAFETY: the texts live through the call; without a duration it does not expire.
        let locked = unsafe {
            let (object, lock) = (object.as_ptr(), lock.as_ptr());
            let (cookie, description) = (cookie.as_ptr(), description.as_ptr());
            let take = self.cluster.api.lock_exclusive;
            take(self.io, object, lock, cookie, description, null_mut(), 0)
        };
        check("lock an object", locked).map(drop)
    }

    /// Gives a lock of ours back. Blocks.
    ///
    /// # Errors
    /// `ENOENT` if we do not have it.
    pub fn unlock(&self, object: &str, lock: &str, cookie: &str) -> Result<()> {
        let [object, lock, cookie] =
            [object, lock, cookie].map(|word| text("a lock's parameter", word));
        let (object, lock, cookie) = (object?, lock?, cookie?);
        // SAFETY: the texts live through the call.
        let unlocked = unsafe {
            let (object, lock, cookie) = (object.as_ptr(), lock.as_ptr(), cookie.as_ptr());
            (self.cluster.api.unlock)(self.io, object, lock, cookie)
        };
        check("unlock an object", unlocked).map(drop)
    }

    /// Takes a lock away from another client, which is not told. Blocks.
    ///
    /// # Errors
    /// `ENOENT` if it does not have it.
    pub fn break_lock(&self, object: &str, lock: &str, locker: &Locker) -> Result<()> {
        let words = [object, lock, &locker.client, &locker.cookie];
        let [object, lock, client, cookie] = words.map(|word| text("a lock's parameter", word));
        let (object, lock, client, cookie) = (object?, lock?, client?, cookie?);
        // SAFETY: the texts live through the call.
        let broken = unsafe {
            let (object, lock) = (object.as_ptr(), lock.as_ptr());
            let (client, cookie) = (client.as_ptr(), cookie.as_ptr());
            (self.cluster.api.break_lock)(self.io, object, lock, client, cookie)
        };
        check("break a lock", broken).map(drop)
    }

    /// Who holds a lock: nobody, or one client, as ours are exclusive. Blocks.
    ///
    /// # Errors
    /// librados'; an object that does not exist has no lockers.
    pub fn lockers(&self, object: &str, lock: &str) -> Result<Vec<Locker>> {
        let (object, lock) = (text("the object's name", object)?, text("the lock's name", lock)?);
        let mut exclusive: c_int = 0;
        let mut texts = [(); 4].map(|()| vec![0_u8; LOCKERS_BYTES]);
        let mut lens = [LOCKERS_BYTES; 4];
        let [tag, clients, cookies, addresses] =
            texts.each_mut().map(|text| text.as_mut_ptr().cast::<c_char>());
        let [tag_len, clients_len, cookies_len, addresses_len] =
            lens.each_mut().map(|len| &raw mut *len);
        // SAFETY: each buffer is as long as its length says.
        let count = unsafe {
            (self.cluster.api.list_lockers)(
                self.io,
                object.as_ptr(),
                lock.as_ptr(),
                &raw mut exclusive,
                tag,
                tag_len,
                clients,
                clients_len,
                cookies,
                cookies_len,
                addresses,
                addresses_len,
            )
        };
        let code = i32::try_from(count).unwrap_or(i32::MAX);
        let count = match check("list the holders of a lock", code) {
            Err(Error::Failed { code, .. }) if code == ENOENT => return Ok(Vec::new()),
            other => usize::try_from(other?).unwrap_or_default(),
        };
        let mut words = texts.iter().skip(1).map(|text| {
            let words = text.split(|byte| *byte == 0);
            words.map(|word| String::from_utf8_lossy(word).into_owned())
        });
        let (Some(clients), Some(cookies), Some(addresses)) =
            (words.next(), words.next(), words.next())
        else {
            return Ok(Vec::new());
        };
        let lockers = clients.zip(cookies).zip(addresses).take(count);
        Ok(lockers.map(|((client, cookie), address)| Locker { client, cookie, address }).collect())
    }

    /// The cluster that it is a pool of.
    #[must_use]
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: nobody uses it again; operations under way hold what they need of it.
        unsafe { (self.cluster.api.ioctx_destroy)(self.io) };
    }
}

/// errno(3): the end of a listing, too.
const ENOENT: i32 = 2;

/// A listing under way, closed when dropped.
struct List {
    api: &'static Api,
    handle: Handle,
}

impl Drop for List {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: it was opened, and nobody uses it again.
            unsafe { (self.api.nobjects_list_close)(self.handle) };
        }
    }
}

/// Adds "the whole object is `data`" to a write, which copies it.
fn put_all(api: &Api, op: Handle, data: &[u8]) {
    // SAFETY: `op` is a write operation, and the data is as long as it is said to be.
    unsafe { (api.write_op_write_full)(op, data.as_ptr().cast::<c_char>(), data.len()) };
}
