//! What all parts of a measurement send with.

use std::{collections::VecDeque, net::Ipv6Addr};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use teredo_common::{
    address::{Endpoint, RANDOM_FLAGS, TeredoAddress},
    scope::Ipv4Scope,
};

use super::Transmit;
use crate::{
    ServerAddress,
    client::{Config, ServerEndpoints, solicitation::Solicitation},
    wire::bubble,
};

/// What waits to be sent, and what is needed to make it.
#[derive(Debug)]
pub struct Outbox {
    /// As a client without a key has it, but for that it wants to hear of every mapped address.
    pub config: Config,
    pub server: ServerEndpoints,
    random: StdRng,
    transmits: VecDeque<Transmit>,
}

impl Outbox {
    pub fn new(server: ServerEndpoints, seed: [u8; 32]) -> Self {
        const ANY_PORT: u16 = 0;
        let mut config = Config::new(vec![server], ANY_PORT);
        config.ipv4_scope = Ipv4Scope::Lab;
        Self {
            config,
            server,
            random: StdRng::from_seed(seed),
            transmits: VecDeque::new(),
        }
    }

    /// Sends a solicitation to one of the server's addresses.
    pub fn solicit(&mut self, socket: usize, asked: ServerAddress, cone: bool) -> Solicitation {
        let (solicitation, payload) =
            Solicitation::new(&self.config, &mut self.random, self.server, asked, cone);
        self.transmits.push_back(Transmit {
            socket,
            to: solicitation.destination(),
            payload,
        });
        solicitation
    }

    /// Sends a datagram.
    pub fn send(&mut self, transmit: Transmit) {
        self.transmits.push_back(transmit);
    }

    /// Sends a bubble.
    pub fn bubble(
        &mut self,
        socket: usize,
        to: Endpoint,
        source: &[u8; 16],
        destination: &[u8; 16],
    ) {
        self.transmits.push_back(Transmit {
            socket,
            to,
            payload: bubble::build(source, destination).into(),
        });
    }

    /// The address of a client with this mapping (W-12).
    pub fn teredo_address(&mut self, mapped: Endpoint) -> Ipv6Addr {
        let address = TeredoAddress {
            prefix: self.config.prefix,
            server: self.server.primary,
            flags: self.random.random::<u16>() & RANDOM_FLAGS,
            mapped,
        };
        address.encode()
    }

    /// A link-local address that nobody else uses: a bubble with this source is ours.
    pub fn mark(&mut self) -> [u8; 16] {
        let mut address = [0; 16];
        address[..2].copy_from_slice(&[0xfe, 0x80]);
        address[8..].copy_from_slice(&self.random.random::<[u8; 8]>());
        // Universal, group and cone bit clear.
        address[8] &= 0x7c;
        address
    }

    pub fn poll(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }
}
