//! An NVMe/TCP target: the protocol core, and a thin driver.
#![forbid(unsafe_code)]

pub mod wire;
