//! The types of values and their (de)serialisation. The sentences about wrong values are in
//! [`super::keys`]; the messages here are for programs that deserialise without a file.

use std::{
    collections::HashSet,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    str::FromStr,
};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, IntoDeserializer as _},
};
use teredo_common::maps::{INTERFACES_MAX, SERVED_MAX};

use super::log_filter;

/// Most octets of a unix socket's path, without the terminating zero.
const UNIX_PATH_MAX: usize = 107;
/// Most octets of an interface's name, without the terminating zero.
const INTERFACE_NAME_MAX: usize = 15;
/// Most octets of a client identifier.
const CLIENT_ID_MAX: usize = 255;
/// The prefix of a client identifier in hexadecimal.
const HEXADECIMAL: &str = "hex:";
/// Most characters of an instance's name.
const INSTANCE_NAME_MAX: usize = 64;

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
            Ok(address) if super::is_host_address(address) => Ok(Self::Address(address)),
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

/// Returns the ranges without any global unicast address.
pub fn never_served() -> [Ipv6Net; 6] {
    [
        // IPv4-compatible, with loopback and the unspecified address.
        (0, 96),
        // IPv4-mapped.
        (0xffff_0000_0000, 96),
        // Unique local.
        (0xfc << 120, 7),
        // Link-local.
        (0xfe80 << 112, 10),
        // Site-local.
        (0xfec0 << 112, 10),
        // Multicast.
        (0xff << 120, 8),
    ]
    .map(|(address, length): (u128, u8)| Ipv6Net::new_assert(address.into(), length))
}

/// Values with [`FromStr`] and [`fmt::Display`].
pub mod text {
    use super::{Deserialize as _, Deserializer, FromStr, fmt};
    use serde::{Serializer, de::Error as _};

    pub fn serialize<T: fmt::Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: fmt::Display>,
        D: Deserializer<'de>,
    {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// Values with [`FromStr`] and [`fmt::Display`]; none is written as "".
pub mod text_or_empty {
    use super::{Deserialize as _, Deserializer, FromStr, fmt};
    use serde::{Serializer, de::Error as _};

    pub fn serialize<T: fmt::Display, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_str(""),
        }
    }

    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: fmt::Display>,
        D: Deserializer<'de>,
    {
        match &*String::deserialize(deserializer)? {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(D::Error::custom),
        }
    }
}

/// `node.prefix`.
pub mod service_prefix {
    use super::{Deserialize as _, Deserializer, Ipv6Net};
    use serde::{Serializer, de::Error as _};
    use teredo_common::{address::ServicePrefix, scope::is_global_unicast};

    pub fn serialize<S: Serializer>(value: &ServicePrefix, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ServicePrefix, D::Error> {
        from_network(Ipv6Net::deserialize(from)?)
            .ok_or_else(|| D::Error::custom("not a prefix of 32 bits of global scope"))
    }

    /// Returns the service prefix that the network stands for.
    pub fn from_network(network: Ipv6Net) -> Option<ServicePrefix> {
        let octets = network.network().octets();
        let fits = network.prefix_len() == 32 && network.addr() == network.network();
        let [a, b, c, d, ..] = octets;
        (fits && is_global_unicast(&octets)).then_some(ServicePrefix([a, b, c, d]))
    }
}

/// `server.extra-prefixes`.
pub mod service_prefixes {
    use super::{Deserialize as _, Deserializer, HashSet, Ipv6Net, service_prefix::from_network};
    use serde::{Serializer, de::Error as _};
    use teredo_common::address::ServicePrefix;

    use crate::config::EXTRA_PREFIXES_MAX;

    pub fn serialize<S: Serializer>(value: &[ServicePrefix], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(value.iter().map(ToString::to_string))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ServicePrefix>, D::Error> {
        let networks = Vec::<Ipv6Net>::deserialize(from)?;
        let different: HashSet<_> = networks.iter().collect();
        let fits = networks.len() <= EXTRA_PREFIXES_MAX && different.len() == networks.len();
        let prefixes: Option<_> = networks
            .iter()
            .map(|network| from_network(*network))
            .collect();
        prefixes
            .filter(|_| fits)
            .ok_or_else(|| D::Error::custom("not a list of different prefixes"))
    }
}

/// `server.client.prefix`; none is written as "".
pub mod client_prefix {
    use super::{Deserializer, Ipv6Net, text_or_empty};
    use serde::{Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(value: &Option<Ipv6Net>, to: S) -> Result<S::Ok, S::Error> {
        text_or_empty::serialize(value, to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Ipv6Net>, D::Error> {
        let network: Option<Ipv6Net> = text_or_empty::deserialize(from)?;
        let is_fit =
            |network: &Ipv6Net| network.prefix_len() == 64 && network.addr() == network.network();
        match network {
            Some(network) if !is_fit(&network) => Err(D::Error::custom("not a /64")),
            network => Ok(network),
        }
    }
}

/// `relay.ipv4-scope`.
pub mod scope {
    use super::Deserializer;
    use serde::{Deserialize, Serialize, Serializer};
    use teredo_common::scope::Ipv4Scope;

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Name {
        Strict,
        Rfc4380,
        Lab,
    }

    pub fn serialize<S: Serializer>(value: &Ipv4Scope, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Ipv4Scope::Strict => Name::Strict,
            Ipv4Scope::Rfc4380 => Name::Rfc4380,
            Ipv4Scope::Lab => Name::Lab,
        }
        .serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Ipv4Scope, D::Error> {
        Ok(match Name::deserialize(from)? {
            Name::Strict => Ipv4Scope::Strict,
            Name::Rfc4380 => Ipv4Scope::Rfc4380,
            Name::Lab => Ipv4Scope::Lab,
        })
    }
}

/// `server.client.algorithm`.
pub mod algorithm {
    use super::Deserializer;
    use serde::{Deserialize, Serialize, Serializer};
    use teredo_proto::wire::authentication::Algorithm;

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Name {
        HmacMd5,
        HmacSha1,
    }

    pub fn serialize<S: Serializer>(value: &Algorithm, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Algorithm::HmacMd5 => Name::HmacMd5,
            Algorithm::HmacSha1 => Name::HmacSha1,
        }
        .serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Algorithm, D::Error> {
        Ok(match Name::deserialize(from)? {
            Name::HmacMd5 => Algorithm::HmacMd5,
            Name::HmacSha1 => Algorithm::HmacSha1,
        })
    }
}

/// One value with [`FromStr`] and [`fmt::Display`], or a list of such.
pub mod one_or_many {
    use super::{Deserializer, FromStr, fmt};
    use serde::{Deserialize, Serializer, de::Error as _};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }

    pub fn serialize<T: fmt::Display, S: Serializer>(
        values: &[T],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match values {
            [value] => to.collect_str(value),
            values => to.collect_seq(values.iter().map(ToString::to_string)),
        }
    }

    pub fn deserialize<'de, T, D>(from: D) -> Result<Vec<T>, D::Error>
    where
        T: FromStr<Err: fmt::Display>,
        D: Deserializer<'de>,
    {
        let texts = match OneOrMany::deserialize(from)? {
            OneOrMany::One(text) => vec![text],
            OneOrMany::Many(texts) => texts,
        };
        texts
            .iter()
            .map(|text| text.parse().map_err(D::Error::custom))
            .collect()
    }
}

/// `client.server`: one or a list.
pub mod servers {
    use super::{Deserializer, HashSet, one_or_many};
    use serde::de::Error as _;

    use crate::config::{SERVERS_MAX, ServerName};

    pub use one_or_many::serialize;

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ServerName>, D::Error> {
        let servers: Vec<ServerName> = one_or_many::deserialize(from)?;
        let different: HashSet<_> = servers.iter().collect();
        let fits = (1..=SERVERS_MAX).contains(&servers.len()) && different.len() == servers.len();
        fits.then_some(servers)
            .ok_or_else(|| D::Error::custom("not a list of different servers"))
    }
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
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Word(String),
            Seconds(u64),
        }
        match Form::deserialize(from)? {
            Form::Word(word) if word == "auto" => Ok(Self::Auto),
            Form::Seconds(seconds) => {
                number(seconds.into_deserializer(), &super::REFRESH).map(Self::Seconds)
            }
            Form::Word(_) => Err(D::Error::custom("neither \"auto\" nor seconds")),
        }
    }
}

/// An absolute path; none is written as "".
pub mod path_or_empty {
    use super::{Deserialize as _, Deserializer, Path, PathBuf, Serialize as _, is_absolute};
    use serde::{Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(value: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
        value.as_deref().unwrap_or(Path::new("")).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
        let path = PathBuf::deserialize(from)?;
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        is_absolute(&path)
            .then_some(Some(path))
            .ok_or_else(|| D::Error::custom("not an absolute path"))
    }
}

pub fn instance_name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let is_fit = |name: &str| {
        name.len() <= INSTANCE_NAME_MAX
            && name.starts_with(|first: char| first.is_ascii_alphanumeric())
            && name.chars().all(is_name_character)
    };
    string(from, is_fit, "not an instance's name")
}

pub fn interface_name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    string(from, is_interface_name, "not an interface's name")
}

pub fn user_name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let is_fit = |name: &str| !name.contains([':', '\0', '\n', '/']);
    string(from, is_fit, "not a user's name")
}

pub fn log_filter<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let filter = String::deserialize(from)?;
    log_filter::check(&filter).map_err(D::Error::custom)?;
    Ok(filter)
}

pub fn interfaces<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(from)?;
    let different: HashSet<_> = names.iter().collect();
    let fits = names.len() <= INTERFACES_MAX as usize
        && different.len() == names.len()
        && names.iter().all(|name| is_interface_name(name));
    fits.then_some(names)
        .ok_or_else(|| D::Error::custom("not a list of different interfaces"))
}

pub fn serve<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Ipv6Net>, D::Error> {
    let networks = Vec::<Ipv6Net>::deserialize(from)?;
    let fits = (1..=SERVED_MAX as usize).contains(&networks.len())
        && networks
            .iter()
            .all(|network| network.addr() == network.network());
    fits.then_some(networks)
        .ok_or_else(|| D::Error::custom("not a list of networks without host bits"))
}

pub fn server_addresses<'de, D: Deserializer<'de>>(from: D) -> Result<[Ipv4Addr; 2], D::Error> {
    // Deserialised as an array, a longer list would be accepted.
    match *Vec::<Ipv4Addr>::deserialize(from)? {
        [primary, secondary]
            if primary != secondary
                && super::is_host_address(primary)
                && super::is_host_address(secondary) =>
        {
            Ok([primary, secondary])
        }
        _ => Err(D::Error::custom("not two different unicast addresses")),
    }
}

pub fn allow<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Ipv4Net>, D::Error> {
    let networks = Vec::<Ipv4Net>::deserialize(from)?;
    let fits = networks.len() <= super::ALLOW_MAX
        && networks
            .iter()
            .all(|network| network.addr() == network.network());
    fits.then_some(networks)
        .ok_or_else(|| D::Error::custom("not a list of networks without host bits"))
}

pub fn absolute_path<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(from)?;
    is_absolute(&path)
        .then_some(path)
        .ok_or_else(|| D::Error::custom("not an absolute path"))
}

pub fn retired_secret_files<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PathBuf>, D::Error> {
    let paths = Vec::<PathBuf>::deserialize(from)?;
    let fits =
        paths.len() <= super::RETIRED_SECRETS_MAX && paths.iter().all(|path| is_absolute(path));
    fits.then_some(paths)
        .ok_or_else(|| D::Error::custom("not a list of absolute paths"))
}

pub fn members<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<SocketAddr>, D::Error> {
    let members = Vec::<SocketAddr>::deserialize(from)?;
    let is_address = |member: &SocketAddr| member.port() != 0 && !member.ip().is_unspecified();
    let different: HashSet<_> = members.iter().collect();
    let fits = members.len() <= super::MEMBERS_MAX
        && different.len() == members.len()
        && members.iter().all(is_address);
    fits.then_some(members)
        .ok_or_else(|| D::Error::custom("not a list of different addresses with ports"))
}

pub fn advertised_mtu<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    match u64::deserialize(from)? {
        0 => Ok(0),
        octets => number(octets.into_deserializer(), &super::MTU),
    }
}

pub fn icmpv6_payload<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    number(from, &super::ICMPV6_PAYLOAD)
}

pub fn rate<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    number(from, &super::RATE)
}

pub fn xdp_rate<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    number(from, &super::XDP_RATE)
}

pub fn ipfix_interval<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    number(from, &super::INTERVAL)
}

pub fn burst<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    number(from, &super::BURST)
}

pub fn port<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    number(from, &(1..=u64::from(u16::MAX)))
}

pub fn any_port<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    number(from, &(0..=u64::from(u16::MAX)))
}

pub fn mtu<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    number(from, &super::MTU)
}

pub fn max_peers<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    number(from, &super::MAX_PEERS)
}

pub fn client_max_peers<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    number(from, &super::CLIENT_MAX_PEERS)
}

pub fn grace<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    number(from, &super::GRACE)
}

pub fn queue_per_peer<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    number(from, &super::QUEUE_PER_PEER)
}

pub fn queue_total_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    number(from, &super::QUEUE_TOTAL_BYTES)
}

fn number<'de, D, T>(from: D, permitted: &RangeInclusive<u64>) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    let number = u64::deserialize(from)?;
    permitted
        .contains(&number)
        .then(|| T::try_from(number).ok())
        .flatten()
        .ok_or_else(|| {
            let (low, high) = (permitted.start(), permitted.end());
            D::Error::custom(format_args!("{number} is not in {low} to {high}"))
        })
}

fn string<'de, D: Deserializer<'de>>(
    from: D,
    is_fit: impl Fn(&str) -> bool,
    message: &str,
) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    if is_fit(&text) {
        Ok(text)
    } else {
        Err(D::Error::custom(message))
    }
}

fn is_absolute(path: &Path) -> bool {
    path.is_absolute() && !path.as_os_str().as_encoded_bytes().contains(&0)
}

fn is_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_')
}

fn is_interface_name(name: &str) -> bool {
    (1..=INTERFACE_NAME_MAX).contains(&name.len())
        && !matches!(name, "." | "..")
        && name.chars().all(is_name_character)
}
