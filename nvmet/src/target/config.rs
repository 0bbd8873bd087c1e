//! What the control socket says to the model, checked.

use std::net::SocketAddr;

use uuid::Uuid;

use crate::limits::IO_QUEUES_MAX;
use crate::limits::{IN_CAPSULE_DEFAULT, IN_CAPSULE_MAX, NAMESPACES_MAX, QUEUE_DEPTH_MAX};
use crate::wire::log_page::AnaState;

/// Properties of a target that stay while it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetOptions {
    /// The unique NQN of the discovery subsystem, which hosts with several targets need.
    pub discovery_nqn: String,
    /// Serial number of the discovery subsystem, at most 20 bytes.
    pub discovery_serial: String,
    /// Model of the discovery subsystem, at most 40 bytes.
    pub discovery_model: String,
    /// In-capsule data of I/O commands, in bytes: a multiple of 16, at most
    /// [`IN_CAPSULE_MAX`].
    pub in_capsule_bytes: u32,
    /// Entries of an I/O queue, 2 to [`QUEUE_DEPTH_MAX`].
    pub queue_depth: u16,
    /// I/O queues of one controller, 1 to [`IO_QUEUES_MAX`].
    pub io_queues: u16,
}

impl TargetOptions {
    /// The usual sizes, for a target with this unique discovery NQN.
    #[must_use]
    pub fn new(discovery_nqn: impl Into<String>) -> Self {
        Self {
            discovery_nqn: discovery_nqn.into(),
            discovery_serial: "LSVD-DISCOVERY".to_owned(),
            discovery_model: "LSVD discovery controller".to_owned(),
            in_capsule_bytes: IN_CAPSULE_DEFAULT,
            queue_depth: QUEUE_DEPTH_MAX,
            io_queues: IO_QUEUES_MAX,
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        check_nqn(&self.discovery_nqn)?;
        check_text(&self.discovery_serial, 20).ok_or(ConfigError::Serial)?;
        check_text(&self.discovery_model, 40).ok_or(ConfigError::Model)?;
        let fits = self.in_capsule_bytes.is_multiple_of(16)
            && self.in_capsule_bytes <= IN_CAPSULE_MAX
            && (2..=QUEUE_DEPTH_MAX).contains(&self.queue_depth)
            && (1..=IO_QUEUES_MAX).contains(&self.io_queues);
        if fits { Ok(()) } else { Err(ConfigError::Options) }
    }
}

/// A subsystem to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubsystemConfig {
    /// Its NVMe qualified name.
    pub nqn: String,
    /// Serial number: printable ASCII, at most 20 bytes.
    pub serial: String,
    /// Model: printable ASCII, at most 40 bytes.
    pub model: String,
    /// Hosts that are not on the list may connect.
    pub allow_any_host: bool,
    /// Highest NSID, 1 to [`NAMESPACES_MAX`].
    pub namespaces_max: u32,
    /// Hosts are told how good each path is (asymmetric namespace access, base 2.0, 8.1), and the
    /// listeners have a [`PathState`]. Without it all paths are alike.
    pub ana_reporting: bool,
}

/// How good the paths through a listener are: the ANA state of all namespaces of the subsystem, for
/// the hosts that came in there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum PathState {
    /// As good as any.
    #[default]
    Optimized,
    /// Works; hosts use it while there is no optimized path.
    NonOptimized,
    /// I/O commands are refused with a path error, and hosts repeat them on another path.
    Inaccessible,
}

impl PathState {
    /// Reads what `as u8` made of a state.
    pub(crate) fn from_byte(byte: u8) -> Self {
        [Self::Optimized, Self::NonOptimized]
            .into_iter()
            .find(|state| *state as u8 == byte)
            .unwrap_or(Self::Inaccessible)
    }

    pub(crate) fn to_wire(self) -> AnaState {
        match self {
            Self::Optimized => AnaState::Optimized,
            Self::NonOptimized => AnaState::NonOptimized,
            Self::Inaccessible => AnaState::Inaccessible,
        }
    }
}

impl SubsystemConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        check_nqn(&self.nqn)?;
        check_text(&self.serial, 20).ok_or(ConfigError::Serial)?;
        check_text(&self.model, 40).ok_or(ConfigError::Model)?;
        if (1..=NAMESPACES_MAX).contains(&self.namespaces_max) {
            Ok(())
        } else {
            Err(ConfigError::NamespacesMax { max: NAMESPACES_MAX })
        }
    }
}

/// How a namespace appears, where that is not for the namespace or the target to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NamespaceOptions {
    /// NSID; the first free one if there is none.
    pub nsid: Option<u32>,
    /// UUID in place of the namespace's own.
    pub uuid: Option<Uuid>,
    /// NGUID in place of the namespace's own.
    pub nguid: Option<[u8; 16]>,
}

/// Where a subsystem may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// The address of the listening socket; the IP address may be the unspecified one.
    pub address: SocketAddr,
    /// What the discovery log says instead, where hosts reach the address under another one.
    pub advertised: Option<SocketAddr>,
}

/// Where a connection came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The address of the listening socket, as in [`Listener::address`].
    pub listener: SocketAddr,
    /// This end of the connection.
    pub local: SocketAddr,
    /// The host's end of the connection.
    pub peer: SocketAddr,
}

/// Why the model was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not an NVMe qualified name (base 2.0, 4.5).
    #[error("not an NVMe qualified name")]
    Nqn,
    /// Not a serial number.
    #[error("serial number must be at most 20 printable ASCII characters")]
    Serial,
    /// Not a model.
    #[error("model must be at most 40 printable ASCII characters")]
    Model,
    /// A size among [`TargetOptions`] is out of range.
    #[error("target option out of range")]
    Options,
    /// [`SubsystemConfig::namespaces_max`] is out of range.
    #[error("number of namespaces must be 1 to {max}")]
    NamespacesMax {
        /// The largest one.
        max: u32,
    },
    /// There is a subsystem of this name.
    #[error("subsystem exists")]
    SubsystemExists,
    /// There is no subsystem of this name.
    #[error("no such subsystem")]
    NoSuchSubsystem,
    /// The NSID is out of range.
    #[error("namespace ID {nsid} is not in 1 to {max}")]
    NamespaceId {
        /// The NSID.
        nsid: u32,
        /// The highest one of the subsystem.
        max: u32,
    },
    /// The NSID is taken.
    #[error("namespace ID {nsid} is in use")]
    NamespaceIdInUse {
        /// The NSID.
        nsid: u32,
    },
    /// All NSIDs are taken.
    #[error("no namespace ID is free")]
    NamespacesFull,
    /// Another namespace of the subsystem has this UUID; hosts would ignore one of them.
    #[error("a namespace with UUID {uuid} is there already")]
    UuidInUse {
        /// The UUID.
        uuid: Uuid,
    },
    /// There is no namespace with this NSID.
    #[error("no namespace has ID {nsid}")]
    NoSuchNamespace {
        /// The NSID.
        nsid: u32,
    },
    /// The subsystem has this listener already.
    #[error("listener exists")]
    ListenerExists,
    /// The subsystem has no such listener.
    #[error("no such listener")]
    NoSuchListener,
    /// [`SubsystemConfig::ana_reporting`] is off.
    #[error("subsystem does not report ANA states")]
    AnaNotReported,
    /// A limit of [`limits`](crate::limits) is reached.
    #[error("too many of them")]
    TooMany,
}

/// Checks the form of an NVMe qualified name (base 2.0, 4.5): `nqn.yyyy-mm.` and a reversed domain
/// name, then perhaps `:` and whatever the owner of the domain likes; at most 223 bytes of UTF-8.
pub fn check_nqn(nqn: &str) -> Result<(), ConfigError> {
    let is_name = || {
        let (date, rest) = nqn.strip_prefix("nqn.")?.split_once('.')?;
        let (year, month) = date.split_once('-')?;
        let is_number = |text: &str, digits| {
            text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        let is_month = is_number(month, 2) && ("01"..="12").contains(&month);
        let domain = rest.split(':').next()?;
        let is_label = |label: &str| {
            let inner = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            !label.is_empty() && inner && !label.starts_with('-') && !label.ends_with('-')
        };
        let is_printable = !rest.chars().any(char::is_control);
        let is_valid = is_number(year, 4)
            && is_month
            && domain.split('.').all(is_label)
            && is_printable
            && !rest.ends_with(':');
        is_valid.then_some(())
    };
    if nqn.len() <= 223 && is_name().is_some() { Ok(()) } else { Err(ConfigError::Nqn) }
}

fn check_text(text: &str, bytes_max: usize) -> Option<()> {
    let is_text = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    (text.len() <= bytes_max && is_text).then_some(())
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn qualified_names_have_a_date_and_a_domain() {
        for name in [
            "nqn.2019-05.io.lsvd:cnode1",
            "nqn.2014-08.org.nvmexpress:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
            "nqn.2016-06.io.spdk:cnode_1",
            "nqn.2014-08.org.nvmexpress.discovery",
        ] {
            assert_eq!(check_nqn(name), Ok(()), "{name}");
        }
        let long = format!("nqn.2019-05.io:{}", "x".repeat(209));
        for name in [
            "",
            "nqn.",
            "nqn.2019-05",
            "nqn.2019-5.io.lsvd",
            "nqn.2019-13.io.lsvd",
            "iqn.2019-05.io",
            "nqn.2019-05.-io.lsvd:a",
            "nqn.2019-05.io..lsvd:a",
            "nqn.2019-05.io.lsvd:a\n",
            &long,
            "nqn.2019-05.io.lsvd:",
        ] {
            assert_eq!(check_nqn(name), Err(ConfigError::Nqn), "{name}");
        }
    }
}
