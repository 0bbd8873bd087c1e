//! The write log on the SSD: allocation in the ring, group commit, and the scan after a crash.

pub(crate) mod ring;
pub(crate) mod scan;
pub(crate) mod writer;
