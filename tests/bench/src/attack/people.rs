//! The honest: Teredo clients, and the native hosts that they talk to.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4},
    time::Duration,
};

use anyhow::Result;
use serde::Serialize;
use teredo_common::{
    address::Endpoint,
    wire::{ETHERTYPE_IPV6, SERVER_PORT},
};
use teredo_lab::{
    frames::{Stations, datagram, ethernet},
    peers::{teredo_address, udp_packet},
};

use crate::frames::{CLIENT_PORT, HOP_LIMIT, HOST, HOST_PORT, INNER_HEADERS, RELAY};

/// The first mapped addresses of trusted clients and of newcomers, and the first servers.
const TRUSTED: Ipv4Addr = Ipv4Addr::new(20, 16, 0, 1);
const NEWCOMERS: Ipv4Addr = Ipv4Addr::new(20, 18, 0, 1);
const SERVERS: Ipv4Addr = Ipv4Addr::new(20, 17, 0, 1);
const OTHER_SERVERS: Ipv4Addr = Ipv4Addr::new(20, 19, 0, 1);
/// Number of servers that many clients use.
const POPULAR: u32 = 16;
/// Number of networks of native hosts.
const NETWORKS: u32 = 0x4000;

/// A client behind a NAT, and its native host.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// The client's mapping.
    pub mapped: Endpoint,
    /// The client's server.
    pub server: Ipv4Addr,
    /// The native host.
    pub host: Ipv6Addr,
    /// Time from a bubble of the relay to its answer.
    pub round_trip: Duration,
}

/// A client that the relay did not know.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Newcomer {
    /// Milliseconds from a bubble of the relay to its answer.
    pub round_trip: u64,
    /// Whether clients of the same server have answered before.
    pub is_server_known: bool,
    /// Seconds until the first packet arrived; `None` if none has.
    pub seconds: Option<f64>,
}

const fn after(address: Ipv4Addr, number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits() + number)
}

const fn port(number: u32) -> u16 {
    40_000 + (number % 4096) as u16
}

impl Client {
    /// Trusted client `number`, who is near and talks to the common host.
    #[must_use]
    pub fn trusted(number: u32) -> Self {
        Self {
            mapped: Endpoint::new(after(TRUSTED, number), port(number)),
            server: after(SERVERS, number % POPULAR),
            host: HOST,
            round_trip: Duration::ZERO,
        }
    }

    /// New client `number`, whose host has a network of its own. Half of them are far, and half have
    /// a server that nobody else has.
    #[must_use]
    pub fn newcomer(number: u32) -> Self {
        let mut host = HOST.segments();
        host[2] = 0x100 + (number % NETWORKS) as u16;
        Self {
            mapped: Endpoint::new(after(NEWCOMERS, number), port(number)),
            server: match number % 2 {
                0 => after(SERVERS, number / 2 % POPULAR),
                _ => after(OTHER_SERVERS, number),
            },
            host: host.into(),
            round_trip: Duration::from_millis(match number / 2 % 2 {
                0 => 100,
                _ => 300,
            }),
        }
    }

    /// Whether many clients use its server.
    #[must_use]
    pub fn is_server_known(&self) -> bool {
        self.server.octets()[1] == SERVERS.octets()[1]
    }

    /// The client's address.
    #[must_use]
    pub fn address(&self) -> Ipv6Addr {
        teredo_address(self.server, SocketAddrV4::from(self.mapped))
    }

    /// Whether a datagram to this endpoint reaches the client, directly or through its server.
    #[must_use]
    pub fn is_at(&self, endpoint: Endpoint) -> bool {
        endpoint == self.mapped || endpoint == Endpoint::new(self.server, SERVER_PORT)
    }

    /// A packet of `size` octets from the host to the client, in a frame.
    ///
    /// # Errors
    ///
    /// Fails when the size is not possible.
    pub fn inbound(&self, stations: Stations, size: usize) -> Result<Vec<u8>> {
        let packet = udp_packet(
            (self.host, HOST_PORT),
            (self.address(), CLIENT_PORT),
            HOP_LIMIT,
            &vec![0xa5; size - INNER_HEADERS],
        )?;
        Ok(ethernet(stations, ETHERTYPE_IPV6, &packet))
    }

    /// A packet of `size` octets from the client to the host, in a frame.
    ///
    /// # Errors
    ///
    /// Fails when the size is not possible.
    pub fn outbound(&self, stations: Stations, size: usize) -> Result<Vec<u8>> {
        let packet = udp_packet(
            (self.address(), CLIENT_PORT),
            (self.host, HOST_PORT),
            HOP_LIMIT,
            &vec![0xa5; size - INNER_HEADERS],
        )?;
        datagram(stations, self.mapped, RELAY, &packet)
    }
}
