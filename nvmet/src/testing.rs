//! A host for tests: makes the bytes that hosts send, and takes apart what they receive.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use crate::session::loopback::Loopback;
use crate::wire::command::{Connect, ConnectData, IoOperation};
use crate::wire::pdu::{
    Alignment, CapsuleResponse, DataPdu, IC_BYTES, IcReq, PduRules, PduWriter, R2t, TermReq, digest,
};
use crate::wire::property::Property;
use crate::wire::sgl::Sgl;
use crate::wire::{
    AdminCommand, Cqe, Digests, Direction, FabricsCommand, IoCommand, PduKind, Sqe, Status,
};
use crate::{
    LbaSize, Listener, NamespaceOptions, Origin, RamNamespace, SubsystemConfig, Target,
    TargetOptions,
};

pub(crate) const NQN: &str = "nqn.2019-05.io.lsvd:cnode1";
pub(crate) const HOST: &str =
    "nqn.2014-08.org.nvmexpress:uuid:aaaaaaaa-0000-4000-8000-000000000001";

pub(crate) fn origin() -> Origin {
    let listener: SocketAddr = "127.0.0.1:4420".parse().unwrap();
    Origin { listener, local: listener, peer: "127.0.0.1:50000".parse().unwrap() }
}

/// A target with one subsystem and a namespace of 1024 blocks of 512 bytes.
pub(crate) fn target() -> (Arc<Target>, Arc<RamNamespace>) {
    target_with(false)
}

pub(crate) fn target_with(ana_reporting: bool) -> (Arc<Target>, Arc<RamNamespace>) {
    let target = Target::new(TargetOptions::new("nqn.2019-05.io.lsvd:discovery")).unwrap();
    let namespace = Arc::new(RamNamespace::new(Uuid::from_u128(0x1234), LbaSize::B512, 8192));
    target
        .add_subsystem(SubsystemConfig {
            nqn: NQN.to_owned(),
            serial: "SPDK_000001".to_owned(),
            model: "LSVD NVMe controller".to_owned(),
            allow_any_host: true,
            namespaces_max: 32,
            ana_reporting,
        })
        .unwrap();
    let listener = Listener { address: origin().listener, advertised: None };
    target.add_listener(NQN, listener).unwrap();
    target.add_namespace(NQN, Arc::clone(&namespace) as _, NamespaceOptions::default()).unwrap();
    (Arc::new(target), namespace)
}

/// The bytes that a host sends.
#[derive(Debug, Default)]
pub(crate) struct Script {
    writer: PduWriter,
    pub(crate) bytes: BytesMut,
}

impl Script {
    /// Starts with ICReq.
    pub(crate) fn new(digests: Digests) -> Self {
        let request = IcReq { alignment: Alignment::default(), digests, maxr2t: 0 };
        let bytes = BytesMut::from(&request.to_bytes()[..]);
        Self { writer: PduWriter { digests, alignment: Alignment::default() }, bytes }
    }

    /// A capsule with data in it, or without.
    pub(crate) fn capsule(&mut self, sqe: Sqe, data: &[u8]) -> &mut Self {
        let len = u32::try_from(data.len()).unwrap();
        self.writer.capsule_command(&sqe, len, &mut self.bytes);
        self.data(data)
    }

    fn data(&mut self, data: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(data);
        if self.writer.digests.data && !data.is_empty() {
            self.bytes.extend_from_slice(&digest(data).to_le_bytes());
        }
        self
    }

    pub(crate) fn h2c_data(&mut self, pdu: &DataPdu, data: &[u8]) -> &mut Self {
        self.writer.data(Direction::HostToController, pdu, &mut self.bytes);
        self.data(data)
    }

    pub(crate) fn connect(&mut self, qid: u16, sqsize: u16, cntlid: u16) -> &mut Self {
        self.connect_to(NQN, HOST, qid, sqsize, cntlid)
    }

    pub(crate) fn connect_to(
        &mut self,
        nqn: &str,
        host: &str,
        qid: u16,
        sqsize: u16,
        cntlid: u16,
    ) -> &mut Self {
        let connect = Connect { qid, sqsize, without_flow_control: false, kato_ms: 0 };
        let data = ConnectData {
            host_id: Uuid::from_u128(7),
            cntlid,
            subsystem: nqn.parse().unwrap(),
            host: host.parse().unwrap(),
        };
        let sgl = Sgl::Capsule { offset: 0, len: ConnectData::BYTES as u32 };
        let sqe = FabricsCommand::Connect(connect).to_sqe(0).with_sgl(sgl);
        self.capsule(sqe, &data.to_bytes())
    }

    pub(crate) fn enable(&mut self) -> &mut Self {
        let property = Property::Configuration;
        let set = FabricsCommand::PropertySet { property, value: 0x46_0001 };
        self.capsule(set.to_sqe(1), &[])
    }

    pub(crate) fn admin(&mut self, cid: u16, command: AdminCommand, to_host: u32) -> &mut Self {
        self.capsule(command.to_sqe(cid).with_sgl(Sgl::Transport { len: to_host }), &[])
    }

    /// A command without data from the host.
    pub(crate) fn io(&mut self, cid: u16, operation: IoOperation, to_host: u32) -> &mut Self {
        let command = IoCommand { nsid: 1, operation };
        self.capsule(command.to_sqe(cid).with_sgl(Sgl::Transport { len: to_host }), &[])
    }

    /// A command with its data in the capsule.
    pub(crate) fn io_with(&mut self, cid: u16, operation: IoOperation, data: &[u8]) -> &mut Self {
        let sgl = Sgl::Capsule { offset: 0, len: u32::try_from(data.len()).unwrap() };
        let command = IoCommand { nsid: 1, operation };
        self.capsule(command.to_sqe(cid).with_sgl(sgl), data)
    }

    pub(crate) fn take(&mut self) -> BytesMut {
        self.bytes.split()
    }
}

/// What a host receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    IcResp,
    Done(Cqe),
    Data(DataPdu, Vec<u8>),
    R2t(R2t),
    Term(TermReq),
}

impl Reply {
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::Done(cqe) => cqe.status(),
            other => panic!("{other:?} has no status"),
        }
    }

    pub(crate) fn result(&self) -> u64 {
        match self {
            Self::Done(cqe) if cqe.status() == Status::SUCCESS => cqe.result.get(),
            other => panic!("{other:?} has no result"),
        }
    }
}

/// Takes `bytes` apart; digests are checked.
pub(crate) fn replies(mut bytes: &[u8], digests: Digests, mut connected: bool) -> Vec<Reply> {
    let mut replies = Vec::new();
    while !bytes.is_empty() {
        let rules = PduRules {
            from: Direction::ControllerToHost,
            connected,
            digests: if connected { digests } else { Digests::default() },
            alignment: Alignment::default(),
            capsule_data_max: 0,
            data_max: u32::MAX,
        };
        let frame = rules.check(bytes.first_chunk().unwrap()).unwrap();
        frame.check_header_digest(bytes).unwrap();
        let data = &bytes[frame.data_offset()..][..frame.data_len() as usize];
        if frame.has_data_digest() {
            let found = &bytes[frame.data_offset() + data.len()..][..4];
            assert_eq!(found, digest(data).to_le_bytes(), "data digest");
        }
        replies.push(match frame.kind() {
            PduKind::IcResp => {
                assert_eq!(frame.len(), IC_BYTES);
                connected = true;
                Reply::IcResp
            }
            PduKind::CapsuleResp => {
                Reply::Done(CapsuleResponse::parse(bytes.first_chunk().unwrap()))
            }
            PduKind::C2hData => {
                let pdu = DataPdu::parse(bytes.first_chunk().unwrap(), &frame).unwrap();
                Reply::Data(pdu, data.to_vec())
            }
            PduKind::R2t => Reply::R2t(R2t::parse(bytes.first_chunk().unwrap()).unwrap()),
            PduKind::C2hTermReq => Reply::Term(TermReq::parse(bytes.first_chunk().unwrap())),
            other => panic!("{other:?} from a controller"),
        });
        bytes = &bytes[frame.len()..];
    }
    replies
}

/// A session with its host's end of the wire.
pub(crate) struct Wire {
    pub(crate) link: Loopback,
    digests: Digests,
    connected: bool,
}

impl Wire {
    pub(crate) fn new(target: &Arc<Target>, digests: Digests) -> Self {
        let link = Loopback::new(Arc::clone(target), origin());
        Self { link, digests, connected: false }
    }

    /// What the session sends once it has seen `bytes`.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut sent = self.link.deliver(bytes);
        sent.extend(self.link.collect());
        sent
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Vec<Reply> {
        let sent = self.send_raw(bytes);
        let replies = replies(&sent, self.digests, self.connected);
        self.connected |= replies.contains(&Reply::IcResp);
        replies
    }

    pub(crate) fn events(&mut self) -> Vec<Reply> {
        let sent = self.link.collect();
        replies(&sent, self.digests, self.connected)
    }
}

/// An association with an admin queue and one I/O queue.
pub(crate) struct Association {
    pub(crate) admin: Wire,
    pub(crate) io: Wire,
    pub(crate) script: Script,
}

impl Association {
    pub(crate) fn new(target: &Arc<Target>, digests: Digests) -> Self {
        let (admin, cntlid) = connect_admin(target, digests);
        let mut io = Wire::new(target, digests);
        let mut script = Script::new(digests);
        let replies = io.send(&script.connect(1, 127, cntlid).take());
        assert_eq!(replies[1].result(), u64::from(cntlid));
        Self { admin, io, script }
    }

    /// The host's data for an R2T.
    pub(crate) fn answer(&mut self, r2t: &R2t, data: &[u8]) -> Vec<Reply> {
        let pdu = DataPdu {
            cid: r2t.cid,
            ttag: r2t.ttag,
            offset: r2t.offset,
            len: r2t.len,
            is_last: true,
            is_success: false,
        };
        let bytes = self.script.h2c_data(&pdu, data).take();
        self.io.send(&bytes)
    }
}

/// An enabled controller, and its ID.
pub(crate) fn connect_admin(target: &Arc<Target>, digests: Digests) -> (Wire, u16) {
    let mut admin = Wire::new(target, digests);
    let mut script = Script::new(digests);
    let replies = admin.send(&script.connect(0, 31, 0xffff).enable().take());
    assert_eq!(replies[0], Reply::IcResp);
    assert_eq!(replies[2].status(), Status::SUCCESS);
    (admin, u16::try_from(replies[1].result()).unwrap())
}

pub(crate) fn pattern(len: usize) -> Bytes {
    (0..len).map(|at| (at % 251) as u8).collect::<Vec<_>>().into()
}
