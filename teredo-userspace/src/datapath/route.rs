//! Interfaces, addresses, routes and neighbours of the kernel, through rtnetlink.
//!
//! The kernel answers while the sender of the question waits, and before that it may wait for seconds until others have
//! done with its interfaces. So questions have a thread of their own, and packets do not wait for it.

mod connection;
mod host;
mod look_up;

use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use ipnet::{Ipv4Net, Ipv6Net};
use nix::net::if_::if_indextoname;
use rtnetlink::{
    Handle, IpVersion, LinkUnspec, RouteMessageBuilder,
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        address::AddressMessage,
        link::LinkMessage,
        neighbour::{NeighbourFlags, NeighbourMessage, NeighbourState},
        route::{RouteFlags, RouteMessage},
        rule::RuleMessage,
        tc::{TcAttribute, TcHandle, TcMessage},
    },
};
use teredo_common::generations::Family;
use thiserror::Error;
use tokio::task::JoinHandle;

pub use host::HostAddress;

use connection::Connection;

/// The next hop of routes into a TUN interface, an address that no host has.
///
/// With a next hop the kernel keeps one neighbour entry for the interface; without, one for every
/// peer, and beyond 1,024 entries it spends its time on garbage collection.
const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// An operation that the kernel refused.
#[derive(Debug, Error)]
#[error("cannot {action}")]
pub struct RouteError {
    action: String,
    source: io::Error,
}

/// A connection to the kernel's routing tables.
#[derive(Clone, Debug)]
pub struct Routes {
    handle: Handle,
    connection: Arc<Connection>,
}

impl Routes {
    /// Opens the connection.
    ///
    /// # Errors
    ///
    /// When the kernel provides no netlink socket.
    pub fn open() -> Result<Self, RouteError> {
        let (connection, handle) = Connection::open().map_err(|source| RouteError {
            action: "open a netlink socket".to_owned(),
            source,
        })?;
        Ok(Self {
            handle,
            connection: Arc::new(connection),
        })
    }

    /// Runs a task with this connection in the thread of the connection.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.connection.spawn(task)
    }

    /// Brings an interface up, with this MTU in octets if there is one.
    ///
    /// # Errors
    ///
    /// Without `CAP_NET_ADMIN`, or when the interface is gone.
    pub async fn bring_up(&self, interface: u32, mtu: Option<u16>) -> Result<(), RouteError> {
        let mut message = LinkUnspec::new_with_index(interface).up();
        if let Some(mtu) = mtu {
            message = message.mtu(mtu.into());
        }
        let result = self.handle.link().set(message.build()).execute().await;
        check(result, || format!("bring {} up", name_of(interface)))
    }

    /// Removes the default queueing discipline of an interface, so that packets go straight to its driver.
    ///
    /// # Errors
    ///
    /// Without `CAP_NET_ADMIN`, when the interface is gone, or when somebody has given it another one.
    pub async fn remove_queueing(&self, interface: u32) -> Result<(), RouteError> {
        let mut message = TcMessage::with_index(interface as i32);
        message.header.parent = TcHandle::ROOT;
        message
            .attributes
            .push(TcAttribute::Kind("noqueue".to_owned()));
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewQueueDiscipline(message));
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE;
        let result = match self.handle.clone().request(message) {
            Ok(answers) => answers.map(refusal).try_collect::<()>().await,
            Err(error) => Err(error),
        };
        check(result, || {
            format!("remove the queueing discipline of {}", name_of(interface))
        })
    }

    /// Removes an interface, with its addresses and routes. An interface that is gone is no error.
    ///
    /// # Errors
    ///
    /// Without `CAP_NET_ADMIN`.
    pub async fn remove_link(&self, interface: u32) -> Result<(), RouteError> {
        let result = self.handle.link().del(interface).execute().await;
        check(unless(result, &[libc::ENODEV]), || {
            format!("remove {}", name_of(interface))
        })
    }

    /// Adds an address to an interface. An address that it already has is no error.
    ///
    /// # Errors
    ///
    /// Without `CAP_NET_ADMIN`, or when the interface is gone.
    pub async fn add_address(
        &self,
        interface: u32,
        address: IpAddr,
        prefix_length: u8,
    ) -> Result<(), RouteError> {
        let request = self.handle.address().add(interface, address, prefix_length);
        check(unless(request.execute().await, &[libc::EEXIST]), || {
            format!("add {address}/{prefix_length} to {}", name_of(interface))
        })
    }

    /// Adds a route into an interface.
    ///
    /// # Errors
    ///
    /// When the interface is down, or a route for the prefix has the same metric already.
    pub async fn add_route(&self, route: TunnelRoute, interface: u32) -> Result<(), RouteError> {
        let request = self.handle.route().add(route.message(interface));
        check(request.execute().await, || {
            format!("route {} into {}", route.prefix, name_of(interface))
        })
    }

    /// Undoes [`Self::add_route`]. A route that is gone is no error.
    ///
    /// # Errors
    ///
    /// Without `CAP_NET_ADMIN`.
    pub async fn remove_route(&self, route: TunnelRoute, interface: u32) -> Result<(), RouteError> {
        let request = self.handle.route().del(route.message(interface));
        let result = unless(request.execute().await, &[libc::ESRCH, libc::ENODEV]);
        check(result, || format!("remove the route of {}", route.prefix))
    }

    /// Returns all interfaces.
    ///
    /// # Errors
    ///
    /// When the kernel does not list its interfaces.
    pub async fn links(&self) -> Result<Vec<LinkMessage>, RouteError> {
        let links = self.handle.link().get().execute().try_collect().await;
        links.map_err(|error| failure("list the interfaces", error))
    }

    /// Returns all neighbours.
    ///
    /// # Errors
    ///
    /// When the kernel does not list its neighbours.
    pub async fn neighbours(&self) -> Result<Vec<NeighbourMessage>, RouteError> {
        let neighbours = self.handle.neighbours().get().execute().try_collect().await;
        neighbours.map_err(|error| failure("list the neighbours", error))
    }

    /// Returns the policy rules of a family.
    ///
    /// # Errors
    ///
    /// When the kernel does not list its rules, or has none.
    pub async fn rules(&self, family: Family) -> Result<Vec<RuleMessage>, RouteError> {
        let version = match family {
            Family::Ipv4 => IpVersion::V4,
            Family::Ipv6 => IpVersion::V6,
        };
        let rules = self
            .handle
            .rule()
            .get(version)
            .execute()
            .try_collect()
            .await;
        rules.map_err(|error| failure("list the rules", error))
    }

    /// Returns the routes of all tables and of both families, one after the other.
    ///
    /// # Errors
    ///
    /// When the kernel does not list its routes.
    pub fn all_routes(&self) -> impl Stream<Item = Result<RouteMessage, RouteError>> {
        let list = |message| self.handle.route().get(message).execute();
        let ipv4 = list(RouteMessageBuilder::<Ipv4Addr>::new().build());
        let ipv6 = list(RouteMessageBuilder::<Ipv6Addr>::new().build());
        ipv4.chain(ipv6)
            .map_err(|error| failure("list the routes", error))
    }

    async fn list_addresses(&self) -> Result<Vec<AddressMessage>, RouteError> {
        let addresses = self.handle.address().get().execute().try_collect().await;
        addresses.map_err(|error| failure("list the addresses", error))
    }

    /// Makes the kernel confirm the reachability of a neighbour, as if a packet had been sent to it.
    ///
    /// # Errors
    ///
    /// Without `CAP_NET_ADMIN`.
    pub async fn probe(&self, interface: u32, neighbour: IpAddr) -> Result<(), RouteError> {
        let request = self
            .handle
            .neighbours()
            .add(interface, neighbour)
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace();
        check(request.execute().await, || {
            format!("probe {neighbour} on {}", name_of(interface))
        })
    }
}

/// A routing table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// The table of ordinary routes, which routing daemons announce.
    #[default]
    Main,
    /// The table of this host's own addresses, which is looked up first, and which nobody announces.
    Local,
}

impl Table {
    /// Returns its number in the kernel.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Main => libc::RT_TABLE_MAIN,
            Self::Local => libc::RT_TABLE_LOCAL,
        }
    }
}

/// A route into a tunnel interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TunnelRoute {
    /// Its table.
    pub table: Table,
    /// The destinations.
    pub prefix: Ipv6Net,
    /// The metric; among routes of the same prefix, the one with the smallest is used.
    pub metric: u32,
}

impl TunnelRoute {
    /// Returns the message that adds or removes it.
    fn message(self, interface: u32) -> RouteMessage {
        let mut message = RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(self.prefix.network(), self.prefix.prefix_len())
            .gateway(GATEWAY)
            .output_interface(interface)
            .priority(self.metric)
            .table_id(self.table.number().into())
            .build();
        // Routing daemons do not believe in a next hop on an interface without addresses.
        message.header.flags |= RouteFlags::Onlink;
        message
    }
}

/// The addresses of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnAddresses {
    /// IPv4 addresses, and the broadcast addresses of attached networks.
    pub ipv4: Vec<Ipv4Addr>,
    /// IPv6 addresses.
    pub ipv6: Vec<Ipv6Addr>,
}

impl OwnAddresses {
    /// Adds an IPv4 address and the broadcast address of its network.
    pub fn add_ipv4(&mut self, address: Ipv4Addr, prefix_length: u8) {
        self.ipv4.push(address);
        self.ipv4.extend(broadcast(address, prefix_length));
    }
}

/// Returns the broadcast address of the network, which the kernel accepts even if it is not
/// configured.
fn broadcast(address: Ipv4Addr, prefix_length: u8) -> Option<Ipv4Addr> {
    let network = Ipv4Net::new(address, prefix_length).ok()?;
    (prefix_length < 31).then(|| network.broadcast())
}

fn name_of(interface: u32) -> String {
    if_indextoname(interface)
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| format!("interface {interface}"))
}

/// Treats these error codes of the kernel as success.
fn unless(result: Result<(), rtnetlink::Error>, codes: &[i32]) -> Result<(), rtnetlink::Error> {
    match result {
        Err(rtnetlink::Error::NetlinkError(message))
            if codes.contains(&message.raw_code().abs()) =>
        {
            Ok(())
        }
        result => result,
    }
}

/// Returns the error in an answer of the kernel.
fn refusal(answer: NetlinkMessage<RouteNetlinkMessage>) -> Result<(), rtnetlink::Error> {
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => {
            Err(rtnetlink::Error::NetlinkError(error))
        }
        _ => Ok(()),
    }
}

fn check(
    result: Result<(), rtnetlink::Error>,
    action: impl FnOnce() -> String,
) -> Result<(), RouteError> {
    result.map_err(|error| failure(&action(), error))
}

fn failure(action: &str, error: rtnetlink::Error) -> RouteError {
    RouteError {
        action: action.to_owned(),
        source: match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            error => io::Error::other(error.to_string()),
        },
    }
}
