//! The host's part of an explanation: the kernel's own look-ups of routes and neighbours.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use rtnetlink::packet_route::{
    AddressFamily,
    link::{LinkAttribute, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType},
};

use crate::datapath::route::{RouteError, Routes};

/// The ways to some destinations.
#[derive(Clone, Debug, Default)]
pub struct HostFacts {
    ways: BTreeMap<IpAddr, Result<Way, String>>,
}

/// The way to a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The kind of the route, if it leads nowhere or to this host.
    pub kind: WayKind,
    /// Index of the interface.
    pub interface: u32,
    /// Name of the interface.
    pub name: String,
    /// Octets that fit.
    pub mtu: u32,
    /// Whether the route, or what the host has learned of the path, limits that more than the interface.
    pub is_limited_by_route: bool,
    /// The gateway, if there is one.
    pub gateway: Option<IpAddr>,
    /// The Ethernet address of the next hop, if it is known.
    pub station: Option<[u8; 6]>,
    /// Whether the next hop was asked for its Ethernet address in vain.
    pub is_silent: bool,
}

/// The kind of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayKind {
    /// To another host.
    Unicast,
    /// To this host.
    Local,
    /// To nobody.
    Refused,
}

impl HostFacts {
    /// Returns the way to a destination, if there is one and it was looked up.
    #[must_use]
    pub fn way(&self, destination: IpAddr) -> Option<&Way> {
        let way = self.ways.get(&destination)?.as_ref().ok()?;
        (way.kind == WayKind::Unicast).then_some(way)
    }

    /// Returns the outcome of the look-up of a destination.
    #[must_use]
    pub fn found(&self, destination: IpAddr) -> Option<Result<&Way, &str>> {
        let found = self.ways.get(&destination)?;
        Some(found.as_ref().map_err(String::as_str))
    }

    /// Adds a way.
    #[cfg(test)]
    pub fn insert(&mut self, destination: IpAddr, way: Result<Way, String>) {
        self.ways.insert(destination, way);
    }
}

/// Asks the kernel for the ways to destinations. Needs a tokio runtime.
///
/// # Errors
///
/// When the kernel does not answer at all.
pub async fn look(destinations: &BTreeSet<IpAddr>) -> Result<HostFacts, RouteError> {
    let routes = Routes::open()?;
    let (links, neighbours) = (routes.links().await?, routes.neighbours().await?);
    let mut facts = HostFacts::default();
    for &destination in destinations {
        let way = match routes.look_up(destination).await {
            Ok(route) => Ok(way(destination, &route, &links, &neighbours)),
            Err(error) => Err(error.reason()),
        };
        facts.ways.insert(destination, way);
    }
    Ok(facts)
}

fn way(
    destination: IpAddr,
    route: &RouteMessage,
    links: &[LinkMessage],
    neighbours: &[NeighbourMessage],
) -> Way {
    let mut way = Way {
        kind: match route.header.kind {
            RouteType::Unicast => WayKind::Unicast,
            RouteType::Local | RouteType::Broadcast | RouteType::Multicast | RouteType::Anycast => {
                WayKind::Local
            }
            _ => WayKind::Refused,
        },
        interface: 0,
        name: String::new(),
        mtu: 0,
        is_limited_by_route: false,
        gateway: None,
        station: None,
        is_silent: false,
    };
    let mut limit = u32::MAX;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(interface) => way.interface = *interface,
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => {
                way.gateway = Some((*gateway).into());
            }
            RouteAttribute::Gateway(RouteAddress::Inet6(gateway)) => {
                way.gateway = Some((*gateway).into());
            }
            RouteAttribute::Metrics(metrics) => {
                let limits = metrics.iter().filter_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
                    _ => None,
                });
                limit = limits.fold(limit, u32::min);
            }
            _ => {}
        }
    }
    let mut links = links.iter();
    if let Some(link) = links.find(|link| link.header.index == way.interface) {
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::IfName(name) => way.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => way.mtu = *mtu,
                _ => {}
            }
        }
    }
    way.is_limited_by_route = limit < way.mtu;
    way.mtu = way.mtu.min(limit);
    let next = way.gateway.unwrap_or(destination);
    let known = neighbours
        .iter()
        .find(|one| one.header.ifindex == way.interface && address_of(one) == Some(next));
    if let Some(neighbour) = known {
        way.is_silent = neighbour.header.state == NeighbourState::Failed;
        way.station = station_of(neighbour).filter(|_| !way.is_silent);
    }
    way
}

fn address_of(neighbour: &NeighbourMessage) -> Option<IpAddr> {
    if neighbour.header.family == AddressFamily::Bridge {
        return None;
    }
    let mut attributes = neighbour.attributes.iter();
    attributes.find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some((*address).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
            Some((*address).into())
        }
        _ => None,
    })
}

fn station_of(neighbour: &NeighbourMessage) -> Option<[u8; 6]> {
    let mut attributes = neighbour.attributes.iter();
    attributes.find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(address) => address.as_slice().try_into().ok(),
        _ => None,
    })
}
