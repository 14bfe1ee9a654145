//! The shares of networks in a table: the network with most peers gives room first (P-06).

use crate::shared::{
    gradual::GradualMap,
    keyed::Keyed,
    party::{LENGTHS, Party, network},
};

/// The number of entries of the networks of a party, largest network first.
pub type Weight = [u32; LENGTHS.len()];

/// Counts the entries of all networks.
#[derive(Debug)]
pub struct Shares {
    entries: GradualMap,
}

impl Shares {
    pub fn new(keyed: Keyed) -> Self {
        Self {
            entries: GradualMap::new(keyed),
        }
    }

    /// Counts an entry of `party`.
    pub fn add(&mut self, party: Party) {
        for key in networks(party) {
            let count = self.entries.get(key).unwrap_or_default();
            self.entries.set(key, count + 1);
        }
    }

    /// Ceases to count an entry of `party`.
    pub fn remove(&mut self, party: Party) {
        for key in networks(party) {
            match self.entries.get(key) {
                Some(1) => drop(self.entries.remove(key)),
                Some(count) => self.entries.set(key, count - 1),
                None => {}
            }
        }
    }

    /// Returns the number of entries of each of the party's networks.
    pub fn weight(&self, party: Party) -> Weight {
        networks(party).map(|key| self.entries.get(key).unwrap_or_default())
    }
}

/// Returns the keys of a party's networks: length and octets.
fn networks(party: Party) -> [u128; LENGTHS.len()] {
    LENGTHS.map(|length| {
        let octets = u64::from_be_bytes(network(party, length));
        (length as u128) << 64 | u128::from(octets)
    })
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
        assert_eq!(shares.entries.len(), 0);
    }
}
