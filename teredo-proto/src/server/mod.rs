//! The Teredo server (RFC 4380 section 5.3): answers solicitations, forwards bubbles to its
//! clients and connectivity tests to native IPv6, and carries the packets of the clients of its
//! tunnel service.
//!
//! No answer depends on earlier packets, except for the limits and for the endpoints of the tunnel
//! service's clients (S-02). The memory of the server never grows with what arrives: at most one
//! packet leaves for each that comes, so there is nothing to poll but events.

mod authentication;
mod config;
mod fast_path;
mod forward;
mod limits;
mod reception;
mod solicitation;
mod state;
mod statistics;
mod tunnel;

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, mem, net::Ipv4Addr, time::Duration};

use ipnet::Ipv4Net;
use teredo_common::{
    address::{Endpoint, ServicePrefix, embedded_server, server_link_local},
    limiter::Limits,
    time::Instant,
};

pub use config::{Config, RegisteredClient};
pub use limits::{Buckets, TooFew};
pub use state::SavedServer;
pub use statistics::{DropReason, Service, Statistics};
pub use tunnel::Binding;

use crate::{ServerAddress, shared::own::OwnIpv4, wire::router::Advertisement};
use authentication::Clients;
use tunnel::Tunnel;

/// Time for which a server that is being stopped goes on for the clients that it has: two refresh
/// intervals (S-27).
pub const DRAIN: Duration = Duration::from_secs(60);
/// Upper bound on queued events; excess events are dropped.
const MAX_EVENTS: usize = 64;
/// Octets that nearly every packet finds room in.
const ROOM: usize = 1500;

/// The packet that leaves because of one that was handled, in the server's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transmit<'s> {
    /// A UDP datagram, whose outer DF and ECN are to be clear (W-06).
    Datagram {
        /// Source address, with the server's port.
        from: ServerAddress,
        /// Destination endpoint.
        to: Endpoint,
        /// UDP payload.
        payload: &'s [u8],
    },
    /// An IPv6 packet of a client, for native IPv6, with its hop limit decremented.
    Native(&'s [u8]),
    /// An IPv6 packet of the tunnel service, for the kernel to route.
    Tunnel(&'s [u8]),
}

/// How a packet leaves.
#[derive(Clone, Copy, Debug)]
enum Route {
    Datagram { from: ServerAddress, to: Endpoint },
    Native,
    Tunnel,
}

/// An occasion to tell the operator something. Events about one client are rate limited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A client used a retired key.
    RetiredKey {
        /// Client identification.
        client: Vec<u8>,
        /// Mapped endpoint of the client.
        mapped: Endpoint,
    },
    /// A client of the tunnel service arrived.
    TunnelBound {
        /// Client identification.
        client: Vec<u8>,
        /// Mapped endpoint of the client.
        mapped: Endpoint,
    },
    /// A client of the tunnel service moved to another endpoint (T-03).
    TunnelMoved {
        /// Client identification.
        client: Vec<u8>,
        /// Mapped endpoint before.
        from: Endpoint,
        /// Mapped endpoint now.
        to: Endpoint,
    },
    /// A client of the tunnel service keeps moving: two hosts may have the same key (T-03).
    TunnelFlapping {
        /// Client identification.
        client: Vec<u8>,
        /// Mapped endpoint now.
        mapped: Endpoint,
    },
}

/// A Teredo server; the [module](self) tells how to use it.
#[derive(Debug)]
pub struct Server {
    primary: [u8; 4],
    prefixes: Vec<ServicePrefix>,
    link_local: [u8; 16],
    config: Config,
    own_ipv4: OwnIpv4,
    /// First and last of the addresses that are served, sorted and without overlap.
    allowed: Vec<([u8; 4], [u8; 4])>,
    advertisement: Advertisement,
    clients: Clients,
    tunnel: Tunnel,
    limits: Limits,
    buckets: Buckets,
    native_reachable: bool,
    draining: Option<Instant>,
    events: VecDeque<Event>,
    statistics: Statistics,
    /// The packet that leaves; kept for the room that it has.
    output: Vec<u8>,
}

impl Server {
    /// Creates a server that has heard of no client. `buckets` hold its limits, and may be shared
    /// with a fast path.
    pub fn new(mut config: Config, buckets: Buckets) -> Self {
        let link_local = server_link_local(config.primary, config.port).octets();
        let advertisement = advertisement(&config);
        let clients = mem::take(&mut config.clients);
        let clients = Clients::new(clients, config.require_authentication);
        let own_ipv4 = config.own_ipv4.clone();
        let mut server = Self {
            primary: config.primary.octets(),
            prefixes: config.prefixes.clone(),
            link_local,
            own_ipv4: OwnIpv4::new(config.ipv4_scope),
            allowed: ranges(&config.allow),
            advertisement,
            tunnel: Tunnel::new(&clients, &link_local, config.mtu),
            clients,
            limits: config.limits,
            buckets,
            native_reachable: false,
            draining: None,
            events: VecDeque::new(),
            statistics: Statistics::default(),
            output: Vec::with_capacity(ROOM),
            config,
        };
        server.set_own_addresses(&own_ipv4);
        server
    }

    /// Sets the IPv4 addresses of this host, with the directed broadcast addresses of attached
    /// networks (L-05). The server sends nothing to any of them and accepts nothing from them. Its
    /// own two and the relay's need not be among them.
    pub fn set_own_addresses(&mut self, ipv4: &[Ipv4Addr]) {
        let addresses = [self.config.primary, self.config.secondary].map(|one| one.octets());
        let relay = self.config.relay.map(|relay| relay.address);
        self.own_ipv4.set(ipv4, addresses.into_iter().chain(relay));
    }

    /// Replaces the buckets of the limits, since those shared with the fast path are others now. The new ones
    /// get the levels of the old ones.
    pub fn set_buckets(&mut self, now: Instant, buckets: Buckets) {
        buckets.restore(&self.buckets.save(now));
        self.buckets = buckets;
    }

    /// Sets whether packets of clients may leave for native IPv6: whether this host advertises the
    /// service prefix or has a route for it (S-25). They may not until this is called.
    pub fn set_native_reachable(&mut self, reachable: bool) {
        self.native_reachable = reachable;
    }

    /// Stops answering solicitations, and [`DRAIN`] later everything else (S-27).
    pub fn drain(&mut self, now: Instant) {
        self.draining.get_or_insert(now);
    }

    /// Returns `true` once [`Server::drain`] was called.
    pub const fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// Returns the moment from which nothing is sent any more, if the server drains.
    pub fn drain_end(&self) -> Option<Instant> {
        self.draining.map(|since| since + DRAIN)
    }

    /// Handles that the host was suspended for `duration`, during which the clock stood still (P-04):
    /// the clients of the tunnel service were silent for as long, draining went on, and the limits
    /// recovered.
    pub fn handle_suspension(&mut self, now: Instant, duration: Duration) {
        self.tunnel.age(now, duration);
        self.draining = self.draining.map(|since| since - duration);
        self.buckets.age(duration);
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns the clients of the tunnel service that the server has heard of, ordered by
    /// identification.
    pub fn bindings(&self) -> impl Iterator<Item = Binding> {
        self.tunnel.bindings(&self.clients)
    }

    /// Returns the counters since the start.
    pub const fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// Returns `true` if the access list admits this outer source (S-24).
    fn is_allowed(&self, address: [u8; 4]) -> bool {
        let after = self.allowed.partition_point(|&(first, _)| first <= address);
        let range = after
            .checked_sub(1)
            .and_then(|index| self.allowed.get(index));
        self.config.allow.is_empty() || range.is_some_and(|&(_, last)| address <= last)
    }

    /// Whether an IPv6 address belongs to a Teredo client of a service that is served.
    fn is_teredo(&self, address: &[u8; 16]) -> bool {
        self.prefixes.iter().any(|prefix| prefix.contains(address))
    }

    /// Whether a Teredo address names this server.
    fn is_own_client(&self, address: &[u8; 16]) -> bool {
        embedded_server(address) == self.primary
    }

    /// Whether even what is only forwarded ends here (S-27).
    fn is_stopped(&self, now: Instant) -> bool {
        self.drain_end().is_some_and(|end| now >= end)
    }

    /// The last check before something is sent because of a packet from `source` (S-23, S-27).
    fn admit(&self, now: Instant, source: Endpoint) -> Result<(), DropReason> {
        if self.is_stopped(now) {
            return Err(DropReason::Draining);
        }
        self.buckets.take(self.limits, source.address, now)
    }

    /// Returns the buffer, empty, for [`Server::finish`] to take back.
    fn room(&mut self) -> Vec<u8> {
        let mut output = mem::take(&mut self.output);
        output.clear();
        output
    }

    /// Counts what became of a packet and returns the one that leaves because of it, which `output`
    /// holds.
    fn finish(
        &mut self,
        output: Vec<u8>,
        outcome: Result<(Service, Route), DropReason>,
    ) -> Option<Transmit<'_>> {
        self.output = output;
        match outcome {
            Ok((service, route)) => {
                self.statistics.served[service].add(self.output.len());
                let payload = &self.output[..];
                Some(match route {
                    Route::Datagram { from, to } => Transmit::Datagram { from, to, payload },
                    Route::Native => Transmit::Native(payload),
                    Route::Tunnel => Transmit::Tunnel(payload),
                })
            }
            Err(reason) => {
                self.statistics.dropped[reason] += 1;
                None
            }
        }
    }

    fn emit(&mut self, event: Event) {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        } else {
            self.statistics.events_lost += 1;
        }
    }
}

/// What a server advertises to clients without a prefix of their own (S-17).
fn advertisement(config: &Config) -> Advertisement {
    let link_local = server_link_local(config.primary, config.port).octets();
    let [a, b, c, d] = config.prefixes.first().copied().unwrap_or_default().0;
    let [e, f, g, h] = config.primary.octets();
    Advertisement::new(&link_local, [a, b, c, d, e, f, g, h], config.mtu)
}

/// The addresses in networks, as sorted ranges without overlap.
fn ranges(networks: &[Ipv4Net]) -> Vec<([u8; 4], [u8; 4])> {
    let mut networks = Ipv4Net::aggregate(&networks.to_vec());
    networks.sort_unstable_by_key(Ipv4Net::network);
    let range = |one: &Ipv4Net| (one.network().octets(), one.broadcast().octets());
    networks.iter().map(range).collect()
}
