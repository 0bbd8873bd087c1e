//! Fabrics commands: how a connection gets its queue, and the properties of its controller.

use std::sync::Arc;

use super::{Answer, Session};
use crate::controller::{Controller, ControllerState, QueueRecord};
use crate::doorbell::Doorbell;
use crate::driver::Ended;
use crate::limits::{ADMIN_QUEUE_DEPTH_MIN, READY_TIMEOUT_500MS};
use crate::target::subsystem::{Refusal, Subsystem};
use crate::target::{Lookup, QueueCount};
use crate::wire::command::{Connect, ConnectData, ConnectError};
use crate::wire::property::{
    Capabilities, Configuration, ControllerStatus, Property, ReadyTimeouts, Shutdown,
    ShutdownStatus, VERSION_2_0,
};
use crate::wire::{DataSource, FabricsCommand, Sqe, Status};

/// A connection's place in an association. Dropping it gives the queue back; with the admin queue
/// goes the association.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) subsystem: Arc<Subsystem>,
    pub(crate) controller: Arc<Controller>,
    pub(crate) qid: u16,
    /// Entries of the queue.
    pub(super) depth: u16,
    /// The host looks at the SQ head pointer.
    pub(super) has_flow_control: bool,
    pub(super) doorbell: Arc<Doorbell>,
    /// Its share of the target's memory is counted by it.
    _count: QueueCount,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.controller.detach(self.qid, &self.doorbell);
        if self.qid == 0 {
            self.subsystem.forget(&self.controller);
        }
    }
}

/// SQ head pointer of the completion of a Connect that asked for no flow control: it is granted.
const HEAD_WITHOUT_FLOW_CONTROL: u16 = u16::MAX;

/// A Connect command that fails, with the offset of what is wrong.
fn refused(error: ConnectError) -> Answer {
    Answer { result: u64::from(error.dw0()), ..Answer::failed(error.status()) }
}

impl Session {
    pub(super) fn fabrics(
        &mut self,
        command: &FabricsCommand,
        sqe: &Sqe,
        data: &[u8],
    ) -> Result<Answer, Status> {
        let source = sqe.sgl()?.check(command.data_rule(), capsule_bytes(data))?;
        match *command {
            FabricsCommand::Connect(ref connect) => {
                let DataSource::Capsule { offset, len } = source else {
                    // All hosts send it in the capsule; asking for it would be a state of its own.
                    return Err(Status::SGL_TYPE_INVALID.dnr());
                };
                let data = &data[offset as usize..][..len as usize];
                let data = data.first_chunk().ok_or(Status::SGL_DATA_LENGTH_INVALID.dnr())?;
                self.connect(connect, data)
            }
            FabricsCommand::PropertyGet(property) => self.property(property).map(Answer::done),
            FabricsCommand::PropertySet { property, value } => {
                self.set_property(property, value)?;
                Ok(Answer::done(0))
            }
            FabricsCommand::Disconnect => {
                let member = self.member.as_ref();
                let member = member.ok_or(Status::COMMAND_SEQUENCE_ERROR.dnr())?;
                // Only an I/O queue can be disconnected (base 2.0, section 6.4).
                if member.qid == 0 {
                    return Err(Status::INVALID_QUEUE_TYPE.dnr());
                }
                self.close(Ok(Ended::Disconnected));
                Ok(Answer::done(0))
            }
        }
    }

    fn connect(
        &mut self,
        connect: &Connect,
        data: &[u8; ConnectData::BYTES],
    ) -> Result<Answer, Status> {
        if self.member.is_some() {
            return Err(Status::COMMAND_SEQUENCE_ERROR.dnr());
        }
        let data = match ConnectData::parse(data) {
            Ok(data) => data,
            Err(error) => return Ok(refused(error)),
        };
        let depth_max = match connect.qid {
            // Hosts rely on 32 entries, whatever I/O queues have.
            0 => self.target.options.queue_depth.max(ADMIN_QUEUE_DEPTH_MIN),
            _ => self.target.options.queue_depth,
        };
        if connect.sqsize == 0 || connect.sqsize >= depth_max {
            return Ok(refused(ConnectError::SQSIZE));
        }
        let subsystem = match self.target.look_up(data.subsystem.as_str()) {
            Lookup::Found(subsystem) => subsystem,
            Lookup::Unknown => return Ok(refused(ConnectError::SUBNQN)),
            Lookup::Busy => return Err(Status::CONNECT_CONTROLLER_BUSY),
        };
        let controller = if connect.qid == 0 {
            if data.cntlid != ConnectData::ANY_CONTROLLER {
                return Ok(refused(ConnectError::CNTLID));
            }
            let made = subsystem.admit(data.host.as_str(), &self.origin, |cntlid, path| {
                let host = data.host.as_str().to_owned();
                let host_id = data.host_id.into_bytes();
                Controller::new(cntlid, host, host_id, self.origin, connect.kato_ms, path)
            });
            match made {
                Ok(controller) => controller,
                Err(Refusal::Host) => return Err(Status::CONNECT_INVALID_HOST.dnr()),
                Err(Refusal::Listener) => return Ok(refused(ConnectError::SUBNQN)),
                Err(Refusal::Full) => return Err(Status::CONNECT_CONTROLLER_BUSY),
            }
        } else {
            let Some(controller) = subsystem.controller(data.cntlid) else {
                return Ok(refused(ConnectError::CNTLID));
            };
            if controller.host_nqn != data.host.as_str() {
                return Ok(refused(ConnectError::HOSTNQN));
            }
            if controller.host_id != data.host_id.into_bytes() {
                return Ok(refused(ConnectError::HOST_ID));
            }
            if subsystem.is_discovery {
                return Ok(refused(ConnectError::QID));
            }
            controller
        };
        self.join(connect, subsystem, controller)
    }

    fn join(
        &mut self,
        connect: &Connect,
        subsystem: Arc<Subsystem>,
        controller: Arc<Controller>,
    ) -> Result<Answer, Status> {
        let doorbell = Arc::new(Doorbell::default());
        let depth = connect.sqsize + 1;
        let record = QueueRecord { depth, origin: self.origin, doorbell: Arc::clone(&doorbell) };
        controller.attach(connect.qid, record)?;
        let cntlid = controller.cntlid;
        if connect.qid > 0 {
            self.receiver.set_capsule_data_max(self.target.options.in_capsule_bytes);
        }
        subsystem.refresh(&mut self.table);
        self.head = if connect.without_flow_control { HEAD_WITHOUT_FLOW_CONTROL } else { 0 };
        self.member = Some(Member {
            subsystem,
            controller,
            qid: connect.qid,
            depth,
            has_flow_control: !connect.without_flow_control,
            doorbell,
            _count: self.target.count_queue(),
        });
        Ok(Answer::done(u64::from(cntlid)))
    }

    /// The admin queue's controller; properties belong to no other queue.
    fn administered(&self) -> Result<&Controller, Status> {
        match &self.member {
            Some(member) if member.qid == 0 => Ok(&member.controller),
            Some(_) => Err(Status::INVALID_FIELD.dnr()),
            None => Err(Status::COMMAND_SEQUENCE_ERROR.dnr()),
        }
    }

    fn property(&self, property: Property) -> Result<u64, Status> {
        let controller = self.administered()?;
        let queue_entries_max = u32::from(self.target.options.queue_depth);
        Ok(match property {
            Property::Capabilities => Capabilities {
                queue_entries_max,
                timeout_500ms: READY_TIMEOUT_500MS,
                command_sets: false,
                ready_modes: 1,
            }
            .to_field(),
            Property::Version => u64::from(VERSION_2_0),
            Property::Configuration => u64::from(controller.configuration()),
            Property::Status => {
                let status = controller.status();
                let is_down = status.is_shut_down;
                let shutdown =
                    if is_down { ShutdownStatus::Complete } else { ShutdownStatus::None };
                let ControllerState { is_ready, is_fatal, .. } = status;
                u64::from(ControllerStatus { is_ready, is_fatal, shutdown }.to_field())
            }
            Property::ReadyTimeouts => {
                let with_media = u16::from(READY_TIMEOUT_500MS);
                u64::from(ReadyTimeouts { with_media, independent_of_media: 0 }.to_field())
            }
            Property::SubsystemReset => return Err(Status::INVALID_FIELD.dnr()),
        })
    }

    fn set_property(&self, property: Property, value: u64) -> Result<(), Status> {
        let controller = self.administered()?;
        let (Property::Configuration, Ok(raw)) = (property, u32::try_from(value)) else {
            return Err(Status::INVALID_FIELD.dnr());
        };
        let wanted = Configuration(raw);
        let has_sizes = |submission, completion| {
            wanted.submission_entry_log2() == submission
                && wanted.completion_entry_log2() == completion
        };
        // A discovery controller has no I/O queues, whose entry sizes hosts may then leave at 0.
        let is_supported = wanted.command_set() == Configuration::CSS_NVM
            && wanted.page_size() == 0
            && wanted.arbitration() == 0
            && (has_sizes(6, 4) || has_sizes(0, 0));
        controller.configure(crate::controller::Configuration {
            raw,
            is_enabled: wanted.is_enabled(),
            is_shutdown: wanted.shutdown() != Shutdown::None,
            is_supported,
        })
    }
}

/// In-capsule data is at most 64 KiB.
fn capsule_bytes(data: &[u8]) -> u32 {
    u32::try_from(data.len()).unwrap_or(u32::MAX)
}
