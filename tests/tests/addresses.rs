//! Hosts with many IPv4 addresses, such as those at the edge of a network and those of containers.

use anyhow::{Result, ensure};
use teredo_lab::{Namespace, Scene, Topology, scene::Maker};

/// Gives a host the addresses 20.2.`network`.0 to .255, each with a broadcast address.
fn add_addresses(namespace: &Namespace, network: u8) -> Result<()> {
    let mut commands = String::new();
    for number in 0..=255 {
        commands +=
            &format!("addr add 20.2.{network}.{number}/32 brd 20.3.{network}.{number} dev lo\n");
    }
    namespace.ip_batch(&commands)
}

#[test]
fn a_host_with_hundreds_of_addresses_has_a_fast_path() -> Result<()> {
    let scene = Scene::new(Topology::default())?;
    add_addresses(&scene.relay, 0)?;
    let mut relay = scene.start_relay(&scene.relay_config())?;
    let client = scene.start_client_of(Maker::Teredo, scene.site())?;
    scene.check_fast_path(&relay, &client)?;
    for network in 1..3 {
        add_addresses(&scene.relay, network)?;
    }
    scene.check_fast_path(&relay, &client)?;
    relay.restart(&scene.relay)?;
    let attachments = relay.status()?.xdp;
    ensure!(
        attachments
            .iter()
            .all(|attachment| attachment.mode.name() == "native"),
        "{attachments:?}"
    );
    Ok(())
}
