//! Reading a [`Snapshot`] from the kernel.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::TryStreamExt as _;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rtnetlink::packet_route::{
    AddressFamily,
    link::{
        InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType,
        LinkMessage, LinkXdp, VlanProtocol,
    },
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType},
};
use teredo_common::{address::ServicePrefix, generations::Family};
use thiserror::Error;

use super::{
    setting::Setting,
    snapshot::{Link, Route, Snapshot, VlanTag},
};
use crate::datapath::{
    ethtool::Ethtool,
    native,
    route::{RouteError, Routes, Table},
    watch::{Depths, Gateways},
};

/// The reason why there is no snapshot.
#[derive(Debug, Error)]
pub enum LookError {
    /// The kernel does not answer.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// A setting cannot be read.
    #[error("cannot read {setting}")]
    Setting {
        /// The setting.
        setting: Setting,
        /// The reason.
        source: io::Error,
    },
}

/// The part of the kernel's network that a snapshot covers.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The Teredo prefix.
    pub prefix: ServicePrefix,
    /// Prefixes whose routes matter.
    pub prefixes: Vec<Ipv6Net>,
    /// Settings that matter.
    pub settings: Vec<Setting>,
}

impl Scope {
    fn covers(&self, route: &Route) -> bool {
        match route.destination {
            _ if route.destination.prefix_len() == 0 => true,
            IpNet::V4(_) => false,
            IpNet::V6(destination) => self
                .prefixes
                .iter()
                .any(|prefix| destination.contains(prefix) || prefix.contains(&destination)),
        }
    }
}

impl Snapshot {
    /// Asks the kernel.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer, or the process has no file descriptors or memory left.
    pub async fn read(routes: &Routes, scope: &Scope) -> Result<Self, LookError> {
        let links = routes.links().await?;
        let mut links: Vec<Link> = links.iter().filter_map(link).collect();
        note_tags(&mut links);
        let addresses = routes.host_addresses().await?;
        let (mut found, mut gateways) = (Vec::new(), Gateways::default());
        let mut depths = Depths::default();
        let mut messages = std::pin::pin!(routes.all_routes());
        while let Some(message) = messages.try_next().await? {
            gateways.add(&message);
            depths.add(&message);
            found.extend(route(&message).filter(|route| scope.covers(route)));
        }
        for family in Family::ALL {
            match routes.rules(family).await {
                Ok(rules) => rules.iter().for_each(|rule| depths.add_rule(rule)),
                Err(_) => depths.doubt(family),
            }
        }
        let mut settings = BTreeMap::new();
        for setting in &scope.settings {
            let value = setting.read().map_err(|source| LookError::Setting {
                setting: setting.clone(),
                source,
            })?;
            settings.extend(value.map(|value| (setting.clone(), value)));
        }
        Ok(Self {
            links,
            addresses,
            routes: found,
            gateways,
            depths,
            settings,
            has_native_route: native::has_route(scope.prefix).ok(),
        })
    }
}

fn link(message: &LinkMessage) -> Option<Link> {
    let flags = message.header.flags;
    let mut link = Link {
        name: String::new(),
        index: message.header.index,
        mtu: 0,
        is_ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        is_point_to_point: flags.contains(LinkFlags::Pointopoint),
        kind: None,
        controller: None,
        lower: None,
        vlan: None,
        keeps_tags: false,
        is_up: flags.contains(LinkFlags::Up),
        has_carrier: flags.contains(LinkFlags::LowerUp),
        dropped: 0,
        xdp_program: None,
    };
    let mut is_elsewhere = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Stats64(numbers) => link.dropped = numbers.tx_dropped,
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            LinkAttribute::Link(index) => link.lower = Some(*index),
            LinkAttribute::LinkNetNsId(_) => is_elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                link.kind = kind(infos);
                link.vlan = vlan(infos);
            }
            LinkAttribute::Xdp(attributes) => {
                link.xdp_program = attributes.iter().find_map(|attribute| match attribute {
                    LinkXdp::ProgId(number)
                    | LinkXdp::DrvProgId(number)
                    | LinkXdp::SkbProgId(number)
                    | LinkXdp::HwProgId(number) => Some(*number),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    link.lower = link.lower.filter(|_| !is_elsewhere);
    (!link.name.is_empty()).then_some(link)
}

/// Returns the tag of a VLAN interface, unless it depends on the priority of a packet.
fn vlan(infos: &[LinkInfo]) -> Option<VlanTag> {
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(data)) => Some(data),
        _ => None,
    })?;
    let (mut number, mut is_service) = (None, false);
    for attribute in data {
        match attribute {
            InfoVlan::Id(found) => number = Some(*found),
            InfoVlan::Protocol(protocol) => is_service = *protocol == VlanProtocol::Ieee8021Ad,
            InfoVlan::EgressQos(map) if !map.is_empty() => return None,
            _ => {}
        }
    }
    Some(VlanTag {
        is_service,
        number: number?,
    })
}

/// Notes the veths below VLAN interfaces whose operator has said that tags stay in the frames.
fn note_tags(links: &mut [Link]) {
    let lower: HashSet<u32> = links
        .iter()
        .filter(|link| link.kind == Some(InfoKind::Vlan))
        .filter_map(|link| link.lower)
        .collect();
    let mut ethtool = None;
    for link in links {
        if link.kind == Some(InfoKind::Veth) && lower.contains(&link.index) {
            let ethtool = ethtool.get_or_insert_with(|| Ethtool::open().ok());
            let removes = ethtool.as_ref().map(|one| one.removes_tags(&link.name));
            link.keeps_tags = matches!(removes, Some(Ok(false)));
        }
    }
}

fn kind(infos: &[LinkInfo]) -> Option<InfoKind> {
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.clone()),
        _ => None,
    })
}

/// Returns a route of the main or the local table that leads to other hosts.
fn route(message: &RouteMessage) -> Option<Route> {
    let tables = [Table::Main, Table::Local].into_iter();
    let mut tables = tables.filter(|table| table.number() == message.header.table);
    let table = tables.next()?;
    if table == Table::Local && message.header.kind != RouteType::Unicast {
        // It is for an address.
        return None;
    }
    let length = message.header.destination_prefix_length;
    let mut destination = match message.header.address_family {
        AddressFamily::Inet => IpNet::V4(Ipv4Net::new(Ipv4Addr::UNSPECIFIED, length).ok()?),
        AddressFamily::Inet6 => IpNet::V6(Ipv6Net::new(Ipv6Addr::UNSPECIFIED, length).ok()?),
        _ => return None,
    };
    let (mut interfaces, mut gateway, mut metric, mut source) = (Vec::new(), None, 0, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(found) => {
                destination = IpNet::new(address(found)?, length).ok()?;
            }
            RouteAttribute::Oif(index) => interfaces.push(*index),
            RouteAttribute::MultiPath(hops) => {
                interfaces.extend(hops.iter().map(|hop| hop.interface_index));
            }
            RouteAttribute::Gateway(found) => gateway = address(found),
            RouteAttribute::Priority(found) => metric = *found,
            RouteAttribute::PrefSource(found) => source = address(found),
            _ => {}
        }
    }
    if message.header.kind != RouteType::Unicast {
        // An unreachable route of IPv6 names the loopback interface.
        interfaces.clear();
    }
    Some(Route {
        table,
        destination,
        interfaces,
        gateway,
        metric,
        source,
        is_announced: message.header.protocol == RouteProtocol::Ra,
    })
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}
