//! The JSON-RPC control socket that the client of SPDK talks to.
#![forbid(unsafe_code)]
