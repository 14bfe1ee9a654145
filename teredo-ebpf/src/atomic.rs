//! Compare-and-exchange, which the BPF machine has but Rust's library for it lacks.

/// Writes `new` if the word is `old`, and returns whether it was. A full barrier.
///
/// # Safety
///
/// `word` is aligned and lies in a value of a map.
#[inline(always)]
pub unsafe fn compare_exchange(word: *mut u64, old: u64, new: u64) -> bool {
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
