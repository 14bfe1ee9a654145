//! A host whose only IPv6 is a Teredo client.

use std::{
    collections::{BTreeSet, VecDeque},
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use teredo_common::{address::Endpoint, time::Instant};
use teredo_proto::{
    client::{Client, Config, Event, Network, State, Transmit},
    wire::ipv6::Header,
};

use super::Output;
use crate::stack::Stack;

/// A host with a Teredo client.
#[derive(Debug)]
pub struct ClientNode {
    /// The client.
    pub client: Client,
    /// The client's configuration.
    pub config: Config,
    /// The network that the client was last given.
    pub network: Network,
    /// The host's address.
    pub ipv4: Ipv4Addr,
    /// Packets received by the host's applications.
    pub stack: Stack,
    /// The address of the tunnel interface.
    pub address: Option<Ipv6Addr>,
    /// All events that the client has emitted.
    pub events: Vec<(Instant, Event)>,
    /// Ports that other programs use.
    pub taken_ports: BTreeSet<u16>,
    open_ports: BTreeSet<u16>,
    /// Time by which the host's clock is behind the world's after suspensions.
    behind: Duration,
}

impl ClientNode {
    /// Makes a client that is not started.
    #[must_use]
    pub fn new(config: Config, ipv4: Ipv4Addr, seed: [u8; 32]) -> Self {
        Self {
            client: Client::new(config.clone(), seed),
            network: Network::default(),
            ipv4,
            stack: Stack::new(),
            address: None,
            events: Vec::new(),
            taken_ports: BTreeSet::new(),
            open_ports: [config.port].into(),
            behind: Duration::ZERO,
            config,
        }
    }

    /// Replaces the client by one that was started anew, with the same configuration.
    pub(crate) fn restart(&mut self, seed: [u8; 32]) {
        self.client = Client::new(self.config.clone(), seed);
        self.network = Network::default();
        self.address = None;
        self.open_ports = [self.config.port].into();
    }

    /// The source of the client's service traffic.
    #[must_use]
    pub const fn endpoint(&self) -> Endpoint {
        Endpoint::new(self.ipv4, self.config.port)
    }

    /// The open ports, including the service port.
    #[must_use]
    pub const fn open_ports(&self) -> &BTreeSet<u16> {
        &self.open_ports
    }

    /// Whether the client has an address.
    #[must_use]
    pub fn is_qualified(&self) -> bool {
        self.client.state() == State::Qualified
    }

    /// Whether the client has an address, or knows why it has none.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        matches!(self.client.state(), State::Qualified | State::Offline(_))
    }

    /// Stops the host's clock for this time, as during a suspension.
    pub(crate) fn fall_behind(&mut self, duration: Duration) {
        self.behind += duration;
    }

    /// The time on the host's clock.
    pub(crate) fn clock(&self, now: Instant) -> Instant {
        now - self.behind
    }

    /// Applies an action to the client.
    pub(crate) fn act(
        &mut self,
        now: Instant,
        act: impl FnOnce(&mut Client, Instant),
        output: &mut Vec<Output>,
    ) {
        let clock = self.clock(now);
        act(&mut self.client, clock);
        self.drain(now, VecDeque::new(), output);
    }

    /// Sends a packet of the host's applications.
    pub(crate) fn send(&mut self, now: Instant, packet: Vec<u8>, output: &mut Vec<Output>) {
        self.drain(now, [packet].into(), output);
    }

    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        from: Endpoint,
        to: Endpoint,
        mut payload: Vec<u8>,
        output: &mut Vec<Output>,
    ) {
        if to.ip() != self.ipv4 || !self.open_ports.contains(&to.port()) {
            return;
        }
        let received =
            self.client
                .handle_datagram(now - self.behind, to.port(), from, 0, &mut payload);
        let answer = received.map(|packet| packet.to_vec()).and_then(|packet| {
            let destination = Header::parse(&packet).map(|header| header.destination());
            let own = self.address.map(|address| address.octets());
            assert_eq!(destination.ok(), own, "a packet for another host (L-08)");
            self.deliver(now, &packet)
        });
        self.drain(now, answer.into_iter().collect(), output);
    }

    pub(super) fn handle_multicast(
        &mut self,
        now: Instant,
        from: Endpoint,
        payload: &[u8],
        output: &mut Vec<Output>,
    ) {
        if self.config.local_discovery {
            let clock = self.clock(now);
            self.client
                .handle_discovery(clock, self.ipv4, from, payload);
            self.drain(now, VecDeque::new(), output);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, output: &mut Vec<Output>) {
        self.client.handle_timeout(now - self.behind);
        self.drain(now, VecDeque::new(), output);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        Some(self.client.poll_timeout()? + self.behind)
    }

    /// Carries out the client's requests, and gives it the host's packets, until there are none.
    fn drain(&mut self, now: Instant, mut packets: VecDeque<Vec<u8>>, output: &mut Vec<Output>) {
        loop {
            while let Some(transmit) = self.client.poll_transmit() {
                self.transmit(now, transmit, &mut packets, output);
            }
            while let Some(event) = self.client.poll_event() {
                match &event {
                    Event::Qualified(identity) => self.address = Some(identity.address),
                    Event::Unqualified => self.address = None,
                    _ => (),
                }
                self.events.push((now, event));
            }
            let Some(mut packet) = packets.pop_front() else {
                return;
            };
            let sent = self.client.handle_ipv6(now - self.behind, &mut packet);
            output.extend(sent.map(|(port, to, payload)| Output::Datagram {
                from: Endpoint::new(self.ipv4, port),
                to,
                payload: payload.to_vec(),
            }));
        }
    }

    fn transmit(
        &mut self,
        now: Instant,
        transmit: Transmit,
        packets: &mut VecDeque<Vec<u8>>,
        output: &mut Vec<Output>,
    ) {
        match transmit {
            Transmit::Datagram { from, to, payload } => {
                assert!(
                    self.open_ports.contains(&from),
                    "sent from closed port {from}"
                );
                output.push(Output::Datagram {
                    from: Endpoint::new(self.ipv4, from),
                    to,
                    payload,
                });
            }
            Transmit::Discovery { interface, payload } => {
                assert_eq!(interface, self.ipv4, "discovery by a strange interface");
                output.push(Output::Multicast {
                    from: self.endpoint(),
                    payload,
                });
            }
            Transmit::Ipv6(packet) => packets.extend(self.deliver(now, &packet)),
            Transmit::OpenPort(port) => {
                let open = !self.taken_ports.contains(&port) && self.open_ports.insert(port);
                if !open {
                    self.client.handle_port_failure(now - self.behind, port);
                }
            }
            Transmit::ClosePort(port) => {
                assert_ne!(port, self.config.port, "closed the service port");
                assert!(self.open_ports.remove(&port), "closed closed port {port}");
            }
        }
    }

    /// Delivers a packet to the host and returns the host's answer.
    fn deliver(&mut self, now: Instant, packet: &[u8]) -> Option<Vec<u8>> {
        // The event that brought the packet may also take the interface's address away.
        let own = self.address?;
        self.stack.handle(now, own, packet)
    }
}
