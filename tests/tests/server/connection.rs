//! Miredo's clients qualify with our server, and find their relays.

use super::*;

/// Miredo's client qualifies, and the first packet arrives from either side: from the host through
/// an indirect bubble, from the client through a connectivity test.
fn a_client_is_connected(mode: &str, relay: Maker) -> Result<()> {
    for client_is_first in [false, true] {
        let scene = scene(Place::Alone)?;
        let server = start_in(&scene, mode)?;
        let _relay = match relay {
            Maker::Teredo => (Some(scene.start_relay(&scene.relay_config())?), None),
            Maker::Miredo => (None, Some(scene.start_miredo_relay()?)),
        };
        let client = scene.start_miredo_client()?;
        let (site, host) = (scene.site(), scene.host());
        let inside = Capture::start(&site.client, "eth0")?;
        let outside = Capture::start(&host.namespace, IPV6_INTERFACE)?;
        if client_is_first {
            Ping::to(host.address).all_from(&site.client)?;
            // The client's own test comes through the server, its ping through the relay.
            outside.wait_for("a connectivity test", SOON, |frame| {
                is_echo_request(frame, client.address())
            })?;
        } else {
            Ping::to(client.address()).all_from(&host.namespace)?;
            inside.wait_for("a bubble with its origin", SOON, |frame| {
                is_forwarded_bubble(frame, RELAY)
            })?;
        }
        Ping::to(client.address())
            .count(5)
            .all_from(&host.namespace)?;
        Ping::to(host.address).count(5).all_from(&site.client)?;
        drop(server);
    }
    Ok(())
}

#[test]
fn a_client_is_connected_in_native_xdp() -> Result<()> {
    a_client_is_connected("native", Maker::Teredo)
}

#[test]
fn a_client_is_connected_in_generic_xdp() -> Result<()> {
    a_client_is_connected("generic", Maker::Teredo)
}

#[test]
fn a_client_is_connected_without_xdp() -> Result<()> {
    a_client_is_connected("off", Maker::Teredo)
}

#[test]
fn a_client_is_connected_by_miredos_relay() -> Result<()> {
    for mode in ["native", "off"] {
        a_client_is_connected(mode, Maker::Miredo)?;
    }
    Ok(())
}
