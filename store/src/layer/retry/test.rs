use super::*;
use crate::{Fault, FaultRates, FaultyStore, MemStore};

struct World {
    memory: MemStore,
    faulty: Arc<FaultyStore>,
    store: RetryingStore,
}

fn world() -> World {
    let memory = MemStore::new();
    let faulty = Arc::new(FaultyStore::scripted(Arc::new(memory.clone())));
    let inner = Arc::clone(&faulty) as Arc<dyn ObjectStore>;
    World { memory, faulty, store: RetryingStore::new(inner, RetryPolicy::default()) }
}

fn ours() -> Bytes {
    Bytes::from_static(b"ours")
}

fn theirs() -> Bytes {
    Bytes::from_static(b"theirs")
}

#[tokio::test(start_paused = true)]
async fn a_passing_fault_is_not_seen() {
    let World { memory, faulty, store } = world();
    for _ in 0..3 {
        faulty.next(Op::Put, Fault::Before(ErrorKind::Unavailable));
        faulty.next(Op::Get, Fault::Before(ErrorKind::Unavailable));
        faulty.next(Op::List, Fault::Before(ErrorKind::Unavailable));
    }
    let version = store.put("a", ours().into(), PutMode::Create).await.unwrap();
    assert_eq!(store.get("a").await.unwrap().version, version);
    assert_eq!(store.list("", None, None, 9).await.unwrap().objects.len(), 1);
    assert_eq!(memory.head("a").await.unwrap().version, version);
}

#[tokio::test(start_paused = true)]
async fn a_create_that_landed_without_an_answer_succeeds() {
    let World { memory, faulty, store } = world();
    faulty.next(Op::Put, Fault::After(ErrorKind::Ambiguous));
    faulty.next(Op::Get, Fault::Before(ErrorKind::Unavailable));
    let version = store.put("a", ours().into(), PutMode::Create).await.unwrap();
    assert_eq!(memory.head("a").await.unwrap().version, version);
}

#[tokio::test(start_paused = true)]
async fn a_swap_that_landed_without_an_answer_succeeds() {
    let World { memory, faulty, store } = world();
    let first = store.put("a", theirs().into(), PutMode::Create).await.unwrap();
    faulty.next(Op::Put, Fault::After(ErrorKind::Ambiguous));
    let second = store.put("a", ours().into(), PutMode::IfMatch(first)).await.unwrap();
    let stored = memory.get("a").await.unwrap();
    assert_eq!((stored.body, stored.version), (ours(), second));
}

#[tokio::test(start_paused = true)]
async fn others_content_is_not_taken_for_ours() {
    let World { memory, faulty, store } = world();
    memory.put("a", theirs().into(), PutMode::Create).await.unwrap();
    faulty.next(Op::Put, Fault::After(ErrorKind::Ambiguous));
    let error = store.put("a", ours().into(), PutMode::Create).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    faulty.next(Op::Put, Fault::Before(ErrorKind::Unavailable));
    let error =
        store.put("a", ours().into(), PutMode::IfMatch(Version::new("?"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PreconditionFailed);
}

#[tokio::test(start_paused = true)]
async fn a_body_in_parts_is_recognised_by_every_byte_of_it() {
    let parts = |last| Payload::from_iter(["many", "", "parts", last].map(Bytes::from));
    let World { memory, faulty, store } = world();
    faulty.next(Op::Put, Fault::After(ErrorKind::Ambiguous));
    let version = store.put("a", parts("end"), PutMode::Create).await.unwrap();
    assert_eq!(memory.head("a").await.unwrap().version, version);

    for others in ["manypartsEnd", "Manypartsend", "manyparts", "manypartsend+", ""] {
        let World { memory, faulty, store } = world();
        memory.put("a", Bytes::from(others).into(), PutMode::Create).await.unwrap();
        faulty.next(Op::Put, Fault::Before(ErrorKind::Unavailable));
        let error = store.put("a", parts("end"), PutMode::Create).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{others:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_answer_that_the_name_is_taken_stands_even_for_equal_content() {
    let World { memory, store, .. } = world();
    memory.put("a", ours().into(), PutMode::Create).await.unwrap();
    let error = store.put("a", ours().into(), PutMode::Create).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
}

#[tokio::test(start_paused = true)]
async fn doubt_outlives_every_later_failure() {
    for later in [ErrorKind::Denied, ErrorKind::Full, ErrorKind::Unavailable] {
        let World { memory, faulty, store } = world();
        faulty.next(Op::Put, Fault::After(ErrorKind::Ambiguous));
        for _ in 0..1_000 {
            faulty.next(Op::Put, Fault::Before(later));
        }
        let error = store.put("a", ours().into(), PutMode::Create).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Ambiguous, "after {later}");
        memory.head("a").await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn without_doubt_the_last_failure_is_reported_as_it_is() {
    let World { faulty, store, .. } = world();
    faulty.next(Op::Put, Fault::Before(ErrorKind::Unavailable));
    faulty.next(Op::Put, Fault::Before(ErrorKind::Full));
    let error = store.put("a", ours().into(), PutMode::Create).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_hangs_is_given_up_and_its_late_landing_recognised() {
    let World { memory, faulty, store } = world();
    faulty.next(Op::Put, Fault::Late(Duration::from_millis(10)));
    let version = store.put("a", ours().into(), PutMode::Create).await.unwrap();
    assert_eq!(memory.head("a").await.unwrap().version, version);

    let hang = RetryPolicy::default().attempt_max * 2;
    faulty.next(Op::Get, Fault::Delay(hang));
    let started = Instant::now();
    store.get("a").await.unwrap();
    assert!(started.elapsed() < hang);
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_landed_without_an_answer_succeeds_and_a_first_not_found_stands() {
    let World { memory, faulty, store } = world();
    memory.put("a", ours().into(), PutMode::Create).await.unwrap();
    faulty.next(Op::Delete, Fault::After(ErrorKind::Ambiguous));
    store.delete("a").await.unwrap();
    assert!(store.delete("a").await.unwrap_err().is_not_found());
}

#[tokio::test(start_paused = true)]
async fn an_outage_shorter_than_the_deadline_is_survived_and_a_longer_one_reported_in_time() {
    let World { faulty, store, .. } = world();
    let deadline = RetryPolicy::default().deadline;
    faulty.begin_outage(ErrorKind::Unavailable, Some(deadline / 2));
    store.put("a", ours().into(), PutMode::Create).await.unwrap();

    faulty.begin_outage(ErrorKind::Unavailable, None);
    let started = Instant::now();
    let error = store.get("a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(started.elapsed() <= deadline && started.elapsed() > deadline / 2);
}

/// The property that the engine lives on, with a store that loses every third answer.
#[tokio::test(start_paused = true)]
async fn every_acknowledged_put_is_there_and_every_refused_one_is_not() {
    let rates = FaultRates {
        before: 0.2,
        after: 0.3,
        delay: 0.2,
        late: 0.1,
        delay_max: Duration::from_secs(40),
    };
    for seed in 0..20 {
        let memory = MemStore::new();
        let faulty = FaultyStore::seeded(Arc::new(memory.clone()), seed, rates);
        let policy = RetryPolicy { seed, ..RetryPolicy::default() };
        let store = RetryingStore::new(Arc::new(faulty), policy);
        let mut version = store.put("n", Bytes::from("0").into(), PutMode::Create).await.unwrap();
        for n in 1..40 {
            let body = Bytes::from(n.to_string());
            version = store.put("n", body.clone().into(), PutMode::IfMatch(version)).await.unwrap();
            let stored = memory.get("n").await.unwrap();
            assert_eq!((stored.body, stored.version), (body, version.clone()), "seed {seed}");
        }
    }
}
