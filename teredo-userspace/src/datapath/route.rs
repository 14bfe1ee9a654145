//! Addresses, routes, neighbours and forwarding settings of the kernel, through rtnetlink and
//! sysctl.

mod host;

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use futures_util::TryStreamExt as _;
use ipnet::{Ipv4Net, Ipv6Net};
use nix::net::if_::if_indextoname;
use rtnetlink::{
    Handle, LinkUnspec, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressMessage, AddressScope},
        neighbour::{NeighbourFlags, NeighbourState},
        route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage},
    },
};
use thiserror::Error;
use tokio::task::JoinHandle;

pub use host::HostAddress;

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

/// A connection to the kernel's routing tables. Needs a tokio runtime.
#[derive(Debug)]
pub struct Routes {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Routes {
    /// Opens the connection.
    ///
    /// # Errors
    ///
    /// When the kernel provides no netlink socket.
    pub fn open() -> Result<Self, RouteError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|source| RouteError {
            action: "open a netlink socket".to_owned(),
            source,
        })?;
        Ok(Self {
            handle,
            connection: tokio::spawn(connection),
        })
    }

    /// Sets an interface's MTU, in octets, and brings it up.
    ///
    /// # Errors
    ///
    /// Without `CAP_NET_ADMIN`, or when the interface is gone.
    pub async fn bring_up(&self, interface: u32, mtu: u16) -> Result<(), RouteError> {
        let message = LinkUnspec::new_with_index(interface)
            .mtu(u32::from(mtu))
            .up()
            .build();
        let result = self.handle.link().set(message).execute().await;
        check(result, || format!("bring {} up", name_of(interface)))
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

    /// Routes a prefix into an interface. Repeating that changes nothing.
    ///
    /// # Errors
    ///
    /// When the interface is down, or another route for the prefix has the same metric.
    pub async fn add_route(&self, prefix: Ipv6Net, interface: u32) -> Result<(), RouteError> {
        let request = self.handle.route().add(route(prefix, interface)).replace();
        check(request.execute().await, || {
            format!("route {prefix} into {}", name_of(interface))
        })
    }

    /// Undoes [`Self::add_route`]. A route that is gone is no error.
    ///
    /// # Errors
    ///
    /// Without `CAP_NET_ADMIN`.
    pub async fn remove_route(&self, prefix: Ipv6Net, interface: u32) -> Result<(), RouteError> {
        let request = self.handle.route().del(route(prefix, interface));
        check(
            unless(request.execute().await, &[libc::ESRCH, libc::ENODEV]),
            || format!("remove the route of {prefix}"),
        )
    }

    /// Returns the indices of the interfaces of the default routes of both families, each once.
    ///
    /// # Errors
    ///
    /// When the kernel does not list its routes.
    pub async fn default_interfaces(&self) -> Result<Vec<u32>, RouteError> {
        let mut interfaces = Vec::new();
        for message in [
            RouteMessageBuilder::<Ipv4Addr>::new().build(),
            RouteMessageBuilder::<Ipv6Addr>::new().build(),
        ] {
            for route in self.default_routes(message).await? {
                for interface in interfaces_of(&route) {
                    if !interfaces.contains(&interface) {
                        interfaces.push(interface);
                    }
                }
            }
        }
        Ok(interfaces)
    }

    /// Returns the address that this host uses towards the IPv4 internet: the preferred source of the
    /// default route, or else the first address of its interface. `None` without a default route.
    ///
    /// # Errors
    ///
    /// When the kernel does not list its routes or addresses.
    pub async fn default_ipv4_address(&self) -> Result<Option<Ipv4Addr>, RouteError> {
        let message = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes = self.default_routes(message).await?;
        let Some(best) = routes.iter().min_by_key(|route| metric_of(route)) else {
            return Ok(None);
        };
        let preferred = best
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                RouteAttribute::PrefSource(RouteAddress::Inet(address)) => Some(*address),
                _ => None,
            });
        if preferred.is_some() {
            return Ok(preferred);
        }
        let interfaces = interfaces_of(best);
        let addresses = self.list_addresses().await?;
        Ok(addresses
            .iter()
            .filter(|address| {
                address.header.scope == AddressScope::Universe
                    && interfaces.contains(&address.header.index)
            })
            .flat_map(|address| &address.attributes)
            .find_map(|attribute| match attribute {
                AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
                _ => None,
            }))
    }

    /// Returns the addresses of this host and its broadcast addresses, in the order of the interfaces.
    ///
    /// # Errors
    ///
    /// When the kernel does not list its addresses.
    pub async fn addresses(&self) -> Result<OwnAddresses, RouteError> {
        let mut addresses = OwnAddresses::default();
        for message in self.list_addresses().await? {
            for attribute in &message.attributes {
                match attribute {
                    AddressAttribute::Local(IpAddr::V4(address)) => {
                        addresses.ipv4.push(*address);
                        addresses
                            .ipv4
                            .extend(broadcast(*address, message.header.prefix_len));
                    }
                    AddressAttribute::Address(IpAddr::V6(address)) => addresses.ipv6.push(*address),
                    _ => {}
                }
            }
        }
        Ok(addresses)
    }

    /// Returns the index of the interface that has the IPv4 address.
    ///
    /// # Errors
    ///
    /// When the kernel does not list its addresses.
    pub async fn interface_with(&self, address: Ipv4Addr) -> Result<Option<u32>, RouteError> {
        let wanted = AddressAttribute::Local(IpAddr::V4(address));
        let addresses = self.list_addresses().await?;
        let found = addresses
            .iter()
            .find(|message| message.attributes.contains(&wanted));
        Ok(found.map(|message| message.header.index))
    }

    async fn list_addresses(&self) -> Result<Vec<AddressMessage>, RouteError> {
        let addresses = self.handle.address().get().execute().try_collect().await;
        addresses.map_err(|error| failure("list the addresses", error))
    }

    async fn default_routes(&self, message: RouteMessage) -> Result<Vec<RouteMessage>, RouteError> {
        let routes: Vec<RouteMessage> = self
            .handle
            .route()
            .get(message)
            .execute()
            .try_collect()
            .await
            .map_err(|error| failure("list the routes", error))?;
        let in_main = |route: &RouteMessage| route.header.table == RouteHeader::RT_TABLE_MAIN;
        Ok(routes
            .into_iter()
            .filter(|route| route.header.destination_prefix_length == 0 && in_main(route))
            .collect())
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

impl Drop for Routes {
    fn drop(&mut self) {
        self.connection.abort();
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

/// The address family of a setting of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `net.ipv4`
    Ipv4,
    /// `net.ipv6`
    Ipv6,
}

/// Returns whether an interface, or `all` or `default`, forwards packets of the family.
///
/// # Errors
///
/// When there is no such interface.
pub fn forwarding(family: Family, interface: &str) -> Result<bool, RouteError> {
    let path = forwarding_path(family, interface);
    fs::read_to_string(&path)
        .map(|value| value.trim() != "0")
        .map_err(|source| RouteError {
            action: format!("read {}", path.display()),
            source,
        })
}

/// Sets whether an interface forwards packets of the family.
///
/// # Errors
///
/// Without permission, or when there is no such interface.
pub fn set_forwarding(family: Family, interface: &str, on: bool) -> Result<(), RouteError> {
    let path = forwarding_path(family, interface);
    fs::write(&path, if on { "1" } else { "0" }).map_err(|source| RouteError {
        action: format!("write {}", path.display()),
        source,
    })
}

/// Returns the kernel's file of the setting, in the network namespace of the calling thread.
fn forwarding_path(family: Family, interface: &str) -> PathBuf {
    let family = match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    };
    ["/proc/sys/net", family, "conf", interface, "forwarding"]
        .iter()
        .collect()
}

/// Returns the message that adds or removes the route of a prefix.
fn route(prefix: Ipv6Net, interface: u32) -> RouteMessage {
    RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(prefix.network(), prefix.prefix_len())
        .gateway(GATEWAY)
        .output_interface(interface)
        .build()
}

/// Returns the broadcast address of the network, which the kernel accepts even if it is not
/// configured.
fn broadcast(address: Ipv4Addr, prefix_length: u8) -> Option<Ipv4Addr> {
    let network = Ipv4Net::new(address, prefix_length).ok()?;
    (prefix_length < 31).then(|| network.broadcast())
}

/// Returns the interfaces of a route, several if it has several next hops.
fn interfaces_of(route: &RouteMessage) -> Vec<u32> {
    let mut interfaces = Vec::new();
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(interface) => interfaces.push(*interface),
            RouteAttribute::MultiPath(hops) => {
                interfaces.extend(hops.iter().map(|hop| hop.interface_index));
            }
            _ => {}
        }
    }
    interfaces
}

fn metric_of(route: &RouteMessage) -> u32 {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Priority(metric) => Some(*metric),
            _ => None,
        })
        .unwrap_or(0)
}

fn name_of(interface: u32) -> String {
    if_indextoname(interface)
        .ok()
        .and_then(|name| name.into_string().ok())
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
