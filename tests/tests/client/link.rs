//! Two clients on one link, behind a NAT that does not hairpin.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use teredo_lab::{
    Namespace, NatKind,
    scene::{Maker, Scene},
    teredo::{Config, is_trusted},
    traffic::{Ping, Tcp},
};

use super::{is_unreachable, scene, status};

/// The second client's address on the link, and its service port.
const NEIGHBOUR: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 168, 0, 3), 40_101);

/// Makes a scene with a neighbour of its client.
fn neighbours() -> Result<(Scene, Namespace)> {
    let scene = scene(Maker::Teredo, &[NatKind::PortRestricted])?;
    let neighbour = Namespace::new("neighbour")?;
    scene.site().nat.connect(&neighbour, NEIGHBOUR.0)?;
    Ok((scene, neighbour))
}

/// The configurations of both clients.
fn configs(scene: &Scene, discovery: bool, hairpinning: bool) -> [Config; 2] {
    [scene.site().port, NEIGHBOUR.1].map(|port| {
        scene
            .client_config(port)
            .set("client.local-discovery", discovery)
            .set("client.hairpinning", hairpinning)
    })
}

/// The first client on the link discovers the second at once; the second has to be told.
fn find_each_other(newcomer_begins: bool) -> Result<()> {
    let (scene, neighbour) = neighbours()?;
    let [here, there] = configs(&scene, true, false);
    let one = scene.start_client(&scene.site().client, &here)?;
    let other = scene.start_client(&neighbour, &there)?;
    let ways = [
        (&scene.site().client, &one, other.address()),
        (&neighbour, &other, one.address()),
    ];
    let first = usize::from(newcomer_begins);
    for (from, client, to) in [ways[first], ways[1 - first]] {
        Ping::to(to).all_from(from)?;
        Ping::to(to).count(3).all_from(from)?;
        let daemon = client.teredo().context("it is ours")?;
        let peer = daemon.peer(to)?.context("it is a peer")?;
        ensure!(peer.local && is_trusted(&peer), "{peer:?}");
        ensure!(peer.mapped.ip().is_private(), "{peer:?}");
    }
    Tcp::to(other.address())
        .upload(1_000_000)
        .download(1_000_000)
        .between(&scene.site().client, &neighbour)?;
    Ok(())
}

#[test]
fn c62_a_newcomer_on_the_link_is_found() -> Result<()> {
    find_each_other(false)
}

#[test]
fn c60_a_newcomer_finds_its_neighbours() -> Result<()> {
    find_each_other(true)
}

#[test]
fn x50_alternate_addresses_lead_to_a_neighbour_without_discovery() -> Result<()> {
    let (scene, neighbour) = neighbours()?;
    let [here, there] = configs(&scene, false, true);
    let one = scene.start_client(&scene.site().client, &here)?;
    let other = scene.start_client(&neighbour, &there)?;
    Ping::to(other.address()).all_from(&scene.site().client)?;
    Ping::to(one.address()).count(3).all_from(&neighbour)
}

#[test]
fn neighbours_need_discovery_or_alternate_addresses() -> Result<()> {
    let (scene, neighbour) = neighbours()?;
    let [here, there] = configs(&scene, false, false);
    let one = scene.start_client(&scene.site().client, &here)?;
    let other = scene.start_client(&neighbour, &there)?;
    let mapped = [&one, &other].map(|client| client.teredo().map(status).transpose());
    let [one, _] = mapped;
    ensure!(
        one?.is_some_and(|status| status.port_preserving),
        "the NAT keeps ports"
    );
    is_unreachable(&scene.site().client, other.address())
}
