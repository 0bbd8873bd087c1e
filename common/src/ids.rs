//! Identities and counters that appear in every format.

use std::fmt;

pub use uuid::Uuid;

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The next one.
            ///
            /// # Panics
            /// After 2^64 of them: at a million a second that is half a million years.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("a 64-bit counter does not run out"))
            }

            /// The one before, or `None` for 0.
            #[must_use]
            pub fn previous(self) -> Option<Self> {
                self.0.checked_sub(1).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter! {
    /// Position of an object in an image's stream; the first object is 1.
    ObjectSeq
}
counter! {
    /// Position of a write (or discard) in the order in which an image acknowledges; the first is 1, 0 means none.
    WriteSeq
}
counter! {
    /// One gateway's term as an image's only writer; 0 is an image that was never opened.
    Epoch
}
counter! {
    /// Position of a record in a write log; the first is 1.
    RecordSeq
}

/// Identity of an image: made when it is created, in every object and log record of it, never used
/// again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageId(pub Uuid);

/// Identity of one write log on one SSD: a log made anew gets a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub Uuid);

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
