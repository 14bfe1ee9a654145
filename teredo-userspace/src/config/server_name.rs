//! The name of a Teredo server as people write it.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use teredo_common::wire::SERVER_PORT;
use thiserror::Error;

/// Most octets of a host name (RFC 1035 section 2.3.4).
const NAME_MAX: usize = 253;
/// Most octets of a label of a host name.
const LABEL_MAX: usize = 63;

/// A server: a host name or an IPv4 address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerName {
    /// The host.
    pub host: ServerHost,
    /// UDP port, host byte order, never 0.
    pub port: u16,
}

/// The host of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerHost {
    /// A host name, which has to be looked up.
    Name(String),
    /// The primary address.
    Address(Ipv4Addr),
}

/// The reason why a text names no server.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ServerNameError {
    /// There is no text.
    #[error("it is empty")]
    Empty,
    /// An IPv6 address, perhaps with a port.
    #[error("{0} is an IPv6 address, but Teredo servers have IPv4 addresses")]
    Ipv6(Ipv6Addr),
    /// A URL, or something else with a slash.
    #[error("it looks like a URL or a path: name the host alone, such as \"{host}\"")]
    Url {
        /// The host in it.
        host: String,
    },
    /// More than one colon.
    #[error("it has more than one colon: write a name or an IPv4 address, a colon and a port")]
    Colons,
    /// No host before the colon.
    #[error("there is no name before the colon")]
    NoHost,
    /// No port after the colon.
    #[error("there is no UDP port after the colon")]
    NoPort,
    /// A port that does not exist.
    #[error("\"{0}\" is no UDP port, which is a number from 1 to 65535")]
    Port(String),
    /// An address that no server can have.
    #[error("{address} is {kind}, which no server has")]
    Address {
        /// The address.
        address: Ipv4Addr,
        /// The kind of the address, with an article.
        kind: &'static str,
    },
    /// Numbers and dots that are no address.
    #[error(
        "\"{0}\" is no IPv4 address, which is four numbers from 0 to 255 with dots between them"
    )]
    Numbers(String),
    /// Neither a name nor an address.
    #[error("\"{0}\" is neither a host name nor an IPv4 address")]
    Host(String),
}

impl FromStr for ServerName {
    type Err = ServerNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.is_empty() {
            return Err(ServerNameError::Empty);
        }
        if let Some(address) = ipv6_address(text) {
            return Err(ServerNameError::Ipv6(address));
        }
        if text.contains('/') {
            let host = host_of_url(text).to_owned();
            return Err(ServerNameError::Url { host });
        }
        let (host, port) = match text.split_once(':') {
            None => (text, SERVER_PORT),
            Some((_, rest)) if rest.contains(':') => return Err(ServerNameError::Colons),
            Some((_, "")) => return Err(ServerNameError::NoPort),
            Some((host, port)) => (host, parse_port(port)?),
        };
        let host = parse_host(host)?;
        Ok(Self { host, port })
    }
}

fn parse_port(text: &str) -> Result<u16, ServerNameError> {
    let is_number = text.bytes().all(|octet| octet.is_ascii_digit());
    let port = text.parse().ok().filter(|&port| is_number && port != 0);
    port.ok_or_else(|| ServerNameError::Port(text.to_owned()))
}

fn parse_host(text: &str) -> Result<ServerHost, ServerNameError> {
    if text.is_empty() {
        return Err(ServerNameError::NoHost);
    }
    if let Ok(address) = text.parse() {
        return match unfit(address) {
            None => Ok(ServerHost::Address(address)),
            Some(kind) => Err(ServerNameError::Address { address, kind }),
        };
    }
    let is_number = |octet: u8| octet.is_ascii_digit() || octet == b'.';
    match is_name(text) {
        true => Ok(ServerHost::Name(text.to_owned())),
        false if text.bytes().all(is_number) => Err(ServerNameError::Numbers(text.to_owned())),
        false => Err(ServerNameError::Host(text.to_owned())),
    }
}

/// Returns the kind of an address that no host has.
fn unfit(address: Ipv4Addr) -> Option<&'static str> {
    if super::is_host_address(address) {
        None
    } else if address.is_loopback() {
        Some("an address of the loopback interface")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else if address.is_broadcast() {
        Some("the broadcast address")
    } else {
        Some("the unspecified address")
    }
}

/// Returns the IPv6 address that the text is, with or without brackets, zone, prefix length and
/// port.
fn ipv6_address(text: &str) -> Option<Ipv6Addr> {
    let inside = match text.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None => text,
    };
    inside.split(['%', '/']).next()?.parse().ok()
}

/// Returns the host in a URL, or in something that resembles one.
fn host_of_url(text: &str) -> &str {
    let rest = text.split_once("//").map_or(text, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    match host.split(':').next() {
        Some(host) if !host.is_empty() && !host.starts_with('[') => host,
        _ => "teredo.example.net",
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.host.fmt(formatter)?;
        if self.port != SERVER_PORT {
            write!(formatter, ":{}", self.port)?;
        }
        Ok(())
    }
}

impl fmt::Display for ServerHost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => formatter.write_str(name),
            Self::Address(address) => address.fmt(formatter),
        }
    }
}

/// Returns whether this can be a host name. One that ends with a number is a mistyped address.
pub(super) fn is_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_number = |label: &str| label.bytes().all(|octet| octet.is_ascii_digit());
    name.len() <= NAME_MAX
        && name.split('.').all(is_label)
        && !name.rsplit('.').next().is_some_and(is_number)
}

fn is_label(label: &str) -> bool {
    let is_fit = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
    (1..=LABEL_MAX).contains(&label.len())
        && label.bytes().all(is_fit)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_with_and_without_port() {
        for (text, shown, port) in [
            ("teredo.example.net", "teredo.example.net", 3544),
            ("teredo.example.net.:3544", "teredo.example.net.", 3544),
            ("server:1", "server:1", 1),
            ("9.0.0.1", "9.0.0.1", 3544),
            ("9.0.0.1:65535", "9.0.0.1:65535", 65_535),
            ("1st.example", "1st.example", 3544),
            (" server ", "server", 3544),
        ] {
            let server: ServerName = text.parse().unwrap();
            assert_eq!((server.to_string(), server.port), (shown.to_owned(), port));
            let is_address = matches!(server.host, ServerHost::Address(_));
            assert_eq!(is_address, text.starts_with('9'));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let long = "x".repeat(64);
        for (text, part) in [
            ("", "empty"),
            (" ", "empty"),
            (":3544", "no name before the colon"),
            ("server:", "no UDP port after the colon"),
            ("server:0", "\"0\" is no UDP port"),
            ("server:65536", "\"65536\" is no UDP port"),
            ("server:port", "\"port\" is no UDP port"),
            ("server:-1", "\"-1\" is no UDP port"),
            ("9.0.0.1:99999", "\"99999\" is no UDP port"),
            ("9.0.0", "four numbers"),
            ("9.0.0.256", "four numbers"),
            ("9.0.0.1.", "four numbers"),
            ("12345", "four numbers"),
            ("224.0.0.1", "multicast"),
            ("0.0.0.0", "unspecified"),
            ("127.0.0.1", "loopback"),
            ("255.255.255.255", "broadcast"),
            ("2001:db8::1", "2001:db8::1 is an IPv6 address"),
            ("::1", "::1 is an IPv6 address"),
            ("[2001:db8::1]", "2001:db8::1 is an IPv6 address"),
            ("[2001:db8::1]:3544", "2001:db8::1 is an IPv6 address"),
            ("fe80::1%eth0", "fe80::1 is an IPv6 address"),
            ("2001:db8::/32", "2001:db8:: is an IPv6 address"),
            ("::ffff:9.0.0.1", "is an IPv6 address"),
            ("9.0.0.1:1:2", "more than one colon"),
            ("udp:9.0.0.1:3544", "more than one colon"),
            ("a b", "neither a host name"),
            ("a..b", "neither a host name"),
            ("-a.example", "neither a host name"),
            ("alice@a.example", "neither a host name"),
            (
                "http://teredo.example.net",
                "such as \"teredo.example.net\"",
            ),
            ("https://a.example:443/x", "such as \"a.example\""),
            ("https://me@a.example/?x", "such as \"a.example\""),
            ("https://[2001:db8::1]/", "name the host alone"),
            ("https://", "name the host alone"),
            ("a.example/", "such as \"a.example\""),
            ("9.0.0.1/24", "such as \"9.0.0.1\""),
            (&long, "neither a host name"),
            (&"x.".repeat(128), "neither a host name"),
        ] {
            let error = text.parse::<ServerName>().expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!("x.".repeat(127).parse::<ServerName>().is_ok());
    }
}
