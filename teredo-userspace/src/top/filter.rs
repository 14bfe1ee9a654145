//! The filter of peers that the user types.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use ipnet::Ipv6Net;

use super::answers::Peer;
use crate::api::types::PeerState;

/// Words, all of which have to match.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter(Vec<Word>);

#[derive(Clone, Debug, PartialEq)]
enum Word {
    Prefix(Ipv6Net),
    Host(Ipv4Addr),
    Endpoint(SocketAddrV4),
    State(PeerState),
    Xdp(bool),
    /// A part of the address or the endpoint.
    Part(String),
}

impl Filter {
    /// Parses a filter. Every text is one.
    pub fn parse(text: &str) -> Self {
        Self(text.split_whitespace().map(Word::parse).collect())
    }

    /// Whether every peer matches.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a peer matches.
    pub fn admits(&self, peer: &Peer) -> bool {
        self.0.iter().all(|word| word.admits(peer))
    }

    /// Returns the parameters with which the daemon selects at least the peers that match.
    pub fn selection(&self) -> Vec<(&'static str, String)> {
        let mut selection: Vec<(&str, String)> = Vec::new();
        for (name, value) in self.0.iter().filter_map(Word::parameter) {
            // The daemon takes each once. The view itself applies the others.
            if !selection.iter().any(|(present, _)| *present == name) {
                selection.push((name, value));
            }
        }
        selection
    }
}

impl Word {
    fn parse(text: &str) -> Self {
        let lower = text.to_lowercase();
        match &*lower {
            "trusted" => return Self::State(PeerState::Trusted),
            "untrusted" => return Self::State(PeerState::Untrusted),
            "xdp" => return Self::Xdp(true),
            "userspace" | "daemon" => return Self::Xdp(false),
            _ => {}
        }
        if let Ok(prefix) = lower.parse::<Ipv6Net>() {
            return Self::Prefix(prefix.trunc());
        }
        if let Ok(address) = lower.parse::<Ipv6Addr>() {
            return Self::Prefix(address.into());
        }
        if let Ok(endpoint) = lower.parse() {
            return Self::Endpoint(endpoint);
        }
        lower.parse().map_or(Self::Part(lower), Self::Host)
    }

    fn admits(&self, peer: &Peer) -> bool {
        match self {
            Self::Prefix(prefix) => prefix.contains(&peer.address),
            Self::Host(host) => peer.mapped.ip() == host,
            Self::Endpoint(endpoint) => peer.mapped == *endpoint,
            Self::State(state) => peer.state == *state,
            Self::Xdp(xdp) => peer.xdp == *xdp,
            Self::Part(part) => {
                peer.address.to_string().contains(part) || peer.mapped.to_string().contains(part)
            }
        }
    }

    fn parameter(&self) -> Option<(&'static str, String)> {
        Some(match self {
            Self::Prefix(prefix) => ("prefix", prefix.to_string()),
            Self::Host(host) => ("endpoint", host.to_string()),
            Self::Endpoint(endpoint) => ("endpoint", endpoint.to_string()),
            Self::State(PeerState::Trusted) => ("state", "trusted".to_owned()),
            Self::State(PeerState::Untrusted) => ("state", "untrusted".to_owned()),
            Self::Xdp(true) => ("path", "xdp".to_owned()),
            Self::Xdp(false) => ("path", "userspace".to_owned()),
            Self::Part(_) => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::peer, *};

    #[test]
    fn words_select_here_and_at_the_daemon() {
        let peer = peer(7);
        let mapped = peer.mapped;
        for (text, admits, selection) in [
            ("", true, ""),
            ("trusted", true, "state=trusted"),
            ("untrusted", false, "state=untrusted"),
            ("XDP", true, "path=xdp"),
            ("daemon", false, "path=userspace"),
            ("2001::/32", true, "prefix=2001::/32"),
            ("2001:0:aaaa::/48", false, "prefix=2001:0:aaaa::/48"),
            (&mapped.ip().to_string(), true, "endpoint=20.0.0.7"),
            ("20.0.0.7:1", false, "endpoint=20.0.0.7:1"),
            ("0.0.7:", true, ""),
            (
                "trusted 9.9.9.9 xdp",
                false,
                "state=trusted endpoint=9.9.9.9 path=xdp",
            ),
            ("1.1.1.1 2.2.2.2", false, "endpoint=1.1.1.1"),
        ] {
            let filter = Filter::parse(text);
            assert_eq!(filter.admits(&peer), admits, "{text}");
            let found = filter.selection();
            let found: Vec<_> = found
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            assert_eq!(found.join(" "), selection, "{text}");
        }
    }
}
