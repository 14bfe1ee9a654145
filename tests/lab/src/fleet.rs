//! Three relays behind a router that spreads packets over them: a fleet with one IPv4 address, or relays with
//! addresses of their own.
//!
//! The router is where the standard scene has its relay, and forwards to a segment with the relays:
//!
//! ```text
//!   IPv4 internet ---+                          +--- relay 10.9.0.1, 2001:db8:9::1
//!                    +--- router --- segment ---+--- relay 10.9.0.2, 2001:db8:9::2
//!   IPv6 internet ---+                          +--- relay 10.9.0.3, 2001:db8:9::3
//! ```
//!
//! BIRD tells the router which relays serve, with the configurations that the project ships, and the kernel
//! chooses one: for a fleet by addresses and ports, among others by the destination alone.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    os::unix::fs::OpenOptionsExt as _,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::{
    bird::{self, Bird},
    heartbeat::Heartbeat,
    links::Internet,
    namespace::Namespace,
    nat::NatKind,
    scene::{Client, RELAY, RELAY_IPV6, Scene, Topology},
    teredo::{Config, Teredo},
    traffic::{Ping, UdpStream},
    wait::wait_until,
};

/// The number of relays.
pub const RELAYS: u8 = 3;
/// The network of the relays' IPv4 addresses.
const SERVICES: &str = "20.0.2.0/24";
/// The IPv4 address of a fleet.
pub const SERVICE: Ipv4Addr = Ipv4Addr::new(20, 0, 2, 2);
/// The interface of a relay.
pub const ARM: &str = "arm";
/// The router's interface to the relays.
const INSIDE: &str = "inside";
/// The last part of the router's addresses on the segment.
const ROUTER: u8 = 254;
/// The network of the relays' IPv6 addresses.
const SEGMENT: &str = "2001:db8:9::/64";
/// The port at which relays reach each other.
const PORT: u16 = 3546;
/// Bubbles a second through a server: enough for hundreds of new peers at once.
const RATE: i64 = 5_000;
/// The time between two numbers on a TCP connection.
const BEAT: Duration = Duration::from_millis(10);
/// Longest time until routers know what happened.
const SOON: Duration = Duration::from_secs(30);

/// A relay.
#[derive(Debug)]
pub struct Member {
    /// The relay.
    pub relay: Teredo,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its last part of addresses on the segment.
    number: u8,
    bird: Bird,
}

/// What the relays have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Design {
    /// One IPv4 address, and their peers.
    Fleet,
    /// Nothing but the prefix.
    Apart,
}

/// The relays with their router.
#[derive(Debug)]
pub struct Fleet {
    /// The relays.
    pub members: Vec<Member>,
    design: Design,
    _router: Bird,
    _segment: Internet,
    _directory: TempDir,
}

/// Clients at all sites of a scene, and what they and its host say to each other.
#[derive(Debug)]
pub struct Conversation {
    /// Two streams from each client, and two to it, each of which is a flow of its own.
    pub streams: Vec<UdpStream>,
    /// A TCP connection from each client, and one to it.
    pub connections: Vec<Heartbeat>,
    /// The clients, in the order of their sites.
    pub clients: Vec<Client>,
}

impl Conversation {
    /// Starts the clients, and streams with a datagram every `interval`, when all know each other.
    ///
    /// # Errors
    ///
    /// Fails when a client is not qualified in time.
    pub fn start(scene: &Scene, interval: Duration) -> Result<Self> {
        let (mut clients, mut streams, mut connections) = (Vec::new(), Vec::new(), Vec::new());
        let host = scene.host();
        for site in &scene.sites {
            let client = scene.start_client(&site.client, &scene.client_config(site.port))?;
            Ping::to(client.address()).all_from(&host.namespace)?;
            Ping::to(host.address).all_from(&site.client)?;
            let (outside, inside) = (&host.namespace, &site.client);
            let (there, here) = (client.address().into(), host.address.into());
            connections.push(Heartbeat::start(outside, inside, there, BEAT)?);
            connections.push(Heartbeat::start(inside, outside, here, BEAT)?);
            for _ in 0..2 {
                streams.push(UdpStream::start(outside, inside, there, 200, interval)?);
                streams.push(UdpStream::start(inside, outside, here, 200, interval)?);
            }
            clients.push(client);
        }
        Ok(Self {
            streams,
            connections,
            clients,
        })
    }
}

/// Builds a scene for a fleet, in which one of three clients is behind a symmetric NAT.
///
/// # Errors
///
/// Fails as [`Scene::new`].
pub fn scene() -> Result<Scene> {
    let mut scene = Scene::new(Topology {
        clients: 2,
        server: None,
        ..Topology::default()
    })?;
    scene.add_site(NatKind::Symmetric)?;
    scene.with_patient_server()
}

/// Adds a host to the IPv4 internet that reaches the fleet.
///
/// # Errors
///
/// Fails when its interface cannot be made.
pub fn add_host(scene: &Scene, name: &str, address: Ipv4Addr) -> Result<Namespace> {
    let host = scene.add_ipv4_host(name, address)?;
    lead(&host)?;
    Ok(host)
}

/// Leads packets for the relays to their router.
fn lead(host: &Namespace) -> Result<()> {
    host.ip(&format!("route add {SERVICES} via {}", RELAY.ip()))
        .map(drop)
}

/// The IPv4 address of a relay.
fn service(design: Design, number: u8) -> Ipv4Addr {
    match design {
        Design::Fleet => SERVICE,
        Design::Apart => Ipv4Addr::new(20, 0, 2, 10 + number),
    }
}

fn ipv4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, number)
}

fn ipv6(number: u8) -> String {
    format!("2001:db8:9::{number:x}")
}

impl Fleet {
    /// Starts a fleet in a scene without relay, and waits until the router spreads packets over all of it.
    ///
    /// # Errors
    ///
    /// Fails when a tool of the system fails, or a relay or BIRD does not start.
    pub fn start(scene: &Scene) -> Result<Self> {
        Self::of(scene, Design::Fleet)
    }

    /// Starts relays as [`Fleet::start`] does.
    ///
    /// # Errors
    ///
    /// Fails as [`Fleet::start`].
    pub fn of(scene: &Scene, design: Design) -> Result<Self> {
        let router = &scene.relay;
        let mut segment = Internet::new("segment")?;
        segment.plug(router, INSIDE)?;
        router.ip_batch(&format!(
            "addr add {}/24 dev {INSIDE}
            addr add {}/64 dev {INSIDE} nodad",
            ipv4(ROUTER),
            ipv6(ROUTER)
        ))?;
        router.forward()?;
        match design {
            Design::Fleet => {
                for family in ["ipv4", "ipv6"] {
                    // Addresses and ports.
                    router.sysctl(&format!("net.{family}.fib_multipath_hash_policy"), 1)?;
                }
            }
            Design::Apart => {
                router.sysctl("net.ipv6.fib_multipath_hash_policy", 3)?;
                router.sysctl("net.ipv6.fib_multipath_hash_fields", 2)?;
                for number in 1..=RELAYS {
                    let (to, via) = (service(design, number), ipv4(number));
                    router.ip(&format!("route add {to}/32 via {via}"))?;
                }
            }
        }
        let around = scene.sites.iter().map(|site| site.nat.namespace());
        for namespace in around.chain([scene.server_namespace()]) {
            lead(namespace)?;
        }
        // Clients test by their server what an address sends that they do not know, also a relay's own.
        let to_relays = format!("-6 route add {SEGMENT} via {RELAY_IPV6}");
        scene.server_namespace().ip(&to_relays)?;
        let directory = tempfile::tempdir()?;
        let key = directory.path().join("fleet.key");
        let mut file = fs::OpenOptions::new();
        let mut file = file.write(true).create_new(true).mode(0o600).open(&key)?;
        std::io::Write::write_all(&mut file, format!("{}\n", "5a".repeat(32)).as_bytes())?;
        let members: Vec<_> = (1..=RELAYS)
            .map(|number| SocketAddrV4::new(ipv4(number), PORT).to_string())
            .collect();
        let of_router = router_bird(router, design)?;
        let members = (1..=RELAYS)
            .map(|number| {
                let own = service(design, number);
                let config = Config::new()
                    .set("relay.ipv4", own.to_string())
                    .set("relay.xdp.interfaces", vec![ARM.to_owned()])
                    .set("relay.xdp.mode", "native")
                    .set("relay.bubble-rate", RATE);
                let config = match design {
                    Design::Apart => config,
                    Design::Fleet => config
                        .set(
                            "relay.fleet.listen",
                            members[usize::from(number) - 1].clone(),
                        )
                        .set("relay.fleet.members", members.clone())
                        .set("relay.fleet.key-file", key.to_string_lossy().into_owned()),
                };
                Member::start(&mut segment, number, design, &config)
            })
            .collect::<Result<Vec<_>>>()?;
        let fleet = Self {
            members,
            design,
            _router: of_router,
            _segment: segment,
            _directory: directory,
        };
        fleet.wait_until_spread(scene, &[1, 2, 3])?;
        Ok(fleet)
    }

    /// Waits until the router spreads packets over these relays and no others.
    ///
    /// # Errors
    ///
    /// Fails when that takes too long, with the relays' logs.
    pub fn wait_until_spread(&self, scene: &Scene, wanted: &[u8]) -> Result<()> {
        let router = &scene.relay;
        let mut routes = String::new();
        let spread = wait_until("the router follows", SOON, || {
            let of_ipv4 = router.ip(&format!("-4 route show {SERVICE}"))?;
            let of_ipv6 = router.ip("-6 route show 2001::/32")?;
            routes = format!("{of_ipv4}{of_ipv6}");
            let has = |text: &str, address: &str| {
                let mut words = text.split_whitespace();
                words.any(|word| word == address)
            };
            Ok((1..=RELAYS).all(|number| {
                let is_wanted = wanted.contains(&number);
                let has_ipv4 = has(&of_ipv4, &ipv4(number).to_string());
                has(&of_ipv6, &ipv6(number)) == is_wanted
                    && (has_ipv4 == is_wanted || self.design == Design::Apart)
            }))
        });
        spread.with_context(|| {
            let logs = self.members.iter().map(|member| member.relay.daemon.log());
            format!("{routes}\n{}", logs.collect::<Vec<_>>().join("\n"))
        })
    }
}

impl Member {
    fn start(segment: &mut Internet, number: u8, design: Design, config: &Config) -> Result<Self> {
        let namespace = Namespace::new(&format!("relay{number}"))?;
        segment.plug_xdp(&namespace, ARM)?;
        // All have the same address, for which nobody is asked on the segment.
        namespace.sysctl("net.ipv4.conf.all.arp_ignore", 1)?;
        namespace.sysctl("net.ipv4.conf.all.arp_announce", 2)?;
        let (own, router) = (ipv6(number), ipv6(ROUTER));
        let (own_ipv4, router_ipv4) = (ipv4(number).to_string(), ipv4(ROUTER).to_string());
        namespace.ip_batch(&format!(
            "addr add {}/32 dev lo
            addr add {own_ipv4}/24 dev {ARM}",
            service(design, number)
        ))?;
        namespace.ip_batch(&way_out(number))?;
        namespace.sysctl("net.ipv6.conf.all.forwarding", 1)?;
        let relay = Teredo::start(&namespace, config)?;
        let address = format!("{SERVICE}/32");
        let (of_both, of_fleet) = (
            [("OWN", &*own), ("ROUTER", &router)],
            [
                ("OWN_IPV4", &*own_ipv4),
                ("ROUTER_IPV4", &router_ipv4),
                ("SERVICE", &address),
            ],
        );
        let bird = match design {
            Design::Fleet => {
                let values = [&of_both[..], &of_fleet].concat();
                Bird::start(&namespace, bird::FLEET, &values)?
            }
            Design::Apart => Bird::start(&namespace, bird::RELAY, &of_both)?,
        };
        Ok(Self {
            relay,
            namespace,
            number,
            bird,
        })
    }

    /// The number of the relay, from 1.
    #[must_use]
    pub const fn number(&self) -> u8 {
        self.number
    }

    /// Cuts the relay off from the router and the other relays; nobody is told.
    ///
    /// # Errors
    ///
    /// Fails when the interface cannot be set down.
    pub fn cut_off(&self) -> Result<()> {
        self.namespace.ip(&format!("link set {ARM} down")).map(drop)
    }

    /// Connects the relay again, with the addresses and routes that the kernel has forgotten meanwhile.
    ///
    /// # Errors
    ///
    /// Fails when the interface cannot be set up.
    pub fn connect_again(&self) -> Result<()> {
        self.namespace.ip(&format!("link set {ARM} up"))?;
        self.namespace.ip_batch(&way_out(self.number))
    }

    /// Makes BIRD ask the router to prefer other relays (RFC 8326), or not any more.
    ///
    /// # Errors
    ///
    /// Fails when BIRD does not answer.
    pub fn set_leaving(&self, is_leaving: bool) -> Result<()> {
        let value = if is_leaving { "1" } else { "0" };
        self.bird.configure(&[("LEAVING", value)])
    }

    /// Starts the relay again after it has ended in any way.
    ///
    /// # Errors
    ///
    /// Fails when it does not start.
    pub fn start_again(&mut self) -> Result<()> {
        self.relay.start_again(&self.namespace)
    }
}

/// The relay's address and routes that go with the interface.
fn way_out(number: u8) -> String {
    format!(
        "addr add {}/64 dev {ARM} nodad
        route add default via {}
        route add default via {}",
        ipv6(number),
        ipv4(ROUTER),
        ipv6(ROUTER)
    )
}

fn router_bird(router: &Namespace, design: Design) -> Result<Bird> {
    if design == Design::Apart {
        let relays: Vec<_> = (1..=RELAYS).map(ipv6).collect();
        let configuration = bird::router_of(&relays)?;
        return Bird::start(router, &configuration, &[("OWN", &ipv6(ROUTER))]);
    }
    let mut values = vec![
        ("OWN".to_owned(), ipv6(ROUTER)),
        ("OWN_IPV4".to_owned(), ipv4(ROUTER).to_string()),
        ("SERVICE".to_owned(), format!("{SERVICE}/32")),
    ];
    for number in 1..=RELAYS {
        values.push((format!("RELAY_{number}"), ipv6(number)));
        values.push((format!("RELAY_{number}_IPV4"), ipv4(number).to_string()));
    }
    let values: Vec<_> = values
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    Bird::start(router, bird::FLEET_ROUTER, &values)
}
