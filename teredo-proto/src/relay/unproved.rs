//! The packets for peers whose mapping is not proved yet.
//!
//! They take few tokens: some at once, so that the first packets of a conversation wait for nobody,
//! some for each packet that comes from the mapping, so that a client that cannot prove anything
//! still gets answers to what it sends, and a trickle. All that goes to one address, one /24 and
//! everywhere is bounded as well.

use serde::{Deserialize, Serialize};
use teredo_common::{address::Endpoint, time::Instant};

use super::{Relay, config::Config};
use crate::shared::{
    keyed::Keyed,
    limiter::{Buckets, SavedBuckets, Tiers},
    peers::PeerIndex,
};

/// Packets that a packet from the mapping pays for: as many as the most frugal receivers of TCP and
/// QUIC acknowledge at once.
const EARNED: u16 = 16;
/// Bound on packets that are paid for and not sent yet.
const MAX_CREDIT: u16 = 1024;

/// The bounds on packets to mappings that are not proved.
#[derive(Debug)]
pub struct Unproved {
    mappings: Buckets,
    rates: Tiers,
}

/// The levels of [`Unproved`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SavedUnproved {
    mappings: SavedBuckets,
    rates: Vec<SavedBuckets>,
}

impl Unproved {
    pub fn new(config: &Config, keyed: Keyed) -> Self {
        Self {
            mappings: Buckets::new(config.trickle_rate, keyed),
            rates: config.unproved_rates.tiers(keyed),
        }
    }

    /// Sets the rates to those of a configuration.
    pub fn set_rates(&mut self, config: &Config) {
        self.mappings.set_rate(config.trickle_rate);
        self.rates.set_rates(&config.unproved_rates.list());
    }

    /// Returns the levels of all buckets.
    pub fn save(&self, now: Instant) -> SavedUnproved {
        SavedUnproved {
            mappings: self.mappings.save(now),
            rates: self.rates.save(now),
        }
    }

    /// Sets the levels of buckets that were stored.
    pub fn restore(&mut self, saved: &SavedUnproved) {
        self.mappings.restore(&saved.mappings);
        self.rates.restore(&saved.rates);
    }

    fn take(&mut self, mapped: Endpoint, credit: &mut u16, now: Instant) -> bool {
        if self.rates.free_at(&mapped.address) > now {
            return false;
        }
        let [a, b, c, d] = mapped.address;
        let [e, f] = mapped.port;
        let is_paid = match credit.checked_sub(1) {
            Some(left) => {
                *credit = left;
                true
            }
            None => self.mappings.take(&[a, b, c, d, e, f], now),
        };
        is_paid && self.rates.take(&mapped.address, now)
    }
}

impl Relay {
    /// Whether a packet may be sent to the mapping of a trusted peer; if so, counts it.
    pub(super) fn may_send(&mut self, now: Instant, index: PeerIndex) -> bool {
        let peer = &mut self.peers[index];
        peer.state.holds() || self.unproved.take(peer.mapped, &mut peer.state.credit, now)
    }

    /// Counts a packet that came from the mapping of a peer.
    pub(super) fn earn_credit(&mut self, index: PeerIndex) {
        let proof = &mut self.peers[index].state;
        if !proof.holds() {
            proof.credit = proof.credit.saturating_add(EARNED).min(MAX_CREDIT);
        }
    }
}
