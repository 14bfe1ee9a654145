//! The control: the same traffic with a relay, a server and a client that are all Miredo. Failures
//! here are due to the laboratory.

use std::net::Ipv4Addr;

use anyhow::Result;
use teredo_lab::{
    NatKind, Scene, Topology,
    peers::{Conversation, Peers},
    scene::{Maker, RELAY, SERVER},
    traffic::{Ping, Tcp},
};

/// A scene without any of our programs.
fn control() -> Topology {
    Topology {
        server: Some(Maker::Miredo),
        ..Topology::default()
    }
}

#[test]
fn first_packet_from_a_native_host() -> Result<()> {
    let scene = Scene::new(control())?;
    let client = scene.start_miredo_client()?;
    let _relay = scene.start_miredo_relay()?;
    Ping::to(client.address()).all_from(&scene.host().namespace)
}

#[test]
fn first_packet_from_the_client() -> Result<()> {
    let scene = Scene::new(control())?;
    let _relay = scene.start_miredo_relay()?;
    let _client = scene.start_miredo_client()?;
    Ping::to(scene.host().address).all_from(&scene.site().client)
}

#[test]
fn first_packet_after_the_hole_was_closed() -> Result<()> {
    let scene = Scene::new(control())?;
    let client = scene.start_miredo_client()?;
    let mut relay = scene.start_miredo_relay()?;
    Ping::to(client.address()).all_from(&scene.host().namespace)?;
    relay.daemon.terminate()?;
    scene.site().nat.forget(*RELAY.ip())?;
    let _relay = scene.start_miredo_relay()?;
    Ping::to(client.address()).all_from(&scene.host().namespace)
}

#[test]
fn ping_and_tcp_both_ways_with_one_arm_and_two() -> Result<()> {
    for one_armed in [false, true] {
        let scene = Scene::new(Topology {
            one_armed,
            ..control()
        })?;
        let client = scene.start_miredo_client()?;
        let _relay = scene.start_miredo_relay()?;
        let (site, host) = (scene.site(), scene.host());
        Ping::to(client.address())
            .count(10)
            .all_from(&host.namespace)?;
        Ping::to(host.address).count(10).all_from(&site.client)?;
        let upward = Tcp::to(host.address).upload(2_000_000).download(3_000_000);
        upward.between(&site.client, &host.namespace)?;
        let downward = Tcp::to(client.address())
            .upload(3_000_000)
            .download(2_000_000);
        downward.between(&host.namespace, &site.client)?;
    }
    Ok(())
}

#[test]
fn every_kind_of_nat_that_teredo_supports() -> Result<()> {
    for nat in [NatKind::FullCone, NatKind::AddressRestricted] {
        let scene = Scene::new(Topology { nat, ..control() })?;
        let client = scene.start_miredo_client()?;
        let _relay = scene.start_miredo_relay()?;
        Ping::to(client.address()).all_from(&scene.host().namespace)?;
        Ping::to(scene.host().address).all_from(&scene.site().client)?;
    }
    Ok(())
}

#[test]
fn peers_that_are_only_sockets() -> Result<()> {
    let scene = Scene::new(Topology {
        clients: 0,
        ..control()
    })?;
    let _relay = scene.start_miredo_relay()?;
    let address = Ipv4Addr::new(20, 0, 2, 1);
    let namespace = scene.add_ipv4_host("peers", address)?;
    let peers = Peers::open(&namespace, SERVER, address, 10_000, 100)?;
    let conversation = Conversation::new(scene.host(), &peers)?;
    conversation.open(RELAY)?;
    conversation.exchange(RELAY)
}
