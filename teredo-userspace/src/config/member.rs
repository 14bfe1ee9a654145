//! The relays of a fleet as people write them.

use std::{fmt, net::SocketAddr, str::FromStr};

use thiserror::Error;

use super::server_name::is_name;

/// A relay of the fleet, or all that have one name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Member {
    /// Its address and port.
    Address(SocketAddr),
    /// A host name, which has to be looked up, and the port of all its addresses, never 0.
    Name {
        /// The host name.
        host: String,
        /// UDP port, host byte order.
        port: u16,
    },
}

/// The reason why a text names no relay of a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MemberError {
    /// No port after the host.
    #[error("\"{0}\" has no UDP port: write a colon and a number from 1 to 65535 after it")]
    Port(String),
    /// An address that no relay has.
    #[error("{0} is no address of a host")]
    Address(SocketAddr),
    /// Neither a name nor an address.
    #[error(
        "\"{0}\" is neither an address nor a host name; IPv6 addresses are written in brackets"
    )]
    Host(String),
}

impl FromStr for Member {
    type Err = MemberError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            let (ip, port) = (address.ip(), address.port());
            return match ip.is_unspecified() || ip.is_multicast() {
                true => Err(MemberError::Address(address)),
                false if port == 0 => Err(MemberError::Port(ip.to_string())),
                false => Ok(Self::Address(address)),
            };
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') => (host, port),
            None => (text, ""),
            Some(_) => return Err(MemberError::Host(text.to_owned())),
        };
        if !is_name(host) {
            return Err(MemberError::Host(host.to_owned()));
        }
        match port.parse() {
            Ok(port) if port != 0 => Ok(Self::Name {
                host: host.to_owned(),
                port,
            }),
            _ => Err(MemberError::Port(host.to_owned())),
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(formatter),
            Self::Name { host, port } => write!(formatter, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_have_ports() {
        for text in [
            "10.0.0.1:3546",
            "[2001:db8::1]:1",
            "relays.example.net:3546",
            "a:9",
        ] {
            let member: Member = text.parse().unwrap();
            assert_eq!(member.to_string(), text);
            let is_name = matches!(member, Member::Name { .. });
            assert_eq!(is_name, text.starts_with(['r', 'a']));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for (text, part) in [
            ("10.0.0.1", "neither an address nor a host name"),
            ("10.0.0.1:0", "no UDP port"),
            (
                "relays.example.net",
                "\"relays.example.net\" has no UDP port",
            ),
            ("relays.example.net:", "no UDP port"),
            ("relays.example.net:0", "no UDP port"),
            ("relays.example.net:x", "no UDP port"),
            ("relays.example.net:65536", "no UDP port"),
            ("0.0.0.0:3546", "no address of a host"),
            ("[ff02::1]:3546", "no address of a host"),
            ("2001:db8::1", "brackets"),
            ("2001:db8::1:3546", "brackets"),
            ("", "neither"),
            (":3546", "neither"),
            ("a b:3546", "neither"),
        ] {
            let error = text.parse::<Member>().expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
