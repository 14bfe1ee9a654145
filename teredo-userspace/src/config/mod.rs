//! The configuration file.
//!
//! A role runs if its section is present. Nearly every key has a default. An unknown key, a wrong
//! type and a value out of range are errors of one sentence that names the line, the key and the
//! permitted values.

pub mod access;
mod checks;
mod client;
mod document;
mod error;
mod fast_path;
mod ipfix;
pub mod keys;
pub(crate) mod log_filter;
mod member;
mod reason;
mod relay;
pub mod secrets;
mod server;
mod server_name;
mod values;

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};
use teredo_common::address::ServicePrefix;

pub use client::{CLIENT_MAX_PEERS, ClientSection, REFRESH, SERVERS_MAX};
use document::Document;
pub use error::{Error, Place};
pub use fast_path::FastPathRequest;
pub use ipfix::{Collector, INTERVAL, IpfixSection};
pub use member::{Member, MemberError};
pub use relay::{
    FleetSection, GRACE, MAX_PEERS, MEMBERS_MAX, MTU, QUEUE_PER_PEER, QUEUE_TOTAL_BYTES,
    RelaySection, RelayXdpSection, THREADS, XDP_RATE,
};
pub use server::{
    ALLOW_MAX, BURST, EXTRA_PREFIXES_MAX, ICMPV6_PAYLOAD, RATE, RETIRED_SECRETS_MAX,
    ServerClientSection, ServerSection, ServerXdpSection,
};
pub use server_name::{ServerHost, ServerName, ServerNameError};
pub use values::{
    ApiAddress, ClientId, Ipv4Choice, LogFormat, OuterChecksum, RefreshInterval, Threads,
};

use crate::datapath::udp::Segmentation;

/// The default path of the configuration.
pub const DEFAULT_PATH: &str = "/etc/teredo/teredo.toml";

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
pub struct Config {
    /// Settings that all roles share.
    pub node: NodeSection,
    /// The relay role, if it runs.
    pub relay: Option<RelaySection>,
    /// The server role, if it runs.
    pub server: Option<ServerSection>,
    /// The client role, if it runs.
    pub client: Option<ClientSection>,
}

/// `[node]`: settings that all roles share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct NodeSection {
    /// Name of this instance, part of the paths of the default socket and the pin directory.
    #[serde(deserialize_with = "values::instance_name")]
    pub name: String,
    /// The Teredo service prefix.
    #[serde(with = "values::service_prefix")]
    pub prefix: ServicePrefix,
    /// Filter of the log: levels, and levels of targets.
    #[serde(deserialize_with = "values::log_filter")]
    pub log: String,
    /// Form of the log.
    pub log_format: LogFormat,
    /// Addresses of the API; empty: no API.
    #[serde(with = "values::one_or_many")]
    pub api: Vec<ApiAddress>,
    /// The file with the token that the API asks for on addresses that are not loopback.
    #[serde(with = "values::path_or_empty")]
    pub api_token_file: Option<PathBuf>,
    /// The user to run as after the start; empty: the one that started the daemon.
    #[serde(deserialize_with = "values::user_name")]
    pub user: String,
    /// Whether system calls and files are restricted to those that the daemon needs.
    pub sandbox: bool,
    /// Whether the kernel splits messages into the datagrams for one peer.
    pub udp_segmentation: Segmentation,
    /// The traffic of peers as IPFIX.
    pub ipfix: IpfixSection,
}

impl Default for NodeSection {
    fn default() -> Self {
        let name = "teredo".to_owned();
        Self {
            api: vec![default_api(&name)],
            api_token_file: None,
            name,
            prefix: ServicePrefix::STANDARD,
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            user: String::new(),
            sandbox: true,
            udp_segmentation: Segmentation::Auto,
            ipfix: IpfixSection::default(),
        }
    }
}

/// Returns the default address of the API for the instance called `name`.
fn default_api(name: &str) -> ApiAddress {
    ApiAddress::Unix(PathBuf::from(format!("/run/teredo/{name}.sock")))
}

impl Config {
    /// Reads and validates a file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or is invalid; the message is a whole sentence for the user.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(|source| Error::Read {
            file: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// Parses and validates the text of a file. `path` is used in messages only.
    ///
    /// # Errors
    ///
    /// When the text is invalid; the message is a whole sentence for the user.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let document = Document::parse(text, path)?;
        document.check_roles()?;
        document.check_keys()?;
        let mut config: Self = toml::from_str(text).map_err(|error| document.explain(&error))?;
        if !document.has("node", "api") {
            config.node.api = vec![default_api(&config.node.name)];
        }
        checks::check(&config, &document)?;
        Ok(config)
    }

    /// Returns whether a role has a tunnel interface.
    #[must_use]
    pub fn has_tunnel(&self) -> bool {
        let server = self.server.as_ref();
        self.relay.is_some()
            || self.client.is_some()
            || server.is_some_and(ServerSection::has_tunnel_service)
    }

    /// Returns the service prefixes whose clients are served. The first one is advertised.
    pub fn service_prefixes(&self) -> impl Iterator<Item = ServicePrefix> {
        let extra = self.server.iter().flat_map(|server| &server.extra_prefixes);
        [self.node.prefix].into_iter().chain(extra.copied())
    }

    /// Returns a file with every key, as [`Self::parse`] reads it.
    ///
    /// # Panics
    ///
    /// Never, since every value can be written in TOML.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("every value of the configuration can be written in TOML")
    }
}

/// Returns a service prefix as a network.
#[must_use]
pub fn network(prefix: ServicePrefix) -> Ipv6Net {
    let [a, b, c, d] = prefix.0;
    let address = [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    Ipv6Net::new_assert(address.into(), 32)
}

/// Returns whether a host may have this address.
fn is_host_address(address: Ipv4Addr) -> bool {
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_broadcast())
}

#[cfg(test)]
mod tests;
