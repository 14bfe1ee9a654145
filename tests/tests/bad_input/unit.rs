//! Files that the daemon will not be able to read, though root, who calls `teredo check`, is.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use teredo_lab::teredo::binary;

use crate::{assert_command_refused, assert_refused, host::Host, to_the_end};

const DIGITS: &str = "00112233445566778899aabbccddeeff";
/// The user nobody.
const NOBODY: u32 = 65534;

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

/// A key that only its owner may read.
fn key(host: &Host, owner: u32) -> Result<PathBuf> {
    let file = host.directory.path().join("alice.key");
    fs::write(&file, DIGITS)?;
    set_mode(&file, 0o600)?;
    chown(&file, Some(owner), None)?;
    Ok(file)
}

/// The configuration of a server with this key.
fn configure(host: &Host, node: &str, key: &Path) -> Result<PathBuf> {
    let client = format!("[[server.client]]\nid = \"alice\"\nsecret-file = {key:?}");
    host.configure_server(node, &client)
}

/// `teredo check` on a host whose systemd starts the daemon with this configuration as nobody.
fn check(host: &Host, file: &Path) -> Result<Command> {
    let units = host.directory.path().join("units");
    let drop_ins = units.join("teredo.service.d");
    fs::create_dir_all(&drop_ins)?;
    let packaged = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../packaging/systemd/teredo.service"
    );
    fs::copy(packaged, units.join("teredo.service"))?;
    let start = format!("/usr/bin/teredo run --config {}", file.display());
    let changes = format!("[Service]\nUser=nobody\nExecStart=\nExecStart={start}\n");
    fs::write(drop_ins.join("test.conf"), changes)?;
    // A private mount shows the unit to this process alone.
    let mut command = host.namespace.command("unshare")?;
    command
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg("mount --bind \"$0\" /etc/systemd/system && exec \"$@\"")
        .arg(units)
        .arg(binary()?)
        .args(["check", "--config"])
        .arg(file);
    Ok(command)
}

fn assert_passes(command: Command, part: &str) -> Result<()> {
    let output = to_the_end(command)?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains(part), "{output:?}");
    Ok(())
}

#[test]
fn keys_belong_to_the_user_of_the_unit() -> Result<()> {
    let host = Host::new()?;
    set_mode(host.directory.path(), 0o755)?;
    let key_of = |owner| key(&host, owner);
    let file = configure(&host, "", &key_of(NOBODY)?)?;
    assert_passes(
        check(&host, &file)?,
        "will be nobody, as teredo.service says",
    )?;
    // Root alone would refuse it.
    assert_refused(&host, &file, &["belongs to user 65534", "`chown root: "])?;

    let key = key_of(0)?;
    let remedy = format!("`chown nobody: {}`", key.display());
    let parts = [
        "the key of client alice",
        "cannot be read by user nobody",
        &remedy,
    ];
    assert_command_refused(&host, check(&host, &file)?, &parts)?;

    fs::remove_file(&key)?;
    let parts = ["does not exist", "| install -m 600 -o nobody /dev/stdin "];
    assert_command_refused(&host, check(&host, &file)?, &parts)
}

#[test]
fn the_configuration_is_open_to_the_user_of_the_unit() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure_server("", "")?;
    let path = host.directory.path().display().to_string();
    let sentence =
        "teredo.toml cannot be read by user nobody, as which teredo.service starts the daemon";
    set_mode(host.directory.path(), 0o700)?;
    let remedy = format!("`chmod o+x {path}`");
    assert_command_refused(&host, check(&host, &file)?, &[sentence, &remedy])?;
    set_mode(host.directory.path(), 0o755)?;
    set_mode(&file, 0o600)?;
    let parts = [sentence, "`chgrp ", "&& chmod 640 "];
    assert_command_refused(&host, check(&host, &file)?, &parts)?;
    set_mode(&file, 0o644)?;
    assert_passes(check(&host, &file)?, "will be nobody")
}

#[test]
fn the_user_of_the_configuration_is_that_of_the_unit() -> Result<()> {
    let host = Host::new()?;
    set_mode(host.directory.path(), 0o755)?;
    let file = host.configure_server("user = \"daemon\"", "")?;
    let parts = [
        "teredo.service starts the daemon as nobody",
        "only root can become",
    ];
    assert_command_refused(&host, check(&host, &file)?, &parts)?;
    let file = host.configure_server("user = \"nobody\"", "")?;
    assert_passes(check(&host, &file)?, "will be nobody")
}

/// `run` and `check` refuse the secrets of the node and of every role alike.
#[test]
fn the_secrets_of_a_relay_and_of_the_node_are_examined() -> Result<()> {
    let host = Host::new()?;
    let missing = host.directory.path().join("fleet.key");
    let fleet = format!(
        "ipv4 = \"20.0.0.1\"\n[relay.fleet]\nlisten = \"20.0.0.1:3546\"\nmembers = [\"20.0.0.2:3546\"]\nkey-file = {missing:?}"
    );
    let file = host.configure("", &fleet)?;
    let parts = [
        "the key of the fleet",
        "does not exist",
        "openssl rand -hex 32",
    ];
    assert_refused(&host, &file, &parts)?;
    let token = host.directory.path().join("token");
    fs::write(&token, DIGITS)?;
    set_mode(&token, 0o644)?;
    let file = host.configure(&format!("api-token-file = {token:?}"), "")?;
    assert_refused(&host, &file, &["the token of the API", "has mode 0644"])
}
