//! Page-aligned buffers for data on its way between sockets, disks and the store, and the bounded
//! pool that recycles their memory. One pool serves a whole gateway.
//!
//! Large buffers are mappings of their own: the system has their memory back at once, where an
//! allocator would keep it among smaller things.
//!
//! Invariants: 1. A buffer shows only bytes that were written into it since it was made or taken:
//! what an earlier use left in the memory lies behind `len` until it is overwritten.
//! 2. Memory returns to its pool when nobody can see it any more: at the drop of the buffer, or,
//! once frozen, of the last [`Bytes`] that shares it. 3. The pool keeps at most its limit idle.
//! Concurrency: a pool is shared by all threads; its lock is held for one push or pop.

#![forbid(unsafe_code)]

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytes::Bytes;
use memmap2::MmapMut;
use parking_lot::Mutex;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes in a page, as a length in memory.
pub const PAGE: usize = size_of::<Page>();

/// Idle memory that a pool of [`BufPool::default`] keeps: one of the largest buffers, or the reads
/// that an SSD can have in flight.
pub const POOL_IDLE_BYTES_MAX: usize = POOLED_BYTES_MAX;

/// The largest buffer that is recycled, in bytes; a larger one is made and freed each time. It
/// holds a batch of the default size, which is the largest thing that is written or read regularly.
pub const POOLED_BYTES_MAX: usize = PAGE * class_pages(CLASSES - 1);

/// Sizes of recycled buffers: 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, .. 2048, 2560 pages. Four
/// steps to each doubling, so that no buffer is much larger than what was asked for.
const CLASSES: usize = 41;

const fn class_pages(class: usize) -> usize {
    if class < 4 { class + 1 } else { (5 + class % 4) << (class / 4 - 1) }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
struct Page([u8; 4096]);

const ZERO_PAGE: Page = Page([0; 4096]);

/// The smallest buffer that is a mapping of its own. A process has some 65,000 mappings at most, and
/// one costs a system call and a page fault for each page.
const MAPPED_BYTES_MIN: usize = 256 << 10;

/// Whole pages, aligned.
enum Memory {
    Heap(Vec<Page>),
    Mapped(MmapMut),
}

impl Memory {
    /// Zeros.
    fn new(pages: usize) -> Self {
        let bytes = pages * PAGE;
        // Where the system refuses a mapping, the allocator may still have room.
        let mapped = (bytes >= MAPPED_BYTES_MIN).then(|| MmapMut::map_anon(bytes).ok()).flatten();
        mapped.map_or_else(|| Self::Heap(vec![ZERO_PAGE; pages]), Self::Mapped)
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Heap(pages) => pages.as_slice().as_bytes(),
            Self::Mapped(map) => map,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Heap(pages) => pages.as_mut_slice().as_mut_bytes(),
            Self::Mapped(map) => map,
        }
    }

    fn len(&self) -> usize {
        self.bytes().len()
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::Heap(Vec::new())
    }
}

/// A buffer that starts at a page boundary and has room for whole pages.
///
/// It derefs to the bytes written so far. Appending past the capacity panics instead of moving the
/// bytes: who fills a buffer knows its size, and a silent copy would cost what the pool saves.
#[derive(Default)]
pub struct AlignedBuf {
    memory: Memory,
    len: usize,
    pool: Option<BufPool>,
}

impl AlignedBuf {
    /// A buffer of `len` zero bytes that belongs to no pool.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let mut buf = Self::with_capacity(len);
        buf.advance(len);
        buf
    }

    /// An empty buffer with room for at least `bytes` bytes that belongs to no pool.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self { memory: Memory::new(bytes.div_ceil(PAGE)), len: 0, pool: None }
    }

    /// Bytes that fit in all.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.memory.len()
    }

    /// Bytes that still fit.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.capacity() - self.len
    }

    /// Appends `bytes`.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.spare_mut()[..bytes.len()].copy_from_slice(bytes);
        self.advance(bytes.len());
    }

    /// Appends zeros up to the next page boundary; nothing if the length is at one.
    pub fn pad_to_page(&mut self) {
        let padding = self.len.next_multiple_of(PAGE) - self.len;
        self.spare_mut()[..padding].fill(0);
        self.advance(padding);
    }

    /// The memory behind the written bytes, with whatever an earlier use left there. Whoever fills
    /// a prefix of it (a socket, a device) makes that prefix visible with [`AlignedBuf::advance`].
    #[must_use]
    pub fn spare_mut(&mut self) -> &mut [u8] {
        &mut self.memory.bytes_mut()[self.len..]
    }

    /// Declares the next `written` bytes of [`AlignedBuf::spare_mut`] as written.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn advance(&mut self, written: usize) {
        assert!(written <= self.remaining(), "{written} bytes do not fit {}", self.remaining());
        self.len += written;
    }

    /// Forgets all but the first `len` bytes; nothing if there are fewer.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Shares the bytes without a copy. The memory goes back to its pool when the last slice of
    /// the result drops.
    #[must_use]
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory.bytes()[..self.len]
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory.bytes_mut()[..self.len]
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.keep(std::mem::take(&mut self.memory));
        }
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuf")
            .field("len", &self.len)
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

/// Recycles the memory of [`AlignedBuf`]s; clones share one pool.
///
/// Fresh memory costs a page fault and 4096 zeroed bytes for each page, for a record of a few MiB
/// more than writing it. So what comes back is handed out as it is, and invariant 1 keeps that
/// safe. The pool limits only what lies idle: what is in use is limited by admission.
#[derive(Clone)]
pub struct BufPool(Arc<Shared>);

struct Shared {
    idle_bytes_max: usize,
    idle: Mutex<Idle>,
}

struct Idle {
    /// By class; the last one back is the first one out, as its memory is still in the CPU's
    /// cache.
    classes: [Vec<Memory>; CLASSES],
    bytes: usize,
}

impl Default for Idle {
    fn default() -> Self {
        Self { classes: std::array::from_fn(|_| Vec::new()), bytes: 0 }
    }
}

impl BufPool {
    /// A pool that keeps at most `idle_bytes_max` bytes of unused memory.
    #[must_use]
    pub fn new(idle_bytes_max: usize) -> Self {
        Self(Arc::new(Shared { idle_bytes_max, idle: Mutex::default() }))
    }

    /// An empty buffer with room for at least `bytes` bytes.
    #[must_use]
    pub fn take(&self, bytes: usize) -> AlignedBuf {
        let Some(class) = class_for(bytes.div_ceil(PAGE)) else {
            return AlignedBuf::with_capacity(bytes);
        };
        let pages = class_pages(class);
        let recycled = {
            let mut idle = self.0.idle.lock();
            let recycled = idle.classes[class].pop();
            if recycled.is_some() {
                idle.bytes -= pages * PAGE;
            }
            recycled
        };
        let memory = recycled.unwrap_or_else(|| Memory::new(pages));
        AlignedBuf { memory, len: 0, pool: Some(self.clone()) }
    }

    /// Gives idle memory back until at most `bytes` of it are left: for whoever knows that there is
    /// nothing to do for a while.
    pub fn trim(&self, bytes: usize) {
        let mut unused = Vec::new();
        let mut idle = self.0.idle.lock();
        for class in (0..CLASSES).rev() {
            while idle.bytes > bytes
                && let Some(memory) = idle.classes[class].pop()
            {
                idle.bytes -= memory.len();
                unused.push(memory);
            }
        }
        drop(idle);
        drop(unused);
    }

    /// Bytes of memory that lie idle now.
    #[must_use]
    pub fn idle_bytes(&self) -> usize {
        self.0.idle.lock().bytes
    }

    fn keep(&self, memory: Memory) {
        let bytes = memory.len();
        let class = class_for(bytes / PAGE).expect("only buffers of a class name a pool");
        let mut idle = self.0.idle.lock();
        if idle.bytes + bytes <= self.0.idle_bytes_max {
            idle.bytes += bytes;
            idle.classes[class].push(memory);
        }
    }
}

impl Default for BufPool {
    fn default() -> Self {
        Self::new(POOL_IDLE_BYTES_MAX)
    }
}

impl fmt::Debug for BufPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufPool")
            .field("idle_bytes", &self.idle_bytes())
            .field("idle_bytes_max", &self.0.idle_bytes_max)
            .finish()
    }
}

/// The smallest class with at least `pages` pages.
fn class_for(pages: usize) -> Option<usize> {
    (0..CLASSES).find(|&class| class_pages(class) >= pages)
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_an_earlier_use_left_behind_stays_invisible() {
        let pool = BufPool::default();
        let mut first = pool.take(PAGE);
        first.extend_from_slice(&[7; PAGE]);
        let memory = first.as_ptr();
        drop(first);
        let mut second = pool.take(PAGE);
        assert_eq!(second.as_ptr(), memory, "the memory was not recycled");
        assert!(second.is_empty());
        second.extend_from_slice(b"new");
        second.pad_to_page();
        assert_eq!(&second[..3], b"new");
        assert!(second[3..].iter().all(|&byte| byte == 0));
        assert_eq!(second.len(), PAGE);
    }

    #[test]
    fn frozen_memory_comes_back_with_its_last_slice() {
        let pool = BufPool::default();
        let mut buf = pool.take(3 * PAGE);
        buf.extend_from_slice(&[1; 3 * PAGE]);
        let whole = buf.freeze();
        let part = whole.slice(PAGE..2 * PAGE);
        drop(whole);
        assert_eq!(pool.idle_bytes(), 0);
        assert!(part.as_ptr().addr().is_multiple_of(PAGE));
        assert_eq!(part, vec![1; PAGE]);
        drop(part);
        assert_eq!(pool.idle_bytes(), 3 * PAGE);
    }

    #[test]
    fn classes_ascend_and_waste_a_quarter_at_most() {
        let pages: Vec<usize> = (0..CLASSES).map(class_pages).collect();
        assert!(pages.is_sorted_by(|a, b| a < b), "{pages:?}");
        for (class, &size) in pages.iter().enumerate() {
            assert_eq!(class_for(size), Some(class));
        }
        for wanted in 1..=pages[CLASSES - 1] {
            let got = class_pages(class_for(wanted).unwrap());
            assert!(got >= wanted && 4 * (got - wanted) <= wanted, "{got} for {wanted}");
        }
        assert_eq!(class_for(pages[CLASSES - 1] + 1), None);
    }

    #[test]
    fn trimming_gives_the_largest_buffers_back_first() {
        let pool = BufPool::new(usize::MAX);
        let bufs = [PAGE, 200 * PAGE, PAGE].map(|bytes| pool.take(bytes));
        drop(bufs);
        pool.trim(10 * PAGE);
        assert_eq!(pool.idle_bytes(), 2 * PAGE);
        pool.trim(0);
        assert_eq!(pool.idle_bytes(), 0);
    }

    #[test]
    fn idle_memory_is_bounded() {
        let pool = BufPool::new(4 * PAGE);
        let bufs: Vec<_> = (0..9).map(|_| pool.take(PAGE)).collect();
        drop(bufs);
        assert_eq!(pool.idle_bytes(), 4 * PAGE);
        drop(pool.take(POOLED_BYTES_MAX));
        assert_eq!(pool.idle_bytes(), 4 * PAGE);
    }

    #[test]
    fn a_buffer_above_the_largest_class_is_not_kept() {
        let pool = BufPool::new(usize::MAX);
        let buf = pool.take(POOLED_BYTES_MAX + 1);
        assert_eq!(buf.capacity(), POOLED_BYTES_MAX + PAGE);
        drop(buf);
        assert_eq!(pool.idle_bytes(), 0);
        drop(pool.take(POOLED_BYTES_MAX));
        assert_eq!(pool.idle_bytes(), POOLED_BYTES_MAX);
    }

    #[test]
    #[should_panic(expected = "do not fit")]
    fn a_buffer_does_not_grow() {
        AlignedBuf::with_capacity(PAGE).advance(PAGE + 1);
    }

    #[derive(Clone, Debug)]
    enum Edit {
        Extend(Vec<u8>),
        Pad,
        Truncate(usize),
        Recycle,
    }

    fn edit() -> impl Strategy<Value = Edit> {
        prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 0..3000).prop_map(Edit::Extend),
            2 => Just(Edit::Pad),
            1 => (0..4 * PAGE).prop_map(Edit::Truncate),
            1 => Just(Edit::Recycle),
        ]
    }

    proptest! {
        #[test]
        fn a_recycled_buffer_behaves_like_a_vector(edits in prop::collection::vec(edit(), 0..40)) {
            let pool = BufPool::default();
            let mut buf = pool.take(4 * PAGE);
            let mut twin: Vec<u8> = Vec::new();
            for edit in edits {
                match edit {
                    Edit::Extend(bytes) if bytes.len() <= buf.remaining() => {
                        buf.extend_from_slice(&bytes);
                        twin.extend_from_slice(&bytes);
                    }
                    Edit::Extend(_) => {}
                    Edit::Pad => {
                        buf.pad_to_page();
                        twin.resize(twin.len().next_multiple_of(PAGE), 0);
                    }
                    Edit::Truncate(len) => {
                        buf.truncate(len);
                        twin.truncate(len);
                    }
                    Edit::Recycle => {
                        drop(buf);
                        buf = pool.take(4 * PAGE);
                        twin.clear();
                    }
                }
                prop_assert_eq!(&buf[..], &twin[..]);
                prop_assert!(buf.as_ptr().addr().is_multiple_of(PAGE));
            }
        }
    }
}
