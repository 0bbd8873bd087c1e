//! One fetch for all who miss the same thing at the same time.
//!
//! Does not: remember results; a caller that comes after the fetch has ended starts another. So a
//! fetch should first look where the last one has put its result.
//! Invariants: 1. Of all calls for a key that overlap, one is fetching. 2. A key is in the table
//! while somebody waits for it, and no longer.
//! Concurrency: the callers' own tasks do the work, one after the other by a lock for each key. A
//! leader that is dropped or panics makes the next in line the leader, with its own fetch. A leader
//! that is not polled holds up the others, so poll what you started or drop it; and a fetch must
//! not run another for the same key.

use std::collections::BTreeMap;
use std::collections::btree_map::{Entry as MapEntry, OccupiedEntry};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// Fetches in progress, by key.
#[derive(Debug)]
pub struct SingleFlight<K: Ord + Clone, E> {
    flights: Mutex<BTreeMap<K, Entry<E>>>,
}

#[derive(Debug)]
struct Entry<E> {
    flight: Arc<Flight<E>>,
    /// Callers that wait or fetch. Counted under the table's lock, where the count of the `Arc`
    /// could be read too early.
    seats: usize,
}

/// The result, once there is one; whoever holds the lock is fetching it.
type Flight<E> = tokio::sync::Mutex<Option<Result<Bytes, E>>>;

impl<K: Ord + Clone, E> Default for SingleFlight<K, E> {
    fn default() -> Self {
        Self { flights: Mutex::default() }
    }
}

impl<K: Ord + Clone, E: Clone> SingleFlight<K, E> {
    /// Runs `fetch`, or waits for the result of the one that runs already; failures are shared as
    /// well.
    ///
    /// # Errors
    /// Those of the fetch.
    pub async fn run<F, Fut>(&self, key: K, fetch: F) -> Result<Bytes, E>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Bytes, E>>,
    {
        let seat = self.sit_down(key);
        let mut result = seat.flight.lock().await;
        if let Some(result) = &*result {
            return result.clone();
        }
        let fetched = fetch().await;
        // Off the table first: who comes now must not get a result from before it asked.
        seat.with_entry(|entry| {
            entry.remove();
        });
        result.insert(fetched).clone()
    }

    /// Keys that somebody waits for.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.flights.lock().len()
    }

    fn sit_down(&self, key: K) -> Seat<'_, K, E> {
        let mut flights = self.flights.lock();
        let entry = flights
            .entry(key.clone())
            .or_insert_with(|| Entry { flight: Arc::default(), seats: 0 });
        entry.seats += 1;
        Seat { table: self, key, flight: Arc::clone(&entry.flight) }
    }
}

/// A caller's part in a flight.
struct Seat<'a, K: Ord + Clone, E> {
    table: &'a SingleFlight<K, E>,
    key: K,
    flight: Arc<Flight<E>>,
}

impl<K: Ord + Clone, E> Seat<'_, K, E> {
    /// Hands over the table's entry of this flight, if it is still there: the key may lead to a
    /// later one.
    fn with_entry(&self, change: impl FnOnce(OccupiedEntry<'_, K, Entry<E>>)) {
        if let MapEntry::Occupied(entry) = self.table.flights.lock().entry(self.key.clone())
            && Arc::ptr_eq(&entry.get().flight, &self.flight)
        {
            change(entry);
        }
    }
}

impl<K: Ord + Clone, E> Drop for Seat<'_, K, E> {
    fn drop(&mut self) {
        self.with_entry(|mut entry| {
            entry.get_mut().seats -= 1;
            if entry.get().seats == 0 {
                entry.remove();
            }
        });
    }
}

#[cfg(test)]
mod test {
    use std::cell::Cell;
    use std::future::{pending, ready};

    use super::*;

    type Flights = SingleFlight<u32, &'static str>;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
    }

    #[test]
    fn calls_that_overlap_share_one_fetch() {
        let (flights, fetches) = (Flights::default(), Cell::new(0));
        let fetch = async || {
            fetches.set(fetches.get() + 1);
            tokio::task::yield_now().await;
            Ok(Bytes::from_static(b"frame"))
        };
        let (a, b, c) = runtime().block_on(async {
            tokio::join!(flights.run(1, fetch), flights.run(1, fetch), flights.run(2, fetch))
        });
        assert_eq!([a, b, c], [const { Ok(Bytes::from_static(b"frame")) }; 3]);
        assert_eq!(fetches.get(), 2, "one for each key");
        assert_eq!(flights.in_flight(), 0);
    }

    #[test]
    fn a_failure_is_shared_but_not_remembered() {
        let flights = Flights::default();
        let fail = async || {
            tokio::task::yield_now().await;
            Err("store is away")
        };
        let never = async || -> Result<Bytes, &'static str> { panic!("fetched twice") };
        runtime().block_on(async {
            let (a, b) = tokio::join!(flights.run(1, fail), flights.run(1, never));
            assert_eq!((a, b), (Err("store is away"), Err("store is away")));
            let again = flights.run(1, || ready(Ok(Bytes::new()))).await;
            assert_eq!(again, Ok(Bytes::new()));
        });
    }

    #[test]
    fn a_follower_takes_over_from_a_dropped_leader() {
        let flights = Flights::default();
        runtime().block_on(async {
            let mut leader = Box::pin(flights.run(1, pending));
            assert!(poll_once(leader.as_mut()).await.is_none());
            let follower = flights.run(1, || ready(Ok(Bytes::from_static(b"mine"))));
            let mut follower = Box::pin(follower);
            assert!(poll_once(follower.as_mut()).await.is_none(), "it waits");
            drop(leader);
            assert_eq!(follower.await, Ok(Bytes::from_static(b"mine")));
        });
        assert_eq!(flights.in_flight(), 0);
    }

    #[test]
    fn a_late_follower_leaves_a_newer_flight_alone() {
        let flights = Flights::default();
        runtime().block_on(async {
            let mut leader = Box::pin(flights.run(1, || async {
                tokio::task::yield_now().await;
                Ok(Bytes::from_static(b"old"))
            }));
            assert!(poll_once(leader.as_mut()).await.is_none());
            let mut late = Box::pin(flights.run(1, pending));
            assert!(poll_once(late.as_mut()).await.is_none());
            assert_eq!(leader.await, Ok(Bytes::from_static(b"old")));
            let mut newer = Box::pin(flights.run(1, pending));
            assert!(poll_once(newer.as_mut()).await.is_none());
            assert_eq!(late.await, Ok(Bytes::from_static(b"old")));
            assert_eq!(flights.in_flight(), 1, "the newer one is still joined by others");
            drop(newer);
        });
        assert_eq!(flights.in_flight(), 0);
    }

    #[test]
    fn nothing_remains_when_all_are_dropped() {
        let flights = Flights::default();
        runtime().block_on(async {
            let mut calls: Vec<_> = (0..10).map(|_| Box::pin(flights.run(1, pending))).collect();
            for call in &mut calls {
                assert!(poll_once(call.as_mut()).await.is_none());
            }
            assert_eq!(flights.in_flight(), 1);
        });
        assert_eq!(flights.in_flight(), 0);
    }

    /// Polls once.
    async fn poll_once<T>(mut future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(match future.as_mut().poll(context) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
