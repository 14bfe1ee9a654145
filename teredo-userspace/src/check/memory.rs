//! The memory that a configuration takes.

use std::fmt;

use serde::Serialize;
use teredo_common::{budget, limiter, mailbox};
use teredo_proto::relay::PEER_OCTETS;

use crate::{config::Config, datapath::xdp};

/// Octets of the server's token buckets.
const LIMITS: u64 = limiter::BUCKETS as u64 * size_of::<u64>() as u64;
/// Octets of the budget of what the program leaves to the daemon.
const BUDGETS: u64 = budget::WORDS as u64 * size_of::<u64>() as u64;
/// Octets of the mailboxes of the server's two addresses.
const MAILBOXES: u64 = 2 * mailbox::SIZE as u64;

/// The most memory that a configuration may take, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The BPF maps of peers, taken at the start whatever is in it. `relay.max-peers` sets it.
    pub peer_map: u64,
    /// The part of the map of peers that counts their traffic, for each CPU. `relay.max-peers` sets it, too.
    pub traffic_counts: u64,
    /// The other BPF maps.
    pub other_maps: u64,
    /// The daemon's peer table when it is full, and what is under way for the peers. `relay.max-peers` sets it.
    pub peer_table: u64,
    /// Packets that wait for bubbles. `relay.queue-total-bytes` or `client.queue-total-bytes` sets it.
    pub queues: u64,
    /// The server's rate limits of sources and networks, however many there are.
    pub limits: u64,
    /// Mailboxes for datagrams to the server.
    pub mailboxes: u64,
}

impl Memory {
    /// Returns the octets of all BPF maps.
    #[must_use]
    pub const fn maps(&self) -> u64 {
        self.peer_map + self.traffic_counts + self.other_maps
    }

    /// Estimates the memory.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let has_maps = u64::from(config.fast_path().is_some());
        let relay = config.relay.as_ref();
        let client = config.client.as_ref();
        let peers = relay.map_or(0, |relay| relay.max_peers);
        let has_counts = relay.is_some_and(|relay| relay.accounting);
        let queues = relay.map(|relay| relay.queue_total_bytes);
        let queues = queues.or(client.map(|client| client.queue_total_bytes));
        let queues = queues.unwrap_or(0);
        Self {
            peer_map: has_maps * xdp::peer_map_size(peers as u32),
            traffic_counts: has_maps * u64::from(has_counts) * xdp::tallies_size(peers as u32),
            other_maps: has_maps * (xdp::routes_size(peers as u32) + BUDGETS),
            peer_table: peers as u64 * PEER_OCTETS as u64,
            queues: queues as u64,
            limits: config.server.as_ref().map_or(0, |_| LIMITS),
            mailboxes: config.server.as_ref().map_or(0, |_| MAILBOXES),
        }
    }
}

/// A number of octets that is displayed in a binary unit.
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

#[cfg(test)]
mod tests {
    use teredo_datapath::table::tallies;

    use super::*;
    use crate::{
        config::{RelaySection, ServerSection},
        datapath::xdp::AttachPolicy,
    };

    const DOCUMENTATION: &str = include_str!("../../../docs/configuration.md");

    fn with(relay: RelaySection) -> Config {
        Config {
            relay: Some(relay),
            ..Config::default()
        }
    }

    /// The octets that one CPU more takes for each peer.
    fn counts_per_cpu(peers: u32) -> u64 {
        let count = |cpus| u64::from(tallies(peers, cpus, false).count());
        (count(2) - count(1)) * 64 / u64::from(peers)
    }

    #[test]
    fn maps_cost_what_the_kernel_says() {
        let memory = Memory::of(&with(RelaySection::default()));
        assert_eq!(memory.peer_map, 18_874_432 + 4_194_304);
        assert_eq!(Octets(memory.other_maps).to_string(), "17.8 MiB");
        assert!(memory.peer_map + memory.other_maps < 64 << 20);
        assert_eq!(Octets(memory.peer_map).to_string(), "22.0 MiB");

        let per_peer = memory.peer_map / RelaySection::default().max_peers as u64;
        for documented in [
            format!("{per_peer} octets per peer at the start"),
            format!(
                "({:.0} MiB with the default",
                memory.peer_map as f64 / 1_048_576.0
            ),
            format!(
                "{} octets for each CPU",
                counts_per_cpu(RelaySection::default().max_peers as u32)
            ),
            format!(
                "(up to {:.0} MiB with the default)",
                memory.peer_table as f64 / 1_048_576.0
            ),
        ] {
            assert!(DOCUMENTATION.contains(&documented), "{documented}");
        }

        let server = Config {
            server: Some(ServerSection::default()),
            ..Config::default()
        };
        let limits = Octets(Memory::of(&server).limits);
        let documented = format!("all limits together take {limits}");
        assert!(DOCUMENTATION.contains(&documented), "{documented}");
        assert_eq!(memory.limits, 0);

        let peer_map = |relay: RelaySection| Memory::of(&with(relay)).peer_map;
        let mut relay = RelaySection {
            max_peers: 1_000,
            ..RelaySection::default()
        };
        assert_eq!(peer_map(relay.clone()), 72_064 + 16_384);
        relay.xdp.mode = AttachPolicy::Off;
        assert_eq!(peer_map(relay), 0);
    }
}
