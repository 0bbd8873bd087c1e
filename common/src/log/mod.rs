//! The write log on the SSD: two alternating superblocks in the first two pages, then a ring of
//! records.

pub mod header;
pub mod record;
