//! Types of values.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, IntoDeserializer as _},
};

use super::permitted::number;
use crate::config::{self, REFRESH, THREADS};

/// Most octets of a unix socket's path, without the terminating zero.
const UNIX_PATH_MAX: usize = 107;
/// Most octets of a client identifier.
const CLIENT_ID_MAX: usize = 255;
/// The prefix of a client identifier in hexadecimal.
const HEXADECIMAL: &str = "hex:";

/// An IPv4 address that may be determined automatically.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv4Choice {
    /// The address is derived, for example from the IPv4 default route.
    Auto,
    /// The address is configured.
    Address(Ipv4Addr),
}

impl FromStr for Ipv4Choice {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        match text.parse() {
            Ok(address) if config::is_host_address(address) => Ok(Self::Address(address)),
            _ => Err("neither \"auto\" nor a unicast IPv4 address"),
        }
    }
}

impl fmt::Display for Ipv4Choice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Address(address) => address.fmt(formatter),
        }
    }
}

/// The interval between maintenance solicitations of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshInterval {
    /// The interval is measured.
    Auto,
    /// The interval in seconds.
    Seconds(u16),
}

/// The number of threads that carry packets without the fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// As many as are of use.
    Auto,
    /// This many, at least one.
    Number(u8),
}

/// A client identifier: 1 to 255 octets.
///
/// It is written as text or, if it is not printable, as "hex:" and hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ClientId(Vec<u8>);

impl ClientId {
    /// Returns the octets.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for ClientId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let octets = match text.strip_prefix(HEXADECIMAL) {
            Some(digits) => from_hexadecimal(digits),
            None => Some(text.as_bytes().to_vec()),
        };
        octets
            .filter(|octets| (1..=CLIENT_ID_MAX).contains(&octets.len()))
            .map(Self)
            .ok_or("not 1 to 255 octets")
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match str::from_utf8(&self.0) {
            Ok(text) if !text.starts_with(HEXADECIMAL) && !text.contains(char::is_control) => {
                formatter.write_str(text)
            }
            _ => {
                formatter.write_str(HEXADECIMAL)?;
                self.0
                    .iter()
                    .try_for_each(|octet| write!(formatter, "{octet:02x}"))
            }
        }
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{self}\"")
    }
}

/// Decodes pairs of hexadecimal digits.
pub fn from_hexadecimal(digits: &str) -> Option<Vec<u8>> {
    let nibble = |digit: u8| char::from(digit).to_digit(16);
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| match *pair {
            [high, low] => Some((nibble(high)? << 4 | nibble(low)?) as u8),
            _ => None,
        })
        .collect()
}

/// An address of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiAddress {
    /// A unix socket with this absolute path.
    Unix(PathBuf),
    /// A TCP socket.
    Tcp(SocketAddr),
}

impl ApiAddress {
    /// Returns whether only processes of this host can connect to the address.
    #[must_use]
    pub fn is_of_this_host(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
        }
    }
}

impl FromStr for ApiAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.starts_with('/') && path.len() <= UNIX_PATH_MAX && !path.contains('\0') {
                return Ok(Self::Unix(path.into()));
            }
        } else if let Some(Ok(address)) = text.strip_prefix("tcp:").map(SocketAddr::from_str)
            && address.port() != 0
        {
            return Ok(Self::Tcp(address));
        }
        Err("neither unix: and an absolute path nor tcp: and an address with a port")
    }
}

impl fmt::Display for ApiAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
            Self::Tcp(address) => write!(formatter, "tcp:{address}"),
        }
    }
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// A line of text for each entry.
    Text,
    /// A JSON object on a line for each entry.
    Json,
}

/// The UDP checksum of datagrams that the fast path sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OuterChecksum {
    /// Computed if that takes constant time, else zero.
    Auto,
    /// Always zero, which means none.
    Zero,
}

/// `client.refresh`.
impl Serialize for RefreshInterval {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => to.serialize_str("auto"),
            Self::Seconds(seconds) => to.serialize_u16(*seconds),
        }
    }
}

impl<'de> Deserialize<'de> for RefreshInterval {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let seconds = auto_or_number(from, &REFRESH)?;
        Ok(seconds.map_or(Self::Auto, Self::Seconds))
    }
}

/// `relay.threads`.
impl Serialize for Threads {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => to.serialize_str("auto"),
            Self::Number(number) => to.serialize_u8(*number),
        }
    }
}

impl<'de> Deserialize<'de> for Threads {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let number = auto_or_number(from, &THREADS)?;
        Ok(number.map_or(Self::Auto, Self::Number))
    }
}

/// Reads a number that is permitted, or the word "auto".
fn auto_or_number<'de, D, T>(
    from: D,
    permitted: &RangeInclusive<u64>,
) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Word(String),
        Number(u64),
    }
    match Form::deserialize(from)? {
        Form::Word(word) if word == "auto" => Ok(None),
        Form::Number(value) => number(value.into_deserializer(), permitted).map(Some),
        Form::Word(_) => Err(D::Error::custom("neither \"auto\" nor a number")),
    }
}
