//! Twelve faults, each in a scene of its own.

use std::{
    net::{Ipv6Addr, SocketAddrV4, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use teredo_lab::{
    Namespace, NatKind, Scene, Teredo, Topology,
    peers::teredo_address,
    process::output,
    programs::Attached,
    scene::{Client, IPV4_INTERFACE, IPV6_INTERFACE, RELAY, SERVER},
    teredo::{Config, binary, client_address, is_trusted},
    traffic::Ping,
    wait_for,
};

#[path = "../host/mod.rs"]
mod host;

use super::{headline, is_in_status, is_told, is_well};

/// A prefix of native IPv6 that is not on the link, and an address in it.
const FAR: &str = "2600:99::/32";
const FAR_HOST: &str = "2600:99::1";
/// Seconds between maintenance solicitations.
const REFRESH: i64 = 5;
/// The time within which a client gets another address.
const MAINTENANCE: Duration = Duration::from_secs(40);

/// A scene with a relay, and clients of our own at all of its sites.
struct World {
    relay: Teredo,
    clients: Vec<Client>,
    scene: Scene,
}

impl World {
    fn new(nats: &[NatKind]) -> Result<Self> {
        Self::with(nats, |config| config)
    }

    fn with(nats: &[NatKind], change: impl FnOnce(Config) -> Config) -> Result<Self> {
        let mut scene = Scene::new(Topology {
            clients: 0,
            ..Topology::default()
        })?;
        for nat in nats {
            scene.add_site(*nat)?;
        }
        let relay = scene.start_relay(&change(scene.relay_config()))?;
        let clients = scene.sites.iter().map(|site| {
            let config = scene.client_config(site.port);
            scene.start_client(&site.client, &config.set("client.refresh", REFRESH))
        });
        let clients = clients.collect::<Result<Vec<_>>>()?;
        Ok(Self {
            relay,
            clients,
            scene,
        })
    }

    fn client(&self, number: usize) -> Result<(&Teredo, Ipv6Addr)> {
        let client = &self.clients[number];
        Ok((client.teredo().context("it is ours")?, client.address()))
    }

    /// Checks that the relay has no fault to tell about a subject, and none with these words.
    fn relay_is_well(&self, subject: &[&str], words: &[&str]) -> Result<()> {
        is_well(&self.scene.relay, &self.relay, subject, words)
    }

    /// Waits until the relay tells the cause.
    fn relay_tells(&self, subject: &[&str], words: &[&str]) -> Result<()> {
        is_told(&self.scene.relay, &self.relay, subject, words)
    }

    /// Waits until the relay tells the cause, while the host goes on sending.
    fn relay_tells_under_traffic(&self, to: &[Ipv6Addr], words: &[&str]) -> Result<()> {
        let is_over = AtomicBool::new(false);
        let host = &self.scene.host().namespace;
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    for &address in to {
                        let ping = Ping::to(address).wait(Duration::from_millis(300));
                        // Most of them are lost.
                        let _ = ping.from(host);
                    }
                }
            });
            let mut told = self.relay_tells(&[&to[0].to_string()], words);
            if told.is_err() {
                // A peer is trusted for half a minute after its last packet.
                told = self.relay_tells(&[&to[0].to_string()], words);
            }
            is_over.store(true, Ordering::Relaxed);
            told
        })
    }
}

const ONE: &[NatKind] = &[NatKind::PortRestricted];
const TWO: &[NatKind] = &[NatKind::PortRestricted, NatKind::PortRestricted];

#[test]
fn a_firewall() -> Result<()> {
    let world = World::new(ONE)?;
    let (_, client) = world.client(0)?;
    let subject = client.to_string();
    let words = ["the firewall of this host drops", "udp dport 3545 accept"];
    world.relay_is_well(&[&subject], &words)?;
    world.scene.relay.nft(
        "table inet lab {
            chain input {
                type filter hook input priority 0
                udp dport 3545 drop
            }
        }",
    )?;
    world.relay_tells(&[&subject], &words)
}

#[test]
fn a_route_that_is_gone() -> Result<()> {
    let world = World::new(&[])?;
    let gateway = world.scene.host().address;
    let words = ["no route to 2600:99::1", "add one"];
    world
        .scene
        .relay
        .ip(&format!("-6 route add {FAR} via {gateway}"))?;
    world.relay_is_well(&[FAR_HOST], &words)?;
    world.scene.relay.ip(&format!("-6 route del {FAR}"))?;
    world.relay_tells(&[FAR_HOST], &words)
}

#[test]
fn a_wrong_server() -> Result<()> {
    let world = World::new(ONE)?;
    let (client, _) = world.client(0)?;
    let words = ["DOWN", "no server answers", "client.server wrong"];
    let line = headline(client)?;
    ensure!(line.starts_with("ok"), "{line}");
    let mut scene = world.scene;
    drop((world.clients, world.relay));
    scene.add_site(NatKind::PortRestricted)?;
    let site = &scene.sites[1];
    let config = scene
        .client_config(site.port)
        .set("client.server", vec!["20.0.99.99".to_owned()]);
    let client = Teredo::start(&site.client, &config)?;
    is_in_status(&client, &words)
}

#[test]
fn a_pair_of_nats_that_do_not_go_together() -> Result<()> {
    let words = ["the NAT of this client is symmetric", "client.port"];
    for (nat, is_fault) in [(NatKind::PortRestricted, false), (NatKind::Symmetric, true)] {
        let world = World::new(&[nat, NatKind::PortRestricted])?;
        let (client, _) = world.client(0)?;
        let (_, other) = world.client(1)?;
        let namespace = &world.scene.sites[0].client;
        // It is lost in one of the two worlds.
        Ping::to(other).from(namespace)?;
        let subject = other.to_string();
        match is_fault {
            true => is_told(namespace, client, &[&subject], &words)?,
            false => is_well(namespace, client, &[&subject], &words)?,
        }
    }
    Ok(())
}

/// Checks that an MTU that is too small is told once `change` has made it so.
fn mtu_is_told(words: &[&str], change: impl FnOnce(&Namespace) -> Result<()>) -> Result<()> {
    let world = World::new(ONE)?;
    let (_, client) = world.client(0)?;
    let subject = client.to_string();
    world.relay_is_well(&[&subject], words)?;
    change(&world.scene.relay)?;
    world.relay_tells(&[&subject], words)
}

#[test]
fn an_mtu_that_is_too_small() -> Result<()> {
    let words = ["the MTU of v4 is 1300", "need 1308", "mtu 1308"];
    mtu_is_told(&words, |relay| {
        relay.ip(&format!("link set {IPV4_INTERFACE} mtu 1300"))?;
        Ok(())
    })
}

/// As a router on the path may tell this host.
#[test]
fn a_path_whose_mtu_is_too_small() -> Result<()> {
    let words = ["has an MTU of 1200", "need 1308", "ip -4 route get"];
    mtu_is_told(&words, |relay| {
        let routes = relay.ip(&format!("-4 route show dev {IPV4_INTERFACE}"))?;
        for route in routes.lines() {
            let route = route.trim();
            relay.ip(&format!(
                "-4 route change {route} dev {IPV4_INTERFACE} mtu 1200"
            ))?;
        }
        Ok(())
    })
}

#[test]
fn a_limit_that_is_reached() -> Result<()> {
    let world = World::with(&[], |config| config.set("relay.new-peer-rate", 1))?;
    let host = world.scene.host();
    let stranger =
        |port: u16| teredo_address(SERVER, SocketAddrV4::new([20, 0, 77, 1].into(), port));
    let native = host.address.to_string();
    let subject = [&*native, &*stranger(9).to_string()].map(str::to_owned);
    let subject = [&*subject[0], &*subject[1]];
    let words = ["encap-new-peer-rate", "raise relay.new-peer-rate"];
    world.relay_is_well(&subject, &words)?;
    let is_over = AtomicBool::new(false);
    let socket = host
        .namespace
        .run(|| UdpSocket::bind((host.address, 0)))??;
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut ports = (1000..60_000).cycle();
            while !is_over.load(Ordering::Relaxed) {
                let port = ports.next().unwrap_or(1000);
                // The kernel may have no room.
                let _ = socket.send_to(b"to a stranger", (stranger(port), 7));
                thread::sleep(Duration::from_millis(20));
            }
        });
        let told = world.relay_tells(&subject, &words);
        is_over.store(true, Ordering::Relaxed);
        told
    })
}

#[test]
fn a_relay_that_drains() -> Result<()> {
    let world = World::new(ONE)?;
    let (_, client) = world.client(0)?;
    let subject = client.to_string();
    let words = ["encap-draining", "start the daemon again"];
    world.relay_is_well(&[&subject], &words)?;
    let mut drain = std::process::Command::new(binary()?);
    output(drain.args(["drain", "--config"]).arg(world.relay.file()))?;
    world.relay_tells(&[&subject], &words)?;
    is_in_status(&world.relay, &["draining"])
}

/// While the interface has no address, another program takes it.
#[test]
fn a_foreign_program() -> Result<()> {
    let host = host::Host::new()?;
    let relay = Teredo::start(&host.namespace, &Config::new().set("relay.port", 3545))?;
    is_in_status(&relay, &["ok"])?;
    host.namespace.ip("link set wan down")?;
    is_in_status(&relay, &["DOWN"])?;
    wait_for("the interface is free", super::PATIENCE, || {
        let link = host.namespace.ip("link show dev wan")?;
        Ok((!link.contains("prog/xdp")).then_some(()))
    })?;
    let _foreign = Attached::nothing(&host.namespace, &["wan"])?;
    host.namespace.ip_batch(
        "link set wan up
        route add default via 20.0.0.254
        addr replace 2001:db8::1/64 dev wan nodad
        route replace default via 2001:db8::2",
    )?;
    is_in_status(&relay, &["degraded", "wan", "program"])
}

#[test]
fn a_neighbour_that_is_stale() -> Result<()> {
    let world = World::new(&[])?;
    let host = world.scene.host();
    let subject = host.address.to_string();
    let words = [
        "does not answer neighbour solicitations on v6",
        "`ip neigh show",
    ];
    Ping::to(host.address).all_from(&world.scene.relay)?;
    world.relay_is_well(&[&subject], &words)?;
    host.namespace
        .ip(&format!("link set {IPV6_INTERFACE} down"))?;
    let relay = &world.scene.relay;
    relay.ip(&format!("neigh flush dev {IPV6_INTERFACE}"))?;
    // The kernel asks in vain.
    Ping::to(host.address).from(relay)?;
    world.relay_tells(&[&subject], &words)
}

#[test]
fn bubbles_that_are_lost_one_way() -> Result<()> {
    let words = ["nothing comes back", "20.0.1.1:3545"];
    let world = World::new(TWO)?;
    let clients = [world.client(0)?.1, world.client(1)?.1];
    world.relay_is_well(&[&clients[0].to_string()], &words)?;
    for site in &world.scene.sites {
        site.nat.namespace().nft(&format!(
            "table ip lab {{
                chain out {{
                    type filter hook forward priority 0
                    ip daddr {} drop
                }}
            }}",
            RELAY.ip()
        ))?;
    }
    world.relay_tells_under_traffic(&clients, &words)
}

#[test]
fn an_address_that_has_changed() -> Result<()> {
    let world = World::new(ONE)?;
    let (_, old) = world.client(0)?;
    let (site, host) = (world.scene.site(), world.scene.host());
    let words = ["the address of the client has changed"];
    Ping::to(old).all_from(&host.namespace)?;
    world.relay_is_well(&[&old.to_string()], &words)?;
    site.nat.reboot(50_000)?;
    let new = wait_for("the client has another address", MAINTENANCE, || {
        Ok(client_address(&site.client).filter(|address| *address != old))
    })?;
    Ping::to(new).all_from(&host.namespace)?;
    world.relay_tells_under_traffic(&[old, new], &["has changed", &new.to_string()])
}

#[test]
fn a_client_that_is_asleep() -> Result<()> {
    let world = World::new(ONE)?;
    let (client, address) = world.client(0)?;
    let words = ["has fallen silent", "asleep"];
    Ping::to(address).all_from(&world.scene.host().namespace)?;
    let peer = world.relay.peer(address)?.context("it is known")?;
    ensure!(is_trusted(&peer), "{peer:?}");
    world.relay_is_well(&[&address.to_string()], &words)?;
    client.daemon.signal(Signal::SIGSTOP)?;
    world.relay_tells_under_traffic(&[address], &words)
}
