//! The sum of a part of a frame, for checksums that do not follow from headers alone.

use teredo_common::checksum::Sum;

use crate::{environment::Environment, frame::Frame};

/// Longer parts have no sum here, in octets: the tunnel's packets are shorter.
const LIMIT: usize = 2048;

/// Returns the sum of the first `length` octets; `None` if the frame has fewer, or if they are too many.
///
/// The kernel sums octets whose number is constant. So the steps are powers of two, the largest first, which
/// keeps the rest at an even offset.
#[inline(always)]
pub fn of(environment: &impl Environment, start: Frame, length: usize) -> Option<Sum> {
    if length >= LIMIT {
        return None;
    }
    let mut part = Part {
        rest: start,
        sum: Sum::ZERO,
    };
    // The kernel sums no more than 512 at once.
    part.add::<1024, 512>(environment, length)?;
    part.add::<512, 512>(environment, length)?;
    part.add::<256, 256>(environment, length)?;
    part.add::<128, 128>(environment, length)?;
    part.add::<64, 64>(environment, length)?;
    part.add::<32, 32>(environment, length)?;
    part.add::<16, 16>(environment, length)?;
    part.add::<8, 8>(environment, length)?;
    part.add::<4, 4>(environment, length)?;
    if bit::<2>(length) != 0 {
        let last = part.rest.first::<2>()?.read::<u16, 0>();
        part.sum = part.sum.add_2(last.to_ne_bytes());
    }
    part.rest = part.rest.skip_octets(bit::<2>(length));
    if bit::<1>(length) != 0 {
        let last = part.rest.first::<1>()?.read::<u8, 0>();
        part.sum = part.sum.add_2([last, 0]);
    }
    Some(part.sum)
}

/// Returns a bit of a number. The verifier does not see that it is the same as at the last call, and so follows the
/// code after a step once, and not for every combination of steps before.
#[inline(always)]
fn bit<const BIT: usize>(number: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let bit: usize;
        // SAFETY: arithmetic on registers. Not `pure`, or two calls would be one.
        unsafe {
            core::arch::asm!(
                "{bit} = {number}",
                "{bit} &= {mask}",
                bit = out(reg) bit,
                number = in(reg) number,
                mask = const BIT,
                options(nomem, nostack),
            );
        }
        bit
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        number & BIT
    }
}

/// The octets that are not in the sum yet, and the sum of those before.
struct Part {
    rest: Frame,
    sum: Sum,
}

impl Part {
    /// Adds the first `BIT` octets if `length` has this bit, `STEP` at once.
    #[inline(always)]
    fn add<const BIT: usize, const STEP: usize>(
        &mut self,
        environment: &impl Environment,
        length: usize,
    ) -> Option<()> {
        if bit::<BIT>(length) != 0 {
            let octets = self.rest.first::<STEP>()?;
            self.sum = self
                .sum
                .add_unfolded(environment.sum::<STEP>(octets.start()));
            if STEP != BIT {
                let octets = self.rest.skip::<STEP>().first::<STEP>()?;
                self.sum = self
                    .sum
                    .add_unfolded(environment.sum::<STEP>(octets.start()));
            }
        }
        self.rest = self.rest.skip_octets(bit::<BIT>(length));
        Some(())
    }
}
