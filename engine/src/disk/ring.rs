//! The io_uring of a thread: operations started on that thread go to the kernel through it.
//!
//! A thread that runs a tokio `current_thread` runtime calls [`install`], keeps the guard, and
//! spawns the driver on its `LocalSet`. Starting an operation only queues it and wakes the driver,
//! which runs once all tasks that are ready have run: what a turn of the runtime started goes to
//! the kernel in one system call.
//!
//! Does not: know files or retries; see `op.rs`.
//! Invariants: 1. An operation lies in `slots` from before the kernel sees it until its completion
//! was taken, and slots are never dropped occupied: its memory outlives the kernel's use of it,
//! whatever becomes of futures, driver, guard or runtime. 2. At most [`DEPTH`] operations are with
//! the kernel, so neither of its queues can overflow; the rest waits in `waiting`, in order.
//! 3. While operations wait or are in flight, a driver is alive, or one of the drops below is
//! waiting for them, so each future resolves.
//! Concurrency: one thread; other threads only ever see the reply. No borrow is held while a reply
//! is given, because a waker may start the next operation. An idle ring makes no system call.

mod probe;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use io_uring::{IoUring, opcode, squeue, types};
use rustix::io::ReadWriteFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub use self::probe::{RingMode, RingRefused, support};

use super::op::{Op, Round};
use super::{QUEUED_OPS_MAX, Refused};

/// Operations of one ring that are with the kernel at the same time. An NVMe SSD reaches its best
/// rate at 32 to 128; more only lengthens the device's queue, where order is no longer ours.
pub const DEPTH: u32 = 256;

thread_local! {
    static RING: RefCell<Option<Rc<Ring>>> = const { RefCell::new(None) };
}

/// Gives this thread a ring. `AlreadyExists` if it has one; the [`RingRefused`] of [`support`] if
/// the process may not.
pub fn install() -> io::Result<(RingGuard, RingDriver)> {
    let mode = support().map_err(|refused| io::Error::new(refused.source.kind(), refused))?;
    install_as(mode)
}

pub(super) fn install_as(mode: RingMode) -> io::Result<(RingGuard, RingDriver)> {
    RING.with_borrow_mut(|installed| {
        if installed.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let ring = Rc::new(Ring::new(probe::build(mode, DEPTH)?));
        *installed = Some(Rc::clone(&ring));
        let guard = RingGuard { ring: Rc::clone(&ring), mode };
        Ok((guard, RingDriver { ring, readiness: None }))
    })
}

/// Hands `op` to this thread's ring; gives it back if there is none.
pub(super) fn submit(op: Op) -> Result<(), Op> {
    // While the thread ends, its locals are gone before the last task may be.
    let ring = RING.try_with(|ring| ring.borrow().clone()).ok().flatten();
    match ring {
        Some(ring) => ring.submit(op),
        None => Err(op),
    }
}

/// The thread has its ring until this is dropped, which waits for all operations in flight.
#[must_use = "the ring is removed when the guard is dropped"]
#[derive(Debug)]
pub struct RingGuard {
    ring: Rc<Ring>,
    mode: RingMode,
}

impl RingGuard {
    /// How the ring was set up.
    #[must_use]
    pub fn mode(&self) -> RingMode {
        self.mode
    }
}

impl Drop for RingGuard {
    fn drop(&mut self) {
        drop(RING.try_with(|ring| ring.take()));
        self.ring.retire();
    }
}

/// The task that moves operations between the ring's owner and the kernel. Spawn it on the same
/// thread, in a runtime with I/O enabled (tokio panics otherwise). It ends with `Ok` when the guard
/// is dropped, and with an error if the ring is of no use; then, and when it is dropped, it waits
/// for operations in flight, and later ones take the blocking threads.
#[must_use = "operations go nowhere until the driver is spawned"]
#[derive(Debug)]
pub struct RingDriver {
    ring: Rc<Ring>,
    readiness: Option<AsyncFd<Rc<Ring>>>,
}

impl Future for RingDriver {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = self.drive(context);
        if result.is_ready() {
            self.ring.retire();
        }
        result
    }
}

impl RingDriver {
    fn drive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ring.listen(context.waker()) {
            return Poll::Ready(Ok(()));
        }
        let readiness = match &self.readiness {
            Some(readiness) => readiness,
            None => {
                let ring = Rc::clone(&self.ring);
                // SAFETY: The ring owns its descriptor, always returns the same one, and closes it
                // only when it is dropped, which the `Rc` in here prevents.
                let readiness =
                    unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }?;
                self.readiness.insert(readiness)
            }
        };
        let mut turn = self.ring.turn(0)?;
        loop {
            if turn.more {
                // Other tasks first: an operation that the kernel bounces for ever must not hold
                // up the thread.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let mut ready = match readiness.poll_read_ready(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(ready) => ready?,
            };
            turn = self.ring.turn(0)?;
            // Looked at after the readiness: a completion that arrives later makes a new one.
            if turn.reaped == 0 {
                ready.clear_ready();
            }
        }
    }
}

impl Drop for RingDriver {
    fn drop(&mut self) {
        self.ring.retire();
    }
}

struct Ring {
    fd: RawFd,
    state: RefCell<State>,
}

struct State {
    uring: IoUring,
    /// By the `user_data` of their entry.
    slots: Vec<Option<Op>>,
    free: Vec<usize>,
    waiting: VecDeque<Op>,
    /// Finished in this turn, until the borrow is over.
    finished: Vec<(Op, io::Result<()>)>,
    /// Of the driver; taken by the first operation of a turn.
    waker: Option<Waker>,
    /// No operation is accepted any more.
    retired: bool,
    #[cfg(test)]
    turns: u64,
}

/// What one turn achieved.
struct Turn {
    /// Completions taken.
    reaped: usize,
    /// There are operations that could go to the kernel now.
    more: bool,
}

impl Ring {
    fn new(uring: IoUring) -> Self {
        let depth = 0..usize::try_from(DEPTH).expect("a small constant");
        let state = State {
            slots: depth.clone().map(|_| None).collect(),
            free: depth.rev().collect(),
            waiting: VecDeque::new(),
            finished: Vec::new(),
            waker: None,
            retired: false,
            #[cfg(test)]
            turns: 0,
            uring,
        };
        Self { fd: state.uring.as_raw_fd(), state: RefCell::new(state) }
    }

    fn submit(&self, op: Op) -> Result<(), Op> {
        let mut state = self.state.borrow_mut();
        if state.retired {
            return Err(op);
        }
        if state.waiting.len() >= QUEUED_OPS_MAX {
            drop(state);
            op.finish(Err(Refused::QueueFull.into()));
            return Ok(());
        }
        state.waiting.push_back(op);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Has `waker` woken by the next operation. False if the ring is retired.
    fn listen(&self, waker: &Waker) -> bool {
        let mut state = self.state.borrow_mut();
        match &mut state.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        !state.retired
    }

    /// Hands waiting operations to the kernel, waits for `want` completions, takes all there are.
    /// An error means that the ring is lost, see [`State::abandon`].
    fn turn(&self, want: usize) -> io::Result<Turn> {
        let mut state = self.state.borrow_mut();
        state.fill();
        let entered = state.enter(want);
        let reaped = state.reap();
        let lost = if entered.is_err() { state.abandon() } else { Vec::new() };
        let more = state.has_more();
        let mut finished = std::mem::take(&mut state.finished);
        drop(state);
        for (op, result) in finished.drain(..) {
            op.finish(result);
        }
        lost.into_iter().for_each(Op::abandon);
        // Its memory serves the next turn, unless a waker came in between and left some.
        let mut state = self.state.borrow_mut();
        if state.finished.capacity() == 0 {
            state.finished = finished;
        }
        entered.map(|()| Turn { reaped, more })
    }

    /// Accepts no more, and waits until the kernel is done with all there is.
    fn retire(&self) {
        let waker = {
            let mut state = self.state.borrow_mut();
            state.retired = true;
            state.waker.take()
        };
        while self.state.borrow().is_busy() {
            if let Err(error) = self.turn(1) {
                tracing::error!(%error, "lost an io_uring with operations in flight");
            }
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.retire();
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("fd", &self.fd).finish_non_exhaustive()
    }
}

impl State {
    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn is_busy(&self) -> bool {
        self.in_flight() > 0 || !self.waiting.is_empty()
    }

    fn has_more(&mut self) -> bool {
        let startable = !self.waiting.is_empty() && !self.free.is_empty();
        startable || !self.uring.submission().is_empty()
    }

    /// Moves waiting operations to slots and queues their entries.
    fn fill(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let mut submission = self.uring.submission();
        while !self.waiting.is_empty() && !submission.is_full() {
            let Some(slot) = self.free.pop() else { return };
            let op = self.waiting.pop_front().expect("it was not empty");
            let op = self.slots[slot].insert(op);
            let entry = entry_for(op).user_data(slot as u64);
            // SAFETY: The entry points to memory of `op` and names its open file. The op stays in
            // its slot until the completion of this entry was taken (invariant 1), and neither its
            // memory nor its descriptor changes meanwhile: `entry_for` and `Op::advance` are the
            // only ones to touch it, and are not called in between.
            let pushed = unsafe { submission.push(&entry) };
            pushed.expect("the queue was not full");
        }
    }

    /// One system call for all queued entries, if there is anything to tell or to ask.
    fn enter(&mut self, want: usize) -> io::Result<()> {
        let submission = self.uring.submission();
        let needed = want > 0 || !submission.is_empty() || submission.taskrun();
        drop(submission);
        if !needed {
            return Ok(());
        }
        match self.uring.submit_and_wait(want) {
            Ok(_) => Ok(()),
            // Out of memory for a moment, or a signal: what is still queued goes next time.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Interrupted
                        | io::ErrorKind::WouldBlock
                        | io::ErrorKind::ResourceBusy
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Takes all completions, and puts operations with more to do at the head of the queue.
    fn reap(&mut self) -> usize {
        #[cfg(test)]
        {
            self.turns += 1;
        }
        let mut reaped = 0;
        for completion in self.uring.completion() {
            reaped += 1;
            let slot = usize::try_from(completion.user_data()).expect("a slot's number");
            let mut op = self.slots[slot].take().expect("one completion for each entry");
            self.free.push(slot);
            let outcome = usize::try_from(completion.result())
                .map_err(|_| io::Error::from_raw_os_error(-completion.result()));
            match op.advance(outcome) {
                Some(result) => self.finished.push((op, result)),
                None => self.waiting.push_front(op),
            }
        }
        reaped
    }

    /// Gives up after an error of the ring itself: nobody can say which operations the kernel has,
    /// or will ever be done with. The caller tells whoever waits, with [`Op::abandon`], which
    /// keeps invariant 1 by leaking the memory.
    #[must_use]
    fn abandon(&mut self) -> Vec<Op> {
        self.retired = true;
        self.free.clear();
        self.slots.drain(..).flatten().chain(self.waiting.drain(..)).collect()
    }
}

/// The ring's form of the next round.
fn entry_for(op: &mut Op) -> squeue::Entry {
    let fd = types::Fd(op.file().as_raw_fd());
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a round is at most 1 GiB");
    match op.round() {
        Round::Write { offset, data, durable } => {
            let flags = if durable { ReadWriteFlags::DSYNC } else { ReadWriteFlags::empty() };
            let flags = flags.bits().cast_signed();
            opcode::Write::new(fd, data.as_ptr(), len(data)).offset(offset).rw_flags(flags).build()
        }
        Round::Read { offset, into } => {
            opcode::Read::new(fd, into.as_mut_ptr(), len(into)).offset(offset).build()
        }
        Round::Sync => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
    }
}

#[cfg(test)]
mod test {
    use std::sync::Arc;

    use bytes::Bytes;
    use tokio::task::LocalSet;

    use super::super::conformance::{REACHES, Reach, pattern, run, scratch};
    use super::super::op::OpenFile;
    use super::super::{BufPool, Disk, DiskDir, FileDir, IoMode, PAGE};
    use super::*;

    fn turns() -> u64 {
        RING.with_borrow(|ring| ring.as_ref().map_or(0, |ring| ring.state.borrow().turns))
    }

    fn on_each_ring(check: impl AsyncFn()) {
        for reach in REACHES {
            if reach != Reach::Threads {
                run(reach, check());
            }
        }
    }

    fn open(path: &str) -> Arc<OpenFile> {
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        Arc::new(OpenFile { file, path: path.into() })
    }

    async fn disk(scratch: &tempfile::TempDir, len: u64) -> Arc<dyn Disk> {
        let dir = FileDir::open_path(scratch.path(), IoMode::Direct).unwrap();
        dir.create("a", len).await.unwrap()
    }

    #[test]
    fn an_idle_ring_does_nothing() {
        on_each_ring(async || {
            let scratch = scratch(IoMode::Direct);
            let disk = disk(&scratch, 1 << 20).await;
            for _ in 0..10 {
                disk.write_at(0, vec![1; PAGE].into()).await.unwrap();
                disk.sync().await.unwrap();
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            let before = turns();
            assert!(before >= 20, "the operations did not take the ring");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            assert_eq!(turns(), before);
        });
    }

    #[test]
    fn more_operations_than_the_ring_holds_wait_and_beyond_the_limit_they_are_refused() {
        run(REACHES[0], async {
            let zero = open("/dev/zero");
            let pool = BufPool::default();
            let start = || {
                let (op, outcome) = Op::read(Arc::clone(&zero), 0, PAGE, pool.clone());
                assert!(submit(op).is_ok());
                outcome
            };
            let accepted: Vec<_> = (0..QUEUED_OPS_MAX).map(|_| start()).collect();
            let refused = start().await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
            for read in accepted {
                assert_eq!(read.await.unwrap().len(), PAGE);
            }
            start().await.unwrap();
        });
    }

    #[test]
    fn a_full_device_is_an_error() {
        on_each_ring(async || {
            let (op, outcome) = Op::write(open("/dev/full"), 0, Bytes::from(vec![1; PAGE]), false);
            assert!(submit(op).is_ok());
            assert_eq!(outcome.await.unwrap_err().kind(), io::ErrorKind::StorageFull);
        });
    }

    #[test]
    fn memory_of_a_dropped_read_is_not_given_to_another_before_the_kernel_is_done() {
        on_each_ring(async || {
            let scratch = scratch(IoMode::Direct);
            let dir = FileDir::open_path(scratch.path(), IoMode::Direct).unwrap();
            let disk = dir.create("a", 16 << 20).await.unwrap();
            for _ in 0..6 {
                for part in 0..16 {
                    drop(disk.read_at(part << 20, 1 << 20));
                }
                // The driver hands the reads to the kernel, and the device is now at work.
                tokio::task::yield_now().await;
                let mine: Vec<_> = (0..16)
                    .map(|_| {
                        let mut buf = dir.pool().take(1 << 20);
                        buf.extend_from_slice(&[0xAA; 1 << 20]);
                        buf
                    })
                    .collect();
                // Behind the reads on this device: the kernel is done with their memory.
                disk.read_at(0, 16 << 20).await.unwrap();
                assert!(mine.iter().all(|buf| buf.iter().all(|&byte| byte == 0xAA)));
            }
        });
    }

    #[test]
    fn a_runtime_that_shuts_down_waits_for_operations_in_flight() {
        for reach in REACHES {
            let scratch = scratch(IoMode::Direct);
            let mut writes = Vec::new();
            let len = 64 << 10;
            let offsets = || (0..600).map(|piece| piece * len as u64);
            run(reach, async {
                let disk = disk(&scratch, 600 * len as u64).await;
                writes.extend(
                    offsets().map(|offset| disk.write_at(offset, pattern(offset, len, 9).into())),
                );
                tokio::task::yield_now().await;
            });
            run(Reach::Threads, async {
                for write in writes {
                    write.await.unwrap();
                }
                let dir = FileDir::open_path(scratch.path(), IoMode::Direct).unwrap();
                let Some(disk) = dir.open("a").await.unwrap() else { return };
                for offset in offsets() {
                    assert_eq!(
                        disk.read_at(offset, len).await.unwrap()[..],
                        pattern(offset, len, 9)
                    );
                }
            });
        }
    }

    #[test]
    fn operations_of_a_lost_ring_fail_and_their_memory_is_not_used_again() {
        let Ok((_guard, driver)) = install() else {
            return eprintln!("SKIPPED: no io_uring here");
        };
        let pool = BufPool::default();
        let (op, mut outcome) = Op::read(open("/dev/zero"), 0, PAGE, pool.clone());
        assert!(submit(op).is_ok());
        driver.ring.state.borrow_mut().fill();
        let lost = driver.ring.state.borrow_mut().abandon();
        assert_eq!(lost.len(), 1);
        lost.into_iter().for_each(Op::abandon);
        let mut context = Context::from_waker(Waker::noop());
        match outcome.as_mut().poll(&mut context) {
            Poll::Ready(Err(error)) => assert_eq!(error.kind(), io::ErrorKind::BrokenPipe),
            other => panic!("{other:?}"),
        }
        assert_eq!(pool.idle_bytes(), 0);
        let (op, _outcome) = Op::sync(open("/dev/zero"));
        assert!(submit(op).is_err(), "a lost ring takes no operations");
    }

    #[test]
    fn without_its_driver_a_ring_finishes_what_it_has_and_takes_no_more() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let scratch = scratch(IoMode::Direct);
        let disk = runtime.block_on(disk(&scratch, 1 << 20));
        let Ok((guard, driver)) = install() else {
            return eprintln!("SKIPPED: no io_uring here");
        };
        let early = disk.write_at(0, vec![1; PAGE].into());
        drop(driver);
        runtime.block_on(async {
            early.await.unwrap();
            disk.write_at(PAGE as u64, vec![2; PAGE].into()).await.unwrap();
            assert_eq!(disk.read_at(0, PAGE).await.unwrap()[..], [1; PAGE]);
        });
        assert_eq!(guard.mode(), support().unwrap());
    }

    #[test]
    fn a_thread_has_one_ring_at_a_time_and_its_driver_ends_with_the_guard() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let Ok((guard, driver)) = install() else {
            return eprintln!("SKIPPED: no io_uring here");
        };
        assert_eq!(install().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        LocalSet::new().block_on(&runtime, async {
            let driver = tokio::task::spawn_local(driver);
            tokio::task::yield_now().await;
            drop(guard);
            driver.await.unwrap().unwrap();
        });
        drop(install().unwrap());
    }
}
