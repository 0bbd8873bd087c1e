//! Asymmetric Namespace Access, page 0Ch (section 5.16.1.13).

/// How a namespace can be reached through this controller (section 8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum AnaState {
    /// Best path.
    Optimized = 0x1,
    /// Works, slower.
    NonOptimized = 0x2,
    /// Commands fail with a path error; hosts take another path.
    Inaccessible = 0x3,
    /// As [`Self::Inaccessible`], for ever.
    PersistentLoss = 0x4,
    /// Between two states; hosts retry for ANATT seconds.
    Change = 0xf,
}

impl AnaState {
    fn parse(state: u8) -> Option<Self> {
        Some(match state & 15 {
            0x1 => Self::Optimized,
            0x2 => Self::NonOptimized,
            0x3 => Self::Inaccessible,
            0x4 => Self::PersistentLoss,
            0xf => Self::Change,
            _ => return None,
        })
    }
}

/// Namespaces that change state together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnaGroup {
    /// ANA Group ID (AGID), 1 to ANAGRPMAX.
    pub id: u32,
    /// Change Count of this group.
    pub change_count: u64,
    /// Asymmetric Namespace Access State.
    pub state: AnaState,
    /// Namespace Identifiers, ascending.
    pub namespaces: Vec<u32>,
}

/// The page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnaLog {
    /// Change Count: grows with each change of the page.
    pub change_count: u64,
    /// Groups, ascending.
    pub groups: Vec<AnaGroup>,
}

const HEADER_BYTES: usize = 16;
const GROUP_BYTES: usize = 32;

impl AnaLog {
    /// The page; without the namespaces of the groups if LSP bit 0 (RGO) asks for that.
    #[must_use]
    pub fn to_bytes(&self, groups_only: bool) -> Vec<u8> {
        let mut log = Vec::with_capacity(HEADER_BYTES + GROUP_BYTES * self.groups.len());
        log.extend_from_slice(&self.change_count.to_le_bytes());
        log.extend_from_slice(&(self.groups.len() as u16).to_le_bytes());
        log.resize(HEADER_BYTES, 0);
        for group in &self.groups {
            let namespaces: &[u32] = if groups_only { &[] } else { &group.namespaces };
            let start = log.len();
            log.extend_from_slice(&group.id.to_le_bytes());
            log.extend_from_slice(&(namespaces.len() as u32).to_le_bytes());
            log.extend_from_slice(&group.change_count.to_le_bytes());
            log.push(group.state as u8);
            log.resize(start + GROUP_BYTES, 0);
            log.extend(namespaces.iter().flat_map(|id| id.to_le_bytes()));
        }
        log
    }

    /// Reads the page, for hosts; `None` if it is cut off or has a state that does not exist.
    #[must_use]
    pub fn parse(log: &[u8]) -> Option<Self> {
        let (header, mut rest) = log.split_first_chunk::<HEADER_BYTES>()?;
        let [c0, c1, c2, c3, c4, c5, c6, c7, n0, n1, ..] = *header;
        let mut groups = Vec::new();
        for _ in 0..u16::from_le_bytes([n0, n1]) {
            let (group, tail) = rest.split_first_chunk::<GROUP_BYTES>()?;
            let (words, _) = group.as_chunks::<4>();
            let word = |at: usize| u32::from_le_bytes(words[at]);
            let (ids, _) = tail.as_chunks::<4>();
            let ids = ids.get(..word(1) as usize)?;
            rest = &tail[4 * ids.len()..];
            groups.push(AnaGroup {
                id: word(0),
                change_count: u64::from(word(3)) << 32 | u64::from(word(2)),
                state: AnaState::parse(group[16])?,
                namespaces: ids.iter().map(|id| u32::from_le_bytes(*id)).collect(),
            });
        }
        let change_count = u64::from_le_bytes([c0, c1, c2, c3, c4, c5, c6, c7]);
        Some(Self { change_count, groups })
    }
}
