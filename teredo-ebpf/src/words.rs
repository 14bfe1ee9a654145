//! Words in the values of maps.

use teredo_datapath::Words;

/// Words from an address on, aligned and within a value of a map. The verifier refuses access to any
/// other.
#[derive(Clone, Copy)]
pub struct MapWords(*mut u64);

impl MapWords {
    /// Returns the words of a value of a map. The kernel aligns values to eight octets.
    #[inline(always)]
    pub fn of<T>(value: *mut T) -> Self {
        const { assert!(size_of::<T>().is_multiple_of(8)) }
        Self(value.cast())
    }
}

impl MapWords {
    /// Returns the words from an address on.
    ///
    /// # Safety
    ///
    /// The address is aligned and lies in a value of a map.
    #[inline(always)]
    pub unsafe fn at(first: *mut u64) -> Self {
        Self(first)
    }

    /// Returns the address of the first word.
    #[inline(always)]
    pub fn first(self) -> *mut u64 {
        self.0
    }
}

impl Words for MapWords {
    #[inline(always)]
    fn load(self, index: usize) -> u64 {
        // SAFETY: within a value of a map. Volatile, as other CPUs and the daemon write it.
        unsafe { self.0.add(index).read_volatile() }
    }

    /// Makes the address of later accesses depend on the value, since machines that reorder loads do not
    /// reorder these; the BPF machine of many kernels in use has no other barrier for loads. x86 keeps the order of
    /// all loads, and the compiler that of volatile ones.
    #[inline(always)]
    fn after(self, value: u64) -> Self {
        #[cfg(all(target_arch = "bpf", not(bpf_target_arch = "x86_64")))]
        let value = {
            let mut value = value;
            // SAFETY: arithmetic on a register. The compiler does not learn that the result is zero; the
            // verifier does.
            unsafe {
                core::arch::asm!(
                    "{0} &= 0",
                    inlateout(reg) value,
                    options(pure, nomem, nostack),
                );
            }
            value
        };
        // Lints compile this for the host, where nothing runs it.
        #[cfg(not(all(target_arch = "bpf", not(bpf_target_arch = "x86_64"))))]
        let value = value.wrapping_sub(value);
        Self(self.0.wrapping_byte_add(value as usize))
    }

    #[inline(always)]
    fn store(self, index: usize, value: u64) {
        // SAFETY: as in `load`.
        unsafe { self.0.add(index).write_volatile(value) }
    }

    #[inline(always)]
    fn compare_exchange(self, index: usize, old: u64, new: u64) -> bool {
        // SAFETY: as in `load`.
        unsafe { compare_exchange(self.0.add(index), old, new) }
    }

    #[inline(always)]
    fn add(self, index: usize, value: u64) {
        // SAFETY: as in `load`.
        unsafe { add(self.0.add(index), value) }
    }

    #[inline(always)]
    fn from(self, index: usize) -> Self {
        Self(self.0.wrapping_add(index))
    }
}

/// Writes `new` if the word is `old`, and returns whether it was. A full barrier. The BPF machine has the
/// instruction, but Rust's library for it does not.
///
/// # Safety
///
/// `word` is aligned and lies in a value of a map.
#[inline(always)]
unsafe fn compare_exchange(word: *mut u64, old: u64, new: u64) -> bool {
    let seen: u64;
    #[cfg(target_arch = "bpf")]
    // SAFETY: one instruction, on a word that the caller vouches for.
    unsafe {
        core::arch::asm!(
            "r0 = cmpxchg_64({word} + 0x0, r0, {new})",
            word = in(reg) word,
            new = in(reg) new,
            inout("r0") old => seen,
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
        // SAFETY: as the caller vouches.
        let word = unsafe { AtomicU64::from_ptr(word) };
        seen = word
            .compare_exchange(old, new, SeqCst, SeqCst)
            .unwrap_or_else(|seen| seen);
    }
    seen == old
}

/// Adds to a word. The BPF machine has the instruction, but Rust's library for it does not.
///
/// # Safety
///
/// `word` is aligned and lies in a value of a map.
#[inline(always)]
unsafe fn add(word: *mut u64, value: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: one instruction, on a word that the caller vouches for.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({word} + 0x0) += {value}",
            word = in(reg) word,
            value = in(reg) value,
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
        // SAFETY: as the caller vouches.
        unsafe { AtomicU64::from_ptr(word) }.fetch_add(value, Relaxed);
    }
}
