//! What a relay is told when it starts.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::Ipv6Net;
use teredo_common::{
    address::{Endpoint, ServicePrefix},
    scope::Ipv4Scope,
    wire::MTU,
};

use crate::shared::limiter::Rate;

/// What a relay is told when it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// The relay's own endpoint: its IPv4 address and service port.
    pub endpoint: Endpoint,
    /// Prefix of the Teredo addresses that it relays to and from.
    pub prefix: ServicePrefix,
    /// Native addresses that it relays to and from. Never link-local, multicast or Teredo ones.
    pub served: Vec<Ipv6Net>,
    /// Serves only [`Config::own_ipv6`] (requirements ). Implies
    /// [`Config::direct_bubbles`].
    pub host_specific: bool,
    /// See [`super::Relay::set_own_addresses`].
    pub own_ipv4: Vec<Ipv4Addr>,
    /// See [`super::Relay::set_own_addresses`].
    pub own_ipv6: Vec<Ipv6Addr>,
    /// Primary address of the server in the same process (dual role): its clients are reached by
    /// [`super::Transmit::OwnServer`], though the address is this host's.
    pub own_server: Option<Ipv4Addr>,
    /// Which IPv4 addresses are global unicast (requirement L-05).
    pub ipv4_scope: Ipv4Scope,
    /// The largest IPv6 packet in the tunnel, in octets.
    pub mtu: u16,
    /// Peers remembered, trusted or not; at least two. An eighth may be untrusted (P-06).
    pub max_peers: usize,
    /// Packets that may wait for one peer (P-07).
    pub queue_per_peer: usize,
    /// Octets that may wait in total (P-07), with [`crate::QUEUE_OVERHEAD`] for each
    /// packet.
    pub queue_total_bytes: usize,
    /// Octets of [`Config::queue_total_bytes`] that packets from one /64 may take (L-12).
    pub queue_source_bytes: usize,
    /// Silence after which a trusted peer has to prove itself again (P-03).
    pub peer_lifetime: Duration,
    /// Silence after which a peer that is still sent to is asked for a sign of life (P-12). Less
    /// than [`Config::peer_lifetime`], and at least the two seconds between bubbles.
    pub refresh_after: Duration,
    /// Bubbles go to the peer's mapped endpoint, too, not to its server alone: for a relay
    /// behind a NAT or a firewall that lets in only answers.
    pub direct_bubbles: bool,
    /// A peer is trusted only after it returned a cookie.
    pub strict_trust: bool,
    /// A peer whose address has the cone flag is trusted at once. Lets others aim the
    /// relay's packets at anyone.
    pub honor_cone: bool,
    /// Destination Unreachable messages.
    pub unreachable_rate: Rate,
    /// New peers for the packets of one native /64 (L-12).
    pub new_peer_rate: Rate,
    /// Direct bubbles to one IPv4 address (L-12).
    pub direct_bubble_rate: Rate,
    /// Indirect bubbles to one server (L-12).
    pub indirect_bubble_rate: Rate,
}

impl Config {
    /// The defaults for a relay at `endpoint`.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            prefix: ServicePrefix::STANDARD,
            served: vec![Ipv6Net::default()],
            host_specific: false,
            own_ipv4: Vec::new(),
            own_ipv6: Vec::new(),
            own_server: None,
            ipv4_scope: Ipv4Scope::Strict,
            mtu: MTU,
            max_peers: 262_144,
            queue_per_peer: 16,
            queue_total_bytes: 16 << 20,
            queue_source_bytes: 4 << 20,
            peer_lifetime: Duration::from_secs(30),
            refresh_after: Duration::from_secs(25),
            direct_bubbles: false,
            strict_trust: false,
            honor_cone: false,
            unreachable_rate: Rate::new(10, 10),
            new_peer_rate: Rate::new(2_000, 20_000),
            direct_bubble_rate: Rate::new(20, 20),
            indirect_bubble_rate: Rate::new(500, 500),
        }
    }
}
