//! The RADOS backend on a real cluster: the one that `CEPH_CONF` names, in the pool of
//! `LSVD_TEST_RADOS_POOL`. `cargo xtask test` starts one; without, each test says that it was
//! skipped.

use std::sync::Arc;
use std::time::Duration;

use lsvd_rados::ConnectOptions;
use lsvd_store::{ErrorKind, ObjectStore, PutMode, RadosStore, conformance};

/// A store of the test cluster, in a namespace of its own.
fn open(namespace: &str) -> Option<RadosStore> {
    open_with(namespace, ConnectOptions::default())
}

fn open_with(namespace: &str, options: ConnectOptions) -> Option<RadosStore> {
    let Some(pool) = std::env::var("LSVD_TEST_RADOS_POOL").ok().filter(|pool| !pool.is_empty())
    else {
        eprintln!("skipped: no Ceph cluster (LSVD_TEST_RADOS_POOL is not set)");
        return None;
    };
    let conf = std::env::var_os("CEPH_CONF").map(Into::into);
    let options = ConnectOptions { conf, ..options };
    Some(RadosStore::open(&pool, Some(namespace), &options).expect("the cluster is there"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rados_keeps_the_contract_between_two_clients() {
    // Equal options would share one connection.
    let other = ConnectOptions { op_timeout: Duration::from_secs(29), ..ConnectOptions::default() };
    let (Some(writer), Some(reader)) = (open("conformance"), open_with("conformance", other))
    else {
        return;
    };
    conformance::run_across(Arc::new(writer), Arc::new(reader)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_pool_is_named_with_the_command_that_makes_it() {
    if open("pools").is_none() {
        return;
    }
    let conf = std::env::var_os("CEPH_CONF").map(Into::into);
    let options = ConnectOptions { conf, ..ConnectOptions::default() };
    let error = RadosStore::open("no-such-pool", None, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("ceph osd pool create no-such-pool"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_beyond_the_clusters_limit_is_refused_and_nothing_is_there() {
    let Some(store) = open("large") else { return };
    // osd_max_write_size is 90 MiB unless somebody changed it.
    let body = bytes::Bytes::from(vec![7_u8; 100 << 20]);
    let error = store.put("large", body.into(), PutMode::Create).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert_eq!(store.head("large").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_whose_futures_are_dropped_do_no_harm() {
    let Some(store) = open("dropped") else { return };
    let store = Arc::new(store);
    let body = bytes::Bytes::from(vec![3_u8; 1 << 20]);
    for number in 0..16 {
        let (store, body) = (Arc::clone(&store), body.clone());
        let put = tokio::spawn(async move {
            let name = format!("dropped/{number}");
            store.put(&name, body.into(), PutMode::Create).await
        });
        tokio::task::yield_now().await;
        put.abort();
    }
    for number in 0..16 {
        let name = format!("dropped/{number}");
        // Whatever became of it: whole or not there.
        match store.get(&name).await {
            Ok(object) => assert_eq!(object.body.len(), 1 << 20),
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
        }
        drop(store.delete(&name).await);
    }
}
