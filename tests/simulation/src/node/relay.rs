//! A machine with a Teredo relay: a router, or a host that relays for itself.

use std::{collections::BTreeSet, net::Ipv6Addr, time::Duration};

use teredo_common::{address::Endpoint, time::Instant};
use teredo_proto::{
    relay::{Config, Event, Relay, Transmit},
    wire::ipv6::{self, Header},
};

use super::Output;
use crate::stack::Stack;

/// A machine with a Teredo relay.
#[derive(Debug)]
pub struct RelayNode {
    /// The relay.
    pub relay: Relay,
    /// The relay's configuration.
    pub config: Config,
    /// The relay's endpoint.
    pub endpoint: Endpoint,
    /// The machine's IPv6 address.
    pub ipv6: Ipv6Addr,
    /// The machine's own applications; a router has none.
    stack: Option<Stack>,
    /// Peers that the fast path may serve, by the events so far.
    pub fast: BTreeSet<Ipv6Addr>,
    /// Time by which the machine's clock is behind the world's after suspensions.
    behind: Duration,
}

impl RelayNode {
    /// Makes a relay at `config.endpoint` whose errors come from `ipv6`.
    #[must_use]
    pub fn new(mut config: Config, ipv6: Ipv6Addr, seed: [u8; 32]) -> Self {
        config.own_ipv6 = vec![ipv6];
        Self {
            relay: Relay::new(config.clone(), seed),
            endpoint: config.endpoint,
            ipv6,
            stack: config.host_specific.then(Stack::new),
            fast: BTreeSet::new(),
            behind: Duration::ZERO,
            config,
        }
    }

    /// Resumes after a suspension for this time, during which the machine's clock stood still.
    pub(crate) fn resume(&mut self, duration: Duration, output: &mut Vec<Output>) {
        self.behind += duration;
        self.relay.handle_suspension(duration);
        self.drain(output);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        Some(self.relay.poll_timeout()? + self.behind)
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
        let clock = now - self.behind;
        let packet = self.relay.handle_datagram(clock, from, 0, &mut payload);
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

    /// Handles a packet from native IPv6 as a router does, unless the relay serves itself alone.
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

    /// Handles a packet for the machine itself.
    fn deliver(&mut self, now: Instant, packet: &[u8], output: &mut Vec<Output>) {
        let Some(stack) = &mut self.stack else { return };
        if let Some(answer) = stack.handle(now, self.ipv6, packet) {
            self.send(now, answer, output);
        }
    }

    /// Handles a packet for the tunnel.
    pub(crate) fn send(&mut self, now: Instant, mut packet: Vec<u8>, output: &mut Vec<Output>) {
        let sent = self.relay.handle_ipv6(now - self.behind, &mut packet);
        output.extend(sent.map(|(to, payload)| Output::Datagram {
            from: self.endpoint,
            to,
            payload: payload.to_vec(),
        }));
        self.drain(output);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, output: &mut Vec<Output>) {
        self.relay.handle_timeout(now - self.behind);
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
        while let Some(event) = self.relay.poll_event() {
            match event {
                Event::PeerTrusted { address, .. } => self.fast.insert(address),
                Event::PeerForgotten { address } => self.fast.remove(&address),
            };
        }
    }
}
