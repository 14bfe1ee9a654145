//! What the kernel tells about interfaces, addresses and routes.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::TryStreamExt as _;
use ipnet::Ipv6Net;
use rtnetlink::{
    RouteMessageBuilder,
    packet_route::{
        address::AddressAttribute,
        link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp},
        route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage},
    },
};

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// Largest packet, octets.
    pub mtu: u32,
    /// Whether it carries Ethernet frames.
    pub is_ethernet: bool,
    /// What kind of virtual interface it is; none for hardware.
    pub kind: Option<InfoKind>,
    /// Number of the bond, bridge or VRF that it belongs to.
    pub controller: Option<u32>,
    /// Whether it is up, as the operator wants it.
    pub is_up: bool,
    /// Whether somebody is at the other end.
    pub has_carrier: bool,
    /// The number of the XDP program attached to it.
    pub xdp_program: Option<u32>,
}

/// A route of an IPv6 prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The prefix.
    pub destination: Ipv6Net,
    /// Number of the interface it leads to; none for one that refuses.
    pub interface: Option<u32>,
}

/// The network of this host at one moment.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// Every interface.
    pub links: Vec<Link>,
    /// Every address, with the number of its interface.
    pub addresses: Vec<(IpAddr, u32)>,
    /// The IPv6 routes of the main table.
    pub routes: Vec<Route>,
}

impl Link {
    /// Whether it is a TUN or TAP interface.
    pub fn is_tun(&self) -> bool {
        self.kind == Some(InfoKind::Tun)
    }

    /// Whether it stands for a routing table of its own.
    pub fn is_vrf(&self) -> bool {
        self.kind == Some(InfoKind::Vrf)
    }
}

impl Network {
    /// Asks the kernel. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub async fn read() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let result = async {
            let links: Vec<_> = handle.link().get().execute().try_collect().await?;
            let addresses: Vec<_> = handle.address().get().execute().try_collect().await?;
            let every = RouteMessageBuilder::<Ipv6Addr>::new().build();
            let routes: Vec<_> = handle.route().get(every).execute().try_collect().await?;
            Ok(Self {
                links: links.iter().filter_map(link).collect(),
                addresses: addresses
                    .iter()
                    .filter_map(|message| {
                        Some((address(&message.attributes)?, message.header.index))
                    })
                    .collect(),
                routes: routes.iter().filter_map(route).collect(),
            })
        }
        .await;
        connection.abort();
        result.map_err(|error: rtnetlink::Error| io::Error::other(error.to_string()))
    }

    /// The interface with this name.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The interface with this number.
    #[must_use]
    pub fn link_numbered(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// Returns the bond, bridge or VRF that the interface belongs to.
    pub fn controller_of(&self, link: &Link) -> Option<&Link> {
        self.link_numbered(link.controller?)
    }

    /// Returns the VRF that the interface belongs to.
    pub fn vrf_of(&self, link: &Link) -> Option<&Link> {
        let controller = self.controller_of(link)?;
        controller.is_vrf().then_some(controller)
    }

    /// The interfaces that have the address.
    pub fn links_with(&self, address: Ipv4Addr) -> impl Iterator<Item = &Link> {
        let have = self.addresses.iter();
        have.filter(move |(one, _)| *one == address)
            .filter_map(|(_, index)| self.link_numbered(*index))
    }

    /// The route of exactly this prefix that does not lead into the interface of this name.
    pub fn foreign_route(&self, prefix: Ipv6Net, interface: &str) -> Option<&Route> {
        let ours = self.link(interface).map(|link| link.index);
        let mut routes = self.routes.iter();
        routes.find(|route| {
            route.destination == prefix && (route.interface.is_none() || route.interface != ours)
        })
    }

    /// Where a route leads, for messages.
    pub fn end_of(&self, route: &Route) -> &str {
        let link = route.interface.and_then(|index| self.link_numbered(index));
        link.map_or("nowhere", |link| &link.name)
    }

    /// The IPv4 addresses.
    pub fn ipv4(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.addresses
            .iter()
            .filter_map(|(address, _)| match address {
                IpAddr::V4(address) => Some(*address),
                IpAddr::V6(_) => None,
            })
    }

    /// The IPv6 addresses.
    pub fn ipv6(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.addresses
            .iter()
            .filter_map(|(address, _)| match address {
                IpAddr::V6(address) => Some(*address),
                IpAddr::V4(_) => None,
            })
    }
}

fn link(message: &LinkMessage) -> Option<Link> {
    let mut link = Link {
        name: String::new(),
        index: message.header.index,
        mtu: 0,
        is_ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        kind: None,
        controller: None,
        is_up: message.header.flags.contains(LinkFlags::Up),
        has_carrier: message.header.flags.contains(LinkFlags::LowerUp),
        xdp_program: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.clone()),
                    _ => None,
                });
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
    (!link.name.is_empty()).then_some(link)
}

/// Of a point-to-point interface, the end that is here.
fn address(attributes: &[AddressAttribute]) -> Option<IpAddr> {
    let local = attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

fn route(message: &RouteMessage) -> Option<Route> {
    if message.header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let mut destination = Ipv6Addr::UNSPECIFIED;
    let mut interface = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => destination = *address,
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::MultiPath(hops) => {
                interface = hops.first().map(|hop| hop.interface_index);
            }
            _ => {}
        }
    }
    let length = message.header.destination_prefix_length;
    Some(Route {
        destination: Ipv6Net::new(destination, length).ok()?,
        interface,
    })
}
