//! The body of a put: bytes that may lie in many places.
//!
//! An object is put together from buffers that came from sockets and logs one by one. Joining them
//! first would touch every byte once more, and 2,000 fresh pages per object with it.
//!
//! Does not: align or coalesce anything; what is in the parts decides how a backend may write them.
//! Invariants: 1. No part is empty, so that nobody below has to think of those. 2. `len` is the sum
//! of the lengths of the parts.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// The bytes of an object to be put, in order, in as many parts as they happen to lie in.
///
/// Where one part ends and the next begins has no meaning and is not stored. Cloning shares the
/// parts.
///
/// ```
/// use bytes::Bytes;
/// use lsvd_store::Payload;
///
/// let payload: Payload = ["head", "", "body"].into_iter().map(Bytes::from).collect();
/// assert_eq!((payload.len(), payload.parts().len()), (8, 2));
/// assert_eq!(payload.into_bytes(), "headbody");
/// ```
#[derive(Clone, Default)]
pub struct Payload {
    parts: Arc<[Bytes]>,
    len: usize,
}

impl Payload {
    /// Number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The parts in order; none of them is empty, whatever the payload was made of.
    #[must_use]
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// All bytes in one piece. Copies them if there is more than one part.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match &*self.parts {
            [] => Bytes::new(),
            [part] => part.clone(),
            parts => {
                let mut joined = BytesMut::with_capacity(self.len);
                parts.iter().for_each(|part| joined.extend_from_slice(part));
                joined.freeze()
            }
        }
    }

    /// Whether these are exactly the bytes of `other`. Copies nothing.
    #[must_use]
    pub fn eq_bytes(&self, other: &[u8]) -> bool {
        let mut rest = other;
        self.len == other.len()
            && self.parts.iter().all(|part| {
                let (same, after) = rest.split_at(part.len());
                rest = after;
                same == part
            })
    }
}

/// Bodies are megabytes: their shape says more than their bytes.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload")
            .field("len", &self.len)
            .field("parts", &self.parts.len())
            .finish_non_exhaustive()
    }
}

impl From<Bytes> for Payload {
    fn from(body: Bytes) -> Self {
        Self::from_iter([body])
    }
}

impl From<Vec<u8>> for Payload {
    fn from(body: Vec<u8>) -> Self {
        Self::from(Bytes::from(body))
    }
}

impl From<Vec<Bytes>> for Payload {
    fn from(parts: Vec<Bytes>) -> Self {
        Self::from_iter(parts)
    }
}

impl FromIterator<Bytes> for Payload {
    fn from_iter<I: IntoIterator<Item = Bytes>>(parts: I) -> Self {
        let parts: Arc<[Bytes]> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let len = parts.iter().map(Bytes::len).sum();
        Self { parts, len }
    }
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_part_is_handed_on_without_a_copy() {
        let body = Bytes::from(vec![7; 10_000]);
        for payload in [
            Payload::from(body.clone()),
            Payload::from(vec![Bytes::new(), body.clone(), Bytes::new()]),
        ] {
            assert_eq!(payload.into_bytes().as_ptr(), body.as_ptr());
        }
    }

    #[test]
    fn nothing_is_an_empty_payload_in_every_way_to_make_one() {
        let ways = [
            Payload::default(),
            Payload::from(Bytes::new()),
            Payload::from(Vec::<u8>::new()),
            Payload::from(Vec::<Bytes>::new()),
            Payload::from(vec![Bytes::new(); 3]),
        ];
        for payload in ways {
            assert!(payload.is_empty() && payload.parts().is_empty(), "{payload:?}");
            assert!(payload.eq_bytes(b"") && !payload.eq_bytes(b"x"), "{payload:?}");
            assert_eq!(payload.into_bytes(), "");
        }
    }

    #[test]
    fn the_debug_text_of_a_large_body_is_short() {
        let payload = Payload::from(vec![7; 1 << 20]);
        assert_eq!(format!("{payload:?}"), "Payload { len: 1048576, parts: 1, .. }");
    }

    proptest! {
        #[test]
        fn a_payload_is_the_concatenation_of_its_parts(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5), 0..9),
            damage in any::<(prop::sample::Index, u8)>(),
        ) {
            let twin = parts.concat();
            let payload: Payload = parts.into_iter().map(Bytes::from).collect();
            prop_assert_eq!(payload.len(), twin.len());
            prop_assert_eq!(payload.is_empty(), twin.is_empty());
            prop_assert!(payload.parts().iter().all(|part| !part.is_empty()));
            prop_assert_eq!(payload.parts().concat(), twin.clone());
            prop_assert!(payload.eq_bytes(&twin));
            prop_assert!(!payload.eq_bytes(&[&twin[..], b"x"].concat()));
            if !twin.is_empty() {
                prop_assert!(!payload.eq_bytes(&twin[1..]));
                let mut other = twin.clone();
                let (at, xor) = damage;
                other[at.index(twin.len())] ^= xor;
                prop_assert_eq!(payload.eq_bytes(&other), xor == 0);
            }
            prop_assert_eq!(payload.into_bytes(), twin);
        }
    }
}
