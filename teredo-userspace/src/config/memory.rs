//! What settings cost in memory.

use std::fmt;

use serde::Serialize;
use teredo_common::{
    limiter, mailbox,
    maps::{self, Route},
};

use super::Config;
use crate::datapath::xdp;

/// Octets of the pointer to each element of a per-CPU array.
const POINTER: u64 = 8;
/// Octets of the daemon for each peer it knows: 163 were measured with a full table of trusted
/// peers; those that are asked for a sign of life take more.
const PEER_ENTRY: u64 = 256;

/// Octets of the server's token buckets.
const LIMITS: u64 = limiter::BUCKETS as u64 * size_of::<u64>() as u64;
/// Octets in which datagrams to the server's two addresses wait.
const MAILBOXES: u64 = 2 * mailbox::SIZE as u64;

/// What a configuration may take at most, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The BPF map of peers: taken at the start whatever is in it. `relay.max-peers` sets it.
    pub peer_map: u64,
    /// The other BPF maps.
    pub other_maps: u64,
    /// The daemon's peer table when it is full. `relay.max-peers` sets it.
    pub peer_table: u64,
    /// Packets that wait for bubbles. `relay.queue-total-bytes` or `client.queue-total-bytes` sets it.
    pub queues: u64,
    /// The server's limits of sources and networks, however many there are.
    pub limits: u64,
    /// Datagrams to the server that wait for the daemon.
    pub mailboxes: u64,
}

impl Memory {
    /// The cost on a host with this number of possible CPUs.
    #[must_use]
    pub fn of(config: &Config, cpus: u64) -> Self {
        let maps_are_there = u64::from(config.fast_path().is_some());
        let relay = config.relay.as_ref();
        let client = config.client.as_ref();
        let peers = relay.map_or(0, |relay| relay.max_peers);
        let queues = relay.map(|relay| relay.queue_total_bytes);
        let queues = queues.or(client.map(|client| client.queue_total_bytes));
        let queues = queues.unwrap_or(0);
        Self {
            peer_map: maps_are_there * xdp::peer_map_size(peers as u32),
            other_maps: maps_are_there
                * u64::from(maps::ROUTE_SLOTS)
                * (POINTER + cpus * size_of::<Route>() as u64),
            peer_table: peers as u64 * PEER_ENTRY,
            queues: queues as u64,
            limits: config.server.as_ref().map_or(0, |_| LIMITS),
            mailboxes: config.server.as_ref().map_or(0, |_| MAILBOXES),
        }
    }
}

/// Octets as a person reads them.
#[derive(Clone, Copy, Debug)]
pub struct Octets(pub u64);

impl fmt::Display for Octets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            octets @ 0..1024 => write!(formatter, "{octets} B"),
            octets @ 1024..1_048_576 => write!(formatter, "{:.1} KiB", octets as f64 / 1024.0),
            octets => write!(formatter, "{:.1} MiB", octets as f64 / 1_048_576.0),
        }
    }
}
