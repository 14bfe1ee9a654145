//! Configurations that a server refuses.

use std::{
    fs,
    net::UdpSocket,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use serde_json::Value;
use teredo_lab::teredo::binary;

use crate::{COMMANDS, assert_command_refused, assert_refused, host::Host, to_the_end};

const DIGITS: &str = "00112233445566778899aabbccddeeff";

/// Asserts that a configuration with these lines in the section and after it is refused with the
/// sentence.
fn assert_server_refused(host: &Host, server: &str, parts: &[&str]) -> Result<()> {
    let file = host.configure_server("", server)?;
    assert_refused(host, &file, parts)
}

/// The findings of a `teredo check` that succeeds: a line for each.
fn findings(host: &Host, server: &str, options: &[&str]) -> Result<String> {
    let file = host.configure_server("", server)?;
    let mut command = host.namespace.command(binary()?)?;
    command.arg("check").args(options).arg("--config").arg(file);
    let before = host.traces()?;
    let output = to_the_end(command)?;
    let text = String::from_utf8(output.stdout)?;
    assert!(output.status.success(), "{text}");
    assert_eq!(String::from_utf8(output.stderr)?, "");
    assert_eq!(host.traces()?, before);
    Ok(text)
}

fn key(host: &Host, text: &str, mode: u32) -> Result<PathBuf> {
    let file = host.directory.path().join("alice.key");
    fs::write(&file, text)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
    Ok(file)
}

fn client(file: &std::path::Path) -> String {
    format!("[[server.client]]\nid = \"alice\"\nsecret-file = {file:?}")
}

#[test]
fn the_unspoiled_host_passes() -> Result<()> {
    let host = Host::new()?;
    let text = findings(&host, "", &[])?;
    for part in [
        "the server is 20.0.0.1",
        "UDP 20.0.0.1:3544 is free",
        "the server is 20.0.0.2",
        "UDP 20.0.0.2:3544 is free",
        "wan: native",
        "2.5 MiB for the limits of the server",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert!(!text.contains("relay"), "{text}");
    Ok(())
}

#[test]
fn s25_the_route_of_connectivity_tests_is_reported() -> Result<()> {
    let host = Host::new()?;
    let text = findings(&host, "", &[])?;
    assert!(text.contains("by the IPv6 default route alone"), "{text}");
    let text = findings(&host, "[relay]", &[])?;
    assert!(
        text.contains("relay beside the server will have the route"),
        "{text}"
    );
    host.namespace
        .ip("-6 route add 2001::/32 via 2001:db8::2")?;
    let text = findings(&host, "", &[])?;
    assert!(text.contains("2001::/32 leads to wan"), "{text}");
    host.namespace.ip("-6 route del 2001::/32")?;
    host.namespace.ip("-6 route del default")?;
    let mut command = host.namespace.command(binary()?)?;
    let file = host.configure_server("", "")?;
    command.args(["check", "--config"]).arg(file);
    assert_command_refused(&host, command, &["no route for 2001::/32"])?;
    let text = findings(&host, "forward-echo = false", &[])?;
    assert!(text.contains("server.forward-echo is false"), "{text}");
    Ok(())
}

#[test]
fn unusual_addresses_and_ports_are_reported() -> Result<()> {
    let host = Host::new()?;
    host.namespace.ip("addr add 20.0.0.9/24 dev wan")?;
    let file = host.configure_server("", "port = 4544")?;
    let text = fs::read_to_string(&file)?;
    fs::write(&file, text.replace("20.0.0.2", "20.0.0.9"))?;
    let mut command = host.namespace.command(binary()?)?;
    command.args(["check", "--json", "--config"]).arg(&file);
    let report: Value = serde_json::from_slice(&to_the_end(command)?.stdout)?;
    assert_eq!(report["ok"], true, "{report}");
    let findings = report["findings"].as_array().context("a list")?;
    for part in [
        "20.0.0.9 is not 20.0.0.1 plus one",
        "clients know no other than 3544",
    ] {
        let told = findings.iter().find(|finding| {
            finding["text"]
                .as_str()
                .is_some_and(|text| text.contains(part))
        });
        assert_eq!(told.context(part)?["verdict"], "note");
    }
    Ok(())
}

#[test]
fn unknown_and_missing_keys() -> Result<()> {
    let host = Host::new()?;
    assert_server_refused(
        &host,
        "require-authentication = true",
        &[
            "teredo.toml line 7",
            "\"require-authentication\" in [server]",
            "\"require-auth\"",
        ],
    )?;
    assert_server_refused(
        &host,
        "[[server.client]]\nid = \"alice\"",
        &[
            "teredo.toml line 7",
            "[[server.client]] needs the key secret-file",
            "absolute path",
        ],
    )?;
    assert_server_refused(
        &host,
        "require-auth = true",
        &["server.require-auth = true", "[[server.client]]"],
    )
}

#[test]
fn address_not_on_this_host() -> Result<()> {
    let host = Host::new()?;
    host.namespace.ip("addr del 20.0.0.2/24 dev wan")?;
    assert_server_refused(
        &host,
        "",
        &[
            "server.ipv4 has 20.0.0.2",
            "not an address of this host",
            "ip address add 20.0.0.2/32",
        ],
    )
}

#[test]
fn address_behind_a_nat() -> Result<()> {
    let host = Host::new()?;
    for address in ["10.0.0.1/24", "10.0.0.2/24"] {
        host.namespace.ip(&format!("addr add {address} dev wan"))?;
    }
    let file = host.configure_server("", "")?;
    let text = fs::read_to_string(&file)?.replace("20.0.0.", "10.0.0.");
    fs::write(&file, &text)?;
    assert_refused(
        &host,
        &file,
        &[
            "server cannot be 10.0.0.1",
            "server.ipv4-scope = \"strict\"",
            "\"lab\"",
        ],
    )
}

#[test]
fn port_in_use() -> Result<()> {
    let host = Host::new()?;
    let _other = host.namespace.run(|| UdpSocket::bind("20.0.0.2:3544"))??;
    assert_server_refused(
        &host,
        "",
        &["port 3544 of 20.0.0.2 is in use", "server.port"],
    )
}

#[test]
fn the_relays_automatic_address_is_the_secondary() -> Result<()> {
    let host = Host::new()?;
    host.namespace
        .ip("-4 route replace default via 20.0.0.254 src 20.0.0.2")?;
    assert_server_refused(
        &host,
        "[relay]\nport = 3544",
        &["20.0.0.2, the server's secondary address", "relay.port"],
    )
}

#[test]
fn roles_that_disagree() -> Result<()> {
    let host = Host::new()?;
    assert_server_refused(
        &host,
        "[relay]\nxdp.mode = \"native\"",
        &[
            "relay.xdp.mode is \"native\"",
            "server.xdp.mode is \"auto\"",
            "set both to the same",
        ],
    )
}

#[test]
fn interface_missing() -> Result<()> {
    let host = Host::new()?;
    assert_server_refused(
        &host,
        "xdp.interfaces = [\"wan7\"]",
        &["no interface wan7", "server.xdp.interfaces", "wan"],
    )
}

#[test]
fn a09_unusable_secrets() -> Result<()> {
    let host = Host::new()?;
    let file = host.directory.path().join("alice.key");
    let name = file.to_string_lossy().into_owned();
    let refused = |parts: &[&str]| {
        let parts = [&["client alice", &*name], parts].concat();
        assert_server_refused(&host, &client(&file), &parts)
    };
    refused(&["does not exist", "openssl rand"])?;
    for (text, mode, rule) in [
        (DIGITS, 0o644, "has mode 0644, but only its owner"),
        (DIGITS, 0o620, "has mode 0620, but only its owner"),
        (
            &DIGITS[..30],
            0o600,
            "contains 15 octets, but a key has 16 or more",
        ),
        (&DIGITS[..31], 0o600, "one line of hexadecimal digits"),
        (
            "correct horse battery staple",
            0o600,
            "one line of hexadecimal digits",
        ),
    ] {
        key(&host, text, mode)?;
        refused(&[rule])?;
    }
    key(&host, DIGITS, 0o600)?;
    chown(&file, Some(1234), None)?;
    refused(&["belongs to user 1234"])?;
    fs::remove_file(&file)?;
    fs::create_dir(&file)?;
    refused(&["is not a regular file"])?;
    fs::remove_dir(&file)?;
    symlink("/dev/zero", &file)?;
    refused(&["is not a regular file"])
}

#[test]
fn a_good_secret_is_accepted_and_never_printed() -> Result<()> {
    let host = Host::new()?;
    let file = key(&host, DIGITS, 0o600)?;
    let text = findings(&host, &client(&file), &[])?;
    assert!(text.contains("of 1 client"), "{text}");
    assert!(!text.contains("2233"), "{text}");
    Ok(())
}

#[test]
fn no_permission() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure_server("", "xdp.mode = \"off\"")?;
    for name in COMMANDS {
        let mut command = host.namespace.command("setpriv")?;
        command
            .args(["--bounding-set=-net_raw", "--inh-caps=-all"])
            .arg(binary()?)
            .args(*name)
            .arg("--config")
            .arg(&file);
        assert_command_refused(&host, command, &["no permission", "CAP_NET_RAW", "root"])?;
    }
    Ok(())
}

#[test]
fn unsuitable_tunnel_service() -> Result<()> {
    let host = Host::new()?;
    let file = key(&host, DIGITS, 0o600)?;
    let tunnel = format!("{}\nprefix = \"2001:db8:1:2::/64\"", client(&file));
    let text = findings(&host, &tunnel, &[])?;
    assert!(text.contains("teredo-server will be made"), "{text}");
    assert_server_refused(
        &host,
        &format!("tun = \"wan\"\n{tunnel}"),
        &["wan exists and is not a TUN interface"],
    )?;
    host.namespace
        .ip("-6 route add 2001:db8:1:2::/64 via 2001:db8::2")?;
    assert_server_refused(
        &host,
        &tunnel,
        &[
            "route of 2001:db8:1:2::/64 already, to wan",
            "ip -6 route del 2001:db8:1:2::/64",
        ],
    )?;
    host.namespace.ip("-6 route del 2001:db8:1:2::/64")?;
    host.namespace.sysctl("net.ipv6.conf.all.forwarding", 0)?;
    assert_server_refused(
        &host,
        &tunnel,
        &["sysctl -w net.ipv6.conf.all.forwarding=1"],
    )
}

#[test]
fn z03_a_role_past_its_end_date() -> Result<()> {
    let host = Host::new()?;
    let past = "sunset = \"2020-01-31\"";
    let parts = [
        "the server was to end on 2020-01-31",
        "server.sunset",
        "--after-sunset",
    ];
    assert_server_refused(&host, past, &parts)?;
    let text = findings(&host, past, &["--after-sunset"])?;
    assert!(
        text.contains("the server was to end on 2020-01-31"),
        "{text}"
    );
    let file = host.configure("", past)?;
    assert_refused(
        &host,
        &file,
        &["the relay was to end on 2020-01-31", "relay.sunset"],
    )
}

#[test]
fn user_that_cannot_remove_pins() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure_server("user = \"nobody\"", "")?;
    assert_refused(
        &host,
        &file,
        &["node.user = \"nobody\"", "server.xdp.pin = false"],
    )
}
