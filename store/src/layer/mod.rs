//! Stores that wrap a store and add one thing each.

pub(crate) mod faulty;
pub(crate) mod metrics;
pub(crate) mod retry;
