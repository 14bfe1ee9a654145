//! The kernel's default routes, neighbours and policy rules.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::TryStreamExt as _;
use ipnet::Ipv6Net;
use rtnetlink::{
    Handle, IpVersion, RouteMessageBuilder,
    packet_route::{
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType},
        rule::{RuleAction, RuleAttribute, RuleMessage},
    },
};

/// A default route of type unicast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// Whether it is of IPv6.
    pub is_ipv6: bool,
    /// The index of its interface.
    pub interface: u32,
    /// The next hop; none on a link without one.
    pub gateway: Option<IpAddr>,
    /// The lower, the better.
    pub metric: u32,
    /// Whether a router announced it.
    pub is_announced: bool,
}

/// A neighbour whose link-layer address was asked for in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SilentNeighbour {
    /// The index of its interface.
    pub interface: u32,
    /// Its address.
    pub address: IpAddr,
}

/// A policy rule of IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// The lower, the earlier.
    pub priority: u32,
    /// The destinations that it concerns; none for all.
    pub destination: Option<Ipv6Net>,
    /// Whether it concerns packets by anything else: their source, interface, mark or user.
    pub is_selective: bool,
    /// Its action.
    pub action: RuleAction,
    /// The table that it looks routes up in.
    pub table: u32,
}

/// The routing of this host at one moment.
#[derive(Clone, Debug, Default)]
pub struct Routing {
    /// The default routes of the main table.
    pub defaults: Vec<DefaultRoute>,
    /// The neighbours that do not answer.
    pub silent: Vec<SilentNeighbour>,
    /// The rules of IPv6.
    pub rules: Vec<PolicyRule>,
}

impl Routing {
    /// Asks the kernel. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub async fn read() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let result = read(&handle).await;
        connection.abort();
        result.map_err(|error| io::Error::other(error.to_string()))
    }

    /// Returns the best default routes of each family.
    pub fn best(&self) -> impl Iterator<Item = &DefaultRoute> {
        let is_best = |route: &&DefaultRoute| {
            let mut others = self.defaults.iter();
            others.all(|other| other.is_ipv6 != route.is_ipv6 || other.metric >= route.metric)
        };
        self.defaults.iter().filter(is_best)
    }

    /// Returns the numbers of the interfaces of a family's default routes.
    pub fn ways_out(&self, is_ipv6: bool) -> impl Iterator<Item = u32> {
        let defaults = self.defaults.iter();
        let defaults = defaults.filter(move |route| route.is_ipv6 == is_ipv6);
        defaults.map(|route| route.interface)
    }
}

async fn read(handle: &Handle) -> Result<Routing, rtnetlink::Error> {
    let mut defaults = Vec::new();
    for (is_ipv6, message) in [
        (false, RouteMessageBuilder::<Ipv4Addr>::new().build()),
        (true, RouteMessageBuilder::<Ipv6Addr>::new().build()),
    ] {
        let routes: Vec<_> = handle.route().get(message).execute().try_collect().await?;
        defaults.extend(
            routes
                .iter()
                .filter_map(|route| default_route(route, is_ipv6)),
        );
    }
    let neighbours: Vec<_> = handle.neighbours().get().execute().try_collect().await?;
    // A kernel without policy routing has no rules.
    let rules = handle.rule().get(IpVersion::V6).execute();
    let rules: Vec<_> = rules.try_collect().await.unwrap_or_default();
    Ok(Routing {
        defaults,
        silent: neighbours.iter().filter_map(silent).collect(),
        rules: rules.iter().map(rule).collect(),
    })
}

fn default_route(route: &RouteMessage, is_ipv6: bool) -> Option<DefaultRoute> {
    let header = &route.header;
    let is_default = header.destination_prefix_length == 0 && header.kind == RouteType::Unicast;
    if !is_default || header.table != rtnetlink::packet_route::route::RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let mut interface = None;
    let mut gateway = None;
    let mut metric = 0;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => {
                gateway = Some((*address).into())
            }
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) => {
                gateway = Some((*address).into())
            }
            RouteAttribute::MultiPath(hops) => {
                interface = hops.first().map(|hop| hop.interface_index);
            }
            _ => {}
        }
    }
    Some(DefaultRoute {
        is_ipv6,
        interface: interface?,
        gateway,
        metric,
        is_announced: header.protocol == RouteProtocol::Ra,
    })
}

fn silent(neighbour: &NeighbourMessage) -> Option<SilentNeighbour> {
    if neighbour.header.state != NeighbourState::Failed {
        return None;
    }
    let address = neighbour
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                Some((*address).into())
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                Some((*address).into())
            }
            _ => None,
        })?;
    Some(SilentNeighbour {
        interface: neighbour.header.ifindex,
        address,
    })
}

fn rule(message: &RuleMessage) -> PolicyRule {
    let header = &message.header;
    let mut rule = PolicyRule {
        priority: 0,
        destination: None,
        is_selective: header.src_len > 0 || header.tos != 0,
        action: header.action,
        table: header.table.into(),
    };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Destination(IpAddr::V6(address)) => {
                rule.destination = Ipv6Net::new(*address, header.dst_len).ok();
            }
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(table) => rule.table = *table,
            RuleAttribute::Iifname(_)
            | RuleAttribute::Oifname(_)
            | RuleAttribute::FwMark(_)
            | RuleAttribute::UidRange(_)
            | RuleAttribute::IpProtocol(_)
            | RuleAttribute::SourcePortRange(_)
            | RuleAttribute::DestinationPortRange(_)
            | RuleAttribute::L3MDev(_) => rule.is_selective = true,
            _ => {}
        }
    }
    rule
}
