//! A connection without a socket, for tests and fuzzing: bytes go in, in any pieces, and come out.
//!
//! Does not: keep time, wait, or limit what is delivered at once; that is the driver's job.
//! Invariants: after each call nothing can be done without more bytes, or something that happens
//! elsewhere: a completion, or a change of the target.

use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::BytesMut;
use lsvd_buf::BufPool;

use super::Session;
use crate::driver::Ended;
use crate::error::Error;
use crate::target::{Origin, Target};

/// One connection to a target.
pub struct Loopback {
    pub(crate) session: Session,
    input: BytesMut,
    payload_peak: usize,
}

impl Loopback {
    /// A connection that was just made.
    #[must_use]
    pub fn new(target: Arc<Target>, origin: Origin) -> Self {
        let session = Session::new(target, origin, BufPool::new(0));
        Self { session, input: BytesMut::new(), payload_peak: 0 }
    }

    /// Delivers bytes of the peer and returns what is sent. Once the connection ends, the rest of
    /// the bytes is ignored.
    pub fn deliver(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut sent = Vec::new();
        while !bytes.is_empty() && self.session.is_running() {
            let taken = match self.session.payload_target(&self.input) {
                Some(target) => {
                    let taken = target.len().min(bytes.len());
                    target[..taken].copy_from_slice(&bytes[..taken]);
                    self.session.payload_arrived(taken);
                    taken
                }
                None => {
                    self.input.extend_from_slice(bytes);
                    bytes.len()
                }
            };
            bytes = &bytes[taken..];
            self.session.bytes_arrived();
            self.collect_into(&mut sent);
        }
        sent
    }

    /// What is sent without more bytes of the peer.
    pub fn collect(&mut self) -> Vec<u8> {
        let mut sent = Vec::new();
        self.collect_into(&mut sent);
        sent
    }

    fn collect_into(&mut self, sent: &mut Vec<u8>) {
        let context = Context::from_waker(Waker::noop());
        loop {
            while self.session.take_commands(&mut self.input) | self.session.poll(&context) {
                self.note_payload();
            }
            self.note_payload();
            if self.session.outbox.is_empty() {
                return;
            }
            sent.extend(self.session.outbox.drain());
        }
    }

    fn note_payload(&mut self) {
        self.payload_peak = self.payload_peak.max(self.session.payload_bytes());
    }

    /// Whether more bytes are taken.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.session.is_running()
    }

    /// How the connection ended, once, when everything that was begun is done and sent.
    pub fn take_end(&mut self) -> Option<Result<Ended, Error>> {
        self.session.take_end()
    }

    /// Bytes that were delivered and wait for the rest of their PDU.
    #[must_use]
    pub fn received_bytes(&self) -> usize {
        self.input.len()
    }

    /// Bytes of payload and replies that are held now.
    #[must_use]
    pub fn payload_held(&self) -> usize {
        self.session.payload_bytes()
    }

    /// The most bytes of payload and replies that were held at one time.
    #[must_use]
    pub fn payload_peak(&self) -> usize {
        self.payload_peak
    }

    /// Commands in flight; held event requests do not count.
    #[must_use]
    pub fn commands_in_flight(&self) -> usize {
        self.session.in_flight
    }
}
