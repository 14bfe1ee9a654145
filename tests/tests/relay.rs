//! Our relay between Miredo's client behind a NAT and a native host: the traffic that passes, and
//! its path.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use teredo_lab::{
    Capture, NatKind, Scene, Teredo, Topology,
    scene::{IPV6_INTERFACE, Maker, RELAY},
    teredo::{fast_share, is_trusted},
    traffic::{Ping, Tcp, UdpStream},
    wait_until,
};

/// Time after which a step has failed.
const SOON: Duration = Duration::from_secs(10);
/// Least share of a trusted peer's traffic in XDP.
const FAST: f64 = 0.99;

fn scene(one_armed: bool) -> Result<Scene> {
    Scene::new(Topology {
        one_armed,
        ..Topology::default()
    })
}

/// Starts our relay with this `xdp.mode`, which must take effect.
fn start(scene: &Scene, mode: &str) -> Result<Teredo> {
    let relay = scene.start_relay(&scene.relay_config().set("relay.xdp.mode", mode))?;
    for attachment in relay.status()?.xdp {
        ensure!(
            attachment.mode.name() == mode,
            "{attachment:?} instead of {mode}"
        );
    }
    Ok(relay)
}

/// Sends first packets, pings and TCP from both sides, and checks their path.
fn everything_passes(mode: &str, one_armed: bool) -> Result<()> {
    everything_passes_in(&scene(one_armed)?, mode)
}

fn everything_passes_in(scene: &Scene, mode: &str) -> Result<()> {
    let client = scene.start_miredo_client()?;
    let relay = start(scene, mode)?;
    let (site, host) = (scene.site(), scene.host());

    // The first packet waits for the bubbles and is not lost.
    Ping::to(client.address()).all_from(&host.namespace)?;
    let peer = relay
        .peer(client.address())?
        .context("the client is a peer")?;
    ensure!(is_trusted(&peer) && !peer.symmetric, "{peer:?}");
    ensure!(*peer.mapped.ip() == site.nat.address(), "{peer:?}");
    if mode != "off" {
        // The answer that proves its mapping may come behind the reply.
        wait_until("the fast path has the peer", SOON, || {
            Ok(relay.peer(client.address())?.is_some_and(|peer| peer.xdp))
        })?;
    }
    // The path is open in both directions; the client finds that out by itself.
    Ping::to(host.address).all_from(&site.client)?;

    let captures = [
        Capture::start(&host.namespace, IPV6_INTERFACE)?,
        Capture::start(&site.client, "eth0")?,
    ];
    let forwarded = relay.packets_during(|| {
        Ping::to(client.address())
            .count(20)
            .all_from(&host.namespace)?;
        Ping::to(host.address).count(20).all_from(&site.client)?;
        Tcp::to(host.address)
            .upload(2_000_000)
            .download(3_000_000)
            .between(&site.client, &host.namespace)?;
        Tcp::to(client.address())
            .upload(3_000_000)
            .download(2_000_000)
            .between(&host.namespace, &site.client)?;
        Ok(())
    })?;
    for capture in captures {
        let bad = capture.stop()?.bad_checksums()?;
        ensure!(bad.is_empty(), "{} bad checksums: {}", bad.len(), bad[0]);
    }
    for paths in [forwarded.encap, forwarded.decap] {
        ensure!(
            paths.xdp + paths.userspace > 1000,
            "not everything was counted: {forwarded:?}"
        );
        if mode == "off" {
            ensure!(paths.xdp == 0, "{forwarded:?}");
        } else {
            ensure!(fast_share(paths) > FAST, "{forwarded:?}");
        }
    }
    Ok(())
}

#[test]
fn two_armed_native_xdp_forwards_all() -> Result<()> {
    everything_passes("native", false)
}

#[test]
fn two_armed_generic_xdp_forwards_all() -> Result<()> {
    everything_passes("generic", false)
}

#[test]
fn two_armed_userspace_forwards_all() -> Result<()> {
    everything_passes("off", false)
}

#[test]
fn one_armed_native_xdp_forwards_all() -> Result<()> {
    everything_passes("native", true)
}

#[test]
fn one_armed_generic_xdp_forwards_all() -> Result<()> {
    everything_passes("generic", true)
}

#[test]
fn one_armed_userspace_forwards_all() -> Result<()> {
    everything_passes("off", true)
}

#[test]
fn a_relay_with_miredos_server_forwards_all() -> Result<()> {
    for mode in ["native", "off"] {
        let scene = Scene::new(Topology {
            server: Some(Maker::Miredo),
            ..Topology::default()
        })?;
        everything_passes_in(&scene, mode)?;
    }
    Ok(())
}

#[test]
fn auto_chooses_native_if_available() -> Result<()> {
    let scene = scene(false)?;
    let relay = scene.start_relay(&scene.relay_config())?;
    let status = relay.status()?;
    assert_eq!(status.roles, ["relay"]);
    let modes = status.xdp.iter().map(|attachment| attachment.mode.name());
    assert_eq!(modes.collect::<Vec<_>>(), ["native", "native"]);
    Ok(())
}

#[test]
fn the_first_packet_of_the_client_passes() -> Result<()> {
    for (mode, maker) in [
        ("native", Maker::Teredo),
        ("off", Maker::Teredo),
        ("native", Maker::Miredo),
    ] {
        let scene = Scene::new(Topology {
            server: Some(maker),
            ..Topology::default()
        })?;
        let relay = start(&scene, mode)?;
        let client = scene.start_miredo_client()?;
        Ping::to(scene.host().address).all_from(&scene.site().client)?;
        let peer = relay
            .peer(client.address())?
            .context("the client is a peer")?;
        ensure!(is_trusted(&peer), "{mode}, {maker:?}: {peer:?}");
    }
    Ok(())
}

#[test]
fn clients_behind_cones_are_reached() -> Result<()> {
    for nat in [NatKind::FullCone, NatKind::AddressRestricted] {
        let scene = Scene::new(Topology {
            nat,
            ..Topology::default()
        })?;
        let client = scene.start_miredo_client()?;
        let _relay = start(&scene, "native")?;
        Ping::to(client.address()).all_from(&scene.host().namespace)?;
        Ping::to(scene.host().address).all_from(&scene.site().client)?;
    }
    Ok(())
}

fn a_silent_peer_expires_and_is_revived(mode: &str) -> Result<()> {
    let scene = scene(false)?;
    let client = scene.start_miredo_client()?;
    let relay = start(&scene, mode)?;
    let host = &scene.host().namespace;
    Ping::to(client.address()).count(3).all_from(host)?;
    // The peer expires 30 seconds after its last packet (RFC 4380 section 5.2.4).
    wait_until("the peer expires", Duration::from_secs(45), || {
        let peer = relay.peer(client.address())?;
        Ok(!peer.is_some_and(|peer| is_trusted(&peer) || peer.xdp))
    })?;
    // The NAT has lost its mapping for the relay too: only a new exchange of bubbles helps.
    scene.site().nat.forget(*RELAY.ip())?;
    let bubbles = relay.status()?.bubbles;
    let forwarded = relay.packets_during(|| Ping::to(client.address()).count(5).all_from(host))?;
    ensure!(
        relay.status()?.bubbles.sent > bubbles.sent,
        "no bubble was sent"
    );
    ensure!(forwarded.encap.userspace >= 1, "{forwarded:?}");
    Ok(())
}

#[test]
fn a_silent_peer_expires_and_is_revived_in_xdp() -> Result<()> {
    a_silent_peer_expires_and_is_revived("native")
}

#[test]
fn a_silent_peer_expires_and_is_revived_without_xdp() -> Result<()> {
    a_silent_peer_expires_and_is_revived("off")
}

#[test]
fn packets_larger_than_the_mtu_are_too_big() -> Result<()> {
    for mode in ["native", "generic", "off"] {
        let scene = scene(false)?;
        let client = scene.start_miredo_client()?;
        let _relay = start(&scene, mode)?;
        let (site, host) = (scene.site(), &scene.host().namespace);
        let ping = Ping::to(client.address());
        ping.all_from(host)?;
        ping.packet_size(1280).count(5).all_from(host)?;
        Ping::to(scene.host().address)
            .packet_size(1280)
            .count(5)
            .all_from(&site.client)?;
        let pong = ping
            .packet_size(1281)
            .wait(Duration::from_secs(2))
            .from(host)?;
        ensure!(
            pong.received == 0 && pong.text.contains("Packet too big: mtu=1280"),
            "{mode}: {}",
            pong.text
        );
    }
    Ok(())
}

#[test]
fn hop_limit_1_ends_at_the_relay() -> Result<()> {
    for mode in ["native", "generic", "off"] {
        let scene = scene(false)?;
        let client = scene.start_miredo_client()?;
        let _relay = start(&scene, mode)?;
        let (site, host) = (scene.site(), scene.host());
        let (outward, inward) = (Ping::to(host.address), Ping::to(client.address()));
        inward.all_from(&host.namespace)?;
        outward.all_from(&site.client)?;
        for (ping, from) in [(outward, &site.client), (inward, &host.namespace)] {
            ping.hop_limit(2).all_from(from)?;
            let pong = ping.hop_limit(1).wait(Duration::from_secs(2)).from(from)?;
            ensure!(
                pong.received == 0 && pong.text.contains("Time exceeded: Hop limit"),
                "{mode}, {}: {}",
                from.name(),
                pong.text
            );
        }
    }
    Ok(())
}

/// Runs streams in both directions while `restart` ends the daemon and starts another one. They
/// must flow again afterwards; returns the numbers of lost and of sent datagrams, and whether the
/// streams flowed while no daemon ran.
fn restart_under_load(end: impl FnOnce(&mut Teredo) -> Result<()>) -> Result<([u64; 2], bool)> {
    const INTERVAL: Duration = Duration::from_millis(2);
    let scene = scene(false)?;
    let client = scene.start_miredo_client()?;
    let mut relay = start(&scene, "native")?;
    let (site, host) = (scene.site(), scene.host());
    Ping::to(client.address()).all_from(&host.namespace)?;
    Ping::to(host.address).all_from(&site.client)?;

    let streams = [
        UdpStream::start(
            &host.namespace,
            &site.client,
            client.address().into(),
            200,
            INTERVAL,
        )?,
        UdpStream::start(
            &site.client,
            &host.namespace,
            host.address.into(),
            200,
            INTERVAL,
        )?,
    ];
    let flow = |timeout| {
        let before = streams.each_ref().map(UdpStream::received);
        wait_until("both streams flow", timeout, || {
            Ok((0..2).all(|index| streams[index].received() > before[index] + 200))
        })
    };
    flow(SOON)?;
    end(&mut relay)?;
    let flowed = flow(Duration::from_secs(2)).is_ok();
    relay.start_again(&scene.relay)?;
    flow(SOON)?;
    let peer = relay
        .peer(client.address())?
        .context("the client is a peer again")?;
    ensure!(is_trusted(&peer) && peer.xdp, "{peer:?}");
    let forwarded = relay.packets_during(|| flow(SOON))?;
    ensure!(fast_share(forwarded.encap) > FAST, "{forwarded:?}");
    ensure!(fast_share(forwarded.decap) > FAST, "{forwarded:?}");
    let mut lost = [0; 2];
    for (lost, stream) in lost.iter_mut().zip(streams) {
        let report = stream.stop()?;
        *lost = report.sent - report.received;
    }
    Ok((lost, flowed))
}

#[test]
fn trusted_peers_do_not_notice_a_crash() -> Result<()> {
    let (lost, flowed) = restart_under_load(|relay| relay.daemon.kill().map(drop))?;
    ensure!(flowed, "nothing flowed while no daemon ran");
    ensure!(lost == [0, 0], "{lost:?} datagrams were lost");
    Ok(())
}

#[test]
fn traffic_flows_again_after_a_restart() -> Result<()> {
    let (_, flowed) = restart_under_load(|relay| {
        let status = relay.daemon.terminate()?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    })?;
    ensure!(!flowed, "it did not stop forwarding when it ended");
    Ok(())
}

#[test]
fn shutdown_removes_everything() -> Result<()> {
    let scene = scene(false)?;
    let client = scene.start_miredo_client()?;
    let before = scene.relay_state()?;
    let mut relay = start(&scene, "native")?;
    Ping::to(client.address()).all_from(&scene.host().namespace)?;
    ensure!(
        scene.relay_state()? != before,
        "the state does not show the daemon"
    );
    let status = relay.daemon.terminate()?;
    ensure!(status.success(), "it ended with {status}");
    assert_eq!(scene.relay_state()?, before);
    Ok(())
}
