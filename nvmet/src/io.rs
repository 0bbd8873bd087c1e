//! I/O commands: checked against their namespace, begun, and concluded.
//!
//! Does not: move data (`session`, `receive`).
//! Invariants: 1. Every range that reaches a namespace is inside it as it was at the check, not
//! empty, and a write is as long as its data. 2. A command on a namespace that is not ready or
//! does not take changes never reaches it.

use std::sync::Arc;

use bytes::Bytes;

use crate::limits::TRANSFER_MAX;
use crate::namespace::{ByteRange, Failure, NamespaceInfo, Outcome};
use crate::operations::Operation;
use crate::session::Answer;
use crate::target::subsystem::{Attached, NamespaceTable};
use crate::wire::command::{Blocks, IoOperation, ranges};
use crate::wire::{DataSource, IoCommand, Sqe, Status};

/// A checked command.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) cid: u16,
    pub(crate) attached: Arc<Attached>,
    /// Payload that it holds while it is in flight, in bytes; in-capsule data is not counted.
    pub(crate) charge: usize,
    /// Bytes to ask the host for before it can start.
    pub(crate) awaits: Option<u32>,
    lba_shift: u8,
    action: Action,
}

/// What to do. Offsets and lengths in bytes.
#[derive(Debug)]
enum Action {
    Read {
        offset: u64,
        len: u32,
        fua: bool,
    },
    Write {
        offset: u64,
        len: u32,
        fua: bool,
    },
    Compare {
        offset: u64,
        len: u32,
        fua: bool,
        expected: Bytes,
    },
    Verify {
        offset: u64,
        len: u32,
        fua: bool,
    },
    WriteZeroes {
        range: ByteRange,
        deallocate: bool,
        fua: bool,
    },
    Deallocate {
        count: u16,
    },
    Flush,
    /// A hint that nobody takes.
    Nothing,
}

/// A command that was begun.
pub(crate) enum Started {
    Done(Work, Result<Bytes, Failure>),
    Pending(Work, Operation),
}

impl Work {
    /// Checks a command of an I/O queue; with it comes its data, if that is in the capsule.
    pub(crate) fn parse(
        sqe: &Sqe,
        capsule: Bytes,
        table: &NamespaceTable,
    ) -> Result<(Self, Option<Bytes>), Status> {
        let IoCommand { nsid, operation } = IoCommand::parse(sqe)?;
        if let IoOperation::Reservation(_) = operation {
            return Err(Status::INVALID_OPCODE.dnr());
        }
        let attached = table.entries.get(&nsid).ok_or(Status::INVALID_NAMESPACE.dnr())?;
        let info = attached.namespace.info();
        if !info.is_ready {
            return Err(Status::NAMESPACE_NOT_READY);
        }
        let lba_shift = info.lba_size.shift();
        let action = Action::check(&operation, &info)?;
        let capsule_len = u32::try_from(capsule.len()).unwrap_or(u32::MAX);
        let source = sqe.sgl()?.check(operation.data_rule(lba_shift), capsule_len)?;
        let cid = sqe.cid.get();
        let attached = Arc::clone(attached);
        let (charge, awaits, data) = match source {
            DataSource::None => (action.charge(), None, None),
            DataSource::Capsule { offset, len } => {
                let (start, end) = (offset as usize, offset as usize + len as usize);
                (action.charge(), None, Some(capsule.slice(start..end)))
            }
            DataSource::FromHost { len } => (len as usize + action.charge(), Some(len), None),
            DataSource::ToHost { len } => (len as usize, None, None),
        };
        Ok((Self { cid, attached, charge, awaits, lba_shift, action }, data))
    }

    /// First logical block, for the error log; 0 for commands that have none.
    pub(crate) fn lba(&self) -> u64 {
        let offset = match self.action {
            Action::Read { offset, .. }
            | Action::Write { offset, .. }
            | Action::Compare { offset, .. }
            | Action::Verify { offset, .. } => offset,
            Action::WriteZeroes { range, .. } => range.offset,
            Action::Deallocate { .. } | Action::Flush | Action::Nothing => 0,
        };
        offset >> self.lba_shift
    }

    /// Begins the command. `data` is all that it wants from the host.
    pub(crate) fn start(mut self, data: Bytes) -> Started {
        let namespace = &self.attached.namespace;
        let outcome = match &mut self.action {
            Action::Read { offset, len, fua } | Action::Verify { offset, len, fua } => {
                let outcome = read(&self.attached, *offset, *len, *fua);
                return self.reading(outcome);
            }
            Action::Compare { offset, len, fua, expected } => {
                *expected = data;
                let outcome = read(&self.attached, *offset, *len, *fua);
                return self.reading(outcome);
            }
            Action::Write { offset, fua, .. } => namespace.write(*offset, data, *fua),
            Action::WriteZeroes { range, deallocate, fua } => {
                namespace.write_zeroes(*range, *deallocate, *fua)
            }
            Action::Deallocate { count } => match byte_ranges(&data, *count, &namespace.info()) {
                Ok(ranges) if ranges.is_empty() => Outcome::Ready(Ok(())),
                Ok(ranges) => namespace.deallocate(ranges),
                Err(failure) => Outcome::Ready(Err(failure)),
            },
            Action::Flush => namespace.flush(),
            Action::Nothing => Outcome::Ready(Ok(())),
        };
        match outcome {
            Outcome::Ready(result) => Started::Done(self, result.map(|()| Bytes::new())),
            Outcome::Pending(future) => Started::Pending(self, Operation::Done(future)),
        }
    }

    fn reading(self, outcome: Outcome<Bytes>) -> Started {
        match outcome {
            Outcome::Ready(result) => Started::Done(self, result),
            Outcome::Pending(future) => Started::Pending(self, Operation::Data(future)),
        }
    }

    /// What the host is told.
    pub(crate) fn conclude(&self, result: Result<Bytes, Failure>) -> Answer {
        let counters = &self.attached.counters;
        match (&self.action, result) {
            (Action::Read { len, .. }, Ok(data)) if data.len() == *len as usize => {
                counters.count_read(u64::from(*len));
                Answer::data(data)
            }
            // Hosts do not notice missing bytes, so they must never be sent.
            (Action::Read { .. }, Ok(_)) => Answer::failed(Status::INTERNAL_ERROR),
            (Action::Compare { len, expected, .. }, Ok(data)) => {
                counters.count_read(u64::from(*len));
                if data == *expected {
                    Answer::done(0)
                } else {
                    Answer::failed(Status::COMPARE_FAILURE.dnr())
                }
            }
            (Action::Write { len, .. }, Ok(_)) => {
                counters.count_write(u64::from(*len));
                Answer::done(0)
            }
            (_, Ok(_)) => {
                counters.count_other();
                Answer::done(0)
            }
            (action, Err(failure)) => {
                let reading = matches!(
                    action,
                    Action::Read { .. } | Action::Compare { .. } | Action::Verify { .. }
                );
                Answer::failed(failure.status(reading))
            }
        }
    }
}

impl Action {
    /// The checks behind both invariants.
    fn check(operation: &IoOperation, info: &NamespaceInfo) -> Result<Self, Status> {
        let range = match operation.blocks() {
            Some(blocks) => {
                let range = byte_range(blocks, info).map_err(|failure| failure.status(false))?;
                range.ok_or(Status::INVALID_FIELD.dnr())?
            }
            None => ByteRange { offset: 0, len: 0 },
        };
        let offset = range.offset;
        // Verify reads as well and has the same limit (VSL).
        let transfer = || match u32::try_from(range.len) {
            Ok(len) if len <= TRANSFER_MAX => Ok(len),
            _ => Err(Status::INVALID_FIELD.dnr()),
        };
        let writable = || match info.read_only {
            true => Err(Status::NAMESPACE_WRITE_PROTECTED.dnr()),
            false => Ok(()),
        };
        Ok(match *operation {
            IoOperation::Read { fua, .. } => Self::Read { offset, len: transfer()?, fua },
            IoOperation::Verify { fua, .. } => Self::Verify { offset, len: transfer()?, fua },
            IoOperation::Compare { fua, .. } => {
                Self::Compare { offset, len: transfer()?, fua, expected: Bytes::new() }
            }
            IoOperation::Write { fua, .. } => {
                writable()?;
                Self::Write { offset, len: transfer()?, fua }
            }
            IoOperation::WriteZeroes { deallocate, fua, .. } => {
                writable()?;
                Self::WriteZeroes { range, deallocate, fua }
            }
            IoOperation::DatasetManagement { ranges, deallocate: true } => {
                writable()?;
                Self::Deallocate { count: ranges }
            }
            IoOperation::DatasetManagement { deallocate: false, .. } => Self::Nothing,
            IoOperation::Flush => Self::Flush,
            IoOperation::Reservation(_) => return Err(Status::INVALID_OPCODE.dnr()),
        })
    }

    /// Memory of what is read and does not go over the wire.
    fn charge(&self) -> usize {
        match self {
            Self::Verify { len, .. } | Self::Compare { len, .. } => *len as usize,
            _ => 0,
        }
    }
}

/// Reads, with `fua` only what is durable (NVM section 3.2.4): the range is made so first.
fn read(attached: &Arc<Attached>, offset: u64, len: u32, fua: bool) -> Outcome<Bytes> {
    if !fua {
        return attached.namespace.read(offset, len);
    }
    let attached = Arc::clone(attached);
    Outcome::Pending(Box::pin(async move {
        settled(attached.namespace.flush()).await?;
        settled(attached.namespace.read(offset, len)).await
    }))
}

async fn settled<T>(outcome: Outcome<T>) -> Result<T, Failure> {
    match outcome {
        Outcome::Ready(result) => result,
        Outcome::Pending(future) => future.await,
    }
}

/// The bytes of `blocks`, `None` if there are none.
fn byte_range(blocks: Blocks, info: &NamespaceInfo) -> Result<Option<ByteRange>, Failure> {
    match blocks.end() {
        Some(end) if end <= info.blocks => {}
        _ => return Err(Failure::OutOfRange),
    }
    let shift = info.lba_size.shift();
    let range = ByteRange { offset: blocks.start << shift, len: u64::from(blocks.count) << shift };
    Ok((blocks.count > 0).then_some(range))
}

/// All ranges of a Dataset Management command, or none of them is touched.
fn byte_ranges(data: &[u8], count: u16, info: &NamespaceInfo) -> Result<Vec<ByteRange>, Failure> {
    ranges(data, count).filter_map(|blocks| byte_range(blocks, info).transpose()).collect()
}

#[cfg(test)]
impl Work {
    /// A flush of some namespace.
    pub(crate) fn flush(cid: u16) -> Self {
        let (target, _) = crate::testing::target();
        let attached = target.attached(crate::testing::NQN, 1);
        Self { cid, attached, charge: 0, awaits: None, lba_shift: 9, action: Action::Flush }
    }
}
