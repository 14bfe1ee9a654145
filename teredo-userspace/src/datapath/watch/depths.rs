//! How many bits of a destination determine its route.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use rtnetlink::packet_route::{
    AddressFamily,
    route::{RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteType},
    rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage},
};
use teredo_common::generations::Family;

use super::hops::{self, Hops, start};

/// All bits of a destination.
const ALL: u8 = 128;
/// The most prefixes behind gateways that are noted one by one, to compare them with those on the link.
const GATEWAYED_MAX: usize = 4096;

/// How many bits of a destination determine its route, for each bucket of
/// [`teredo_common::generations`].
///
/// Beyond them no route in any table distinguishes two destinations, except that one of them may be a
/// neighbour on the link, or an address of this host next to such neighbours. What is not understood makes
/// all bits matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Depths {
    /// What holds for all buckets of a family.
    least: BTreeMap<Family, u8>,
    /// The buckets for which it is more.
    buckets: BTreeMap<(Family, u32), u8>,
    /// Prefixes of neighbours on the link, in the main table.
    on_link: BTreeSet<IpNet>,
    /// Prefixes behind gateways that may be on the link, too.
    gatewayed: Gatewayed,
    /// Addresses of this host and the like.
    own: BTreeSet<IpNet>,
}

/// Prefixes behind gateways, or too many of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Gatewayed {
    prefixes: BTreeSet<IpNet>,
    are_too_many: bool,
}

impl Gatewayed {
    fn insert(&mut self, prefix: IpNet) -> bool {
        if self.are_too_many || !self.prefixes.insert(prefix) {
            return false;
        }
        self.are_too_many = self.prefixes.len() > GATEWAYED_MAX;
        if self.are_too_many {
            self.prefixes.clear();
        }
        true
    }

    fn may_contain(&self, prefix: &IpNet) -> bool {
        self.are_too_many || self.prefixes.contains(prefix)
    }
}

impl Depths {
    /// Returns those of a host whose routes are not known: all bits matter.
    #[must_use]
    pub fn unknown() -> Self {
        let mut depths = Self::default();
        for family in Family::ALL {
            depths.doubt(family);
        }
        depths
    }

    /// Notes that the routes or rules of a family are not known: all bits matter.
    pub fn doubt(&mut self, family: Family) {
        self.raise_least(family, ALL);
    }

    /// Adds a route, and returns whether that makes a difference.
    pub fn add(&mut self, message: &RouteMessage) -> bool {
        let header = &message.header;
        // One host's exception from a route, such as its path MTU.
        if header.flags.contains(RouteFlags::Cloned) {
            return false;
        }
        let Some((prefix, gateways)) = hops::destination(message) else {
            return match family_of(header.address_family) {
                Some(family) => self.raise_least(family, ALL),
                None => false,
            };
        };
        // Nothing is relayed to groups.
        if prefix.network().is_multicast() {
            return false;
        }
        let (family, _) = start(&prefix);
        let length = prefix.prefix_len();
        let is_own = !matches!(
            header.kind,
            RouteType::Unicast
                | RouteType::Unreachable
                | RouteType::BlackHole
                | RouteType::Prohibit
                | RouteType::Throw
        );
        // The kernel distributes the destinations over several gateways; and a route for some sources or traffic
        // classes is none for others.
        if has_many_hops(message, !gateways.is_empty())
            || header.source_prefix_length > 0
            || header.tos > 0
        {
            return self.raise(prefix, ALL);
        }
        if is_own && length == prefix.max_prefix_len() {
            return self.own.insert(prefix);
        }
        let mut differs = self.add_prefix(prefix);
        let is_within_bucket = (family.bucket_bits()..=family.shared_bits_max()).contains(&length);
        if header.kind == RouteType::Unicast && is_within_bucket {
            if !gateways.is_empty() {
                differs |= self.gatewayed.insert(prefix);
            } else if is_in_main_table(message) {
                differs |= self.on_link.insert(prefix);
            }
        }
        differs
    }

    /// Adds a route with one next hop, and returns whether that makes a difference.
    pub fn add_prefix(&mut self, prefix: IpNet) -> bool {
        self.raise(prefix, prefix.prefix_len())
    }

    /// Adds a rule of the host's policy. Destinations that agree in all routes may differ by a rule, unless it
    /// is for all packets.
    pub fn add_rule(&mut self, rule: &RuleMessage) {
        let family = family_of(rule.header.family);
        if let Some(family) = family
            && !is_for_all(rule)
        {
            self.raise_least(family, ALL);
        }
    }

    /// Adds the routes of others.
    pub fn extend(&mut self, others: &Self) {
        for (&family, &depth) in &others.least {
            self.raise_least(family, depth);
        }
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

    /// Returns the bits for the map of generations: those that all destinations of a family share, and those of the
    /// buckets in which it is more.
    pub fn shared_bits(&self, family: Family) -> (u8, impl Iterator<Item = (u32, u8)>) {
        // One bit at least: zero stands for all of them.
        let least = self.least.get(&family).copied().unwrap_or(0).max(1);
        let all = (family, 0)..=(family, u32::MAX);
        let known = self.buckets.range(all);
        let mut buckets: BTreeMap<_, _> = known
            .map(|(&(_, bucket), &depth)| (bucket, depth.max(least)))
            .collect();
        for own in &self.own {
            let bucket = bucket(own);
            if bucket.0 != family {
                continue;
            }
            let depth = buckets.get(&bucket.1).copied().unwrap_or(least);
            if depth != ALL && !self.is_among_neighbours(own, depth) {
                buckets.insert(bucket.1, ALL);
            }
        }
        let bits = move |depth| {
            if depth > family.shared_bits_max() {
                0
            } else {
                depth
            }
        };
        (
            bits(least),
            buckets
                .into_iter()
                .map(move |(bucket, depth)| (bucket, bits(depth))),
        )
    }

    /// Returns the buckets with neighbours on the link.
    pub fn on_link(&self) -> impl Iterator<Item = u32> {
        self.on_link.iter().map(|prefix| bucket(prefix).1)
    }

    /// Whether all destinations that agree with an own address in this number of bits are on the link:
    /// neighbours never share a next hop.
    fn is_among_neighbours(&self, own: &IpNet, depth: u8) -> bool {
        let link = IpNet::new(own.network(), depth).map(|link| link.trunc());
        link.is_ok_and(|link| self.on_link.contains(&link) && !self.gatewayed.may_contain(&link))
    }

    /// Raises the bits of a prefix to at least `depth`.
    fn raise(&mut self, prefix: IpNet, depth: u8) -> bool {
        if depth == 0 {
            return false;
        }
        let mut hops = Hops::default();
        hops.add(prefix);
        match hops {
            Hops::All => self.raise_least(start(&prefix).0, depth),
            Hops::Buckets(families) => families
                .into_iter()
                .flat_map(|(family, buckets)| {
                    buckets.into_iter().map(move |bucket| (family, bucket))
                })
                .fold(false, |differs, bucket| {
                    self.raise_bucket(bucket, depth) | differs
                }),
        }
    }

    fn raise_bucket(&mut self, bucket: (Family, u32), depth: u8) -> bool {
        let known = self.buckets.entry(bucket).or_default();
        let differs = depth > *known;
        *known = depth.max(*known);
        differs
    }

    fn raise_least(&mut self, family: Family, depth: u8) -> bool {
        let known = self.least.entry(family).or_default();
        let differs = depth > *known;
        *known = depth.max(*known);
        differs
    }
}

/// Returns the bucket of a prefix that is not shorter than those of a bucket.
fn bucket(prefix: &IpNet) -> (Family, u32) {
    let (family, first) = start(prefix);
    (family, family.bucket(first.to_be()))
}

fn family_of(family: AddressFamily) -> Option<Family> {
    match family {
        AddressFamily::Inet => Some(Family::Ipv4),
        AddressFamily::Inet6 => Some(Family::Ipv6),
        _ => None,
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
    use rtnetlink::packet_route::route::{RouteAddress, RouteNextHop};

    use std::net::IpAddr;

    use super::*;

    fn message(prefix: &str, kind: RouteType, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let prefix: IpNet = prefix.parse().unwrap();
        let mut message = RouteMessage::default();
        let (family, address) = match prefix.network() {
            IpAddr::V4(address) => (AddressFamily::Inet, RouteAddress::Inet(address)),
            IpAddr::V6(address) => (AddressFamily::Inet6, RouteAddress::Inet6(address)),
        };
        message.header.address_family = family;
        message.header.destination_prefix_length = prefix.prefix_len();
        message.header.kind = kind;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.attributes = attributes;
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
        let address: IpAddr = address.parse().unwrap();
        message(&IpNet::from(address).to_string(), RouteType::Local, vec![])
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
        let address: IpAddr = address.parse().unwrap();
        let (family, bucket) = bucket(&address.into());
        let (least, mut buckets) = depths.shared_bits(family);
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
            ("2a00::1", 12),
            ("2400:9::1", 12),
            ("2400:1:7::1", 48),
            ("2400:2:8::1", 64),
            ("2400:3:8::1", 0),
        ] {
            assert_eq!(of(&routes, address), bits, "{address}");
        }
        let routes = [
            through_gateway("0.0.0.0/0"),
            through_gateway("9.0.0.0/8"),
            through_gateway("9.8.0.0/14"),
            through_gateway("9.9.8.0/24"),
            message("9.12.0.0/17", RouteType::BlackHole, vec![]),
            through_gateway("9.13.0.1/32"),
            message("224.0.0.0/4", RouteType::Multicast, vec![]),
        ];
        for (address, bits) in [
            ("8.8.8.8", 1),
            ("9.7.8.8", 8),
            ("9.11.8.8", 14),
            ("9.9.200.1", 24),
            ("9.12.200.1", 17),
            ("9.13.200.1", 32),
        ] {
            assert_eq!(of(&routes, address), bits, "{address}");
        }
        let mut for_a_class = through_gateway("9.0.0.0/16");
        for_a_class.header.tos = 8;
        assert_eq!(of(&[for_a_class], "9.0.0.1"), 0);
    }

    #[test]
    fn the_addresses_of_an_interface_are_among_its_neighbours() {
        let of = |others: &[RouteMessage]| {
            let interface = [
                through_gateway("0.0.0.0/0"),
                on_link("20.0.0.0/24"),
                own("20.0.0.1"),
                message("20.0.0.255/32", RouteType::Broadcast, vec![]),
                message("127.0.0.0/8", RouteType::Local, vec![]),
            ];
            of(&[&interface, others].concat(), "20.0.7.1")
        };
        assert_eq!(of(&[]), 24);
        assert_eq!(of(&[own("20.0.9.1")]), 0);
        assert_eq!(of(&[own("20.1.9.1")]), 24);
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
        assert_eq!(of(&route("2400:1::/48", many()), "2500:1::1"), 1);
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
        assert_eq!(of(&[exception], "2400:1::1"), 1);
    }

    #[test]
    fn rules_that_select_packets_share_nothing() {
        let plain = || {
            let mut rule = RuleMessage::default();
            rule.header.family = AddressFamily::Inet6;
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
            assert_eq!(bits_of(&depths, "9.0.0.1"), 1, "is of another family");
            bits_of(&depths, "2400:1::1") == 1
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
        assert!(!known.add(&through_gateway("2400:1::/48")));
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
