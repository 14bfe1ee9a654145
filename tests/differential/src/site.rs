//! The host of the fast path: the relay of the vectors, 5.6.7.8:3545, on a LAN with 2000::b.

use std::env;

use teredo_common::{
    address::{Endpoint, ServicePrefix},
    budget::Budget,
    maps::Settings,
    prefixes::TeredoPrefixes,
    vlan::Tags,
};
use teredo_datapath::{Addresses, Way, host::RouteTable};
use teredo_proto::server;

use crate::packet;

/// Ethernet address of the interface towards the IPv4 internet.
pub const WAN: [u8; 6] = [2, 0, 0, 0, 0, 0x0a];
/// Ethernet address of the interface towards native IPv6 hosts.
pub const LAN: [u8; 6] = [2, 0, 0, 0, 0, 0x0b];
/// Ethernet address of the interface that the fast path does not know.
pub const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 0x0c];
/// Ethernet address of the IPv4 router, 5.6.7.1 on the WAN.
pub const ROUTER: [u8; 6] = [2, 0, 0, 0, 4, 1];
/// Ethernet address of the native host 2000::b on the LAN.
pub const HOST: [u8; 6] = [2, 0, 0, 0, 6, 0x0b];
/// Ethernet address of the IPv6 router on the WAN.
pub const ROUTER_V6: [u8; 6] = [2, 0, 0, 0, 6, 1];
/// This host's IPv4 addresses without those of the server.
pub const OWN_IPV4: [[u8; 4]; 2] = [[5, 6, 7, 8], [5, 6, 7, 9]];

/// Octets of IP packet that fit where no route says otherwise.
const MTU: u16 = 1500;

/// The ingress interface of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// The interface towards the IPv4 internet; some native hosts are there too.
    Wan,
    /// The interface towards native IPv6 hosts.
    Lan,
    /// An interface that the program is attached to but does not know.
    Other,
}

/// The parameters of a fast path.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Flags of the settings.
    pub flags: u32,
    /// The allowances of what is left to the daemon; unlimited by default.
    pub budget: Budget,
    /// MTU of the tunnel.
    pub mtu: u16,
    /// Lifetime of a peer in nanoseconds.
    pub peer_lifetime: u64,
    /// Native prefixes served.
    pub served: Vec<ipnet::Ipv6Net>,
    /// Prefixes of Teredo services.
    pub teredo: TeredoPrefixes,
    /// Entries of the map of peers.
    pub max_peers: u32,
    /// VLAN tags of frames to and from WAN and LAN. Those with tags come and leave by the other interface.
    pub tags: [Tags; 2],
    /// Whether there is a relay.
    pub relay: bool,
    /// The server, if there is one.
    pub server: Option<server::Config>,
    /// Whether both of its addresses are on one interface.
    pub one_interface: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            flags: Settings::ALLOW_ZERO_CHECKSUM,
            budget: Budget::default(),
            mtu: 1280,
            peer_lifetime: 30_000_000_000,
            served: vec![ipnet::Ipv6Net::default()],
            teredo: TeredoPrefixes::STANDARD,
            max_peers: 1024,
            tags: [Tags::NONE; 2],
            relay: true,
            server: None,
            one_interface: true,
        }
    }
}

impl Setup {
    /// Returns a set-up with few native destinations and without zero checksums.
    ///
    /// # Panics
    ///
    /// Never: the prefixes are constants.
    #[must_use]
    pub fn restricted() -> Self {
        let served = ["2000::/16", "2001:db8::/32"];
        Self {
            flags: 0,
            served: served
                .map(|prefix| prefix.parse().expect("a prefix"))
                .to_vec(),
            teredo: TeredoPrefixes::new([ServicePrefix([0x20, 0, 0x10, 0])]),
            mtu: 1400,
            ..Self::default()
        }
    }

    /// Returns the settings; `tunnel` is the index of the relay's tunnel interface.
    #[must_use]
    pub fn settings(&self, tunnel: u32) -> Settings {
        let (relay, tunnel) = match self.relay {
            true => (relay(), tunnel),
            false => (Endpoint::default(), 0),
        };
        Settings {
            peer_lifetime: self.peer_lifetime,
            relay,
            mtu: self.mtu,
            prefix: ServicePrefix::STANDARD,
            tunnel,
            flags: self.flags,
            interface_mask: 0,
            teredo: self.teredo,
        }
    }
}

/// The relay's endpoint.
#[must_use]
pub fn relay() -> Endpoint {
    packet::endpoint("5.6.7.8:3545")
}

/// Returns the site's routes, with the indices of its interfaces WAN, LAN and the other one.
///
/// # Panics
///
/// Never: all prefixes are constants.
#[must_use]
pub fn routes([wan, lan, other]: [u32; 3]) -> RouteTable {
    let router = |mtu| way(wan, WAN, ROUTER, mtu);
    let host = |mtu| way(lan, LAN, HOST, mtu);
    let through_host = |mtu| Way {
        has_gateway: true,
        ..host(mtu)
    };
    let ipv4 = [
        ("0.0.0.0/0", Some(router(MTU))),
        ("9.9.0.0/16", Some(router(1000))),
        ("9.8.0.0/16", None),
        // On the link, and no neighbour but the router.
        ("5.6.7.0/24", None),
        ("5.6.7.1/32", Some(router(MTU))),
        // Martians, and the kernel's own.
        ("0.0.0.0/8", None),
        ("127.0.0.0/8", None),
        ("224.0.0.0/4", None),
        ("240.0.0.0/4", None),
    ];
    let ipv6 = [
        ("::/0", Some(through_host(MTU))),
        ("2000:1000::/32", Some(through_host(1280))),
        ("2000:8::/32", None),
        ("2000::/64", None),
        ("2000::b/128", Some(host(MTU))),
        ("2000:3::/64", None),
        ("2000:3::b/128", Some(way(wan, WAN, ROUTER_V6, MTU))),
        ("2000:99::/64", None),
        ("2000:99::b/128", Some(way(other, OTHER, HOST, MTU))),
        ("::1/128", None),
        ("fe80::/10", None),
        ("ff00::/8", None),
    ];
    RouteTable {
        ipv4: ipv4
            .map(|(prefix, way)| (prefix.parse().expect("a prefix"), way))
            .to_vec(),
        ipv6: ipv6
            .map(|(prefix, way)| (prefix.parse().expect("a prefix"), way))
            .to_vec(),
    }
}

fn way(interface: u32, source: [u8; 6], destination: [u8; 6], mtu: u16) -> Way {
    Way {
        interface,
        mtu,
        addresses: Addresses::new(destination, source),
        has_gateway: false,
    }
}

/// Returns the number of cases of a randomized test: the value of `PROPTEST_CASES`, which property
/// tests obey too, or `usual`.
///
/// # Panics
///
/// When `PROPTEST_CASES` is not a number.
#[must_use]
pub fn cases(usual: usize) -> usize {
    let cases = env::var("PROPTEST_CASES").ok();
    cases.map_or(usual, |cases| {
        cases.parse().expect("PROPTEST_CASES should be a number")
    })
}
