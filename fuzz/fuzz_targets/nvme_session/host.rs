//! The host's end of one connection: it makes PDUs, and holds every byte that comes back against
//! what it has sent.

use bytes::BytesMut;
use lsvd_nvmet::wire::pdu::{
    Alignment, CapsuleResponse, DataPdu, IcReq, IcResp, PduRules, PduWriter, R2t, TermReq, digest,
};
use lsvd_nvmet::wire::{Digests, Direction, PduKind, Sqe, Status};

/// Longest header that a mutation reaches, ICReq aside.
const HEADER_BYTES_MAX: usize = 72;

/// A byte of the next PDU to spoil.
#[derive(Clone, Copy)]
pub struct Mutation {
    pub at: u8,
    pub flip: u8,
}

pub struct Host {
    /// The connection may be an admin queue, which holds event requests.
    pub is_admin: bool,
    writer: PduWriter,
    asked: Digests,
    is_connected: bool,
    /// Something was sent that is not what a host sends, so that answers may not fit commands.
    pub is_wild: bool,
    pub mutation: Option<Mutation>,
    /// The fewest commands that the queue may hold, of all queues that were asked for.
    pub holds: u16,
    /// Commands without an answer, by command ID.
    outstanding: [u16; 256],
    /// Those of them that ask for events, and need none.
    events: [u16; 256],
    /// Data that the controller has asked for and not got.
    pub r2ts: Vec<R2t>,
    /// Nothing may come any more.
    is_terminated: bool,
    /// The last command that came to an end, and how.
    pub last: Option<(u16, Status)>,
    /// Result of the last command that came to an end with success, and its data.
    pub result: u64,
    pub data: Vec<u8>,
}

impl Host {
    pub fn new(is_admin: bool, asked: Digests) -> Self {
        Self {
            is_admin,
            writer: PduWriter::default(),
            asked,
            is_connected: false,
            is_wild: false,
            mutation: None,
            holds: u16::MAX,
            outstanding: [0; 256],
            events: [0; 256],
            r2ts: Vec::new(),
            is_terminated: false,
            last: None,
            result: 0,
            data: Vec::new(),
        }
    }

    pub fn ic_req(&mut self, alignment: u8) -> Vec<u8> {
        let alignment = Alignment::from_field(alignment).unwrap_or_default();
        self.is_wild |= self.is_connected;
        IcReq { alignment, digests: self.asked, maxr2t: 0 }.to_bytes().to_vec()
    }

    /// A command capsule. Command IDs are those of one byte.
    pub fn capsule(&mut self, sqe: Sqe, data: &[u8]) -> Vec<u8> {
        const EVENT_REQUEST: u8 = 0x0c;
        let is_event_request = self.is_admin && sqe.opcode == EVENT_REQUEST;
        self.is_wild |= !self.is_connected;
        match usize::from(sqe.cid.get()) {
            cid @ 0..256 if is_event_request => self.events[cid] += 1,
            cid @ 0..256 => self.outstanding[cid] += 1,
            _ => self.is_wild = true,
        }
        let mut pdu = BytesMut::new();
        self.writer.capsule_command(&sqe, data.len() as u32, &mut pdu);
        self.finish(pdu, data)
    }

    pub fn h2c_data(&mut self, header: &DataPdu, data: &[u8]) -> Vec<u8> {
        let mut pdu = BytesMut::new();
        self.writer.data(Direction::HostToController, header, &mut pdu);
        self.finish(pdu, data)
    }

    /// Data and digest behind the header, which is spoiled first if that was asked for.
    fn finish(&mut self, mut pdu: BytesMut, data: &[u8]) -> Vec<u8> {
        if let Some(Mutation { at, flip }) = self.mutation.take() {
            self.is_wild = true;
            let len = usize::from(pdu[2]).min(HEADER_BYTES_MAX);
            pdu[usize::from(at) % len] ^= flip;
            if self.writer.digests.header {
                // A wrong digest would hide what is wrong; it has the high bit of `at` to itself.
                let right = digest(&pdu[..len]).to_le_bytes();
                if at & 0x80 == 0 {
                    pdu[len..len + 4].copy_from_slice(&right);
                }
            }
        }
        let mut pdu = pdu.to_vec();
        pdu.extend_from_slice(data);
        if self.writer.digests.data && !data.is_empty() {
            pdu.extend_from_slice(&digest(data).to_le_bytes());
        }
        pdu
    }

    /// Takes everything that the controller has sent.
    pub fn receive(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            assert!(!self.is_terminated, "sent after a termination");
            let rules = PduRules {
                from: Direction::ControllerToHost,
                connected: self.is_connected,
                digests: self.writer.digests,
                alignment: self.writer.alignment,
                capsule_data_max: 0,
                data_max: u32::MAX,
            };
            let frame = rules.check(chunk(bytes)).expect("a PDU of a controller");
            frame.check_header_digest(bytes).expect("the digest of its header");
            let data = &bytes[frame.data_offset()..][..frame.data_len() as usize];
            if frame.has_data_digest() {
                let found = &bytes[frame.data_offset() + data.len()..][..4];
                assert_eq!(found, digest(data).to_le_bytes(), "digest of its data");
            }
            match frame.kind() {
                PduKind::IcResp => {
                    let response = IcResp::parse(chunk(bytes)).expect("ICResp");
                    assert_eq!(response.digests, self.asked);
                    self.is_connected = true;
                    self.writer.digests = response.digests;
                }
                PduKind::CapsuleResp => {
                    let cqe = CapsuleResponse::parse(chunk(bytes));
                    self.answered(cqe.cid.get());
                    self.last = Some((cqe.cid.get(), cqe.status()));
                    if cqe.status().is_success() {
                        self.result = cqe.result.get();
                    }
                }
                PduKind::C2hData => {
                    let pdu = DataPdu::parse(chunk(bytes), &frame).expect("C2HData");
                    assert!(pdu.is_last && pdu.offset == 0, "data comes in one piece");
                    self.data = data.to_vec();
                    if pdu.is_success {
                        self.answered(pdu.cid);
                        self.last = Some((pdu.cid, Status::SUCCESS));
                    }
                }
                PduKind::R2t => {
                    let r2t = R2t::parse(chunk(bytes)).expect("R2T");
                    assert_eq!(r2t.offset, 0, "data is asked for at once");
                    assert!(self.r2ts.iter().all(|other| other.ttag != r2t.ttag) || self.is_wild);
                    self.r2ts.push(r2t);
                }
                PduKind::C2hTermReq => {
                    let term = TermReq::parse(chunk(bytes));
                    assert!((1..=6).contains(&term.fes));
                    assert!(self.is_wild || self.has_many(), "no reason for a termination");
                    self.is_terminated = true;
                }
                kind => panic!("{kind:?} from a controller"),
            }
            bytes = &bytes[frame.len()..];
        }
    }

    fn answered(&mut self, cid: u16) {
        let cid = usize::from(cid);
        match (self.outstanding.get_mut(cid), self.events.get_mut(cid)) {
            (Some(count @ 1..), _) | (_, Some(count @ 1..)) => *count -= 1,
            _ => assert!(self.is_wild, "an answer to no command"),
        }
    }

    /// Whether more commands are under way than the queue holds.
    fn has_many(&self) -> bool {
        self.outstanding.iter().sum::<u16>() > self.holds
    }

    /// Whether another command with this ID would be refused.
    pub fn has_outstanding(&self, cid: u16) -> bool {
        let cid = usize::from(cid);
        self.outstanding[cid] > 0 || self.events[cid] > 0
    }

    /// Whether no command waits for data of this host. Then all have their answer, except those that
    /// wait for an event.
    pub fn check_all_answered(&self) -> bool {
        let is_idle = !self.is_wild && self.r2ts.is_empty();
        let is_answered = self.outstanding.iter().all(|&count| count == 0);
        assert!(!is_idle || is_answered, "no answer to a command");
        is_idle
    }
}

fn chunk<const N: usize>(bytes: &[u8]) -> &[u8; N] {
    bytes.first_chunk().expect("a whole header")
}
