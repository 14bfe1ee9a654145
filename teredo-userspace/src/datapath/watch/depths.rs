//! How many bits of an IPv6 destination determine its route.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::{IpNet, Ipv6Net};
use rtnetlink::packet_route::{
    route::{RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteType},
    rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage},
};
use teredo_common::generations::{IPV6_BITS, SHARED_BITS_MAX, ipv6_bucket};

use super::hops::{self, Hops};

/// All bits of a destination.
const ALL: u8 = 128;
/// The most prefixes behind gateways that are noted one by one, to compare them with those on the link.
const GATEWAYED_MAX: usize = 4096;

/// How many bits of an IPv6 destination determine its route, for each bucket of
/// [`teredo_common::generations`].
///
/// Beyond them no route in any table distinguishes two destinations, except that one of them may be a
/// neighbour on the link, or an address of this host next to such neighbours. What is not understood makes
/// all bits matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Depths {
    /// What holds for all buckets.
    least: u8,
    /// The buckets for which it is more.
    buckets: BTreeMap<u16, u8>,
    /// Prefixes of neighbours on the link, in the main table.
    on_link: BTreeSet<Ipv6Net>,
    /// Prefixes behind gateways that may be on the link, too.
    gatewayed: Gatewayed,
    /// Addresses of this host and the like.
    own: BTreeSet<Ipv6Net>,
}

/// Prefixes behind gateways, or too many of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Gatewayed {
    prefixes: BTreeSet<Ipv6Net>,
    are_too_many: bool,
}

impl Gatewayed {
    fn insert(&mut self, prefix: Ipv6Net) -> bool {
        if self.are_too_many || !self.prefixes.insert(prefix) {
            return false;
        }
        self.are_too_many = self.prefixes.len() > GATEWAYED_MAX;
        if self.are_too_many {
            self.prefixes.clear();
        }
        true
    }

    fn may_contain(&self, prefix: &Ipv6Net) -> bool {
        self.are_too_many || self.prefixes.contains(prefix)
    }
}

impl Depths {
    /// Returns those of a host whose routes are not known: all bits matter.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            least: ALL,
            ..Self::default()
        }
    }

    /// Adds a route, and returns whether that makes a difference.
    pub fn add(&mut self, message: &RouteMessage) -> bool {
        let header = &message.header;
        // One host's exception from a route, such as its path MTU.
        if header.flags.contains(RouteFlags::Cloned) {
            return false;
        }
        let (prefix, gateways) = match hops::destination(message) {
            Some((IpNet::V6(prefix), gateways)) => (prefix, gateways),
            Some((IpNet::V4(_), _)) => return false,
            None => return self.raise_least(ALL),
        };
        let length = prefix.prefix_len();
        let is_own = !matches!(
            header.kind,
            RouteType::Unicast
                | RouteType::Unreachable
                | RouteType::BlackHole
                | RouteType::Prohibit
                | RouteType::Throw
        );
        // The kernel distributes the destinations over several gateways; and a route for some sources is none
        // for others.
        if has_many_hops(message, !gateways.is_empty()) || header.source_prefix_length > 0 {
            return self.raise(prefix, ALL);
        }
        if is_own && length > SHARED_BITS_MAX {
            return self.own.insert(prefix);
        }
        let mut differs = self.add_prefix(prefix);
        if header.kind == RouteType::Unicast && (IPV6_BITS..=SHARED_BITS_MAX).contains(&length) {
            if !gateways.is_empty() {
                differs |= self.gatewayed.insert(prefix);
            } else if is_in_main_table(message) {
                differs |= self.on_link.insert(prefix);
            }
        }
        differs
    }

    /// Adds a route with one next hop, and returns whether that makes a difference.
    pub fn add_prefix(&mut self, prefix: Ipv6Net) -> bool {
        self.raise(prefix, prefix.prefix_len())
    }

    /// Adds a rule of the host's policy. Destinations that agree in all routes may differ by a rule, unless it
    /// is for all packets.
    pub fn add_rule(&mut self, rule: &RuleMessage) {
        if !is_for_all(rule) {
            self.raise_least(ALL);
        }
    }

    /// Adds the routes of others.
    pub fn extend(&mut self, others: &Self) {
        self.raise_least(others.least);
        for (&bucket, &depth) in &others.buckets {
            self.raise_bucket(bucket, depth);
        }
        self.on_link.extend(&others.on_link);
        self.own.extend(&others.own);
        for prefix in &others.gatewayed.prefixes {
            self.gatewayed.insert(*prefix);
        }
        if others.gatewayed.are_too_many {
            self.gatewayed = others.gatewayed.clone();
        }
    }

    /// Returns the bits for the map of generations: those that all destinations share, and those of the
    /// buckets in which it is more.
    pub fn shared_bits(&self) -> (u8, impl Iterator<Item = (u16, u8)>) {
        let least = self.least.max(IPV6_BITS);
        let depth = |bucket| self.buckets.get(&bucket).copied().unwrap_or(0).max(least);
        let mut buckets: BTreeMap<_, _> =
            self.buckets.keys().map(|&key| (key, depth(key))).collect();
        for own in &self.own {
            let bucket = bucket(own);
            if !self.is_among_neighbours(own, depth(bucket)) {
                buckets.insert(bucket, ALL);
            }
        }
        let buckets = buckets.into_iter();
        (
            bits(least),
            buckets.map(|(bucket, depth)| (bucket, bits(depth))),
        )
    }

    /// Whether all destinations that agree with an own address in this number of bits are on the link:
    /// neighbours never share a next hop.
    fn is_among_neighbours(&self, own: &Ipv6Net, depth: u8) -> bool {
        let link = Ipv6Net::new(own.network(), depth).map(|link| link.trunc());
        link.is_ok_and(|link| self.on_link.contains(&link) && !self.gatewayed.may_contain(&link))
    }

    /// Raises the bits of a prefix to at least `depth`.
    fn raise(&mut self, prefix: Ipv6Net, depth: u8) -> bool {
        if depth <= IPV6_BITS {
            return false;
        }
        if prefix.prefix_len() >= IPV6_BITS {
            return self.raise_bucket(bucket(&prefix), depth);
        }
        let mut hops = Hops::default();
        hops.add(prefix.into());
        match hops {
            Hops::All => self.raise_least(depth),
            Hops::Buckets(buckets) => {
                let raised = buckets
                    .into_iter()
                    .map(|bucket| self.raise_bucket(bucket, depth));
                raised.fold(false, |all, differs| all | differs)
            }
        }
    }

    fn raise_bucket(&mut self, bucket: u16, depth: u8) -> bool {
        let known = self.buckets.entry(bucket).or_default();
        let differs = depth > *known;
        *known = depth.max(*known);
        differs
    }

    fn raise_least(&mut self, depth: u8) -> bool {
        let differs = depth > self.least;
        self.least = depth.max(self.least);
        differs
    }
}

/// Returns the bucket of a prefix of at least [`IPV6_BITS`].
fn bucket(prefix: &Ipv6Net) -> u16 {
    let first = (prefix.network().to_bits() >> 96) as u32;
    ipv6_bucket(first.to_be())
}

/// Returns a depth as the map has it.
const fn bits(depth: u8) -> u8 {
    match depth {
        0..=SHARED_BITS_MAX => depth,
        _ => 0,
    }
}

/// Returns whether a route may have more than one next hop.
fn has_many_hops(message: &RouteMessage, has_gateway: bool) -> bool {
    let mut attributes = message.attributes.iter();
    attributes.any(|attribute| match attribute {
        RouteAttribute::MultiPath(_) => true,
        // The kernel adds the gateway of a single one.
        RouteAttribute::NhId(_) => !has_gateway,
        _ => false,
    })
}

fn is_in_main_table(message: &RouteMessage) -> bool {
    let main = RouteHeader::RT_TABLE_MAIN;
    let mut attributes = message.attributes.iter();
    let table = attributes.find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    table.unwrap_or(message.header.table.into()) == u32::from(main)
}

/// Returns whether a rule is for all packets.
fn is_for_all(rule: &RuleMessage) -> bool {
    let header = &rule.header;
    let selects = header.dst_len > 0
        || header.src_len > 0
        || header.tos > 0
        || header.action != RuleAction::ToTable
        || header.flags.contains(RuleFlags::Invert);
    !selects
        && rule.attributes.iter().all(|attribute| {
            matches!(
                attribute,
                RuleAttribute::Priority(_)
                    | RuleAttribute::Table(_)
                    | RuleAttribute::Protocol(_)
                    | RuleAttribute::L3MDev(_)
                    // Nothing is suppressed.
                    | RuleAttribute::SuppressPrefixLen(u32::MAX)
                    | RuleAttribute::SuppressIfGroup(u32::MAX)
            )
        })
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::{
        AddressFamily,
        route::{RouteAddress, RouteNextHop},
    };

    use super::*;

    fn message(prefix: &str, kind: RouteType, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let prefix: Ipv6Net = prefix.parse().unwrap();
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet6;
        message.header.destination_prefix_length = prefix.prefix_len();
        message.header.kind = kind;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
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

    fn through_gateway(prefix: &str) -> RouteMessage {
        message(prefix, RouteType::Unicast, gateway())
    }

    fn on_link(prefix: &str) -> RouteMessage {
        message(prefix, RouteType::Unicast, vec![])
    }

    fn own(address: &str) -> RouteMessage {
        message(&format!("{address}/128"), RouteType::Local, vec![])
    }

    fn depths(routes: &[RouteMessage]) -> Depths {
        let mut depths = Depths::default();
        for route in routes {
            depths.add(route);
        }
        depths
    }

    /// Returns the shared bits of an address.
    fn bits_of(depths: &Depths, address: &str) -> u8 {
        let address: std::net::Ipv6Addr = address.parse().unwrap();
        let bucket = bucket(&address.into());
        let (least, mut buckets) = depths.shared_bits();
        let found = buckets.find(|(number, _)| *number == bucket);
        found.map_or(least, |(_, bits)| bits)
    }

    fn of(routes: &[RouteMessage], address: &str) -> u8 {
        bits_of(&depths(routes), address)
    }

    #[test]
    fn the_longest_route_near_a_destination_decides() {
        let routes = [
            through_gateway("::/0"),
            through_gateway("2400::/12"),
            through_gateway("2400:1::/48"),
            message("2400:1:5::/40", RouteType::Unreachable, vec![]),
            through_gateway("2400:2::/64"),
            through_gateway("2400:3::1/128"),
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
    fn own_addresses_matter_unless_they_are_among_neighbours() {
        let near = "2001:db8:9::1";
        let (link, address) = (on_link("2001:db8:6::/64"), own("2001:db8:6::1"));
        let anycast = message("2001:db8:6::/128", RouteType::Anycast, vec![]);
        for order in [
            [link.clone(), address.clone(), anycast.clone()],
            [anycast, address.clone(), link.clone()],
        ] {
            assert_eq!(of(&order, near), 64);
        }
        let of = |others: &[RouteMessage]| {
            of(&[&[link.clone(), address.clone()], others].concat(), near)
        };
        assert_eq!(of(&[]), 64);
        // On another interface, as that of the loopback.
        assert_eq!(of(&[own("2001:db8:7::1")]), 0);
        // On the link by a short route only, that of a tunnel, or by one of another table.
        assert_eq!(of(&[own("2001:db8:7::1"), on_link("::/0")]), 0);
        let mut elsewhere = on_link("2001:db8:7::/64");
        elsewhere.attributes.push(RouteAttribute::Table(1000));
        assert_eq!(of(&[own("2001:db8:7::1"), elsewhere]), 0);
        // In a part of the link's prefix that is behind a gateway, or all of it is.
        let part = [on_link("2001:db8:7::/48"), own("2001:db8:7:1::1")];
        assert_eq!(
            of(&[&part[..], &[through_gateway("2001:db8:7:1::/64")]].concat()),
            0
        );
        assert_eq!(of(&[through_gateway("2001:db8:6::/64")]), 0);
    }

    #[test]
    fn hosts_that_are_distributed_over_gateways_share_nothing() {
        let many = || vec![RouteAttribute::MultiPath(vec![RouteNextHop::default()])];
        let route = |prefix, attributes| [message(prefix, RouteType::Unicast, attributes)];
        for routes in [
            route("::/0", many()),
            route("2400::/28", many()),
            route("2400:1::/48", many()),
            route("2400:1::/32", vec![RouteAttribute::NhId(7)]),
        ] {
            assert_eq!(of(&routes, "2400:1::1"), 0);
        }
        assert_eq!(of(&route("2400:1::/48", many()), "2500:1::1"), 32);
        // The object of one next hop.
        let one = [gateway(), vec![RouteAttribute::NhId(7)]].concat();
        assert_eq!(of(&route("2400:1::/48", one), "2400:1::1"), 48);
    }

    #[test]
    fn routes_for_some_sources_and_those_unknown_share_nothing() {
        let mut route = through_gateway("2400:1::/32");
        route.header.source_prefix_length = 48;
        assert_eq!(of(&[route], "2400:1::1"), 0);
        assert_eq!(bits_of(&Depths::unknown(), "2400:1::1"), 0);
    }

    #[test]
    fn exceptions_of_one_host_are_no_routes() {
        let mut exception = through_gateway("2400:1::5/128");
        exception.header.flags |= RouteFlags::Cloned;
        assert_eq!(of(&[exception], "2400:1::1"), 32);
    }

    #[test]
    fn rules_that_select_packets_share_nothing() {
        let plain = || {
            let mut rule = RuleMessage::default();
            rule.header.action = RuleAction::ToTable;
            rule.attributes = vec![
                RuleAttribute::Table(254),
                RuleAttribute::Priority(32766),
                RuleAttribute::SuppressPrefixLen(u32::MAX),
            ];
            rule
        };
        let changed = |change: fn(&mut RuleMessage)| {
            let mut rule = plain();
            change(&mut rule);
            rule
        };
        let share = |rule: &RuleMessage| {
            let mut depths = Depths::default();
            depths.add_rule(rule);
            bits_of(&depths, "2400:1::1") == 32
        };
        assert!(share(&plain()));
        for rule in [
            changed(|rule| rule.header.dst_len = 48),
            changed(|rule| rule.header.src_len = 48),
            changed(|rule| rule.header.action = RuleAction::Unreachable),
            changed(|rule| rule.header.flags |= RuleFlags::Invert),
            changed(|rule| rule.attributes.push(RuleAttribute::FwMark(1))),
            changed(|rule| rule.attributes.push(RuleAttribute::SuppressPrefixLen(0))),
            changed(|rule| rule.attributes.push(RuleAttribute::Iifname("v6".into()))),
        ] {
            assert!(!share(&rule), "{rule:?}");
        }
    }

    #[test]
    fn only_news_make_a_difference() {
        let mut known = depths(&[through_gateway("2400:1::/48")]);
        assert!(known.add(&through_gateway("2400:1::/56")));
        assert!(!known.add(&through_gateway("2400:1::/56")));
        assert!(!known.add(&through_gateway("2400::/20")));
        assert!(known.add(&own("2400:1::1")) && !known.add(&own("2400:1::1")));
        known.extend(&depths(&[through_gateway("2400:2::/44")]));
        assert_eq!(bits_of(&known, "2400:1::1"), 0);
        assert_eq!(bits_of(&known, "2400:2::1"), 44);
    }

    #[test]
    fn too_many_gateways_count_as_any() {
        let mut known = depths(&[on_link("2001:db8:6::/64"), own("2001:db8:6::1")]);
        for number in 0..=GATEWAYED_MAX {
            known.add(&through_gateway(&format!("2400:{number:x}::/48")));
        }
        assert_eq!(bits_of(&known, "2001:db8:6::2"), 0);
    }
}
