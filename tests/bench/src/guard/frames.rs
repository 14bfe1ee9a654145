//! The fixed set of packets whose work is counted, and the hosts that they come to.

use anyhow::Result;
use teredo_common::{
    address::Endpoint,
    budget::{Allowance, Budget, ROOM},
    limiter::Rate,
    verdict::Verdict::{self, *},
    wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, NO_NEXT_HEADER},
};
use teredo_lab::{
    fixture::{Fixture, HOST, LAN, Port, ROUTER, Setup, WAN, relay},
    packet::{address, datagram, endpoint, ethernet, ipv6, tcp, udp},
    qualification::{nonce_only, solicitation},
};
use teredo_proto::server::Config;

/// A packet of the set.
#[derive(Debug)]
pub struct Packet {
    /// Its name, which never changes.
    pub name: &'static str,
    /// Its interface.
    pub port: Port,
    /// The frame.
    pub frame: Vec<u8>,
    /// The decision of the program.
    pub verdict: Verdict,
    /// Whether the program has seen the same packet just before.
    pub is_repeated: bool,
}

/// A host with packets for it.
#[derive(Debug)]
pub struct Host {
    /// Its name, which never changes.
    pub name: &'static str,
    /// The parameters of its program.
    pub setup: Setup,
    /// The packets.
    pub packets: Vec<Packet>,
}

/// A client, and its mapped endpoint.
const CLIENT: (&str, &str) = ("2001:0:102:304:0:efff:f6ff:fffe", "9.0.0.1:4096");
/// A client behind a symmetric NAT: its mapped endpoint is not that of its address.
const SYMMETRIC: (&str, &str) = ("2001:0:102:304:0:efff:f6ff:fffd", "9.0.0.2:5000");
/// A client that is no peer.
const STRANGER: (&str, &str) = ("2001:0:102:304:0:fbff:f7ff:fffe", "8.0.0.1:1024");
/// A native host on the link.
const NATIVE: &str = "2000::b";
/// A native host behind the one on the link.
const BEHIND: &str = "2000:77::1";
/// Octets of the small and the large payload: packets of 64 and of 1280 octets.
const PAYLOADS: [usize; 2] = [16, 1232];

impl Host {
    /// Every host of the set.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let relay = Setup::default();
        let restricted = Setup {
            served: vec![prefix("2000::/16"), prefix("2400::/12")],
            budget: Budget {
                seed: 7,
                allowances: [Allowance::new(1_000_000); ROOM],
            },
            ..Setup::default()
        };
        let server = Setup {
            relay: false,
            server: Some(server()),
            ..Setup::default()
        };
        let both = Setup {
            relay: true,
            ..server.clone()
        };
        vec![
            Self::new("relay", relay, relay_packets()),
            Self::new("relay-with-serve-and-budget", restricted, relay_packets()),
            Self::new("server", server, server_packets()),
            Self::new("both", both, both_packets()),
        ]
    }

    fn new(name: &'static str, setup: Setup, packets: Vec<Packet>) -> Self {
        Self {
            name,
            setup,
            packets,
        }
    }

    /// Loads the program of the host, with its peers.
    ///
    /// # Errors
    ///
    /// Fails without root, or when the kernel refuses a part of it.
    pub fn start(&self) -> Result<Fixture> {
        let mut fixture = Fixture::new(&self.setup)?;
        if self.setup.relay {
            for (client, mapped) in [CLIENT, SYMMETRIC] {
                fixture.trust(address(client), endpoint(mapped))?;
            }
        }
        Ok(fixture)
    }
}

fn prefix(text: &str) -> ipnet::Ipv6Net {
    text.parse().expect("a prefix")
}

/// A server with plenty of tokens.
fn server() -> Config {
    let mut config = Config::new([1, 2, 3, 4].into(), [1, 2, 3, 5].into());
    config.limits.source = Rate::new(1_000_000, 1_000_000);
    config.limits.network = Rate::new(1_000_000, 1_000_000);
    config
}

/// The frame of a client with this packet.
fn sent_by((_, mapped): (&str, &str), to: Endpoint, packet: &[u8]) -> Vec<u8> {
    let datagram = datagram(endpoint(mapped), to, 7, packet);
    ethernet(WAN, ROUTER, ETHERTYPE_IPV4, &datagram)
}

/// The frame of a client for a native host.
fn from_client(client: (&str, &str), host: &str, payload: usize) -> Vec<u8> {
    let packet = udp(address(client.0), address(host), &vec![0xa5; payload]);
    sent_by(client, relay(), &packet)
}

/// The frame of a native host with this packet.
fn from_host(packet: &[u8]) -> Vec<u8> {
    ethernet(LAN, HOST, ETHERTYPE_IPV6, packet)
}

fn data_for((client, _): (&str, &str), payload: usize) -> Vec<u8> {
    from_host(&udp(address(NATIVE), address(client), &vec![0xa5; payload]))
}

fn packet(name: &'static str, port: Port, frame: Vec<u8>, verdict: Verdict) -> Packet {
    Packet {
        name,
        port,
        frame,
        verdict,
        is_repeated: true,
    }
}

/// The same packet with another name, when the program has not seen it just before.
fn first(name: &'static str, port: Port, frame: Vec<u8>, verdict: Verdict) -> Packet {
    Packet {
        is_repeated: false,
        ..packet(name, port, frame, verdict)
    }
}

fn relay_packets() -> Vec<Packet> {
    let [small, large] = PAYLOADS;
    let (wan, lan) = (Port::Wan, Port::Lan);
    let decap = |host| from_client(CLIENT, host, small);
    let to_client = |client, payload| data_for(client, payload);
    let tcp = tcp(address(NATIVE), address(CLIENT.0), &[0xa5; 44]);
    let mut packets = vec![
        first("decap-first", wan, decap(NATIVE), DecapForwarded),
        packet("decap", wan, decap(NATIVE), DecapForwarded),
        packet(
            "decap-1280",
            wan,
            from_client(CLIENT, NATIVE, large),
            DecapForwarded,
        ),
        packet("decap-behind-gateway", wan, decap(BEHIND), DecapForwarded),
        packet(
            "decap-symmetric",
            wan,
            from_client(SYMMETRIC, NATIVE, small),
            DecapForwarded,
        ),
        first("encap-first", lan, to_client(CLIENT, small), EncapForwarded),
        packet("encap", lan, to_client(CLIENT, small), EncapForwarded),
        packet("encap-1280", lan, to_client(CLIENT, large), EncapForwarded),
        packet("encap-tcp", lan, from_host(&tcp), EncapForwarded),
        packet(
            "encap-symmetric",
            lan,
            to_client(SYMMETRIC, small),
            EncapForwarded,
        ),
        packet(
            "decap-stranger",
            wan,
            from_client(STRANGER, NATIVE, small),
            DecapUnknownPeer,
        ),
        packet(
            "encap-stranger",
            lan,
            to_client(STRANGER, small),
            EncapUnknownPeer,
        ),
    ];
    packets.extend(foreign_packets([EncapNotOurs, DecapNotOurs]));
    packets
}

/// Packets that are for neither role: other traffic of the host.
fn foreign_packets([native_verdict, verdict]: [Verdict; 2]) -> Vec<Packet> {
    let [small, _] = PAYLOADS;
    let native = from_host(&udp(address(NATIVE), address(BEHIND), &vec![0xa5; small]));
    let other_port = sent_by(CLIENT, endpoint("5.6.7.8:53"), &[0xa5; 64]);
    let arp = ethernet(WAN, ROUTER, 0x0806, &[0; 46]);
    vec![
        packet("foreign-ipv6", Port::Lan, native, native_verdict),
        packet("foreign-udp", Port::Wan, other_port, verdict),
        packet("foreign-arp", Port::Wan, arp, NotIp),
    ]
}

fn server_packets() -> Vec<Packet> {
    let primary = endpoint("1.2.3.4:3544");
    let plain = solicitation(address("fe80::ffff:ffff:ffff"));
    let with_nonce = [nonce_only(*b"solicits"), plain.clone()].concat();
    let bubble = ipv6(address(CLIENT.0), address(STRANGER.0), NO_NEXT_HEADER, &[]);
    let row = |name, payload: &[u8], verdict| {
        packet(name, Port::Wan, sent_by(CLIENT, primary, payload), verdict)
    };
    let mut packets = vec![
        row("solicitation", &plain, RespondAdvertised),
        row("solicitation-with-nonce", &with_nonce, RespondAdvertised),
        row("indirect-bubble", &bubble, RespondForwarded),
    ];
    packets.extend(foreign_packets([NoRelay, RespondNotOurs]));
    packets
}

fn both_packets() -> Vec<Packet> {
    let server = ["solicitation-with-nonce"];
    let relay = ["decap", "encap"];
    let chosen = |name: &str| server.contains(&name) || relay.contains(&name);
    let packets = server_packets().into_iter().chain(relay_packets());
    packets.filter(|packet| chosen(packet.name)).collect()
}
