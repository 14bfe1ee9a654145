//! A machine with a Teredo relay: a router, or a host that relays for itself.

use std::net::Ipv6Addr;

use teredo_common::{address::Endpoint, time::Instant};
use teredo_proto::{
    relay::{Config, Relay, Transmit},
    wire::ipv6::{self, Header},
};

use super::Output;
use crate::stack::Stack;

/// A machine with a Teredo relay.
#[derive(Debug)]
pub struct RelayNode {
    /// The relay.
    pub relay: Relay,
    /// What it was told.
    pub config: Config,
    /// Its endpoint.
    pub endpoint: Endpoint,
    /// Its IPv6 address.
    pub ipv6: Ipv6Addr,
    /// Its own applications; a router has none.
    stack: Option<Stack>,
}

impl RelayNode {
    /// A relay at `config.endpoint` whose errors come from `ipv6`.
    #[must_use]
    pub fn new(mut config: Config, ipv6: Ipv6Addr, seed: [u8; 32]) -> Self {
        config.own_ipv6 = vec![ipv6];
        Self {
            relay: Relay::new(config.clone(), seed),
            endpoint: config.endpoint,
            ipv6,
            stack: config.host_specific.then(Stack::new),
            config,
        }
    }

    pub(super) fn stack(&self) -> Option<&Stack> {
        self.stack.as_ref()
    }

    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        from: Endpoint,
        to: Endpoint,
        mut payload: Vec<u8>,
        output: &mut Vec<Output>,
    ) {
        if to != self.endpoint {
            return;
        }
        let packet = self.relay.handle_datagram(now, from, 0, &mut payload);
        let packet = packet.map(|packet| packet.to_vec());
        self.drain(output);
        let Some(mut packet) = packet else { return };
        if self.stack.is_some() {
            self.deliver(now, &packet, output);
        } else if Header::parse(&packet).is_ok_and(|header| header.hop_limit() > 1) {
            ipv6::decrement_hop_limit(&mut packet);
            output.push(Output::Ipv6(packet));
        }
    }

    /// A packet from native IPv6: as a router does, unless the relay serves itself alone.
    pub(super) fn handle_ipv6(
        &mut self,
        now: Instant,
        mut packet: Vec<u8>,
        output: &mut Vec<Output>,
    ) {
        let Ok(header) = Header::parse(&packet) else {
            return;
        };
        if header.destination() == self.ipv6.octets() {
            self.deliver(now, &packet, output);
        } else if self.stack.is_none() && header.hop_limit() > 1 {
            ipv6::decrement_hop_limit(&mut packet);
            self.send(now, packet, output);
        }
    }

    /// A packet for the machine itself.
    fn deliver(&mut self, now: Instant, packet: &[u8], output: &mut Vec<Output>) {
        let Some(stack) = &mut self.stack else { return };
        if let Some(answer) = stack.handle(now, self.ipv6, packet) {
            self.send(now, answer, output);
        }
    }

    /// A packet for the tunnel.
    pub(crate) fn send(&mut self, now: Instant, mut packet: Vec<u8>, output: &mut Vec<Output>) {
        let sent = self.relay.handle_ipv6(now, &mut packet);
        output.extend(sent.map(|(to, payload)| Output::Datagram {
            from: self.endpoint,
            to,
            payload: payload.to_vec(),
        }));
        self.drain(output);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, output: &mut Vec<Output>) {
        self.relay.handle_timeout(now);
        self.drain(output);
    }

    fn drain(&mut self, output: &mut Vec<Output>) {
        while let Some(transmit) = self.relay.poll_transmit() {
            output.extend(match transmit {
                Transmit::Datagram { to, payload } => Some(Output::Datagram {
                    from: self.endpoint,
                    to,
                    payload,
                }),
                Transmit::Ipv6(packet) => Some(Output::Ipv6(packet)),
                Transmit::OwnServer { .. } => None,
            });
        }
        while self.relay.poll_event().is_some() {}
    }
}
