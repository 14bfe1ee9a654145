//! Servers that come and go, and servers that require authentication.

use std::{fs, net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use teredo_lab::{
    NatKind, Teredo,
    scene::{IPV4_INTERFACE, IPV6_INTERFACE, Maker, RELAY_IPV6, SERVER},
    teredo::Config,
    traffic::Ping,
};

use super::{another_address, quick_config, scene, status};

/// Address of the second server.
const OTHER: Ipv4Addr = Ipv4Addr::new(20, 0, 0, 11);
/// One interval, three solicitations to the server, and three more after a new start.
const FAIL_OVER: Duration = Duration::from_secs(45);

#[test]
fn c01_the_next_server_takes_over() -> Result<()> {
    let mut scene = scene(Maker::Teredo, &[NatKind::PortRestricted])?;
    let _relay = scene.start_relay_of(Maker::Teredo)?;
    let second = scene.add_ipv4_host("second-server", OTHER)?;
    let addresses = [OTHER, Ipv4Addr::from_bits(OTHER.to_bits() + 1)];
    second.ip(&format!(
        "addr add {}/16 dev {IPV4_INTERFACE}",
        addresses[1]
    ))?;
    scene.ipv6().plug(&second, IPV6_INTERFACE)?;
    second.ip(&format!(
        "addr add 2001:db8:6::54/64 dev {IPV6_INTERFACE} nodad"
    ))?;
    second.ip(&format!("route add 2001::/32 via {RELAY_IPV6}"))?;
    let names = addresses.map(|address| address.to_string());
    let config = Config::new()
        .set("server.ipv4", names.to_vec())
        .set("server.xdp.mode", "off");
    let _second = Teredo::start(&second, &config)?;

    let servers = vec![SERVER.to_string(), OTHER.to_string()];
    let config = quick_config(&scene, scene.site().port).set("client.server", servers);
    let client = scene.start_client(&scene.site().client, &config)?;
    drop(scene.server.take());
    let site = scene.site();
    let address = another_address(&site.client, client.address(), FAIL_OVER)?;
    ensure!(
        address.octets()[4..8] == OTHER.octets(),
        "{address} is not of the second server"
    );
    Ping::to(address).all_from(&scene.host().namespace)?;
    Ping::to(scene.host().address).all_from(&site.client)
}

#[test]
fn a06_a_required_key_excludes_other_clients() -> Result<()> {
    let mut scene = scene(Maker::Teredo, &[NatKind::PortRestricted])?;
    drop(scene.server.take());
    let directory = tempfile::tempdir()?;
    let key = directory.path().join("key");
    fs::write(&key, "00112233445566778899aabbccddeeff\n")?;
    let mut permissions = fs::metadata(&key)?.permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    fs::set_permissions(&key, permissions)?;
    let key = key.to_string_lossy().into_owned();

    let mut entry = toml::Table::new();
    entry.insert("id".to_owned(), "alice".into());
    entry.insert("secret-file".to_owned(), key.clone().into());
    let config = scene
        .server_config()
        .set("server.require-auth", true)
        .set("server.client", vec![toml::Value::Table(entry)]);
    let _server = scene.start_server(&config)?;
    let _relay = scene.start_relay_of(Maker::Teredo)?;
    let site = scene.site();
    let config = scene
        .client_config(site.port)
        .set("client.id", "alice")
        .set("client.secret-file", key);
    let client = scene.start_client(&site.client, &config)?;
    let daemon = client.teredo().context("it is ours")?;
    ensure!(
        status(daemon)?.state == "qualified",
        "{:?}",
        status(daemon)?
    );
    Ping::to(scene.host().address).all_from(&site.client)
}
