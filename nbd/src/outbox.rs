//! Replies that wait for the socket, sent many at a time and without copying their payloads.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use crate::limits::SLICES_MAX;
use crate::reply::Reply;

/// A queue of replies. Its length is bounded by the requests that the connection admits.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    replies: VecDeque<Reply>,
    /// Bytes of the first reply that have been sent.
    sent: usize,
    /// Bytes of all replies here.
    bytes: usize,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    /// Bytes that wait, the sent part of the first reply included.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn push(&mut self, reply: Reply) {
        self.bytes += reply.len();
        self.replies.push_back(reply);
    }

    /// Forgets everything, with each reply's release.
    pub(crate) fn discard(&mut self, mut released: impl FnMut(&Reply)) {
        self.replies.drain(..).for_each(|reply| released(&reply));
        (self.sent, self.bytes) = (0, 0);
    }

    /// Writes as much as `stream` takes in one go; `released` sees each reply that is through.
    pub(crate) fn poll_send<S: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut S,
        released: impl FnMut(&Reply),
    ) -> Poll<io::Result<()>> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = self.fill(&mut slices);
        let stream = Pin::new(stream);
        let written = ready!(stream.poll_write_vectored(context, &slices[..count]))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(written, released);
        Poll::Ready(Ok(()))
    }

    /// Fills in what is to be sent next, without empty slices: some streams look at the first only.
    fn fill<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let parts = self.replies.iter().flat_map(|reply| [reply.head(), &reply.payload()[..]]);
        let mut skip = self.sent;
        let unsent = parts.map(|part| {
            let cut = skip.min(part.len());
            skip -= cut;
            &part[cut..]
        });
        let mut count = 0;
        for (slice, part) in slices.iter_mut().zip(unsent.filter(|part| !part.is_empty())) {
            *slice = IoSlice::new(part);
            count += 1;
        }
        count
    }

    fn advance(&mut self, written: usize, mut released: impl FnMut(&Reply)) {
        self.sent += written;
        while let Some(reply) = self.replies.front() {
            let len = reply.len();
            if self.sent < len {
                break;
            }
            self.sent -= len;
            self.bytes -= len;
            released(reply);
            self.replies.pop_front();
        }
    }
}

#[cfg(test)]
mod test {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::reply::{Answer, Shape, Style, Tag};

    fn reply(cookie: u64, len: u32) -> Reply {
        let data = Bytes::from(vec![u8::try_from(cookie & 0xff).unwrap(); len as usize]);
        let tag = Tag { cookie, shape: Shape::Read { offset: 0, len } };
        Reply::new(Style::Simple, tag, Ok(Answer::Data(data)))
    }

    proptest! {
        #[test]
        fn partial_writes_send_every_byte_once_and_release_every_reply(
            lens in prop::collection::vec(0u32..40, 1..150),
            steps in prop::collection::vec(1usize..100, 1..50),
        ) {
            let mut outbox = Outbox::default();
            let mut expected = Vec::new();
            for (cookie, len) in lens.iter().enumerate() {
                let reply = reply(cookie as u64, *len);
                expected.extend_from_slice(reply.head());
                expected.extend_from_slice(reply.payload());
                outbox.push(reply);
            }
            let (mut sent, mut released, mut steps) = (Vec::new(), 0, steps.iter().cycle());
            while !outbox.is_empty() {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let count = outbox.fill(&mut slices);
                let offered: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
                let take = (*steps.next().unwrap()).min(offered.len());
                sent.extend_from_slice(&offered[..take]);
                outbox.advance(take, |_| released += 1);
            }
            prop_assert_eq!(sent, expected);
            prop_assert_eq!(released, lens.len());
            prop_assert_eq!((outbox.sent, outbox.bytes()), (0, 0));
        }
    }
}
