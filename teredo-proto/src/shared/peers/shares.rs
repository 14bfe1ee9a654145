//! The shares of networks in a table: the network with most peers gives room first (P-06).

use std::collections::{HashMap, hash_map::Entry};

use crate::shared::{
    keyed::Keyed,
    party::{LENGTHS, Party, network},
};

/// The number of entries of the networks of a party, largest network first.
pub type Weight = [u32; LENGTHS.len()];

/// Counts the entries of all networks.
#[derive(Debug)]
pub struct Shares {
    entries: HashMap<(u8, Party), u32, Keyed>,
}

impl Shares {
    pub fn new(keyed: Keyed) -> Self {
        Self {
            entries: HashMap::with_hasher(keyed),
        }
    }

    /// Counts an entry of `party`.
    pub fn add(&mut self, party: Party) {
        for key in networks(party) {
            *self.entries.entry(key).or_default() += 1;
        }
    }

    /// Ceases to count an entry of `party`.
    pub fn remove(&mut self, party: Party) {
        for key in networks(party) {
            if let Entry::Occupied(mut count) = self.entries.entry(key) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
    }

    /// Returns the number of entries of each of the party's networks.
    pub fn weight(&self, party: Party) -> Weight {
        networks(party).map(|key| self.entries.get(&key).copied().unwrap_or_default())
    }
}

fn networks(party: Party) -> [(u8, Party); LENGTHS.len()] {
    LENGTHS.map(|length| (length as u8, network(party, length)))
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    #[test]
    fn p06_every_network_of_a_party_counts() {
        let mut shares = Shares::new(Keyed::new(&mut StdRng::from_seed([1; 32])));
        let parties = [
            [1, 0, 0, 0, 0, 0, 0, 0],
            [1, 0, 0, 0, 0, 0, 0, 1],
            [1, 0, 0, 0, 0, 0, 1, 0],
            [1, 0, 0, 0, 0, 1, 0, 0],
            [2, 0, 0, 0, 0, 0, 0, 0],
        ];
        for party in parties {
            shares.add(party);
        }
        assert_eq!(shares.weight(parties[0]), [4, 3, 2, 1]);
        assert_eq!(shares.weight(parties[3]), [4, 1, 1, 1]);
        assert_eq!(shares.weight(parties[4]), [1; 4]);
        for party in parties {
            shares.remove(party);
        }
        assert!(shares.entries.is_empty());
    }
}
