//! Explanations without side effects, of peers on the fast path and of packets.

use anyhow::{Context as _, Result, ensure};
use teredo::explain::{Stage, Verdict};
use teredo_lab::{
    Scene, Topology,
    scene::{Maker, RELAY},
    traffic::Ping,
    wait_until,
};

use super::{PATIENCE, explain};

#[test]
fn an_explanation_changes_nothing_and_knows_the_fast_path() -> Result<()> {
    let scene = Scene::new(Topology::default())?;
    let relay = scene.start_relay(&scene.relay_config())?;
    let site = scene.site();
    let client = scene.start_client_of(Maker::Teredo, site)?;
    let host = scene.host();
    Ping::to(client.address()).all_from(&host.namespace)?;
    wait_until("the fast path has the client", PATIENCE, || {
        Ping::to(client.address()).all_from(&host.namespace)?;
        Ok(relay.peer(client.address())?.is_some_and(|peer| peer.xdp))
    })?;
    let address = client.address().to_string();
    let native = host.address.to_string();
    let mapped = format!("{}:{}", site.nat.address(), site.port);
    // Bubbles and questions of the proof are over.
    let counters = || -> Result<_> {
        let mut status = relay.status()?;
        // The kernel reports its memberships when it likes.
        status.dropped.remove("encap-multicast");
        Ok((status.packets, status.dropped, status.bubbles, status.peers))
    };
    let told = explain(&scene.relay, &relay, &[&native, &address])?;
    let fast = told.steps.iter().find(|step| step.stage == Stage::FastPath);
    let fast = fast.context("there is a fast path")?;
    ensure!(
        fast.reason.as_deref() == Some("encap-forwarded"),
        "{told:#?}"
    );
    ensure!(told.verdict == Verdict::Passes, "{told:#?}");
    ensure!(told.cause.contains("in the fast path"), "{told:#?}");
    let flow = format!("{address} -> {native}");
    let told = explain(&scene.relay, &relay, &[&flow])?;
    let fast = told.steps.iter().find(|step| step.stage == Stage::FastPath);
    let reason = fast.and_then(|step| step.reason.clone());
    ensure!(reason.as_deref() == Some("decap-forwarded"), "{told:#?}");
    let told = explain(&scene.relay, &relay, &[&mapped])?;
    ensure!(told.cause.contains(&address), "{told:#?}");

    let before = counters()?;
    for subject in [
        &[&*address][..],
        &[&*native],
        &[&*mapped],
        &[&*native, &*address],
    ] {
        for _ in 0..10 {
            explain(&scene.relay, &relay, subject)?;
        }
    }
    ensure!(counters()? == before, "{before:?}: {:?}", counters()?);
    // Many new clients: none is asked.
    for port in 1..20_u16 {
        let stranger = teredo_lab::peers::teredo_address(
            "20.0.0.1".parse()?,
            std::net::SocketAddrV4::new([20, 0, 77, 1].into(), port),
        );
        let told = explain(&scene.relay, &relay, &[&stranger.to_string()])?;
        ensure!(told.verdict == Verdict::Waits, "{told:#?}");
    }
    ensure!(counters()? == before, "{before:?}: {:?}", counters()?);
    Ok(())
}

#[test]
fn a_packet_is_explained_from_digits_and_without_a_daemon() -> Result<()> {
    let scene = Scene::new(Topology {
        clients: 0,
        server: None,
        ..Topology::default()
    })?;
    let mut relay = scene.start_relay(&scene.relay_config())?;
    // From 20.0.10.1:40001 to the relay: no Teredo packet.
    let [a, b, c, d] = RELAY.ip().octets();
    let digits = format!(
        "45000020000040004011000014000a01{a:02x}{b:02x}{c:02x}{d:02x}9c41{:04x}000c00000badc0de",
        RELAY.port()
    );
    let told = explain(&scene.relay, &relay, &["--packet", &digits])?;
    ensure!(told.cause.contains("decap-malformed"), "{told:#?}");
    relay.daemon.terminate()?;
    let told = explain(&scene.relay, &relay, &["2001:0:1400:1::1"])?;
    ensure!(told.cause.contains("no daemon answers"), "{told:#?}");
    ensure!(told.teredo.is_some(), "{told:#?}");
    Ok(())
}
