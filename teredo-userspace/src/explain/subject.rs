//! The subject of an explanation.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4},
};

use thiserror::Error;

use super::Packet;

/// The subject of an explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A client or a native host.
    Address(Ipv6Addr),
    /// An endpoint on the IPv4 internet, such as a client's mapping.
    Endpoint(SocketAddrV4),
    /// Packets from one address to another.
    Flow {
        /// The sender.
        source: Ipv6Addr,
        /// The receiver.
        destination: Ipv6Addr,
    },
    /// One packet.
    Packet(Packet),
}

/// The reason why a text is no subject. Each is a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SubjectError {
    /// There is no text.
    #[error("there is no subject: give an IPv6 address, an IPv4 endpoint, or two IPv6 addresses")]
    Empty,
    /// An IPv4 address without a port.
    #[error("`{0}` has no port: an endpoint is written {0}:PORT")]
    NoPort(Ipv4Addr),
    /// Something else.
    #[error(
        "`{0}` is neither an IPv6 address nor an IPv4 endpoint such as 192.0.2.1:3545; a packet is given \
         with --packet or --pcap"
    )]
    Unknown(String),
    /// Two subjects that are no flow.
    #[error("`{0}` is no IPv6 address, and a flow is from one IPv6 address to another")]
    NoAddress(String),
    /// More than two.
    #[error("`{0}` is one word too many: a flow is written SOURCE -> DESTINATION")]
    TooMany(String),
}

impl Subject {
    /// Reads an address, an endpoint, or a flow with or without an arrow.
    ///
    /// # Errors
    ///
    /// When the text is neither.
    pub fn parse(text: &str) -> Result<Self, SubjectError> {
        let text = text.replace("->", " ");
        let mut words = text.split_whitespace();
        let first = words.next().ok_or(SubjectError::Empty)?;
        let Some(second) = words.next() else {
            return Self::parse_one(first);
        };
        if let Some(third) = words.next() {
            return Err(SubjectError::TooMany(third.to_owned()));
        }
        let address =
            |word: &str| ipv6(word).ok_or_else(|| SubjectError::NoAddress(word.to_owned()));
        Ok(Self::Flow {
            source: address(first)?,
            destination: address(second)?,
        })
    }

    fn parse_one(word: &str) -> Result<Self, SubjectError> {
        if let Some(address) = ipv6(word) {
            return Ok(Self::Address(address));
        }
        if let Ok(endpoint) = word.parse() {
            return Ok(Self::Endpoint(endpoint));
        }
        Err(match word.parse() {
            Ok(address) => SubjectError::NoPort(address),
            Err(_) => SubjectError::Unknown(word.to_owned()),
        })
    }
}

/// Reads an IPv6 address, with or without brackets.
fn ipv6(word: &str) -> Option<Ipv6Addr> {
    let inside = word
        .strip_prefix('[')
        .and_then(|word| word.strip_suffix(']'));
    inside.unwrap_or(word).parse().ok()
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(formatter),
            Self::Endpoint(endpoint) => endpoint.fmt(formatter),
            Self::Flow {
                source,
                destination,
            } => write!(formatter, "{source} -> {destination}"),
            Self::Packet(packet) => packet.fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_read_as_people_write_them() {
        let one: Ipv6Addr = "2001:0:102:304:0:efff:f6ff:fffe".parse().unwrap();
        let other: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let flow = Subject::Flow {
            source: one,
            destination: other,
        };
        for (text, subject) in [
            ("2001:0:102:304:0:efff:f6ff:fffe", Subject::Address(one)),
            (" [2001:db8::1] ", Subject::Address(other)),
            (
                "9.0.0.1:4096",
                Subject::Endpoint("9.0.0.1:4096".parse().unwrap()),
            ),
            ("2001:0:102:304:0:efff:f6ff:fffe 2001:db8::1", flow.clone()),
            ("2001:0:102:304:0:efff:f6ff:fffe->2001:db8::1", flow),
        ] {
            assert_eq!(Subject::parse(text), Ok(subject.clone()), "{text}");
            assert_eq!(Subject::parse(&subject.to_string()), Ok(subject));
        }
    }

    #[test]
    fn others_are_refused_with_the_word_in_question() {
        for (text, part) in [
            ("", "no subject"),
            ("9.0.0.1", "9.0.0.1:PORT"),
            ("example.org", "`example.org` is neither"),
            ("9.0.0.1:99999", "`9.0.0.1:99999` is neither"),
            ("2001:db8::1 9.0.0.1:1", "`9.0.0.1:1` is no IPv6"),
            ("::1 ::2 ::3", "`::3` is one word too many"),
        ] {
            let sentence = Subject::parse(text).unwrap_err().to_string();
            assert!(sentence.contains(part), "{sentence}");
        }
    }
}
