//! Hosts that are connected as containers are: by veths whose other ends have no XDP program, so that
//! frames of native programs vanish.

use std::{panic, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use teredo_lab::{
    Namespace, Scene, Teredo, Topology,
    scene::{Client, Maker},
    traffic::{Ping, Tcp},
    wait_until,
};

/// Requests of one run of `ping`.
const COUNT: u32 = 40;
/// The time between two requests where the rate matters.
const INTERVAL: Duration = Duration::from_millis(50);
/// Octets of each TCP connection in each direction.
const OCTETS: u64 = 1_000_000;
/// Most requests that may be lost when native mode ends: those of one and a half seconds, [`INTERVAL`]
/// apart.
const LOST: u32 = 30;
/// Requests beside those that a driver drops, in eight seconds.
const OTHERS: u32 = 1600;
/// Most replies to [`OTHERS`] that may come after `ping` has gone, or were with a frame that the driver dropped.
const LATE: u32 = 80;

/// Checks that the daemon is in generic mode and says why.
fn is_generic_for_a_reason(daemon: &Teredo) -> Result<()> {
    let attachments = daemon.status()?.xdp;
    ensure!(!attachments.is_empty());
    for attachment in attachments {
        ensure!(attachment.mode.name() == "generic", "{attachment:?}");
        ensure!(attachment.reason.contains("other end"), "{attachment:?}");
    }
    Ok(())
}

/// Sends packets both ways, all of which must arrive.
fn all_arrive(scene: &Scene, client: &Client) -> Result<()> {
    let (site, host) = (scene.site(), scene.host());
    for (to, from) in [
        (client.address(), &host.namespace),
        (host.address, &site.client),
    ] {
        Ping::to(to)
            .count(COUNT)
            .interval(INTERVAL)
            .all_from(from)?;
    }
    Ok(())
}

fn everything_arrives_without_programs(one_armed: bool) -> Result<()> {
    let mut scene = Scene::new(Topology {
        one_armed,
        server: None,
        ..Topology::default()
    })?;
    drop(scene.take_programs());
    let server = scene.start_server(&scene.server_config())?;
    is_generic_for_a_reason(&server)?;
    let relay = scene.start_relay(&scene.relay_config())?;
    is_generic_for_a_reason(&relay)?;
    let client = scene.start_client_of(Maker::Teredo, scene.site())?;
    ensure!(server.advertised()?.xdp > 0, "the server's program answers");
    all_arrive(&scene, &client)?;
    let forwarded = relay.packets_during(|| all_arrive(&scene, &client))?;
    ensure!(forwarded.encap.xdp > 0 && forwarded.decap.xdp > 0);

    unfinished_checksums_arrive(&scene, &client)
}

/// Sends TCP both ways while all interfaces leave checksums to the other end, which finishes none.
fn unfinished_checksums_arrive(scene: &Scene, client: &Client) -> Result<()> {
    for namespace in [
        &scene.relay,
        scene.server_namespace(),
        scene.ipv4.namespace(),
        scene.ipv6().namespace(),
        &scene.host().namespace,
        &scene.site().client,
    ] {
        offload_checksums(namespace)?;
    }
    all_arrive(scene, client)?;
    let (site, host) = (&scene.site().client, &scene.host().namespace);
    let there = Tcp::to(scene.host().address);
    there
        .upload(OCTETS)
        .download(OCTETS)
        .between(site, host)
        .context("TCP of the client")?;
    let back = Tcp::to(client.address());
    back.upload(OCTETS)
        .download(OCTETS)
        .between(host, site)
        .context("TCP of the native host")?;
    Ok(())
}

/// Lets every interface leave checksums to the other end, which is the default of the kernel.
fn offload_checksums(namespace: &Namespace) -> Result<()> {
    for line in namespace.ip("-o link show type veth")?.lines() {
        let name = line.split([':', '@']).nth(1).context("a name")?;
        namespace.offload(name.trim(), "tx on")?;
    }
    Ok(())
}

#[test]
fn everything_arrives_at_a_container_with_one_interface() -> Result<()> {
    everything_arrives_without_programs(true)
}

#[test]
fn everything_arrives_at_a_container_with_two_interfaces() -> Result<()> {
    everything_arrives_without_programs(false)
}

/// Starts a relay in native mode and a client, which have sent to each other.
fn native(scene: &Scene) -> Result<(Teredo, Client)> {
    let relay = scene.start_relay(&scene.relay_config())?;
    let client = scene.start_client_of(Maker::Teredo, scene.site())?;
    all_arrive(scene, &client)?;
    let mut attachments = relay.status()?.xdp.into_iter();
    ensure!(attachments.all(|attachment| attachment.mode.name() == "native"));
    Ok((relay, client))
}

/// Takes the programs from the other ends under traffic.
fn native_mode_ends_in_time(one_armed: bool) -> Result<()> {
    let mut scene = Scene::new(Topology {
        one_armed,
        ..Topology::default()
    })?;
    let (relay, client) = native(&scene)?;
    let programs = scene.take_programs();
    let (site, host) = (scene.site(), scene.host());
    let pong = thread::scope(|scope| {
        let ping = Ping::to(host.address)
            .count(3 * COUNT)
            .interval(INTERVAL)
            .wait(Duration::from_secs(2));
        let traffic = scope.spawn(move || ping.from(&site.client));
        wait_until("there is traffic", Duration::from_secs(10), || {
            let paths = relay.status()?.packets.decap;
            Ok(paths.xdp > u64::from(COUNT + COUNT / 2))
        })?;
        drop(programs);
        traffic
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
    })?;
    ensure!(pong.sent == 3 * COUNT, "{pong:?}");
    ensure!(
        pong.sent - pong.received <= LOST,
        "{} lost: {}",
        pong.sent - pong.received,
        pong.text
    );
    is_generic_for_a_reason(&relay)?;
    all_arrive(&scene, &client).context("in generic mode")
}

#[test]
fn native_mode_of_one_interface_ends_in_time() -> Result<()> {
    native_mode_ends_in_time(true)
}

#[test]
fn native_mode_of_two_interfaces_ends_in_time() -> Result<()> {
    native_mode_ends_in_time(false)
}

#[test]
fn unfinished_checksums_arrive_in_native_mode() -> Result<()> {
    for one_armed in [true, false] {
        let scene = Scene::new(Topology {
            one_armed,
            ..Topology::default()
        })?;
        let (relay, client) = native(&scene)?;
        unfinished_checksums_arrive(&scene, &client)?;
        let mut attachments = relay.status()?.xdp.into_iter();
        ensure!(attachments.all(|attachment| attachment.mode.name() == "native"));
    }
    Ok(())
}

/// A veth drops frames of a native program that are longer than the MTU of the other end, and counts
/// them.
#[test]
fn a_driver_that_drops_what_it_is_given_ends_native_mode() -> Result<()> {
    let scene = Scene::new(Topology::default())?;
    let (relay, _client) = native(&scene)?;
    scene.ipv6().namespace().ip("link set port0 mtu 700")?;
    let (site, host) = (scene.site(), scene.host());
    wait_until("native mode has ended", Duration::from_secs(20), || {
        let ping = Ping::to(host.address).count(COUNT).packet_size(1000);
        let lost = ping.wait(Duration::from_millis(100)).from(&site.client)?;
        ensure!(lost.received == 0, "{lost:?}");
        let attachments = relay.status()?.xdp;
        Ok(attachments.iter().all(|attachment| {
            attachment.mode.name() == "generic" && attachment.reason.contains("dropped")
        }))
    })
}

/// The driver of the native interface drops some of the frames, too few for another mode.
#[test]
fn frames_that_a_driver_drops_now_and_then_are_counted() -> Result<()> {
    let scene = Scene::new(Topology::default())?;
    let (relay, _client) = native(&scene)?;
    scene.ipv6().namespace().ip("link set port0 mtu 700")?;
    let (site, host) = (scene.site(), scene.host());
    let ping = |packets: Ping| packets.wait(Duration::from_secs(1)).from(&site.client);
    // So many in the second of each that is lost that native mode is worth it, even if the driver drops those that it
    // was given with it.
    let many = Ping::to(host.address)
        .count(OTHERS)
        .interval(Duration::from_millis(5));
    thread::scope(|scope| {
        let others = scope.spawn(move || ping(many));
        let counted = wait_until("drops are counted", Duration::from_secs(7), || {
            ping(Ping::to(host.address).packet_size(1000))?;
            let mut attachments = relay.status()?.xdp.into_iter();
            Ok(attachments.any(|one| one.dropped > 0))
        });
        let others = others
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic))?;
        ensure!(others.sent == OTHERS, "{others:?}");
        ensure!(others.sent - others.received <= LATE, "{others:?}");
        counted
    })?;
    let attachments = relay.status()?.xdp;
    ensure!(
        attachments.iter().all(|one| one.mode.name() == "native"),
        "{attachments:?}"
    );
    Ok(())
}

/// The driver drops the only frame of each second.
#[test]
fn a_driver_that_drops_a_slow_flow_ends_native_mode_when_that_is_certain() -> Result<()> {
    let scene = Scene::new(Topology::default())?;
    let (relay, _client) = native(&scene)?;
    scene.ipv6().namespace().ip("link set port0 mtu 700")?;
    let (site, host) = (scene.site(), scene.host());
    let lose = || {
        let ping = Ping::to(host.address).packet_size(1000);
        ping.wait(Duration::from_secs(1)).from(&site.client)
    };
    let modes = || -> Result<Vec<_>> {
        let attachments = relay.status()?.xdp.into_iter();
        Ok(attachments.map(|one| one.mode.name()).collect())
    };
    for _ in 0..4 {
        lose()?;
    }
    ensure!(modes()?.iter().all(|mode| *mode == "native"));
    wait_until("native mode has ended", Duration::from_secs(60), || {
        lose()?;
        Ok(modes()?.iter().all(|mode| *mode == "generic"))
    })
}
