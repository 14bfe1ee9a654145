//! The section `[server]`.

use std::{net::Ipv4Addr, ops::RangeInclusive, path::PathBuf};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use teredo_common::{address::ServicePrefix, scope::Ipv4Scope, wire};
use teredo_proto::wire::authentication::Algorithm;

use super::values::{self, ClientId};
use crate::{datapath::xdp::AttachPolicy, sunset::Date};

/// Permitted rates of `server` and `relay`, per second.
pub const RATE: RangeInclusive<u64> = 1..=100_000_000;
/// Permitted `server.burst` and `server.network-burst`.
pub const BURST: RangeInclusive<u64> = 1..=1_000_000;
/// Permitted `server.icmpv6-payload`, octets: an ICMPv6 header to the largest message in a packet of
/// 1280 octets.
pub const ICMPV6_PAYLOAD: RangeInclusive<u64> = 8..=1_240;
/// Most prefixes in `server.extra-prefixes`.
pub const EXTRA_PREFIXES_MAX: usize = 7;
/// Most networks in `server.allow`.
pub const ALLOW_MAX: usize = 1_024;
/// Most files in `server.client.retired-secret-files`.
pub const RETIRED_SECRETS_MAX: usize = 8;

/// `[server]`: the server role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ServerSection {
    /// The primary and the secondary address, which differ. A file must set them; the unspecified
    /// default is not valid.
    #[serde(deserialize_with = "values::server_addresses")]
    pub ipv4: [Ipv4Addr; 2],
    /// The port of both addresses, host byte order, never 0.
    #[serde(deserialize_with = "values::port")]
    pub port: u16,
    /// Service prefixes besides `node.prefix` whose clients are served, at most
    /// [`EXTRA_PREFIXES_MAX`].
    #[serde(with = "values::service_prefixes")]
    pub extra_prefixes: Vec<ServicePrefix>,
    /// The MTU in advertisements, in octets; 0: none.
    #[serde(deserialize_with = "values::advertised_mtu")]
    pub mtu: u16,
    /// Whether router solicitations without valid authentication are dropped.
    pub require_auth: bool,
    /// The scope of acceptable IPv4 endpoints.
    #[serde(with = "values::scope")]
    pub ipv4_scope: Ipv4Scope,
    /// The networks that are served, at most [`ALLOW_MAX`]; empty: all.
    #[serde(deserialize_with = "values::allow")]
    pub allow: Vec<Ipv4Net>,
    /// Whether echo requests of clients are forwarded to native IPv6.
    pub forward_echo: bool,
    /// Whether echo replies of clients are forwarded to native IPv6.
    pub forward_echo_replies: bool,
    /// Whether packets are forwarded to clients of other servers.
    pub forward_foreign: bool,
    /// The longest ICMPv6 message that is handled, in octets; see [`ICMPV6_PAYLOAD`].
    #[serde(deserialize_with = "values::icmpv6_payload")]
    pub icmpv6_payload: u16,
    /// Packets per second that one source address may cause; see [`RATE`].
    #[serde(deserialize_with = "values::rate")]
    pub rate: u32,
    /// Packets that one source address may cause at once after a pause; see [`BURST`].
    #[serde(deserialize_with = "values::burst")]
    pub burst: u32,
    /// Packets per second that the sources of a /24 may cause together; see [`RATE`].
    #[serde(deserialize_with = "values::rate")]
    pub network_rate: u32,
    /// Packets that the sources of a /24 may cause at once after a pause; see [`BURST`].
    #[serde(deserialize_with = "values::burst")]
    pub network_burst: u32,
    /// Packets per second that all sources may cause together; see [`RATE`].
    #[serde(deserialize_with = "values::rate")]
    pub total_rate: u32,
    /// The date on which the server ends.
    #[serde(with = "values::text_or_empty")]
    pub sunset: Option<Date>,
    /// Name of the tunnel service's interface.
    #[serde(deserialize_with = "values::interface_name")]
    pub tun: String,
    /// The fast path.
    pub xdp: ServerXdpSection,
    /// Clients with a key, in the order of the file.
    #[serde(rename = "client")]
    pub clients: Vec<ServerClientSection>,
}

/// `[server.xdp]`: the fast path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ServerXdpSection {
    /// The attach policy.
    pub mode: AttachPolicy,
    /// Names of the interfaces to attach to; empty: those that have the server's addresses.
    #[serde(deserialize_with = "values::interfaces")]
    pub interfaces: Vec<String>,
    /// Whether maps and links are pinned, so that they survive a crash of the daemon.
    pub pin: bool,
    /// Packets to the server per second that the daemon gets; see [`super::XDP_RATE`].
    #[serde(deserialize_with = "values::xdp_rate")]
    pub daemon_rate: u32,
}

/// `[[server.client]]`: a client with a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ServerClientSection {
    /// The client identifier in the authentication encapsulation.
    #[serde(with = "values::text")]
    pub id: ClientId,
    /// The algorithm of its keys.
    #[serde(default, with = "values::algorithm")]
    pub algorithm: Algorithm,
    /// The file with its key.
    #[serde(deserialize_with = "values::absolute_path")]
    pub secret_file: PathBuf,
    /// Files with keys that the client should no longer use, at most [`RETIRED_SECRETS_MAX`].
    #[serde(default, deserialize_with = "values::retired_secret_files")]
    pub retired_secret_files: Vec<PathBuf>,
    /// The stable /64 that the tunnel service assigns to the client.
    #[serde(default, with = "values::client_prefix")]
    pub prefix: Option<Ipv6Net>,
}

impl ServerSection {
    /// Returns the primary address, the one in the Teredo addresses of clients.
    #[must_use]
    pub fn primary(&self) -> Ipv4Addr {
        self.ipv4[0]
    }

    /// Returns the secondary address.
    #[must_use]
    pub fn secondary(&self) -> Ipv4Addr {
        self.ipv4[1]
    }

    /// Returns whether any client has a stable prefix.
    #[must_use]
    pub fn has_tunnel_service(&self) -> bool {
        self.clients.iter().any(|client| client.prefix.is_some())
    }
}

impl Default for ServerSection {
    fn default() -> Self {
        Self {
            ipv4: [Ipv4Addr::UNSPECIFIED; 2],
            port: wire::SERVER_PORT,
            extra_prefixes: Vec::new(),
            mtu: wire::MTU,
            require_auth: false,
            ipv4_scope: Ipv4Scope::Strict,
            allow: Vec::new(),
            forward_echo: true,
            forward_echo_replies: false,
            forward_foreign: false,
            icmpv6_payload: 88,
            rate: 10,
            burst: 20,
            network_rate: 100,
            network_burst: 200,
            total_rate: 1_000_000,
            sunset: None,
            tun: "teredo-server".to_owned(),
            xdp: ServerXdpSection::default(),
            clients: Vec::new(),
        }
    }
}

impl Default for ServerXdpSection {
    fn default() -> Self {
        Self {
            mode: AttachPolicy::Auto,
            interfaces: Vec::new(),
            pin: true,
            daemon_rate: 50_000,
        }
    }
}
