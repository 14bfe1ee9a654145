//! The packets that reach the sink: a number in each, in the place of [`crate::latency`]'s stamp, a bit for each
//! number, and their order.

use bytemuck::{Pod, Zeroable};

/// Words of 64 bits of a part of the numbers.
pub const WORDS: usize = 64;
/// Numbers of a part.
pub const PART: u32 = u64::BITS * WORDS as u32;

/// The order of the numbers that came on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Sequence {
    /// The number after the greatest one.
    pub next: u32,
    /// Packets that came after one of a greater number, or of the same.
    pub overtaken: u32,
}

impl Sequence {
    /// Adds a packet.
    #[inline(always)]
    pub const fn add(&mut self, number: u32) {
        if number < self.next {
            self.overtaken += 1;
        } else {
            self.next = number.wrapping_add(1);
        }
    }
}

/// Returns the part that has a number, the word within it, and the bit within that.
#[inline(always)]
pub const fn place(number: u32) -> (u32, usize, u64) {
    let word = (number / u64::BITS) as usize % WORDS;
    (number / PART, word, 1 << (number % u64::BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_bit_of_its_own() {
        let places: std::collections::BTreeSet<_> = (0..3 * PART).map(place).collect();
        assert_eq!(places.len(), 3 * PART as usize);
        assert!(
            places
                .iter()
                .all(|(part, word, bit)| *part < 3 && *word < WORDS && bit.count_ones() == 1)
        );
    }

    #[test]
    fn packets_out_of_order_are_counted() {
        let mut sequence = Sequence::default();
        for number in [0, 1, 3, 2, 2, 4, 4, 7] {
            sequence.add(number);
        }
        assert_eq!(
            sequence,
            Sequence {
                next: 8,
                overtaken: 3
            }
        );
    }

    extern crate std;
}
