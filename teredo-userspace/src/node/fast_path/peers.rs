//! The peers of the relay in the map of the program.

use teredo_common::{peers::Peer, time::Instant};
use teredo_proto::relay::{Event, Relay};

use super::FastPath;
use crate::{datapath::xdp::Error, metrics::Level};

impl FastPath {
    /// Returns how often the map had no room for a trusted peer.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Returns the number of peers in the map, and the most that it holds; `None` without a program that forwards for
    /// the relay.
    pub fn peers(&self) -> Option<Level> {
        let xdp = self.xdp.as_ref().filter(|_| self.relays)?;
        Some(Level {
            value: xdp.program.peers() as u64,
            limit: self.max_peers as u64,
        })
    }

    /// Returns whether the map holds the peer.
    pub fn has(&self, address: &[u8; 16]) -> bool {
        let xdp = self.xdp.as_ref();
        xdp.is_some_and(|xdp| xdp.program.has_peer(address))
    }

    /// Hands the peers that an earlier run left in the map to the relay.
    pub fn hand_over(&mut self, relay: &mut Relay, now: Instant) {
        let result = self.try_hand_over(relay, now);
        self.note(result);
    }

    fn try_hand_over(&mut self, relay: &mut Relay, now: Instant) -> Result<(), Error> {
        let Some(xdp) = self.xdp.as_mut().filter(|_| self.relays) else {
            return Ok(());
        };
        let (mut adopted, mut unknown) = (0, Vec::new());
        xdp.program.for_each_peer(now, |address, peer| {
            if relay.has_proved(address) {
                // An earlier process has handed it over, and the program has seen it since.
                relay.record_stamps(address, peer.last_received, peer.last_sent);
            } else if relay.adopt_peer(now, (*address).into(), peer) {
                adopted += 1;
            } else {
                unknown.push(*address);
            }
        });
        for address in &unknown {
            xdp.program.remove(address, now)?;
        }
        if adopted > 0 {
            tracing::info!(peers = adopted, "took over the peers of the last run");
        }
        Ok(())
    }

    /// Applies an event of the relay to the map.
    pub fn apply(&mut self, event: Event, now: Instant) {
        let result = match event {
            Event::PeerTrusted {
                address,
                mapped,
                last_received,
                last_sent,
            } => {
                let peer = Peer {
                    mapped,
                    last_received,
                    last_sent,
                };
                self.insert(&address.octets(), &peer, now)
            }
            Event::PeerForgotten { address } => {
                self.changes += 1;
                self.attached(|xdp| xdp.program.remove(&address.octets(), now))
            }
        };
        self.note(result);
    }

    /// Adds or replaces a peer. One without room is counted, and stays in userspace.
    pub(super) fn insert(
        &mut self,
        address: &[u8; 16],
        peer: &Peer,
        now: Instant,
    ) -> Result<(), Error> {
        let Some(xdp) = self.xdp.as_mut().filter(|_| self.relays) else {
            return Ok(());
        };
        self.changes += 1;
        match xdp.program.insert(address, peer, now) {
            Err(Error::Full) => {
                self.refused += 1;
                self.missing.refused();
                Ok(())
            }
            result => result,
        }
    }
}
