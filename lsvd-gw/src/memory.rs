//! How the allocator treats large blocks.
//!
//! glibc raises the size from which a block is a mapping of its own to that of the largest block
//! that was freed, up to 32 MiB. From then on the blocks of a checkpoint or an object lie among the
//! frames of the read cache, which keep them from ever going back: measured, 60 MiB beyond what is
//! in use. A size that was set stays.

#![expect(unsafe_code, reason = "a call of glibc without a safe wrapper")]

/// The size from which a block is a mapping of its own, in bytes: above the receive buffers of
/// connections (128 KiB), which come and go with each burst of writes.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES_MIN: i32 = 256 << 10;

/// Fixes the size from which a block is given back when it is freed. For the start of the process.
pub(crate) fn give_large_blocks_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: takes two numbers and keeps no reference; any thread may call it at any time.
        let accepted = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN) };
        debug_assert_eq!(accepted, 1, "glibc knows this parameter");
    }
}
