//! The real engine in a simulated world: disks that tear and forget, a store that is slow and loses
//! answers, gateways that crash at any moment and come back, and a model of what must be left of
//! the image.
//!
//! A run is a function of its seed: time is simulated, one thread runs everything, and all dice are
//! drawn from the seed.
//!
//! ```
//! let outcome = lsvd_sim::run_seed(1, false).expect("no promise is broken");
//! assert_eq!(outcome.trace_hash, lsvd_sim::run_seed(1, false).expect("again").trace_hash);
//! ```
#![forbid(unsafe_code)]

mod coverage;
mod disk;
mod gateway;
mod generation;
mod model;
mod plan;
mod run;
mod store;
mod world;

pub use coverage::Coverage;
pub use plan::Scenario;
#[cfg(feature = "canary")]
pub use run::run_canary;
pub use run::{Failure, Outcome, run_scenario, run_seed};
