//! Polling before sleep: a thread that just served a request looks for the next one for a moment
//! before it sleeps.
//!
//! Going to sleep and being woken costs more than a small write on a fast SSD, above all in a
//! virtual machine. So after each request, and after each answer, the thread keeps its runtime
//! turning (which asks the kernel for events without waiting) for a short window. An idle gateway
//! uses no CPU: without a request nothing turns.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

thread_local! {
    static POLLER: RefCell<Option<Rc<Poller>>> = const { RefCell::new(None) };
}

#[derive(Debug)]
struct Poller {
    /// Until when to look for events without sleeping.
    until: Cell<Instant>,
    window: Duration,
    asleep: Cell<bool>,
    wake: Notify,
}

/// Gives this thread a poller. Spawn the future on its runtime; it never ends.
pub(crate) fn install(window: Duration) -> impl Future<Output = ()> + 'static {
    let poller = Rc::new(Poller {
        until: Cell::new(Instant::now()),
        window,
        asleep: Cell::new(true),
        wake: Notify::new(),
    });
    POLLER.replace(Some(Rc::clone(&poller)));
    async move {
        loop {
            poller.wake.notified().await;
            while Instant::now() < poller.until.get() {
                // The runtime looks for events whenever nothing else is ready to run.
                tokio::task::yield_now().await;
            }
            poller.asleep.set(true);
        }
    }
}

/// Something happened on this thread that something else usually follows.
pub(crate) fn expect_more() {
    POLLER.with_borrow(|poller| {
        let Some(poller) = poller.as_ref().filter(|poller| !poller.window.is_zero()) else {
            return;
        };
        poller.until.set(Instant::now() + poller.window);
        if poller.asleep.replace(false) {
            poller.wake.notify_one();
        }
    });
}
