//! The kernel's interfaces, addresses, routes and settings at one moment.

use std::{
    collections::{BTreeMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv6Net};
use rtnetlink::packet_route::link::InfoKind;
use teredo_common::vlan::Tags;

use super::setting::Setting;
use crate::datapath::{
    route::{HostAddress, OwnAddresses, Table, TunnelRoute},
    watch::{Depths, Gateways},
};

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its index, which it keeps when renamed.
    pub index: u32,
    /// The size of its largest packet, in octets.
    pub mtu: u32,
    /// Whether it carries Ethernet frames.
    pub is_ethernet: bool,
    /// Whether it has exactly one other end.
    pub is_point_to_point: bool,
    /// The kind of virtual interface; `None` for hardware.
    pub kind: Option<InfoKind>,
    /// The index of the bond, bridge or VRF that it belongs to.
    pub controller: Option<u32>,
    /// The index of the interface below it, if that is in the same network namespace.
    pub lower: Option<u32>,
    /// The tag that frames of a VLAN interface have below it, if that is the same for all.
    pub vlan: Option<VlanTag>,
    /// Whether an operator has set that VLAN tags stay in the frames of a veth.
    pub keeps_tags: bool,
    /// Whether it is up, as an operator sets it.
    pub is_up: bool,
    /// Whether it has a carrier.
    pub has_carrier: bool,
    /// Packets that it did not send, since it was made.
    pub dropped: u64,
    /// The number of the XDP program that is attached to it.
    pub xdp_program: Option<u32>,
}

/// The tag of a VLAN interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanTag {
    /// Whether it is a service tag (IEEE 802.1ad).
    pub is_service: bool,
    /// The number of the VLAN.
    pub number: u16,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its table.
    pub table: Table,
    /// The destinations.
    pub destination: IpNet,
    /// The indices of its interfaces; none for a route that refuses.
    pub interfaces: Vec<u32>,
    /// The next hop; `None` if the destinations are on the link.
    pub gateway: Option<IpAddr>,
    /// The metric; smaller is preferred.
    pub metric: u32,
    /// The preferred source address.
    pub source: Option<IpAddr>,
    /// Whether a router announced it.
    pub is_announced: bool,
}

/// The kernel's network at one moment, as far as the daemon depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// All interfaces.
    pub links: Vec<Link>,
    /// All addresses that may be used, in the order of the interfaces.
    pub addresses: Vec<HostAddress>,
    /// The default routes of both families, and the IPv6 routes that overlap with the prefixes that
    /// were asked for.
    pub routes: Vec<Route>,
    /// The gateways of all routes.
    pub gateways: Gateways,
    /// How many bits of a native destination determine its route.
    pub depths: Depths,
    /// The values of the settings that were asked for, as far as they exist.
    pub settings: BTreeMap<Setting, String>,
    /// Whether this host has a route, of any prefix length, for the Teredo prefix; `None` if unknown.
    pub has_native_route: Option<bool>,
}

impl Link {
    /// Returns whether it is a TUN or TAP interface.
    pub fn is_tun(&self) -> bool {
        self.kind == Some(InfoKind::Tun)
    }

    /// Returns whether frames may lose their VLAN tags before XDP sees them, whatever the settings of this
    /// host are.
    pub fn hides_tags(&self) -> bool {
        match self.kind {
            Some(InfoKind::Veth) => !self.keeps_tags,
            Some(InfoKind::Bridge | InfoKind::MacVlan | InfoKind::IpVlan) => true,
            _ => false,
        }
    }

    /// Returns whether it stands for a routing table of its own.
    pub fn is_vrf(&self) -> bool {
        self.kind == Some(InfoKind::Vrf)
    }
}

impl Route {
    /// Returns whether it is a default route that leads to an interface.
    pub fn is_default(&self) -> bool {
        self.table == Table::Main
            && self.destination.prefix_len() == 0
            && !self.interfaces.is_empty()
    }

    /// Returns whether it has the table, the destinations and the metric of this one.
    pub fn is(&self, route: TunnelRoute) -> bool {
        self.table == route.table
            && self.destination == IpNet::V6(route.prefix)
            && self.metric == route.metric
    }

    /// Returns whether it is for the IPv4 family.
    pub fn is_ipv4(&self) -> bool {
        matches!(self.destination, IpNet::V4(_))
    }
}

impl Snapshot {
    /// Returns the interface with this name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// Returns the interface with this index.
    pub fn link_numbered(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// Returns the bond, bridge or VRF that the interface belongs to.
    pub fn controller_of(&self, link: &Link) -> Option<&Link> {
        self.link_numbered(link.controller?)
    }

    /// Returns a VLAN interface on this interface.
    pub fn vlan_on(&self, link: &Link) -> Option<&Link> {
        let mut links = self.links.iter();
        links.find(|one| one.kind == Some(InfoKind::Vlan) && one.lower == Some(link.index))
    }

    /// Returns the interface below a VLAN interface, and the tags that its frames have there; `None` if there is
    /// none, or if XDP does not see the tags.
    pub fn trunk_of<'a>(&'a self, link: &'a Link) -> Option<(&'a Link, Tags)> {
        let (mut tags, mut lower) = (Vec::new(), link);
        while lower.kind == Some(InfoKind::Vlan) {
            tags.push(lower.vlan?);
            lower = self.link_numbered(lower.lower?)?;
        }
        let mut inwards = tags.iter().rev();
        let tags = inwards.try_fold(Tags::NONE, |outer, tag| {
            outer.and(tag.is_service, tag.number)
        })?;
        (tags != Tags::NONE && !lower.hides_tags()).then_some((lower, tags))
    }

    /// Returns the VRF that the interface belongs to.
    pub fn vrf_of(&self, link: &Link) -> Option<&Link> {
        let controller = self.controller_of(link)?;
        controller.is_vrf().then_some(controller)
    }

    /// Iterates over the interfaces that have the address.
    pub fn links_with(&self, address: Ipv4Addr) -> impl Iterator<Item = &Link> {
        let have = self.addresses.iter();
        have.filter(move |one| one.address == address)
            .filter_map(|one| self.link_numbered(one.interface))
    }

    /// Iterates over the default routes of a family.
    pub fn default_routes(&self, is_ipv4: bool) -> impl Iterator<Item = &Route> {
        let routes = self.routes.iter();
        routes.filter(move |route| route.is_default() && route.is_ipv4() == is_ipv4)
    }

    /// Returns the default route of a family with the smallest metric.
    pub fn best_default(&self, is_ipv4: bool) -> Option<&Route> {
        self.default_routes(is_ipv4)
            .min_by_key(|route| route.metric)
    }

    /// Returns the interfaces of the default routes of a family, each once, in the order of the routes.
    pub fn ways_out(&self, is_ipv4: bool) -> Vec<&Link> {
        let indices = self.default_routes(is_ipv4);
        let indices = indices.flat_map(|route| &route.interfaces);
        let mut links: Vec<&Link> = indices
            .filter_map(|index| self.link_numbered(*index))
            .collect();
        let mut seen = HashSet::new();
        links.retain(|link| seen.insert(link.index));
        links
    }

    /// Returns the interfaces of the default routes of both families, each once, those of IPv4 first.
    pub fn default_links(&self) -> Vec<&Link> {
        let mut links = self.ways_out(true);
        for link in self.ways_out(false) {
            if !links.iter().any(|other| other.index == link.index) {
                links.push(link);
            }
        }
        links
    }

    /// Returns the address that this host uses towards the IPv4 internet: the preferred source of the
    /// default route, or else the first global address of its interface. `None` without a default
    /// route.
    pub fn default_ipv4_address(&self) -> Option<Ipv4Addr> {
        let best = self.best_default(true)?;
        if let Some(IpAddr::V4(source)) = best.source {
            return Some(source);
        }
        self.addresses
            .iter()
            .filter(|one| one.is_global && best.interfaces.contains(&one.interface))
            .find_map(|one| match one.address {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            })
    }

    /// Returns the route of exactly this prefix that does not lead into the interface of this name.
    pub fn foreign_route(&self, prefix: Ipv6Net, interface: &str) -> Option<&Route> {
        let ours = self.link(interface).map(|link| link.index);
        let mut routes = self.routes.iter();
        routes.find(|route| {
            route.table == Table::Main
                && route.destination == IpNet::V6(prefix)
                && (route.interfaces.is_empty()
                    || route.interfaces.iter().any(|index| Some(*index) != ours))
        })
    }

    /// Returns the name of the interface that a route leads to, for messages.
    pub fn end_of(&self, route: &Route) -> &str {
        let first = route.interfaces.first();
        let link = first.and_then(|index| self.link_numbered(*index));
        link.map_or("nowhere", |link| &link.name)
    }

    /// Iterates over the IPv4 addresses.
    pub fn ipv4(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.addresses.iter().filter_map(|one| match one.address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
    }

    /// Iterates over the IPv6 addresses.
    pub fn ipv6(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.addresses.iter().filter_map(|one| match one.address {
            IpAddr::V6(address) => Some(address),
            IpAddr::V4(_) => None,
        })
    }

    /// Returns whether this is an address of the host.
    pub fn has_ipv4(&self, address: Ipv4Addr) -> bool {
        self.ipv4().any(|own| own == address)
    }

    /// Returns all addresses, and the broadcast addresses of attached networks.
    pub fn own_addresses(&self) -> OwnAddresses {
        let mut own = OwnAddresses::default();
        for one in &self.addresses {
            match one.address {
                IpAddr::V4(address) => own.add_ipv4(address, one.prefix_length),
                IpAddr::V6(address) => own.ipv6.push(address),
            }
        }
        own
    }

    /// Returns whether the setting has the value 1; `None` if it does not exist.
    pub fn is_on(&self, setting: &Setting) -> Option<bool> {
        self.settings.get(setting).map(|value| value != "0")
    }
}
