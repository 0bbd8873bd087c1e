use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::cache::test_key;

fn claim(frame: u32) -> FrameClaim {
    FrameClaim {
        frame_bytes: 512 * (1 + frame % 128),
        ..FrameClaim::about(key(frame), 512, &[0; 4096])
    }
}

fn key(frame: u32) -> FrameKey {
    test_key(u128::from(frame % 3), frame)
}

fn spare_none(_: &FrameKey) -> bool {
    false
}

fn fill(slots: &mut Slots, frame: u32) -> Option<u32> {
    let slot = slots.reserve(key(frame), spare_none)?;
    slots.commit(slot, claim(frame));
    slots.unpin(slot);
    Some(slot)
}

impl Slots {
    /// Invariants 1 and 4, and that nothing is linked that should not be.
    fn self_check(&self) {
        let mut linked = 0;
        for (slot, entry) in (0..).zip(&self.table) {
            let has_key = !matches!(entry.state, State::Free | State::Doomed);
            let found = self.find(&entry.claim.key);
            assert_eq!(found == Some(slot), has_key, "slot {slot} is {:?}", entry.state);
            linked += usize::from(has_key);
            assert_eq!(self.free.contains(&slot), entry.state == State::Free);
            assert!(entry.state != State::Free || entry.pins == 0);
        }
        let mut in_chains = 0;
        for head in &self.heads {
            let mut slot = *head;
            while slot != NONE {
                in_chains += 1;
                slot = self.table[slot as usize].next;
            }
        }
        assert_eq!(linked, in_chains);
    }
}

#[test]
fn a_frame_that_is_being_written_cannot_be_read() {
    let mut slots = Slots::new(4);
    let slot = slots.reserve(key(1), spare_none).expect("free");
    assert!(slots.pin(&key(1)).is_none());
    slots.commit(slot, claim(1));
    slots.unpin(slot);
    assert_eq!(slots.pin(&key(1)).map(|pinned| pinned.claim), Some(claim(1)));
}

#[test]
fn the_clock_takes_what_was_not_touched() {
    let mut slots = Slots::new(3);
    (0..3).for_each(|frame| assert!(fill(&mut slots, frame).is_some()));
    assert!(slots.touch(&key(0)) && slots.touch(&key(2)));
    fill(&mut slots, 3);
    assert!(slots.find(&key(1)).is_none());
    assert!(slots.find(&key(0)).is_some() && slots.find(&key(2)).is_some());
    assert_eq!(slots.evictions(), 1);
}

#[test]
fn a_pinned_slot_is_never_given_away() {
    let mut slots = Slots::new(2);
    (0..2).for_each(|frame| assert!(fill(&mut slots, frame).is_some()));
    let pinned = slots.pin(&key(0)).expect("filled");
    for frame in 2..10 {
        assert_ne!(fill(&mut slots, frame), Some(pinned.slot));
    }
    let other = slots.pin(&key(9)).expect("just filled");
    assert_eq!(fill(&mut slots, 10), None, "all are pinned");
    slots.unpin(pinned.slot);
    slots.unpin(other.slot);
    assert!(fill(&mut slots, 10).is_some());
}

#[test]
fn a_doomed_slot_is_free_after_its_last_pin() {
    let mut slots = Slots::new(1);
    fill(&mut slots, 0);
    let slot = slots.pin(&key(0)).expect("filled").slot;
    assert!(slots.pin(&key(0)).is_some());
    assert!(slots.doom(slot) && !slots.doom(slot));
    slots.unpin(slot);
    assert!(!slots.has_free());
    slots.unpin(slot);
    assert!(slots.has_free());
}

#[test]
fn spared_frames_go_last() {
    let mut slots = Slots::new(8);
    (0..8).for_each(|frame| assert!(fill(&mut slots, frame).is_some()));
    let slot = slots.reserve(key(8), |k| *k != key(5)).expect("one is not spared");
    assert!(slots.find(&key(5)).is_none());
    slots.commit(slot, claim(8));
    slots.unpin(slot);
    assert!(slots.reserve(key(9), |_| true).is_some(), "but room is made");
}

#[test]
fn of_two_claims_to_one_frame_one_is_kept() {
    let mut recovery = Slots::recovering(4);
    recovery.add(1, claim(7));
    recovery.add(3, claim(7));
    let slots = recovery.finish();
    assert_eq!((slots.used(), slots.find(&key(7))), (1, Some(1)));
    slots.self_check();
}

#[test]
fn a_recovered_slot_is_not_valid_until_it_was_verified() {
    let mut recovery = Slots::recovering(1);
    recovery.add(0, claim(7));
    let mut slots = recovery.finish();
    assert!(!slots.pin(&key(7)).expect("claimed").is_valid);
    slots.set_valid(0);
    assert!(slots.pin(&key(7)).expect("claimed").is_valid);
}

#[test]
fn dirty_pages_come_in_runs_and_only_once() {
    let mut slots = Slots::new(6 * ENTRIES_PER_PAGE + 1);
    [0, 1, 2, 4, 6].into_iter().for_each(|page| slots.mark_dirty(page));
    let runs =
        |slots: &mut Slots, from| slots.take_dirty(from, 2).map(|(run, all)| (run, all.len()));
    assert_eq!(runs(&mut slots, 0), Some((0..2, 64)));
    assert_eq!(runs(&mut slots, 3), Some((4..5, 32)));
    assert_eq!(runs(&mut slots, 5), Some((6..7, 1)), "the last page is not full");
    assert_eq!(runs(&mut slots, 0), Some((2..3, 32)));
    assert_eq!(runs(&mut slots, 0), None);
}

#[derive(Clone, Debug)]
enum Op {
    Reserve(u32),
    Finish { oldest: bool, is_written: bool },
    Pin(u32),
    Unpin(usize),
    Doom(u32),
    RemoveImage(u32),
    Flush,
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let frame = 0..24_u32;
    prop_oneof![
        6 => frame.clone().prop_map(Op::Reserve),
        5 => any::<(bool, bool)>().prop_map(|(oldest, ok)| Op::Finish { oldest, is_written: ok }),
        4 => frame.clone().prop_map(Op::Pin),
        4 => any::<usize>().prop_map(Op::Unpin),
        2 => frame.prop_map(Op::Doom),
        1 => (0..3_u32).prop_map(Op::RemoveImage),
        1 => Just(Op::Flush),
        1 => Just(Op::Restart),
    ]
}

/// The twin: what each slot holds on the SSD's index, who is reading and who is writing.
#[derive(Default)]
struct Twin {
    on_ssd: BTreeMap<u32, FrameClaim>,
    writing: Vec<(u32, u32)>,
    reading: Vec<(u32, FrameClaim)>,
}

impl Twin {
    fn is_in_use(&self, slot: u32) -> bool {
        self.writing.iter().any(|w| w.0 == slot) || self.reading.iter().any(|r| r.0 == slot)
    }

    fn flush(&mut self, slots: &mut Slots) {
        while let Some((pages, claims)) = slots.take_dirty(0, 8) {
            for (slot, claim) in (pages.start * ENTRIES_PER_PAGE..).zip(claims) {
                match claim {
                    Some(claim) => self.on_ssd.insert(slot, claim),
                    None => self.on_ssd.remove(&slot),
                };
            }
        }
    }

    /// Invariant 3, seen from outside: after a flush the SSD says what memory does.
    fn check_flushed(&self, slots: &Slots) {
        for (slot, entry) in (0..).zip(&slots.table) {
            assert_eq!(self.on_ssd.get(&slot), entry.entry().as_ref(), "slot {slot}");
        }
    }
}

proptest! {
    #[test]
    fn slots_keep_their_invariants(ops in prop::collection::vec(op(), 1..150), count in 1_u32..12) {
        let (mut slots, mut twin) = (Slots::new(count), Twin::default());
        for op in ops {
            match op {
                Op::Reserve(frame) => {
                    if !slots.touch(&key(frame)) {
                        let slot = slots.reserve(key(frame), |key| key.frame % 5 == 0);
                        if let Some(slot) = slot {
                            prop_assert!(!twin.is_in_use(slot), "slot {slot} is in use");
                            twin.writing.push((slot, frame));
                        } else {
                            prop_assert!((0..count).all(|slot| twin.is_in_use(slot)));
                        }
                    }
                }
                Op::Finish { oldest, is_written } if !twin.writing.is_empty() => {
                    let at = if oldest { 0 } else { twin.writing.len() - 1 };
                    let (slot, frame) = twin.writing.remove(at);
                    if is_written {
                        slots.commit(slot, claim(frame));
                    } else {
                        slots.doom(slot);
                    }
                    slots.unpin(slot);
                }
                Op::Pin(frame) => {
                    if let Some(pinned) = slots.pin(&key(frame)) {
                        prop_assert_eq!(pinned.claim, claim(frame));
                        prop_assert!(!twin.writing.iter().any(|w| w.0 == pinned.slot));
                        twin.reading.push((pinned.slot, pinned.claim));
                    }
                }
                Op::Unpin(at) if !twin.reading.is_empty() => {
                    let (slot, _) = twin.reading.swap_remove(at % twin.reading.len());
                    slots.unpin(slot);
                }
                Op::Doom(slot) => {
                    slots.doom(slot % count);
                }
                Op::RemoveImage(image) => {
                    let image = key(image).image;
                    slots.remove_image(image, 0..count);
                    let live = slots.table.iter().filter_map(Slot::entry);
                    prop_assert!(live.into_iter().all(|claim| claim.key.image != image));
                }
                Op::Flush => {
                    twin.flush(&mut slots);
                    twin.check_flushed(&slots);
                }
                Op::Restart => {
                    let mut recovery = Slots::recovering(count);
                    twin.on_ssd.iter().for_each(|(slot, claim)| recovery.add(*slot, *claim));
                    slots = recovery.finish();
                    twin.writing.clear();
                    twin.reading.clear();
                    let mut states = slots.table.iter().map(|slot| slot.state);
                    prop_assert!(states.all(|s| matches!(s, State::Free | State::Claimed)));
                    // Duplicate claims stay on the SSD until their page is written again.
                    (0..count.div_ceil(ENTRIES_PER_PAGE)).for_each(|page| slots.mark_dirty(page));
                }
                Op::Finish { .. } | Op::Unpin(_) => {}
            }
            slots.self_check();
        }
    }
}
