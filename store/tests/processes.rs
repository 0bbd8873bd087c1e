//! The file store between processes: this test binary starts itself several times over.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use lsvd_store::{ErrorKind, FileStore, ObjectStore, PutMode};

const POOL: &str = "LSVD_TEST_POOL";
const ROLE: &str = "LSVD_TEST_ROLE";
const PROCESSES: usize = 3;
const CREATES: usize = 60;
const SWAPS: u64 = 40;
const CHURNS: usize = 60;

fn start(role: usize, pool: &Path) -> Child {
    Command::new(std::env::current_exe().expect("a running test has a binary"))
        .args(["--exact", "competitor", "--ignored", "--nocapture"])
        .env(POOL, pool)
        .env(ROLE, role.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the test binary starts a second time")
}

#[tokio::test]
#[ignore = "is the other side of the tests below, which start it as a process of its own"]
async fn competitor() {
    let pool = std::env::var_os(POOL).expect("started by a test below");
    let role: usize = std::env::var(ROLE).unwrap().parse().unwrap();
    let store = FileStore::open(&pool, false).unwrap();
    println!("\nready");
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();

    let mut won = Vec::new();
    for n in 0..CREATES {
        let body = Bytes::from(role.to_string());
        match store.put(&format!("race/{n}"), body.into(), PutMode::Create).await {
            Ok(_) => won.push(n),
            Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}"),
        }
    }
    let mut swapped = 0;
    while swapped < SWAPS {
        let object = store.get("counter").await.unwrap();
        let count: u64 = std::str::from_utf8(&object.body).unwrap().parse().unwrap();
        let body = Bytes::from((count + 1).to_string());
        match store.put("counter", body.into(), PutMode::IfMatch(object.version)).await {
            Ok(_) => swapped += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::PreconditionFailed, "{error}"),
        }
    }
    let name = format!("churn/a/b/{role}");
    for _ in 0..CHURNS {
        store.put(&name, Bytes::new().into(), PutMode::Create).await.unwrap();
        store.head(&name).await.unwrap();
        store.delete(&name).await.unwrap();
    }
    println!("won {won:?}");
}

#[tokio::test]
async fn processes_race_for_names_versions_and_directories_with_one_winner_each() {
    let pool = tempfile::tempdir().unwrap();
    let store = FileStore::open(pool.path(), false).unwrap();
    store.put("counter", Bytes::from("0").into(), PutMode::Create).await.unwrap();

    let mut children: Vec<Child> = (0..PROCESSES).map(|role| start(role, pool.path())).collect();
    let mut outputs = Vec::new();
    for child in &mut children {
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "ready"), "a competitor opens the pool");
        outputs.push(lines);
    }
    for child in &mut children {
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    }
    let mut all_won = Vec::new();
    for (role, (mut child, mut lines)) in children.into_iter().zip(outputs).enumerate() {
        let won = lines.find_map(|line| Some(line.unwrap().strip_prefix("won ")?.to_owned()));
        lines.for_each(drop);
        assert!(child.wait().unwrap().success(), "competitor {role}");
        let won = won.expect("a competitor reports what it won");
        for n in won.trim_matches(['[', ']']).split(", ").filter(|n| !n.is_empty()) {
            let object = store.get(&format!("race/{n}")).await.unwrap();
            assert_eq!(object.body, role.to_string(), "race/{n} is the winner's");
            all_won.push(n.to_owned());
        }
    }
    assert_eq!(all_won.len(), CREATES, "every name was won once");
    assert_eq!(all_won.into_iter().collect::<BTreeSet<_>>().len(), CREATES);
    let counter = store.get("counter").await.unwrap().body;
    assert_eq!(counter, (PROCESSES as u64 * SWAPS).to_string(), "no swap was lost");
    let churn = store.list("churn", None, None, 9).await.unwrap();
    assert!(churn.objects.is_empty(), "{churn:?}");
}

#[tokio::test]
async fn processes_killed_in_the_middle_leave_whole_objects_and_a_clean_pool() {
    let pool = tempfile::tempdir().unwrap();
    let store = FileStore::open(pool.path(), false).unwrap();
    store.put("counter", Bytes::from("0").into(), PutMode::Create).await.unwrap();
    for round in 0..4 {
        let mut child = start(round, pool.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "ready"), "a competitor opens the pool");
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        // Killed at a moment of its work that shifts from round to round.
        let milestone = format!("race/{}", round * 7);
        while store.head(&milestone).await.is_err() {
            tokio::task::yield_now().await;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let names = store.list("race/", None, None, 1_000).await.unwrap().objects;
        for (name, size) in names {
            assert_eq!(size, 1, "{name} is whole");
            if round < 3 {
                store.delete(&name).await.unwrap();
            }
        }
    }
    let reopened = FileStore::open(pool.path(), false).unwrap();
    let left: Vec<_> = std::fs::read_dir(pool.path().join(".lsvd-staging"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(left.iter().all(|name| name == "lock"), "{left:?}");
    reopened.put("after", Bytes::new().into(), PutMode::Create).await.unwrap();
}
