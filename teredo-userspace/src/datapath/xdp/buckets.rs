//! The token buckets of the server's rate limits, in memory that the program and the daemon share.

use std::{io, num::NonZeroUsize, os::fd::AsFd, ptr::NonNull, slice, sync::atomic::AtomicU64};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use teredo_common::limiter::BUCKETS;

const SIZE: usize = BUCKETS as usize * size_of::<u64>();

/// The mapped buckets. The mapping stays valid when the program is gone.
#[derive(Debug)]
pub struct SharedBuckets(NonNull<AtomicU64>);

impl SharedBuckets {
    /// Maps the BPF map into memory.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub(super) fn new(map: impl AsFd) -> io::Result<Self> {
        let size = NonZeroUsize::new(SIZE).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: the kernel chooses the address, so no other mapping is replaced.
        let memory = unsafe {
            mmap(
                None,
                size,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                map,
                0,
            )?
        };
        Ok(Self(memory.cast()))
    }
}

impl AsRef<[AtomicU64]> for SharedBuckets {
    fn as_ref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has this size and lives as long as `self`; the program, too, writes
        // whole words.
        unsafe { slice::from_raw_parts(self.0.as_ptr(), BUCKETS as usize) }
    }
}

// SAFETY: the memory consists of atomic words and belongs to no thread.
unsafe impl Send for SharedBuckets {}
// SAFETY: as above.
unsafe impl Sync for SharedBuckets {}

impl Drop for SharedBuckets {
    fn drop(&mut self) {
        // SAFETY: `new` made the mapping, and no reference into it outlives `self`.
        let _ = unsafe { munmap(self.0.cast(), SIZE) };
    }
}
