//! The site of one relay: a namespace for it, and a far namespace with all other machines.

use std::net::Ipv4Addr;

use anyhow::Result;
use teredo_lab::{
    Namespace,
    frames::Stations,
    links::{Interface, cable},
};
use teredo_lab_ebpf::host;

use super::{
    cases::Direction,
    clients::Clients,
    frames::{HOST, RELAY},
};

/// The relay's interfaces to the IPv4 and to the IPv6 internet.
pub const NEAR: [&str; 2] = ["v4", "v6"];
/// The far ends of the relay's interfaces.
pub const FAR: [&str; 2] = ["far4", "far6"];
/// The cable between generator and sink for [`Variant::None`](crate::cases::Variant::None).
pub const STRAIGHT: [&str; 2] = ["out", "back"];
/// The relay's gateway to all clients and servers.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(20, 0, 0, 2);

/// The two namespaces and the cables between them.
#[derive(Debug)]
pub struct Site {
    /// The relay's namespace.
    pub near: Namespace,
    /// The namespace of clients, servers, native hosts, generator and sink.
    pub far: Namespace,
    /// The relay's interfaces, as in [`NEAR`].
    pub near_interfaces: [Interface; 2],
    /// The far ends of the relay's interfaces, as in [`FAR`].
    pub far_interfaces: [Interface; 2],
}

impl Site {
    /// Builds the site, with addresses and routes, without any daemon.
    ///
    /// # Errors
    ///
    /// Fails without root, or when a tool of the system fails.
    pub fn new(name: &str) -> Result<Self> {
        let near = Namespace::new(name)?;
        let far = Namespace::new(&format!("{name}-far"))?;
        for (near_name, far_name) in NEAR.into_iter().zip(FAR) {
            cable((&near, near_name), (&far, far_name))?;
            // Frames that an XDP program redirects into the cable arrive only if its far end has a
            // program too.
            near.offload(near_name, "gro on")?;
        }
        near.ip_batch(&format!(
            "addr add {}/24 dev {}
            route add default via {GATEWAY}
            addr add 2001:db8:6::1/64 dev {v6} nodad
            route add 2001:db8:7::/48 via {HOST} dev {v6}",
            RELAY.ip(),
            NEAR[0],
            v6 = NEAR[1]
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

    /// Makes hosts the relay's neighbours, whose addresses are those of [`host`] in the prefix of [`HOST`].
    ///
    /// # Errors
    ///
    /// Fails when the tool of the system fails.
    pub fn add_neighbours(&self, count: u32) -> Result<()> {
        let station = self.far_interfaces[1]
            .station
            .map(|octet| format!("{octet:02x}"));
        let (station, interface) = (station.join(":"), NEAR[1]);
        let lines = (0..count).map(|number| {
            let address = host(HOST, number);
            format!("neigh replace {address} lladdr {station} dev {interface} nud permanent\n")
        });
        self.near.ip_batch(&lines.collect::<String>())
    }

    /// The cable by which packets come to the relay.
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

    /// The forged clients, servers and hosts of this site.
    ///
    /// # Errors
    ///
    /// Fails when the packet sockets cannot be opened.
    pub fn clients(&self) -> Result<Clients> {
        Clients::open(
            &self.far,
            self.stations(Direction::Decap),
            self.stations(Direction::Encap),
        )
    }
}
