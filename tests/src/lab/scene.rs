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

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use anyhow::{Context as _, Result};

use super::{
    capture::Capture,
    links::Internet,
    miredo,
    namespace::Namespace,
    nat::{Nat, NatKind},
    teredo::{Config, Teredo},
};

/// The server's primary address; the secondary one follows it.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(20, 0, 0, 1);
/// The relay's outer address and service port.
pub const RELAY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(20, 0, 1, 1), 3545);
/// The relay's address on the IPv6 internet.
pub const RELAY_IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 6, 0, 0, 0, 0, 1);
/// The server's address on the IPv6 internet.
pub const SERVER_IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 6, 0, 0, 0, 0, 0x53);
/// The service port of the first client; the next has the next.
const CLIENT_PORT: u16 = 40001;
/// The interface of a host on the IPv4 internet.
pub const IPV4_INTERFACE: &str = "v4";
/// The interface of a host on the IPv6 internet.
pub const IPV6_INTERFACE: &str = "v6";
/// The server's secondary address.
pub const SECONDARY: Ipv4Addr = Ipv4Addr::from_bits(SERVER.to_bits() + 1);
/// The interface of a one-armed relay.
pub const ONE_ARM: &str = "arm";
/// The interface of a server's secondary address when that has its own.
pub const SECONDARY_INTERFACE: &str = "v4b";

/// Who has made a program.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Maker {
    /// We.
    #[default]
    Teredo,
    /// The others.
    Miredo,
}

/// Where the server's addresses are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Place {
    /// In a namespace of its own, both on one interface.
    #[default]
    Alone,
    /// As before, on two interfaces.
    TwoInterfaces,
    /// On the relay's interface: one process is to have both roles.
    Relay,
}

/// What the scene looks like.
#[derive(Clone, Copy, Debug)]
pub struct Topology {
    /// The relay has one interface for both internets.
    pub one_armed: bool,
    /// The kind of all NATs.
    pub nat: NatKind,
    /// How many clients there are, each behind a NAT of its own.
    pub clients: u8,
    /// How many native IPv6 hosts there are.
    pub hosts: u8,
    /// Where the server is.
    pub place: Place,
    /// Whose server is started with the scene, if one is.
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
    /// Where the client runs.
    pub client: Namespace,
    /// The client's service port.
    pub port: u16,
}

/// A native IPv6 host.
#[derive(Debug)]
pub struct Host {
    /// Where it is.
    pub namespace: Namespace,
    /// Its address.
    pub address: Ipv6Addr,
}

/// A server that runs.
#[derive(Debug)]
pub enum Server {
    /// Ours.
    Teredo(Box<Teredo>),
    /// Miredo's.
    Miredo(miredo::Server),
}

impl Server {
    /// Ours, if it is.
    #[must_use]
    pub fn teredo(&self) -> Option<&Teredo> {
        match self {
            Self::Teredo(teredo) => Some(teredo),
            Self::Miredo(_) => None,
        }
    }
}

/// The scene, with a server running if the topology says so. Relay and clients are started by who
/// uses it, and dropped before it.
#[derive(Debug)]
pub struct Scene {
    /// The server that was started with the scene.
    pub server: Option<Server>,
    /// Where a server's addresses are, unless they are the relay's.
    server_namespace: Option<Namespace>,
    /// Where the relay runs.
    pub relay: Namespace,
    /// NATs with their clients.
    pub sites: Vec<Site>,
    /// Native IPv6 hosts.
    pub hosts: Vec<Host>,
    /// The IPv4 internet; with one arm, the IPv6 one too.
    pub ipv4: Internet,
    /// The IPv6 internet when it is another one.
    ipv6: Option<Internet>,
}

impl Scene {
    /// Builds it and starts the server, if there is one.
    ///
    /// # Errors
    ///
    /// Without root, or when a tool of the system fails.
    pub fn new(topology: Topology) -> Result<Self> {
        let mut ipv4 = Internet::new("ipv4")?;
        let mut ipv6 = if topology.one_armed {
            None
        } else {
            Some(Internet::new("ipv6")?)
        };
        let relay = relay_namespace(&mut ipv4, ipv6.as_mut())?;
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
            place => Some(server_namespace(&mut ipv4, ipv6.as_mut(), place)?),
        };
        let native = ipv6.as_ref().unwrap_or(&ipv4);

        let hosts = (0..topology.hosts)
            .map(|number| host(native, number))
            .collect::<Result<Vec<_>>>()?;
        let sites = (0..topology.clients)
            .map(|number| site(&ipv4, number, topology.nat))
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

    /// Where the server's addresses are.
    #[must_use]
    pub fn server_namespace(&self) -> &Namespace {
        self.server_namespace.as_ref().unwrap_or(&self.relay)
    }

    /// The configuration of our server in this scene; XDP as it can be had.
    #[must_use]
    pub fn server_config(&self) -> Config {
        let addresses = [SERVER, SECONDARY].map(|address| address.to_string());
        Config::new().set("server.ipv4", addresses.to_vec())
    }

    /// Starts our server.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn start_server(&self, config: &Config) -> Result<Teredo> {
        Teredo::start(self.server_namespace(), config)
    }

    /// Starts Miredo's server.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn start_miredo_server(&self) -> Result<miredo::Server> {
        miredo::Server::start(self.server_namespace(), SERVER)
    }

    /// The first client's site.
    ///
    /// # Panics
    ///
    /// When the topology has no client.
    #[must_use]
    pub fn site(&self) -> &Site {
        &self.sites[0]
    }

    /// The first native host.
    ///
    /// # Panics
    ///
    /// When the topology has no host.
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

    /// Starts Miredo's relay.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn start_miredo_relay(&self) -> Result<miredo::Relay> {
        miredo::Relay::start(&self.relay, *RELAY.ip(), RELAY.port())
    }

    /// The configuration of our relay in this scene; XDP as it can be had.
    #[must_use]
    pub fn relay_config(&self) -> Config {
        let mut interfaces = self.relay_interfaces().map(str::to_owned).to_vec();
        interfaces.dedup();
        Config::new()
            .set("relay.ipv4", RELAY.ip().to_string())
            .set("relay.port", i64::from(RELAY.port()))
            .set("relay.xdp.interfaces", interfaces)
    }

    /// The configuration of both roles in one process, in [`Place::Relay`]; the relay's endpoint
    /// may be that of the server's primary address.
    #[must_use]
    pub fn dual_config(&self, relay: SocketAddrV4) -> Config {
        self.relay_config()
            .merge(self.server_config())
            .set("relay.ipv4", relay.ip().to_string())
            .set("relay.port", i64::from(relay.port()))
    }

    /// Starts our relay.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn start_relay(&self, config: &Config) -> Result<Teredo> {
        Teredo::start(&self.relay, config)
    }

    /// Starts Miredo's client at the first site and waits until it is qualified.
    ///
    /// # Errors
    ///
    /// When it is not qualified in time.
    pub fn start_client(&self) -> Result<miredo::Client> {
        self.start_client_at(self.site())
    }

    /// Starts Miredo's client at a site and waits until it is qualified.
    ///
    /// # Errors
    ///
    /// When it is not qualified in time.
    pub fn start_client_at(&self, site: &Site) -> Result<miredo::Client> {
        miredo::Client::start(&site.client, SERVER, site.port)
            .with_context(|| format!("the client behind {}", site.nat.address()))
    }

    /// Adds a host to the IPv4 internet, with one address.
    ///
    /// # Errors
    ///
    /// When its interface cannot be made.
    pub fn add_ipv4_host(&self, name: &str, address: Ipv4Addr) -> Result<Namespace> {
        let namespace = Namespace::new(name)?;
        self.ipv4.plug(&namespace, IPV4_INTERFACE)?;
        namespace.ip(&format!("addr add {address}/16 dev {IPV4_INTERFACE}"))?;
        Ok(namespace)
    }

    /// What a daemon could leave behind in the relay's namespace.
    ///
    /// # Errors
    ///
    /// As [`Self::state_of`].
    pub fn relay_state(&self) -> Result<String> {
        self.state_of(&self.relay)
    }

    /// What a daemon could leave behind in a namespace: interfaces and their XDP
    /// programs, routes, sysctls of forwarding.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn state_of(&self, namespace: &Namespace) -> Result<String> {
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

    /// Captures what the relay sends and receives on the IPv4 internet.
    ///
    /// # Errors
    ///
    /// When capturing is not possible.
    pub fn capture_ipv4(&self) -> Result<Capture> {
        Capture::filtered(&self.relay, self.relay_interfaces()[0], |frame| {
            frame.get(12..14) == Some(&[0x08, 0x00])
        })
    }
}

fn native_address(host: u16) -> Ipv6Addr {
    let mut segments = RELAY_IPV6.segments();
    segments[7] = host;
    segments.into()
}

fn relay_namespace(ipv4: &mut Internet, ipv6: Option<&mut Internet>) -> Result<Namespace> {
    let relay = Namespace::new("relay")?;
    let interfaces = if let Some(ipv6) = ipv6 {
        ipv4.plug_xdp(&relay, IPV4_INTERFACE)?;
        ipv6.plug_xdp(&relay, IPV6_INTERFACE)?;
        [IPV4_INTERFACE, IPV6_INTERFACE]
    } else {
        ipv4.plug_xdp(&relay, ONE_ARM)?;
        [ONE_ARM; 2]
    };
    relay.ip_batch(&format!(
        "addr add {}/16 dev {}
        addr add {RELAY_IPV6}/64 dev {} nodad",
        RELAY.ip(),
        interfaces[0],
        interfaces[1]
    ))?;
    relay.sysctl("net.ipv6.conf.all.forwarding", 1)?;
    Ok(relay)
}

fn server_namespace(
    ipv4: &mut Internet,
    ipv6: Option<&mut Internet>,
    place: Place,
) -> Result<Namespace> {
    let server = Namespace::new("server")?;
    ipv4.plug_xdp(&server, IPV4_INTERFACE)?;
    // Each address is to be found by its own interface only.
    server.sysctl("net.ipv4.conf.all.arp_ignore", 1)?;
    server.sysctl("net.ipv4.conf.all.arp_announce", 2)?;
    let secondary = if place == Place::TwoInterfaces {
        ipv4.plug_xdp(&server, SECONDARY_INTERFACE)?;
        format!("{SECONDARY}/32 dev {SECONDARY_INTERFACE}")
    } else {
        format!("{SECONDARY}/16 dev {IPV4_INTERFACE}")
    };
    ipv6.map_or(&*ipv4, |ipv6| &*ipv6)
        .plug(&server, IPV6_INTERFACE)?;
    server.ip_batch(&format!(
        "addr add {SERVER}/16 dev {IPV4_INTERFACE}
        addr add {secondary}
        addr add {SERVER_IPV6}/64 dev {IPV6_INTERFACE} nodad
        route add 2001::/32 via {RELAY_IPV6}"
    ))?;
    Ok(server)
}

fn host(internet: &Internet, number: u8) -> Result<Host> {
    let namespace = Namespace::new(&format!("host{number}"))?;
    let address = native_address(0x10 + u16::from(number));
    internet.plug(&namespace, IPV6_INTERFACE)?;
    namespace.ip_batch(&format!(
        "addr add {address}/64 dev {IPV6_INTERFACE} nodad
        route add 2001::/32 via {RELAY_IPV6}"
    ))?;
    Ok(Host { namespace, address })
}

fn site(internet: &Internet, number: u8, kind: NatKind) -> Result<Site> {
    let port = CLIENT_PORT + u16::from(number);
    let inside = SocketAddrV4::new(Ipv4Addr::new(192, 168, number, 2), port);
    let wan = Ipv4Addr::new(20, 0, 10 + number, 1);
    let lan = Ipv4Addr::new(192, 168, number, 1);
    let nat = Nat::new(&format!("nat{number}"), internet, wan, lan, inside, kind)?;
    let client = Namespace::new(&format!("client{number}"))?;
    nat.connect(&client)?;
    Ok(Site { nat, client, port })
}
