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
    scene::{Client, RELAY_IPV6},
    teredo::{Config, Teredo},
    traffic::Ping,
    wait_until,
};

/// Longest time until a session is there, and a route.
const SOON: Duration = Duration::from_secs(20);
/// The withdrawals after which routers may still see another one.
const TOLERABLE_WITHDRAWALS: u32 = 4;
/// The time between two datagrams.
const INTERVAL: Duration = Duration::from_millis(2);

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
        sink.set_read_timeout(Some(Duration::from_secs(2)))?;
        let target = sink.local_addr()?;
        let outside = &self.scene.host().namespace;
        let source = outside.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)))??;
        let sender = thread::spawn(move || send_until_refused(&source, target));
        let received = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&received);
        let receiver = thread::spawn(move || {
            while sink.recv(&mut [0; 64]).is_ok() {
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

/// FRR takes the relay's route for a signal as BIRD does, and asks routers to prefer others before maintenance.
#[test]
fn frr_announces_a_relay_while_it_serves() -> Result<()> {
    let world = World::with(|host, own, router| {
        let values = [("2001:db8:0:1::10", own), ("2001:db8:0:1::1", router)];
        Frr::start(host, frr::RELAY, &values)
    })?;
    ensure!(!world.is_announced()?, "there is no relay yet");
    let mut relay = world.scene.start_relay(&world.config())?;
    world.wait_until_announced(true)?;
    world.ping().all_from(&world.scene.host().namespace)?;
    let bgp = ["configure terminal", "router bgp 64512"];
    let leave = |command| world.on_relay.ask(&[bgp[0], bgp[1], command]);
    leave("bgp graceful-shutdown")?;
    wait_until("the router knows that it leaves", SOON, || {
        let route = world.on_router.ask("show route all 2001::/32")?;
        let attributes = ["(65535,0)", "(65535,65281)", "BGP.local_pref: 0"];
        Ok(attributes.iter().all(|attribute| route.contains(attribute)))
    })?;
    world.ping().all_from(&world.scene.host().namespace)?;
    leave("no bgp graceful-shutdown")?;
    // A relay that cannot serve, and one that is stopped.
    let forwarding = "net.ipv6.conf.all.forwarding";
    world.scene.relay.sysctl(forwarding, 0)?;
    world.wait_until_announced(false)?;
    world.scene.relay.sysctl(forwarding, 1)?;
    world.wait_until_announced(true)?;
    let [sent, received] = world.send_while_routed(|| relay.daemon.signal(Signal::SIGTERM))?;
    ensure!(sent == received, "{received} of {sent} arrived");
    relay.daemon.wait(SOON).map(drop)
}
