//! The memory of peers whose entries were evicted.

use std::collections::{HashMap, VecDeque};

use crate::shared::{keyed::Keyed, peers::History};

/// The bubbles sent to peers that are no longer in the table, so that the limits hold for a peer
/// that comes back (P-09, P-11). Bounded; the oldest goes first.
#[derive(Debug)]
pub struct Departed {
    capacity: usize,
    histories: HashMap<[u8; 16], History, Keyed>,
    order: VecDeque<[u8; 16]>,
}

impl Departed {
    /// Creates a memory for `capacity` peers, at least one.
    pub fn new(capacity: usize, keyed: Keyed) -> Self {
        Self {
            capacity: capacity.max(1),
            histories: HashMap::with_hasher(keyed),
            order: VecDeque::new(),
        }
    }

    /// Returns the bubbles, oldest peer first.
    pub fn save(&self) -> Vec<([u8; 16], History)> {
        let departed = self.order.iter();
        departed
            .filter_map(|address| Some((*address, *self.histories.get(address)?)))
            .collect()
    }

    /// Records the bubbles sent to a removed peer.
    pub fn keep(&mut self, address: [u8; 16], history: History) {
        if self.order.len() >= self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.histories.remove(&oldest);
        }
        self.histories.insert(address, history);
        self.order.push_back(address);
    }

    /// Removes and returns the bubbles sent to a peer that comes back, if any are remembered.
    pub fn recall(&mut self, address: &[u8; 16]) -> Option<History> {
        let history = self.histories.remove(address)?;
        self.order.retain(|departed| departed != address);
        Some(history)
    }

    /// Forgets all peers.
    pub fn clear(&mut self) {
        self.histories.clear();
        self.order.clear();
    }
}
