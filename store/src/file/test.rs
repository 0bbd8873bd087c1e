use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::staging::Staging;
use super::*;
use crate::conformance;

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn body(len: usize) -> Bytes {
    vec![7; len].into()
}

/// A body that qualifies for direct I/O.
fn aligned(len: usize) -> Bytes {
    let backing: Bytes = (0..=250_u8).cycle().take(len + 4096).collect();
    let skip = backing.as_ptr().align_offset(4096);
    backing.slice(skip..skip + len)
}

fn leftovers(root: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(root.join(".lsvd-staging")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "lock").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_and_nothing_is_left_behind() {
    let root = scratch();
    conformance::run(Arc::new(FileStore::open(root.path(), false).unwrap())).await;
    assert_eq!(leftovers(root.path()), BTreeSet::new());
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1, "only staging is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_across_two_handles() {
    let root = scratch();
    let open = || Arc::new(FileStore::open(root.path(), false).unwrap());
    conformance::run_across(open(), open()).await;
}

#[tokio::test]
async fn the_contract_holds_where_direct_io_may_be_refused() {
    let Ok(root) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("skipped: no /dev/shm");
        return;
    };
    let store = FileStore::open(root.path(), false).unwrap();
    // The pattern begins wherever this allocation has its page border, so it is made once.
    let body = aligned(1 << 20);
    store.put("direct", body.clone().into(), PutMode::Create).await.unwrap();
    assert!(store.get("direct").await.unwrap().body == body);
    store.delete("direct").await.unwrap();
    conformance::run(Arc::new(store)).await;
}

#[tokio::test]
async fn aligned_bodies_of_every_size_read_as_written() {
    let root = scratch();
    let store = FileStore::open(root.path(), false).unwrap();
    for pages in [1, 63, 64, 65, 255, 2048] {
        let name = format!("d/{pages}");
        let body = aligned(pages * 4096);
        store.put(&name, body.clone().into(), PutMode::Create).await.unwrap();
        assert_eq!(store.get(&name).await.unwrap().body, body, "{pages} pages");
        let middle = store.get_range(&name, 4_000, 96).await.unwrap();
        assert_eq!(middle, body.slice(4_000..4_096), "{pages} pages");
    }
}

/// Pages that lie anywhere in memory, as those of an object do that came over many connections.
#[tokio::test]
async fn three_thousand_pages_in_shuffled_order_read_as_written() {
    const PAGES: usize = 3_000;
    let root = scratch();
    let store = FileStore::open(root.path(), false).unwrap();
    let mut backing = vec![0; (PAGES + 1) * 4096];
    let skip = backing.as_ptr().align_offset(4096);
    for (n, page) in backing[skip..][..PAGES * 4096].chunks_exact_mut(4096).enumerate() {
        let filler = (n % 251).to_le_bytes()[0];
        page.fill(filler);
        page[..8].copy_from_slice(&(n as u64).to_le_bytes());
    }
    let backing = Bytes::from(backing).slice(skip..skip + PAGES * 4096);
    let mut parts: Vec<Bytes> =
        (0..PAGES).map(|n| backing.slice(n * 4096..(n + 1) * 4096)).collect();
    fastrand::Rng::with_seed(7).shuffle(&mut parts);

    store.put("direct", parts.clone().into(), PutMode::Create).await.unwrap();
    let read = store.get("direct").await.unwrap().body;
    assert!(read == parts.concat(), "past the page cache");

    // One odd part sends the body through the page cache, and everything behind it out of step.
    parts.insert(PAGES / 2, Bytes::from_static(b"odd"));
    store.put("buffered", parts.clone().into(), PutMode::Create).await.unwrap();
    let read = store.get("buffered").await.unwrap().body;
    assert!(read == parts.concat(), "through the page cache");
}

#[test]
fn a_dead_writers_leftover_is_swept_and_a_live_ones_is_not() {
    let root = scratch();
    let directory = File::open(root.path()).unwrap();
    let staging = Staging::new(Arc::new(directory));
    let alive = staging.write(&Bytes::from("alive").into()).unwrap();
    let live_names = leftovers(root.path());
    std::fs::write(root.path().join(".lsvd-staging/1-1"), "dead").unwrap();

    FileStore::open(root.path(), false).unwrap();
    assert_eq!(leftovers(root.path()), live_names);
    drop(alive);
    assert_eq!(leftovers(root.path()), BTreeSet::new());
}

#[tokio::test]
async fn a_leftover_that_was_linked_but_not_unlinked_does_not_cost_the_object() {
    let root = scratch();
    let store = FileStore::open(root.path(), false).unwrap();
    let version = store.put("a", body(9).into(), PutMode::Create).await.unwrap();
    let (object, staged) = (root.path().join("a"), root.path().join(".lsvd-staging/1-1"));
    std::fs::hard_link(object, staged).unwrap();

    let store = FileStore::open(root.path(), false).unwrap();
    assert_eq!(leftovers(root.path()), BTreeSet::new());
    assert_eq!(store.get("a").await.unwrap(), Object { body: body(9), version });
}

#[tokio::test]
async fn a_name_cannot_be_an_object_and_a_directory() {
    let root = scratch();
    let store = FileStore::open(root.path(), false).unwrap();
    for (first, second) in [("a", "a/b"), ("c/d", "c"), ("e", "e/f/g")] {
        store.put(first, body(1).into(), PutMode::Create).await.unwrap();
        let error = store.put(second, body(1).into(), PutMode::Create).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{second}: {error}");
        assert!(store.get(second).await.unwrap_err().is_not_found(), "{second}");
        assert!(store.delete(second).await.unwrap_err().is_not_found(), "{second}");
        let swap = store.put(second, body(1).into(), PutMode::IfMatch(Version::new("x"))).await;
        assert_eq!(swap.unwrap_err().kind(), ErrorKind::PreconditionFailed, "{second}");
    }
}

#[tokio::test]
async fn an_empty_directory_left_by_a_crash_is_no_object_and_in_nobodys_way() {
    let root = scratch();
    let store = FileStore::open(root.path(), false).unwrap();
    std::fs::create_dir_all(root.path().join("a/b")).unwrap();
    assert_eq!(store.list("", None, None, 9).await.unwrap(), Listing::default());
    assert_eq!(store.list("", Some('/'), None, 9).await.unwrap(), Listing::default());
    store.put("a/b", body(1).into(), PutMode::Create).await.unwrap();
    store.delete("a/b").await.unwrap();
    assert!(!root.path().join("a").exists());
}

#[tokio::test]
async fn what_no_store_put_there_is_not_listed() {
    let root = scratch();
    let store = FileStore::open(root.path(), false).unwrap();
    store.put("d/a", body(1).into(), PutMode::Create).await.unwrap();
    symlink("d", root.path().join("link")).unwrap();
    symlink("a", root.path().join("d/link")).unwrap();
    std::fs::write(root.path().join("d/.lsvd-x"), "reserved").unwrap();
    std::fs::write(root.path().join("d/\n"), "control").unwrap();
    let listing = store.list("", None, None, 9).await.unwrap();
    assert_eq!(listing.objects, [("d/a".to_owned(), 1)]);
    let error = store.get("d/link").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[tokio::test]
async fn files_copied_in_by_hand_are_objects() {
    let root = scratch();
    std::fs::create_dir(root.path().join("disk")).unwrap();
    std::fs::write(root.path().join("disk/superblock"), "by hand").unwrap();
    let store = FileStore::open(root.path(), false).unwrap();
    let object = store.get("disk/superblock").await.unwrap();
    assert_eq!(object.body, "by hand");
    let swap = PutMode::IfMatch(object.version);
    store.put("disk/superblock", body(1).into(), swap).await.unwrap();
}

#[tokio::test]
async fn an_edit_in_place_is_noticed() {
    let root = scratch();
    let store = FileStore::open(root.path(), false).unwrap();
    let version = store.put("a", body(4).into(), PutMode::Create).await.unwrap();
    std::fs::write(root.path().join("a"), "edit").unwrap();
    let error = store.put("a", body(4).into(), PutMode::IfMatch(version)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PreconditionFailed);
}

#[tokio::test]
async fn the_version_outlives_the_handle_and_a_change_of_mode() {
    let root = scratch();
    let store = FileStore::open(root.path(), false).unwrap();
    let version = store.put("a", body(4).into(), PutMode::Create).await.unwrap();
    let mode = std::fs::Permissions::from_mode(0o400);
    std::fs::set_permissions(root.path().join("a"), mode).unwrap();
    let store = FileStore::open(root.path(), false).unwrap();
    assert_eq!(store.head("a").await.unwrap().version, version);
}

#[tokio::test]
async fn a_moved_pool_goes_on_and_a_removed_one_is_unavailable() {
    let root = scratch();
    let (old, new) = (root.path().join("old"), root.path().join("new"));
    let store = FileStore::open(&old, true).unwrap();
    store.put("d/a", body(4).into(), PutMode::Create).await.unwrap();
    std::fs::rename(&old, &new).unwrap();
    store.put("d/b", body(4).into(), PutMode::Create).await.unwrap();
    assert!(new.join("d/b").exists());
    std::fs::remove_dir_all(&new).unwrap();
    let error = store.put("d/c", body(4).into(), PutMode::Create).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(!new.exists() && !old.exists(), "a put must not make a pool of its own");
}

#[test]
fn opening_says_what_is_wrong_with_the_place() {
    let root = scratch();
    let file = root.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = FileStore::open(&file, false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let missing = root.path().join("no/such");
    let error = FileStore::open(&missing, false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().starts_with("open pool in /"), "{error}");
    FileStore::open(&missing, true).unwrap();
    FileStore::open(&missing, false).unwrap();
}
