//! The section `[client]`.

use std::{ops::RangeInclusive, path::PathBuf};

use serde::{Deserialize, Serialize};
use teredo_common::scope::Ipv4Scope;
use teredo_proto::wire::authentication::Algorithm;

use super::{
    server_name::ServerName,
    values::{self, ClientId, Ipv4Choice, RefreshInterval},
};

/// Most servers in `client.server`.
pub const SERVERS_MAX: usize = 16;
/// Permitted `client.refresh`, seconds: from the needs of unusual NATs to the largest useful value.
pub const REFRESH: RangeInclusive<u64> = 5..=900;
/// Permitted `client.max-peers`.
pub const CLIENT_MAX_PEERS: RangeInclusive<u64> = 16..=65_536;

/// `[client]`: the client role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ClientSection {
    /// The servers in the order in which they are tried, at most [`SERVERS_MAX`]. A file must set
    /// them; the empty default is not valid.
    #[serde(rename = "server", with = "values::servers")]
    pub servers: Vec<ServerName>,
    /// The server's secondary address; automatic: the one after the primary address. With several
    /// servers it must be automatic.
    #[serde(with = "values::text")]
    pub secondary: Ipv4Choice,
    /// Service port, host byte order; 0: any.
    #[serde(deserialize_with = "values::any_port")]
    pub port: u16,
    /// Name of the tunnel interface.
    #[serde(deserialize_with = "values::interface_name")]
    pub tun: String,
    /// Whether packets of one flow cross the tunnel interface together.
    pub tun_offload: bool,
    /// Whether to stay off while the host has native IPv6.
    pub only_without_ipv6: bool,
    /// Whether the tunnel gets an IPv6 default route while there is no other.
    pub default_route: bool,
    /// The interval between maintenance solicitations.
    pub refresh: RefreshInterval,
    /// Whether to ask the gateway to forward the service port (UPnP).
    pub port_mapping: bool,
    /// Whether to find other clients on the same link.
    pub local_discovery: bool,
    /// The scope of acceptable IPv4 endpoints.
    #[serde(with = "values::scope")]
    pub ipv4_scope: Ipv4Scope,
    /// The client identifier in secure qualification.
    #[serde(with = "values::text_or_empty")]
    pub id: Option<ClientId>,
    /// The algorithm of its key.
    #[serde(with = "values::algorithm")]
    pub algorithm: Algorithm,
    /// The file with its key.
    #[serde(with = "values::path_or_empty")]
    pub secret_file: Option<PathBuf>,
    /// Whether an address of the tunnel service is accepted.
    pub allow_tunnel: bool,
    /// The symmetric NAT support extension (RFC 6081 section 5.2).
    pub symmetric: bool,
    /// The port-preserving symmetric NAT extension (RFC 6081 section 5.4).
    pub port_preserving: bool,
    /// The sequential port-symmetric NAT extension (RFC 6081 section 5.5).
    pub sequential: bool,
    /// The hairpinning extension (RFC 6081 section 5.6).
    pub hairpinning: bool,
    /// The server load reduction extension (RFC 6081 section 5.7).
    pub load_reduction: bool,
    /// Whether to probe for a cone NAT first, as RFC 4380 does and RFC 5991 does not.
    pub cone_probe: bool,
    /// Whether the address has the flags of RFC 4380 instead of the random flags of RFC 5991.
    pub draft_flags: bool,
    /// Whether each solicitation comes from a new link-local address.
    pub random_link_local: bool,
    /// Whether to send directly to peers whose address has the cone flag.
    pub honor_cone: bool,
    /// Whether advertisements without an authentication header are accepted.
    pub legacy_server: bool,
    /// Whether the prefix of the early experiments is accepted instead of the standard one.
    pub legacy_prefix: bool,
    /// Whether native hosts may send first, after a connectivity test.
    pub accept_unsolicited: bool,
    /// Most peers that are remembered; see [`CLIENT_MAX_PEERS`].
    #[serde(deserialize_with = "values::client_max_peers")]
    pub max_peers: usize,
    /// Most packets that wait for one peer; see [`super::QUEUE_PER_PEER`].
    #[serde(deserialize_with = "values::queue_per_peer")]
    pub queue_per_peer: usize,
    /// Most octets that wait for all peers; see [`super::QUEUE_TOTAL_BYTES`].
    #[serde(deserialize_with = "values::queue_total_bytes")]
    pub queue_total_bytes: usize,
}

impl Default for ClientSection {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            secondary: Ipv4Choice::Auto,
            port: 0,
            tun: "teredo".to_owned(),
            tun_offload: true,
            only_without_ipv6: true,
            default_route: true,
            refresh: RefreshInterval::Auto,
            port_mapping: true,
            local_discovery: true,
            ipv4_scope: Ipv4Scope::Strict,
            id: None,
            algorithm: Algorithm::default(),
            secret_file: None,
            allow_tunnel: false,
            symmetric: true,
            port_preserving: true,
            sequential: true,
            hairpinning: true,
            load_reduction: true,
            cone_probe: false,
            draft_flags: false,
            random_link_local: false,
            honor_cone: false,
            legacy_server: false,
            legacy_prefix: false,
            accept_unsolicited: false,
            max_peers: 1024,
            queue_per_peer: 16,
            queue_total_bytes: 4 << 20,
        }
    }
}
