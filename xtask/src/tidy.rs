//! Rules of the house that no other tool knows: sizes of files, words of the glossary, opted-in lints, places of unsafe
//! code. Looks at what git knows or would add.

use anyhow::{Context as _, bail};

use crate::command::{output, program, root};

/// Production lines of a file from which on it needs a reason.
const LINES_MAX: usize = 600;

/// Files that may be longer, and why. This list may only shrink.
const LONG: &[(&str, &str)] = &[];

/// Files that may hold unsafe code.
const UNSAFE: &[(&str, &str)] = &[
    ("engine/src/disk/ring.rs", "submits to io_uring"),
    ("engine/benches/map.rs", "counts allocations"),
    ("rados/src/ffi.rs", "loads librados"),
    ("rados/src/operation.rs", "owns what librados works on until it calls back"),
    ("rados/src/cluster.rs", "calls librados"),
    ("rados/src/pool.rs", "calls librados"),
    ("lsvd-gw/src/memory.rs", "one call of glibc without a safe wrapper"),
];

/// Words that the glossary replaces, and by what.
const WORDS: [(&str, &str); 4] = [
    ("bdev", "image or volume"),
    ("segment", "object"),
    ("segments", "objects"),
    ("mgr", "a noun"),
];

/// Words of other people at the edges where their language is spoken.
const FOREIGN: &[(&str, &str)] = &[
    ("control/", "bdev"), // SPDK's methods and what they return
    ("lsvd-gw/src/rpc", "bdev"),
    ("lsvd-gw/tests/system/ana", "bdev"),
    ("lsvd-gw/tests/system/control", "bdev"),
    ("lsvd-gw/tests/system/resize", "bdev"),
    ("imgtool/src/cmd/resize", "bdev"), // the call that helps
    ("imgtool/tests/program", "bdev"),
    ("nvmet/", "segment"), // NVMe's SGL segments
    ("nvmet/", "segments"),
    ("initiator/", "segment"),
];

/// File names that say nothing about what is inside.
const FILE_NAMES: [&str; 6] = ["util", "utils", "helper", "helpers", "misc", "mgr"];

/// Marks of unfinished work; lints see the first two only in code that is compiled.
const MARKS: [&str; 5] = ["todo!(", "dbg!(", "unimplemented!(", "TODO", "FIXME"];

/// Checks everything.
pub(crate) fn check() -> anyhow::Result<()> {
    let words = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let listed = output(program("git").args(words)).context("list the files")?;
    let mut problems = Vec::new();
    let mut files = 0;
    for path in listed.lines() {
        // Deleted, and not committed yet.
        let Ok(bytes) = std::fs::read(root().join(path)) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        if path.ends_with(".rs") {
            files += 1;
            problems.extend(source_problems(path, &text));
        } else if path.ends_with("/Cargo.toml") && !path.starts_with("fuzz/") {
            problems.extend(manifest_problem(path, &text));
        }
    }
    for (path, _) in LONG.iter().chain(UNSAFE) {
        if !root().join(path).is_file() {
            problems.push(format!("{path}: in a list of xtask/src/tidy.rs, but not there"));
        }
    }
    if !problems.is_empty() {
        bail!("{} untidy places:\n{}", problems.len(), problems.join("\n"));
    }
    println!("{files} source files");
    Ok(())
}

fn source_problems(path: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let production = production_lines(path, text);
    let may_be_long = LONG.iter().any(|(long, _)| *long == path);
    match (production > LINES_MAX, may_be_long) {
        (true, false) => {
            problems.push(format!("{path}: {production} lines, {LINES_MAX} are enough"))
        }
        (false, true) => problems.push(format!("{path}: not long any more, take it off the list")),
        _ => {}
    }
    let stem = path.rsplit('/').next().and_then(|name| name.split('.').next()).unwrap_or_default();
    if FILE_NAMES.contains(&stem) {
        problems.push(format!("{path}: the name says nothing"));
    }
    // This file spells the words that it looks for.
    if path.ends_with("xtask/src/tidy.rs") {
        return problems;
    }
    let may_be_unsafe = UNSAFE.iter().any(|(allowed, _)| *allowed == path);
    for (number, line) in (1..).zip(text.lines()) {
        let mut add = |what: String| problems.push(format!("{path}:{number}: {what}"));
        let is_ours =
            |word: &str| !FOREIGN.iter().any(|(at, w)| path.starts_with(at) && *w == word);
        if let Some((word, instead)) =
            WORDS.iter().find(|(word, _)| has_word(line, word) && is_ours(word))
        {
            add(format!("{word:?} is {instead} here"));
        }
        if let Some(mark) = MARKS.iter().find(|mark| line.contains(*mark)) {
            add(format!("{mark:?} is unfinished work"));
        }
        if !may_be_unsafe
            && ["unsafe {", "unsafe impl", "unsafe fn"].iter().any(|u| line.contains(u))
        {
            add("unsafe code, in a file that has none".to_owned());
        }
        if is_noun_block(path, line) {
            add("\"block\" is sector, page, extent or frame here".to_owned());
        }
    }
    problems
}

/// Lines up to the inline tests; a file of tests has none.
fn production_lines(path: &str, text: &str) -> usize {
    let is_test = ["/tests/", "/test/", "/benches/"].iter().any(|dir| path.contains(dir));
    if is_test || path.ends_with("/test.rs") {
        return 0;
    }
    text.lines().take_while(|line| *line != "#[cfg(test)]" && *line != "mod test {").count()
}

/// True if a line has this word, in any case and with no letter before or behind it.
fn has_word(line: &str, word: &str) -> bool {
    let line = line.to_ascii_lowercase();
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let behind = line[at + word.len()..].chars().next();
        [before, behind].iter().flatten().all(|c| !c.is_ascii_alphanumeric())
    })
}

/// True where the storage parts say "block" for one of the units that have names of their own. NBD has its blocks.
fn is_noun_block(path: &str, line: &str) -> bool {
    let storage = ["common/", "store/", "engine/", "sim/"];
    let nouns =
        [" a block ", " the block ", " each block ", " per block", " blocks of", " block of "];
    let line = format!(" {}", line.to_ascii_lowercase());
    let allowed = line.contains("block device");
    storage.iter().any(|dir| path.starts_with(dir))
        && !allowed
        && nouns.iter().any(|noun| line.contains(noun))
}

fn manifest_problem(path: &str, text: &str) -> Option<String> {
    let manifest: toml::Table = match text.parse() {
        Ok(manifest) => manifest,
        Err(error) => return Some(format!("{path}: {error}")),
    };
    let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
    let opted_in = lints.and_then(toml::Value::as_bool) == Some(true);
    (!opted_in).then(|| format!("{path}: [lints] workspace = true is missing"))
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn words_are_found_as_words_only() {
        assert!(has_word("/// A Segment of it", "segment"));
        assert!(has_word("let bdev_name = 1;", "bdev"));
        assert!(!has_word("segmentation fault", "segment"));
    }

    #[test]
    fn every_rule_finds_something() {
        let long = "x\n".repeat(LINES_MAX + 1);
        for (path, text) in [
            ("a/src/x.rs", long.as_str()),
            ("a/src/util.rs", ""),
            ("a/src/x.rs", "// TODO later"),
            ("a/src/x.rs", "unsafe { }"),
            ("engine/src/x.rs", "/// Writes a block of data."),
        ] {
            assert_eq!(source_problems(path, text).len(), 1, "{path} {text:.20}");
        }
        let tests = format!("fn x() {{}}\n#[cfg(test)]\nmod test {{\n{long}}}\n");
        assert!(source_problems("a/src/x.rs", &tests).is_empty());
        assert!(manifest_problem("a/Cargo.toml", "[package]").is_some());
        assert!(manifest_problem("a/Cargo.toml", "[lints]\nworkspace = true").is_none());
    }
}
