//! One connection without sockets: bytes in, bytes out, operations in between.
//!
//! Does not: touch sockets or clocks (`driver`), or know what commands mean (`fabrics`, `admin`,
//! `io`).
//! Invariants: 1. No more commands are in flight than the queue holds, and each is answered once, or
//! the connection ends. 2. No payload is added beyond the queue's share of the target's memory: a
//! command that needs more waits, without memory, until others are done. 3. After a termination PDU
//! nothing is sent.
//! Concurrency: belongs to one task. Others reach it by its doorbell.

mod answer;
mod connect;
#[cfg(any(test, feature = "loopback"))]
pub(crate) mod loopback;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Context;

use bytes::{Bytes, BytesMut};
use lsvd_buf::BufPool;

pub(crate) use answer::Answer;
pub(crate) use connect::Member;

use crate::admin;
use crate::driver::Ended;
use crate::error::Error;
use crate::io::{Started, Work};
use crate::limits::{H2C_DATA_MAX, REPLIES_GATE};
use crate::namespace::Failure;
use crate::operations::Operations;
use crate::outbox::Outbox;
use crate::receive::{Incoming, Receiver};
use crate::target::subsystem::NamespaceTable;
use crate::target::{Origin, Target};
use crate::wire::pdu::{Alignment, IcReq, IcResp, PduWriter, R2t};
use crate::wire::{Direction, FabricsCommand, Sqe, Status, TermError};

/// State machine of one connection.
pub(crate) struct Session {
    target: Arc<Target>,
    origin: Origin,
    buffers: BufPool,
    receiver: Receiver,
    writer: PduWriter,
    /// Set by a successful Connect.
    member: Option<Member>,
    table: Arc<NamespaceTable>,
    /// What is to be sent.
    pub(crate) outbox: Outbox,
    operations: Operations,
    /// Empty between two polls; kept for its memory.
    finished: Vec<(Work, Result<Bytes, Failure>)>,
    cids: CommandIds,
    /// Commands taken and not answered. Held event requests have left the queue and do not count.
    in_flight: usize,
    /// SQ head pointer of the last completion: entries given back, modulo the depth of the queue.
    head: u16,
    /// Bytes of payload under way, `outbox` not counted.
    payload: usize,
    /// Commands that wait for room (invariant 2).
    waiting: VecDeque<Work>,
    /// The receiver has consumed what it can and waits for more bytes.
    is_starved: bool,
    /// Answers have no receiver any more.
    is_mute: bool,
    /// Set once no more commands are taken: how the connection ends.
    end: Option<Result<Ended, Error>>,
}

impl Session {
    pub(crate) fn new(target: Arc<Target>, origin: Origin, buffers: BufPool) -> Self {
        Self {
            target,
            origin,
            buffers,
            receiver: Receiver::new(),
            writer: PduWriter::default(),
            member: None,
            table: Arc::default(),
            outbox: Outbox::default(),
            operations: Operations::default(),
            finished: Vec::new(),
            cids: CommandIds::default(),
            in_flight: 0,
            head: 0,
            payload: 0,
            waiting: VecDeque::new(),
            is_starved: false,
            is_mute: false,
            end: None,
        }
    }

    /// The queue that the peer has connected.
    pub(crate) fn member(&self) -> Option<&Member> {
        self.member.as_ref()
    }

    /// Whether the peer has a queue and knows.
    pub(crate) fn is_connected(&self) -> bool {
        self.member.is_some() && self.outbox.is_empty()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.end.is_none()
    }

    /// Whether nothing can be done without more bytes from the peer.
    pub(crate) fn is_starved(&self) -> bool {
        self.is_starved
    }

    /// Whether the peer may leave without breaking off a PDU.
    pub(crate) fn is_between_pdus(&self) -> bool {
        self.receiver.is_between_pdus()
    }

    /// More bytes are there.
    pub(crate) fn bytes_arrived(&mut self) {
        self.is_starved = false;
    }

    /// See [`Receiver::payload_target`]; `input` is what the receiver has left.
    pub(crate) fn payload_target(&mut self, input: &BytesMut) -> Option<&mut [u8]> {
        if input.is_empty() { self.receiver.payload_target() } else { None }
    }

    /// See [`Receiver::payload_arrived`].
    pub(crate) fn payload_arrived(&mut self, bytes: usize) {
        self.receiver.payload_arrived(bytes);
    }

    /// Takes no more commands; the first reason counts. Those that wait for room or data were not
    /// begun, and the host repeats them elsewhere.
    pub(crate) fn close(&mut self, end: Result<Ended, Error>) {
        self.end.get_or_insert(end);
        self.waiting.clear();
        self.receiver.abandon();
    }

    /// The socket failed: answers have no receiver, but the operations go on to their end.
    pub(crate) fn break_off(&mut self, error: Error) {
        if !matches!(self.end, Some(Err(_))) {
            self.end = None;
        }
        self.close(Err(error));
        self.is_mute = true;
        self.outbox.discard();
    }

    /// How the connection ended, once everything that was begun is done and sent.
    pub(crate) fn take_end(&mut self) -> Option<Result<Ended, Error>> {
        let is_done = self.operations.is_empty() && self.outbox.is_empty();
        if is_done { self.end.take() } else { None }
    }

    /// The peer broke the protocol with the PDU at the start of `offending`.
    fn violate(&mut self, error: TermError, offending: &[u8]) {
        self.target.stats.violations.fetch_add(1, Ordering::Relaxed);
        let header_len = offending.get(2).map_or(0, |&len| usize::from(len));
        let header = &offending[..header_len.min(offending.len())];
        self.outbox.control(|out| error.encode(Direction::ControllerToHost, header, out));
        self.is_mute = true;
        self.close(Err(Error::Violation(error)));
    }

    /// The host has put a command into a full queue. That is fatal for the whole controller: hosts
    /// see CSTS.CFS, and the association ends (base 2.0, sections 3.3.2.5 and 3.3.2.6).
    fn overflow(&mut self) {
        self.violate(TermError::SEQUENCE, &[]);
        if let Some(member) = &self.member {
            member.controller.fail();
            member.subsystem.forget(&member.controller);
        }
    }

    /// Takes all commands that are complete in `input`, as far as there is room for their answers.
    pub(crate) fn take_commands(&mut self, input: &mut BytesMut) -> bool {
        let mut moved = false;
        while self.is_running() && !self.is_starved && self.outbox.bytes() < REPLIES_GATE {
            match self.receiver.next(input) {
                Ok(None) => {
                    self.is_starved = true;
                    break;
                }
                Ok(Some(incoming)) => self.take(incoming),
                Err(error) => self.violate(error, input),
            }
            moved = true;
        }
        moved
    }

    fn take(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::IcReq(request) => self.initialize(request),
            Incoming::Command { sqe, data, is_intact } => self.command(&sqe, data, is_intact),
            Incoming::Data { work, data, is_intact } => {
                if is_intact {
                    self.run(work, data);
                } else {
                    self.finish(&work, Answer::failed(Status::TRANSIENT_TRANSPORT_ERROR));
                }
            }
            Incoming::Terminated(status) => self.close(Err(Error::Terminated { status })),
        }
    }

    fn initialize(&mut self, request: IcReq) {
        let response = IcResp {
            alignment: Alignment::default(),
            digests: request.digests,
            maxh2cdata: H2C_DATA_MAX,
        };
        self.outbox.control(|out| out.extend_from_slice(&response.to_bytes()));
        self.receiver.connected(request.digests);
        self.writer = PduWriter { digests: request.digests, alignment: request.alignment };
    }

    fn command(&mut self, sqe: &Sqe, data: Bytes, is_intact: bool) {
        // A queue is full with one entry free (base 2.0, section 3.3.2.6); Linux and SPDK keep to it.
        let entries = self.member.as_ref().map_or(1, |member| member.depth - 1);
        if self.in_flight >= usize::from(entries) {
            return self.overflow();
        }
        let cid = sqe.cid.get();
        if !self.cids.insert(cid) {
            return self.reply(cid, Answer::failed(Status::CID_CONFLICT.dnr()));
        }
        self.in_flight += 1;
        if let Some(member) = &self.member {
            member.controller.note_traffic();
        }
        if !is_intact {
            return self.answer(cid, Answer::failed(Status::TRANSIENT_TRANSPORT_ERROR));
        }
        match self.dispatch(sqe, data) {
            Ok(Some(answer)) => self.answer(cid, answer),
            Ok(None) => {}
            Err(status) => {
                self.log_failure(cid, sqe.nsid.get(), 0, status);
                self.answer(cid, Answer::failed(status));
            }
        }
        self.send_events();
    }

    /// Runs a command, or begins it. `None`: the answer comes later.
    fn dispatch(&mut self, sqe: &Sqe, data: Bytes) -> Result<Option<Answer>, Status> {
        sqe.check()?;
        if sqe.is_fabrics() {
            let command = FabricsCommand::parse(sqe)?;
            return self.fabrics(&command, sqe, &data).map(Some);
        }
        let Some(member) = &self.member else {
            return Err(Status::COMMAND_SEQUENCE_ERROR.dnr());
        };
        if !member.controller.status().is_ready {
            return Err(Status::COMMAND_SEQUENCE_ERROR.dnr());
        }
        if member.qid == 0 {
            let context = admin::Admin { target: &self.target, member, origin: &self.origin };
            return match context.execute(sqe, &data)? {
                admin::Outcome::Answer(answer) => Ok(Some(answer)),
                admin::Outcome::Aborted { cid, answer } => {
                    self.in_flight += 1;
                    self.answer(cid, Answer::failed(Status::ABORT_REQUESTED));
                    Ok(Some(answer))
                }
                admin::Outcome::Held => {
                    // It has left the queue, but its ID stays taken.
                    self.in_flight -= 1;
                    Ok(None)
                }
            };
        }
        if !member.controller.is_accessible() {
            return Err(Status::ANA_INACCESSIBLE);
        }
        member.subsystem.refresh(&mut self.table);
        let (work, data) = Work::parse(sqe, data, &self.table)?;
        match data {
            Some(data) => {
                self.payload += work.charge;
                self.run(work, data);
            }
            None => self.admit(work),
        }
        Ok(None)
    }

    /// Begins a command if there is room for its payload, or has it wait.
    fn admit(&mut self, work: Work) {
        if self.waiting.is_empty() && self.has_room(&work) {
            self.begin(work);
        } else {
            self.waiting.push_back(work);
        }
    }

    fn has_room(&self, work: &Work) -> bool {
        // One command always fits, whatever the limits are.
        let taken = self.payload + self.outbox.bytes();
        taken == 0 || work.charge == 0 || taken + work.charge <= self.target.payload_share()
    }

    /// Payload and replies that are held.
    #[cfg(any(test, feature = "loopback"))]
    fn payload_bytes(&self) -> usize {
        self.payload + self.outbox.bytes()
    }

    fn begin(&mut self, work: Work) {
        self.payload += work.charge;
        let Some(len) = work.awaits else {
            return self.run(work, Bytes::new());
        };
        let cid = work.cid;
        let buffer = self.buffers.take(len as usize);
        let ttag = self.receiver.expect(work, buffer, len);
        let writer = self.writer;
        self.outbox.control(|out| writer.r2t(&R2t { cid, ttag, offset: 0, len }, out));
    }

    /// Executes a command whose data is here.
    fn run(&mut self, work: Work, data: Bytes) {
        match work.start(data) {
            Started::Done(work, result) => self.settle(&work, result),
            Started::Pending(work, operation) => self.operations.push(work, operation),
        }
    }

    fn settle(&mut self, work: &Work, result: Result<Bytes, Failure>) {
        let answer = work.conclude(result);
        if !answer.status.is_success() {
            let lba = work.lba();
            self.log_failure(work.cid, work.attached.nsid, lba, answer.status);
        }
        self.finish(work, answer);
    }

    fn finish(&mut self, work: &Work, answer: Answer) {
        self.payload -= work.charge;
        self.answer(work.cid, answer);
    }

    /// Answers a command that is in flight.
    fn answer(&mut self, cid: u16, answer: Answer) {
        self.in_flight -= 1;
        self.cids.remove(cid);
        self.reply(cid, answer);
    }

    /// Advances everything that does not need bytes from the peer.
    pub(crate) fn poll(&mut self, context: &Context<'_>) -> bool {
        let mut finished = std::mem::take(&mut self.finished);
        self.operations.poll(context, |work, result| finished.push((work, result)));
        let mut moved = !finished.is_empty();
        finished.drain(..).for_each(|(work, result)| self.settle(&work, result));
        self.finished = finished;
        while self.outbox.bytes() < REPLIES_GATE
            && self.waiting.front().is_some_and(|work| self.has_room(work))
            && let Some(work) = self.waiting.pop_front()
        {
            self.begin(work);
            moved = true;
        }
        if let Some(member) = &self.member
            && member.doorbell.listen(context)
        {
            moved = true;
            member.subsystem.refresh(&mut self.table);
            if member.doorbell.is_closed() && self.is_running() {
                self.close(Ok(Ended::Removed));
            }
            self.send_events();
        }
        moved
    }

    /// Answers held requests with events that have happened.
    fn send_events(&mut self) {
        while self.is_running()
            && let Some(member) = &self.member
            && member.qid == 0
            && let Some((cid, event)) = member.controller.next_event()
        {
            self.in_flight += 1;
            self.answer(cid, Answer::done(u64::from(event.dw0())));
        }
    }

    /// Keep alive timeout in milliseconds, if this is an admin connection whose host wants one.
    pub(crate) fn keep_alive_ms(&self) -> u32 {
        let admin = self.member.as_ref().filter(|member| member.qid == 0);
        admin.map_or(0, |member| member.controller.keep_alive_ms())
    }

    /// Whether the host gave a sign of life, on any queue, since the last call.
    pub(crate) fn take_traffic(&self) -> bool {
        self.member.as_ref().is_some_and(|member| member.controller.take_traffic())
    }

    /// Ends the association.
    pub(crate) fn host_is_silent(&mut self, timeout_ms: u32) {
        self.target.stats.keep_alive_timeouts.fetch_add(1, Ordering::Relaxed);
        self.close(Err(Error::KeepAlive { timeout_ms }));
        if let Some(member) = &self.member {
            member.subsystem.forget(&member.controller);
        }
    }
}

/// The command IDs in use, as a bitmap: hosts choose any of 65536.
#[derive(Debug, Default)]
struct CommandIds {
    /// Made when the first command comes.
    words: Vec<u64>,
}

impl CommandIds {
    /// False if it was there already.
    fn insert(&mut self, cid: u16) -> bool {
        if self.words.is_empty() {
            self.words.resize(1024, 0);
        }
        let (word, bit) = (usize::from(cid / 64), 1 << (cid % 64));
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        is_new
    }

    fn remove(&mut self, cid: u16) {
        self.words[usize::from(cid / 64)] &= !(1 << (cid % 64));
    }
}

#[cfg(test)]
mod test;
