//! The name of a Teredo server as people write it.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use teredo_common::wire::SERVER_PORT;

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

impl FromStr for ServerName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = match text.split_once(':') {
            None => (text, Some(SERVER_PORT)),
            Some((host, port)) => (host, port.parse().ok().filter(|&port| port != 0)),
        };
        let port = port.ok_or("no UDP port after the colon")?;
        let host = match host.parse() {
            Ok(address) if super::is_host_address(address) => ServerHost::Address(address),
            Err(_) if is_name(host) => ServerHost::Name(host.to_owned()),
            _ => return Err("neither a name nor a unicast IPv4 address"),
        };
        Ok(Self { host, port })
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
fn is_name(text: &str) -> bool {
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
        for text in [
            "",
            ":3544",
            "server:",
            "server:0",
            "server:65536",
            "server:port",
            "9.0.0",
            "9.0.0.256",
            "9.0.0.1.",
            "224.0.0.1",
            "0.0.0.0",
            "127.0.0.1",
            "255.255.255.255",
            "2001:db8::1",
            "[2001:db8::1]",
            "a b",
            "a..b",
            "-a.example",
            "http://teredo.example.net",
            &long,
            &"x.".repeat(128),
        ] {
            assert!(text.parse::<ServerName>().is_err(), "{text}");
        }
        assert!("x.".repeat(127).parse::<ServerName>().is_ok());
    }
}
