//! Our client behind NATs of the kernel, end to end: with our and Miredo's servers, relays and
//! clients.

mod host;
mod link;
mod mapping;
mod nats;
mod offload;
mod peers;
mod servers;

use std::{net::Ipv6Addr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use teredo::metrics::ClientStatus;
use teredo_lab::{
    Namespace, NatKind, Scene, Teredo, Topology,
    scene::Maker,
    teredo::{Config, client_address},
    traffic::Ping,
    wait_for,
};

/// Seconds between maintenance solicitations in tests that wait for one.
const REFRESH: i64 = 5;
/// One such interval, with a lost solicitation and some slack.
const MAINTENANCE: Duration = Duration::from_secs(15);
/// Time after which the transmission rules call a peer unreachable, with some slack.
const VERDICT: Duration = Duration::from_secs(10);

/// Makes a scene without relay or client, whose sites have NATs of these kinds.
fn scene(server: Maker, nats: &[NatKind]) -> Result<Scene> {
    let mut scene = Scene::new(Topology {
        clients: 0,
        server: Some(server),
        ..Topology::default()
    })?;
    for nat in nats {
        scene.add_site(*nat)?;
    }
    Ok(scene)
}

/// The state of our client.
fn status(teredo: &Teredo) -> Result<ClientStatus> {
    teredo.status()?.client.context("the daemon has a client")
}

/// Waits until the client's interface has another address than this one, and no further address.
fn another_address(namespace: &Namespace, old: Ipv6Addr, timeout: Duration) -> Result<Ipv6Addr> {
    let address = wait_for("the interface has another address", timeout, || {
        Ok(client_address(namespace).filter(|address| *address != old))
    })?;
    let addresses = namespace.ip("-6 -o addr show dev teredo")?;
    ensure!(!addresses.contains(&old.to_string()), "{addresses}");
    Ok(address)
}

/// Our client's configuration, with the short interval.
fn quick_config(scene: &Scene, port: u16) -> Config {
    scene.client_config(port).set("client.refresh", REFRESH)
}

/// Sends a ping that must end in a Destination Unreachable, not in silence.
fn is_unreachable(from: &Namespace, to: Ipv6Addr) -> Result<()> {
    let pong = Ping::to(to).wait(VERDICT).from(from)?;
    ensure!(pong.received == 0, "a reply came:\n{}", pong.text);
    ensure!(
        pong.text.contains("unreachable"),
        "nothing said why:\n{}",
        pong.text
    );
    Ok(())
}
