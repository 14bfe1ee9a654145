//! Peers that are asked while the relay is restarted.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Result, ensure};
use teredo_lab::{
    namespace::Namespace,
    peers::{Peers, answer_to, is_bubble},
    scene::{RELAY, SERVER, Scene, Topology},
    service::Service,
};

use crate::world::SOON;

/// The number of UDP.
const UDP: u8 = 17;
/// Peers that are asked at once.
const PEERS: u16 = 20;

/// Lets the host send to peers that the relay does not know, restarts it when they have got its bubbles, and
/// lets them answer the next process.
fn asked_during(
    mode: &str,
    mut end: impl FnMut(&mut Service) -> Result<()>,
) -> Result<(Peers, Namespace, Vec<bool>)> {
    let scene = Scene::new(Topology::default())?;
    let config = scene.relay_config().set("relay.xdp.mode", mode);
    let mut service = Service::start(&scene.relay, &config)?;
    let address = Ipv4Addr::new(20, 0, 77, 1);
    let namespace = scene.add_ipv4_host("peers", address)?;
    let peers = Peers::open(&namespace, SERVER, address, 10_000, PEERS)?;
    let host = scene.host();
    let socket = host
        .namespace
        .run(|| std::net::UdpSocket::bind("[::]:0"))??;
    let mut bubbles = Vec::new();
    for index in 0..peers.len() {
        socket.send_to(b"the first packet", (peers.address(index), 9))?;
        let is_indirect = |packet: &[u8]| packet.get(8..).is_some_and(is_bubble);
        bubbles.push(peers.wait_for(index, "an indirect bubble", SOON, is_indirect)?);
    }
    end(&mut service)?;
    service.begin(&scene.relay)?;
    let mut arrived = Vec::new();
    for (index, bubble) in bubbles.iter().enumerate() {
        peers.send(index, RELAY, &answer_to(&bubble[8..]))?;
        let is_data = |packet: &[u8]| packet.len() > 48 && packet[6] == UDP;
        let came = peers.wait_for(index, "the first packet", Duration::from_secs(3), is_data);
        arrived.push(came.is_ok());
    }
    ensure!(service.status().is_ok(), "{}", service.log());
    Ok((peers, namespace, arrived))
}

#[test]
fn first_packets_are_delivered_after_a_restart() -> Result<()> {
    for mode in ["native", "off"] {
        let (_, _, arrived) = asked_during(mode, Service::terminate)?;
        ensure!(
            arrived.iter().all(|arrived| *arrived),
            "{mode}: {arrived:?}"
        );
    }
    Ok(())
}
