//! Addresses of this host.

use std::net::IpAddr;

use rtnetlink::{
    LinkUnspec,
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope},
    },
};

use super::{RouteError, Routes, check, name_of, unless};

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostAddress {
    /// Index of the interface that has it.
    pub interface: u32,
    /// The address.
    pub address: IpAddr,
    /// Length of its network prefix, in bits.
    pub prefix_length: u8,
    /// Whether its scope is global: neither this link nor this host alone.
    pub is_global: bool,
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
        is_global: message.header.scope == AddressScope::Universe,
    })
}
