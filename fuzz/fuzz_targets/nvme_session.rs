//! An association with its admin queue and one I/O queue, from the bytes of the host to the bytes
//! of the controller.
//!
//! An input is a list of steps: well-formed PDUs with chosen fields, PDUs with one byte spoiled,
//! noise, operations that come to their end, and changes of the target. It runs twice, with the
//! bytes of each PDU delivered at once and in pieces, and has to come to the same.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use lsvd_nvmet::limits::{PAYLOAD_IN_FLIGHT_MAX, QUEUE_DEPTH_MAX, RECEIVE_BYTES, TRANSFER_MAX};
use lsvd_nvmet::wire::command::{
    AdminOpcode, Connect, ConnectData, IoOpcode, IoOperation, RANGES_BYTES_MAX,
};
use lsvd_nvmet::wire::pdu::{DataPdu, digest};
use lsvd_nvmet::wire::property::Property;
use lsvd_nvmet::wire::{
    AdminCommand, DataRule, Direction, FabricsCommand, IoCommand, Sgl, Sqe, Status,
};
use lsvd_nvmet::{
    DISCOVERY_NQN, Failure, LbaSize, Listener, Loopback, Namespace, NamespaceOptions, Origin,
    Outcome, PathState, SubsystemConfig, Target, TargetOptions,
};
use uuid::Uuid;

#[path = "nvme_session/disk.rs"]
mod disk;
#[path = "nvme_session/host.rs"]
mod host;
#[path = "nvme_session/input.rs"]
mod input;

use disk::Disk;
use host::{Host, Mutation};
use input::{Choices, Pieces, Setup};

const NQN: &str = "nqn.2019-05.io.lsvd:cnode1";
const HOST: &str = "nqn.2014-08.org.nvmexpress:uuid:aaaaaaaa-0000-4000-8000-000000000001";
const ADMIN: usize = 0;
const IO: usize = 1;

/// What the limits of the crate promise of one connection: payload in flight, replies up to the
/// gate and one more, and what commands with data in the capsule read.
const HELD_MAX: usize =
    PAYLOAD_IN_FLIGHT_MAX + (256 << 10) + TRANSFER_MAX as usize + QUEUE_DEPTH_MAX as usize * 8192;

/// One output: of which connection, how long, and its checksum.
type Transcript = Vec<(usize, usize, u32)>;

struct World {
    setup: Setup,
    target: Arc<Target>,
    disks: [Arc<Disk>; 2],
    links: [Loopback; 2],
    hosts: [Host; 2],
    /// Nothing has happened that lets a good command fail.
    is_calm: bool,
    /// Controller that the admin queue was connected to last.
    cntlid: u16,
    pieces: Pieces,
    transcript: Transcript,
}

fn origin() -> Origin {
    let listener = "127.0.0.1:4420".parse().expect("an address");
    Origin { listener, local: listener, peer: "127.0.0.1:50000".parse().expect("an address") }
}

fn target(setup: Setup, disks: &[Arc<Disk>; 2]) -> Target {
    const VALID: &str = "the configuration is valid";
    let target = Target::new(TargetOptions::new("nqn.2019-05.io.lsvd:discovery")).expect(VALID);
    let config = SubsystemConfig {
        nqn: NQN.to_owned(),
        serial: "1".to_owned(),
        model: "2".to_owned(),
        allow_any_host: true,
        namespaces_max: 8,
        ana_reporting: setup.ana_reporting(),
    };
    target.add_subsystem(config).expect(VALID);
    let listener = Listener { address: origin().listener, advertised: None };
    target.add_listener(NQN, listener).expect(VALID);
    for disk in disks {
        let disk = Arc::clone(disk) as Arc<dyn Namespace>;
        target.add_namespace(NQN, disk, NamespaceOptions::default()).expect(VALID);
    }
    target
}

impl World {
    fn new(setup: Setup, pieces: Pieces) -> Self {
        let blocks = if setup.is_large() { 512 } else { 6 };
        let disks = [
            Arc::new(Disk::new(1, LbaSize::B512, 24, setup.is_deferred())),
            Arc::new(Disk::new(2, LbaSize::B4096, blocks, setup.is_deferred())),
        ];
        let target = Arc::new(target(setup, &disks));
        let links = [ADMIN, IO].map(|_| Loopback::new(Arc::clone(&target), origin()));
        let hosts = [ADMIN, IO].map(|at| Host::new(at == ADMIN, setup.digests()));
        let transcript = Transcript::new();
        let is_calm = !setup.is_deferred() && !setup.without_handshake();
        let cntlid = 0;
        let mut world =
            Self { setup, target, disks, links, hosts, is_calm, cntlid, pieces, transcript };
        if !setup.without_handshake() {
            world.handshake(ADMIN);
            world.handshake(IO);
        }
        world
    }

    fn handshake(&mut self, at: usize) {
        let request = self.hosts[at].ic_req(0);
        self.deliver(at, &request);
        let sqsize = if at == ADMIN { 31 } else { self.setup.sqsize() };
        let cntlid = if at == ADMIN { 0xffff } else { self.cntlid };
        let without_flow_control = at == IO && self.setup.without_flow_control();
        let connect = Connect { qid: at as u16, sqsize, without_flow_control, kato_ms: 0 };
        self.connect(at, connect, cntlid, NQN);
        if at == ADMIN {
            self.cntlid = self.hosts[ADMIN].result as u16;
            let property = Property::Configuration;
            self.fabrics(at, FabricsCommand::PropertySet { property, value: 0x46_0001 });
        }
    }

    fn connect(&mut self, at: usize, connect: Connect, cntlid: u16, subsystem: &str) {
        let data = ConnectData {
            host_id: Uuid::from_u128(7),
            cntlid,
            subsystem: subsystem.parse().expect("a name"),
            host: HOST.parse().expect("a name"),
        };
        // A queue with one entry is refused, and the host may ask for a longer one.
        let host = &mut self.hosts[at];
        host.holds = connect.sqsize.max(1).min(host.holds);
        host.is_admin |= connect.qid == 0;
        let sgl = Sgl::Capsule { offset: 0, len: ConnectData::BYTES as u32 };
        let sqe = FabricsCommand::Connect(connect).to_sqe(1).with_sgl(sgl);
        self.capsule(at, sqe, &data.to_bytes());
    }

    fn fabrics(&mut self, at: usize, command: FabricsCommand) {
        self.capsule(at, command.to_sqe(2), &[]);
    }

    fn capsule(&mut self, at: usize, sqe: Sqe, data: &[u8]) {
        let pdu = self.hosts[at].capsule(sqe, data);
        self.deliver(at, &pdu);
    }

    fn deliver(&mut self, at: usize, mut bytes: &[u8]) {
        let mut sent = Vec::new();
        while !bytes.is_empty() {
            let (piece, rest) =
                bytes.split_at(self.pieces.next(self.hosts[at].is_wild, bytes.len()));
            sent.extend(self.links[at].deliver(piece));
            bytes = rest;
        }
        self.sent(at, &sent);
        self.settle();
    }

    /// Lets both connections do what they can, as their tasks would.
    fn settle(&mut self) {
        for at in [ADMIN, IO] {
            let sent = self.links[at].collect();
            self.sent(at, &sent);
            assert!(self.links[at].received_bytes() <= RECEIVE_BYTES);
            assert!(self.links[at].payload_peak() <= HELD_MAX);
            assert!(self.links[at].commands_in_flight() <= usize::from(QUEUE_DEPTH_MAX));
        }
    }

    fn sent(&mut self, at: usize, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.transcript.push((at, bytes.len(), digest(bytes)));
            self.hosts[at].receive(bytes);
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        let kind = choices.byte();
        let at = if kind & 0x80 == 0 { IO } else { ADMIN };
        self.is_calm &= matches!(kind & 15, 0..=8 | 10);
        match kind & 15 {
            0..=4 => self.io_command(at, choices),
            5 | 6 => self.answer_r2t(at, choices),
            7 | 8 => self.admin_command(choices),
            9 => self.fabrics_command(at, choices),
            10 => self.complete(choices),
            11 => self.change_target(choices),
            12 => {
                let mutation = Mutation { at: choices.byte(), flip: choices.byte() };
                self.hosts[at].mutation = Some(mutation);
            }
            13 => {
                let len = usize::from(choices.byte());
                self.hosts[at].is_wild = true;
                self.deliver(at, choices.bytes(len));
            }
            14 => self.any_command(at, choices),
            _ => {
                self.links[at] = Loopback::new(Arc::clone(&self.target), origin());
                self.hosts[at] = Host::new(at == ADMIN, self.setup.digests());
                self.handshake(at);
            }
        }
    }

    fn io_command(&mut self, at: usize, choices: &mut Choices<'_>) {
        const OPCODES: [IoOpcode; 8] = [
            IoOpcode::Read,
            IoOpcode::Write,
            IoOpcode::Write,
            IoOpcode::Flush,
            IoOpcode::Compare,
            IoOpcode::WriteZeroes,
            IoOpcode::DatasetManagement,
            IoOpcode::Verify,
        ];
        let opcode = choices.pick(&OPCODES);
        let nsid = choices.byte();
        let mut sqe = Sqe::new(opcode as u8, u16::from(choices.byte()), u32::from(nsid & 3));
        let flags = choices.byte();
        sqe.cdw10 = u32::from(choices.byte()).into();
        let (fua, deallocate) = (u32::from(flags & 1) << 30, u32::from(flags >> 1 & 1) << 25);
        sqe.cdw11 = if opcode == IoOpcode::DatasetManagement { 4 } else { 0 }.into();
        sqe.cdw12 = (u32::from(choices.byte()) | fua | deallocate).into();
        let Ok(command) = IoCommand::parse(&sqe) else { return };
        let shift = if nsid & 3 == 2 { 12 } else { 9 };
        let is_good = at == IO
            && self.is_calm
            && !self.hosts[IO].is_wild
            && !self.hosts[IO].has_outstanding(sqe.cid.get())
            && flags >> 2 & 15 != 15;
        let expected = if is_good { self.expected(&command, shift) } else { None };
        let asked = self.hosts[IO].r2ts.len();
        self.place(at, sqe, command.operation.data_rule(shift), flags >> 2, choices);
        if let Some(expected) = expected
            && !self.setup.is_large()
            && self.links[IO].is_open()
            && self.hosts[IO].r2ts.len() == asked
        {
            self.check_outcome(&command, shift, &expected);
        }
    }

    /// A good command has been executed, and has done what it says.
    fn check_outcome(&mut self, command: &IoCommand, shift: u8, stored: &[u8]) {
        let host = &mut self.hosts[IO];
        let status = host.last.map(|(_, status)| status);
        let read = std::mem::take(&mut host.data);
        if let IoOperation::Compare { .. } = command.operation
            && status == Some(Status::COMPARE_FAILURE.dnr())
        {
            return;
        }
        assert_eq!(status, Some(Status::SUCCESS), "{command:?}");
        match command.operation {
            IoOperation::Read { .. } => assert!(read == stored, "not what is stored"),
            IoOperation::WriteZeroes { .. } => {
                let now = self.expected(command, shift).unwrap_or_default();
                assert!(now.iter().all(|&byte| byte == 0), "not zeroes");
            }
            _ => {}
        }
    }

    /// What is stored where a command goes, if there are such blocks.
    fn expected(&mut self, command: &IoCommand, shift: u8) -> Option<Vec<u8>> {
        let blocks = command.operation.blocks()?;
        let disk = self.disks.get((command.nsid as usize).checked_sub(1)?)?;
        self.hosts[IO].data.clear();
        match disk.ram.read(blocks.start << shift, blocks.count << shift) {
            Outcome::Ready(Ok(data)) => Some(data.to_vec()),
            _ => None,
        }
    }

    /// Sends a command with its data in the capsule, or to be asked for.
    fn place(&mut self, at: usize, sqe: Sqe, rule: DataRule, how: u8, choices: &mut Choices<'_>) {
        let len = match rule {
            DataRule::None => 0,
            DataRule::Exact(_, len) => len,
            DataRule::FromHost { .. } => RANGES_BYTES_MAX,
        };
        // Seldom the length is another one.
        let len = if how & 15 == 15 { len ^ u32::from(choices.byte()) } else { len };
        let is_to_host = matches!(rule, DataRule::Exact(Direction::ControllerToHost, _));
        if is_to_host || len == 0 || len > 8192 || how & 16 == 0 {
            return self.capsule(at, sqe.with_sgl(Sgl::Transport { len }), &[]);
        }
        let mut data = vec![how; len as usize];
        let start = choices.bytes(data.len().min(16));
        data[..start.len()].copy_from_slice(start);
        self.capsule(at, sqe.with_sgl(Sgl::Capsule { offset: 0, len }), &data);
    }

    fn answer_r2t(&mut self, at: usize, choices: &mut Choices<'_>) {
        let host = &mut self.hosts[at];
        if host.r2ts.is_empty() {
            return;
        }
        let which = usize::from(choices.byte()) % host.r2ts.len();
        let r2t = host.r2ts.remove(which);
        let how = choices.byte();
        let data = vec![how; r2t.len as usize];
        let cut = if how & 1 == 0 { 0 } else { (data.len() / 4 * usize::from(how) / 256) * 4 };
        let mut offset = 0;
        for piece in [&data[..cut], &data[cut..]] {
            if piece.is_empty() {
                continue;
            }
            let pdu = DataPdu {
                cid: r2t.cid,
                ttag: r2t.ttag,
                offset,
                len: piece.len() as u32,
                is_last: offset as usize + piece.len() == data.len(),
                is_success: false,
            };
            offset += pdu.len;
            let bytes = self.hosts[at].h2c_data(&pdu, piece);
            self.deliver(at, &bytes);
        }
        if self.is_calm && !self.hosts[at].is_wild && self.links[at].is_open() {
            let (cid, status) = self.hosts[at].last.expect("the answer to a write");
            assert!(cid == r2t.cid || self.setup.is_large());
            // Ranges to deallocate are made of anything here.
            let is_done = [Status::SUCCESS, Status::COMPARE_FAILURE, Status::LBA_OUT_OF_RANGE];
            assert!(is_done.contains(&status.code()), "{status}");
        }
    }

    fn admin_command(&mut self, choices: &mut Choices<'_>) {
        let opcode = choices.pick(&AdminOpcode::ALL);
        let cid = u16::from(choices.byte());
        let mut sqe = Sqe::new(opcode as u8, cid, u32::from(choices.byte() & 15));
        let (low, high) = (u32::from(choices.byte()), u32::from(choices.byte()));
        sqe.cdw10 = match opcode {
            AdminOpcode::Abort => high << 16,
            // 32 dwords for each bit of length, and RAE and LSP in the low ones.
            AdminOpcode::GetLogPage => low | (high & 3) << 15 | (high >> 2) << 21,
            _ => low | (high & 7) << 8 | (high >> 7) << 31,
        }
        .into();
        // Numbers of queues have two bytes, and events to enable are in the second one.
        sqe.cdw11 = (u32::from(choices.byte()) * 0x0101).into();
        sqe.cdw12 = (u32::from(choices.byte()) << 2).into();
        let rule = AdminCommand::parse(&sqe).map_or(DataRule::None, |command| command.data_rule());
        self.place(ADMIN, sqe, rule, choices.byte(), choices);
    }

    fn fabrics_command(&mut self, at: usize, choices: &mut Choices<'_>) {
        const PROPERTIES: [Property; 4] = [
            Property::Capabilities,
            Property::Configuration,
            Property::Status,
            Property::SubsystemReset,
        ];
        match choices.byte() % 8 {
            0 | 1 => self.fabrics(at, FabricsCommand::PropertyGet(choices.pick(&PROPERTIES))),
            2 => {
                let value = choices.pick(&[0x46_0001, 0x46_0000, 0x46_4001, 0x46_0011, 0]);
                let property = choices.pick(&PROPERTIES);
                self.fabrics(at, FabricsCommand::PropertySet { property, value });
            }
            3 => self.fabrics(at, FabricsCommand::Disconnect),
            4 => {
                let request = self.hosts[at].ic_req(choices.byte());
                self.deliver(at, &request);
            }
            _ => {
                let connect = Connect {
                    qid: u16::from(choices.byte() & 3),
                    sqsize: u16::from(choices.byte()),
                    without_flow_control: choices.byte() & 1 == 1,
                    kato_ms: u32::from(choices.byte()),
                };
                let cntlid = choices.pick(&[0xffff, 1, 2, 0]);
                let name = choices.pick(&[NQN, NQN, DISCOVERY_NQN, "nqn.2019-05.io.lsvd:none"]);
                self.connect(at, connect, cntlid, name);
            }
        }
    }

    fn complete(&mut self, choices: &mut Choices<'_>) {
        let failure = choices.pick(&[
            None,
            None,
            Some(Failure::Io),
            Some(Failure::Unrecovered),
            Some(Failure::NoSpace),
            Some(Failure::NotReady),
        ]);
        let which = choices.byte();
        self.disks[usize::from(which & 1)].complete(usize::from(which >> 1), failure);
        self.settle();
    }

    /// Refusals of the target are as good as changes.
    fn change_target(&mut self, choices: &mut Choices<'_>) {
        let what = choices.byte();
        let disk = &self.disks[usize::from(what >> 7)];
        let nsid = u32::from(what >> 7) + 1;
        let listener = Listener { address: origin().listener, advertised: None };
        match what % 8 {
            0 => drop(self.target.remove_namespace(NQN, nsid)),
            1 => {
                let options = NamespaceOptions { nsid: Some(nsid), ..NamespaceOptions::default() };
                let _ = self.target.add_namespace(NQN, Arc::clone(disk) as _, options);
            }
            2 => {
                disk.ram.resize(1 + u32::from(choices.byte() % 32));
                let _ = self.target.namespace_resized(NQN, nsid);
            }
            3 => disk.ram.set_ready(choices.byte() & 1 == 0),
            4 => disk.ram.set_read_only(choices.byte() & 1 == 1),
            5 => {
                let states =
                    [PathState::Optimized, PathState::NonOptimized, PathState::Inaccessible];
                let _ = self.target.set_ana_state(NQN, listener.address, choices.pick(&states));
            }
            6 => drop(self.target.remove_listener(NQN, listener.address)),
            _ => drop(self.target.add_listener(NQN, listener)),
        }
        self.settle();
    }

    /// 64 bytes that may be any command, with as much data as they say.
    fn any_command(&mut self, at: usize, choices: &mut Choices<'_>) {
        let data = vec![0; usize::from(choices.byte()) * 8];
        let mut sqe = Sqe::new(choices.byte(), u16::from(choices.byte()), 1);
        let fields = choices.bytes(40);
        let mut entry = [0; 40];
        entry[..fields.len()].copy_from_slice(fields);
        sqe.sgl1.copy_from_slice(&entry[24..]);
        let (dwords, _) = entry.as_chunks::<4>();
        let dword = |at: usize| u32::from_le_bytes(dwords[at]).into();
        (sqe.nsid, sqe.cdw10, sqe.cdw11) = (dword(0), dword(1), dword(2));
        (sqe.cdw12, sqe.cdw13, sqe.cdw14) = (dword(3), dword(4), dword(5));
        self.hosts[at].is_wild = true;
        self.capsule(at, sqe, &data);
    }

    /// Everything that was begun comes to its end.
    fn finish(mut self) -> Transcript {
        // Not all at once: a read with FUA begins anew after its flush.
        while self.disks.iter().any(|disk| disk.complete(0, None)) {
            self.settle();
        }
        for at in [ADMIN, IO] {
            if self.links[at].is_open() {
                if self.hosts[at].check_all_answered() {
                    assert_eq!(self.links[at].payload_held(), 0, "payload of no command");
                    assert_eq!(self.links[at].commands_in_flight(), 0);
                }
            } else {
                assert!(self.links[at].take_end().is_some(), "an end that does not come");
            }
        }
        self.transcript
    }
}

fn run(setup: Setup, pieces: Pieces, mut choices: Choices<'_>) -> Transcript {
    let mut world = World::new(setup, pieces);
    while !choices.0.is_empty() {
        world.step(&mut choices);
    }
    world.finish()
}

fuzz_target!(|input: &[u8]| {
    let Some((&[setup, seed], steps)) = input.split_first_chunk() else { return };
    let (setup, choices) = (Setup(setup, seed), Choices(steps));
    let is_compared = setup.is_compared();
    let pieces = Pieces::Random { state: u32::from(seed) * 0x9e37_79b1 | 1, is_compared };
    let outcome = run(setup, pieces, choices);
    if is_compared {
        assert_eq!(run(setup, Pieces::Whole, choices), outcome);
    }
});
