//! What the kernel's verifier has to see.

/// Returns a number that is not greater than `MASK`, one less than a power of two, masked. The compiler, which may know the
/// bound, leaves the instruction in place: some verifiers do not know it.
#[inline(always)]
#[must_use]
pub fn masked<const MASK: i32>(number: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    let number = {
        let mut number = number;
        // SAFETY: arithmetic on a register.
        unsafe {
            core::arch::asm!(
                "{0} &= {1}",
                inlateout(reg) number,
                const MASK,
                options(pure, nomem, nostack),
            );
        }
        number
    };
    debug_assert!(number <= MASK as usize, "{number} is beyond its bound");
    number
}

/// Returns a number about which the compiler knows nothing. It would turn arithmetic into branches, and the verifier would
/// follow both ways of each.
#[inline(always)]
#[must_use]
pub fn opaque(number: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    let number = {
        let mut number = number;
        // SAFETY: no instruction at all.
        unsafe {
            core::arch::asm!(
                "/* {0} */",
                inlateout(reg) number,
                options(pure, nomem, nostack),
            );
        }
        number
    };
    number
}
