//! The ports that are open besides the service port, each for one peer.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::client::shared::Shared;

/// Maximum number of open ports; peers beyond that do without.
const MAX: usize = 64;

/// The open ports, and the peers that they are for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ports(BTreeMap<u16, [u8; 16]>);

impl Ports {
    /// Opens a port for a peer, unless too many are open.
    pub fn open(&mut self, shared: &mut Shared, peer: [u8; 16]) -> Option<u16> {
        if self.0.len() >= MAX {
            return None;
        }
        let port = shared.open_port();
        self.0.insert(port, peer);
        Some(port)
    }

    /// Closes a port, if it is open.
    pub fn close(&mut self, shared: &mut Shared, port: u16) {
        if self.forget(port).is_some() {
            shared.close_port(port);
        }
    }

    /// Forgets a port that could not be opened. Returns the peer that it was for.
    pub fn forget(&mut self, port: u16) -> Option<[u8; 16]> {
        self.0.remove(&port)
    }

    /// Returns the open ports.
    pub fn numbers(&self) -> impl Iterator<Item = u16> {
        self.0.keys().copied()
    }

    /// Returns the peer that a port is for.
    pub fn peer(&self, port: u16) -> Option<[u8; 16]> {
        self.0.get(&port).copied()
    }
}
