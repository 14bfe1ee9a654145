//! The result of each part of the program.

use teredo_common::verdict::Verdict;

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
