//! Random use, crashes and damage: what comes out is what went in, or nothing.

use proptest::prelude::*;

use super::*;

/// Few enough that slots are fought for.
const KEYS: u32 = 24;
const SLOTS: u32 = 9;

#[derive(Clone, Debug)]
enum Op {
    Insert {
        frame: u32,
        is_scan: bool,
    },
    Get {
        frame: u32,
        from: usize,
        sectors: usize,
    },
    Settle,
    Flush,
    RemoveImage(u32),
    /// Turns bits of a byte anywhere on the disk.
    Damage {
        at: usize,
        flip: u8,
    },
    /// Copies a page over another: right checksums in the wrong place.
    Misplace {
        from: usize,
        to: usize,
    },
    Close,
    Kill,
    LosePower {
        keep: u64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let insert = (0..KEYS, any::<bool>());
    let get = (0..KEYS, 0..128_usize, 1..=128_usize);
    prop_oneof![
        10 => insert.prop_map(|(frame, is_scan)| Op::Insert { frame, is_scan }),
        10 => get.prop_map(|(frame, from, sectors)| Op::Get { frame, from, sectors }),
        4 => Just(Op::Settle),
        2 => Just(Op::Flush),
        1 => (0..KEYS).prop_map(Op::RemoveImage),
        1 => (any::<usize>(), 1..=u8::MAX).prop_map(|(at, flip)| Op::Damage { at, flip }),
        1 => any::<(usize, usize)>().prop_map(|(from, to)| Op::Misplace { from, to }),
        1 => Just(Op::Close),
        1 => Just(Op::Kill),
        1 => any::<u64>().prop_map(|keep| Op::LosePower { keep }),
    ]
}

/// Some frames are short, some have the same bytes but for their first page.
fn content(frame: u32) -> (FrameKey, Vec<u8>) {
    let key = test_key(u128::from(frame % 3), frame);
    let len = if frame.is_multiple_of(4) { 512 * (1 + frame as usize * 5) } else { FRAME };
    (key, frame_of(&key, len))
}

async fn check_get(cache: &ReadCache, frame: u32, within: std::ops::Range<usize>) {
    let (key, bytes) = content(frame);
    let found = cache.get(&key, within.clone()).await;
    let right = bytes.get(within.clone());
    assert!(found.is_none() || found.as_deref() == right, "frame {frame}, {within:?}");
}

async fn run(ops: Vec<Op>, ram_frames: u64) {
    let disk = disk_of(SLOTS);
    let mut cache = open(&disk, ram_frames).await;
    for op in ops {
        match op {
            Op::Insert { frame, is_scan } => {
                let (key, bytes) = content(frame);
                let hint = if is_scan { Hint::Sequential } else { Hint::Random };
                cache.insert(key, &bytes, hint);
                let held = cache.stats().ram_bytes;
                assert!(held <= ram_frames * (FRAME as u64 + 312), "{held} bytes in RAM");
            }
            Op::Get { frame, from, sectors } => {
                check_get(&cache, frame, from * 512..(from + sectors) * 512).await;
            }
            Op::Settle => settle(&cache).await,
            Op::Flush => flush(&cache).await,
            Op::RemoveImage(frame) => cache.remove_image(content(frame).0.image),
            Op::Damage { at, flip } => disk.edit(|bytes| {
                let at = at % bytes.len();
                bytes[at] ^= flip;
            }),
            Op::Misplace { from, to } => disk.edit(|bytes| {
                let pages = bytes.len() / PAGE;
                let from = from % pages * PAGE;
                bytes.copy_within(from..from + PAGE, to % pages * PAGE);
            }),
            Op::Close => {
                cache.close().await;
                cache = open(&disk, ram_frames).await;
            }
            Op::Kill => {
                drop(cache);
                cache = open(&disk, ram_frames).await;
            }
            Op::LosePower { mut keep } => {
                drop(cache);
                // Writes that were on their way at the time of the drop may land before or after.
                if keep & 1 == 0 {
                    tokio::task::yield_now().await;
                }
                disk.lose_power(|| {
                    keep = keep.rotate_left(1);
                    keep & 1 == 1
                });
                cache = open(&disk, ram_frames).await;
            }
        }
    }
    for frame in 0..KEYS {
        check_get(&cache, frame, 0..content(frame).1.len()).await;
    }
    let stats = cache.stats();
    assert_eq!(stats.ram_misses, stats.ssd_hits + stats.ssd_misses);
    assert!(stats.slots_used <= stats.slots_total);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_comes_out_is_what_went_in_or_nothing(
        ops in prop::collection::vec(op(), 1..120),
        ram_frames in prop_oneof![Just(0_u64), Just(3)],
    ) {
        runtime().block_on(run(ops, ram_frames));
    }
}
