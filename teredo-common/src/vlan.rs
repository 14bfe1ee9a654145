//! VLAN tags of frames (IEEE 802.1Q), as the maps have them.

use bytemuck::{Pod, Zeroable};

use crate::wire::{ETHERTYPE_SERVICE_VLAN, ETHERTYPE_VLAN};

/// Octets of a tag.
pub const TAG: usize = 4;
/// Most tags of a frame.
pub const TAGS_MAX: usize = 2;

/// The tags of a frame, the outer one first, as they lie in it; zeros for those that it does not have.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
pub struct Tags(pub [u32; TAGS_MAX]);

impl Tags {
    /// No tag.
    pub const NONE: Self = Self([0; TAGS_MAX]);
    /// The bits of a tag but for those of the priority.
    const IDENTITY: u32 = u32::from_ne_bytes([0xff, 0xff, 0x0f, 0xff]);
    /// The bits of the number of a VLAN.
    const NUMBER: u16 = 0xfff;

    /// Returns the tags with another inside, of the VLAN of this number; `None` if there are too many, or if
    /// the number is that of no VLAN.
    #[must_use]
    pub const fn and(self, is_service: bool, number: u16) -> Option<Self> {
        if number == 0 || number >= Self::NUMBER {
            return None;
        }
        let protocol = match is_service {
            true => ETHERTYPE_SERVICE_VLAN,
            false => ETHERTYPE_VLAN,
        };
        let ([a, b], [c, d]) = (protocol.to_be_bytes(), number.to_be_bytes());
        let tag = u32::from_ne_bytes([a, b, c, d]);
        match self.0 {
            [0, 0] => Some(Self([tag, 0])),
            [outer, 0] => Some(Self([outer, tag])),
            _ => None,
        }
    }

    /// Returns the tags without the priorities of the frame.
    #[must_use]
    #[inline(always)]
    pub const fn without_priority(self) -> Self {
        let Self([outer, inner]) = self;
        Self([outer & Self::IDENTITY, inner & Self::IDENTITY])
    }

    /// Returns the octets of the tags.
    #[must_use]
    pub const fn octets(self) -> usize {
        match self.0 {
            [0, _] => 0,
            [_, 0] => TAG,
            _ => 2 * TAG,
        }
    }
}

/// An interface, and the tags that the frames of a VLAN interface above it have there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
pub struct Trunk {
    /// Index of the interface.
    pub interface: u32,
    /// The tags, without priorities.
    pub tags: Tags,
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)` without padding (bytemuck::Pod proves it) and valid for any octets.
unsafe impl aya::Pod for Trunk {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_as_in_a_frame() {
        let one = Tags::NONE.and(false, 10).unwrap();
        assert_eq!(one.0.map(u32::to_ne_bytes), [[0x81, 0, 0, 10], [0; 4]]);
        let both = Tags::NONE.and(true, 0x123).unwrap().and(false, 10).unwrap();
        let octets = [[0x88, 0xa8, 1, 0x23], [0x81, 0, 0, 10]];
        assert_eq!(both.0.map(u32::to_ne_bytes), octets);
        assert_eq!(both.and(false, 1), None);
        for number in [0, 4095, 4096] {
            assert_eq!(Tags::NONE.and(false, number), None);
        }
        let lengths = [Tags::NONE, one, both].map(Tags::octets);
        assert_eq!(lengths, [0, 4, 8]);
    }

    #[test]
    fn priorities_are_no_part_of_the_identity() {
        let tags = Tags([[0x81, 0, 0xf1, 2], [0x81, 0, 0xe0, 3]].map(u32::from_ne_bytes));
        let without = Tags([[0x81, 0, 1, 2], [0x81, 0, 0, 3]].map(u32::from_ne_bytes));
        assert_eq!(tags.without_priority(), without);
    }
}
