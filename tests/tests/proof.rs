//! Proof before the fast path: real clients prove that they are at their mappings, and an
//! endpoint that never answers gets few packets.

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use teredo_lab::{
    Scene, Topology,
    peers::{Peers, bubble},
    scene::{Maker, RELAY, SERVER},
    traffic::Ping,
    wait_until,
};

const PATIENCE: Duration = Duration::from_secs(10);
/// The address of an endpoint that only receives.
const VICTIM: Ipv4Addr = Ipv4Addr::new(20, 0, 2, 1);
/// Packets for it that the relay drops before the test ends.
const DROPPED: u64 = 1_000;
/// The most that may reach it: what goes at once, what one datagram from there pays for, and the trickle
/// of the time that the test takes.
const MOST: u64 = 64 + 16 + 16 * PATIENCE.as_secs();

/// Miredo knows no extensions: its host answers the echo request of the relay.
#[test]
fn r35_miredo_proves_its_mapping() -> Result<()> {
    let scene = Scene::new(Topology::default())?;
    let relay = scene.start_relay(&scene.relay_config())?;
    let client = scene.start_client_of(Maker::Miredo, scene.site())?;
    Ping::to(scene.host().address).all_from(&scene.site().client)?;
    wait_until("the mapping is proved", PATIENCE, || {
        let peer = relay.peer(client.address())?;
        Ok(peer.is_some_and(|peer| peer.proved && peer.xdp))
    })?;
    scene.check_fast_path(&relay, &client)
}

/// Forging the source of a datagram gains little: the fast path never serves the endpoint.
#[test]
fn r36_an_endpoint_that_never_answers_gets_few_packets() -> Result<()> {
    let scene = Scene::new(Topology {
        clients: 0,
        ..Topology::default()
    })?;
    let relay = scene.start_relay(&scene.relay_config())?;
    let namespace = scene.add_ipv4_host("victim", VICTIM)?;
    let peers = Peers::open(&namespace, SERVER, VICTIM, 53, 1)?;
    let victim = peers.address(0);
    let host = scene.host();
    let socket = host
        .namespace
        .run(|| UdpSocket::bind((host.address, 0)))??;
    socket.send_to(b"the packet that creates the entry", (victim, 7))?;
    wait_until("the relay knows the endpoint", PATIENCE, || {
        Ok(relay.peer(victim)?.is_some())
    })?;
    // From the victim's own host, as a forged one would look.
    peers.send(0, RELAY, &bubble(victim, host.address))?;
    wait_until("the relay trusts the endpoint", PATIENCE, || {
        let peer = relay.peer(victim)?;
        Ok(peer.is_some_and(|peer| peer.last_received_seconds.is_some()))
    })?;
    let before = relay.status()?.packets.encap;
    let dropped = || -> Result<u64> {
        let dropped = relay.status()?.dropped;
        Ok(dropped.get("encap-unproved").copied().unwrap_or_default())
    };
    wait_until("packets are dropped", PATIENCE, || {
        for _ in 0..100 {
            socket.send_to(&[7; 100], (victim, 7))?;
        }
        Ok(dropped()? >= DROPPED)
    })?;
    let peer = relay
        .peer(victim)?
        .context("the relay knows the endpoint")?;
    ensure!(!peer.proved && !peer.xdp, "{peer:?}");
    let after = relay.status()?.packets.encap;
    ensure!(after.xdp == before.xdp, "{after:?}");
    ensure!(after.userspace - before.userspace <= MOST, "{after:?}");
    Ok(())
}
