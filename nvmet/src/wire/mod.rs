//! The formats of NVMe base 2.0 and NVMe/TCP 1.0.
