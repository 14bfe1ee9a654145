//! The data that both halves of the client share: settings, and the queues of actions and events.

use std::collections::VecDeque;

use rand::rngs::StdRng;
use teredo_common::address::Endpoint;

use super::{Config, Event, Network, Transmit, statistics::Statistics};
use crate::shared::own::OwnIpv4;

/// Upper bound on queued events.
const MAX_EVENTS: usize = 1024;

/// The data that both halves share.
#[derive(Debug)]
pub struct Shared {
    pub config: Config,
    pub network: Network,
    /// This host's IPv4 addresses and directed broadcasts (L-01, L-02, L-05).
    pub own_ipv4: OwnIpv4,
    pub random: StdRng,
    pub transmits: VecDeque<Transmit>,
    pub events: VecDeque<Event>,
    pub statistics: Statistics,
}

impl Shared {
    /// Sends a datagram from a local port.
    pub fn send(&mut self, from: u16, to: Endpoint, payload: Vec<u8>) {
        self.transmits
            .push_back(Transmit::Datagram { from, to, payload });
    }

    pub fn emit(&mut self, event: Event) {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        } else {
            self.statistics.events_lost += 1;
        }
    }
}
