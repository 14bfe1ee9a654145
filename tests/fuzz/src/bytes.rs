//! Reading choices from the octets of an input.

/// The rest of an input. When it is used up, numbers are zero and slices are empty, so that every
/// input means something.
#[derive(Clone, Debug)]
pub struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    /// Returns a reader at the start of `octets`.
    #[must_use]
    pub const fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    /// Returns `true` if nothing is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the next `N` octets.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut octets = [0; N];
        let given = self.slice(N);
        octets[..given.len()].copy_from_slice(given);
        octets
    }

    /// Returns the next octet.
    pub fn octet(&mut self) -> u8 {
        u8::from_be_bytes(self.array())
    }

    /// Returns the next two octets as a number.
    pub fn short(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    /// Returns the lowest bit of the next octet.
    pub fn bit(&mut self) -> bool {
        self.octet() & 1 != 0
    }

    /// Returns a number below `end`, which is 1 to 256, from the next octet.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.octet()) % end
    }

    /// Returns an element of a list that is not empty, by the next octet.
    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// Returns the next `length` octets, or those that are left.
    pub fn slice(&mut self, length: usize) -> &'a [u8] {
        let (slice, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        slice
    }

    /// Returns a string of octets after its length in one octet.
    pub fn string(&mut self) -> &'a [u8] {
        let length = self.octet().into();
        self.slice(length)
    }

    /// Returns everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.slice(usize::MAX)
    }
}
