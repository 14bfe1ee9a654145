//! Relay and server in one process.

use super::*;

/// Relay and server run in one process (S-30 to S-32).
fn both_roles_in_one_process(mode: &str, is_one_port: bool) -> Result<()> {
    for client_is_first in [false, true] {
        let scene = scene(Place::Relay)?;
        let (config, relay) = if is_one_port {
            let endpoint = SocketAddrV4::new(SERVER, SERVER_PORT);
            (scene.dual_config(endpoint), endpoint)
        } else {
            (scene.dual_config(RELAY), RELAY)
        };
        let config = config.set("relay.xdp.mode", mode);
        let node = start(&scene.relay, &config, mode)?;
        let mut roles = node.status()?.roles;
        roles.sort();
        ensure!(roles == ["relay", "server"], "{roles:?}");
        let client = scene.start_miredo_client()?;
        let (site, host) = (scene.site(), scene.host());
        let inside = Capture::start(&site.client, "eth0")?;
        if client_is_first {
            Ping::to(host.address).all_from(&site.client)?;
        } else {
            Ping::to(client.address()).all_from(&host.namespace)?;
            if !is_one_port {
                inside.wait_for("a bubble with its origin", SOON, |frame| {
                    is_forwarded_bubble(frame, relay)
                })?;
            }
        }
        Ping::to(client.address())
            .count(5)
            .all_from(&host.namespace)?;
        Ping::to(host.address).count(5).all_from(&site.client)?;
        let peer = node.peer(client.address())?;
        ensure!(
            peer.as_ref()
                .is_some_and(|peer| peer.xdp == (mode != "off")),
            "{peer:?}"
        );
    }
    Ok(())
}

#[test]
fn both_roles_on_two_ports_in_native_xdp() -> Result<()> {
    both_roles_in_one_process("native", false)
}

#[test]
fn both_roles_on_two_ports_without_xdp() -> Result<()> {
    both_roles_in_one_process("off", false)
}

#[test]
fn both_roles_on_one_port_in_native_xdp() -> Result<()> {
    both_roles_in_one_process("native", true)
}

#[test]
fn both_roles_on_one_port_without_xdp() -> Result<()> {
    both_roles_in_one_process("off", true)
}
