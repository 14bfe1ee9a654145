//! The settings of a relay.

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

/// The settings of a relay.
#[derive(Clone, Debug)]
pub struct Config {
    /// The relay's own endpoint: its IPv4 address and service port.
    pub endpoint: Endpoint,
    /// The prefix of the Teredo addresses that it relays to and from.
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
    /// The IPv4 addresses that count as global unicast (L-05).
    pub ipv4_scope: Ipv4Scope,
    /// The largest IPv6 packet in the tunnel, in octets.
    pub mtu: u16,
    /// Maximum number of peers, trusted or not; at least two. An eighth may be untrusted (P-06).
    pub max_peers: usize,
    /// Maximum number of packets that wait for one peer (P-07).
    pub queue_per_peer: usize,
    /// Maximum number of octets that wait in total (P-07), with [`crate::QUEUE_OVERHEAD`] for each
    /// packet.
    pub queue_total_bytes: usize,
    /// Share of [`Config::queue_total_bytes`] for packets from one /64 (L-12).
    pub queue_source_bytes: usize,
    /// Silence after which a trusted peer has to prove itself again (P-03).
    pub peer_lifetime: Duration,
    /// Silence after which a peer that is still sent to is asked for a sign of life (P-12). Less
    /// than [`Config::peer_lifetime`], and at least the two seconds between bubbles.
    pub refresh_after: Duration,
    /// Sends bubbles to the peer's mapped endpoint, too, not to its server alone: for a
    /// relay behind a NAT or a firewall that lets in only answers.
    pub direct_bubbles: bool,
    /// Trusts a peer only after it returned a cookie.
    pub strict_trust: bool,
    /// Trusts a peer whose address has the cone flag at once. Lets others aim the relay's
    /// packets at any endpoint.
    pub honor_cone: bool,
    /// Rate of Destination Unreachable messages.
    pub unreachable_rate: Rate,
    /// Rate of new peers for the packets of one native /64 (L-12).
    pub new_peer_rate: Rate,
    /// Rate of direct bubbles to one IPv4 address (L-12).
    pub direct_bubble_rate: Rate,
    /// Rate of indirect bubbles to one server (L-12).
    pub indirect_bubble_rate: Rate,
}

impl Config {
    /// Returns the defaults for a relay at `endpoint`.
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
