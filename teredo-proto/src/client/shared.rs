//! The data that both halves of the client share: settings, and the queues of actions and events.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::RangeInclusive,
};

use rand::{RngExt as _, rngs::StdRng};
use teredo_common::address::Endpoint;

use super::{Config, Event, Network, Transmit, statistics::Statistics};
use crate::shared::own::OwnIpv4;

/// The range that ports are chosen from: the dynamic ports (RFC 6335 section 6).
const DYNAMIC: RangeInclusive<u16> = 49_152..=u16::MAX;
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
    /// The ports that are open besides the service port, few of many.
    pub ports: BTreeSet<u16>,
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

    /// Opens an unpredictable port (L-16) that neither half has open, and returns it.
    pub fn open_port(&mut self) -> u16 {
        let port = loop {
            let port = self.random.random_range(DYNAMIC);
            if port != self.config.port && !self.ports.contains(&port) {
                break port;
            }
        };
        self.open_again(port);
        port
    }

    /// Opens a port that the process before had open.
    pub fn open_again(&mut self, port: u16) {
        if self.ports.insert(port) {
            self.transmits.push_back(Transmit::OpenPort(port));
        }
    }

    /// Closes a port, if it is open.
    pub fn close_port(&mut self, port: u16) {
        if self.ports.remove(&port) {
            self.transmits.push_back(Transmit::ClosePort(port));
        }
    }

    pub fn emit(&mut self, event: Event) {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        } else {
            self.statistics.events_lost += 1;
        }
    }
}
