//! The cached next hops that a change of the kernel's tables concerns.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;
use rtnetlink::packet_route::{
    AddressFamily,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteVia},
};
use teredo_common::generations::Family;

/// The most bits by which a prefix may be shorter than those of one bucket.
const SHORTER: u8 = 8;
/// The most buckets that are noted one by one.
const BUCKETS_MAX: usize = 8192;

/// Destinations whose cached next hops may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hops {
    /// All.
    All,
    /// Those in these buckets of [`teredo_common::generations`], by family.
    Buckets(BTreeMap<Family, BTreeSet<u32>>),
}

impl Default for Hops {
    fn default() -> Self {
        Self::Buckets(BTreeMap::new())
    }
}

impl Hops {
    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Buckets(buckets) if buckets.is_empty())
    }

    /// Adds the destinations of a prefix.
    pub fn add(&mut self, prefix: IpNet) {
        let (family, first) = start(&prefix);
        let bits = family.bucket_bits();
        let shorter = bits.saturating_sub(prefix.prefix_len());
        if shorter > SHORTER {
            *self = Self::All;
        }
        let Self::Buckets(families) = self else {
            return;
        };
        let numbers = (0..1_u32 << shorter).map(|number| first + (number << (32 - bits)));
        let buckets = families.entry(family).or_default();
        buckets.extend(numbers.map(|first| family.bucket(first.to_be())));
        if buckets.len() > BUCKETS_MAX {
            *self = Self::All;
        }
    }
}

/// Returns the family of a prefix, and the first 32 bits of its addresses.
pub fn start(prefix: &IpNet) -> (Family, u32) {
    match prefix.network() {
        IpAddr::V4(network) => (Family::Ipv4, network.to_bits()),
        IpAddr::V6(network) => (Family::Ipv6, (network.to_bits() >> 96) as u32),
    }
}

/// Returns the destinations of a route, and the addresses of its gateways. `None` if they are not in the
/// message.
pub fn route(message: &RouteMessage) -> Option<(IpNet, Vec<IpAddr>)> {
    let mut attributes = message.attributes.iter();
    let is_elsewhere = attributes.any(|attribute| matches!(attribute, RouteAttribute::NhId(_)));
    let (prefix, gateways) = destination(message)?;
    // The kernel may leave out what the object of a next hop contains.
    (!is_elsewhere || !gateways.is_empty()).then_some((prefix, gateways))
}

/// Returns the destinations of a route, and the addresses of its gateways as far as they are in the message.
pub fn destination(message: &RouteMessage) -> Option<(IpNet, Vec<IpAddr>)> {
    let unspecified = match message.header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        AddressFamily::Inet6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    let (mut destination, mut gateways) = (unspecified, Vec::new());
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(found) => destination = address(found)?,
            attribute => gateways.extend(gateways_in(attribute)),
        }
    }
    let prefix = IpNet::new(destination, message.header.destination_prefix_length).ok()?;
    Some((prefix, gateways))
}

fn gateways_in(attribute: &RouteAttribute) -> Vec<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(found) => address(found).into_iter().collect(),
        RouteAttribute::Via(RouteVia::Inet(found)) => vec![(*found).into()],
        RouteAttribute::Via(RouteVia::Inet6(found)) => vec![(*found).into()],
        RouteAttribute::MultiPath(hops) => {
            let attributes = hops.iter().flat_map(|hop| &hop.attributes);
            attributes.flat_map(gateways_in).collect()
        }
        _ => Vec::new(),
    }
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// The addresses of all gateways of routes. A change of such a neighbour concerns all destinations, that of
/// another only its own address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gateways {
    addresses: HashSet<IpAddr>,
    /// Whether some gateways are not known.
    is_incomplete: bool,
}

impl Gateways {
    /// Adds those of a route.
    pub fn add(&mut self, message: &RouteMessage) {
        match route(message) {
            Some((_, gateways)) => self.addresses.extend(gateways),
            None => self.is_incomplete = true,
        }
    }

    /// Returns whether the neighbour with this address may be a gateway.
    pub fn may_be(&self, address: &IpAddr) -> bool {
        self.is_incomplete || self.addresses.contains(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn hops(prefixes: &[&str]) -> Hops {
        let mut hops = Hops::default();
        for prefix in prefixes {
            hops.add(net(prefix));
        }
        hops
    }

    fn concerns(hops: &Hops, address: &str) -> bool {
        let address: IpAddr = address.parse().unwrap();
        let (family, first) = start(&address.into());
        let bucket = family.bucket(first.to_be());
        match hops {
            Hops::All => true,
            Hops::Buckets(families) => {
                let buckets = families.get(&family);
                buckets.is_some_and(|buckets| buckets.contains(&bucket))
            }
        }
    }

    #[test]
    fn a_route_concerns_its_destinations() {
        for (prefix, address) in [
            ("9.8.7.0/24", "9.8.7.6"),
            ("9.8.0.0/13", "9.15.255.255"),
            ("9.0.0.0/8", "9.255.0.1"),
            ("8.0.0.0/7", "9.255.0.1"),
            ("0.0.0.0/0", "9.8.7.6"),
            ("9.8.7.6/32", "9.8.7.6"),
            ("2001:db8::/64", "2001:db8::1"),
            ("2a00::/27", "2a00:1f:ffff::1"),
            ("2a00::/24", "2a00:ff::1"),
            ("2a00::/16", "2a00:ffff::1"),
            ("::/0", "2001:db8::1"),
        ] {
            assert!(concerns(&hops(&[prefix]), address), "{prefix}");
        }
    }

    #[test]
    fn a_route_elsewhere_concerns_nothing_else() {
        let many = hops(&["9.8.7.0/24", "10.0.0.0/16", "2001:db8::/48", "2a00:1::/32"]);
        for address in ["9.9.0.1", "11.0.0.1", "2001:db9::1", "2400::1"] {
            assert!(!concerns(&many, address), "{address}");
        }
        assert!(hops(&[]).is_empty());
    }

    #[test]
    fn too_many_are_all() {
        let mut hops = Hops::default();
        for number in 0..=BUCKETS_MAX as u32 {
            let octets = (number << 16).to_be_bytes();
            hops.add(IpNet::new(octets.into(), 16).unwrap());
        }
        assert_eq!(hops, Hops::All);
    }
}
