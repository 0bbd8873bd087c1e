//! One association of a host with a subsystem: what its admin and I/O connections share.
//!
//! Does not: parse commands (`wire`) or look at namespaces (`admin`, `io`).
//! Invariants: 1. A queue ID belongs to one connection. 2. No more than `ASYNC_EVENTS_MAX` requests
//! are held, and each is answered once. 3. An event is reported once until its log page was read.
//! Concurrency: any thread; the lock is held for no I/O. A change rings the connections concerned.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use parking_lot::Mutex;
use uuid::Uuid;

use crate::doorbell::Doorbell;
use crate::limits::{ASYNC_EVENTS_MAX, CHANGED_NAMESPACES_MAX, ERROR_LOG_MAX, IO_QUEUES_MAX};
use crate::target::{ControllerSnapshot, Origin, PathState, QueueSnapshot};
use crate::wire::{AsyncEvent, AsyncEventMask, Status};

/// State of an association. It ends with its admin connection.
#[derive(Debug)]
pub(crate) struct Controller {
    pub(crate) cntlid: u16,
    pub(crate) host_nqn: String,
    pub(crate) host_id: [u8; 16],
    /// Where the admin connection came from.
    pub(crate) origin: Origin,
    /// A command came in on some queue since the keep alive timer looked last (TBKAS).
    has_traffic: AtomicBool,
    /// A [`PathState`], to be looked at for each I/O command without a lock.
    path: AtomicU8,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    is_terminated: bool,
    /// Controller Configuration, as last written.
    configuration: u32,
    status: ControllerState,
    keep_alive_ms: u32,
    /// I/O queues that the host may connect: what it asked for, up to what there is.
    io_queues: u16,
    /// How often the state of the path has changed.
    path_changes: u64,
    events: Events,
    errors: ErrorLog,
    queues: BTreeMap<u16, QueueRecord>,
}

/// What CSTS says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ControllerState {
    pub(crate) is_ready: bool,
    pub(crate) is_shut_down: bool,
    /// The host broke a rule that only a new association gets it over.
    pub(crate) is_fatal: bool,
}

#[derive(Debug, Default)]
struct Events {
    enabled: AsyncEventMask,
    /// Command IDs of the requests that wait for an event.
    requests: VecDeque<u16>,
    pending: BTreeSet<AsyncEvent>,
    /// Reported, and not to be reported again before the log page was read.
    masked: BTreeSet<AsyncEvent>,
    /// NSIDs for log page 04h.
    changed: BTreeSet<u32>,
    has_changed_overflow: bool,
}

#[derive(Debug, Default)]
struct ErrorLog {
    count: u64,
    /// Newest first.
    entries: VecDeque<ErrorRecord>,
}

/// A command that failed, for the error log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ErrorRecord {
    /// 1 for the first error of the controller.
    pub(crate) number: u64,
    pub(crate) qid: u16,
    pub(crate) cid: u16,
    pub(crate) status: Status,
    pub(crate) lba: u64,
    pub(crate) nsid: u32,
}

/// A connected queue.
#[derive(Debug)]
pub(crate) struct QueueRecord {
    pub(crate) depth: u16,
    pub(crate) origin: Origin,
    pub(crate) doorbell: Arc<Doorbell>,
}

/// What a write to the Controller Configuration property asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Configuration {
    pub(crate) raw: u32,
    pub(crate) is_enabled: bool,
    pub(crate) is_shutdown: bool,
    /// The sizes and the command set are ones that the controller has.
    pub(crate) is_supported: bool,
}

impl Controller {
    pub(crate) fn new(
        cntlid: u16,
        host_nqn: String,
        host_id: [u8; 16],
        origin: Origin,
        keep_alive_ms: u32,
        path: PathState,
    ) -> Self {
        let state = State {
            is_terminated: false,
            configuration: 0,
            status: ControllerState::default(),
            keep_alive_ms,
            io_queues: IO_QUEUES_MAX,
            path_changes: 0,
            events: Events::default(),
            errors: ErrorLog::default(),
            queues: BTreeMap::new(),
        };
        let (has_traffic, path) = (AtomicBool::new(true), AtomicU8::new(path as u8));
        Self { cntlid, host_nqn, host_id, origin, has_traffic, path, state: Mutex::new(state) }
    }

    /// A connection takes the queue ID.
    pub(crate) fn attach(&self, qid: u16, record: QueueRecord) -> Result<(), Status> {
        let mut state = self.state.lock();
        if state.is_terminated {
            return Err(Status::CONNECT_CONTROLLER_BUSY);
        }
        if qid > 0 && !state.status.is_ready {
            return Err(Status::COMMAND_SEQUENCE_ERROR.dnr());
        }
        if qid > state.io_queues || state.queues.contains_key(&qid) {
            return Err(Status::CONNECT_INVALID_PARAMETERS.dnr());
        }
        state.queues.insert(qid, record);
        Ok(())
    }

    /// The connection of a queue has ended. `doorbell` tells whose it was.
    pub(crate) fn detach(&self, qid: u16, doorbell: &Arc<Doorbell>) {
        let mut state = self.state.lock();
        if state.queues.get(&qid).is_some_and(|known| Arc::ptr_eq(&known.doorbell, doorbell)) {
            state.queues.remove(&qid);
        }
    }

    /// Ends all its connections.
    pub(crate) fn terminate(&self) {
        let mut state = self.state.lock();
        state.is_terminated = true;
        let is_fatal = state.status.is_fatal;
        state.status = ControllerState { is_fatal, ..ControllerState::default() };
        state.queues.values().for_each(|queue| queue.doorbell.close());
    }

    /// Processes no more commands and says why (CSTS.CFS).
    pub(crate) fn fail(&self) {
        let status = &mut self.state.lock().status;
        *status = ControllerState { is_fatal: true, ..ControllerState::default() };
    }

    pub(crate) fn configuration(&self) -> u32 {
        self.state.lock().configuration
    }

    pub(crate) fn status(&self) -> ControllerState {
        self.state.lock().status
    }

    /// Enables, resets or shuts down. The I/O queues do not survive the latter two.
    pub(crate) fn configure(&self, wanted: Configuration) -> Result<(), Status> {
        let mut state = self.state.lock();
        if wanted.is_enabled && !wanted.is_supported {
            return Err(Status::INVALID_FIELD.dnr());
        }
        state.configuration = wanted.raw;
        if wanted.is_shutdown {
            state.status = ControllerState { is_shut_down: true, ..ControllerState::default() };
        } else {
            let is_ready = wanted.is_enabled;
            if state.status.is_ready && !is_ready {
                state.events = Events::default();
            }
            state.status = ControllerState { is_ready, ..ControllerState::default() };
        }
        if !state.status.is_ready {
            let io_queues = state.queues.range(1..);
            io_queues.for_each(|(_, queue)| queue.doorbell.close());
        }
        Ok(())
    }

    pub(crate) fn keep_alive_ms(&self) -> u32 {
        self.state.lock().keep_alive_ms
    }

    pub(crate) fn set_keep_alive_ms(&self, keep_alive_ms: u32) {
        let mut state = self.state.lock();
        state.keep_alive_ms = keep_alive_ms;
        // The admin connection owns the timer.
        if let Some(admin) = state.queues.get(&0) {
            admin.doorbell.ring();
        }
    }

    pub(crate) fn io_queues(&self) -> u16 {
        self.state.lock().io_queues
    }

    /// Settles how many I/O queues the host may connect. Refused once it has connected one.
    pub(crate) fn set_io_queues(&self, io_queues: u16) -> Result<(), Status> {
        let mut state = self.state.lock();
        if state.queues.range(1..).next().is_some() {
            return Err(Status::COMMAND_SEQUENCE_ERROR.dnr());
        }
        state.io_queues = io_queues;
        Ok(())
    }

    /// The host is alive.
    pub(crate) fn note_traffic(&self) {
        // The load spares the cache line, which all queues share, a write for each command.
        if !self.has_traffic.load(Ordering::Relaxed) {
            self.has_traffic.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the host gave a sign of life since the last call.
    pub(crate) fn take_traffic(&self) -> bool {
        self.has_traffic.swap(false, Ordering::Relaxed)
    }

    /// How the namespaces can be reached here, and how often that has changed.
    pub(crate) fn path(&self) -> (PathState, u64) {
        let state = self.state.lock();
        (self.path_state(), state.path_changes)
    }

    fn path_state(&self) -> PathState {
        PathState::from_byte(self.path.load(Ordering::Acquire))
    }

    /// Whether I/O commands are executed; if not, hosts are to take another path.
    pub(crate) fn is_accessible(&self) -> bool {
        self.path_state() != PathState::Inaccessible
    }

    /// Commands that come after this are executed or refused accordingly.
    pub(crate) fn set_path(&self, path: PathState) {
        let mut state = self.state.lock();
        if self.path.swap(path as u8, Ordering::AcqRel) != path as u8 {
            state.path_changes += 1;
            state.raise(AsyncEvent::AnaChanged);
        }
    }

    pub(crate) fn enabled_events(&self) -> AsyncEventMask {
        self.state.lock().events.enabled
    }

    pub(crate) fn enable_events(&self, enabled: AsyncEventMask) {
        self.state.lock().events.enabled = enabled;
    }

    /// Holds a request until there is an event for it.
    pub(crate) fn hold_request(&self, cid: u16) -> Result<(), Status> {
        let mut state = self.state.lock();
        if state.events.requests.len() >= ASYNC_EVENTS_MAX {
            return Err(Status::ASYNC_EVENT_LIMIT_EXCEEDED.dnr());
        }
        state.events.requests.push_back(cid);
        Ok(())
    }

    /// Gives up a request that is held. True if it was.
    pub(crate) fn abort_request(&self, cid: u16) -> bool {
        let requests = &mut self.state.lock().events.requests;
        let before = requests.len();
        requests.retain(|&held| held != cid);
        requests.len() < before
    }

    /// The next request that can be answered, and with what.
    pub(crate) fn next_event(&self) -> Option<(u16, AsyncEvent)> {
        let events = &mut self.state.lock().events;
        let event = *events.pending.iter().find(|event| !events.masked.contains(*event))?;
        let cid = events.requests.pop_front()?;
        events.pending.remove(&event);
        events.masked.insert(event);
        Some((cid, event))
    }

    /// Something happened that the host may want to know.
    pub(crate) fn raise(&self, event: AsyncEvent) {
        let mut state = self.state.lock();
        state.raise(event);
    }

    /// A namespace came, went or changed. Rings all connections, which let go of it.
    pub(crate) fn namespace_changed(&self, nsid: u32) {
        let mut state = self.state.lock();
        if state.events.changed.len() >= CHANGED_NAMESPACES_MAX {
            state.events.has_changed_overflow = true;
        } else {
            state.events.changed.insert(nsid);
        }
        state.raise(AsyncEvent::NamespaceChanged);
        state.queues.values().for_each(|queue| queue.doorbell.ring());
    }

    /// NSIDs for log page 04h; `None` if there are too many to list. With `acknowledge` the list
    /// starts anew, in one step, so that no change falls between the two.
    pub(crate) fn changed_namespaces(&self, acknowledge: bool) -> Option<Vec<u32>> {
        let events = &mut self.state.lock().events;
        let listed =
            (!events.has_changed_overflow).then(|| events.changed.iter().copied().collect());
        if acknowledge {
            events.changed.clear();
            events.has_changed_overflow = false;
            events.masked.remove(&AsyncEvent::NamespaceChanged);
        }
        listed
    }

    /// The log page that belongs to `event` was read, so that the next one can be reported.
    pub(crate) fn acknowledge(&self, event: AsyncEvent) {
        self.state.lock().events.masked.remove(&event);
    }

    /// Adds to the error log; numbers it.
    pub(crate) fn log_error(&self, mut record: ErrorRecord) {
        let errors = &mut self.state.lock().errors;
        errors.count += 1;
        record.number = errors.count;
        errors.entries.truncate(ERROR_LOG_MAX - 1);
        errors.entries.push_front(record);
    }

    /// Newest first, and how many there ever were.
    pub(crate) fn errors(&self) -> (u64, Vec<ErrorRecord>) {
        let errors = &self.state.lock().errors;
        (errors.count, errors.entries.iter().copied().collect())
    }

    pub(crate) fn snapshot(&self) -> ControllerSnapshot {
        let state = self.state.lock();
        let io_queues = state.queues.range(1..).count();
        ControllerSnapshot {
            cntlid: self.cntlid,
            host_nqn: self.host_nqn.clone(),
            host_id: Uuid::from_bytes(self.host_id),
            origin: self.origin,
            io_queues: u16::try_from(io_queues).expect("queue IDs have 16 bits"),
            keep_alive_ms: state.keep_alive_ms,
        }
    }

    pub(crate) fn queue_snapshots(&self) -> Vec<QueueSnapshot> {
        let state = self.state.lock();
        let queues = state.queues.iter().map(|(&qid, record)| QueueSnapshot {
            cntlid: self.cntlid,
            qid,
            depth: record.depth,
            host_nqn: self.host_nqn.clone(),
            origin: record.origin,
        });
        queues.collect()
    }
}

impl State {
    fn raise(&mut self, event: AsyncEvent) {
        if self.events.enabled.has(event)
            && self.events.pending.insert(event)
            && let Some(admin) = self.queues.get(&0)
        {
            admin.doorbell.ring();
        }
    }
}
