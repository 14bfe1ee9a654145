//! A relay whose prefix BIRD or FRR announces, with the configurations that the project ships: its route is
//! the signal.

use std::{
    net::{Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use teredo_lab::{
    Namespace, Scene, Topology,
    bird::{self, Bird},
    frr::{self, Frr},
    links::Internet,
    scene::{Client, RELAY_IPV6},
    teredo::{Config, Teredo},
    traffic::Ping,
    uninterrupted, wait_until,
};

/// Longest time until a session is there, and a route.
const SOON: Duration = Duration::from_secs(20);
/// The withdrawals after which routers may still see another one.
const TOLERABLE_WITHDRAWALS: u32 = 4;
/// Longest time for which a relay that has crashed stays announced: less than the nine seconds after which BGP would
/// notice it.
const CRASH: Duration = Duration::from_secs(8);
/// The time between two datagrams.
const INTERVAL: Duration = Duration::from_millis(2);
/// Time without a datagram after which no more of them are awaited.
const SILENCE: Duration = Duration::from_secs(2);

/// A relay host and a router, which is the native host of the scene.
struct World<R = Bird> {
    on_relay: R,
    on_router: Bird,
    client: Client,
    scene: Scene,
}

impl World {
    fn new() -> Result<Self> {
        Self::with(|host, own, router| {
            Bird::start(host, bird::RELAY, &[("OWN", own), ("ROUTER", router)])
        })
    }
}

impl<R> World<R> {
    /// Builds a world in which `start` starts the routing daemon of the relay host, which has the first address, with
    /// the router at the second.
    fn with(start: impl FnOnce(&Namespace, &str, &str) -> Result<R>) -> Result<Self> {
        let scene = Scene::new(Topology::default())?;
        let site = scene.site();
        let client = scene.start_client(&site.client, &scene.client_config(site.port))?;
        let host = scene.host();
        host.namespace.ip("route del 2001::/32")?;
        let (relay, router) = (RELAY_IPV6.to_string(), host.address.to_string());
        let on_relay = start(&scene.relay, &relay, &router)?;
        let on_router = Bird::start(
            &host.namespace,
            bird::ROUTER,
            &[("OWN", &router), ("RELAY", &relay)],
        )?;
        let world = Self {
            on_relay,
            on_router,
            client,
            scene,
        };
        wait_until("the session is established", SOON, || {
            let protocol = world.on_router.ask("show protocols relay_1")?;
            Ok(protocol.contains("Established"))
        })?;
        Ok(world)
    }

    fn config(&self) -> Config {
        self.scene.relay_config()
    }

    /// Whether the router has the route to the relay.
    fn is_announced(&self) -> Result<bool> {
        let routes = self.scene.host().namespace.ip("-6 route show 2001::/32")?;
        Ok(routes.contains(&format!("via {RELAY_IPV6}")))
    }

    fn wait_until_announced(&self, is_announced: bool) -> Result<()> {
        wait_until("the router follows", SOON, || {
            Ok(self.is_announced()? == is_announced)
        })
        .with_context(|| self.on_router.daemon.log())
    }

    fn ping(&self) -> Ping {
        Ping::to(self.client.address())
    }

    /// Sends datagrams from the router to the client while the router has a route, which ends because of
    /// `stop`, and returns the numbers of those that were sent and that arrived.
    fn send_while_routed(&self, stop: impl FnOnce() -> Result<()>) -> Result<[u64; 2]> {
        let inside = &self.scene.site().client;
        let address = self.client.address();
        let sink = inside.run(|| UdpSocket::bind((address, 0)))??;
        sink.set_read_timeout(Some(SILENCE))?;
        let target = sink.local_addr()?;
        let outside = &self.scene.host().namespace;
        let source = outside.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)))??;
        let sender = thread::spawn(move || send_until_refused(&source, target));
        let received = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&received);
        let receiver = thread::spawn(move || {
            while uninterrupted(SILENCE, || sink.recv(&mut [0; 64])).is_ok() {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        let arrived = || received.load(Ordering::Relaxed);
        wait_until("the datagrams flow", SOON, || Ok(arrived() >= 100))?;
        stop()?;
        let sent = sender.join().expect("the sender does not panic")?;
        receiver.join().expect("the receiver does not panic");
        Ok([sent, arrived()])
    }
}

fn send_until_refused(socket: &UdpSocket, to: SocketAddr) -> Result<u64> {
    let end = Instant::now() + SOON;
    let mut sent = 0;
    while socket.send_to(&[0; 32], to).is_ok() {
        sent += 1;
        ensure!(Instant::now() < end, "the route does not go");
        thread::sleep(INTERVAL);
    }
    Ok(sent)
}

#[test]
fn a_relay_is_announced_while_it_serves() -> Result<()> {
    let world = World::new()?;
    ensure!(!world.is_announced()?, "there is no relay yet");
    let relay = world.scene.start_relay(&world.config())?;
    world.wait_until_announced(true)?;
    let route = world.on_router.ask("show route all 2001::/32")?;
    for attribute in ["(65535,65281)", "BGP.med: 0"] {
        ensure!(route.contains(attribute), "{attribute}: {route}");
    }
    world.ping().all_from(&world.scene.host().namespace)?;
    // A relay that leaves is the last choice, and still serves.
    world.on_relay.configure(&[("LEAVING", "1")])?;
    wait_until("the router knows that it leaves", SOON, || {
        let route = world.on_router.ask("show route all 2001::/32")?;
        Ok(route.contains("(65535,0)") && route.contains("BGP.local_pref: 0"))
    })?;
    world.ping().all_from(&world.scene.host().namespace)?;
    world.on_relay.configure(&[("LEAVING", "0")])?;
    relay.tell("drain")?;
    world.wait_until_announced(false)
}

#[test]
fn a_relay_that_cannot_serve_is_not_announced() -> Result<()> {
    let world = World::new()?;
    let _relay = world.scene.start_relay(&world.config())?;
    world.wait_until_announced(true)?;
    let forwarding = "net.ipv6.conf.all.forwarding";
    world.scene.relay.sysctl(forwarding, 0)?;
    world.wait_until_announced(false)?;
    world.scene.relay.sysctl(forwarding, 1)?;
    // Switching it off has changed the setting of each interface.
    world.wait_until_announced(true)
}

/// Routers ignore a prefix that BGP announces and withdraws again and again (RFC 2439).
#[test]
fn a_relay_that_cannot_serve_again_and_again_is_announced_later() -> Result<()> {
    let world = World::new()?;
    let relay = world.scene.start_relay(&world.config())?;
    let forwarding = "net.ipv6.conf.all.forwarding";
    for _ in 0..=TOLERABLE_WITHDRAWALS {
        world.wait_until_announced(true)?;
        ensure!(!relay.has_condition("route-damped")?);
        world.scene.relay.sysctl(forwarding, 0)?;
        world.wait_until_announced(false)?;
        world.scene.relay.sysctl(forwarding, 1)?;
    }
    wait_until("the relay serves, and waits", SOON, || {
        Ok(relay.has_condition("route-damped")? && !relay.has_condition("setting")?)
    })?;
    let routes = world
        .scene
        .relay
        .ip("-6 route show table local 2001::/32")?;
    ensure!(
        routes.contains("dev teredo"),
        "what comes is served: {routes}"
    );
    ensure!(!world.is_announced()?);
    Ok(())
}

#[test]
fn a_relay_that_is_stopped_serves_until_the_router_has_followed() -> Result<()> {
    for mode in ["native", "off"] {
        let world = World::new()?;
        let config = world.config().set("relay.xdp.mode", mode);
        let mut relay: Teredo = world.scene.start_relay(&config)?;
        world.wait_until_announced(true)?;
        world.ping().all_from(&world.scene.host().namespace)?;
        let [sent, received] = world.send_while_routed(|| relay.daemon.signal(Signal::SIGTERM))?;
        ensure!(sent == received, "{mode}: {received} of {sent} arrived");
        let status = relay.daemon.wait(SOON)?;
        ensure!(status.success(), "{status}");
    }
    Ok(())
}

#[test]
fn a_relay_that_has_crashed_is_not_announced() -> Result<()> {
    let world = World::new()?;
    let mut relay = world.scene.start_relay(&world.config())?;
    world.wait_until_announced(true)?;
    relay.daemon.kill()?;
    world.wait_until_announced(false)?;
    // The interface is still there, for the next process.
    ensure!(
        world
            .scene
            .relay
            .ip("-6 route show 2001::/32")?
            .contains("linkdown")
    );
    relay.start_again(&world.scene.relay)?;
    world.wait_until_announced(true)?;
    world.ping().all_from(&world.scene.host().namespace)
}

/// The neighbours of the router, each with the last part of its address.
const CUSTOMER: u16 = 2;
const PEER: u16 = 3;

/// A neighbour of the router, which takes whatever it is given.
struct Neighbour {
    bird: Bird,
    _namespace: Namespace,
}

impl Neighbour {
    fn new(segment: &Internet, name: &str, number: u16) -> Result<Self> {
        let namespace = Namespace::new(name)?;
        segment.plug(&namespace, "uplink")?;
        let address = neighbour(number);
        namespace.ip(&format!("addr add {address}/64 dev uplink nodad"))?;
        let router = neighbour(1);
        let bird = Bird::start(
            &namespace,
            &format!(
                "router id 192.0.2.{number};
                log syslog all;
                protocol device {{}}
                protocol bgp upstream {{
                  local {address} as 6450{number};
                  neighbor {router} as 64500;
                  direct;
                  connect delay time 1;
                  ipv6 {{ import all; export none; }};
                }}\n"
            ),
            &[],
        )?;
        Ok(Self {
            bird,
            _namespace: namespace,
        })
    }

    /// The route that it has, with its attributes.
    fn route(&self) -> Result<Option<String>> {
        // Without the route, birdc fails or says so.
        let route = self.bird.ask("show route all 2001::/32").ok();
        Ok(route.filter(|route| route.contains("BGP.as_path: 64500 64512")))
    }
}

/// The addresses of the router and its neighbours.
fn neighbour(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, number)
}

/// Customers of the router's network, unless the operator of the relay wants otherwise.
#[test]
fn a_relay_is_announced_as_far_as_its_operator_says() -> Result<()> {
    let mut world = World::new()?;
    let segment = Internet::new("others")?;
    let router = &world.scene.host().namespace;
    segment.plug(router, "others")?;
    let own = neighbour(1);
    router.ip(&format!("addr add {own}/64 dev others nodad"))?;
    let customer = Neighbour::new(&segment, "customer", CUSTOMER)?;
    let peer = Neighbour::new(&segment, "peer", PEER)?;
    let [to_customer, to_peer] = [CUSTOMER, PEER].map(neighbour);
    world.on_router.extend(&format!(
        "protocol bgp to_customer from customer {{
          local {own} as OWN_AS;
          neighbor {to_customer} as 6450{CUSTOMER};
          direct;
        }}
        protocol bgp to_peer {{
          local {own} as OWN_AS;
          neighbor {to_peer} as 6450{PEER};
          direct;
          ipv6 {{ import none; export where net = PREFIX; }};
        }}\n"
    ))?;
    let _relay = world.scene.start_relay(&world.config())?;
    for name in ["to_customer", "to_peer"] {
        wait_until("the sessions are established", SOON, || {
            let protocol = world.on_router.ask(&format!("show protocols {name}"))?;
            Ok(protocol.contains("Established"))
        })?;
    }
    let reaches = |step: &str, customers: bool, world: bool| {
        wait_until("the route goes as far as it should", SOON, || {
            Ok(customer.route()?.is_some() == customers && peer.route()?.is_some() == world)
        })
        .context(step.to_owned())
    };
    reaches("by default", true, false)?;
    let route = customer.route()?.context("the customer has the route")?;
    ensure!(
        route.contains("(65535,65281)"),
        "customers keep it: {route}"
    );
    for (reach, customers, everybody) in [
        ("WORLD", true, true),
        ("OWN_NETWORK", false, false),
        ("CUSTOMERS", true, false),
    ] {
        world.on_relay.configure(&[("REACH", reach)])?;
        reaches(reach, customers, everybody)?;
    }
    Ok(())
}

/// A relay host with FRR.
fn with_frr() -> Result<World<Frr>> {
    World::with(|host, own, router| {
        let values = [("2001:db8:0:1::10", own), ("2001:db8:0:1::1", router)];
        Frr::start(host, frr::RELAY, &values)
    })
}

impl World<Frr> {
    /// Makes FRR give the route to the router through this route map.
    fn use_route_map(&self, name: &str) -> Result<()> {
        let router = self.scene.host().address;
        let commands = [
            "configure terminal",
            "router bgp 64512",
            "address-family ipv6 unicast",
            &format!("neighbor {router} route-map {name} out"),
        ];
        self.on_relay.ask(&commands).map(drop)
    }

    /// Waits until the router's route has some attributes, and lacks others.
    fn wait_for_attributes(&self, wanted: &[&str], others: &[&str]) -> Result<()> {
        let mut route = String::new();
        let has = wait_until("the router knows", SOON, || {
            route = self.on_router.ask("show route all 2001::/32")?;
            let has = |attribute: &&str| route.contains(attribute);
            Ok(wanted.iter().all(has) && !others.iter().any(has))
        });
        has.with_context(|| format!("{wanted:?} without {others:?}: {route}"))
    }
}

/// FRR takes the relay's route for a signal as BIRD does, and asks routers to prefer others before maintenance.
#[test]
fn frr_announces_a_relay_while_it_serves() -> Result<()> {
    let world = with_frr()?;
    ensure!(!world.is_announced()?, "there is no relay yet");
    // Longer than all that happens meanwhile.
    let config = world.config().set("relay.grace", 10_000);
    let mut relay = world.scene.start_relay(&config)?;
    world.wait_until_announced(true)?;
    let usual = ["BGP.med: 0", "(65535,65281)", "(64500, 2001, 1)"];
    world.wait_for_attributes(&usual, &["(65535,0)"])?;
    world.ping().all_from(&world.scene.host().namespace)?;
    world.use_route_map("LEAVING")?;
    let leaving = [
        "BGP.med: 1000",
        "(65535,0)",
        "(65535,65281)",
        "BGP.local_pref: 0",
    ];
    world.wait_for_attributes(&leaving, &[])?;
    world.ping().all_from(&world.scene.host().namespace)?;
    world.use_route_map("SERVING")?;
    world.wait_for_attributes(&usual, &["(65535,0)"])?;
    // A relay that cannot serve, and one that is stopped.
    let forwarding = "net.ipv6.conf.all.forwarding";
    world.scene.relay.sysctl(forwarding, 0)?;
    world.wait_until_announced(false)?;
    world.scene.relay.sysctl(forwarding, 1)?;
    world.wait_until_announced(true)?;
    let [sent, received] = world.send_while_routed(|| relay.daemon.signal(Signal::SIGTERM))?;
    ensure!(
        relay.daemon.status()?.is_none(),
        "it serves what still comes"
    );
    ensure!(sent == received, "{received} of {sent} arrived");
    relay.daemon.wait(SOON).map(drop)
}

#[test]
fn frr_does_not_announce_a_relay_that_drains_or_has_crashed() -> Result<()> {
    let world = with_frr()?;
    let mut relay = world.scene.start_relay(&world.config())?;
    world.wait_until_announced(true)?;
    relay.daemon.kill()?;
    wait_until("the route of a relay that has crashed goes", CRASH, || {
        Ok(!world.is_announced()?)
    })?;
    relay.start_again(&world.scene.relay)?;
    world.wait_until_announced(true)?;
    world.ping().all_from(&world.scene.host().namespace)?;
    relay.tell("drain")?;
    world.wait_until_announced(false)
}

/// Its operator has to say so.
#[test]
fn frr_announces_a_relay_to_the_world_when_it_is_told_to() -> Result<()> {
    let world = with_frr()?;
    let _relay = world.scene.start_relay(&world.config())?;
    world.wait_until_announced(true)?;
    for (reach, wanted, others) in [
        (
            "WORLD",
            &["BGP.med: 0"][..],
            &["(65535,65281)", "(64500, 2001, 1)"][..],
        ),
        ("OWN-NETWORK", &["(65535,65281)"], &["(64500, 2001, 1)"]),
        ("CUSTOMERS", &["(65535,65281)", "(64500, 2001, 1)"], &[]),
    ] {
        let call = format!("call {reach}");
        let commands = ["configure terminal", "route-map SERVING permit 10", &call];
        world.on_relay.ask(&commands)?;
        world.wait_for_attributes(wanted, others)?;
    }
    Ok(())
}
