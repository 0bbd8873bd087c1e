//! One asynchronous operation: from its submission to the callback.

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::error::{Error, Result, check};
use crate::ffi::{Api, Handle};

/// Counts the operations under way.
#[derive(Debug, Default)]
pub(crate) struct Running {
    count: Mutex<usize>,
    none: Condvar,
}

impl Running {
    /// Waits until there are none.
    pub(crate) fn wait_for_none(&self) {
        let mut count = self.count.lock();
        while *count > 0 {
            self.none.wait(&mut count);
        }
    }

    fn begin(&self) {
        *self.count.lock() += 1;
    }

    fn end(&self) {
        let mut count = self.count.lock();
        *count -= 1;
        if *count == 0 {
            self.none.notify_all();
        }
    }
}

/// What an operation yields: librados' return value, the object's version, and what was held.
pub(crate) struct Outcome<T> {
    pub(crate) value: c_int,
    pub(crate) version: u64,
    pub(crate) held: T,
}

/// Waits for the outcome of what was started.
pub(crate) async fn finish<T>(
    what: &'static str,
    answer: oneshot::Receiver<Outcome<T>>,
) -> Result<Outcome<T>> {
    answer.await.map_err(|_| Error::Closed { what })
}

/// Belongs to the callback.
struct Pending<T> {
    api: &'static Api,
    running: Arc<Running>,
    answer: oneshot::Sender<Outcome<T>>,
    held: T,
}

/// Submits an operation, whose outcome comes later. `held` is what librados reads or writes
/// meanwhile: it does not move and lives until the callback. `submit` gets the completion and
/// `held`, and returns librados' answer, of which a negative one says that no callback will come.
///
/// # Errors
/// What `submit` returned; the return value of the operation itself is in the outcome.
pub(crate) fn start<T: Send + 'static>(
    api: &'static Api,
    running: &Arc<Running>,
    what: &'static str,
    held: T,
    submit: impl FnOnce(Handle, &mut T) -> c_int,
) -> Result<oneshot::Receiver<Outcome<T>>> {
    let (sender, receiver) = oneshot::channel();
    let pending = Pending { api, running: Arc::clone(running), answer: sender, held };
    let pending = Box::into_raw(Box::new(pending));
    let mut completion: Handle = null_mut();
    // SAFETY: `completed::<T>` is called at most once, with `pending`, and only after a submission
    // that was accepted.
    let made = unsafe {
        (api.aio_create_completion2)(pending.cast::<c_void>(), completed::<T>, &raw mut completion)
    };
    if let Err(error) = check("make a completion", made) {
        // SAFETY: nobody else has it.
        drop(unsafe { Box::from_raw(pending) });
        return Err(error);
    }
    running.begin();
    // SAFETY: the callback, which frees it, may run before `submit` returns, but not before librados
    // is done with what `submit` hands over; `submit` itself does not touch it after that.
    let held = unsafe { &mut (*pending).held };
    let submitted = submit(completion, held);
    if let Err(error) = check(what, submitted) {
        running.end();
        // SAFETY: a refused operation has no callback, so both are still ours.
        unsafe {
            (api.aio_release)(completion);
            drop(Box::from_raw(pending));
        }
        return Err(error);
    }
    Ok(receiver)
}

/// `rados_callback_t`: hands over the result and frees what was held if nobody waits.
unsafe extern "C" fn completed<T>(completion: Handle, argument: *mut c_void) {
    // SAFETY: `start` made it of a box of this type, and this is the only callback.
    let pending = unsafe { Box::from_raw(argument.cast::<Pending<T>>()) };
    let Pending { api, running, answer, held } = *pending;
    // SAFETY: the completion is valid until it is released, here.
    let (value, version) = unsafe {
        let value = (api.aio_get_return_value)(completion);
        let version = (api.aio_get_version)(completion);
        (api.aio_release)(completion);
        (value, version)
    };
    // A receiver that is gone does not want it.
    drop(answer.send(Outcome { value, version, held }));
    running.end();
}
