//! The requests of a Teredo client: facts about its host's network, and changes of its interface.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::{
    LinkUnspec, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
    },
};

use super::{GATEWAY, RouteError, Routes, check, interfaces_of, metric_of, name_of, unless};

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostAddress {
    /// Index of the interface that has it.
    pub interface: u32,
    /// The address.
    pub address: IpAddr,
    /// Length of its network prefix, in bits.
    pub prefix_length: u8,
}

impl Routes {
    /// Returns the usable addresses of this host, in the order of the interfaces.
    ///
    /// # Errors
    ///
    /// When the kernel does not list its addresses.
    pub async fn host_addresses(&self) -> Result<Vec<HostAddress>, RouteError> {
        let addresses = self.list_addresses().await?;
        Ok(addresses.iter().filter_map(host_address).collect())
    }

    /// Returns interface and metric of each IPv6 default route of type unicast.
    ///
    /// # Errors
    ///
    /// When the kernel does not list its routes.
    pub async fn default_ipv6_routes(&self) -> Result<Vec<(u32, u32)>, RouteError> {
        let message = RouteMessageBuilder::<Ipv6Addr>::new().build();
        let routes = self.default_routes(message).await?;
        let routes = routes
            .iter()
            .filter(|route| route.header.kind == RouteType::Unicast);
        Ok(routes
            .flat_map(|route| {
                let interfaces = interfaces_of(route).into_iter();
                interfaces.map(|interface| (interface, metric_of(route)))
            })
            .collect())
    }

    /// Returns the gateway of the best IPv4 default route; `None` without a route, or if that has no
    /// gateway.
    ///
    /// # Errors
    ///
    /// When the kernel does not list its routes.
    pub async fn default_ipv4_gateway(&self) -> Result<Option<Ipv4Addr>, RouteError> {
        let message = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes = self.default_routes(message).await?;
        let best = routes.iter().min_by_key(|route| metric_of(route));
        Ok(best.and_then(|best| {
            best.attributes
                .iter()
                .find_map(|attribute| match attribute {
                    RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => Some(*gateway),
                    _ => None,
                })
        }))
    }

    /// Removes an address from an interface. An address that is gone is no error.
    ///
    /// # Errors
    ///
    /// Without `CAP_NET_ADMIN`.
    pub async fn remove_address(
        &self,
        interface: u32,
        address: IpAddr,
        prefix_length: u8,
    ) -> Result<(), RouteError> {
        let mut message = AddressMessage::default();
        message.header.family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.index = interface;
        message.header.prefix_len = prefix_length;
        message.attributes = vec![
            AddressAttribute::Local(address),
            AddressAttribute::Address(address),
        ];
        let result = self.handle.address().del(message).execute().await;
        check(unless(result, &[libc::EADDRNOTAVAIL, libc::ENODEV]), || {
            format!(
                "remove {address}/{prefix_length} from {}",
                name_of(interface)
            )
        })
    }

    /// Adds an IPv6 default route into an interface. Repeating that changes nothing.
    ///
    /// # Errors
    ///
    /// Without `CAP_NET_ADMIN`, or when the interface is down.
    pub async fn add_default_route(&self, interface: u32, metric: u32) -> Result<(), RouteError> {
        let request = self.handle.route().add(default_route(interface, metric));
        check(unless(request.execute().await, &[libc::EEXIST]), || {
            format!("add a default route into {}", name_of(interface))
        })
    }

    /// Undoes [`Self::add_default_route`]. A route that is gone is no error.
    ///
    /// # Errors
    ///
    /// Without `CAP_NET_ADMIN`.
    pub async fn remove_default_route(
        &self,
        interface: u32,
        metric: u32,
    ) -> Result<(), RouteError> {
        let request = self.handle.route().del(default_route(interface, metric));
        check(
            unless(request.execute().await, &[libc::ESRCH, libc::ENODEV]),
            || format!("remove the default route of {}", name_of(interface)),
        )
    }

    /// Takes an interface down, with its IPv6 addresses and routes.
    ///
    /// # Errors
    ///
    /// Without `CAP_NET_ADMIN`, or when the interface is gone.
    pub async fn take_down(&self, interface: u32) -> Result<(), RouteError> {
        let message = LinkUnspec::new_with_index(interface).down().build();
        let result = self.handle.link().set(message).execute().await;
        check(result, || format!("take {} down", name_of(interface)))
    }
}

fn default_route(interface: u32, metric: u32) -> RouteMessage {
    RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(Ipv6Addr::UNSPECIFIED, 0)
        .gateway(GATEWAY)
        .output_interface(interface)
        .priority(metric)
        .build()
}

/// Returns the address of a message, unless duplicate address detection forbids its use.
fn host_address(message: &AddressMessage) -> Option<HostAddress> {
    let unusable = AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed;
    if message.header.flags.intersects(unusable) {
        return None;
    }
    // On a point-to-point link, the attribute `Address` is that of the other end.
    let local = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
    let address = local.or_else(|| {
        message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            })
    })?;
    Some(HostAddress {
        interface: message.header.index,
        address,
        prefix_length: message.header.prefix_len,
    })
}
