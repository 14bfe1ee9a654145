//! Configurations that a client refuses, and those about which it only warns.

use std::{
    fs,
    net::UdpSocket,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Result;
use teredo_lab::{Daemon, teredo::binary};

use crate::{assert_refused, host::Host, to_the_end};

/// Asserts that a configuration with these lines in the section is refused with the sentence.
fn assert_client_refused(host: &Host, client: &str, parts: &[&str]) -> Result<()> {
    let file = host.configure_client("", client)?;
    assert_refused(host, &file, parts)
}

/// The findings of a `teredo check` that succeeds.
fn findings(host: &Host, client: &str) -> Result<String> {
    let file = host.configure_client("", client)?;
    let mut command = host.namespace.command(binary()?)?;
    command.args(["check", "--config"]).arg(file);
    let before = host.traces()?;
    let output = to_the_end(command)?;
    let text = String::from_utf8(output.stdout)?;
    assert!(output.status.success(), "{text}");
    assert_eq!(String::from_utf8(output.stderr)?, "");
    assert_eq!(host.traces()?, before);
    Ok(text)
}

/// A host without native IPv6.
fn host() -> Result<Host> {
    let host = Host::new()?;
    host.namespace.ip("-6 route del default")?;
    Ok(host)
}

#[test]
fn the_unspoiled_host_passes() -> Result<()> {
    let text = findings(&host()?, "")?;
    for part in [
        "teredo will be made",
        "any UDP port",
        "20.0.0.254 is 20.0.0.254",
        "sends from 20.0.0.1",
        "there is none but Teredo",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert!(!text.contains("note"), "{text}");
    Ok(())
}

#[test]
fn z01_native_ipv6_is_reported() -> Result<()> {
    let host = Host::new()?;
    let text = findings(&host, "")?;
    assert!(text.contains("stays off while it has"), "{text}");
    let text = findings(&host, "only-without-ipv6 = false")?;
    assert!(text.contains("only Teredo clients are reached"), "{text}");
    Ok(())
}

#[test]
fn temporary_faults_are_reported() -> Result<()> {
    let host = host()?;
    let file = host.configure_client("", "")?;
    let text = fs::read_to_string(&file)?;
    fs::write(&file, text.replace("20.0.0.254", "nowhere.invalid"))?;
    let mut command = host.namespace.command(binary()?)?;
    command.args(["check", "--config"]).arg(&file);
    let text = String::from_utf8(to_the_end(command)?.stdout)?;
    let expected = "the server nowhere.invalid cannot be looked up";
    assert!(text.contains(expected), "{text}");
    host.namespace.ip("route del default")?;
    host.namespace.ip("addr flush dev wan")?;
    let text = findings(&host, "")?;
    assert!(text.contains("no way to the IPv4 internet"), "{text}");
    Ok(())
}

#[test]
fn unknown_and_missing_keys() -> Result<()> {
    let host = host()?;
    assert_client_refused(
        &host,
        "tunn = \"x\"",
        &["line 7", "unknown key \"tunn\" in [client]", "\"tun\""],
    )?;
    let file = host.configure_client("", "")?;
    let text = fs::read_to_string(&file)?;
    fs::write(&file, text.replace("server =", "# server ="))?;
    assert_refused(&host, &file, &["[client] needs the key server"])
}

#[test]
fn c01_no_server() -> Result<()> {
    let host = host()?;
    let file = host.configure_client("", "")?;
    let text = fs::read_to_string(&file)?;
    for wrong in ["192.168.0.1", "20.0.0.300", "a b", "2001:db8::1"] {
        fs::write(&file, text.replace("20.0.0.254", wrong))?;
        let value = format!("client.server = \"{wrong}\" is not valid");
        assert_refused(&host, &file, &["line 6", &value])?;
    }
    Ok(())
}

#[test]
fn beside_another_role() -> Result<()> {
    let host = host()?;
    assert_client_refused(&host, "[relay]", &["[client] and [relay] are in one file"])
}

#[test]
fn port_in_use() -> Result<()> {
    let host = host()?;
    let _other = host.namespace.run(|| UdpSocket::bind("0.0.0.0:4545"))??;
    assert_client_refused(
        &host,
        "port = 4545",
        &["port 4545 of 0.0.0.0 is in use", "client.port"],
    )
}

#[test]
fn tun_of_another_kind_or_owner() -> Result<()> {
    let host = host()?;
    assert_client_refused(
        &host,
        "tun = \"wan\"",
        &[
            "the interface wan exists and is not a TUN interface",
            "`tun`",
        ],
    )?;
    // Another client has the interface.
    let directory = tempfile::tempdir()?;
    let other = directory.path().join("other.toml");
    let text = fs::read_to_string(host.configure_client("", "")?)?;
    let socket = host.socket().display().to_string();
    let there = directory.path().join("api.sock").display().to_string();
    let name = format!("name = \"{}", host.namespace.name());
    let text = text.replace(&socket, &there);
    fs::write(&other, text.replace(&name, &format!("{name}-other")))?;
    let mut command = host.namespace.command(binary()?)?;
    command.args(["run", "--config"]).arg(&other);
    let mut daemon = Daemon::start("teredo", command, Daemon::directory("daemon")?)?;
    daemon.wait_for("it has the interface", crate::PATIENCE, || {
        let link = host.namespace.ip("link show");
        Ok(link?.contains("teredo:").then_some(()))
    })?;
    daemon.wait_for("its interface is up", crate::PATIENCE, || {
        let link = host.namespace.ip("link show dev teredo");
        Ok(link?.contains("LOWER_UP").then_some(()))
    })?;
    assert_client_refused(
        &host,
        "",
        &["the TUN interface teredo is in use by another process"],
    )?;
    assert_eq!(daemon.terminate()?.code(), Some(0), "{}", daemon.log());
    Ok(())
}

#[test]
fn another_teredo_on_the_host() -> Result<()> {
    let host = host()?;
    host.namespace
        .ip("-6 route add 2001::/32 via 2001:db8::2")?;
    assert_client_refused(
        &host,
        "",
        &["there is a route of 2001::/32 already, to wan", "stop the"],
    )
}

#[test]
fn a09_a_key_readable_by_others() -> Result<()> {
    let host = host()?;
    let key = |mode: u32| -> Result<PathBuf> {
        let file = host.directory.path().join("own.key");
        fs::write(&file, "00112233445566778899aabbccddeeff")?;
        fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
        Ok(file)
    };
    let lines = |file: &Path| format!("id = \"alice\"\nsecret-file = {file:?}");
    let file = key(0o644)?;
    assert_client_refused(
        &host,
        &lines(&file),
        &["the key of client alice", "has mode 0644", "`chmod 600`"],
    )?;
    let text = findings(&host, &lines(&key(0o600)?))?;
    assert!(text.contains("of this client"), "{text}");
    fs::remove_file(&file)?;
    assert_client_refused(&host, &lines(&file), &["own.key", "does not exist"])?;
    assert_client_refused(
        &host,
        "allow-tunnel = true",
        &["client.allow-tunnel is true, but a tunnel is only for"],
    )
}

#[test]
fn no_permission() -> Result<()> {
    let host = host()?;
    let file = host.configure_client("", "")?;
    for name in crate::COMMANDS {
        let mut command = host.namespace.command("setpriv")?;
        command.args(["--bounding-set=-all", "--inh-caps=-all", "--"]);
        command
            .arg(binary()?)
            .args(*name)
            .arg("--config")
            .arg(&file);
        crate::assert_command_refused(
            &host,
            command,
            &["no permission: the daemon needs CAP_NET_ADMIN"],
        )?;
    }
    Ok(())
}
