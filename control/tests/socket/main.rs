//! The control socket over a real unix socket, with a gateway in memory behind it.

mod ana;
mod clients;
mod configuration;
mod fake;
mod framing;
mod methods;
mod server;
mod shapes;
