//! The receiving side of a connection without sockets: bytes in, commands with their data out.
//!
//! Does not: look into commands, or answer (`session`).
//! Invariants: 1. Data of a write lands in the buffer that was made for it when its R2T was sent,
//! in order, and nowhere else. 2. Memory held is those buffers, which the session admits. 3. On an
//! error the input still starts with the PDU that caused it.

use bytes::{Buf, Bytes, BytesMut};
use lsvd_buf::AlignedBuf;

use crate::io::Work;
use crate::limits::{ADMIN_IN_CAPSULE_MAX, DIRECT_RECEIVE_MIN, H2C_DATA_MAX};
use crate::wire::pdu::{
    Alignment, CapsuleCommand, DIGEST_BYTES, DataPdu, IcReq, PduRules, TermReq, digest,
};
use crate::wire::{Digests, Direction, PduFrame, PduKind, Sqe, TermError};

/// What the peer sent, next.
#[derive(Debug)]
pub(crate) enum Incoming {
    IcReq(IcReq),
    /// A command with its in-capsule data. `is_intact`: the data digest, if any, was right.
    Command {
        sqe: Sqe,
        data: Bytes,
        is_intact: bool,
    },
    /// A command whose data was asked for and is all there.
    Data {
        work: Work,
        data: Bytes,
        is_intact: bool,
    },
    /// H2CTermReq, with its fatal error status; 0, which is reserved, if it was malformed.
    Terminated(u16),
}

/// Decoder of one connection.
#[derive(Debug)]
pub(crate) struct Receiver {
    rules: PduRules,
    state: State,
    /// By transfer tag.
    transfers: Vec<Option<Transfer>>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Header,
    /// In-capsule data, to be sliced out of the receive buffer when it is all there.
    Capsule {
        sqe: Sqe,
        len: usize,
        has_digest: bool,
    },
    /// Data of a transfer.
    Data {
        ttag: u16,
        left: usize,
        len: usize,
        has_digest: bool,
    },
}

/// A write for which an R2T is out.
#[derive(Debug)]
struct Transfer {
    work: Work,
    data: AlignedBuf,
    /// Bytes to come in all.
    len: usize,
    is_intact: bool,
}

const HEADER: PduRules = PduRules {
    from: Direction::HostToController,
    connected: false,
    digests: Digests { header: false, data: false },
    alignment: match Alignment::from_field(0) {
        Some(alignment) => alignment,
        None => panic!("0 is an alignment"),
    },
    capsule_data_max: ADMIN_IN_CAPSULE_MAX,
    data_max: H2C_DATA_MAX,
};

/// Offsets of fields in H2CData (TCP section 3.6.2.8).
const AT_FLAGS: u32 = 1;
const AT_CCCID: u32 = 8;
const AT_TTAG: u32 = 10;
const AT_DATAO: u32 = 12;
const AT_DATAL: u32 = 16;

impl Receiver {
    pub(crate) fn new() -> Self {
        Self { rules: HEADER, state: State::Header, transfers: Vec::new() }
    }

    /// ICReq was answered with these digests.
    pub(crate) fn connected(&mut self, digests: Digests) {
        self.rules.connected = true;
        self.rules.digests = digests;
    }

    /// In-capsule data of up to this many bytes comes from now on.
    pub(crate) fn set_capsule_data_max(&mut self, bytes: u32) {
        self.rules.capsule_data_max = bytes;
    }

    /// Whether the stream is between two PDUs, as far as it has been consumed.
    pub(crate) fn is_between_pdus(&self) -> bool {
        matches!(self.state, State::Header)
    }

    /// Makes ready for the data of a write; the result is the transfer tag for its R2T.
    pub(crate) fn expect(&mut self, work: Work, data: AlignedBuf, len: u32) -> u16 {
        let transfer = Some(Transfer { work, data, len: len as usize, is_intact: true });
        let free = self.transfers.iter().position(Option::is_none);
        let index = free.unwrap_or(self.transfers.len());
        match free {
            Some(index) => self.transfers[index] = transfer,
            None => self.transfers.push(transfer),
        }
        u16::try_from(index).expect("a transfer for each command of a queue at most")
    }

    /// Gives up all transfers; their commands get no answer.
    pub(crate) fn abandon(&mut self) {
        self.transfers.clear();
        self.state = State::Header;
    }

    /// Consumes from `input` until there is something. `None`: more bytes are needed.
    pub(crate) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Incoming>, TermError> {
        loop {
            match self.state {
                State::Header => {
                    let Some(head) = input.first_chunk() else { return Ok(None) };
                    let frame = match self.rules.check(head) {
                        Ok(frame) => frame,
                        // A termination request is never answered with one, however wrong it is:
                        // the connection closes at once (TCP section 3.5).
                        Err(_) if head[0] == PduKind::H2cTermReq as u8 => {
                            return Ok(Some(Incoming::Terminated(0)));
                        }
                        Err(error) => return Err(error),
                    };
                    if input.len() < frame.data_offset() {
                        return Ok(None);
                    }
                    frame.check_header_digest(input)?;
                    if let Some(incoming) = self.begin(&frame, input)? {
                        return Ok(Some(incoming));
                    }
                }
                State::Capsule { sqe, len, has_digest } => {
                    if input.len() < len + digest_len(has_digest) {
                        return Ok(None);
                    }
                    self.state = State::Header;
                    let data = input.split_to(len).freeze();
                    let is_intact = !has_digest || take_digest(input) == digest(&data);
                    return Ok(Some(Incoming::Command { sqe, data, is_intact }));
                }
                State::Data { ttag, left, len, has_digest } => {
                    if !self.collect(ttag, left, input) || input.len() < digest_len(has_digest) {
                        return Ok(None);
                    }
                    self.state = State::Header;
                    if let Some(incoming) = self.received(ttag, len, has_digest, input) {
                        return Ok(Some(incoming));
                    }
                }
            }
        }
    }

    /// What a header brings. `None`: its data comes first.
    fn begin(
        &mut self,
        frame: &PduFrame,
        input: &mut BytesMut,
    ) -> Result<Option<Incoming>, TermError> {
        const HEADER_IS_THERE: &str = "the frame says how long the header is, and it is there";
        let has_digest = frame.has_data_digest();
        let len = frame.data_len() as usize;
        match frame.kind() {
            PduKind::IcReq => {
                let request = IcReq::parse(input.first_chunk().expect(HEADER_IS_THERE))?;
                input.advance(frame.data_offset());
                Ok(Some(Incoming::IcReq(request)))
            }
            PduKind::H2cTermReq => {
                let request = TermReq::parse(input.first_chunk().expect(HEADER_IS_THERE));
                Ok(Some(Incoming::Terminated(request.fes)))
            }
            PduKind::CapsuleCmd => {
                let sqe = CapsuleCommand::parse(input.first_chunk().expect(HEADER_IS_THERE));
                input.advance(frame.data_offset());
                if len == 0 {
                    let data = Bytes::new();
                    return Ok(Some(Incoming::Command { sqe, data, is_intact: true }));
                }
                self.state = State::Capsule { sqe, len, has_digest };
                Ok(None)
            }
            PduKind::H2cData => {
                let header = input.first_chunk().expect(HEADER_IS_THERE);
                let pdu = DataPdu::parse(header, frame)?;
                self.check_transfer(&pdu)?;
                input.advance(frame.data_offset());
                self.state = State::Data { ttag: pdu.ttag, left: len, len, has_digest };
                Ok(None)
            }
            // The rules let only PDUs of hosts pass; these are not among them.
            PduKind::IcResp
            | PduKind::C2hTermReq
            | PduKind::CapsuleResp
            | PduKind::C2hData
            | PduKind::R2t => Err(TermError::field(0)),
        }
    }

    /// H2CData must continue a transfer, stay inside it, and say when it is done (invariant 1).
    fn check_transfer(&self, pdu: &DataPdu) -> Result<(), TermError> {
        let transfer = self.transfers.get(usize::from(pdu.ttag)).and_then(Option::as_ref);
        let transfer = transfer.ok_or(TermError::field(AT_TTAG))?;
        if transfer.work.cid != pdu.cid {
            return Err(TermError::field(AT_CCCID));
        }
        let received = transfer.data.len();
        let end = u64::from(pdu.offset) + u64::from(pdu.len);
        let is_end = end == transfer.len as u64;
        if !pdu.offset.is_multiple_of(4) {
            return Err(TermError::field(AT_DATAO));
        }
        // Data may have any length (SGLS), so that its end is not always that of a dword.
        if !pdu.len.is_multiple_of(4) && !is_end {
            return Err(TermError::field(AT_DATAL));
        }
        if end > transfer.len as u64 {
            return Err(TermError::OUT_OF_RANGE);
        }
        if pdu.offset as usize != received {
            return Err(TermError::SEQUENCE);
        }
        if is_end == pdu.is_last { Ok(()) } else { Err(TermError::field(AT_FLAGS)) }
    }

    fn transfer(&mut self, ttag: u16) -> &mut Transfer {
        let transfer = self.transfers[usize::from(ttag)].as_mut();
        transfer.expect("a transfer stays until its data is complete")
    }

    /// Moves data into its buffer. True if all of the PDU is there.
    fn collect(&mut self, ttag: u16, left: usize, input: &mut BytesMut) -> bool {
        let take = left.min(input.len());
        self.transfer(ttag).data.extend_from_slice(&input[..take]);
        input.advance(take);
        self.data_moved(take);
        take == left
    }

    fn data_moved(&mut self, bytes: usize) {
        if let State::Data { left, .. } = &mut self.state {
            *left -= bytes;
        }
    }

    /// All data of a PDU is there, and its digest.
    fn received(
        &mut self,
        ttag: u16,
        len: usize,
        has_digest: bool,
        input: &mut BytesMut,
    ) -> Option<Incoming> {
        let transfer = self.transfer(ttag);
        let start = transfer.data.len() - len;
        if has_digest && take_digest(input) != digest(&transfer.data[start..]) {
            transfer.is_intact = false;
        }
        if transfer.data.len() < transfer.len {
            return None;
        }
        let Transfer { work, data, is_intact, .. } = self.transfers[usize::from(ttag)].take()?;
        Some(Incoming::Data { work, data: data.freeze(), is_intact })
    }

    /// Where the bytes that come next should go, if that is not the receive buffer, which must be
    /// empty then. What was filled is told to [`payload_arrived`](Self::payload_arrived).
    pub(crate) fn payload_target(&mut self) -> Option<&mut [u8]> {
        match self.state {
            State::Data { ttag, left, .. } if left >= DIRECT_RECEIVE_MIN => {
                Some(&mut self.transfer(ttag).data.spare_mut()[..left])
            }
            _ => None,
        }
    }

    /// The first `bytes` of the payload target were filled.
    pub(crate) fn payload_arrived(&mut self, bytes: usize) {
        if let State::Data { ttag, .. } = self.state {
            self.transfer(ttag).data.advance(bytes);
            self.data_moved(bytes);
        }
    }
}

fn digest_len(has_digest: bool) -> usize {
    if has_digest { DIGEST_BYTES } else { 0 }
}

/// The digest that follows data. The caller knows that it is there.
fn take_digest(input: &mut BytesMut) -> u32 {
    input.get_u32_le()
}
