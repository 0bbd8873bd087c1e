//! A minimal NVMe/TCP initiator for tests and benches.
#![forbid(unsafe_code)]
