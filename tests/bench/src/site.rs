//! The site of one relay: a namespace for it, and a far namespace with all other machines.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use teredo_lab::{
    Namespace,
    frames::Stations,
    links::{Interface, cable_with_queues},
};
use teredo_lab_ebpf::host;

use super::{
    cases::{Direction, Place, Terms},
    clients::Clients,
    device::{self, Borrowed},
    frames::{HOST, HOST_BEHIND, RELAY, SCATTERED},
};

/// The relay's interfaces to the IPv4 and to the IPv6 internet.
pub const NEAR: [&str; 2] = ["v4", "v6"];
/// The far ends of the relay's interfaces.
pub const FAR: [&str; 2] = ["far4", "far6"];
/// The cable between generator and sink for [`Variant::None`](crate::cases::Variant::None).
pub const STRAIGHT: [&str; 2] = ["out", "back"];
/// The number of the VLANs of [`Terms::Tagged`].
const VLAN: u16 = 7;
/// Routes of [`Terms::Routed`].
const ROUTES: u32 = 200_000;
/// The relay's gateway to all clients and servers.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(20, 0, 0, 2);

/// The two namespaces and the cables between them.
#[derive(Debug)]
pub struct Site {
    terms: Terms,
    // Dropped before the namespace.
    _borrowed: Option<Borrowed>,
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
    pub fn new(name: &str, terms: Terms) -> Result<Self> {
        let near = Namespace::new(name)?;
        let far = Namespace::new(&format!("{name}-far"))?;
        for (near_name, far_name) in NEAR.into_iter().zip(FAR) {
            cable_with_queues((&near, near_name), (&far, far_name), queues(terms))?;
            // Frames that an XDP program redirects into the cable arrive only if its far end has a
            // program too.
            near.offload(near_name, "gro on")?;
        }
        let interfaces = |namespace, names: [&str; 2]| {
            anyhow::Ok([
                Interface::named(namespace, names[0])?,
                Interface::named(namespace, names[1])?,
            ])
        };
        let site = Self {
            terms,
            _borrowed: None,
            near_interfaces: interfaces(&near, NEAR)?,
            far_interfaces: interfaces(&far, FAR)?,
            near,
            far,
        };
        site.set_up()?;
        Ok(site)
    }

    fn set_up(&self) -> Result<()> {
        let [v4, v6] = NEAR.map(|interface| self.with_address(interface));
        if self.terms == Terms::Tagged {
            for (interface, vlan) in NEAR.into_iter().zip([&v4, &v6]) {
                self.near
                    .ip(&format!(
                        "link add link {interface} name {vlan} type vlan id {VLAN}"
                    ))
                    .context("this kernel has no VLAN interfaces (its module 8021q)")?;
                self.near.ip(&format!("link set {vlan} up"))?;
            }
        }
        self.near.ip_batch(&format!(
            "addr add {}/24 dev {v4}
            route add default via {GATEWAY}
            addr add 2001:db8:6::1/64 dev {v6} nodad
            route add 2001:db8:7::/48 via {HOST} dev {v6}",
            RELAY.ip(),
        ))?;
        self.near.forward()?;
        self.far.ip_batch(&format!(
            "addr add {GATEWAY}/24 dev {}
            addr add {HOST}/64 dev {} nodad",
            FAR[0], FAR[1]
        ))?;
        if self.terms == Terms::Tagged {
            // The far machines take part in the VLANs by their packet sockets only.
            let [gateway, host] = self.far_interfaces.map(|far| text(far.station));
            self.near.ip_batch(&format!(
                "neigh add {GATEWAY} lladdr {gateway} dev {v4} nud permanent
                neigh add {HOST} lladdr {host} dev {v6} nud permanent"
            ))?;
        }
        if self.terms == Terms::Routed {
            let lines = (0..ROUTES).map(|number| {
                let network = host(SCATTERED, number, true).segments();
                let [a, b, c, ..] = network;
                format!("route add {a:x}:{b:x}:{c:x}::/48 via {HOST} dev {v6}\n")
            });
            self.near.ip_batch(&lines.collect::<String>())?;
        }
        Ok(())
    }

    /// Makes the site of a relay outside this machine, between two of its interfaces.
    ///
    /// # Errors
    ///
    /// Fails when the interfaces cannot be used, or the relay does not answer.
    pub fn around(interfaces: &[String; 2]) -> Result<Self> {
        let far = Namespace::new("device")?;
        let borrowed = Borrowed::take(interfaces, &far)?;
        Ok(Self {
            terms: Terms::Usual,
            near: Namespace::new("nothing")?,
            near_interfaces: device::stations(&far)?,
            far_interfaces: [
                Interface::named(&far, FAR[0])?,
                Interface::named(&far, FAR[1])?,
            ],
            _borrowed: Some(borrowed),
            far,
        })
    }

    /// The interface with the address: that of the VLAN, if the site has some.
    fn with_address(&self, interface: &str) -> String {
        match self.terms {
            Terms::Tagged => format!("{interface}.{VLAN}"),
            _ => interface.to_owned(),
        }
    }

    /// The tag of frames to and from the relay, if they have one.
    #[must_use]
    pub fn tag(&self) -> Option<u16> {
        (self.terms == Terms::Tagged).then_some(VLAN)
    }

    /// Lets the kernel forward packets for clients to the far end of the other cable.
    ///
    /// # Errors
    ///
    /// Fails when the tool of the system fails.
    pub fn route_clients(&self) -> Result<()> {
        let station = text(self.far_interfaces[0].station);
        let interface = NEAR[0];
        self.near.ip_batch(&format!(
            "neigh add fe80::1 lladdr {station} dev {interface} nud permanent
            route add 2001::/32 via fe80::1 dev {interface}"
        ))
    }

    /// Makes hosts the relay's neighbours, whose addresses are those of [`host`] in the prefix of [`HOST`].
    ///
    /// # Errors
    ///
    /// Fails when the tool of the system fails.
    pub fn add_neighbours(&self, count: u32) -> Result<()> {
        let station = text(self.far_interfaces[1].station);
        let interface = self.with_address(NEAR[1]);
        let lines = (0..count).map(|number| {
            let address = host(HOST, number, false);
            format!("neigh replace {address} lladdr {station} dev {interface} nud permanent\n")
        });
        self.near.ip_batch(&lines.collect::<String>())
    }

    /// The cable by which packets come to the relay.
    #[must_use]
    pub const fn entry(direction: Direction) -> usize {
        match direction {
            Direction::Decap => 0,
            Direction::Encap | Direction::Both => 1,
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
            self.tag(),
        )
    }
}

/// The queues of cables.
pub const fn queues(terms: Terms) -> usize {
    match terms {
        Terms::Queued => 2,
        _ => 1,
    }
}

/// The native host to whose frame those to the other hosts are alike.
#[must_use]
pub const fn first_host(place: Place) -> Ipv6Addr {
    match place {
        Place::OnLink => HOST,
        Place::Behind => HOST_BEHIND,
        Place::Scattered => SCATTERED,
    }
}

/// The text of an Ethernet address.
fn text(station: [u8; 6]) -> String {
    station.map(|octet| format!("{octet:02x}")).join(":")
}
