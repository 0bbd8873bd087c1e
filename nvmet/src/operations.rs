//! The pending operations of one connection, without a task or an allocation for each.
//!
//! A slot for each operation, one bit per slot that says "poll me", and wakers that are made once
//! per slot and used again.
//!
//! Invariants: 1. A bit is set before the task is woken. 2. The task's waker is stored before bits
//! are taken. Together no wake-up is lost. A late wake-up of a slot's former user costs one
//! needless poll.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::io::Work;
use crate::limits::QUEUE_DEPTH_MAX;
use crate::namespace::{BoxFuture, Failure};

const SLOTS: usize = QUEUE_DEPTH_MAX as usize;
const WORDS: usize = SLOTS.div_ceil(64);

/// An operation on its way, by what it yields.
pub(crate) enum Operation {
    Done(BoxFuture<Result<(), Failure>>),
    Data(BoxFuture<Result<Bytes, Failure>>),
}

/// Operations that wait, at most `QUEUE_DEPTH_MAX`.
pub(crate) struct Operations {
    slots: Vec<Slot>,
    free: Vec<usize>,
    wakeup: Arc<Wakeup>,
}

struct Slot {
    operation: Option<(Work, Operation)>,
    waker: Waker,
}

struct Wakeup {
    ready: [AtomicU64; WORDS],
    task: Mutex<Option<Waker>>,
}

struct SlotWaker {
    slot: usize,
    wakeup: Arc<Wakeup>,
}

impl Default for Operations {
    fn default() -> Self {
        let wakeup = Wakeup { ready: Default::default(), task: Mutex::new(None) };
        Self { slots: Vec::new(), free: Vec::new(), wakeup: Arc::new(wakeup) }
    }
}

impl Operations {
    pub(crate) fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// Adds an operation; the next `poll` starts it.
    pub(crate) fn push(&mut self, work: Work, operation: Operation) {
        let slot = self.free.pop().unwrap_or_else(|| {
            let slot = self.slots.len();
            assert!(slot < SLOTS, "the connection admits no more commands than slots");
            let waker = Arc::new(SlotWaker { slot, wakeup: Arc::clone(&self.wakeup) }).into();
            self.slots.push(Slot { operation: None, waker });
            slot
        });
        self.slots[slot].operation = Some((work, operation));
        self.wakeup.mark(slot);
    }

    /// Polls what was woken and hands each finished operation to `done`; one that yields no data
    /// yields an empty payload.
    pub(crate) fn poll(
        &mut self,
        context: &Context<'_>,
        mut done: impl FnMut(Work, Result<Bytes, Failure>),
    ) {
        if self.is_empty() {
            return;
        }
        self.wakeup.register(context.waker());
        for word in 0..WORDS {
            let mut ready = self.wakeup.ready[word].swap(0, Ordering::AcqRel);
            while ready != 0 {
                let index = word * 64 + ready.trailing_zeros() as usize;
                ready &= ready - 1;
                let slot = &mut self.slots[index];
                let Some((_, operation)) = &mut slot.operation else { continue };
                let mut context = Context::from_waker(&slot.waker);
                if let Poll::Ready(result) = operation.poll(&mut context) {
                    let (work, _) = slot.operation.take().expect("it was there a line ago");
                    self.free.push(index);
                    done(work, result);
                }
            }
        }
    }
}

impl Operation {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Failure>> {
        match self {
            Self::Done(future) => future.as_mut().poll(context).map_ok(|()| Bytes::new()),
            Self::Data(future) => future.as_mut().poll(context),
        }
    }
}

impl Wakeup {
    /// True if the slot was not marked yet.
    fn mark(&self, slot: usize) -> bool {
        let bit = 1 << (slot % 64);
        self.ready[slot / 64].fetch_or(bit, Ordering::AcqRel) & bit == 0
    }

    fn register(&self, waker: &Waker) {
        let mut task = self.task.lock();
        match &mut *task {
            Some(known) => known.clone_from(waker),
            None => *task = Some(waker.clone()),
        }
    }
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.wakeup.mark(self.slot) {
            // Woken outside of the lock: a runtime may poll the task in here.
            let task = self.wakeup.task.lock().clone();
            if let Some(task) = task {
                task.wake();
            }
        }
    }
}

#[cfg(test)]
mod test {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::oneshot;

    use super::*;

    fn pending() -> (oneshot::Sender<Result<(), Failure>>, Operation) {
        let (sender, receiver) = oneshot::channel::<Result<(), Failure>>();
        (sender, Operation::Done(Box::pin(async move { receiver.await.unwrap() })))
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn finished(operations: &mut Operations, waker: &Waker) -> Vec<u16> {
        let mut cids = Vec::new();
        operations.poll(&Context::from_waker(waker), |work, _| cids.push(work.cid));
        cids
    }

    #[test]
    fn finished_operations_come_out_once_and_wake_the_task() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut operations = Operations::default();
        let senders: Vec<_> = (0..QUEUE_DEPTH_MAX)
            .map(|cid| {
                let (sender, operation) = pending();
                operations.push(Work::flush(cid), operation);
                sender
            })
            .collect();
        assert_eq!(finished(&mut operations, &waker), []);
        for (cid, sender) in (0..).zip(senders).collect::<Vec<_>>().into_iter().rev() {
            let woken = count.0.load(Ordering::SeqCst);
            sender.send(Ok(())).unwrap();
            assert_eq!(count.0.load(Ordering::SeqCst), woken + 1);
            assert_eq!(finished(&mut operations, &waker), [cid]);
        }
        assert!(operations.is_empty());
    }

    #[test]
    fn slot_is_used_again_and_its_former_wakers_do_no_harm() {
        let waker = Waker::noop();
        let mut operations = Operations::default();
        let (sender, operation) = pending();
        operations.push(Work::flush(1), operation);
        assert_eq!(finished(&mut operations, waker), []);
        let stale = operations.slots[0].waker.clone();
        sender.send(Err(Failure::Io)).unwrap();
        assert_eq!(finished(&mut operations, waker), [1]);

        stale.wake_by_ref();
        let (_sender, operation) = pending();
        operations.push(Work::flush(2), operation);
        assert_eq!(operations.slots.len(), 1);
        stale.wake();
        assert_eq!(finished(&mut operations, waker), []);
        assert!(!operations.is_empty());
    }
}
