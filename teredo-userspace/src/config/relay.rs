//! The section `[relay]`.

use std::{
    net::SocketAddr, num::NonZero, ops::RangeInclusive, path::PathBuf,
    thread::available_parallelism,
};

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};
use teredo_common::{maps, scope::Ipv4Scope};
use teredo_proto::Pace;

use super::{
    Member,
    values::{self, Ipv4Choice, OuterChecksum, Threads},
};
use crate::{datapath::xdp::AttachPolicy, sunset::Date};

/// Permitted `relay.mtu`, octets: the minimum MTU of IPv6 to the largest payload of UDP over IPv4.
pub const MTU: RangeInclusive<u64> = 1280..=65_507;
/// Permitted `relay.max-peers`.
pub const MAX_PEERS: RangeInclusive<u64> = 16..=4_194_304;
/// Permitted `relay.queue-per-peer`, packets.
pub const QUEUE_PER_PEER: RangeInclusive<u64> = 1..=256;
/// Permitted `relay.queue-total-bytes`, octets.
pub const QUEUE_TOTAL_BYTES: RangeInclusive<u64> = 65_536..=1_073_741_824;
/// Permitted `relay.grace`, milliseconds.
pub const GRACE: RangeInclusive<u64> = 0..=60_000;
/// Permitted `relay.threads`.
pub const THREADS: RangeInclusive<u64> = 1..=64;
/// Permitted rates of `[relay.xdp]` and `[server.xdp]`, per second; 0: not limited.
pub const XDP_RATE: RangeInclusive<u64> = 0..=100_000_000;

/// Most relays in `relay.fleet.members`.
pub const MEMBERS_MAX: usize = 64;

/// `[relay]`: the relay role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RelaySection {
    /// Outer source address.
    #[serde(with = "values::text")]
    pub ipv4: Ipv4Choice,
    /// Service port, host byte order, never 0.
    #[serde(deserialize_with = "values::port")]
    pub port: u16,
    /// Name of the tunnel interface.
    #[serde(deserialize_with = "values::interface_name")]
    pub tun: String,
    /// Largest IPv6 packet in the tunnel, in octets; see [`MTU`].
    #[serde(deserialize_with = "values::mtu")]
    pub mtu: u16,
    /// Native destinations relayed to, at least one. Addresses that are not global unicast, and
    /// Teredo addresses, are never relayed to, even if listed.
    #[serde(deserialize_with = "values::serve")]
    pub serve: Vec<Ipv6Net>,
    /// Whether to serve only this host.
    pub host_specific: bool,
    /// The scope of acceptable IPv4 endpoints.
    #[serde(with = "values::scope")]
    pub ipv4_scope: Ipv4Scope,
    /// Most peers in the peer table and in the BPF map; see [`MAX_PEERS`].
    #[serde(deserialize_with = "values::max_peers")]
    pub max_peers: usize,
    /// Most packets that wait for a peer's bubble; see [`QUEUE_PER_PEER`].
    #[serde(deserialize_with = "values::queue_per_peer")]
    pub queue_per_peer: usize,
    /// Most octets that wait for the bubbles of all peers; see [`QUEUE_TOTAL_BYTES`].
    #[serde(deserialize_with = "values::queue_total_bytes")]
    pub queue_total_bytes: usize,
    /// Whether the packets and octets of each peer are counted.
    pub accounting: bool,
    /// Whether bubbles go to the peers' mappings as well as to their servers.
    pub direct_bubbles: bool,
    /// Bubbles per second through one server, until it turns out to take more; see [`RATE`](super::RATE).
    #[serde(deserialize_with = "values::rate")]
    pub bubble_rate: u32,
    /// Bubbles per second through all servers together; see [`RATE`](super::RATE).
    #[serde(deserialize_with = "values::rate")]
    pub bubble_total_rate: u32,
    /// New peers per second because of packets from one native /64; see [`RATE`](super::RATE).
    #[serde(deserialize_with = "values::rate")]
    pub new_peer_rate: u32,
    /// New peers per second because of all packets; see [`RATE`](super::RATE).
    #[serde(deserialize_with = "values::rate")]
    pub new_peer_total_rate: u32,
    /// Packets per second to the peers at one address that did not prove to be there; see [`RATE`](super::RATE).
    #[serde(deserialize_with = "values::rate")]
    pub unproved_rate: u32,
    /// ICMPv6 errors per second; see [`RATE`](super::RATE).
    #[serde(deserialize_with = "values::rate")]
    pub unreachable_rate: u32,
    /// Threads that carry the packets that the fast path does not; see [`RelaySection::thread_count`].
    pub threads: Threads,
    /// Whether to keep a route for the service prefix while the relay can serve.
    pub route: bool,
    /// Milliseconds for which a relay that is to stop goes on after its route was withdrawn; see [`GRACE`].
    #[serde(deserialize_with = "values::grace")]
    pub grace: u32,
    /// The date on which the relay ends.
    #[serde(with = "values::text_or_empty")]
    pub sunset: Option<Date>,
    /// The fast path.
    pub xdp: RelayXdpSection,
    /// The fleet.
    pub fleet: FleetSection,
}

impl RelaySection {
    /// The most threads of `relay.threads = "auto"`: the part that they share takes a tenth of the time for a packet.
    const AUTO_MAX: usize = 8;

    /// Returns the number of threads that carry packets without the fast path. Without any fast path, each of the CPUs that
    /// the process may use is worth one; beside one there is little to carry.
    #[must_use]
    pub fn thread_count(&self) -> usize {
        match self.threads {
            Threads::Number(number) => number.into(),
            Threads::Auto if self.xdp.mode == AttachPolicy::Off => {
                let cpus = available_parallelism().map_or(1, NonZero::get);
                cpus.min(Self::AUTO_MAX)
            }
            Threads::Auto => 1,
        }
    }
}

/// `[relay.fleet]`: the relays that have the same address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct FleetSection {
    /// The address and port at which the others reach this relay; `None` without a fleet.
    #[serde(with = "values::text_or_empty")]
    pub listen: Option<SocketAddr>,
    /// The addresses or names of all relays, with their ports, this one among them or not.
    #[serde(with = "values::members")]
    pub members: Vec<Member>,
    /// The file with the fleet's keys.
    #[serde(with = "values::path_or_empty")]
    pub key_file: Option<PathBuf>,
}

impl FleetSection {
    /// Returns whether there may be other relays than this one.
    #[must_use]
    pub fn has_others(&self) -> bool {
        let own = self.listen.map(Member::Address);
        self.members
            .iter()
            .any(|member| Some(member) != own.as_ref())
    }
}

/// `[relay.xdp]`: the fast path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RelayXdpSection {
    /// The attach policy.
    pub mode: AttachPolicy,
    /// Names of the interfaces to attach to; empty: those of the IPv4 and IPv6 default routes.
    #[serde(deserialize_with = "values::interfaces")]
    pub interfaces: Vec<String>,
    /// The UDP checksum of datagrams that the fast path sends.
    pub outer_checksum: OuterChecksum,
    /// Whether maps and links are pinned, so that they survive a crash of the daemon.
    pub pin: bool,
    /// Packets per second from native hosts to unknown peers that the daemon gets; see [`XDP_RATE`].
    #[serde(deserialize_with = "values::xdp_rate")]
    pub new_peer_rate: u32,
    /// Answers to bubbles per second that the daemon gets.
    #[serde(deserialize_with = "values::xdp_rate")]
    pub answer_rate: u32,
    /// Packets per second from and to peers in the map that the daemon gets, for each direction.
    #[serde(deserialize_with = "values::xdp_rate")]
    pub peer_rate: u32,
    /// Datagrams per second from the endpoint in their Teredo address that the daemon gets.
    #[serde(deserialize_with = "values::xdp_rate")]
    pub claim_rate: u32,
    /// Fragments per second that the kernel gets.
    #[serde(deserialize_with = "values::xdp_rate")]
    pub fragment_rate: u32,
    /// Other datagrams to the relay per second that the daemon gets.
    #[serde(deserialize_with = "values::xdp_rate")]
    pub other_rate: u32,
}

impl Default for RelaySection {
    fn default() -> Self {
        Self {
            ipv4: Ipv4Choice::Auto,
            port: 3545,
            tun: "teredo".to_owned(),
            mtu: teredo_common::wire::MTU,
            serve: vec![Ipv6Net::default()],
            host_specific: false,
            ipv4_scope: Ipv4Scope::Strict,
            max_peers: maps::PEERS_MAX as usize,
            queue_per_peer: 16,
            queue_total_bytes: 16 << 20,
            accounting: true,
            direct_bubbles: false,
            bubble_rate: Pace::DEFAULT.first,
            bubble_total_rate: Pace::DEFAULT.total,
            new_peer_rate: 2_000,
            new_peer_total_rate: 50_000,
            unproved_rate: 2_000,
            unreachable_rate: 10,
            threads: Threads::Auto,
            route: true,
            grace: 500,
            sunset: None,
            xdp: RelayXdpSection::default(),
            fleet: FleetSection::default(),
        }
    }
}

impl Default for RelayXdpSection {
    fn default() -> Self {
        Self {
            mode: AttachPolicy::Auto,
            interfaces: Vec::new(),
            outer_checksum: OuterChecksum::Auto,
            pin: true,
            new_peer_rate: 20_000,
            answer_rate: 50_000,
            peer_rate: 200_000,
            claim_rate: 10_000,
            fragment_rate: 10_000,
            other_rate: 2_000,
        }
    }
}
