//! The commands under way on one queue, without a socket: commands in, bytes out; bytes in,
//! completions out.
//!
//! Owns the command identifiers, the bytes to be sent and the progress of each transfer.
//! Does not: read or write a socket, know what a command means, or wait.
//! Invariants: an identifier is in use exactly while its command is outstanding; data moves in
//! order and without gaps; what the target may not do ends in a [`Violation`].

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use lsvd_nvmet::wire::{Cqe, Sgl, Status};
use zerocopy::{FromBytes, IntoBytes};

use crate::command::{Command, Completion, Tag, Transfer};
use crate::error::{Error, Violation};
use crate::pdu::{self, Frame, Shape, flag, kind};

/// What was agreed on when the connection was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Agreement {
    pub(crate) shape: Shape,
    /// Entries of the queue, at least 2. One stays empty, or a full queue would look empty.
    pub(crate) entries: u16,
    /// MAXH2CDATA in bytes.
    pub(crate) data_pdu_max: u32,
    /// R2Ts of one command that may be outstanding, at least 1.
    pub(crate) r2ts: u32,
    /// Longest data in bytes that goes with its command.
    pub(crate) in_capsule_max: u32,
    /// Whether the target reports SQHD, and may therefore not leave out a response.
    pub(crate) flow_control: bool,
}

#[derive(Debug)]
pub(crate) struct Exchange {
    agreement: Agreement,
    slots: Vec<Option<Slot>>,
    /// Identifiers that are not in use. The one that was freed last is taken first.
    free: Vec<u16>,
    outbox: BytesMut,
    /// Bytes that have ever left `outbox`.
    sent: u64,
    /// The most that a data PDU may carry, given what has been asked for.
    data_max: u32,
}

/// One outstanding command.
#[derive(Debug, Default)]
struct Slot {
    transfer: Transfer,
    /// Bytes of the data that have been moved, or asked for by R2Ts.
    moved: u32,
    /// What has been read before the part that arrives last.
    parts: BytesMut,
    /// What has been read, if it came in one part.
    whole: Bytes,
    /// Where in the sent bytes the answer to each R2T ends, for those that may still wait.
    answers: VecDeque<u64>,
}

impl Slot {
    fn data_len(&self) -> u32 {
        match &self.transfer {
            Transfer::None => 0,
            Transfer::ToHost(bytes) => *bytes,
            Transfer::FromHost(data) => {
                u32::try_from(data.len()).expect("payloads are far below 4 GiB")
            }
        }
    }

    fn into_data(self) -> Bytes {
        if self.parts.is_empty() { self.whole } else { self.parts.freeze() }
    }
}

impl Exchange {
    pub(crate) fn new(agreement: Agreement) -> Self {
        Self {
            agreement,
            slots: (1..agreement.entries).map(|_| None).collect(),
            free: (0..agreement.entries.saturating_sub(1)).rev().collect(),
            outbox: BytesMut::new(),
            sent: 0,
            data_max: 152, // PLEN of a termination request is at most this (section 3.6.2.5)
        }
    }

    /// Commands that are outstanding.
    pub(crate) fn outstanding(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// What is to be sent.
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.outbox
    }

    /// `bytes` of [`Self::unsent`] are on their way.
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.outbox.advance(bytes);
        self.sent += bytes as u64;
    }

    pub(crate) fn set_in_capsule_max(&mut self, bytes: u32) {
        self.agreement.in_capsule_max = bytes;
    }

    /// Queues a command.
    pub(crate) fn submit(&mut self, command: Command) -> Result<Tag, Error> {
        let cid = self.free.pop().ok_or(Error::QueueFull)?;
        let Command { mut entry, transfer } = command;
        entry.cid = cid.into();
        let mut slot = Slot { transfer, ..Slot::default() };
        let len = slot.data_len();
        let inline = match &slot.transfer {
            Transfer::FromHost(data) if len <= self.agreement.in_capsule_max => {
                slot.moved = len;
                data.clone()
            }
            _ => Bytes::new(),
        };
        let sgl = if inline.is_empty() {
            Sgl::Transport { len }
        } else {
            Sgl::Capsule { offset: 0, len }
        };
        if let Transfer::ToHost(bytes) = slot.transfer {
            self.data_max = self.data_max.max(bytes);
        }
        let entry = entry.with_sgl(sgl);
        let shape = self.agreement.shape;
        pdu::put(&mut self.outbox, shape, kind::COMMAND, 0, entry.as_bytes(), &inline);
        self.slots[usize::from(cid)] = Some(slot);
        Ok(Tag(cid))
    }

    /// Takes PDUs off `inbox` up to the next completion; `None` when it holds none.
    pub(crate) fn receive(&mut self, inbox: &mut BytesMut) -> Result<Option<Completion>, Error> {
        while let Some(frame) = pdu::take(inbox, self.agreement.shape, self.data_max)? {
            let completion = match frame.kind {
                kind::RESPONSE => Some(self.response(&frame)?),
                kind::C2H_DATA => self.data(frame)?,
                kind::R2T => {
                    self.ready_to_transfer(&frame)?;
                    None
                }
                kind::C2H_TERM => {
                    let (status, info) = (frame.u16_at(8), frame.u32_at(10));
                    return Err(Error::Terminated { status, info });
                }
                other => return Err(Violation::Kind(other).into()),
            };
            if completion.is_some() {
                return Ok(completion);
            }
        }
        Ok(None)
    }

    fn slot(&mut self, cid: u16) -> Result<&mut Slot, Violation> {
        let slot = self.slots.get_mut(usize::from(cid)).and_then(Option::as_mut);
        slot.ok_or(Violation::UnknownCommand(cid))
    }

    fn complete(&mut self, cid: u16, status: Status, result: u64) -> Result<Completion, Violation> {
        let slot = self.slot(cid)?;
        let (moved, all) = (slot.moved, slot.data_len());
        if status == Status::SUCCESS && moved != all {
            return Err(Violation::CompletedEarly { cid, moved, all });
        }
        let slot = self.slots[usize::from(cid)].take().expect("it was found above");
        self.free.push(cid);
        Ok(Completion { tag: Tag(cid), status, result, data: slot.into_data() })
    }

    fn response(&mut self, frame: &Frame) -> Result<Completion, Violation> {
        let (cqe, _) = Cqe::read_from_prefix(&frame.header[pdu::COMMON_BYTES..])
            .expect("the header holds an entry");
        if self.agreement.flow_control && cqe.sqhd.get() >= self.agreement.entries {
            return Err(Violation::QueueHead(cqe.sqhd.get()));
        }
        self.complete(cqe.cid.get(), cqe.status(), cqe.result.get())
    }

    fn data(&mut self, frame: Frame) -> Result<Option<Completion>, Violation> {
        let (cid, offset, len) = (frame.u16_at(8), frame.u32_at(12), frame.u32_at(16));
        let is_last = frame.flags & flag::LAST != 0;
        let is_success = frame.flags & flag::SUCCESS != 0;
        if is_success && (!is_last || self.agreement.flow_control) {
            return Err(Violation::Success(cid));
        }
        let slot = self.slot(cid)?;
        let all = if let Transfer::ToHost(bytes) = slot.transfer { bytes } else { 0 };
        let is_next = offset == slot.moved && len > 0 && len <= all - slot.moved.min(all);
        if !is_next || len as usize != frame.data.len() {
            return Err(Violation::DataOrder { cid, offset, expected: slot.moved });
        }
        slot.moved += len;
        if is_last != (slot.moved == all) {
            return Err(Violation::Last(cid));
        }
        if len == all {
            slot.whole = frame.data;
        } else {
            slot.parts.extend_from_slice(&frame.data);
        }
        if is_success { self.complete(cid, Status::SUCCESS, 0).map(Some) } else { Ok(None) }
    }

    /// Answers an R2T at once, with data PDUs of at most MAXH2CDATA.
    fn ready_to_transfer(&mut self, frame: &Frame) -> Result<(), Violation> {
        let (cid, transfer_tag) = (frame.u16_at(8), frame.u16_at(10));
        let (offset, len) = (frame.u32_at(12), frame.u32_at(16));
        let (sent, Agreement { shape, r2ts, data_pdu_max, .. }) = (self.sent, self.agreement);
        let slot = self.slot(cid)?;
        let data =
            if let Transfer::FromHost(data) = &slot.transfer { data.clone() } else { Bytes::new() };
        let expected = slot.moved;
        let end = offset.checked_add(len).filter(|end| *end as usize <= data.len());
        let Some(end) = end.filter(|_| len > 0 && offset == expected) else {
            return Err(Violation::R2tOrder { cid, offset, expected });
        };
        while slot.answers.front().is_some_and(|end| *end <= sent) {
            slot.answers.pop_front();
        }
        if slot.answers.len() >= r2ts as usize {
            return Err(Violation::R2tFlood(cid));
        }
        slot.moved = end;
        let mut at = offset;
        while at < end {
            let part = data_pdu_max.min(end - at);
            let flags = if at + part == end { flag::LAST } else { 0 };
            let mut specific = [0; 16];
            specific[..2].copy_from_slice(&cid.to_le_bytes());
            specific[2..4].copy_from_slice(&transfer_tag.to_le_bytes());
            specific[4..8].copy_from_slice(&at.to_le_bytes());
            specific[8..12].copy_from_slice(&part.to_le_bytes());
            let bytes = &data[at as usize..(at + part) as usize];
            pdu::put(&mut self.outbox, shape, kind::H2C_DATA, flags, &specific, bytes);
            at += part;
        }
        let answered = sent + self.outbox.len() as u64;
        self.slot(cid)?.answers.push_back(answered);
        Ok(())
    }
}

#[cfg(test)]
mod test {
    use super::*;

    const AGREEMENT: Agreement = Agreement {
        shape: Shape { header_digest: true, data_digest: true, alignment: 4, peer_alignment: 4 },
        entries: 4,
        data_pdu_max: 4096,
        r2ts: 2,
        in_capsule_max: 4096,
        flow_control: true,
    };

    /// What a target sends, collected for one [`Exchange::receive`].
    #[derive(Default, Clone)]
    struct Script(BytesMut);

    impl Script {
        fn response(mut self, cid: u16, status: Status) -> Self {
            let cqe = Cqe::new(cid, 0, 0, 7, status);
            pdu::put(&mut self.0, AGREEMENT.shape, kind::RESPONSE, 0, cqe.as_bytes(), &[]);
            self
        }

        fn data(self, cid: u16, flags: u8, offset: u32, data: &[u8]) -> Self {
            let len = u32::try_from(data.len()).unwrap();
            self.transfer(kind::C2H_DATA, cid, 0, flags, offset, len, data)
        }

        fn r2t(self, cid: u16, tag: u16, offset: u32, len: u32) -> Self {
            self.transfer(kind::R2T, cid, tag, 0, offset, len, &[])
        }

        #[expect(clippy::too_many_arguments, reason = "the fields of a PDU")]
        fn transfer(
            mut self,
            kind: u8,
            cid: u16,
            tag: u16,
            flags: u8,
            offset: u32,
            len: u32,
            data: &[u8],
        ) -> Self {
            let mut specific = [0; 16];
            specific[..2].copy_from_slice(&cid.to_le_bytes());
            specific[2..4].copy_from_slice(&tag.to_le_bytes());
            specific[4..8].copy_from_slice(&offset.to_le_bytes());
            specific[8..12].copy_from_slice(&len.to_le_bytes());
            pdu::put(&mut self.0, AGREEMENT.shape, kind, flags, &specific, data);
            self
        }
    }

    fn with(command: Command) -> (Exchange, u16) {
        let mut exchange = Exchange::new(AGREEMENT);
        let Tag(cid) = exchange.submit(command).unwrap();
        let unsent = exchange.unsent().len();
        exchange.advance(unsent);
        (exchange, cid)
    }

    fn reading() -> (Exchange, u16) {
        with(Command::read(1, 0, 2, 512))
    }

    fn writing(bytes: usize) -> (Exchange, u16) {
        with(Command::write(1, 0, 512, (0..bytes).map(|byte| (byte / 16 % 251) as u8).collect()))
    }

    fn violation(exchange: &mut Exchange, mut script: Script) -> Violation {
        match exchange.receive(&mut script.0) {
            Err(Error::Violation(violation)) => violation,
            other => panic!("no violation: {other:?}"),
        }
    }

    #[test]
    fn a_read_in_parts_is_joined_wherever_the_stream_is_cut() {
        let (_, cid) = reading();
        let script = Script::default()
            .data(cid, 0, 0, &[1; 600])
            .data(cid, flag::LAST, 600, &[2; 424])
            .response(cid, Status::SUCCESS)
            .0;
        for cut in 0..script.len() {
            let (mut exchange, _) = reading();
            let mut inbox = BytesMut::from(&script[..cut]);
            assert!(exchange.receive(&mut inbox).unwrap().is_none(), "cut at {cut}");
            inbox.extend_from_slice(&script[cut..]);
            let completion = exchange.receive(&mut inbox).unwrap().unwrap().ok().unwrap();
            assert_eq!((completion.tag, completion.result), (Tag(cid), 7));
            assert_eq!(completion.data[..], [[1; 600].as_slice(), &[2; 424]].concat());
            assert_eq!(exchange.outstanding(), 0);
        }
    }

    #[test]
    fn data_out_of_order_beyond_the_end_or_for_a_write_is_a_violation() {
        let wrong = |script: Script, (mut exchange, cid): (Exchange, u16)| {
            let found = violation(&mut exchange, script);
            assert!(matches!(found, Violation::DataOrder { cid: c, .. } if c == cid), "{found}");
        };
        let (_, cid) = reading();
        wrong(Script::default().data(cid, 0, 4, &[0; 4]), reading());
        wrong(Script::default().data(cid, 0, 0, &[0; 4]).data(cid, 0, 0, &[0; 4]), reading());
        wrong(Script::default().data(cid, 0, 4, &[0; 1024]), reading());
        wrong(Script::default().data(cid, 0, 0, &[0; 4]), writing(512));
    }

    #[test]
    fn flags_of_the_last_data_are_checked() {
        let (mut exchange, cid) = reading();
        let early = Script::default().data(cid, flag::LAST, 0, &[0; 512]);
        assert_eq!(violation(&mut exchange, early), Violation::Last(cid));
        let (mut exchange, cid) = reading();
        let missing = Script::default().data(cid, 0, 0, &[0; 1024]);
        assert_eq!(violation(&mut exchange, missing), Violation::Last(cid));
        let flags = flag::LAST | flag::SUCCESS;
        let (mut exchange, cid) = reading();
        let with_flow_control = Script::default().data(cid, flags, 0, &[0; 1024]);
        let found = violation(&mut exchange, with_flow_control.clone());
        assert_eq!(found, Violation::Success(cid));

        let mut exchange = Exchange::new(Agreement { flow_control: false, ..AGREEMENT });
        exchange.submit(Command::read(1, 0, 2, 512)).unwrap();
        let mut inbox = with_flow_control.0;
        assert_eq!(exchange.receive(&mut inbox).unwrap().unwrap().data.len(), 1024);
    }

    #[test]
    fn a_command_completes_once_and_not_before_its_data() {
        let (mut exchange, cid) = reading();
        let early = Script::default().data(cid, 0, 0, &[0; 512]).response(cid, Status::SUCCESS);
        let expected = Violation::CompletedEarly { cid, moved: 512, all: 1024 };
        assert_eq!(violation(&mut exchange, early), expected);

        let (mut exchange, cid) = reading();
        let mut failed = Script::default().response(cid, Status::LBA_OUT_OF_RANGE);
        let completion = exchange.receive(&mut failed.0).unwrap().unwrap();
        assert!(matches!(completion.ok(), Err(Error::Status(Status::LBA_OUT_OF_RANGE))));
        let again = Script::default().response(cid, Status::SUCCESS);
        assert_eq!(violation(&mut exchange, again), Violation::UnknownCommand(cid));
        let never = Script::default().response(900, Status::SUCCESS);
        assert_eq!(violation(&mut exchange, never), Violation::UnknownCommand(900));
    }

    #[test]
    fn a_small_write_goes_with_its_command_and_a_large_one_on_request() {
        let (mut exchange, cid) = writing(4096);
        let mut done = Script::default().response(cid, Status::SUCCESS);
        assert!(exchange.receive(&mut done.0).unwrap().is_some());

        let (mut exchange, cid) = writing(12288);
        let mut asked = Script::default().r2t(cid, 5, 0, 10240).r2t(cid, 6, 10240, 2048);
        assert!(exchange.receive(&mut asked.0).unwrap().is_none());
        let mut sent = exchange.unsent();
        let data: Vec<u8> = (0..12288).map(|byte| (byte / 16 % 251) as u8).collect();
        let parts = [(5, 0, 4096, 0), (5, 4096, 4096, 0), (5, 8192, 2048, 4), (6, 10240, 2048, 4)];
        for (tag, offset, len, last) in parts {
            let (head, rest) = sent.split_at(28);
            assert_eq!((head[0], head[1], head[2], head[3]), (0x06, last | 3, 24, 28));
            let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
            assert_eq!(head[8..12], [cid as u8, 0, tag, 0]);
            assert_eq!((number(12), number(16)), (offset, len));
            assert_eq!(rest[..len as usize], data[offset as usize..][..len as usize]);
            sent = &rest[len as usize + 4..];
        }
        assert!(sent.is_empty());
    }

    #[test]
    fn more_requests_than_agreed_on_are_a_flood_until_answers_are_sent() {
        let asked = |cid| Script::default().r2t(cid, 0, 0, 512).r2t(cid, 1, 512, 512);
        let (mut exchange, cid) = writing(8192);
        let flood = Script(asked(cid).0).r2t(cid, 2, 1024, 512);
        assert_eq!(violation(&mut exchange, flood), Violation::R2tFlood(cid));

        let (mut exchange, cid) = writing(8192);
        exchange.receive(&mut asked(cid).0).unwrap();
        exchange.advance(512 + 32);
        exchange.receive(&mut Script::default().r2t(cid, 2, 1024, 512).0).unwrap();
        let flood = Script::default().r2t(cid, 3, 1536, 512);
        assert_eq!(violation(&mut exchange, flood), Violation::R2tFlood(cid));
    }

    #[test]
    fn requests_out_of_order_empty_or_past_the_end_are_violations() {
        let wrong = [(512, 512), (0, 0), (0, 8193), (u32::MAX, 2)];
        for (offset, len) in wrong {
            let (mut exchange, cid) = writing(8192);
            let found = violation(&mut exchange, Script::default().r2t(cid, 0, offset, len));
            assert_eq!(found, Violation::R2tOrder { cid, offset, expected: 0 });
        }
        let (mut exchange, cid) = reading();
        let found = violation(&mut exchange, Script::default().r2t(cid, 0, 0, 512));
        assert_eq!(found, Violation::R2tOrder { cid, offset: 0, expected: 0 });
    }

    #[test]
    fn a_queue_of_four_holds_three_and_uses_identifiers_again() {
        let mut exchange = Exchange::new(AGREEMENT);
        let tags: Vec<_> = (0..3).map(|_| exchange.submit(Command::flush(1)).unwrap()).collect();
        assert!(matches!(exchange.submit(Command::flush(1)), Err(Error::QueueFull)));
        let mut script = Script::default().response(tags[1].0, Status::SUCCESS);
        assert_eq!(exchange.receive(&mut script.0).unwrap().unwrap().tag, tags[1]);
        assert_eq!(exchange.submit(Command::flush(1)).unwrap(), tags[1]);
    }

    #[test]
    fn a_termination_request_ends_the_queue_with_its_reason() {
        let (mut exchange, _) = reading();
        let mut out = BytesMut::new();
        let specific = [3, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        pdu::put(&mut out, Shape::default(), kind::C2H_TERM, 0, &specific, &[0; 72]);
        let error = exchange.receive(&mut out).unwrap_err();
        assert!(matches!(error, Error::Terminated { status: 3, info: 8 }), "{error}");
    }
}
