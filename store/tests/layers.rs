//! The conformance suite over the store in memory and over stacks of layers.

use std::sync::Arc;
use std::time::Duration;

use lsvd_store::{
    FaultRates, FaultyStore, MemStore, MeteredStore, ObjectStore, Op, RetryPolicy, RetryingStore,
    conformance,
};

fn retrying(inner: Arc<dyn ObjectStore>) -> Arc<RetryingStore> {
    Arc::new(RetryingStore::new(inner, RetryPolicy::default()))
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    let store = MemStore::new();
    conformance::run_across(Arc::new(store.clone()), Arc::new(store)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_the_contract_between_threads() {
    conformance::run(Arc::new(MemStore::new())).await;
}

#[tokio::test]
async fn retry_over_metrics_keeps_the_contract() {
    let metered = Arc::new(MeteredStore::new(Arc::new(MemStore::new())));
    conformance::run(retrying(Arc::clone(&metered) as Arc<dyn ObjectStore>)).await;
    let snapshot = metered.snapshot();
    let idle: Vec<Op> = Op::ALL.into_iter().filter(|op| snapshot.op(*op).ok == 0).collect();
    assert_eq!(idle, [Op::Open], "every operation went through and was counted");
}

/// The same contract over a store that loses requests, answers and time: what the retries are for.
#[tokio::test(start_paused = true)]
async fn retry_over_faults_keeps_the_contract() {
    let rates = FaultRates {
        before: 0.1,
        after: 0.1,
        delay: 0.1,
        late: 0.0,
        delay_max: Duration::from_secs(2),
    };
    for seed in 0..3 {
        let faulty = FaultyStore::seeded(Arc::new(MemStore::new()), seed, rates);
        conformance::run(retrying(Arc::new(faulty))).await;
    }
}
