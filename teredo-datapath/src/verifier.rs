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

/// Returns all bits if the number's highest bit is set, or none. The compiler, which would turn arithmetic with that into
/// branches, does not know it.
#[inline(always)]
#[must_use]
pub fn sign(number: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut number = number;
        // SAFETY: arithmetic on a register.
        unsafe {
            core::arch::asm!(
                "{0} s>>= 63",
                inlateout(reg) number,
                options(pure, nomem, nostack),
            );
        }
        number
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        (number as i64 >> (i64::BITS - 1)) as u64
    }
}

/// Returns a number about which the compiler knows nothing. It would turn arithmetic into branches, and the verifier would
/// follow both ways of each.
#[inline(always)]
#[must_use]
pub fn opaque(number: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    let number = {
        let mut number = number;
        // Without an instruction, two lines of the source can have the same place in the program, which kernels refuse.
        // SAFETY: a register is copied to itself.
        unsafe {
            core::arch::asm!(
                "{0} = {0}",
                inlateout(reg) number,
                options(pure, nomem, nostack),
            );
        }
        number
    };
    number
}

/// Returns the number as one about which the verifier knows nothing. It knows nothing about `unknown` already.
#[inline(always)]
pub fn forget_number(number: u32, unknown: usize) -> u32 {
    #[cfg(target_arch = "bpf")]
    {
        let mut number = u64::from(number);
        // SAFETY: arithmetic on registers. The number stays the same, which the verifier does not see.
        unsafe {
            core::arch::asm!(
                "{number} ^= {unknown}",
                "{number} ^= {unknown}",
                unknown = in(reg) unknown,
                number = inout(reg) number,
                options(pure, nomem, nostack),
            );
        }
        number as u32
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        let _ = unknown;
        number
    }
}
