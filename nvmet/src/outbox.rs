//! Replies that wait for the socket, sent many at a time and without copying their payloads.
//!
//! Headers, digests and response capsules of consecutive replies are kept in one piece, so that a
//! hundred completions without data are one slice to the kernel.
//!
//! Does not: limit itself; the session takes no more commands while `bytes` is beyond its gate.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use crate::limits::SLICES_MAX;

/// A queue of bytes in the order in which they are to be sent.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// All control bytes that wait, in order.
    control: BytesMut,
    /// How control bytes and payloads alternate. Each segment is its control bytes, then its
    /// payload.
    segments: VecDeque<Segment>,
    /// Control bytes behind the last segment.
    open: usize,
    /// All bytes that wait.
    bytes: usize,
}

#[derive(Debug)]
struct Segment {
    control: usize,
    payload: Bytes,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends control bytes with an encoder that writes to the end of the buffer.
    pub(crate) fn control(&mut self, encode: impl FnOnce(&mut BytesMut)) {
        let before = self.control.len();
        encode(&mut self.control);
        let added = self.control.len() - before;
        self.open += added;
        self.bytes += added;
    }

    /// Appends a payload without copying it.
    pub(crate) fn payload(&mut self, payload: Bytes) {
        if payload.is_empty() {
            return;
        }
        self.bytes += payload.len();
        self.segments.push_back(Segment { control: std::mem::take(&mut self.open), payload });
    }

    /// Forgets everything.
    pub(crate) fn discard(&mut self) {
        *self = Self::default();
    }

    /// Writes as much as `stream` takes in one go.
    pub(crate) fn poll_send<S: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<()>> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = self.fill(&mut slices);
        let stream = Pin::new(stream);
        let written = if count == 1 {
            ready!(stream.poll_write(context, &slices[0]))?
        } else {
            ready!(stream.poll_write_vectored(context, &slices[..count]))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(written);
        Poll::Ready(Ok(()))
    }

    /// Fills in what is to be sent next, without empty slices: some streams look at the first only.
    fn fill<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let mut control = &self.control[..];
        let mut count = 0;
        let mut push = |part: &'a [u8]| {
            if !part.is_empty() {
                slices[count] = IoSlice::new(part);
                count += 1;
            }
            count < SLICES_MAX - 1
        };
        for segment in &self.segments {
            let (head, rest) = control.split_at(segment.control);
            control = rest;
            push(head);
            if !push(&segment.payload) {
                return count;
            }
        }
        push(control);
        count
    }

    fn advance(&mut self, written: usize) {
        self.bytes -= written;
        let mut left = written;
        while left > 0 {
            let Some(segment) = self.segments.front_mut() else {
                self.open -= left;
                self.control.advance(left);
                break;
            };
            let head = left.min(segment.control);
            segment.control -= head;
            self.control.advance(head);
            left -= head;
            let body = left.min(segment.payload.len());
            segment.payload.advance(body);
            left -= body;
            if segment.payload.is_empty() {
                self.segments.pop_front();
            }
        }
        if self.control.is_empty() {
            // Otherwise the buffer would walk through its memory and be moved now and then.
            self.control.clear();
        }
    }

    /// Everything that waits, as one piece.
    #[cfg(any(test, feature = "loopback"))]
    pub(crate) fn drain(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while !self.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.fill(&mut slices);
            let before = all.len();
            slices[..count].iter().for_each(|slice| all.extend_from_slice(slice));
            let taken = all.len() - before;
            self.advance(taken);
        }
        all
    }
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn partial_writes_send_every_byte_once_and_in_order(
            parts in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 1..400),
            steps in prop::collection::vec(1usize..100, 1..50),
        ) {
            let (mut outbox, mut expected) = (Outbox::default(), Vec::new());
            for (is_payload, part) in parts {
                expected.extend_from_slice(&part);
                if is_payload {
                    outbox.payload(Bytes::from(part));
                } else {
                    outbox.control(|control| control.extend_from_slice(&part));
                }
            }
            prop_assert_eq!(outbox.bytes(), expected.len());
            let (mut sent, mut steps) = (Vec::new(), steps.iter().cycle());
            while !outbox.is_empty() {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let count = outbox.fill(&mut slices);
                prop_assert!(slices[..count].iter().all(|slice| !slice.is_empty()));
                let offered: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
                let take = (*steps.next().unwrap()).min(offered.len());
                sent.extend_from_slice(&offered[..take]);
                outbox.advance(take);
            }
            prop_assert_eq!(sent, expected);
        }
    }
}
