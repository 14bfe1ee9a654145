//! Changes of the XDP program and its interfaces by others.

use anyhow::{Context as _, Result, ensure};
use teredo_faults::fault::program::detach;
use teredo_lab::{Namespace, Teredo, programs::Attached, teredo::Config, wait_until};

use super::{SOON, has_program, host::Host, is_said, is_well, shell};

/// The number of the XDP program on an interface.
fn number(namespace: &Namespace, interface: &str) -> Result<Option<u64>> {
    let text = namespace.ip(&format!("-json link show dev {interface}"))?;
    let links: serde_json::Value = serde_json::from_str(&text)?;
    Ok(links[0]["xdp"]["prog"]["id"].as_u64())
}

fn start(host: &Host, pin: bool) -> Result<Teredo> {
    let config = Config::new()
        .set("relay.port", 3545)
        .set("relay.xdp.pin", pin);
    let relay = Teredo::start(&host.namespace, &config)?;
    is_well(&relay)?;
    ensure!(has_program(&host.namespace, "wan")?);
    Ok(relay)
}

/// The mode of the fast path, as `status` says.
fn mode(relay: &Teredo) -> Result<String> {
    let xdp = relay.status()?.xdp;
    let one = xdp.first().context("no interface")?;
    Ok(one.mode.name().to_owned())
}

#[test]
fn a_program_that_others_detach_comes_back() -> Result<()> {
    let host = Host::new()?;
    let relay = start(&host, true)?;
    for round in 0..2 {
        let before = number(&host.namespace, "wan")?;
        ensure!(detach(relay.daemon.pid())? > 0, "there is no link");
        wait_until("another program is there", SOON, || {
            let now = number(&host.namespace, "wan")?;
            Ok(now.is_some() && now != before)
        })
        .with_context(|| format!("round {round}: {}", relay.daemon.log()))?;
        is_well(&relay)?;
        ensure!(mode(&relay)? == "native");
    }
    Ok(())
}

/// Between a removal of the interface and its return, another program takes it.
#[test]
fn a_foreign_program_is_told_until_it_goes() -> Result<()> {
    let host = Host::new()?;
    let relay = start(&host, true)?;
    shell(
        &host.namespace,
        "ip link set wan down; ip addr flush dev wan",
    )?;
    is_said(&relay, "address-missing")?;
    wait_until("the interface is free", SOON, || {
        Ok(!has_program(&host.namespace, "wan")?)
    })?;
    let foreign = Attached::nothing(&host.namespace, &["wan"])?;
    shell(&host.namespace, HEAL)?;
    is_said(&relay, "fast-path-off")?;
    ensure!(mode(&relay)? == "off");
    drop(foreign);
    wait_until("the relay's program is back", SOON, || {
        has_program(&host.namespace, "wan")
    })?;
    is_well(&relay)
}

/// Gives the host its addresses and routes again.
const HEAL: &str =
    "ip link set wan up; ip addr add 20.0.0.1/24 dev wan; ip addr add 20.0.0.2/24 dev wan
    ip route add default via 20.0.0.254; ip addr add 2001:db8::1/64 dev wan nodad
    ip -6 route add default via 2001:db8::2";

#[test]
fn another_mtu_keeps_the_program() -> Result<()> {
    let host = Host::new()?;
    let relay = start(&host, true)?;
    for mtu in [1400, 1500, 1450] {
        let command = format!("link set wan mtu {mtu}");
        host.far.ip(&command)?;
        host.namespace.ip(&command)?;
        wait_until("the program is there", SOON, || {
            has_program(&host.namespace, "wan")
        })?;
        is_well(&relay)?;
        ensure!(mode(&relay)? == "native");
    }
    Ok(())
}

#[test]
fn an_interface_that_is_down_is_told() -> Result<()> {
    let host = Host::new()?;
    host.namespace
        .ip("link add spare type veth peer name other")?;
    host.namespace.ip("link set spare up")?;
    host.namespace.ip("link set other up")?;
    let config = Config::new()
        .set("relay.port", 3545)
        .set("relay.xdp.interfaces", vec!["wan", "spare"]);
    let relay = Teredo::start(&host.namespace, &config)?;
    host.namespace.ip("link set spare down")?;
    is_said(&relay, "interface-missing")?;
    host.namespace.ip("link set spare up")?;
    is_well(&relay)
}
