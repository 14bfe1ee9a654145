//! The client's effects on its host: an address and routes while it runs, and none afterwards.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use teredo_lab::{
    NatKind,
    scene::{IPV6_INTERFACE, Maker, RELAY_IPV6},
    teredo::client_address,
    traffic::Ping,
    wait_until,
};

use super::{scene, status};

/// Longest time until the kernel reports a change.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn shutdown_removes_everything() -> Result<()> {
    let scene = scene(Maker::Teredo, &[NatKind::PortRestricted])?;
    let site = scene.site();
    let before = scene.state_of(&site.client)?;
    for crash in [false, true] {
        let mut teredo = teredo_lab::Teredo::start(&site.client, &scene.client_config(site.port))?;
        teredo.qualified(&site.client)?;
        ensure!(
            scene.state_of(&site.client)? != before,
            "the state does not show the daemon"
        );
        if crash {
            teredo.daemon.kill()?;
        } else {
            let status = teredo.daemon.terminate()?;
            ensure!(status.success(), "it ended with {status}");
        }
        let after = scene.state_of(&site.client)?;
        ensure!(
            after == before,
            "crash {crash}: {after} instead of {before}"
        );
    }
    Ok(())
}

#[test]
fn z01_a_client_stays_off_while_there_is_native_ipv6() -> Result<()> {
    let scene = scene(Maker::Teredo, &[NatKind::PortRestricted])?;
    let _relay = scene.start_relay_of(Maker::Teredo)?;
    let (site, host) = (scene.site(), scene.host());
    let client = scene.start_client_of(Maker::Teredo, site)?;
    let daemon = client.teredo().context("it is ours")?;
    Ping::to(host.address).all_from(&site.client)?;

    scene.ipv6().plug(&site.client, IPV6_INTERFACE)?;
    site.client.ip(&format!(
        "addr add 2001:db8:6::77/64 dev {IPV6_INTERFACE} nodad"
    ))?;
    site.client
        .ip(&format!("-6 route add default via {RELAY_IPV6}"))?;
    wait_until("the client withdraws", SOON, || {
        let routes = site.client.ip("-6 route show")?;
        let withdrawn = !routes.contains("dev teredo") && client_address(&site.client).is_none();
        Ok(withdrawn && status(daemon)?.state == "offline-native-ipv6")
    })?;
    Ping::to(host.address).all_from(&site.client)?;

    site.client.ip(&format!("link set {IPV6_INTERFACE} down"))?;
    wait_until("the client is back", SOON, || {
        Ok(client_address(&site.client).is_some())
    })?;
    Ping::to(host.address).all_from(&site.client)
}
