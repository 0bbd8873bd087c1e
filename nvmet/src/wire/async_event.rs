//! Asynchronous events (section 5.2) and the feature that enables them (section 5.27.1.8).

/// An event as a controller reports it: DW0 of the completion of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AsyncEvent {
    /// Namespace Attribute Changed: read log page 04h.
    NamespaceChanged,
    /// Asymmetric Namespace Access Change: read log page 0Ch.
    AnaChanged,
    /// Discovery Log Page Change: read log page 70h.
    DiscoveryChanged,
}

impl AsyncEvent {
    /// Every event.
    pub const ALL: [Self; 3] = [Self::NamespaceChanged, Self::AnaChanged, Self::DiscoveryChanged];

    /// DW0: type in bits 2:0 (2 is a notice), information in 15:8, log page in 23:16.
    #[must_use]
    pub const fn dw0(self) -> u32 {
        match self {
            Self::NamespaceChanged => 0x04_00_02,
            Self::AnaChanged => 0x0c_03_02,
            Self::DiscoveryChanged => 0x70_f0_02,
        }
    }

    /// Reads what [`Self::dw0`] wrote; `None` for an event that is not known here.
    #[must_use]
    pub fn parse(dw0: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.dw0() == dw0)
    }

    /// The bit that stands for it in [`AsyncEventMask`].
    #[must_use]
    pub const fn mask(self) -> AsyncEventMask {
        AsyncEventMask(match self {
            Self::NamespaceChanged => 1 << 8,
            Self::AnaChanged => 1 << 11,
            Self::DiscoveryChanged => 1 << 31,
        })
    }
}

/// Set of events: OAES of a controller (bytes 95:92 of Identify) and the value of feature 0Bh.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AsyncEventMask(pub u32);

impl AsyncEventMask {
    /// Bits 7:0, the health warnings, which every controller has and OAES does not list.
    pub const HEALTH: Self = Self(0xff);

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether the event is in the set.
    #[must_use]
    pub const fn has(self, event: AsyncEvent) -> bool {
        self.0 & event.mask().0 != 0
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn events_are_as_captured() {
        assert_eq!(AsyncEvent::parse(0x04_0002), Some(AsyncEvent::NamespaceChanged));
        assert_eq!(AsyncEvent::parse(0x0c_0302), Some(AsyncEvent::AnaChanged));
        assert_eq!(AsyncEvent::parse(0x70_f002), Some(AsyncEvent::DiscoveryChanged));
        assert_eq!(AsyncEvent::parse(0x02_0001), None);
        // What Linux enables on an I/O and on a discovery controller.
        let io = AsyncEventMask(0x900);
        assert!(io.has(AsyncEvent::NamespaceChanged) && io.has(AsyncEvent::AnaChanged));
        assert!(!io.has(AsyncEvent::DiscoveryChanged));
        assert!(AsyncEventMask(0x8000_0000).has(AsyncEvent::DiscoveryChanged));
    }
}
