//! How many bits of an IPv6 destination decide about its route.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::{IpNet, Ipv6Net};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use teredo_common::generations::{IPV6_BITS, SHARED_BITS_MAX};

use super::hops::{self, Hops};

/// All bits of a destination.
const ALL: u8 = 128;

/// How many bits of an IPv6 destination decide about its route, for each bucket of
/// [`teredo_common::generations`].
///
/// Beyond them no route in any table distinguishes two destinations, except that one of them may be a
/// neighbour on the link, or an address of this host next to such neighbours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Depths {
    /// What holds for all buckets.
    least: u8,
    /// The buckets for which it is more.
    buckets: BTreeMap<u16, u8>,
    /// Prefixes of neighbours on the link.
    on_link: BTreeSet<Ipv6Net>,
    /// Addresses of this host and the like.
    own: BTreeSet<Ipv6Net>,
}

impl Depths {
    /// Adds a route.
    pub fn add(&mut self, message: &RouteMessage) {
        let Some((prefix, gateways)) = hops::destination(message) else {
            return;
        };
        let IpNet::V6(prefix) = prefix else {
            return;
        };
        let is_own = !matches!(
            message.header.kind,
            RouteType::Unicast
                | RouteType::Unreachable
                | RouteType::BlackHole
                | RouteType::Prohibit
                | RouteType::Throw
        );
        if has_many_hops(message) {
            // The kernel distributes the destinations over the gateways.
            self.raise(prefix, ALL);
        } else if is_own && prefix.prefix_len() > SHARED_BITS_MAX {
            self.own.insert(prefix);
        } else {
            let is_on_link = gateways.is_empty() && message.header.kind == RouteType::Unicast;
            if is_on_link && prefix.prefix_len() <= SHARED_BITS_MAX {
                self.on_link.insert(prefix);
            }
            self.add_prefix(prefix);
        }
    }

    /// Adds a route with one next hop.
    pub fn add_prefix(&mut self, prefix: Ipv6Net) {
        self.raise(prefix, prefix.prefix_len());
    }

    /// Adds the routes of others, and returns whether that makes a difference.
    pub fn extend(&mut self, others: &Self) -> bool {
        let mut differs = others.least > self.least;
        self.least = self.least.max(others.least);
        for (&bucket, &depth) in &others.buckets {
            differs |= self.raise_bucket(bucket, depth);
        }
        for prefix in &others.on_link {
            differs |= self.on_link.insert(*prefix);
        }
        for prefix in &others.own {
            differs |= self.own.insert(*prefix);
        }
        differs
    }

    /// Returns whether there are no routes that distinguish destinations of one bucket.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the bits for the map of generations: those that all destinations share, and those of the
    /// buckets in which it is more.
    pub fn shared_bits(&self) -> (u8, impl Iterator<Item = (u16, u8)>) {
        let mut whole = self.clone();
        for own in &self.own {
            // Neighbours on the link never share a next hop.
            if !self.on_link.iter().any(|prefix| prefix.contains(own)) {
                whole.raise(*own, ALL);
            }
        }
        let least = whole.least.max(IPV6_BITS);
        let buckets = whole.buckets.into_iter();
        let buckets = buckets.map(move |(bucket, depth)| (bucket, bits(depth.max(least))));
        (bits(least), buckets)
    }

    /// Raises the bits of a prefix to at least `depth`.
    fn raise(&mut self, prefix: Ipv6Net, depth: u8) {
        if depth <= IPV6_BITS {
            return;
        }
        let mut hops = Hops::default();
        hops.add(prefix.into());
        match hops {
            Hops::All => self.least = self.least.max(depth),
            Hops::Buckets(buckets) => {
                for bucket in buckets {
                    self.raise_bucket(bucket, depth);
                }
            }
        }
    }

    fn raise_bucket(&mut self, bucket: u16, depth: u8) -> bool {
        let known = self.buckets.entry(bucket).or_default();
        let differs = depth > *known;
        *known = depth.max(*known);
        differs
    }
}

/// Returns a depth as the map has it.
const fn bits(depth: u8) -> u8 {
    match depth {
        0..=SHARED_BITS_MAX => depth,
        _ => 0,
    }
}

/// Returns whether a route may have more than one next hop.
fn has_many_hops(message: &RouteMessage) -> bool {
    let mut attributes = message.attributes.iter();
    attributes.any(|attribute| {
        matches!(
            attribute,
            RouteAttribute::MultiPath(_) | RouteAttribute::NhId(_)
        )
    })
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::{
        AddressFamily,
        route::{RouteAddress, RouteNextHop},
    };

    use teredo_common::generations::ipv6_bucket;

    use super::*;

    fn message(prefix: &str, kind: RouteType, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let prefix: Ipv6Net = prefix.parse().unwrap();
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet6;
        message.header.destination_prefix_length = prefix.prefix_len();
        message.header.kind = kind;
        message.attributes = attributes;
        let address = RouteAddress::Inet6(prefix.network());
        message
            .attributes
            .push(RouteAttribute::Destination(address));
        message
    }

    fn gateway() -> Vec<RouteAttribute> {
        let address = RouteAddress::Inet6("fe80::1".parse().unwrap());
        vec![RouteAttribute::Gateway(address)]
    }

    /// Returns the shared bits of an address.
    fn of(routes: &[RouteMessage], address: &str) -> u8 {
        let mut depths = Depths::default();
        for route in routes {
            depths.add(route);
        }
        let address: std::net::Ipv6Addr = address.parse().unwrap();
        let bucket = ipv6_bucket(((address.to_bits() >> 96) as u32).to_be());
        let (least, mut buckets) = depths.shared_bits();
        let found = buckets.find(|(number, _)| *number == bucket);
        found.map_or(least, |(_, bits)| bits)
    }

    #[test]
    fn the_longest_route_near_a_destination_decides() {
        let routes = [
            message("::/0", RouteType::Unicast, gateway()),
            message("2400::/12", RouteType::Unicast, gateway()),
            message("2400:1::/48", RouteType::Unicast, gateway()),
            message("2400:1:5::/40", RouteType::Unreachable, vec![]),
            message("2400:2::/64", RouteType::Unicast, gateway()),
            message("2400:3::1/128", RouteType::Unicast, gateway()),
        ];
        for (address, bits) in [
            ("2a00::1", 32),
            ("2400:9::1", 32),
            ("2400:1:7::1", 48),
            ("2400:2:8::1", 64),
            ("2400:3:8::1", 0),
        ] {
            assert_eq!(of(&routes, address), bits, "{address}");
        }
    }

    #[test]
    fn own_addresses_matter_unless_they_are_on_a_link() {
        let link = message("2001:db8:6::/64", RouteType::Unicast, vec![]);
        let own = message("2001:db8:6::1/128", RouteType::Local, vec![]);
        let anycast = message("2001:db8:6::/128", RouteType::Anycast, vec![]);
        let elsewhere = message("2001:db8:7::1/128", RouteType::Local, vec![]);
        let near = "2001:db8:9::1";
        for order in [
            [link.clone(), own.clone(), anycast.clone()],
            [anycast, own.clone(), link.clone()],
        ] {
            assert_eq!(of(&order, near), 64);
        }
        assert_eq!(of(&[link, own, elsewhere], near), 0);
    }

    #[test]
    fn hosts_that_are_distributed_over_gateways_share_nothing() {
        let many = || vec![RouteAttribute::MultiPath(vec![RouteNextHop::default()])];
        for routes in [
            [message("::/0", RouteType::Unicast, many())],
            [message("2400::/28", RouteType::Unicast, many())],
            [message("2400:1::/48", RouteType::Unicast, many())],
            [message(
                "2400:1::/32",
                RouteType::Unicast,
                vec![RouteAttribute::NhId(7)],
            )],
        ] {
            assert_eq!(of(&routes, "2400:1::1"), 0);
        }
        let near = [message("2400:1::/48", RouteType::Unicast, many())];
        assert_eq!(of(&near, "2500:1::1"), 32);
    }

    #[test]
    fn what_was_reported_since_is_added() {
        let depths = |prefix| {
            let mut depths = Depths::default();
            depths.add(&message(prefix, RouteType::Unicast, gateway()));
            depths
        };
        let mut known = depths("2400:1::/48");
        assert!(depths("2400::/32").is_empty());
        assert!(known.extend(&depths("2400:1::/56")));
        assert!(!known.extend(&depths("2400:1:7::/56")));
        let (_, buckets) = known.shared_bits();
        assert_eq!(buckets.map(|(_, bits)| bits).collect::<Vec<_>>(), [56]);
    }
}
