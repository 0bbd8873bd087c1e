//! Admin commands on an association's admin queue.
//!
//! Does not: keep state; that is the controller's and the target's.
//! Invariants: no answer is longer than `TRANSFER_MAX`, whatever length the host asks for.

mod features;
mod identify;
mod log_page;

use bytes::Bytes;

use crate::limits::TRANSFER_MAX;
use crate::session::{Answer, Member};
use crate::target::{Origin, Target};
use crate::wire::{AdminCommand, DataSource, Sqe, Status};

/// Who asks, and whom.
pub(crate) struct Admin<'a> {
    pub(crate) target: &'a Target,
    pub(crate) member: &'a Member,
    pub(crate) origin: &'a Origin,
}

/// What came of a command.
pub(crate) enum Outcome {
    Answer(Answer),
    /// A held event request is given up: it is answered, too.
    Aborted {
        cid: u16,
        answer: Answer,
    },
    /// An event request, which is answered when there is an event.
    Held,
}

impl Admin<'_> {
    pub(crate) fn execute(&self, sqe: &Sqe, capsule: &Bytes) -> Result<Outcome, Status> {
        let command = AdminCommand::parse(sqe)?;
        let capsule_len = u32::try_from(capsule.len()).unwrap_or(u32::MAX);
        let source = sqe.sgl()?.check(command.data_rule(), capsule_len)?;
        match source {
            DataSource::ToHost { len } if len > TRANSFER_MAX => {
                return Err(Status::INVALID_FIELD.dnr());
            }
            // At most 512 bytes: hosts have room for them in the capsule (TCP figure 11).
            DataSource::FromHost { .. } => return Err(Status::SGL_TYPE_INVALID.dnr()),
            // No command that is served looks at data from the host.
            DataSource::None | DataSource::Capsule { .. } | DataSource::ToHost { .. } => {}
        }
        let controller = &self.member.controller;
        let answer = match command {
            AdminCommand::Identify(identify) => Answer::data(self.identify(&identify)?.to_vec()),
            AdminCommand::GetLogPage(log) => Answer::data(self.log_page(&log)?),
            AdminCommand::GetFeatures(get) => self.get_features(&get)?,
            AdminCommand::SetFeatures(set) => Answer::done(u64::from(self.set_features(&set)?)),
            AdminCommand::KeepAlive => Answer::done(0),
            AdminCommand::AsyncEventRequest => {
                controller.hold_request(sqe.cid.get())?;
                return Ok(Outcome::Held);
            }
            AdminCommand::Abort { sqid: 0, cid } if controller.abort_request(cid) => {
                return Ok(Outcome::Aborted { cid, answer: Answer::done(0) });
            }
            // Bit 0: not aborted. Everything else is done soon, or cannot be taken back.
            AdminCommand::Abort { .. } => Answer::done(1),
        };
        Ok(Outcome::Answer(answer))
    }
}

#[cfg(test)]
mod test;
