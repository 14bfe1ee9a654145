//! The standard scene:
//!
//! ```text
//!             IPv4 internet 20.0.0.0/16                     IPv6 internet 2001:db8:6::/64
//!   ---+------------+-------------------+---           ---+----------------+------------+---
//!      | 20.0.0.1   | 20.0.10.1 ...     | 20.0.1.1        | ::1            | ::10 ...   | ::53
//!   server,20.0.0.2 |                   +----- relay -----+                host(s)    server
//!                  NAT(s)
//!                   | 192.168.0.1 ...
//!                client(s) 192.168.0.2 ...
//! ```
//!
//! With one arm, both internets are one Ethernet segment and the relay has one interface on it. The
//! server may have its secondary address on an interface of its own, or be in the relay's place.
//! Miredo accepts only global IPv4 addresses, hence these.

mod build;
mod roles;

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

pub use self::roles::{Client, Relay, Server};
use super::{
    capture::Capture,
    links::Internet,
    namespace::Namespace,
    nat::{Nat, NatKind},
    programs::Attached,
    teredo::{Teredo, fast_share},
    traffic::Ping,
    wait::wait_until,
};

/// Longest time that the kernel may take to settle.
const SETTLED: Duration = Duration::from_secs(30);

/// The server's primary address; the secondary one follows it.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(20, 0, 0, 1);
/// The relay's outer address and service port.
pub const RELAY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(20, 0, 1, 1), 3545);
/// The relay's address on the IPv6 internet.
pub const RELAY_IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 6, 0, 0, 0, 0, 1);
/// The server's address on the IPv6 internet.
pub const SERVER_IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 6, 0, 0, 0, 0, 0x53);
/// The interface of a host on the IPv4 internet.
pub const IPV4_INTERFACE: &str = "v4";
/// The interface of a host on the IPv6 internet.
pub const IPV6_INTERFACE: &str = "v6";
/// The server's secondary address.
pub const SECONDARY: Ipv4Addr = Ipv4Addr::from_bits(SERVER.to_bits() + 1);
/// The interface of a one-armed relay.
pub const ONE_ARM: &str = "arm";
/// The interface of a server's secondary address if that has its own.
pub const SECONDARY_INTERFACE: &str = "v4b";

/// The implementation that a program belongs to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Maker {
    /// Our own.
    #[default]
    Teredo,
    /// Miredo.
    Miredo,
}

/// The location of the server's addresses.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Place {
    /// In a namespace of its own, both on one interface.
    #[default]
    Alone,
    /// In a namespace of its own, on two interfaces.
    TwoInterfaces,
    /// On the relay's interface, for one process with both roles.
    Relay,
}

/// The layout of the scene.
#[derive(Clone, Copy, Debug)]
pub struct Topology {
    /// The relay has one interface for both internets.
    pub one_armed: bool,
    /// The kind of all NATs that the scene starts with.
    pub nat: NatKind,
    /// Number of clients, each behind a NAT of its own.
    pub clients: u8,
    /// Number of native IPv6 hosts.
    pub hosts: u8,
    /// The location of the server.
    pub place: Place,
    /// The implementation of the server that starts with the scene; `None` starts none.
    pub server: Option<Maker>,
}

/// Two arms, one client behind a port-restricted NAT, one host, and our server.
impl Default for Topology {
    fn default() -> Self {
        Self {
            one_armed: false,
            nat: NatKind::PortRestricted,
            clients: 1,
            hosts: 1,
            place: Place::Alone,
            server: Some(Maker::Teredo),
        }
    }
}

/// A client's namespace and its NAT.
#[derive(Debug)]
pub struct Site {
    /// The NAT.
    pub nat: Nat,
    /// The client's namespace.
    pub client: Namespace,
    /// The client's service port.
    pub port: u16,
}

/// A native IPv6 host.
#[derive(Debug)]
pub struct Host {
    /// The host's namespace.
    pub namespace: Namespace,
    /// The host's address.
    pub address: Ipv6Addr,
}

/// The scene, with a server running if the topology has one. Tests start relay and clients and drop
/// them before the scene.
#[derive(Debug)]
pub struct Scene {
    /// The server that was started with the scene.
    pub server: Option<Server>,
    /// The namespace of the server's addresses, unless that is the relay's.
    server_namespace: Option<Namespace>,
    /// The relay's namespace.
    pub relay: Namespace,
    /// The NATs with their clients.
    pub sites: Vec<Site>,
    /// The native IPv6 hosts.
    pub hosts: Vec<Host>,
    /// The IPv4 internet; with one arm, also the IPv6 internet.
    pub ipv4: Internet,
    /// The IPv6 internet if it is separate.
    ipv6: Option<Internet>,
}

impl Scene {
    /// Builds the scene and starts the server, if the topology has one.
    ///
    /// # Errors
    ///
    /// Fails without root, or when a tool of the system fails.
    pub fn new(topology: Topology) -> Result<Self> {
        let mut ipv4 = Internet::new("ipv4")?;
        let mut ipv6 = if topology.one_armed {
            None
        } else {
            Some(Internet::new("ipv6")?)
        };
        let relay = build::relay(&mut ipv4, ipv6.as_mut())?;
        let server_namespace = match topology.place {
            Place::Relay => {
                let interface = match topology.one_armed {
                    true => ONE_ARM,
                    false => IPV4_INTERFACE,
                };
                relay.ip_batch(&format!(
                    "addr add {SERVER}/16 dev {interface}
                    addr add {SECONDARY}/16 dev {interface}"
                ))?;
                None
            }
            place => Some(build::server(&mut ipv4, ipv6.as_mut(), place)?),
        };
        let native = ipv6.as_ref().unwrap_or(&ipv4);

        let hosts = (0..topology.hosts)
            .map(|number| build::host(native, number))
            .collect::<Result<Vec<_>>>()?;
        let sites = (0..topology.clients)
            .map(|number| build::site(&ipv4, number, topology.nat))
            .collect::<Result<Vec<_>>>()?;
        let mut scene = Self {
            server: None,
            server_namespace,
            relay,
            sites,
            hosts,
            ipv4,
            ipv6,
        };
        scene.server = match topology.server {
            None => None,
            Some(Maker::Teredo) => {
                let teredo = scene.start_server(&scene.server_config())?;
                Some(Server::Teredo(Box::new(teredo)))
            }
            Some(Maker::Miredo) => Some(Server::Miredo(scene.start_miredo_server()?)),
        };
        Ok(scene)
    }

    /// The namespace of the server's addresses.
    #[must_use]
    pub fn server_namespace(&self) -> &Namespace {
        self.server_namespace.as_ref().unwrap_or(&self.relay)
    }

    /// The first client's site.
    ///
    /// # Panics
    ///
    /// Panics when the topology has no client.
    #[must_use]
    pub fn site(&self) -> &Site {
        &self.sites[0]
    }

    /// The first native host.
    ///
    /// # Panics
    ///
    /// Panics when the topology has no host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.hosts[0]
    }

    /// The IPv6 internet.
    #[must_use]
    pub fn ipv6(&self) -> &Internet {
        self.ipv6.as_ref().unwrap_or(&self.ipv4)
    }

    /// The relay's interfaces that carry IPv4 and IPv6; the same one twice with one arm.
    #[must_use]
    pub fn relay_interfaces(&self) -> [&'static str; 2] {
        match self.ipv6 {
            Some(_) => [IPV4_INTERFACE, IPV6_INTERFACE],
            None => [ONE_ARM; 2],
        }
    }

    /// Takes the programs of the other ends of all hosts' interfaces; see [`Internet::take_programs`].
    pub fn take_programs(&mut self) -> Vec<Attached> {
        let mut programs = self.ipv4.take_programs();
        programs.extend(self.ipv6.iter_mut().flat_map(Internet::take_programs));
        programs
    }

    /// Adds a site with a NAT of this kind.
    ///
    /// # Errors
    ///
    /// Fails when a tool of the system fails.
    pub fn add_site(&mut self, kind: NatKind) -> Result<()> {
        let number = u8::try_from(self.sites.len())?;
        self.sites.push(build::site(&self.ipv4, number, kind)?);
        Ok(())
    }

    /// Adds a host to the IPv4 internet, with one address.
    ///
    /// # Errors
    ///
    /// Fails when its interface cannot be made.
    pub fn add_ipv4_host(&self, name: &str, address: Ipv4Addr) -> Result<Namespace> {
        let namespace = Namespace::new(name)?;
        self.ipv4.plug(&namespace, IPV4_INTERFACE)?;
        namespace.ip(&format!("addr add {address}/16 dev {IPV4_INTERFACE}"))?;
        Ok(namespace)
    }

    /// The state of the relay's namespace that a daemon could leave behind.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::state_of`].
    pub fn relay_state(&self) -> Result<String> {
        self.state_of(&self.relay)
    }

    /// The state of a namespace that a daemon could leave behind: interfaces and their XDP
    /// programs, routes, sysctls of forwarding.
    ///
    /// # Errors
    ///
    /// Fails when `ip` fails.
    pub fn state_of(&self, namespace: &Namespace) -> Result<String> {
        // Changes that a test finds afterwards must not be the kernel's own.
        wait_until("the addresses are settled", SETTLED, || {
            is_settled(namespace)
        })
        .with_context(|| namespace.ip("addr show").unwrap_or_default())?;
        let mut state = String::new();
        for line in namespace.ip("-o -d link show")?.lines() {
            let name = line.split(':').nth(1).unwrap_or_default();
            let program = if line.contains("prog/xdp") {
                " with XDP"
            } else {
                ""
            };
            state += &format!("{name}{program}\n");
        }
        for arguments in ["-6 route show table all", "-4 route show table all"] {
            state += &namespace.ip(arguments)?;
        }
        for key in [
            "net.ipv4.ip_forward",
            "net.ipv4.conf.lo.forwarding",
            "net.ipv6.conf.all.forwarding",
        ] {
            state += &format!("{key} = {}\n", namespace.read_sysctl(key)?);
        }
        Ok(state)
    }

    /// Captures the relay's packets on the IPv4 internet.
    ///
    /// # Errors
    ///
    /// Fails when capturing is not possible.
    pub fn capture_ipv4(&self) -> Result<Capture> {
        Capture::filtered(&self.relay, self.relay_interfaces()[0], |frame| {
            frame.get(12..14) == Some(&[0x08, 0x00])
        })
    }

    /// Checks that XDP carries at least 95 % of the pings that the first client and the first
    /// native host exchange through a relay of ours.
    ///
    /// # Errors
    ///
    /// Fails when a ping is not answered, when the relay did not forward all of them, and when it
    /// forwarded too many in userspace.
    pub fn check_fast_path(&self, relay: &Teredo, client: &Client) -> Result<()> {
        const COUNT: u32 = 40;
        let (site, host) = (self.site(), self.host());
        Ping::to(client.address()).all_from(&host.namespace)?;
        Ping::to(host.address).all_from(&site.client)?;
        let forwarded = relay.packets_during(|| {
            Ping::to(client.address())
                .count(COUNT)
                .all_from(&host.namespace)?;
            Ping::to(host.address).count(COUNT).all_from(&site.client)
        })?;
        for paths in [forwarded.encap, forwarded.decap] {
            ensure!(
                paths.xdp + paths.userspace >= u64::from(2 * COUNT),
                "{forwarded:?}"
            );
            ensure!(fast_share(paths) > 0.95, "{forwarded:?}");
        }
        Ok(())
    }
}

/// Whether every cable that is in use has its link-local address.
fn is_settled(namespace: &Namespace) -> Result<bool> {
    if !namespace.ip("-6 -o addr show tentative")?.is_empty() {
        return Ok(false);
    }
    let local = namespace.ip("-6 route show table local")?;
    let links = namespace.ip("-o link show up type veth")?;
    let mut cables = links.lines().filter(|line| line.contains("LOWER_UP"));
    Ok(cables.all(|line| {
        let name = line.split([':', '@']).nth(1).unwrap_or_default().trim();
        let is_local =
            |line: &str| line.starts_with("local fe80:") && line.contains(&format!("dev {name} "));
        local.lines().any(is_local)
    }))
}
