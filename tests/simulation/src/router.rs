//! A router in front of a fleet: it spreads packets among the relays that are announced.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, Hash};

use super::world::NodeId;

/// The part of a packet that determines its relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hashing {
    /// The destination.
    Destination,
    /// Source, destination and ports.
    Flow,
    /// Everything: no two packets need take the same way.
    Packet,
}

/// A router in front of a fleet. Whenever a relay comes or goes, all packets are spread anew.
#[derive(Debug)]
pub(super) struct Router {
    pub hashing: Hashing,
    /// All relays of the fleet.
    pub relays: Vec<NodeId>,
}

impl Router {
    /// The relay among those that are announced to which a packet goes. `whole` is the whole packet.
    pub fn choose(
        &self,
        seed: u64,
        announced: &[NodeId],
        destination: impl Hash,
        flow: impl Hash,
        whole: impl Hash,
    ) -> Option<NodeId> {
        let hash = match self.hashing {
            Hashing::Destination => number(seed, announced, destination),
            Hashing::Flow => number(seed, announced, flow),
            Hashing::Packet => number(seed, announced, whole),
        };
        let count = announced.len() as u64;
        let place = hash.checked_rem(count)?;
        announced.get(place as usize).copied()
    }
}

/// A hash that is the same in every run.
fn number(seed: u64, announced: &[NodeId], key: impl Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one((seed, announced, key))
}
