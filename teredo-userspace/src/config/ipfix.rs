//! `[node.ipfix]`.

use std::{fmt, net::SocketAddr, ops::RangeInclusive, str::FromStr};

use serde::{Deserialize, Serialize};

use super::values;

/// Seconds between two reports of a peer.
pub const INTERVAL: RangeInclusive<u64> = 1..=3600;

/// The endpoint of a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collector(pub SocketAddr);

impl FromStr for Collector {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 && !address.ip().is_unspecified() => {
                Ok(Self(address))
            }
            _ => Err("no address with a port"),
        }
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// `[node.ipfix]`: the traffic of peers as IPFIX.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct IpfixSection {
    /// The endpoint of the collector, if there is one.
    #[serde(with = "values::text_or_empty")]
    pub collector: Option<Collector>,
    /// Seconds between two reports of a peer; see [`INTERVAL`].
    #[serde(deserialize_with = "values::ipfix_interval")]
    pub interval: u16,
    /// The identifier of the observation domain.
    pub observation_domain: u32,
}

impl Default for IpfixSection {
    fn default() -> Self {
        Self {
            collector: None,
            interval: 60,
            observation_domain: 0,
        }
    }
}
