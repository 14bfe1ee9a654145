//! Bad input gets one clear sentence with the remedy and exit code 1, and leaves nothing behind.
//!
//! Each test takes a host that could run the role and breaks one thing. `teredo check` and
//! `teredo run --no-wait` must refuse it with the same sentence.

mod client;
mod fast_path;
#[path = "../host/mod.rs"]
mod host;
mod log;
mod server;
mod unit;

use std::{
    fs,
    net::UdpSocket,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use teredo_lab::{programs::Attached, teredo::binary, wait_for};

use host::Host;

/// The commands that must refuse.
const COMMANDS: &[&[&str]] = &[&["check"], &["run", "--no-wait"]];
/// Longest time that a refusal may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asserts that `teredo COMMAND` is refused with the sentence, and leaves nothing behind.
fn assert_refused(host: &Host, file: &Path, parts: &[&str]) -> Result<()> {
    for arguments in COMMANDS {
        let mut command = host.namespace.command(binary()?)?;
        command.args(*arguments).arg("--config").arg(file);
        assert_command_refused(host, command, parts)?;
    }
    Ok(())
}

fn assert_command_refused(host: &Host, command: Command, parts: &[&str]) -> Result<()> {
    let before = host.traces()?;
    let line = format!("{command:?}");
    let output = to_the_end(command)?;
    let sentence = String::from_utf8(output.stderr)?;
    let whole = format!(
        "{line}\n{}\n{sentence}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert_eq!(output.status.code(), Some(1), "{whole}");
    let lines: Vec<_> = sentence.lines().collect();
    assert_eq!(lines.len(), 1, "not one sentence: {whole}");
    assert!(sentence.starts_with("teredo: "), "{whole}");
    assert!(sentence.matches("(os error").count() <= 1, "{whole}");
    for part in parts {
        assert!(sentence.contains(part), "no {part:?} in {whole}");
    }
    assert_eq!(host.traces()?, before, "{whole}");
    Ok(())
}

/// Runs a command that is expected to end by itself.
fn to_the_end(mut command: Command) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    // The output fits into the pipes.
    let ended = wait_for("it refuses", PATIENCE, || Ok(child.try_wait()?));
    if ended.is_err() {
        child.kill()?;
    }
    let output = child.wait_with_output()?;
    ensure!(
        ended.is_ok(),
        "{command:?} goes on: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output)
}

#[test]
fn the_unspoiled_host_passes() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("", "")?;
    let mut command = host.namespace.command(binary()?)?;
    command.args(["check", "--config"]).arg(file);
    let before = host.traces()?;
    let output = to_the_end(command)?;
    let text = String::from_utf8(output.stdout)?;
    assert!(output.status.success(), "{text}");
    assert_eq!(output.stderr, b"");
    for part in [
        "20.0.0.1:3545 is free",
        "wan: native",
        "2001::/32 will lead to teredo",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert_eq!(host.traces()?, before);
    Ok(())
}

#[test]
fn unknown_configuration_key() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("", "max-pears = 7")?;
    assert_refused(
        &host,
        &file,
        &[
            "teredo.toml line 6",
            "unknown key \"max-pears\" in [relay]",
            "\"max-peers\"",
        ],
    )
}

#[test]
fn no_configuration() -> Result<()> {
    let host = Host::new()?;
    let file = host.directory.path().join("none.toml");
    assert_refused(&host, &file, &["none.toml", "--config FILE"])
}

#[test]
fn port_in_use() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("", "port = 4545")?;
    let _other = host.namespace.run(|| UdpSocket::bind("0.0.0.0:4545"))??;
    assert_refused(
        &host,
        &file,
        &["port 4545 of 20.0.0.1 is in use", "relay.port"],
    )
}

#[test]
fn address_not_on_this_host() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("", "ipv4 = \"20.0.0.7\"")?;
    assert_refused(
        &host,
        &file,
        &[
            "relay.ipv4 = \"20.0.0.7\" is not an address of this host",
            "20.0.0.1",
        ],
    )
}

#[test]
fn no_default_route_for_an_automatic_address() -> Result<()> {
    let host = Host::new()?;
    host.namespace.ip("-4 route del default")?;
    let file = host.configure("", "")?;
    assert_refused(
        &host,
        &file,
        &["relay.ipv4 is \"auto\"", "no IPv4 default route"],
    )
}

#[test]
fn interface_missing() -> Result<()> {
    let host = Host::new()?;
    for mode in ["auto", "native", "generic"] {
        let xdp = format!("xdp = {{ mode = \"{mode}\", interfaces = [\"wan\", \"wan7\"] }}");
        let file = host.configure("", &xdp)?;
        assert_refused(
            &host,
            &file,
            &["no interface wan7", "relay.xdp.interfaces", "wan"],
        )?;
    }
    Ok(())
}

#[test]
fn interface_without_ethernet() -> Result<()> {
    let host = Host::new()?;
    host.namespace.ip("tuntap add dev other mode tun")?;
    let file = host.configure("", "xdp = { interfaces = [\"other\"] }")?;
    assert_refused(
        &host,
        &file,
        &["other is not Ethernet", "relay.xdp.interfaces"],
    )
}

#[test]
fn a_default_route_without_ethernet_is_only_slower() -> Result<()> {
    let host = Host::new()?;
    host.namespace.ip("tuntap add dev other mode tun")?;
    host.namespace.ip("link set other up")?;
    host.namespace.ip("route add default dev other metric 9")?;
    let file = host.configure("", "")?;
    let mut command = host.namespace.command(binary()?)?;
    command.args(["check", "--json", "--config"]).arg(&file);
    let output = to_the_end(command)?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(report["ok"], true, "{report}");
    let modes = report["xdp"].as_array().context("a list")?;
    assert!(modes.iter().all(|mode| mode["mode"] == "off"), "{report}");
    // A configuration that insists on XDP is refused.
    let file = host.configure("", "xdp.mode = \"native\"")?;
    assert_refused(
        &host,
        &file,
        &["other is not Ethernet", "relay.xdp.interfaces"],
    )
}

#[test]
fn no_permission() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("", "")?;
    // The daemon and its configuration, readable by all users.
    let everybody = fs::Permissions::from_mode(0o755);
    fs::set_permissions(host.directory.path(), everybody)?;
    let copy = host.directory.path().join("teredo");
    fs::copy(binary()?, &copy)?;
    for name in COMMANDS {
        let mut command = host.namespace.command("setpriv")?;
        command
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(&copy)
            .args(*name)
            .arg("--config")
            .arg(&file);
        assert_command_refused(&host, command, &["no permission", "CAP_NET_ADMIN", "root"])?;
    }
    Ok(())
}

#[test]
fn another_xdp_program_is_attached() -> Result<()> {
    let host = Host::new()?;
    let other = Attached::sink(&host.namespace, &["wan"])?;
    for mode in ["auto", "native", "generic"] {
        let file = host.configure("", &format!("xdp.mode = \"{mode}\""))?;
        assert_refused(
            &host,
            &file,
            &["(sink)", "attached to wan", "bpftool link detach id"],
        )?;
    }
    drop(other);
    Ok(())
}

#[test]
fn ipv6_forwarding_off() -> Result<()> {
    let host = Host::new()?;
    host.namespace.sysctl("net.ipv6.conf.all.forwarding", 0)?;
    let file = host.configure("", "")?;
    assert_refused(&host, &file, &["sysctl -w net.ipv6.conf.all.forwarding=1"])
}

#[test]
fn no_tun_device() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("", "")?;
    for name in COMMANDS {
        // A private mount hides the device from this process alone.
        let mut command = host.namespace.command("unshare")?;
        command
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg("mount -t tmpfs none /dev/net && exec \"$@\"")
            .arg("sh")
            .arg(binary()?)
            .args(*name)
            .arg("--config")
            .arg(&file);
        assert_command_refused(&host, command, &["/dev/net/tun", "modprobe tun"])?;
    }
    Ok(())
}

#[test]
fn tunnel_name_of_another_interface() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("", "tun = \"wan\"")?;
    assert_refused(&host, &file, &["wan exists and is not a TUN interface"])
}

#[test]
fn route_of_another_program() -> Result<()> {
    let host = Host::new()?;
    host.namespace
        .ip("-6 route add 2001::/32 via 2001:db8::2 dev wan")?;
    let file = host.configure("", "")?;
    assert_refused(
        &host,
        &file,
        &["route of 2001::/32 already, to wan", "relay.route = false"],
    )
}

#[test]
fn socket_path_is_a_file() -> Result<()> {
    let host = Host::new()?;
    fs::create_dir(host.directory.path().join("run"))?;
    fs::write(host.socket(), "precious")?;
    let file = host.configure("", "")?;
    assert_refused(&host, &file, &["is not a socket", "node.api"])?;
    assert_eq!(fs::read_to_string(host.socket())?, "precious");
    Ok(())
}

/// A host-specific relay serves native addresses, and does not start without one.
#[test]
fn host_specific_without_ipv6() -> Result<()> {
    let host = Host::new()?;
    host.namespace.ip("addr del 2001:db8::1/64 dev wan")?;
    let file = host.configure("", "host-specific = true")?;
    assert_refused(
        &host,
        &file,
        &["no native IPv6 address", "relay.host-specific"],
    )
}

#[test]
fn unsuitable_user() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("user = \"no-such-user\"", "")?;
    assert_refused(&host, &file, &["node.user = \"no-such-user\"", "useradd"])?;
    let file = host.configure("user = \"nobody\"", "")?;
    assert_refused(
        &host,
        &file,
        &["node.user = \"nobody\"", "relay.xdp.pin = false"],
    )
}
