//! What is permitted where a type permits more.

use std::collections::HashSet;
use std::{
    net::Ipv4Addr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IntoDeserializer as _},
};
use teredo_common::maps::{INTERFACES_MAX, SERVED_MAX};

use crate::config::{self, log_filter as filter};

/// Most octets of an interface's name, without the terminating zero.
const INTERFACE_NAME_MAX: usize = 15;
/// Most characters of an instance's name.
const INSTANCE_NAME_MAX: usize = 64;

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
    filter::check(&filter).map_err(D::Error::custom)?;
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
                && config::is_host_address(primary)
                && config::is_host_address(secondary) =>
        {
            Ok([primary, secondary])
        }
        _ => Err(D::Error::custom("not two different unicast addresses")),
    }
}

pub fn allow<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Ipv4Net>, D::Error> {
    let networks = Vec::<Ipv4Net>::deserialize(from)?;
    let fits = networks.len() <= config::ALLOW_MAX
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
        paths.len() <= config::RETIRED_SECRETS_MAX && paths.iter().all(|path| is_absolute(path));
    fits.then_some(paths)
        .ok_or_else(|| D::Error::custom("not a list of absolute paths"))
}

pub fn advertised_mtu<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    match u64::deserialize(from)? {
        0 => Ok(0),
        octets => number(octets.into_deserializer(), &config::MTU),
    }
}

pub fn icmpv6_payload<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    number(from, &config::ICMPV6_PAYLOAD)
}

pub fn rate<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    number(from, &config::RATE)
}

pub fn xdp_rate<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    number(from, &config::XDP_RATE)
}

pub fn ipfix_interval<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    number(from, &config::INTERVAL)
}

pub fn burst<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    number(from, &config::BURST)
}

pub fn port<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    number(from, &(1..=u64::from(u16::MAX)))
}

pub fn any_port<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    number(from, &(0..=u64::from(u16::MAX)))
}

pub fn mtu<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    number(from, &config::MTU)
}

pub fn max_peers<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    number(from, &config::MAX_PEERS)
}

pub fn client_max_peers<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    number(from, &config::CLIENT_MAX_PEERS)
}

pub fn grace<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    number(from, &config::GRACE)
}

pub fn queue_per_peer<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    number(from, &config::QUEUE_PER_PEER)
}

pub fn queue_total_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    number(from, &config::QUEUE_TOTAL_BYTES)
}

pub(super) fn number<'de, D, T>(from: D, permitted: &RangeInclusive<u64>) -> Result<T, D::Error>
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

pub(super) fn is_absolute(path: &Path) -> bool {
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
