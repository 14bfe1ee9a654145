//! The frame: one bounds check, and one way to read and write the octets that it covers.
//!
//! The verifiers of most kernels in use know nothing about the result of a byte swap, and follow only
//! comparisons of pointers, not of lengths. So that they can prove every access, whatever the
//! compiler makes of the code:
//!
//! - A position in a frame is a type parameter. Numbers from a frame are added to pointers in
//!   [`Frame::skip_octets`] alone.
//! - The length of a frame is opaque to the compiler. It cannot turn arithmetic on lengths into
//!   arithmetic on pointers, and cannot conclude from lengths that a bounds check is not needed.
//! - A number from a frame is bounded by an instruction of its own.

use crate::{environment::Environment, verifier::masked};

/// The octets of a frame, from the Ethernet header or a later position to its end.
#[derive(Clone, Copy)]
pub struct Frame {
    start: usize,
    end: usize,
    /// Octets of the whole frame.
    length: usize,
}

impl Frame {
    /// Returns the frame as it is now. A change of its size invalidates the value, and the verifier
    /// refuses any later use.
    #[inline(always)]
    pub fn of(environment: &impl Environment) -> Self {
        let (start, end) = (environment.start(), environment.end());
        Self {
            start,
            end,
            length: distance(start, end),
        }
    }

    /// Returns the number of octets in the whole frame.
    #[inline(always)]
    pub fn length(self) -> usize {
        self.length
    }

    /// Returns the frame without its first `N` octets, which need not exist.
    #[inline(always)]
    pub fn skip<const N: usize>(self) -> Self {
        Self {
            start: self.start + N,
            ..self
        }
    }

    /// Returns the frame without its first octets, which need not exist. There are less than 4,096 of them.
    #[inline(always)]
    pub fn skip_octets(self, octets: usize) -> Self {
        Self {
            start: self.start + masked::<4095>(octets),
            ..self
        }
    }

    /// Returns the first `N` octets, if the frame has as many.
    #[inline(always)]
    pub fn first<const N: usize>(self) -> Option<Octets<N>> {
        (self.start + N <= self.end).then_some(Octets(self.start as *mut u8))
    }
}

/// `N` octets that lie within the frame.
#[derive(Clone, Copy)]
pub struct Octets<const N: usize>(*mut u8);

impl<const N: usize> Octets<N> {
    /// Returns the word at offset `AT` as it lies in memory, which is network byte order.
    #[inline(always)]
    pub fn read<T: Word, const AT: usize>(self) -> T {
        const { assert!(AT + size_of::<T>() <= N) }
        // SAFETY: `Frame::first` compared these octets with the end of the frame, and the verifier
        // refuses a pointer from before a change of the frame's size. Every bit pattern is a
        // `Word`. A load of any size is one BPF instruction whatever the address; the verifier
        // checks the alignment on machines that need it.
        unsafe {
            let word = self.0.add(AT).cast::<T>();
            if cfg!(target_arch = "bpf") {
                word.read()
            } else {
                word.read_unaligned()
            }
        }
    }

    /// Returns the address of the first octet.
    #[inline(always)]
    pub fn start(self) -> *const u8 {
        self.0
    }

    /// Returns the value of the 16-bit number at offset `AT`.
    #[inline(always)]
    pub fn number<const AT: usize>(self) -> usize {
        value_of(self.read::<u16, AT>())
    }

    /// Replaces the word at offset `AT`.
    #[inline(always)]
    pub fn write<T: Word, const AT: usize>(self, value: T) {
        const { assert!(AT + size_of::<T>() <= N) }
        // SAFETY: as in `read`; no other CPU has this frame.
        unsafe {
            let word = self.0.add(AT).cast::<T>();
            if cfg!(target_arch = "bpf") {
                word.write(value);
            } else {
                word.write_unaligned(value);
            }
        }
    }

    /// Returns the `M` octets from offset `AT` on.
    #[inline(always)]
    pub fn part<const AT: usize, const M: usize>(self) -> Octets<M> {
        const { assert!(AT + M <= N) }
        Octets(self.0.wrapping_add(AT))
    }

    /// Returns the IPv6 address at offset `AT` as four words, for comparisons without a loop over
    /// octets.
    #[inline(always)]
    pub fn words<const AT: usize>(self) -> [u32; 4] {
        let address = self.part::<AT, 16>();
        [
            address.read::<u32, 0>(),
            address.read::<u32, 4>(),
            address.read::<u32, 8>(),
            address.read::<u32, 12>(),
        ]
    }
}

/// Returns the number of octets between two addresses without the compiler's knowledge of how it was computed.
#[inline(always)]
fn distance(start: usize, end: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let mut distance = end;
        // SAFETY: arithmetic on registers.
        unsafe {
            core::arch::asm!(
                "{0} -= {1}",
                inout(reg) distance,
                in(reg) start,
                options(pure, nomem, nostack),
            );
        }
        distance
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        end - start
    }
}

/// Returns the value of a 16-bit number in network byte order.
#[inline(always)]
fn value_of(word: u16) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let mut value = usize::from(word);
        // SAFETY: arithmetic on a register. The second instruction proves the assertion, and tells
        // the verifier.
        unsafe {
            core::arch::asm!(
                "{0} = be16 {0}",
                "{0} &= 65535",
                inlateout(reg) value,
                options(pure, nomem, nostack),
            );
            core::hint::assert_unchecked(value <= u16::MAX as usize);
        }
        value
    }
    #[cfg(not(target_arch = "bpf"))]
    usize::from(u16::from_be(word))
}

/// Unsigned numbers that one instruction loads or stores.
pub trait Word: Copy {}
impl Word for u8 {}
impl Word for u16 {}
impl Word for u32 {}
impl Word for u64 {}
