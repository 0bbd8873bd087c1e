//! The functions of librados that we use, found in the library at run time.
//!
//! Their types are those of `rados/librados.h` (Ceph 14 to 19, which did not change them). The
//! library stays loaded until the process ends: its threads may outlive what we know of them.

use std::ffi::{c_char, c_int, c_void};
use std::sync::OnceLock;

use libloading::Library;

use crate::error::LoadError;

/// A pointer whose target only librados knows.
pub(crate) type Handle = *mut c_void;

/// `rados_callback_t`.
pub(crate) type Callback = unsafe extern "C" fn(completion: Handle, argument: *mut c_void);

/// `struct timeval`.
#[repr(C)]
pub(crate) struct TimeVal {
    pub(crate) seconds: i64,
    pub(crate) microseconds: i64,
}

/// Object names of the library, the most specific first.
const LIBRARIES: [&str; 2] = ["librados.so.2", "librados.so"];

macro_rules! api {
    ($($name:ident: fn($($argument:ty),* $(,)?) $(-> $result:ty)?;)*) => {
        /// Pointers to the functions, each named without `rados_`.
        pub(crate) struct Api {
            $(pub(crate) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
            _library: Library,
        }

        impl Api {
            fn of(library: Library) -> Result<Self, libloading::Error> {
                // SAFETY: the types are those of the header that declares these names, and the
                // library is kept for as long as the pointers are.
                unsafe {
                    Ok(Self {
                        $($name: *library.get(concat!("rados_", stringify!($name)))?,)*
                        _library: library,
                    })
                }
            }
        }
    };
}

api! {
    create2: fn(*mut Handle, *const c_char, *const c_char, u64) -> c_int;
    conf_read_file: fn(Handle, *const c_char) -> c_int;
    conf_set: fn(Handle, *const c_char, *const c_char) -> c_int;
    conf_get: fn(Handle, *const c_char, *mut c_char, usize) -> c_int;
    connect: fn(Handle) -> c_int;
    shutdown: fn(Handle);
    cluster_fsid: fn(Handle, *mut c_char, usize) -> c_int;
    wait_for_latest_osdmap: fn(Handle) -> c_int;
    blocklist_add: fn(Handle, *mut c_char, u32) -> c_int;
    ioctx_create: fn(Handle, *const c_char, *mut Handle) -> c_int;
    ioctx_destroy: fn(Handle);
    ioctx_set_namespace: fn(Handle, *const c_char);
    aio_create_completion2: fn(*mut c_void, Callback, *mut Handle) -> c_int;
    aio_release: fn(Handle);
    aio_get_return_value: fn(Handle) -> c_int;
    aio_get_version: fn(Handle) -> u64;
    create_write_op: fn() -> Handle;
    release_write_op: fn(Handle);
    write_op_create: fn(Handle, c_int, *const c_char);
    write_op_write_full: fn(Handle, *const c_char, usize);
    write_op_assert_version: fn(Handle, u64);
    write_op_remove: fn(Handle);
    aio_write_op_operate: fn(Handle, Handle, Handle, *const c_char, *mut i64, c_int) -> c_int;
    create_read_op: fn() -> Handle;
    release_read_op: fn(Handle);
    read_op_assert_version: fn(Handle, u64);
    read_op_stat: fn(Handle, *mut u64, *mut i64, *mut c_int);
    read_op_read: fn(Handle, u64, usize, *mut c_char, *mut usize, *mut c_int);
    aio_read_op_operate: fn(Handle, Handle, Handle, *const c_char, c_int) -> c_int;
    nobjects_list_open: fn(Handle, *mut Handle) -> c_int;
    nobjects_list_next2: fn(
        Handle,
        *mut *const c_char,
        *mut *const c_char,
        *mut *const c_char,
        *mut usize,
        *mut usize,
        *mut usize,
    ) -> c_int;
    nobjects_list_close: fn(Handle);
    lock_exclusive: fn(
        Handle,
        *const c_char,
        *const c_char,
        *const c_char,
        *const c_char,
        *mut TimeVal,
        u8,
    ) -> c_int;
    unlock: fn(Handle, *const c_char, *const c_char, *const c_char) -> c_int;
    break_lock: fn(Handle, *const c_char, *const c_char, *const c_char, *const c_char) -> c_int;
    list_lockers: fn(
        Handle,
        *const c_char,
        *const c_char,
        *mut c_int,
        *mut c_char,
        *mut usize,
        *mut c_char,
        *mut usize,
        *mut c_char,
        *mut usize,
        *mut c_char,
        *mut usize,
    ) -> isize;
}

/// The library, loaded at the first call.
pub(crate) fn api() -> Result<&'static Api, LoadError> {
    static API: OnceLock<Result<Api, LoadError>> = OnceLock::new();
    API.get_or_init(load).as_ref().map_err(Clone::clone)
}

fn load() -> Result<Api, LoadError> {
    let mut reason = String::new();
    for name in LIBRARIES {
        // SAFETY: librados' initialisers are those of a C++ library, made to be loaded by programs
        // that know nothing of it; it stays loaded.
        match unsafe { Library::new(name) }.and_then(Api::of) {
            Ok(api) => return Ok(api),
            Err(error) if reason.is_empty() => reason = error.to_string(),
            Err(_) => {}
        }
    }
    Err(LoadError { reason })
}
