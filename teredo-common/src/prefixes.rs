//! The prefixes whose addresses are Teredo addresses, and so never those of native hosts.

use bytemuck::{Pod, Zeroable};

use crate::address::ServicePrefix;

/// The prefixes that a [`TeredoPrefixes`] has room for: eight services and the two historical prefixes.
const PREFIXES: usize = 10;

/// The prefixes of all Teredo services that a node knows: those that it serves, and the two of the
/// specifications whether it serves them or not. No address in them is native (requirements,
/// L-10).
///
/// Unused places repeat the first prefix, so that the verifier removes their comparisons from the XDP
/// program.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct TeredoPrefixes(pub [ServicePrefix; PREFIXES]);

impl TeredoPrefixes {
    /// The prefixes of a node that serves the standard one.
    pub const STANDARD: Self = {
        let mut prefixes = [ServicePrefix::STANDARD; PREFIXES];
        prefixes[1] = ServicePrefix::DRAFT;
        Self(prefixes)
    };

    /// Creates the set for a node that serves these prefixes, of which the first eight count.
    pub fn new(served: impl IntoIterator<Item = ServicePrefix>) -> Self {
        let mut all = Self::STANDARD;
        let mut length = 2;
        for prefix in served {
            if length < PREFIXES && !all.0.contains(&prefix) {
                all.0[length] = prefix;
                length += 1;
            }
        }
        all
    }

    /// Whether the IPv6 address, in network byte order, is a Teredo address.
    #[inline(always)]
    pub fn contains(&self, address: &[u8; 16]) -> bool {
        self.0.iter().any(|prefix| prefix.contains(address))
    }
}

impl Default for TeredoPrefixes {
    fn default() -> Self {
        Self::STANDARD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(prefix: ServicePrefix) -> [u8; 16] {
        let mut address = [7; 16];
        address[..4].copy_from_slice(&prefix.0);
        address
    }

    #[test]
    fn the_historical_prefixes_are_teredo_whatever_is_served() {
        let own = ServicePrefix([0x2a, 1, 2, 3]);
        for prefixes in [TeredoPrefixes::default(), TeredoPrefixes::new([own])] {
            for prefix in [ServicePrefix::STANDARD, ServicePrefix::DRAFT] {
                assert!(prefixes.contains(&address(prefix)));
            }
        }
        assert!(TeredoPrefixes::new([own]).contains(&address(own)));
        assert!(!TeredoPrefixes::default().contains(&address(own)));
        let neighbour = address(ServicePrefix([0x20, 1, 0, 1]));
        assert!(!TeredoPrefixes::new([own]).contains(&neighbour));
    }

    #[test]
    fn eight_served_prefixes_fit_beside_them() {
        let served: [_; 8] = core::array::from_fn(|last| ServicePrefix([0x2a, 0, 0, last as u8]));
        let twice = served
            .into_iter()
            .chain([ServicePrefix::DRAFT])
            .chain(served);
        let prefixes = TeredoPrefixes::new(twice);
        for prefix in served {
            assert!(prefixes.contains(&address(prefix)), "{prefix}");
        }
    }
}
