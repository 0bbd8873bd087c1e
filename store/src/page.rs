//! Builds one page of a listing from names that arrive in byte order.
//!
//! Does not: read anything. The backends walk; this decides what shows, what can be skipped unread,
//! and where the next page starts.
//! Invariants: entries (objects and rolled-up prefixes together) strictly increase and exceed
//! `after`.

use crate::Listing;

#[derive(Debug)]
pub(crate) struct Page<'a> {
    prefix: &'a str,
    delimiter: Option<char>,
    after: Option<&'a str>,
    limit: usize,
    listing: Listing,
    /// The greatest entry taken so far.
    last: Option<String>,
}

impl<'a> Page<'a> {
    /// A page of at most `limit` entries, which must not be 0.
    pub(crate) fn new(
        prefix: &'a str,
        delimiter: Option<char>,
        after: Option<&'a str>,
        limit: usize,
    ) -> Self {
        assert!(limit > 0, "the backends refuse a limit of 0");
        Self { prefix, delimiter, after, limit, listing: Listing::default(), last: None }
    }

    /// Whether an object of this name would add an entry.
    pub(crate) fn wants_object(&self, name: &str) -> bool {
        name.starts_with(self.prefix) && self.is_new(self.rolled_up(name).unwrap_or(name))
    }

    /// Whether any object below `directory`, which ends with `/`, could add an entry.
    pub(crate) fn wants_below(&self, directory: &str) -> bool {
        if !directory.starts_with(self.prefix) {
            return self.prefix.starts_with(directory);
        }
        match self.rolled_up(directory) {
            Some(prefix) => self.is_new(prefix),
            None => self.is_new(directory) || self.after.is_some_and(|a| a.starts_with(directory)),
        }
    }

    /// Whether all objects below `directory` make one and the same entry.
    pub(crate) fn rolls_up(&self, directory: &str) -> bool {
        directory.starts_with(self.prefix) && self.rolled_up(directory).is_some()
    }

    /// Takes an object that is wanted. `false` once the page is full and has a successor.
    pub(crate) fn take(&mut self, name: &str, size: u64) -> bool {
        debug_assert!(self.wants_object(name), "callers skip what adds no entry");
        if self.listing.objects.len() + self.listing.prefixes.len() == self.limit {
            self.listing.next.clone_from(&self.last);
            return false;
        }
        if let Some(prefix) = self.rolled_up(name) {
            let prefix = prefix.to_owned();
            self.last = Some(prefix.clone());
            self.listing.prefixes.push(prefix);
        } else {
            self.last = Some(name.to_owned());
            self.listing.objects.push((name.to_owned(), size));
        }
        true
    }

    pub(crate) fn finish(self) -> Listing {
        self.listing
    }

    fn is_new(&self, entry: &str) -> bool {
        self.after.is_none_or(|after| entry > after)
            && self.last.as_deref().is_none_or(|last| entry > last)
    }

    fn rolled_up<'n>(&self, name: &'n str) -> Option<&'n str> {
        let delimiter = self.delimiter?;
        let at = self.prefix.len();
        let found = name[at..].find(delimiter)?;
        Some(&name[..at + found + delimiter.len_utf8()])
    }
}
