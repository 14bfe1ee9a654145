//! The frame: one bounds check, and one way to touch what it proved to be there.

use aya_ebpf::{EbpfContext as _, helpers, programs::XdpContext};

/// The octets of a frame, from the Ethernet header to its end.
#[derive(Clone, Copy)]
pub struct Frame {
    start: usize,
    end: usize,
}

impl Frame {
    /// The frame as it is now. Any change of its size makes the value useless, which the verifier
    /// watches over.
    #[inline(always)]
    pub fn of(context: &XdpContext) -> Self {
        Self {
            start: context.data(),
            end: context.data_end(),
        }
    }

    /// Octets in the frame.
    #[inline(always)]
    pub fn length(self) -> usize {
        self.end - self.start
    }

    /// `N` octets from `offset` on, if the frame has them.
    #[inline(always)]
    pub fn at<const N: usize>(self, offset: usize) -> Option<Octets<N>> {
        let start = self.start + offset;
        (start + N <= self.end).then_some(Octets(start as *mut u8))
    }
}

/// `N` octets that lie within the frame.
#[derive(Clone, Copy)]
pub struct Octets<const N: usize>(*mut u8);

impl<const N: usize> Octets<N> {
    /// The number at offset `AT`, in the order of the octets in the frame: network byte order for
    /// whoever wants its value.
    #[inline(always)]
    pub fn read<T: Word, const AT: usize>(self) -> T {
        const { assert!(AT + size_of::<T>() <= N) }
        // SAFETY: `Frame::at` compared these octets with the end of the frame, and the verifier
        // refuses a pointer from before a change of the frame's size. Every bit pattern is a
        // `Word`. A load of any size is one BPF instruction whatever the address; the verifier
        // checks the alignment on machines that need it.
        unsafe { self.0.add(AT).cast::<T>().read() }
    }

    /// Replaces the number at offset `AT`.
    #[inline(always)]
    pub fn write<T: Word, const AT: usize>(self, value: T) {
        const { assert!(AT + size_of::<T>() <= N) }
        // SAFETY: as in `read`; this CPU alone has the frame.
        unsafe { self.0.add(AT).cast::<T>().write(value) }
    }

    /// The IPv6 address at offset `AT` as four words, for comparisons without a loop over octets.
    #[inline(always)]
    pub fn words<const AT: usize>(self) -> [u32; 4] {
        const { assert!(AT + 16 <= N) }
        let at = Octets::<16>(self.0.wrapping_add(AT));
        [
            at.read::<u32, 0>(),
            at.read::<u32, 4>(),
            at.read::<u32, 8>(),
            at.read::<u32, 12>(),
        ]
    }
}

/// Unsigned numbers that one instruction loads or stores.
pub trait Word: Copy {}
impl Word for u8 {}
impl Word for u16 {}
impl Word for u32 {}
impl Word for u64 {}

/// Moves the start of the frame: forward if `delta` is positive. On failure nothing has changed.
#[inline(always)]
pub fn move_start(context: &XdpContext, delta: i32) -> bool {
    // SAFETY: the context is the one that the kernel passed to the program.
    unsafe { helpers::bpf_xdp_adjust_head(context.as_ptr().cast(), delta) == 0 }
}

/// Cuts `octets` off the end of the frame. On failure nothing has changed.
#[inline(always)]
pub fn cut_end(context: &XdpContext, octets: usize) -> bool {
    // SAFETY: as in `move_start`.
    unsafe { helpers::bpf_xdp_adjust_tail(context.as_ptr().cast(), -(octets as i32)) == 0 }
}
