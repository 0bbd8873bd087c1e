//! A controller as a host sees it: its admin queue, and the way to more queues.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use crate::command::{Command, Completion, ConnectParameters};
use crate::error::{Error, Violation};
use crate::queue::{Queue, QueueOptions};

/// Entries of the admin queue, as Linux asks for.
const ADMIN_ENTRIES: u16 = 32;
/// CNTLID for "any".
const ANY_CONTROLLER: u16 = 0xffff;
/// Register offsets (NVMe base 2.0, section 3.1.3).
const CAP: u32 = 0x00;
const CC: u32 = 0x14;
const CSTS: u32 = 0x1c;
/// CC: I/O completion entries of 16 bytes, submission entries of 64 bytes, NVM command set.
const CC_ENTRY_SIZES: u32 = 4 << 20 | 6 << 16;
const CC_ENABLE: u32 = 1;
const CC_SHUTDOWN: u32 = 1 << 14;
const CSTS_READY: u32 = 1;
const CSTS_FATAL: u32 = 2;
const CSTS_SHUTDOWN: u32 = 0b11 << 2;
const CSTS_SHUTDOWN_COMPLETE: u32 = 0b10 << 2;
/// Between two looks at CSTS.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Looks at CSTS before a shutdown is given up: 10 s.
const SHUTDOWN_POLLS: u32 = 1000;

/// Who connects to what, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// SUBNQN.
    pub subsystem: String,
    /// HOSTNQN.
    pub host: String,
    /// HOSTID.
    pub host_id: Uuid,
    /// Keep-alive timeout in milliseconds, 0 for none. Sending Keep Alive is up to the caller.
    pub keep_alive_ms: u32,
    /// What is asked for on every connection.
    pub queue: QueueOptions,
}

impl Options {
    /// This subsystem, a fixed host, no keep-alive, and the parameters that Linux uses.
    #[must_use]
    pub fn new(subsystem: &str) -> Self {
        let host_id = Uuid::from_u128(0x6c73_7664_7465_7374_8000_0000_0000_0001);
        Self {
            subsystem: subsystem.to_owned(),
            host: format!("nqn.2014-08.org.nvmexpress:uuid:{host_id}"),
            host_id,
            keep_alive_ms: 0,
            queue: QueueOptions::default(),
        }
    }
}

/// What Identify Controller says, as far as a host here uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Serial number (SN), without padding.
    pub serial: String,
    /// Model number (MN), without padding.
    pub model: String,
    /// Firmware revision (FR), without padding.
    pub firmware: String,
    /// Controller identifier (CNTLID).
    pub controller: u16,
    /// Longest transfer in bytes (MDTS times the minimum page size); `None`: no limit.
    pub transfer_max: Option<u64>,
    /// Commands of one queue (MAXCMD).
    pub commands_max: u16,
    /// Whether there is a volatile write cache (VWC bit 0).
    pub volatile_cache: bool,
    /// Optional NVM commands (ONCS).
    pub optional_commands: u16,
    /// Longest data in bytes that may go with an I/O command (IOCCSZ less the entry).
    pub in_capsule_max: u32,
    /// SUBNQN.
    pub subsystem: String,
}

/// What Identify Namespace says, as far as a host here uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamespaceIdentity {
    /// Size (NSZE) in logical blocks.
    pub blocks: u64,
    /// Bytes of a logical block.
    pub block_bytes: u32,
    /// NGUID, all 0 for none.
    pub nguid: [u8; 16],
}

/// An enabled controller.
#[derive(Debug)]
pub struct Controller {
    address: SocketAddr,
    options: Options,
    admin: Queue,
    id: u16,
    entries_max: u16,
    identity: Identity,
}

impl Controller {
    /// Connects, enables the controller and identifies it.
    ///
    /// # Errors
    /// Those of every step; [`Error::NotReady`] if it does not become ready within CAP.TO.
    pub async fn connect(address: SocketAddr, options: Options) -> Result<Self, Error> {
        let mut admin = Queue::open(address, ADMIN_ENTRIES, options.queue).await?;
        let parameters = options.parameters(0, ADMIN_ENTRIES, ANY_CONTROLLER);
        let answer = admin.execute(Command::connect(&parameters)).await?.ok()?;
        let id = low_16(answer.result);
        let capabilities = admin.execute(Command::property_get(CAP, true)).await?.ok()?.result;
        let enable = Command::property_set(CC, CC_ENTRY_SIZES | CC_ENABLE);
        admin.execute(enable).await?.ok()?;
        let timeout = Duration::from_millis(500) * u32::from((capabilities >> 24) as u8).max(1);
        let polls = u32::try_from(timeout.as_millis() / POLL_INTERVAL.as_millis());
        let polls = polls.unwrap_or(u32::MAX);
        poll_status(&mut admin, CSTS_READY | CSTS_FATAL, CSTS_READY, polls).await?;
        let data = admin.execute(Command::identify(0x01, 0)).await?.ok()?.data;
        let identity = Identity::parse(&data, capabilities)?;
        if identity.controller != id {
            return Err(Violation::Answer("Identify: another controller").into());
        }
        let entries_max = low_16(capabilities).saturating_add(1);
        Ok(Self { address, options, admin, id, entries_max, identity })
    }

    /// CNTLID.
    #[must_use]
    pub fn id(&self) -> u16 {
        self.id
    }

    /// Most entries of an I/O queue (CAP.MQES).
    #[must_use]
    pub fn entries_max(&self) -> u16 {
        self.entries_max
    }

    /// What the controller said about itself.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The admin queue, for all that has no method here.
    pub fn admin(&mut self) -> &mut Queue {
        &mut self.admin
    }

    /// Asks for `queues` I/O queues; returns how many there may be.
    ///
    /// # Errors
    /// As [`Queue::execute`], and the status of the command.
    pub async fn set_queues(&mut self, queues: u16) -> Result<u16, Error> {
        let wanted = u32::from(queues.saturating_sub(1));
        let answer = self.command(Command::set_feature(0x07, 0, wanted | wanted << 16)).await?;
        let (submission, completion) = (low_16(answer.result), low_16(answer.result >> 16));
        Ok(submission.min(completion).saturating_add(1))
    }

    /// Opens I/O queue `number` (from 1) of `entries` entries; it holds one command less.
    ///
    /// # Errors
    /// Those of the connection, and the status of Connect.
    pub async fn open_queue(&self, number: u16, entries: u16) -> Result<Queue, Error> {
        let mut queue = Queue::open(self.address, entries, self.options.queue).await?;
        let mut parameters = self.options.parameters(number, entries, self.id);
        parameters.keep_alive_ms = 0;
        queue.execute(Command::connect(&parameters)).await?.ok()?;
        queue.set_in_capsule_max(self.identity.in_capsule_max);
        Ok(queue)
    }

    /// An admin command that must succeed.
    ///
    /// # Errors
    /// As [`Queue::execute`], and the status of the command.
    pub async fn command(&mut self, command: Command) -> Result<Completion, Error> {
        self.admin.execute(command).await?.ok()
    }

    /// The numbers of all active namespaces, in order.
    ///
    /// # Errors
    /// As [`Self::command`], and an answer that is not in order.
    pub async fn active_namespaces(&mut self) -> Result<Vec<u32>, Error> {
        let mut all = Vec::new();
        let mut last = 0;
        loop {
            let data = self.command(Command::identify(0x02, last)).await?.data;
            let page = data.chunks_exact(4).map(|entry| u32_at(entry, 0));
            let page: Vec<u32> = page.take_while(|nsid| *nsid != 0).collect();
            for nsid in &page {
                if *nsid <= last {
                    return Err(Violation::Answer("Identify: namespace list out of order").into());
                }
                last = *nsid;
            }
            all.extend_from_slice(&page);
            if page.len() < 1024 {
                return Ok(all);
            }
        }
    }

    /// Size and identifier of an active namespace.
    ///
    /// # Errors
    /// As [`Self::command`], and a format that cannot be.
    pub async fn identify_namespace(&mut self, nsid: u32) -> Result<NamespaceIdentity, Error> {
        let data = self.command(Command::identify(0x00, nsid)).await?.data;
        NamespaceIdentity::parse(&data)
    }

    /// `bytes` (a multiple of 4) of a log page, read in pieces of at most `piece` bytes (a multiple
    /// of 4). The last piece lets go of the event that the page belongs to.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub async fn read_log_page(
        &mut self,
        page: u8,
        nsid: u32,
        bytes: u32,
        piece: u32,
    ) -> Result<Bytes, Error> {
        let mut whole = BytesMut::with_capacity(bytes as usize);
        let mut offset = 0;
        while offset < bytes {
            let len = piece.min(bytes - offset);
            let retain = offset + len < bytes;
            let command = Command::get_log_page(page, nsid, offset.into(), len, retain);
            whole.extend_from_slice(&self.command(command).await?.data);
            offset += len;
        }
        Ok(whole.freeze())
    }

    /// Shuts the controller down and closes the admin queue. I/O queues are the caller's to drop.
    ///
    /// # Errors
    /// As [`Self::command`]; [`Error::NotReady`] if the shutdown does not end within 10 s.
    pub async fn disconnect(mut self) -> Result<(), Error> {
        let shutdown = CC_ENTRY_SIZES | CC_ENABLE | CC_SHUTDOWN;
        self.command(Command::property_set(CC, shutdown)).await?;
        let done = CSTS_SHUTDOWN_COMPLETE;
        poll_status(&mut self.admin, CSTS_SHUTDOWN, done, SHUTDOWN_POLLS).await
    }
}

impl Options {
    fn parameters(&self, queue: u16, entries: u16, controller: u16) -> ConnectParameters<'_> {
        ConnectParameters {
            queue,
            entries,
            controller,
            keep_alive_ms: self.keep_alive_ms,
            flow_control: self.queue.flow_control,
            subsystem: &self.subsystem,
            host: &self.host,
            host_id: self.host_id,
        }
    }
}

impl Identity {
    /// Reads Identify Controller (NVMe base 2.0, figure 275); `capabilities` is CAP.
    fn parse(data: &[u8], capabilities: u64) -> Result<Self, Violation> {
        let page_bytes = 1 << (12 + (capabilities >> 48 & 0xf));
        let transfer_max = match data[77] {
            0 => None,
            shift => Some(u64::checked_shl(page_bytes, shift.into()).unwrap_or(u64::MAX)),
        };
        let capsule = u32_at(data, 1792).saturating_mul(16);
        // A discovery controller (CNTRLTYPE 2) has no I/O queues, and leaves the field empty.
        let in_capsule_max = match data[111] {
            2 => 0,
            _ => capsule.checked_sub(64).ok_or(Violation::Answer("IOCCSZ"))?,
        };
        Ok(Self {
            serial: text(&data[4..24]),
            model: text(&data[24..64]),
            firmware: text(&data[64..72]),
            controller: u16_at(data, 78),
            transfer_max,
            commands_max: u16_at(data, 514),
            volatile_cache: data[525] & 1 != 0,
            optional_commands: u16_at(data, 520),
            in_capsule_max,
            subsystem: text(&data[768..1024]),
        })
    }
}

impl NamespaceIdentity {
    /// Reads Identify Namespace (NVM command set 1.0, figure 97).
    fn parse(data: &[u8]) -> Result<Self, Error> {
        let format = usize::from(data[26] & 0xf);
        let shift = data[128 + 4 * format + 2];
        if !(9..=16).contains(&shift) {
            return Err(Violation::Answer("Identify: LBADS").into());
        }
        let blocks = u64::from(u32_at(data, 0)) | u64::from(u32_at(data, 4)) << 32;
        let nguid = *data[104..].first_chunk().expect("the structure is 4096 bytes");
        Ok(Self { blocks, block_bytes: 1 << shift, nguid })
    }
}

/// Reads CSTS until the bits of `mask` are `wanted`.
async fn poll_status(admin: &mut Queue, mask: u32, wanted: u32, polls: u32) -> Result<(), Error> {
    let mut csts = 0;
    for _ in 0..polls {
        let answer = admin.execute(Command::property_get(CSTS, false)).await?.ok()?;
        csts = u32::from(low_16(answer.result)) | u32::from(low_16(answer.result >> 16)) << 16;
        if csts & mask == wanted {
            return Ok(());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Err(Error::NotReady { csts })
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim_end().to_owned()
}

fn low_16(value: u64) -> u16 {
    u16::try_from(value & 0xffff).expect("16 bits")
}

fn u16_at(data: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes([data[offset], data[offset + 1]])
}

fn u32_at(data: &[u8], offset: usize) -> u32 {
    u32::from(u16_at(data, offset)) | u32::from(u16_at(data, offset + 2)) << 16
}
