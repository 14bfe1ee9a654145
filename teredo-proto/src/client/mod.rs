//! The Teredo client (RFC 4380 section 5.2, with RFC 5991 and RFC 6081): finds its address with the
//! help of a server, and exchanges packets with other clients and, through relays, native hosts.
//!
//! A client is stopped until [`Client::start`], which needs a network: call [`Client::set_network`]
//! first. Then the [order of calls](crate#the-order-of-calls) is that of every machine; each function
//! that takes the time may have something to poll.

mod config;
mod exchange;
mod qualification;
mod shared;
mod state;
mod statistics;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, VecDeque},
    net::{Ipv4Addr, Ipv6Addr},
    ops::Range,
    time::Duration,
};

use rand::{SeedableRng as _, rngs::StdRng};
use serde::{Deserialize, Serialize};
use teredo_common::{
    address::Endpoint,
    scope::is_global_unicast,
    time::Instant,
    traffic::{Count, Traffic},
};

pub use config::{Attached, Config, Credentials, Extensions, Network, Refresh, ServerEndpoints};
pub use state::{Misfit, SavedClient};
pub use statistics::{Bubble, DropReason, Statistics, Test};

pub use crate::shared::peers::PeerTraffic;

use crate::{
    shared::own::OwnIpv4,
    wire::{
        ecn,
        encapsulation::{self, Encapsulation},
        ipv6::{self, Header},
        router,
    },
};
use exchange::{Exchange, Forward};
use qualification::Qualification;
pub(crate) use qualification::solicitation;
use shared::Shared;

/// Something for the caller to do, in the order in which [`Client::poll_transmit`] returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// Send a UDP datagram, with outer DF and ECN clear (W-06).
    Datagram {
        /// Local UDP port, which is open; host byte order.
        from: u16,
        /// Destination endpoint.
        to: Endpoint,
        /// UDP payload.
        payload: Vec<u8>,
    },
    /// Send a discovery bubble from the service port to 224.0.0.253, port 3544, with a TTL of 1.
    Discovery {
        /// Address of the interface that the datagram leaves by.
        interface: Ipv4Addr,
        /// UDP payload.
        payload: Vec<u8>,
    },
    /// Give an IPv6 packet to the host.
    Ipv6(Vec<u8>),
    /// Open a local UDP port, host byte order. If that fails, call
    /// [`Client::handle_port_failure`].
    OpenPort(u16),
    /// Close a port that was opened.
    ClosePort(u16),
}

/// A change that the host or its user has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The client has a new address or MTU: its interface is to have these, and no other address.
    Qualified(Identity),
    /// The client lost its address: the interface is to lose it as well.
    Unqualified,
    /// The client cannot work, and will try again by itself. Emitted once per off-line period.
    Offline(Offline),
    /// The server asks the client to use a new key.
    RenewKey,
    /// The client measured the interval between maintenance solicitations (C-52).
    RefreshFound(Duration),
}

/// The reason why a client is off-line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Offline {
    /// No server answered.
    NoAnswer,
    /// The primary address of a server answered, and the secondary one did not.
    SecondarySilent,
    /// The NAT is symmetric, and [`Extensions::symmetric`] is off.
    Symmetric,
    /// The host has no route to the IPv4 internet.
    NoNetwork,
    /// The host has other IPv6 connectivity (Z-01).
    NativeIpv6,
}

/// The state of a client (RFC 4380 section 5.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The client was not started, or was stopped.
    Stopped,
    /// The client asks the server's primary address.
    Starting,
    /// The client asks the server's secondary address.
    Second,
    /// The client has an address.
    Qualified,
    /// The client waits before it tries again.
    Offline(Offline),
}

/// The kind of the NAT in front of a client, as qualification found it (RFC 4380 section 5.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Nat {
    /// Endpoint-independent mapping and filtering, or no NAT at all; found only with
    /// [`Config::cone_probe`].
    Cone,
    /// Endpoint-independent mapping.
    Restricted,
    /// Address-dependent, or address- and port-dependent mapping.
    Symmetric,
}

/// The address of a qualified client, and what it depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// IPv6 address: a Teredo address, or one of the tunnel service.
    pub address: Ipv6Addr,
    /// Endpoint of the client as the server's primary address sees it.
    pub mapped: Endpoint,
    /// The server that the client qualified with.
    pub server: ServerEndpoints,
    /// Kind of the NAT. Not measured for the tunnel service, to which it does not matter.
    pub nat: Nat,
    /// Whether the mapped port is the service port.
    pub port_preserving: bool,
    /// Endpoint at which a port mapping protocol made the service port reachable from outside, if
    /// that is not the endpoint that the server sees: there are nested NATs.
    pub port_mapping: Option<Endpoint>,
    /// Whether the outermost NAT has a port mapping for the service port: that of the port mapping
    /// protocol is the endpoint that the server sees.
    pub upnp: bool,
    /// Largest IPv6 packet in the tunnel, in octets.
    pub mtu: u16,
    /// Whether the address is one of the tunnel service: every packet goes to the server (T-11).
    pub tunnel: bool,
}

/// The state of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Address of the peer, a Teredo client or native host.
    pub address: Ipv6Addr,
    /// Endpoint that reaches the peer or, for a native host, its relay; if it is not trusted, the
    /// last or claimed one.
    pub mapped: Endpoint,
    /// Whether packets are sent to [`PeerInfo::mapped`].
    pub trusted: bool,
    /// Whether the peer is on the same link (C-62).
    pub local: bool,
    /// When a packet of the peer last arrived; [`Instant::ZERO`] if never.
    pub last_received: Instant,
    /// When a packet was last sent to the peer; [`Instant::ZERO`] if never.
    pub last_sent: Instant,
    /// The packets in both directions since the peer was known.
    pub traffic: Traffic,
    /// Number of packets that wait for the peer to answer.
    pub queued: usize,
    /// Another relay than that at [`PeerInfo::mapped`] that brought a packet of the native host, and when it did so
    /// last. Anybody can forge such packets.
    pub elsewhere: Option<(Endpoint, Instant)>,
}

/// The packets that a super-packet is split into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// Number of packets.
    pub count: usize,
    /// Octets of the largest.
    pub largest: usize,
    /// Octets of all of them.
    pub octets: usize,
}

/// A Teredo client; the [module](self) tells how to use it.
#[derive(Debug)]
pub struct Client {
    shared: Shared,
    qualification: Qualification,
    exchange: Exchange,
    /// The identity that [`Exchange`] knows.
    identity: Option<Identity>,
}

impl Client {
    /// Creates a client that is stopped. `seed` comes from the operating system's random number
    /// generator: nonces, ports and flags are as secret as it is (L-16).
    #[must_use]
    pub fn new(config: Config, seed: [u8; 32]) -> Self {
        let mut random = StdRng::from_seed(seed);
        let exchange = Exchange::new(&config, &mut random);
        let shared = Shared {
            own_ipv4: OwnIpv4::new(config.ipv4_scope),
            network: Network::default(),
            random,
            ports: BTreeSet::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            statistics: Statistics::default(),
            config,
        };
        Self {
            shared,
            qualification: Qualification::default(),
            exchange,
            identity: None,
        }
    }

    /// Starts to qualify; does nothing if the client was started already.
    pub fn start(&mut self, now: Instant) {
        self.qualification.start_if_stopped(&mut self.shared, now);
        self.propagate_identity(now);
    }

    /// Gives the address up, and closes all ports but the service port (Z-01).
    pub fn stop(&mut self, now: Instant) {
        self.qualification.stop(&mut self.shared);
        self.propagate_identity(now);
    }

    /// Sets the state of the host's network. A change that matters restarts qualification (C-46).
    pub fn set_network(&mut self, now: Instant, network: Network) {
        if network == self.shared.network {
            return;
        }
        let addresses: Vec<Ipv4Addr> = network
            .attached
            .iter()
            .map(|network| network.address)
            .collect();
        self.shared.own_ipv4.set(&addresses, []);
        self.shared.network = network;
        self.exchange.network_changed(&mut self.shared);
        self.qualification.network_changed(&mut self.shared, now);
        self.propagate_identity(now);
    }

    /// Sets the servers, for instance after their names were looked up again. The one in use stays
    /// in use until it fails.
    pub fn set_servers(&mut self, servers: Vec<ServerEndpoints>) {
        self.shared.config.servers = servers;
    }

    /// Handles that the host was suspended for `duration`, during which the clock stood still: no peer
    /// is trusted any more (P-04), and the server is asked whether the mapping is still there (C-46).
    pub fn handle_suspension(&mut self, now: Instant, duration: Duration) {
        self.exchange.handle_suspension(&mut self.shared, duration);
        self.recheck_mapping(now);
    }

    /// Tries to qualify at once if the client waits after a failure, because there is a reason to
    /// expect success: something changed on the host's network, or its packets want out. However
    /// often this is called, the server is solicited at most twelve times a minute (C-47).
    pub fn hasten(&mut self, now: Instant) {
        self.qualification.hasten(&mut self.shared, now);
        self.propagate_identity(now);
    }

    /// Asks the server whether the mapping is still there, because it may be lost (C-46).
    pub fn recheck_mapping(&mut self, now: Instant) {
        self.qualification.recheck_mapping(&mut self.shared, now);
        self.propagate_identity(now);
    }

    /// Handles that a port of [`Transmit::OpenPort`] could not be opened.
    pub fn handle_port_failure(&mut self, now: Instant, port: u16) {
        self.shared.ports.remove(&port);
        self.qualification
            .handle_port_failure(&mut self.shared, now, port);
        self.exchange.handle_port_failure(port);
    }

    /// Handles the payload of a UDP datagram that arrived at the local port `to` (host byte order),
    /// whole and with its checksum verified. `ecn` is the ECN field of its IPv4 header, 0 to 3.
    ///
    /// Returns the IPv6 packet to give to the host, if any: a part of `payload`. While others for the
    /// host wait in [`Client::poll_transmit`], the packet waits behind them instead.
    pub fn handle_datagram<'p>(
        &mut self,
        now: Instant,
        to: u16,
        from: Endpoint,
        ecn: u8,
        payload: &'p mut [u8],
    ) -> Option<&'p mut [u8]> {
        let received =
            propagate_congestion(ecn, payload).and_then(|()| self.receive(now, to, from, payload));
        self.propagate_identity(now);
        match received {
            Ok(range) => {
                let packet = payload.get_mut(range?)?;
                self.shared.statistics.decapsulated.add(packet.len());
                let mut waiting = self.shared.transmits.iter();
                if waiting.any(|transmit| matches!(transmit, Transmit::Ipv6(_))) {
                    let packet = Transmit::Ipv6(packet.to_vec());
                    self.shared.transmits.push_back(packet);
                    return None;
                }
                Some(packet)
            }
            Err(reason) => {
                self.shared.statistics.dropped[reason] += 1;
                None
            }
        }
    }

    /// Returns the range of `payload` with the packet that the host is to have, if there is one.
    fn receive(
        &mut self,
        now: Instant,
        to: u16,
        from: Endpoint,
        payload: &[u8],
    ) -> Result<Option<Range<usize>>, DropReason> {
        let (parts, header) = self.parse(from, payload)?;
        let (shared, qualification) = (&mut self.shared, &mut self.qualification);
        if qualification.secondary_port() == Some(to) {
            qualification.handle_secondary(shared, now, from, &parts)?;
            return Ok(None);
        }
        if to == shared.config.port && router::is_advertisement(header, parts.packet) {
            qualification.handle_advertisement(shared, now, from, &parts)?;
            return Ok(None);
        }
        let length = self
            .exchange
            .handle_datagram(shared, now, to, from, &parts)?;
        let start = parts.packet.as_ptr() as usize - payload.as_ptr() as usize;
        Ok(length.map(|length| start..start + length))
    }

    /// Returns the parts of a datagram that is well-formed and not this host's own (C-30), and the
    /// header of its packet.
    fn parse<'p>(
        &self,
        from: Endpoint,
        payload: &'p [u8],
    ) -> Result<(Encapsulation<'p>, Header<'p>), DropReason> {
        if self.shared.own_ipv4.contains(from.address) {
            return Err(DropReason::OwnSource);
        }
        if from.port() == 0 {
            return Err(DropReason::SourceScope);
        }
        let parts = encapsulation::parse(payload).map_err(|_| DropReason::Malformed)?;
        let header = Header::parse(parts.packet).map_err(|_| DropReason::Malformed)?;
        if header.source() == header.destination() {
            return Err(DropReason::SameAddresses);
        }
        Ok((parts, header))
    }

    /// Handles the payload of a datagram that arrived at 224.0.0.253, port 3544, by the interface
    /// with this address (C-31).
    pub fn handle_discovery(
        &mut self,
        now: Instant,
        interface: Ipv4Addr,
        from: Endpoint,
        payload: &[u8],
    ) {
        let taken = self.parse(from, payload).and_then(|(parts, _)| {
            self.exchange
                .handle_discovery(&mut self.shared, now, interface, from, &parts)
        });
        if let Err(reason) = taken {
            self.shared.statistics.dropped[reason] += 1;
        }
    }

    /// Handles an IPv6 packet that the host sends.
    ///
    /// Returns the local port (host byte order), the destination and the UDP payload of the datagram
    /// to send, if any; the payload is a part of `packet`. While something waits in
    /// [`Client::poll_transmit`], the packet waits behind it instead.
    pub fn handle_ipv6<'p>(
        &mut self,
        now: Instant,
        packet: &'p mut [u8],
    ) -> Option<(u16, Endpoint, &'p [u8])> {
        let is_first = self.shared.transmits.is_empty();
        match self.exchange.handle_ipv6(&mut self.shared, now, packet) {
            Ok(Forward::Send(from, to, length)) => {
                let payload = packet.get(..length)?;
                self.shared.statistics.encapsulated.add(length);
                if is_first {
                    return Some((from, to, payload));
                }
                self.shared.send(from, to, payload.to_vec());
                None
            }
            Ok(Forward::Queued) => None,
            Err(reason) => {
                self.shared.statistics.dropped[reason] += 1;
                if reason == DropReason::HostNotQualified && is_for_elsewhere(packet) {
                    self.hasten(now);
                }
                None
            }
        }
    }

    /// Handles the IPv6 packets that a super-packet of the host is split into: they have its header, except
    /// for their lengths.
    ///
    /// Returns the local port (host byte order) and the destination of all of them, if each is to be sent
    /// at once. Otherwise nothing has happened, and each goes to [`Client::handle_ipv6`].
    pub fn handle_segments(
        &mut self,
        now: Instant,
        super_packet: &[u8],
        segments: Segments,
    ) -> Option<(u16, Endpoint)> {
        if !self.shared.transmits.is_empty() {
            return None;
        }
        let header = Header::parse(super_packet).ok()?;
        let shared = &mut self.shared;
        let count = Count {
            packets: segments.count as u64,
            octets: segments.octets as u64,
        };
        let way = self
            .exchange
            .forward(shared, now, header, segments.largest, count)?;
        let traffic = &mut shared.statistics.encapsulated;
        traffic.add_many(segments.count, segments.octets);
        Some(way)
    }

    /// Does everything that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.qualification.handle_timeout(&mut self.shared, now);
        self.propagate_identity(now);
        self.exchange.handle_timeout(&mut self.shared, now);
    }

    /// Returns the time at which to call [`Client::handle_timeout`], or `None` if nothing will be
    /// due. An earlier call does no harm.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let server = self.qualification.poll_timeout();
        let exchange = self.exchange.poll_timeout();
        [server, exchange].into_iter().flatten().min()
    }

    /// Returns the next thing to do.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.shared.transmits.pop_front()
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.shared.events.pop_front()
    }

    /// Returns the state.
    pub fn state(&self) -> State {
        self.qualification.state()
    }

    /// Returns the configuration.
    pub const fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Returns the address and what it depends on, while the client has one.
    pub fn identity(&self) -> Option<&Identity> {
        self.qualification.identity()
    }

    /// Returns the server that the client uses or tries.
    pub fn server(&self) -> Option<ServerEndpoints> {
        self.qualification.server(&self.shared)
    }

    /// Returns all peers, in no particular order.
    pub fn peers(&self) -> impl Iterator<Item = PeerInfo> {
        self.exchange.peers()
    }

    /// Returns the number of peers that packets are sent to.
    pub fn trusted_peers(&self) -> usize {
        self.exchange.trusted_peers()
    }

    /// Returns the number of slots of the list of peers, of which some may be free.
    pub fn slots(&self) -> usize {
        self.exchange.slots()
    }

    /// Iterates over the peers in these slots, each with its slot. A peer keeps its slot.
    pub fn peers_in(&self, slots: Range<usize>) -> impl Iterator<Item = (usize, PeerInfo)> {
        self.exchange.peers_in(slots)
    }

    /// Returns the number of times that a peer was asked for a sign of life since its last one, a few at
    /// most; zero if it is not a peer.
    pub fn unanswered(&self, address: &[u8; 16]) -> u8 {
        self.exchange.unanswered(address)
    }

    /// Makes the traffic of peers be reported, from now on or as before the state was stored.
    pub fn begin_reports(&mut self) {
        self.exchange.peers_mut().accounts.begin_reports();
    }

    /// Calls `report` with the peers in these slots that have traffic which was not reported yet.
    pub fn report(&mut self, slots: Range<usize>, report: impl FnMut(PeerTraffic)) {
        self.exchange.peers_mut().report(slots, report);
    }

    /// Returns the traffic to report of peers that were removed since the last call.
    pub fn take_removed(&mut self) -> Vec<PeerTraffic> {
        self.exchange.peers_mut().accounts.take_removed()
    }

    /// Returns the counters since the start, and the current number of peers and waiting packets.
    pub fn statistics(&self) -> Statistics {
        let mut statistics = self.shared.statistics;
        self.exchange.measure(&mut statistics);
        statistics
    }

    /// Brings a change of the identity from the server's half to the other one.
    fn propagate_identity(&mut self, now: Instant) {
        let identity = self.qualification.identity();
        if identity == self.identity.as_ref() {
            return;
        }
        self.identity = identity.copied();
        self.exchange
            .set_identity(&mut self.shared, now, self.identity);
    }
}

/// Whether a packet wants out: those of the kernel's own go to the link.
fn is_for_elsewhere(packet: &[u8]) -> bool {
    Header::parse(packet).is_ok_and(|header| is_global_unicast(&header.destination()))
}

/// Copies the mark of congestion from a datagram to the packet in it, before the packet may have to
/// wait (W-06, RFC 6040). One that cannot take it is dropped, unless it is for the client itself.
fn propagate_congestion(ecn: u8, payload: &mut [u8]) -> Result<(), DropReason> {
    if ecn != ecn::CONGESTION_EXPERIENCED {
        return Ok(());
    }
    let parts = encapsulation::parse(payload).map_err(|_| DropReason::Malformed)?;
    let header = Header::parse(parts.packet).map_err(|_| DropReason::Malformed)?;
    if header.is_bubble() || router::is_advertisement(header, parts.packet) {
        return Ok(());
    }
    if ecn::must_drop(ecn, header.congestion()) {
        return Err(DropReason::Congestion);
    }
    let start = parts.packet.as_ptr() as usize - payload.as_ptr() as usize;
    ipv6::set_congestion_experienced(&mut payload[start..]);
    Ok(())
}
