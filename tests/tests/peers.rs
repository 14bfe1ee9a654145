//! Our relay and many peers.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use teredo_lab::{
    Scene, Teredo, Topology,
    peers::{Conversation, Peers},
    scene::{RELAY, SERVER},
    teredo::{fast_share, is_trusted},
    wait_until,
};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(20, 0, 2, 1);
const FIRST_PORT: u16 = 10_000;
const TIMEOUT: Duration = Duration::from_secs(30);

fn start(scene: &Scene, mode: &str) -> Result<Teredo> {
    scene.start_relay(&scene.relay_config().set("relay.xdp.mode", mode))
}

#[test]
fn a_thousand_peers_use_the_fast_path() -> Result<()> {
    const COUNT: u16 = 1000;
    let scene = Scene::for_many_peers()?;
    let relay = start(&scene, "native")?;
    let namespace = scene.add_ipv4_host("peers", ADDRESS)?;
    let peers = Peers::open(&namespace, SERVER, ADDRESS, FIRST_PORT, COUNT)?;
    let conversation = Conversation::new(scene.host(), &peers)?;
    conversation.open(RELAY)?;
    conversation.prove()?;
    wait_until("all are in XDP", TIMEOUT, || {
        let known = relay.peers()?;
        let fast = known.iter().filter(|peer| is_trusted(peer) && peer.xdp);
        Ok(fast.count() == usize::from(COUNT))
    })?;
    assert_eq!(relay.status()?.peers.trusted, u64::from(COUNT));
    let forwarded = relay.packets_during(|| conversation.exchange(RELAY))?;
    for paths in [forwarded.encap, forwarded.decap] {
        ensure!(
            paths.xdp + paths.userspace == u64::from(COUNT),
            "{forwarded:?}"
        );
        ensure!(fast_share(paths) > 0.99, "{forwarded:?}");
    }
    Ok(())
}

/// Relay and server have the limits and paces that are the defaults (L-18, S-23): nine peers a second,
/// after a few at once, and no first packet is lost.
#[test]
fn l18_three_hundred_peers_of_one_server_begin_at_once() -> Result<()> {
    const COUNT: u16 = 300;
    const PATIENCE: Duration = Duration::from_secs(45);
    let scene = Scene::new(Topology {
        clients: 0,
        ..Topology::default()
    })?;
    let relay = start(&scene, "native")?;
    let namespace = scene.add_ipv4_host("peers", ADDRESS)?;
    let peers = Peers::open(&namespace, SERVER, ADDRESS, FIRST_PORT, COUNT)?;
    let begin = Instant::now();
    Conversation::new(scene.host(), &peers)?.open_at_once(RELAY, PATIENCE)?;
    let took = begin.elapsed();
    println!("{took:?}");
    ensure!(took < PATIENCE, "{took:?}");
    let dropped = relay.status()?.dropped;
    for reason in ["encap-bubble-limit", "encap-no-answer"] {
        ensure!(
            dropped.get(reason).is_none_or(|&count| count == 0),
            "{dropped:?}"
        );
    }
    Ok(())
}

#[test]
fn twenty_thousand_destinations_do_not_thrash_the_kernel() -> Result<()> {
    const BATCH: u16 = 500;
    let scene = Scene::for_many_peers()?;
    // All peers are at one address, and new at once because of one host.
    let config = scene
        .relay_config()
        .set("relay.xdp.mode", "off")
        .set("relay.new-peer-rate", 100_000)
        .set("relay.unproved-rate", 100_000);
    let relay = scene.start_relay(&config)?;
    let namespace = scene.add_ipv4_host("peers", ADDRESS)?;
    for batch in 0..40 {
        let port = FIRST_PORT + batch * BATCH;
        let peers = Peers::open(&namespace, SERVER, ADDRESS, port, BATCH)?;
        let conversation = Conversation::new(scene.host(), &peers)?;
        conversation.open_unasked(RELAY)?;
        conversation.prove()?;
        conversation.exchange(RELAY)?;
    }
    assert_eq!(relay.status()?.peers.trusted, 20_000);
    // One entry per destination would be more than the kernel holds.
    let neighbours = scene.relay.ip("-6 neigh show nud all")?;
    let count = neighbours.lines().count();
    ensure!(count < 100, "{count} IPv6 neighbours: {neighbours}");
    Ok(())
}
