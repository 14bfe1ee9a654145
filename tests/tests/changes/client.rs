//! Changes of a client's host and network.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use teredo_lab::{
    Namespace, NatKind, Scene, Teredo, Topology,
    scene::{IPV6_INTERFACE, SECONDARY},
    teredo::client_address,
    wait_until,
};

use super::{PATIENCE, SOON, answers, is_said, is_well, shell};

/// A client that reaches a native host through a relay.
struct Site {
    client: Teredo,
    _relay: Teredo,
    scene: Scene,
}

impl Site {
    fn new() -> Result<Self> {
        let scene = Scene::new(Topology::default())?;
        let relay = scene.start_relay(&scene.relay_config())?;
        let site = scene.site();
        let mut client = Teredo::start(&site.client, &scene.client_config(site.port))?;
        client.qualified(&site.client)?;
        let site = Self {
            client,
            _relay: relay,
            scene,
        };
        site.works()?;
        Ok(site)
    }

    fn host(&self) -> &Namespace {
        &self.scene.site().client
    }

    /// Checks that all is well soon, and that the client reaches a native host.
    fn works(&self) -> Result<()> {
        wait_until("it has address and routes", SOON, || {
            let has_prefix = self
                .host()
                .ip("-6 route show 2001::/32")?
                .contains("teredo");
            Ok(has_prefix && client_address(self.host()).is_some())
        })?;
        is_well(&self.client)?;
        answers(self.host(), self.scene.host().address)
    }

    /// Breaks the host with commands of the shell, and checks that it is repaired.
    fn survives(&self, commands: &str) -> Result<()> {
        shell(self.host(), commands)?;
        self.works()
            .with_context(|| format!("{commands}: {}", self.client.daemon.log()))
    }

    fn state(&self) -> Result<String> {
        Ok(self
            .client
            .status()?
            .client
            .context("it has a client")?
            .state)
    }
}

#[test]
fn addresses_and_routes_that_others_remove_come_back() -> Result<()> {
    let site = Site::new()?;
    for commands in [
        "ip -6 addr flush dev teredo",
        "ip -6 route del default dev teredo; ip -6 route del 2001::/32 dev teredo",
        "ip link set teredo down; ip link set teredo up",
    ] {
        site.survives(commands)?;
    }
    Ok(())
}

#[test]
fn a_tunnel_that_others_remove_comes_back() -> Result<()> {
    let site = Site::new()?;
    for commands in [
        "ip link del teredo",
        "ip link set teredo down",
        "echo 1 > /proc/sys/net/ipv6/conf/teredo/disable_ipv6",
    ] {
        site.survives(commands)?;
    }
    Ok(())
}

/// A router announces a way out, but no address for it.
#[test]
fn z02_a_default_route_without_a_global_address_is_no_ipv6() -> Result<()> {
    let site = Site::new()?;
    site.survives("ip -6 route add default via fe80::77 dev eth0 proto ra metric 1024")?;
    ensure!(site.state()? == "qualified");
    site.survives("ip addr add fd00::5/64 dev eth0 nodad")?;
    shell(site.host(), "ip addr add 2001:db8:7::5/64 dev eth0 nodad")?;
    wait_until("it gives way", SOON, || {
        Ok(site.state()? == "offline-native-ipv6")
    })?;
    is_well(&site.client)?;
    shell(site.host(), "ip addr del 2001:db8:7::5/64 dev eth0")?;
    wait_until("it is back", SOON, || Ok(site.state()? == "qualified"))?;
    site.works()
}

#[test]
fn a_network_that_was_away_is_used_at_once() -> Result<()> {
    let site = Site::new()?;
    shell(
        site.host(),
        "ip route del default; ip addr del 192.168.0.2/24 dev eth0",
    )?;
    is_said(&site.client, "no-network")?;
    wait_until("the address is removed", SOON, || {
        Ok(client_address(site.host()).is_none())
    })?;
    site.survives("ip addr add 192.168.0.2/24 dev eth0; ip route replace default via 192.168.0.1")?;
    shell(site.host(), "ip link set eth0 down")?;
    is_said(&site.client, "no-network")?;
    site.survives("ip link set eth0 up; ip route replace default via 192.168.0.1")
}

/// Nothing changes on the client's host.
#[test]
fn an_outage_behind_the_router_ends_with_the_next_event() -> Result<()> {
    let site = Site::new()?;
    let nat = site.scene.site().nat.namespace();
    nat.ip("link set wan down")?;
    // The event makes the client ask its server, which does not answer.
    wait_until("it is off-line", 4 * PATIENCE, || {
        shell(
            site.host(),
            "ip addr add 192.168.0.9/32 dev lo; ip addr del 192.168.0.9/32 dev lo",
        )?;
        Ok(site.state()? == "offline-no-answer")
    })?;
    is_said(&site.client, "server-silent")?;
    nat.ip("link set wan up")?;
    // Traffic that wants out is a reason to try as well.
    wait_until("it is back", PATIENCE, || {
        let ping = teredo_lab::traffic::Ping::to(site.scene.host().address);
        let _ = ping.wait(Duration::from_millis(200)).from(site.host());
        Ok(site.state()? == "qualified")
    })
    .with_context(|| site.client.daemon.log())?;
    site.works()
}

#[test]
fn a_secondary_address_that_is_silent_is_named() -> Result<()> {
    let mut scene = Scene::new(Topology {
        clients: 0,
        ..Topology::default()
    })?;
    scene.add_site(NatKind::PortRestricted)?;
    let site = scene.site();
    site.nat.namespace().nft(&format!(
        "table ip lab {{ chain forward {{ type filter hook forward priority 0; ip daddr {SECONDARY} drop; }}\n}}"
    ))?;
    let client = Teredo::start(&site.client, &scene.client_config(site.port))?;
    wait_until("it gives up", 4 * PATIENCE, || {
        Ok(!client.status()?.conditions.is_empty())
    })?;
    is_said(&client, "secondary-silent")?;
    site.nat.namespace().nft("delete table ip lab")?;
    shell(&site.client, "ip addr add 192.168.0.9/32 dev lo")?;
    wait_until("it is qualified", PATIENCE, || {
        Ok(client_address(&site.client).is_some())
    })?;
    is_well(&client)
}

#[test]
fn z01_native_ipv6_is_no_condition() -> Result<()> {
    let site = Site::new()?;
    site.scene.ipv6().plug(site.host(), IPV6_INTERFACE)?;
    shell(
        site.host(),
        "ip addr add 2001:db8:6::77/64 dev v6 nodad; ip -6 route add default via 2001:db8:6::1",
    )?;
    wait_until("it gives way", SOON, || {
        Ok(site.state()? == "offline-native-ipv6")
    })?;
    is_well(&site.client)?;
    site.survives("ip link del v6")
}
