//! NATs that lose mappings.

use anyhow::{Context as _, Result, ensure};
use teredo_lab::{NatKind, scene::Maker, traffic::Ping, wait_until};

use super::{MAINTENANCE, another_address, quick_config, scene, status};

#[test]
fn c44_a_lost_mapping_is_restored_by_one_refresh() -> Result<()> {
    let scene = scene(Maker::Teredo, &[NatKind::PortRestricted])?;
    let _relay = scene.start_relay_of(Maker::Teredo)?;
    let site = scene.site();
    let client = scene.start_client(&site.client, &quick_config(&scene, site.port))?;
    let daemon = client.teredo().context("it is ours")?;
    site.nat.flush()?;
    // No packet can come in now, from a host or from the server.
    let asked = status(daemon)?.solicitations;
    wait_until("the server is asked again", MAINTENANCE, || {
        Ok(status(daemon)?.solicitations > asked)
    })?;
    Ping::to(client.address()).all_from(&scene.host().namespace)?;
    ensure!(
        status(daemon)?.address == Some(client.address()),
        "the address has changed"
    );
    Ok(())
}

#[test]
fn c45_a_changed_mapping_changes_the_address() -> Result<()> {
    let scene = scene(Maker::Teredo, &[NatKind::PortRestricted])?;
    let _relay = scene.start_relay_of(Maker::Teredo)?;
    let (site, host) = (scene.site(), scene.host());
    let client = scene.start_client(&site.client, &quick_config(&scene, site.port))?;
    let daemon = client.teredo().context("it is ours")?;
    Ping::to(host.address).all_from(&site.client)?;

    let port = 50_000;
    site.nat.reboot(port)?;
    let address = another_address(&site.client, client.address(), MAINTENANCE)?;
    let status = status(daemon)?;
    ensure!(status.address == Some(address), "{status:?}");
    ensure!(
        status.mapped.is_some_and(|mapped| mapped.port() == port),
        "{status:?}"
    );
    ensure!(!status.port_preserving, "{status:?}");
    Ping::to(address).all_from(&host.namespace)?;
    Ping::to(host.address).all_from(&site.client)?;
    Ok(())
}
