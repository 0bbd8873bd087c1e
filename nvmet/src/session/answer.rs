//! How answers become PDUs.

use bytes::Bytes;

use super::Session;
use crate::controller::ErrorRecord;
use crate::wire::pdu::{DataPdu, digest};
use crate::wire::{Cqe, Direction, Status};

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Answer {
    /// DW0 and DW1 of the completion.
    pub(crate) result: u64,
    pub(crate) status: Status,
    /// Data for the host, with success only.
    pub(crate) data: Bytes,
}

impl Answer {
    pub(crate) fn done(result: u64) -> Self {
        Self { result, status: Status::SUCCESS, data: Bytes::new() }
    }

    pub(crate) fn data(data: impl Into<Bytes>) -> Self {
        Self { result: 0, status: Status::SUCCESS, data: data.into() }
    }

    pub(crate) fn failed(status: Status) -> Self {
        Self { result: 0, status, data: Bytes::new() }
    }
}

impl Session {
    /// Sends an answer to command `cid`.
    pub(super) fn reply(&mut self, cid: u16, answer: Answer) {
        if self.is_mute {
            return;
        }
        let head = self.next_head();
        let member = self.member.as_ref();
        let has_flow_control = member.is_none_or(|member| member.has_flow_control);
        let qid = member.map_or(0, |member| member.qid);
        let writer = self.writer;
        if !answer.data.is_empty() {
            // The flag stands for a completion that says nothing: success, all zeros, and no SQ head
            // pointer that the host would need (TCP section 3.3.2.1).
            let is_success = !has_flow_control && answer.result == 0;
            let len = u32::try_from(answer.data.len()).expect("data fits a transfer");
            let pdu = DataPdu { cid, ttag: 0, offset: 0, len, is_last: true, is_success };
            self.outbox.control(|out| writer.data(Direction::ControllerToHost, &pdu, out));
            let data_digest = writer.digests.data.then(|| digest(&answer.data));
            self.outbox.payload(answer.data);
            if let Some(data_digest) = data_digest {
                self.outbox.control(|out| out.extend_from_slice(&data_digest.to_le_bytes()));
            }
            if is_success {
                return;
            }
        }
        let cqe = Cqe::new(cid, qid, head, answer.result, answer.status);
        self.outbox.control(|out| writer.capsule_response(&cqe, out));
    }

    /// SQ head pointer (SQHD) of the next completion. An entry is given back with its completion,
    /// not when it is taken, as Linux and SPDK do it: so a host that goes by the pointer never has
    /// more commands in flight than the queue holds.
    fn next_head(&mut self) -> u16 {
        match &self.member {
            None => 0,
            Some(member) if member.has_flow_control => {
                self.head = if self.head + 1 >= member.depth { 0 } else { self.head + 1 };
                self.head
            }
            // Without flow control the pointer of Connect's completion says that the target agrees,
            // and all later ones are 0 (base 2.0, sections 3.3.2.5 and 6.3).
            Some(_) => std::mem::take(&mut self.head),
        }
    }

    /// Notes a failed command for the error log page.
    pub(super) fn log_failure(&self, cid: u16, nsid: u32, lba: u64, status: Status) {
        if let Some(member) = &self.member {
            let qid = member.qid;
            member.controller.log_error(ErrorRecord { number: 0, qid, cid, status, lba, nsid });
        }
    }
}
