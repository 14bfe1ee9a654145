//! The routes and neighbours of a host.

use core::net::{Ipv4Addr, Ipv6Addr};
use std::vec::Vec;

use ipnet::{Ipv4Net, Ipv6Net};
use teredo_common::address::Endpoint;

use crate::Way;

/// The kernel's routes and neighbours.
pub trait Network {
    /// See [`crate::Environment::look_up_ipv4`].
    fn look_up_ipv4(&self, from: u32, source: Endpoint, destination: Endpoint) -> Option<Way>;

    /// See [`crate::Environment::look_up_ipv6`].
    fn look_up_ipv6(&self, from: u32, source: Ipv6Addr, destination: Ipv6Addr) -> Option<Way>;
}

/// Routes by destination, of which the longest prefix counts. A route without a way is one that the
/// kernel does not forward on: a local or unreachable destination, or an unknown neighbour.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    /// Routes of IPv4.
    pub ipv4: Vec<(Ipv4Net, Option<Way>)>,
    /// Routes of IPv6.
    pub ipv6: Vec<(Ipv6Net, Option<Way>)>,
}

impl RouteTable {
    fn ipv4(&self, destination: Ipv4Addr) -> Option<Way> {
        let routes = self.ipv4.iter();
        let fitting = routes.filter(|(network, _)| network.contains(&destination));
        fitting.max_by_key(|(network, _)| network.prefix_len())?.1
    }

    fn ipv6(&self, destination: Ipv6Addr) -> Option<Way> {
        let routes = self.ipv6.iter();
        let fitting = routes.filter(|(network, _)| network.contains(&destination));
        fitting.max_by_key(|(network, _)| network.prefix_len())?.1
    }
}

impl Network for RouteTable {
    fn look_up_ipv4(&self, _from: u32, _source: Endpoint, destination: Endpoint) -> Option<Way> {
        self.ipv4(destination.ip())
    }

    fn look_up_ipv6(&self, _from: u32, _source: Ipv6Addr, destination: Ipv6Addr) -> Option<Way> {
        self.ipv6(destination)
    }
}
