//! The configuration file.
//!
//! Sections that are present are roles that run. Every key has a default; an unknown key, a wrong
//! type and a value out of range are errors of one sentence that names the line, the key and what
//! is permitted.

mod document;
mod error;
pub mod keys;
pub mod memory;
mod values;

use std::{
    fs,
    net::Ipv4Addr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};
use teredo_common::{address::ServicePrefix, maps, scope::Ipv4Scope};

use document::Document;
pub use error::Error;
pub use values::{ApiAddress, Ipv4Choice, OuterChecksum, XdpMode};

/// Where the configuration is unless the command line says otherwise.
pub const DEFAULT_PATH: &str = "/etc/teredo/teredo.toml";

/// Permitted `relay.mtu`: the smallest MTU of IPv6 to the largest payload of UDP over IPv4, octets.
pub const MTU: RangeInclusive<u64> = 1280..=65_507;
/// Permitted `relay.max-peers`.
pub const MAX_PEERS: RangeInclusive<u64> = 16..=4_194_304;
/// Permitted `relay.queue-per-peer`, packets.
pub const QUEUE_PER_PEER: RangeInclusive<u64> = 1..=256;
/// Permitted `relay.queue-total-bytes`, octets.
pub const QUEUE_TOTAL_BYTES: RangeInclusive<u64> = 65_536..=1_073_741_824;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
pub struct Config {
    /// What all roles share.
    pub node: Node,
    /// The relay role.
    pub relay: Relay,
}

/// `[node]`: what all roles share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Node {
    /// Name of this instance: part of the default socket's path and of the pin directory's.
    #[serde(deserialize_with = "values::instance_name")]
    pub name: String,
    /// The Teredo service prefix.
    #[serde(with = "values::service_prefix")]
    pub prefix: ServicePrefix,
    /// Filter of the log, as `tracing_subscriber::EnvFilter` reads it.
    #[serde(deserialize_with = "values::log_filter")]
    pub log: String,
    /// Where the API listens; empty: nowhere.
    #[serde(with = "values::api")]
    pub api: Vec<ApiAddress>,
    /// The user to run as after the start; empty: stay who started it.
    #[serde(deserialize_with = "values::user_name")]
    pub user: String,
}

/// `[relay]`: the relay role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Relay {
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
    /// Native destinations relayed to, at least one. What is not global unicast and Teredo itself
    /// are never relayed to, whatever is listed.
    #[serde(deserialize_with = "values::serve")]
    pub serve: Vec<Ipv6Net>,
    /// Serve this host alone.
    pub host_specific: bool,
    /// Which IPv4 endpoints are acceptable.
    #[serde(with = "values::scope")]
    pub ipv4_scope: Ipv4Scope,
    /// Bound of the peer table and of the BPF map; see [`MAX_PEERS`].
    #[serde(deserialize_with = "values::max_peers")]
    pub max_peers: usize,
    /// Packets that wait for a peer's bubble; see [`QUEUE_PER_PEER`].
    #[serde(deserialize_with = "values::queue_per_peer")]
    pub queue_per_peer: usize,
    /// Octets that wait for the bubbles of all peers; see [`QUEUE_TOTAL_BYTES`].
    #[serde(deserialize_with = "values::queue_total_bytes")]
    pub queue_total_bytes: usize,
    /// Whether to hold the route of the service prefix while healthy.
    pub route: bool,
    /// The fast path.
    pub xdp: Xdp,
}

/// `[relay.xdp]`: the fast path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Xdp {
    /// How the program is attached.
    pub mode: XdpMode,
    /// Names of the interfaces to attach to; empty: those of the IPv4 and IPv6 default routes.
    #[serde(deserialize_with = "values::interfaces")]
    pub interfaces: Vec<String>,
    /// The checksum of the UDP datagrams that the fast path makes.
    pub outer_checksum: OuterChecksum,
    /// Whether maps and links are pinned, so that they survive a crash of the daemon.
    pub pin: bool,
}

impl Default for Node {
    fn default() -> Self {
        let name = "teredo".to_owned();
        Self {
            api: vec![default_api(&name)],
            name,
            prefix: ServicePrefix::STANDARD,
            log: "info".to_owned(),
            user: String::new(),
        }
    }
}

/// The API's socket of the instance called `name`.
fn default_api(name: &str) -> ApiAddress {
    ApiAddress::Unix(PathBuf::from(format!("/run/teredo/{name}.sock")))
}

impl Default for Relay {
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
            route: true,
            xdp: Xdp::default(),
        }
    }
}

impl Default for Xdp {
    fn default() -> Self {
        Self {
            mode: XdpMode::Auto,
            interfaces: Vec::new(),
            outer_checksum: OuterChecksum::Auto,
            pin: true,
        }
    }
}

impl Config {
    /// Reads and validates a file.
    ///
    /// # Errors
    ///
    /// When it cannot be read or is wrong; the message is the whole sentence for the user.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(|source| Error::Read {
            file: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// Validates the text of a file; `path` is for messages only.
    ///
    /// # Errors
    ///
    /// When it is wrong; the message is the whole sentence for the user.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let document = Document::parse(text, path)?;
        document.check_roles()?;
        document.check_keys()?;
        let mut config: Self = toml::from_str(text).map_err(|error| document.explain(&error))?;
        if !document.has("node", "api") {
            config.node.api = vec![default_api(&config.node.name)];
        }
        if let Some(network) = config.served_in_vain() {
            let reason = format!("{network} holds nothing that a relay may relay to");
            return Err(document.refuse("relay", "serve", &reason));
        }
        Ok(config)
    }

    /// The file with every key, as [`Self::parse`] reads it.
    ///
    /// # Panics
    ///
    /// Never: every value has a form in TOML.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("every value of the configuration has a form in TOML")
    }

    /// A served network of which every address is refused anyway.
    fn served_in_vain(&self) -> Option<Ipv6Net> {
        let [a, b, c, d] = self.node.prefix.0;
        let teredo =
            Ipv6Net::new_assert([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].into(), 32);
        let never = values::never_served();
        self.relay
            .serve
            .iter()
            .find(|network| {
                never
                    .iter()
                    .chain([&teredo])
                    .any(|no| no.contains(*network))
            })
            .copied()
    }
}

/// `relay.ipv4` may be this address.
fn is_host_address(address: Ipv4Addr) -> bool {
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_broadcast())
}

#[cfg(test)]
mod tests;
