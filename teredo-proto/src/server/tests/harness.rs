//! A server in virtual time, and what others send it.

use std::time::Duration;

use teredo_common::{
    address::{Endpoint, ServicePrefix, TeredoAddress},
    limiter::Rate,
    time::Instant,
    wire::{ALL_ROUTERS, ECHO_REQUEST, ICMPV6},
};

pub use crate::testing::{address, bubble, endpoint, ipv6, transport};
use crate::{
    ServerAddress,
    server::{Buckets, Config, DropReason, Event, RegisteredClient, Server, Service, Transmit},
    wire::authentication::{Algorithm, Key},
};

/// The server of the test vectors.
pub const PRIMARY: &str = "1.2.3.4";
pub const SECONDARY: &str = "1.2.3.5";
/// Where the client is.
pub const CLIENT: &str = "9.0.0.1:4096";
/// Another client of the server.
pub const OTHER: &str = "8.0.0.1:1024";
/// A relay.
pub const RELAY: &str = "5.6.7.8:3545";
/// A native host.
pub const HOST: &str = "2000::b";
/// Where solicitations come from.
pub const SOLICITOR: &str = "fe80::ffff:ffff:ffff";
pub const CONE_SOLICITOR: &str = "fe80::8000:ffff:ffff:ffff";
/// The nonce of the worked example.
pub const NONCE: [u8; 8] = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];

pub use ServerAddress::{Primary, Secondary};

/// The Teredo address of a client at `mapped`, of `server`.
pub fn teredo_of(prefix: ServicePrefix, server: &str, mapped: &str) -> [u8; 16] {
    let fields = TeredoAddress::new(server.parse().unwrap(), endpoint(mapped));
    TeredoAddress { prefix, ..fields }.encode().octets()
}

/// The Teredo address of a client of this server.
pub fn teredo(mapped: &str) -> [u8; 16] {
    teredo_of(ServicePrefix::STANDARD, PRIMARY, mapped)
}

/// An ICMPv6 packet with a right checksum.
pub fn icmpv6(
    kind: u8,
    hop_limit: u8,
    source: &[u8; 16],
    destination: &[u8; 16],
    body: &[u8],
) -> Vec<u8> {
    let message = [&[kind, 0, 0, 0][..], body].concat();
    transport(ICMPV6, hop_limit, source, destination, &message)
}

/// An echo request with eight octets of data.
pub fn echo(source: &[u8; 16], destination: &[u8; 16]) -> Vec<u8> {
    icmpv6(
        ECHO_REQUEST,
        21,
        source,
        destination,
        &[0xd3, 0x73, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8],
    )
}

/// A router solicitation.
pub fn solicitation(source: &str) -> Vec<u8> {
    icmpv6(133, 255, &address(source), &ALL_ROUTERS, &[0; 4])
}

/// An authentication header in front of a packet.
pub fn with_header(client: &[u8], value: &[u8], nonce: [u8; 8], packet: &[u8]) -> Vec<u8> {
    let lengths = [0, 1, client.len() as u8, value.len() as u8];
    [&lengths[..], client, value, &nonce, &[0], packet].concat()
}

/// The nonce alone in front of a packet.
pub fn with_nonce(packet: &[u8]) -> Vec<u8> {
    with_header(&[], &[], NONCE, packet)
}

/// An authentication header with a right value in front of a packet.
pub fn signed(client: &str, key: &Key, nonce: [u8; 8], packet: &[u8]) -> Vec<u8> {
    let mut value = vec![0; key.algorithm().value_length()];
    key.sign(nonce, 0, packet, &mut value);
    with_header(client.as_bytes(), &value, nonce, packet)
}

pub fn key(algorithm: Algorithm, octet: u8) -> Key {
    Key::new(algorithm, &[octet; 16]).unwrap()
}

pub fn client(id: &str, key: Key) -> RegisteredClient {
    RegisteredClient {
        id: id.into(),
        key,
        retired: vec![],
        prefix: None,
    }
}

/// How a packet left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Datagram { from: ServerAddress, to: Endpoint },
    Native,
    Tunnel,
}

/// What left because of a packet.
pub type Sent = Option<(Output, Vec<u8>)>;

fn sent(transmit: Option<Transmit<'_>>) -> Sent {
    transmit.map(|transmit| match transmit {
        Transmit::Datagram { from, to, payload } => (Output::Datagram { from, to }, payload.into()),
        Transmit::Native(packet) => (Output::Native, packet.into()),
        Transmit::Tunnel(packet) => (Output::Tunnel, packet.into()),
    })
}

pub fn datagram(from: ServerAddress, to: &str, payload: impl Into<Vec<u8>>) -> Sent {
    let to = endpoint(to);
    Some((Output::Datagram { from, to }, payload.into()))
}

pub struct World {
    pub server: Server,
    pub now: Instant,
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    /// A server without limits that could get in the way, and with a way to native IPv6.
    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(PRIMARY.parse().unwrap(), SECONDARY.parse().unwrap());
        let unlimited = Rate::new(u32::MAX, u32::MAX);
        config.limits.source = unlimited;
        config.limits.network = unlimited;
        config.limits.total = unlimited;
        change(&mut config);
        let now = Instant::from_nanos(1_000_000_000_000);
        let mut server = Server::new(config, Buckets::new());
        server.set_native_reachable(true);
        Self { server, now }
    }

    /// A datagram arrives at one of the addresses.
    pub fn arrives(&mut self, to: ServerAddress, from: &str, payload: &[u8]) -> Sent {
        self.arrives_from(to, endpoint(from), payload)
    }

    pub fn arrives_from(&mut self, to: ServerAddress, from: Endpoint, payload: &[u8]) -> Sent {
        sent(self.server.handle_datagram(self.now, to, from, payload))
    }

    /// A datagram arrives at the primary address.
    pub fn receives(&mut self, from: &str, payload: &[u8]) -> Sent {
        self.arrives(Primary, from, payload)
    }

    /// A packet comes from the kernel for the tunnel service.
    pub fn routed(&mut self, packet: &[u8]) -> Sent {
        sent(self.server.handle_ipv6(self.now, packet))
    }

    /// The relay in the same process hands a bubble over.
    pub fn relay_sends(&mut self, bubble: &[u8]) -> Sent {
        let relay = endpoint(RELAY);
        sent(self.server.handle_relay_bubble(self.now, relay, bubble))
    }

    /// A datagram arrives at the primary address, and is dropped for this reason alone; the server
    /// answers before and after.
    pub fn drops(&mut self, reason: DropReason, from: &str, payload: &[u8]) {
        self.drops_at(Primary, reason, from, payload);
    }

    pub fn drops_at(&mut self, to: ServerAddress, reason: DropReason, from: &str, payload: &[u8]) {
        self.answers();
        let before = *self.server.statistics();
        assert_eq!(self.arrives(to, from, payload), None, "{reason:?}");
        let after = *self.server.statistics();
        for &one in DropReason::ALL {
            let expected = before.dropped[one] + u64::from(one == reason);
            assert_eq!(
                after.dropped[one], expected,
                "{one:?} instead of {reason:?}"
            );
        }
        self.answers();
    }

    /// The server lives: it forwards a bubble of one client to another, without authentication.
    pub fn answers(&mut self) {
        let (from, to) = ("12.0.0.9:9", "13.0.0.9:9");
        let bubble = bubble(&teredo(from), &teredo(to));
        let origin = endpoint(from).origin_indication();
        let expected = datagram(Primary, to, [&origin[..], &bubble].concat());
        assert_eq!(self.receives(from, &bubble), expected, "the server lives");
    }

    pub fn pass(&mut self, duration: Duration) {
        self.now += duration;
    }

    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.server.statistics().dropped[reason]
    }

    pub fn served(&self, service: Service) -> u64 {
        self.server.statistics().served[service].packets
    }

    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.server.poll_event()).collect()
    }
}
