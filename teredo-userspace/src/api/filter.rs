//! The selection of peers in a list.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use ipnet::Ipv6Net;

use super::{problem::Problem, types::PeerState};
use crate::metrics::Path;

/// The parameters of a list of peers, as an error names them.
const PARAMETERS: &str = "prefix, endpoint, state, path, limit and after";

/// The properties that listed peers have. All of them do if nothing is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The prefix of the address.
    pub prefix: Option<Ipv6Net>,
    /// The mapping's address, and its port if that matters.
    pub endpoint: Option<(Ipv4Addr, Option<u16>)>,
    /// The state of the mapping.
    pub state: Option<PeerState>,
    /// The path of the peer's packets.
    pub path: Option<Path>,
}

impl Filter {
    /// Returns whether a peer with this address and mapping is selected, as far as its path does not matter.
    #[must_use]
    pub fn admits(&self, address: Ipv6Addr, mapped: SocketAddrV4, state: PeerState) -> bool {
        self.prefix.is_none_or(|prefix| prefix.contains(&address))
            && self.endpoint.is_none_or(|(ip, port)| {
                ip == *mapped.ip() && port.is_none_or(|port| port == mapped.port())
            })
            && self.state.is_none_or(|wanted| wanted == state)
    }

    /// Returns whether peers are selected whose packets take this path.
    #[must_use]
    pub fn admits_path(&self, path: Path) -> bool {
        self.path.is_none_or(|wanted| wanted == path)
    }
}

/// The part of the list of peers that a request asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The properties of the peers.
    pub filter: Filter,
    /// The most peers of the answer; `None` for all.
    pub limit: Option<u64>,
    /// The cursor at which the list goes on.
    pub after: u64,
}

impl Selection {
    /// Parses the parameters of a request.
    ///
    /// # Errors
    ///
    /// A sentence about the first parameter that is wrong.
    pub fn parse(parameters: &[(String, String)]) -> Result<Self, Problem> {
        let mut selection = Self::default();
        let mut seen = Vec::new();
        for (name, value) in parameters {
            if seen.contains(&name) {
                return Err(Problem::bad_request(format!(
                    "the parameter {name} is there twice; give it once"
                )));
            }
            seen.push(name);
            let wrong = |permitted: &str| {
                Problem::bad_request(format!(
                    "the parameter {name} is `{value}`, and must be {permitted}"
                ))
            };
            let filter = &mut selection.filter;
            match &**name {
                "prefix" => {
                    let prefix = parse_prefix(value).ok_or_else(|| {
                        wrong("an IPv6 prefix such as 2001:0:c000:201::/64, or an address")
                    })?;
                    filter.prefix = Some(prefix);
                }
                "endpoint" => {
                    let endpoint = parse_endpoint(value).ok_or_else(|| {
                        wrong("an IPv4 address such as 192.0.2.1, or with a port 192.0.2.1:3545")
                    })?;
                    filter.endpoint = Some(endpoint);
                }
                "state" => {
                    filter.state = Some(match &**value {
                        "trusted" => PeerState::Trusted,
                        "untrusted" => PeerState::Untrusted,
                        _ => return Err(wrong("`trusted` or `untrusted`")),
                    });
                }
                "path" => {
                    let path = Path::ALL.into_iter().find(|path| path.name() == value);
                    filter.path = Some(path.ok_or_else(|| wrong("`xdp` or `userspace`"))?);
                }
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| *limit > 0);
                    selection.limit =
                        Some(limit.ok_or_else(|| wrong("a number of peers, at least 1"))?);
                }
                "after" => {
                    let after = value.parse();
                    selection.after =
                        after.map_err(|_| wrong("the value of `next` in an earlier answer"))?;
                }
                _ => {
                    return Err(Problem::bad_request(format!(
                        "there is no parameter {name}; the parameters are {PARAMETERS}"
                    )));
                }
            }
        }
        Ok(selection)
    }
}

/// Parses a prefix, or an address, which is a prefix of its own.
pub fn parse_prefix(text: &str) -> Option<Ipv6Net> {
    match text.parse::<Ipv6Addr>() {
        Ok(address) => Some(address.into()),
        Err(_) => text.parse().ok(),
    }
}

/// Parses an address with or without a port.
pub fn parse_endpoint(text: &str) -> Option<(Ipv4Addr, Option<u16>)> {
    if let Ok(endpoint) = text.parse::<SocketAddrV4>() {
        return Some((*endpoint.ip(), Some(endpoint.port())));
    }
    Some((text.parse().ok()?, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(parameters: &[(&str, &str)]) -> Result<Selection, String> {
        let own = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        let parameters: Vec<_> = parameters.iter().map(own).collect();
        Selection::parse(&parameters).map_err(|problem| problem.detail)
    }

    #[test]
    fn every_property_selects() {
        let selection = parse(&[
            ("prefix", "2001:0:c000:201::/64"),
            ("endpoint", "192.0.2.1"),
            ("state", "trusted"),
            ("path", "xdp"),
            ("limit", "7"),
            ("after", "42"),
        ])
        .unwrap();
        assert_eq!((selection.limit, selection.after), (Some(7), 42));
        let filter = selection.filter;
        assert!(filter.admits_path(Path::Xdp) && !filter.admits_path(Path::Userspace));
        let (inside, outside) = ("2001:0:c000:201::1", "2001:0:c000:202::1");
        let (here, there) = ("192.0.2.1:1", "192.0.2.2:1");
        for (address, mapped, state, is_selected) in [
            (inside, here, PeerState::Trusted, true),
            (inside, "192.0.2.1:2", PeerState::Trusted, true),
            (outside, here, PeerState::Trusted, false),
            (inside, there, PeerState::Trusted, false),
            (inside, here, PeerState::Untrusted, false),
        ] {
            let admits = filter.admits(address.parse().unwrap(), mapped.parse().unwrap(), state);
            assert_eq!(admits, is_selected, "{address} {mapped} {state:?}");
        }
        let port = parse(&[("endpoint", "192.0.2.1:1")]).unwrap().filter;
        let admits = |mapped: &str| {
            port.admits(
                inside.parse().unwrap(),
                mapped.parse().unwrap(),
                PeerState::Untrusted,
            )
        };
        assert!(admits(here) && !admits("192.0.2.1:2"));
        let address = parse(&[("prefix", inside)]).unwrap().filter;
        assert_eq!(address.prefix, format!("{inside}/128").parse().ok());
    }

    #[test]
    fn a_wrong_parameter_is_a_sentence() {
        for (parameters, sentence) in [
            (
                &[("state", "new")][..],
                "the parameter state is `new`, and must be `trusted` or `untrusted`",
            ),
            (
                &[("limit", "0")],
                "the parameter limit is `0`, and must be a number of peers, at least 1",
            ),
            (
                &[("after", "1"), ("after", "2")],
                "the parameter after is there twice; give it once",
            ),
            (
                &[("port", "1")],
                "there is no parameter port; the parameters are prefix, endpoint, state, path, limit and after",
            ),
        ] {
            assert_eq!(parse(parameters).unwrap_err(), sentence);
        }
        for (name, value) in [
            ("prefix", "192.0.2.0/24"),
            ("prefix", "2001::/129"),
            ("endpoint", "2001::1"),
            ("endpoint", "192.0.2.1:99999"),
            ("path", "XDP"),
            ("limit", "-1"),
            ("limit", "99999999999999999999"),
            ("after", "x"),
        ] {
            let sentence = parse(&[(name, value)]).unwrap_err();
            assert!(
                sentence.contains(name) && sentence.contains(value),
                "{sentence}"
            );
        }
    }
}
