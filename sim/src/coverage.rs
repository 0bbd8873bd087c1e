//! What a number of runs went through. A simulator that never gets somewhere finds nothing there.

use std::fmt;

macro_rules! coverage {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts of what happened, summed over runs.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Coverage {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Coverage {
            /// Adds the counts of another run.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// All counts by name.
            #[must_use]
            pub fn counts(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

coverage! {
    /// Seeds that were run.
    seeds,
    /// Operations that disks and store were asked for.
    operations,
    /// Writes and discards submitted.
    writes,
    /// Reads checked.
    reads,
    /// Flushes acknowledged.
    flushes,
    /// Resizes acknowledged.
    resizes,
    /// Recoveries that found the old size after a resize without an answer.
    lost_resizes,
    /// Recoveries that found the new one.
    landed_resizes,
    /// Times the image was opened.
    opens,
    /// Opens that ended in an error.
    failed_opens,
    /// Opens that were refused because another gateway has the image.
    refused_opens,
    /// Opens that took the image over.
    takeovers,
    /// Opens and crashes in their middle.
    open_cuts,
    /// Clean closes.
    closes,
    /// Closes with a crash in their middle.
    close_cuts,
    /// Processes killed.
    process_crashes,
    /// Power failures.
    power_crashes,
    /// SSDs lost.
    wipes,
    /// Writes of which a crash kept a part.
    torn_writes,
    /// Writes that a crash lost as a whole.
    lost_writes,
    /// Recoveries that lost acknowledged operations that no flush covered.
    shorter_recoveries,
    /// Recoveries that replayed log records.
    log_replays,
    /// Log records replayed.
    replayed_records,
    /// Recoveries that replayed objects behind a checkpoint.
    object_replays,
    /// Recoveries that found objects behind a gap.
    leftovers,
    /// Recoveries that started from an earlier checkpoint than the newest.
    checkpoint_fallbacks,
    /// Logs set aside.
    stranded_logs,
    /// Gateways that learned that they were fenced.
    fenced,
    /// Volumes that failed after an error of the SSD.
    failed_volumes,
    /// Checkpoints stored.
    checkpoints,
    /// Data objects stored.
    objects,
    /// Times around the ring of a log.
    log_wraps,
    /// Store requests refused.
    store_refusals,
    /// Store answers lost.
    store_answers_lost,
    /// Requests that landed after their gateway was gone.
    landed_late,
    /// Objects put over a leftover.
    objects_replaced,
    /// Disk operations that failed.
    disk_errors,
    /// Frames that the cache on the SSD answered.
    cache_hits,
    /// Slots of the cache that were found damaged.
    cache_damage,
    /// Damaged logs, and how many of them were refused.
    log_damage,
    /// See above.
    log_damage_refused,
    /// Damaged objects, and reads or opens that reported it.
    store_damage,
    /// See above.
    store_damage_reported,
    /// Volumes that settled after the faults stopped, and were then idle.
    settled,
}

impl Coverage {
    /// The counts that are still zero.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        self.counts().into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, count)) in self.counts().into_iter().enumerate() {
            let end = if index % 3 == 2 { "\n" } else { "  " };
            write!(f, "{name:>22} {count:>11}{end}")?;
        }
        Ok(())
    }
}
