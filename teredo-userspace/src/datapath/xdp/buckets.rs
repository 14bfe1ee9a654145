//! Maps in memory that the program and the daemon share.

use std::{
    io,
    num::NonZeroUsize,
    os::fd::AsFd,
    ptr::NonNull,
    slice,
    sync::atomic::{AtomicU8, AtomicU32, AtomicU64},
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// A type of which a map may consist: a number that program and daemon read and write at once.
pub trait Number: Sized + Send + Sync {}

impl Number for AtomicU8 {}
impl Number for AtomicU32 {}
impl Number for AtomicU64 {}

/// The numbers of a map. The mapping stays valid when the program is gone.
#[derive(Debug)]
pub struct Shared<T: Number> {
    memory: NonNull<T>,
    size: NonZeroUsize,
}

/// The token buckets of the server's rate limits.
pub type SharedBuckets = Shared<AtomicU64>;

impl<T: Number> Shared<T> {
    /// Maps a BPF map of this many numbers into memory.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub(super) fn new(map: impl AsFd, length: usize) -> io::Result<Self> {
        let size = NonZeroUsize::new(length * size_of::<T>());
        let size = size.ok_or(io::ErrorKind::InvalidInput)?;
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
        Ok(Self {
            memory: memory.cast(),
            size,
        })
    }
}

impl<T: Number> AsRef<[T]> for Shared<T> {
    fn as_ref(&self) -> &[T] {
        // SAFETY: the mapping has this size and lives as long as `self`; the program, too, writes whole
        // numbers.
        unsafe { slice::from_raw_parts(self.memory.as_ptr(), self.size.get() / size_of::<T>()) }
    }
}

// SAFETY: the memory consists of atomic numbers and belongs to no thread.
unsafe impl<T: Number> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Number> Sync for Shared<T> {}

impl<T: Number> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: `new` made the mapping, and no reference into it outlives `self`.
        let _ = unsafe { munmap(self.memory.cast(), self.size.get()) };
    }
}
