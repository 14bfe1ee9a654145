//! The set of this host's IPv4 addresses, as the program sees it.

use std::{collections::HashSet, net::Ipv4Addr};

use aya::maps::{Array, HashMap, MapData, MapError};
use teredo_common::maps::{OWN_FILTER, OWN_FILTER_WORDS, OWN_IPV4, OWN_IPV4_MAX, own_filter_bit};

use super::error::{Error, io_error};

/// The map of addresses and the filter before it.
pub struct OwnIpv4 {
    addresses: HashMap<MapData, [u8; 4], u8>,
    filter: Array<MapData, u32>,
    /// What the map holds.
    held: HashSet<[u8; 4]>,
}

impl OwnIpv4 {
    /// Takes both maps, which are empty.
    pub fn new(addresses: HashMap<MapData, [u8; 4], u8>, filter: Array<MapData, u32>) -> Self {
        Self {
            addresses,
            filter,
            held: HashSet::new(),
        }
    }

    /// Replaces the set. Returns whether there was room for all of it.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn replace(&mut self, addresses: &[Ipv4Addr]) -> Result<bool, Error> {
        let new: HashSet<[u8; 4]> = addresses.iter().map(Ipv4Addr::octets).collect();
        // Those that are gone make room for the others.
        let gone: Vec<_> = self.held.difference(&new).copied().collect();
        for address in gone {
            let removed = self.addresses.remove(&address);
            removed.map_err(|error| Error::map(OWN_IPV4, error))?;
            self.held.remove(&address);
        }
        let added: Vec<_> = new.difference(&self.held).copied().collect();
        for address in added {
            if let Err(error) = self.addresses.insert(address, 1, 0) {
                return no_room(error);
            }
            self.held.insert(address);
        }
        for (index, word) in (0..).zip(filter(&new)) {
            let set = self.filter.set(index, word, 0);
            set.map_err(|error| Error::map(OWN_FILTER, error))?;
        }
        Ok(true)
    }
}

/// Returns the number of entries for a host that has `addresses` now. It may get as many again.
pub fn room(addresses: usize) -> u32 {
    let twice = u32::try_from(addresses)
        .unwrap_or(u32::MAX)
        .saturating_mul(2);
    twice.max(OWN_IPV4_MAX)
}

/// Returns the bits of all addresses.
fn filter(addresses: &HashSet<[u8; 4]>) -> [u32; OWN_FILTER_WORDS as usize] {
    let mut filter = [0; OWN_FILTER_WORDS as usize];
    for address in addresses {
        let (index, bit) = own_filter_bit(*address);
        filter[index as usize] |= bit;
    }
    filter
}

/// Tells a map without room from one that cannot be used.
fn no_room(error: MapError) -> Result<bool, Error> {
    let source = io_error(error);
    match source.raw_os_error() {
        // The map is full, or the kernel has no memory for another entry.
        Some(libc::E2BIG | libc::ENOMEM) => Ok(false),
        _ => Err(Error::map(OWN_IPV4, source)),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn the_filter_has_the_bit_of_every_address() {
        let addresses: HashSet<_> = (0..1000_u32)
            .map(|number| (0x0a00_0001 + number * 257).to_be_bytes())
            .collect();
        let filter = filter(&addresses);
        for address in addresses {
            let (index, bit) = own_filter_bit(address);
            assert!(filter[index as usize] & bit != 0, "{address:?}");
        }
        assert_eq!(super::filter(&HashSet::new()), [0; 8]);
    }

    #[test]
    fn there_is_room_for_twice_the_addresses() {
        assert_eq!(room(0), OWN_IPV4_MAX);
        assert_eq!(room(100_000), 200_000);
        assert_eq!(room(usize::MAX), u32::MAX);
    }

    #[test]
    fn only_a_full_map_is_bearable() {
        let error = |number| MapError::IoError(io::Error::from_raw_os_error(number));
        assert!(matches!(no_room(error(libc::E2BIG)), Ok(false)));
        assert!(matches!(no_room(error(libc::ENOMEM)), Ok(false)));
        assert!(no_room(error(libc::EPERM)).is_err());
    }
}
