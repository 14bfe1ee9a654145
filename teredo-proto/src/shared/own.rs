//! This host's own IPv4 addresses, to and from which nothing goes through the tunnel.

use std::net::Ipv4Addr;

use teredo_common::{
    address::Endpoint,
    scope::{Ipv4Scope, embedded_router},
};

/// The IPv4 addresses of this host, and the scope of all others (L-01, L-02, L-05, L-07).
#[derive(Clone, Debug)]
pub struct OwnIpv4 {
    scope: Ipv4Scope,
    /// Sorted.
    addresses: Vec<[u8; 4]>,
}

impl OwnIpv4 {
    /// Creates a set without addresses.
    pub const fn new(scope: Ipv4Scope) -> Self {
        Self {
            scope,
            addresses: Vec::new(),
        }
    }

    /// Replaces the addresses: those of the host, and those that a role has in any case. Returns whether
    /// they have changed.
    pub fn set(&mut self, host: &[Ipv4Addr], role: impl IntoIterator<Item = [u8; 4]>) -> bool {
        let mut addresses: Vec<_> = host.iter().map(Ipv4Addr::octets).chain(role).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let are_others = addresses != self.addresses;
        self.addresses = addresses;
        are_others
    }

    /// Iterates over the addresses.
    pub fn iter(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.addresses.iter().copied().map(Ipv4Addr::from)
    }

    /// Whether the address is one of this host.
    pub fn contains(&self, address: [u8; 4]) -> bool {
        self.addresses.binary_search(&address).is_ok()
    }

    /// Whether an address is global unicast and not this host's.
    pub fn is_elsewhere(&self, address: [u8; 4]) -> bool {
        self.scope.accepts(address) && !self.contains(address)
    }

    /// Whether an endpoint taken from a packet may become a destination (L-02, L-05).
    pub fn may_send_to(&self, endpoint: Endpoint) -> bool {
        endpoint.port() != 0 && self.is_elsewhere(endpoint.address)
    }

    /// Whether a 6to4 or ISATAP address would bring packets back to this host (L-07).
    pub fn leads_back(&self, address: &[u8; 16]) -> bool {
        embedded_router(address).is_some_and(|router| self.contains(router))
    }
}
