//! The configuration of a relay.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::Ipv6Net;
use teredo_common::{
    address::{Endpoint, ServicePrefix},
    prefixes::TeredoPrefixes,
    scope::Ipv4Scope,
    wire::MTU,
};

use crate::shared::{
    limiter::{Ipv4Rates, Ipv6Rates, Rate},
    turns::Pace,
};

/// The configuration of a relay; [`Config::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// The relay's own endpoint: its IPv4 address and service port.
    pub endpoint: Endpoint,
    /// Prefix of the Teredo addresses that the relay serves.
    pub prefix: ServicePrefix,
    /// Prefixes of all Teredo services, [`Config::prefix`] among them or not. Their addresses are never
    /// native.
    pub teredo: TeredoPrefixes,
    /// Native networks that the relay serves, all of them by default. Link-local, multicast and
    /// Teredo addresses are never served, whatever is in here.
    pub served: Vec<Ipv6Net>,
    /// Whether the relay serves only the host that it runs on, which has [`Config::own_ipv6`] (R-30
    /// to R-33). Implies [`Config::direct_bubbles`].
    pub host_specific: bool,
    /// IPv4 addresses of this host at the start; see [`Relay::set_own_addresses`].
    ///
    /// [`Relay::set_own_addresses`]: super::Relay::set_own_addresses
    pub own_ipv4: Vec<Ipv4Addr>,
    /// IPv6 addresses of this host at the start; see [`Relay::set_own_addresses`].
    ///
    /// [`Relay::set_own_addresses`]: super::Relay::set_own_addresses
    pub own_ipv6: Vec<Ipv6Addr>,
    /// Primary address of the server in the same process, if there is one (dual role). Bubbles to
    /// its clients leave as [`Transmit::OwnServer`](super::Transmit::OwnServer), although the address
    /// is this host's.
    pub own_server: Option<Ipv4Addr>,
    /// IPv4 addresses that count as global unicast (L-05).
    pub ipv4_scope: Ipv4Scope,
    /// Largest IPv6 packet in the tunnel, in octets, without encapsulation.
    pub mtu: u16,
    /// Upper bound on the number of peers, at least two. An eighth of them may be untrusted (P-06).
    pub max_peers: usize,
    /// Upper bound on the number of packets that wait for one peer (P-07).
    pub queue_per_peer: usize,
    /// Upper bound on the octets of all packets that wait (P-07), counting
    /// [`QUEUE_OVERHEAD`](crate::QUEUE_OVERHEAD) for each packet.
    pub queue_total_bytes: usize,
    /// Share of [`Config::queue_total_bytes`] that packets from one /64 may take, in octets (L-12).
    pub queue_source_bytes: usize,
    /// Silence after which a trusted peer has to prove itself again (P-03).
    pub peer_lifetime: Duration,
    /// Silence after which the relay asks a peer that it still sends to for a sign of life (P-12).
    /// Less than [`Config::peer_lifetime`], and at least the two seconds between bubbles.
    pub refresh_after: Duration,
    /// Whether bubbles go to the peer's mapped endpoint as well as to its server: for a relay
    /// behind a NAT or a firewall that lets in only answers.
    pub direct_bubbles: bool,
    /// Whether a peer whose address has the cone flag is trusted at once. Lets others aim the
    /// relay's packets at anyone.
    pub honor_cone: bool,
    /// Rate of Destination Unreachable messages.
    pub unreachable_rate: Rate,
    /// Rates of new peers because of packets from native networks (L-12).
    pub new_peer_rates: Ipv6Rates,
    /// Rates of direct bubbles (L-12).
    pub direct_bubble_rates: Ipv4Rates,
    /// Rates of questions for the proof of a mapping.
    pub question_rates: Ipv4Rates,
    /// Rates of packets to mappings that are not proved.
    pub unproved_rates: Ipv4Rates,
    /// Rate of packets to one mapping that is not proved, beyond those that came from there.
    pub trickle_rate: Rate,
    /// Pace of indirect bubbles through one server (L-18).
    pub server_pace: Pace,
}

impl Config {
    /// Creates the default configuration of a relay at `endpoint`, which serves all native addresses.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            prefix: ServicePrefix::STANDARD,
            teredo: TeredoPrefixes::STANDARD,
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
            honor_cone: false,
            unreachable_rate: Rate::new(10, 10),
            new_peer_rates: Ipv6Rates::of_subnet(2_000, 50_000),
            direct_bubble_rates: Ipv4Rates {
                address: Rate::new(20, 20),
                network: Rate::new(100, 200),
                total: Rate::new(5_000, 5_000),
            },
            question_rates: Ipv4Rates::of_address(2_000),
            unproved_rates: Ipv4Rates::of_address(2_000),
            trickle_rate: Rate::new(16, 64),
            server_pace: Pace::DEFAULT,
        }
    }

    /// Returns the configuration with the part of each of as many relays of what it may send to others unasked
    /// (F-23), except for [`Config::server_pace`], which [`Turns`](crate::shared::turns::Turns) divides.
    pub(super) fn divided_among(self, relays: u32) -> Self {
        Self {
            unreachable_rate: self.unreachable_rate.divided_by(relays),
            new_peer_rates: self.new_peer_rates.divided_by(relays),
            direct_bubble_rates: self.direct_bubble_rates.divided_by(relays),
            question_rates: self.question_rates.divided_by(relays),
            unproved_rates: self.unproved_rates.divided_by(relays),
            trickle_rate: self.trickle_rate.divided_by(relays),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f23_the_relays_of_a_fleet_divide_the_limits() {
        let whole = Config::new(Endpoint::new(Ipv4Addr::new(5, 6, 7, 8), 3545));
        let part = whole.clone().divided_among(4);
        assert_eq!(part.question_rates, Ipv4Rates::of_address(500));
        assert_eq!(part.trickle_rate, Rate::new(4, 16));
        assert_eq!(
            whole.clone().divided_among(1).new_peer_rates,
            whole.new_peer_rates
        );
    }
}
