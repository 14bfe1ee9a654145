//! The result of each part of the program.

use teredo_common::verdict::Verdict;

use crate::verifier::forget_number;

/// A frame to send, or the reason why the frame is as it came. A part that has changed a frame
/// without being able to finish it returns a verdict that drops it.
pub type Outcome = Result<Sent, Verdict>;

/// A frame that was translated, or replaced by an answer.
#[derive(Clone, Copy)]
pub struct Sent {
    /// The verdict to count.
    pub verdict: Verdict,
    /// Index of the interface through which the frame leaves.
    pub interface: u32,
}

/// Returns the verdict as a number about which the verifier knows nothing, so that it follows what comes
/// next once, and not for every verdict again. It knows nothing about `unknown` already.
#[inline(always)]
pub fn forget(verdict: Verdict, unknown: usize) -> Verdict {
    let number = forget_number(verdict as u32, unknown);
    // SAFETY: it is the number of a verdict.
    unsafe { core::mem::transmute::<u32, Verdict>(number) }
}
