//! Hosts that are not ready when a daemon starts, and hosts that refuse what it needs.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, Output},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use teredo_lab::{
    Daemon, Teredo,
    teredo::{Config, binary},
    wait_until,
};

use super::{PATIENCE, SOON, host::Host, is_said, is_well, shell};

/// Takes the host's addresses away, and gives them back.
const TAKE: &str = "ip addr flush dev wan; ip -6 route flush dev wan";
const GIVE: &str = "ip addr add 20.0.0.1/24 dev wan; ip addr add 20.0.0.2/24 dev wan
    ip route add default via 20.0.0.254; ip addr add 2001:db8::1/64 dev wan nodad
    ip -6 route add default via 2001:db8::2";

fn roles() -> [(&'static str, Config); 3] {
    let server = Config::new().set("server.ipv4", vec!["20.0.0.1", "20.0.0.2"]);
    [
        ("relay", Config::new().set("relay.port", 3545)),
        ("relay", Config::new().set("relay.ipv4", "20.0.0.2")),
        ("server", server),
    ]
}

/// Runs a command of teredo with this configuration to its end.
fn ask(host: &Host, file: &std::path::Path, arguments: &[&str]) -> Result<Output> {
    let mut command = host.namespace.command(binary()?)?;
    Ok(command.args(arguments).arg("--config").arg(file).output()?)
}

#[test]
fn a_daemon_that_starts_before_the_network_waits_for_it() -> Result<()> {
    for (role, config) in roles() {
        let host = Host::new()?;
        shell(&host.namespace, TAKE)?;
        let mut daemon = Teredo::start(&host.namespace, &config)?;
        is_said(&daemon, "address-missing").with_context(|| role)?;
        // `check` says what the daemon says.
        let told = ask(&host, daemon.file(), &["check", "--json"])?;
        let told: Value = serde_json::from_slice(&told.stdout)?;
        ensure!(told["ok"] == false, "{told}");
        shell(&host.namespace, GIVE)?;
        wait_until("it serves", SOON, || {
            Ok(daemon.status()?.endpoints.contains_key(role))
        })
        .with_context(|| daemon.daemon.log())?;
        is_well(&daemon)?;
        wait_until("the program is there", SOON, || {
            super::has_program(&host.namespace, "wan")
        })
        .with_context(|| daemon.daemon.log())?;
        let status = daemon.daemon.terminate()?;
        ensure!(status.success(), "{status}");
    }
    Ok(())
}

#[test]
fn a_daemon_that_shall_not_wait_fails() -> Result<()> {
    for (role, config) in roles() {
        let host = Host::new()?;
        shell(&host.namespace, TAKE)?;
        let file = host.directory.path().join("teredo.toml");
        let socket = host.socket();
        let config = config
            .set("node.name", host.namespace.name())
            .set("node.api", format!("unix:{}", socket.display()));
        std::fs::write(&file, config.to_string())?;
        let before = host.traces()?;
        let ended = ask(&host, &file, &["run", "--no-wait"])?;
        let said = String::from_utf8(ended.stderr)?;
        ensure!(
            ended.status.code() == Some(1),
            "{role}: {:?}: {said}",
            ended.status
        );
        ensure!(said.contains("address"), "{said}");
        ensure!(host.traces()? == before);
    }
    Ok(())
}

#[test]
fn ipv6_that_is_off_for_new_interfaces_stops_nobody() -> Result<()> {
    let host = Host::new()?;
    host.namespace
        .sysctl("net.ipv6.conf.default.disable_ipv6", 1)?;
    let relay = Teredo::start(&host.namespace, &Config::new().set("relay.port", 3545))?;
    is_well(&relay)?;
    let routes = host.namespace.ip("-6 route show 2001::/32")?;
    ensure!(routes.contains("dev teredo"), "{routes}");
    Ok(())
}

/// A container has settings that nobody in it may write.
#[test]
fn settings_that_cannot_be_written_are_told_by_all_commands() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("", "")?;
    let protected = |arguments: &[&str]| -> Result<Command> {
        let mut command = host.namespace.command("unshare")?;
        let script =
            "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec \"$@\"";
        command.args(["--mount", "sh", "-c", script, "sh"]);
        command
            .arg(binary()?)
            .args(arguments)
            .arg("--config")
            .arg(&file);
        command.arg0("teredo");
        Ok(command)
    };
    let check = protected(&["check", "--json"])?.output()?;
    let told: Value =
        serde_json::from_slice(&check.stdout).with_context(|| format!("{check:?}"))?;
    ensure!(told["ok"] == false && !check.status.success(), "{told}");
    let mut daemon = Daemon::start("teredo", protected(&["run"])?, Daemon::directory("daemon")?)?;
    let kinds = daemon.wait_for("it says so", PATIENCE, || {
        let status = ask(&host, &file, &["status", "--json"])?;
        let Ok(status) = serde_json::from_slice::<Value>(&status.stdout) else {
            return Ok(None);
        };
        ensure!(status["verdict"] != "ok", "{status}");
        let conditions = status["conditions"].as_array().context("no conditions")?;
        Ok(Some(
            conditions
                .iter()
                .map(|one| one["kind"].to_string())
                .collect::<Vec<_>>(),
        ))
    })?;
    ensure!(kinds.contains(&"\"setting\"".to_owned()), "{kinds:?}");
    Ok(())
}
