//! The contract of [`ObjectStore`] as a suite that every backend and every stack of layers must
//! pass.
//!
//! Test support: it panics where the contract is broken. Everything it does lies under
//! `conformance/`, which must be empty before and is empty after.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::{
    ErrorKind, Listing, NAME_BYTES_MAX, ObjectStore, PART_BYTES_MAX, Payload, PutMode, Result,
    Version,
};

/// Competitors in each race.
const RACERS: u8 = 16;

/// Objects of the listing, which no page of S3 (1,000 names) holds.
const LISTED: usize = 1_200;

/// Runs the whole suite through one handle.
///
/// # Panics
/// Where the contract is broken, with what was expected.
pub async fn run(store: Arc<dyn ObjectStore>) {
    run_across(Arc::clone(&store), store).await;
}

/// Runs the whole suite through two handles to one store, writing through one and checking through
/// the other.
///
/// # Panics
/// Where the contract is broken, with what was expected.
pub async fn run_across(writer: Arc<dyn ObjectStore>, reader: Arc<dyn ObjectStore>) {
    let suite = Suite { writer, reader };
    assert!(!suite.writer.describe().is_empty(), "a store can say where it is");
    suite.what_was_put_is_read().await;
    suite.parts_are_joined_in_order().await;
    suite.create_never_overwrites().await;
    suite.swap_needs_the_version_it_replaces().await;
    suite.versions_never_come_back().await;
    suite.ranges_are_exact_or_refused().await;
    suite.delete_is_final_and_said_once().await;
    suite.odd_names_are_kept_and_bad_ones_refused().await;
    suite.creation_races_have_one_winner().await;
    suite.swap_races_have_one_winner().await;
    suite.listings_agree_with_a_plain_sort().await;
    suite.directories_come_and_go_unseen().await;
    assert_eq!(suite.names("conformance/").await, BTreeSet::new(), "the suite cleans up");
}

struct Suite {
    writer: Arc<dyn ObjectStore>,
    reader: Arc<dyn ObjectStore>,
}

impl Suite {
    async fn what_was_put_is_read(&self) {
        // Direct I/O, single pages, odd lengths and nothing at all go different ways below.
        for len in [0, 1, 511, 4096, 65_537, 1 << 20, (1 << 20) + 4096] {
            let name = format!("conformance/body/{len}");
            let body = pattern(len);
            let version = self.create(&name, body.clone()).await;
            let object = self.reader.get(&name).await.expect("what was put is there");
            assert_eq!(object.body, body, "{name} reads as written");
            assert_eq!(object.version, version, "get and put agree on the version of {name}");
            let meta = self.reader.head(&name).await.expect("what was put is there");
            assert_eq!((meta.size, meta.version), (len as u64, version), "head of {name}");
            self.remove(&name).await;
        }
    }

    async fn parts_are_joined_in_order(&self) {
        let name = "conformance/parts";
        // More parts than one system call takes, few that end on a page, and many that are empty.
        let source = pattern(300_000);
        let odd = (0..3_000).map(|n| source.slice(n * 90..n * 90 + n * 7 % 240));
        let pages = (0..70).map(|n| source.slice(n * 4096..(n + 1) * 4096));
        let bodies: [(&str, Vec<Bytes>); 4] = [
            ("odd sizes", odd.collect()),
            ("pages and a rest", pages.chain([source.slice(5..6)]).collect()),
            ("empty ends", vec![Bytes::new(), source.slice(1..9), source.slice(..3), Bytes::new()]),
            ("nothing in many parts", vec![Bytes::new(); 9]),
        ];
        let mut version = self.create(name, pattern(1)).await;
        for (what, parts) in bodies {
            let whole = parts.concat();
            version = self.swap(name, parts, &version).await.expect("the version is current");
            let object = self.reader.get(name).await.expect("what was put is there");
            assert!(object.body == whole, "{what}: reads as written");
            assert_eq!(object.version, version, "{what}: get and put agree on the version");
            let meta = self.reader.head(name).await.expect("what was put is there");
            assert_eq!(meta.size, whole.len() as u64, "{what}: size");
        }
        self.remove(name).await;
    }

    async fn create_never_overwrites(&self) {
        let name = "conformance/create";
        let version = self.create(name, pattern(10)).await;
        let again = self.reader.put(name, pattern(20).into(), PutMode::Create).await;
        refused(again, ErrorKind::AlreadyExists, "a second create");
        let object = self.reader.get(name).await.expect("a refused put removes nothing");
        assert_eq!((object.body, object.version), (pattern(10), version), "nor changes anything");
        self.remove(name).await;
    }

    async fn swap_needs_the_version_it_replaces(&self) {
        let name = "conformance/swap";
        let first = self.create(name, pattern(10)).await;
        let second = self.swap(name, pattern(20), &first).await.expect("the version is current");
        assert_ne!(first, second, "another content is another version");
        let late = self.swap(name, pattern(30), &first).await;
        refused(late, ErrorKind::PreconditionFailed, "a swap of an old version");
        let object = self.reader.get(name).await.expect("it is still there");
        assert_eq!(
            (object.body, object.version),
            (pattern(20), second.clone()),
            "second swap held"
        );
        self.remove(name).await;
        let gone = self.swap(name, pattern(30), &second).await;
        refused(gone, ErrorKind::PreconditionFailed, "a swap of what is gone");
        refused(self.reader.head(name).await, ErrorKind::NotFound, "it does not come back");
        let nowhere = self.swap("conformance/no/such/place", pattern(1), &second).await;
        refused(nowhere, ErrorKind::PreconditionFailed, "a swap where nothing ever was");
    }

    async fn versions_never_come_back(&self) {
        let name = "conformance/versions";
        let mut seen = BTreeSet::new();
        let mut fresh = |version: &Version| {
            assert!(seen.insert(version.as_str().to_owned()), "{version} was given twice");
        };
        // Equal bytes, as fast as it goes: what is derived from content, size or a coarse clock
        // fails.
        for _ in 0..20 {
            let mut version = self.create(name, pattern(64)).await;
            fresh(&version);
            for _ in 0..5 {
                version = self.swap(name, pattern(64), &version).await.expect("it is current");
                fresh(&version);
            }
            self.remove(name).await;
            let gone = self.create(name, pattern(64)).await;
            fresh(&gone);
            let stale = self.swap(name, pattern(1), &version).await;
            refused(stale, ErrorKind::PreconditionFailed, "a swap of what lay there before");
            self.remove(name).await;
        }
    }

    async fn ranges_are_exact_or_refused(&self) {
        let (name, size) = ("conformance/range", 10_000_u64);
        let body = pattern(10_000);
        self.create(name, body.clone()).await;
        for (from, to) in
            [(0, 10_000), (0, 1), (9_999, 10_000), (4_095, 8_193), (0, 0), (10_000, 10_000)]
        {
            let read = self.reader.get_range(name, from, to - from).await;
            let index = |at| usize::try_from(at).expect("it is below 10,000");
            assert_eq!(
                read.expect("the range is inside"),
                body.slice(index(from)..index(to)),
                "bytes {from}..{to}"
            );
        }
        let outside =
            [(0, size + 1), (size, 1), (size + 1, 0), (9_999, 2), (u64::MAX, 1), (1, u64::MAX)];
        for (offset, len) in outside {
            let read = self.reader.get_range(name, offset, len).await;
            refused(read, ErrorKind::Invalid, &format!("{len} bytes at {offset} of {size}"));
        }
        self.remove(name).await;
        refused(self.reader.get_range(name, 0, 0).await, ErrorKind::NotFound, "a range of nothing");
    }

    async fn delete_is_final_and_said_once(&self) {
        let name = "conformance/delete";
        self.create(name, pattern(10)).await;
        self.remove(name).await;
        refused(self.reader.get(name).await, ErrorKind::NotFound, "get after delete");
        refused(self.reader.head(name).await, ErrorKind::NotFound, "head after delete");
        refused(self.writer.delete(name).await, ErrorKind::NotFound, "a second delete");
        refused(self.writer.delete("conformance/a/b").await, ErrorKind::NotFound, "an idle delete");
    }

    async fn odd_names_are_kept_and_bad_ones_refused(&self) {
        let part = "p".repeat(PART_BYTES_MAX);
        let full = ["q", &part, &part, &part, &part].join("/");
        let room = NAME_BYTES_MAX - "conformance/".len();
        let odd = [
            "a b",
            " a",
            "a ",
            "%2e%2e",
            "a%b",
            "#?&=+;,@!$'\"()*<>|",
            "a\\b",
            "-rf",
            "...",
            ".x",
            "x.",
            "~",
            "*",
            "\u{e9}t\u{e9}",
            "\u{65e5}\u{672c}",
            "\u{1f980}",
            "A",
            "a:b",
            "{}",
            part.as_str(),
            &full[..room],
        ];
        let names: BTreeSet<String> = odd.iter().map(|n| format!("conformance/{n}")).collect();
        for name in &names {
            let body = Bytes::from(name.clone());
            self.create(name, body.clone()).await;
            let object = self.reader.get(name).await.expect("odd names are names");
            assert_eq!(object.body, body, "{name:?} is not mixed up with another");
        }
        assert_eq!(self.names("conformance/").await, names, "names come back as they were given");
        for name in &names {
            self.remove(name).await;
        }
        let long = format!("conformance/{part}p");
        let bad = [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "../a",
            "a/../b",
            "a/.",
            "a\0",
            "a\n",
            "\u{7f}",
            ".lsvd-x",
            "a/.lsvd-x/b",
            &long,
        ];
        for name in bad {
            let what = format!("the name {name:?}");
            refused(
                self.writer.put(name, pattern(1).into(), PutMode::Create).await,
                ErrorKind::Invalid,
                &what,
            );
            refused(self.reader.get(name).await, ErrorKind::Invalid, &what);
            refused(self.reader.get_range(name, 0, 0).await, ErrorKind::Invalid, &what);
            refused(self.reader.head(name).await, ErrorKind::Invalid, &what);
            refused(self.writer.delete(name).await, ErrorKind::Invalid, &what);
        }
        for prefix in ["/", "../", "a//", "a/./", "\0"] {
            let listing = self.reader.list(prefix, None, None, 10).await;
            refused(listing, ErrorKind::Invalid, &format!("the prefix {prefix:?}"));
        }
        refused(self.reader.list("", None, None, 0).await, ErrorKind::Invalid, "a page of nothing");
    }

    async fn creation_races_have_one_winner(&self) {
        for round in 0..10 {
            let name = format!("conformance/race/{round}/create");
            let results = self.race(&name, &PutMode::Create).await;
            self.check_race(&name, results, ErrorKind::AlreadyExists).await;
            self.remove(&name).await;
        }
    }

    async fn swap_races_have_one_winner(&self) {
        let name = "conformance/race/swap";
        let mut version = self.create(name, pattern(1)).await;
        for _ in 0..10 {
            let results = self.race(name, &PutMode::IfMatch(version)).await;
            version = self.check_race(name, results, ErrorKind::PreconditionFailed).await;
        }
        self.remove(name).await;
    }

    async fn race(&self, name: &str, mode: &PutMode) -> BTreeMap<u8, Result<Version>> {
        let mut racers = JoinSet::new();
        for racer in 0..RACERS {
            let handle = if racer % 2 == 0 { &self.writer } else { &self.reader };
            let (store, name, mode) = (Arc::clone(handle), name.to_owned(), mode.clone());
            racers.spawn(
                async move { (racer, store.put(&name, racer_body(racer).into(), mode).await) },
            );
        }
        racers.join_all().await.into_iter().collect()
    }

    async fn check_race(
        &self,
        name: &str,
        results: BTreeMap<u8, Result<Version>>,
        losers: ErrorKind,
    ) -> Version {
        let mut winner = None;
        for (racer, result) in results {
            match result {
                Ok(version) => {
                    let other = winner.replace((racer, version));
                    assert!(other.is_none(), "{racer} and {other:?} both won {name}");
                }
                Err(error) => assert_eq!(error.kind(), losers, "racer {racer}: {error}"),
            }
        }
        let (racer, version) = winner.expect("somebody wins every race");
        let object = self.reader.get(name).await.expect("the winner's object is there");
        assert_eq!(object.body, racer_body(racer), "{name} is the winner's");
        assert_eq!(object.version, version, "{name} has the winner's version");
        version
    }

    async fn listings_agree_with_a_plain_sort(&self) {
        // Directories and files that interleave: `-` and `.` sort before `/`, digits after it.
        let all: BTreeMap<String, u64> = (0..LISTED)
            .map(|n| {
                let name = match n % 6 {
                    0 => format!("conformance/list/d/{n:04}"),
                    1 => format!("conformance/list/d-{n:04}"),
                    2 => format!("conformance/list/d.x/{n:04}"),
                    3 => format!("conformance/list/d0/{}/{n:04}", n % 5),
                    4 => format!("conformance/list/d/e-{n:04}"),
                    _ => format!("conformance/list/{n:04}"),
                };
                (name, (n % 7) as u64)
            })
            .collect();
        self.fill(&all).await;
        for prefix in ["", "d", "d/", "d0/3/", "d/e-0", "0", "nothing", "d/nothing/below"] {
            let prefix = format!("conformance/list/{prefix}");
            for delimiter in [None, Some('/'), Some('-')] {
                for limit in [7, 1_000, 5_000] {
                    self.check_listing(&all, &prefix, delimiter, limit).await;
                }
            }
        }
        let after = "conformance/list/d.";
        let listing = self.reader.list("conformance/list/", None, Some(after), 5_000).await;
        let twin: Vec<_> = all.iter().filter(|(name, _)| name.as_str() > after).collect();
        let listed = listing.expect("a listing").objects;
        assert!(listed.iter().map(|(n, s)| (n, s)).eq(twin), "`after` need not be an entry");
        for name in all.keys() {
            self.remove(name).await;
        }
    }

    async fn check_listing(
        &self,
        all: &BTreeMap<String, u64>,
        prefix: &str,
        delimiter: Option<char>,
        limit: usize,
    ) {
        let what = format!("prefix {prefix:?}, delimiter {delimiter:?}, limit {limit}");
        let (mut objects, mut prefixes) = (Vec::new(), BTreeSet::new());
        for (name, size) in all.iter().filter(|(name, _)| name.starts_with(prefix)) {
            match delimiter.and_then(|delimiter| name[prefix.len()..].find(delimiter)) {
                Some(at) => drop(prefixes.insert(name[..=prefix.len() + at].to_owned())),
                None => objects.push((name.clone(), *size)),
            }
        }
        let entries = objects.len() + prefixes.len();
        let (mut listed, mut pages) = (Listing::default(), 0);
        loop {
            let page = self.reader.list(prefix, delimiter, listed.next.as_deref(), limit).await;
            let page = page.expect("a listing");
            let len = page.objects.len() + page.prefixes.len();
            assert!(len == limit || page.next.is_none(), "{what}: only the last page is short");
            listed.objects.extend(page.objects);
            listed.prefixes.extend(page.prefixes);
            listed.next = page.next;
            pages += 1;
            if listed.next.is_none() {
                break;
            }
        }
        assert_eq!(pages, entries.div_ceil(limit).max(1), "{what}: number of pages");
        assert_eq!(listed.objects, objects, "{what}: objects");
        assert!(listed.prefixes.iter().eq(&prefixes), "{what}: prefixes {:?}", listed.prefixes);
    }

    async fn directories_come_and_go_unseen(&self) {
        let mut tasks = JoinSet::new();
        for racer in 0..RACERS {
            let handle = if racer % 2 == 0 { &self.writer } else { &self.reader };
            let store = Arc::clone(handle);
            tasks.spawn(async move {
                let name = format!("conformance/dir/a/b/{racer}");
                for _ in 0..10 {
                    let put = store.put(&name, racer_body(racer).into(), PutMode::Create).await;
                    put.expect("no other's delete takes a directory away from under a put");
                    store.get(&name).await.expect("what was put is there");
                    store.delete(&name).await.expect("what is there can be deleted");
                }
            });
        }
        tasks.join_all().await;
        // The directory's own name is free once nothing is below it.
        self.create("conformance/dir/a", pattern(1)).await;
        self.remove("conformance/dir/a").await;
        let listing = self.reader.list("conformance/", Some('/'), None, 10).await;
        assert_eq!(listing.expect("a listing"), Listing::default(), "nothing is left");
    }

    async fn fill(&self, all: &BTreeMap<String, u64>) {
        let mut puts = JoinSet::new();
        for (name, size) in all {
            let (store, name, size) = (Arc::clone(&self.writer), name.clone(), *size);
            let body = pattern(usize::try_from(size).expect("sizes are below 7"));
            puts.spawn(async move { store.put(&name, body.into(), PutMode::Create).await });
        }
        for put in puts.join_all().await {
            put.expect("the name is free");
        }
    }

    async fn create(&self, name: &str, body: impl Into<Payload>) -> Version {
        self.writer.put(name, body.into(), PutMode::Create).await.expect("the name is free")
    }

    async fn swap(
        &self,
        name: &str,
        body: impl Into<Payload>,
        version: &Version,
    ) -> Result<Version> {
        self.writer.put(name, body.into(), PutMode::IfMatch(version.clone())).await
    }

    async fn remove(&self, name: &str) {
        self.writer.delete(name).await.expect("the object is there");
    }

    async fn names(&self, prefix: &str) -> BTreeSet<String> {
        let listing = self.reader.list(prefix, None, None, 10_000).await.expect("a listing");
        listing.objects.into_iter().map(|(name, _)| name).collect()
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind, what: &str) {
    match result {
        Ok(done) => panic!("{what} must fail with `{kind}`, but gave {done:?}"),
        Err(error) => assert_eq!(error.kind(), kind, "{what}: {error}"),
    }
}

/// Bytes in which every shift by less than 251 shows.
fn pattern(len: usize) -> Bytes {
    (0..=250_u8).cycle().take(len).collect()
}

fn racer_body(racer: u8) -> Bytes {
    vec![racer; 1_000 + usize::from(racer)].into()
}
