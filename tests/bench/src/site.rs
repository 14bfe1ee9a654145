//! A place for one relay: a namespace for it, and a far namespace with everybody else.

use std::net::Ipv4Addr;

use anyhow::Result;
use teredo_lab::{
    Namespace,
    frames::Stations,
    links::{Interface, cable},
};

use super::{
    cases::Direction,
    clients::Clients,
    frames::{HOST, RELAY},
};

/// The relay's interfaces: the one to the IPv4 and the one to the IPv6 internet.
pub const NEAR: [&str; 2] = ["v4", "v6"];
/// Their far ends.
pub const FAR: [&str; 2] = ["far4", "far6"];
/// The cable between generator and sink when nothing is between them.
pub const STRAIGHT: [&str; 2] = ["out", "back"];
/// The relay's gateway to all clients and servers.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(20, 0, 0, 2);

/// The two namespaces and the cables between them.
#[derive(Debug)]
pub struct Site {
    /// Where the relay is.
    pub near: Namespace,
    /// Where clients, servers, native hosts, generator and sink are.
    pub far: Namespace,
    /// The relay's interfaces, as in [`NEAR`].
    pub near_interfaces: [Interface; 2],
    /// Their far ends, as in [`FAR`].
    pub far_interfaces: [Interface; 2],
}

impl Site {
    /// Builds the place, with addresses and routes, and nobody in it.
    ///
    /// # Errors
    ///
    /// Without root, or when a tool of the system fails.
    pub fn new(name: &str) -> Result<Self> {
        let near = Namespace::new(name)?;
        let far = Namespace::new(&format!("{name}-far"))?;
        for (near_name, far_name) in NEAR.into_iter().zip(FAR) {
            cable((&near, near_name), (&far, far_name))?;
            // What an XDP program redirects into the cable arrives where no other program is.
            near.offload(near_name, "gro on")?;
        }
        near.ip_batch(&format!(
            "addr add {}/24 dev {}
            route add default via {GATEWAY}
            addr add 2001:db8:6::1/64 dev {} nodad",
            RELAY.ip(),
            NEAR[0],
            NEAR[1]
        ))?;
        near.forward()?;
        far.ip_batch(&format!(
            "addr add {GATEWAY}/24 dev {}
            addr add {HOST}/64 dev {} nodad",
            FAR[0], FAR[1]
        ))?;
        let interfaces = |namespace, names: [&str; 2]| {
            anyhow::Ok([
                Interface::named(namespace, names[0])?,
                Interface::named(namespace, names[1])?,
            ])
        };
        Ok(Self {
            near_interfaces: interfaces(&near, NEAR)?,
            far_interfaces: interfaces(&far, FAR)?,
            near,
            far,
        })
    }

    /// Which of the two cables packets come to the relay by.
    #[must_use]
    pub const fn entry(direction: Direction) -> usize {
        match direction {
            Direction::Decap => 0,
            Direction::Encap => 1,
        }
    }

    /// The Ethernet addresses of frames to the relay.
    #[must_use]
    pub fn stations(&self, direction: Direction) -> Stations {
        let entry = Self::entry(direction);
        Stations {
            source: self.far_interfaces[entry].station,
            destination: self.near_interfaces[entry].station,
        }
    }

    /// The forged clients, servers and hosts of this place.
    ///
    /// # Errors
    ///
    /// When the packet sockets cannot be opened.
    pub fn clients(&self) -> Result<Clients> {
        Clients::open(
            &self.far,
            self.stations(Direction::Decap),
            self.stations(Direction::Encap),
        )
    }
}
