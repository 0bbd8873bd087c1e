//! System tests: the built gateway, real sockets, real files, and the clients that people use.
//!
//! Every gateway has a pool, a state directory and a socket of its own and is killed by its process
//! id when its test ends. A test whose client or privilege is missing says SKIPPED and why.
//! `LSVD_LONG=1` makes the load tests last as long as the acceptance runs; `LSVD_CRASH_ROUNDS=N`
//! repeats the crash loops so often.

mod ana;
mod client;
mod clients;
mod connections;
mod control;
mod crash;
mod damage;
mod fill_up;
mod fio;
mod gateway;
mod guest;
mod hostile;
mod idle;
mod lifecycle;
mod mixed;
mod model;
mod ownership;
mod place;
mod resize;
mod scale;
mod tools;
