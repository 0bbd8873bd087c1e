//! A bounded memory of what was seen lately, for "second touch" decisions.
//!
//! One tag for each place of a table, found by the hash and overwritten by whatever comes next to
//! the same place. Two keys may be taken for each other: that admits a frame too early, and nothing
//! else depends on it. A queue with an index would be exact about age and cost ten times the
//! memory.

/// The table; forgets by being overwritten.
#[derive(Debug)]
pub(super) struct Ghost {
    tags: Box<[u32]>,
}

impl Ghost {
    /// Remembers about as many keys as `keys`, within `min..=max`.
    pub(super) fn new(keys: u64, min: usize, max: usize) -> Self {
        let places = usize::try_from(keys).unwrap_or(max).clamp(min, max).next_power_of_two();
        Self { tags: vec![0; places].into_boxed_slice() }
    }

    /// True if the key with this hash was seen lately, which is then forgotten; else it is
    /// remembered.
    pub(super) fn is_second_touch(&mut self, hash: u64) -> bool {
        let (high, low) = (hash >> 32, hash & u64::from(u32::MAX));
        // 0 marks an unused place; place and tag come from different halves, or the tag would say
        // nothing new.
        let tag = u32::try_from(high).expect("the upper half of 64 bits") | 1;
        let places = self.tags.len();
        let place = &mut self.tags[usize::try_from(low).expect("half of 64 bits") & (places - 1)];
        let seen = *place == tag;
        *place = if seen { 0 } else { tag };
        seen
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn every_second_touch_counts() {
        let mut ghost = Ghost::new(100, 1, 128);
        let touches: Vec<bool> = (0..4).map(|_| ghost.is_second_touch(0xabcd_0000_0001)).collect();
        assert_eq!(touches, [false, true, false, true]);
    }

    #[test]
    fn a_later_key_in_the_same_place_makes_it_forget() {
        let mut ghost = Ghost::new(16, 16, 16);
        assert!(!ghost.is_second_touch(0x0100_0000_0001));
        assert!(!ghost.is_second_touch(0x0300_0000_0011));
        assert!(!ghost.is_second_touch(0x0100_0000_0001));
    }

    #[test]
    fn its_size_is_bounded() {
        assert_eq!(Ghost::new(u64::MAX, 1, 1 << 10).tags.len(), 1 << 10);
        assert_eq!(Ghost::new(0, 64, 1 << 10).tags.len(), 64);
    }
}
