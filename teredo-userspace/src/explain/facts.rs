//! The node's part of an explanation: copies of what decides, at one moment.

use std::net::{Ipv6Addr, SocketAddrV4};

use teredo_common::{address::ServicePrefix, peers::Peer as MapPeer, time::Instant};
use teredo_datapath::host::Maps;
use teredo_proto::{
    client::Client,
    relay::{Config, Relay},
    server::{self, Server},
};

use crate::api::types::{Peer, Status};

/// A question to the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// The addresses of the peers in question.
    pub addresses: Vec<Ipv6Addr>,
}

/// The answer.
#[derive(Debug)]
pub struct Facts {
    /// The time, on the clock of the machines.
    pub now: Instant,
    /// The status of the daemon.
    pub status: Status,
    /// The service prefix.
    pub prefix: ServicePrefix,
    /// The peers in question that the daemon knows.
    pub peers: Vec<KnownPeer>,
    /// Peers with the same server and the same IPv4 address as the one in question, if that is silent.
    pub relatives: Vec<Peer>,
    /// The relay, if it runs.
    pub relay: Option<RelayFacts>,
    /// The server, if it runs.
    pub server: Option<ServerFacts>,
    /// A copy of the client, if it runs.
    pub client: Option<Client>,
    /// The XDP program, if it is attached.
    pub fast_path: Option<FastPathFacts>,
}

/// A peer as the daemon knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownPeer {
    /// Its state.
    pub peer: Peer,
    /// The packets that wait for it.
    pub queued: usize,
    /// How often it was asked for a sign of life since its last one, a few at most.
    pub unanswered: u8,
    /// Another relay that brought packets of a native host to this client, and how long ago it last did so, in seconds.
    pub elsewhere: Option<(SocketAddrV4, f64)>,
}

/// The relay.
#[derive(Debug)]
pub struct RelayFacts {
    /// A copy.
    pub machine: Relay,
    /// Its configuration.
    pub config: Config,
    /// The octets that wait for answers.
    pub queued: usize,
}

/// The server.
#[derive(Debug)]
pub struct ServerFacts {
    /// A copy.
    pub machine: Server,
    /// Its configuration.
    pub config: server::Config,
}

impl ServerFacts {
    /// Returns the endpoint of the primary address.
    #[must_use]
    pub fn primary(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.config.primary, self.config.port)
    }
}

/// The data path of the XDP program: constants and entries from the maps of the program.
#[derive(Debug)]
pub struct FastPathFacts {
    /// The maps with the peers in question, without a budget.
    pub maps: Maps,
    /// The index and the Ethernet address of each interface.
    pub interfaces: Vec<(u32, [u8; 6])>,
    /// The entries of the peers in question in the program's map.
    pub entries: Vec<(Ipv6Addr, MapPeer)>,
}

impl Facts {
    /// Returns the facts about a daemon of which no role runs.
    #[must_use]
    pub fn new(now: Instant, status: Status, prefix: ServicePrefix) -> Self {
        Self {
            now,
            status,
            prefix,
            peers: Vec::new(),
            relatives: Vec::new(),
            relay: None,
            server: None,
            client: None,
            fast_path: None,
        }
    }

    /// Returns what is known about a peer.
    #[must_use]
    pub fn peer(&self, address: Ipv6Addr) -> Option<&KnownPeer> {
        self.peers
            .iter()
            .find(|known| known.peer.address == address)
    }
}
