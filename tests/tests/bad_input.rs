//! Bad input gets one clear sentence with the mend and exit code 1, and leaves nothing behind.
//!
//! Each test has a host of its own that could run a relay, and spoils one thing. `teredo check` and
//! `teredo run` must refuse it with the same sentence.

use std::{
    fs,
    net::UdpSocket,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use teredo_tests::{
    bench::programs::Attached,
    lab::{Namespace, links, teredo::binary, wait_for, wait_until},
};

/// The commands that refuse.
const COMMANDS: &[&str] = &["check"];
/// How long a refusal may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A host on which a relay could run: addresses, default routes, forwarding.
struct Host {
    namespace: Namespace,
    _far: Namespace,
    directory: TempDir,
}

impl Host {
    fn new() -> Result<Self> {
        let (namespace, far) = (Namespace::new("host")?, Namespace::new("far")?);
        links::cable((&namespace, "wan"), (&far, "wan"))?;
        // What a test finds changed afterwards must not be the kernel's own doing.
        wait_until("the cable is in use", PATIENCE, || {
            Ok(namespace.ip("link show dev wan")?.contains("state UP"))
        })?;
        namespace.ip("addr add 20.0.0.1/24 dev wan")?;
        namespace.ip("route add default via 20.0.0.254")?;
        namespace.ip("addr add 2001:db8::1/64 dev wan nodad")?;
        namespace.ip("route add default via 2001:db8::2")?;
        namespace.forward()?;
        wait_until("its addresses are settled", PATIENCE, || {
            let local = namespace.ip("-6 route show table local")?;
            Ok(["local fe80:", "local 2001:db8::1 "]
                .iter()
                .all(|route| local.contains(route))
                && namespace.ip("addr show tentative")?.is_empty())
        })?;
        Ok(Self {
            namespace,
            _far: far,
            directory: tempfile::tempdir()?,
        })
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("run/api.sock")
    }

    /// Writes the configuration; `node` and `relay` are lines of these sections.
    fn configure(&self, node: &str, relay: &str) -> Result<PathBuf> {
        let file = self.directory.path().join("teredo.toml");
        let text = format!(
            "[node]\nname = \"{}\"\napi = \"unix:{}\"\n{node}\n[relay]\n{relay}\n",
            self.namespace.name(),
            self.socket().display(),
        );
        fs::write(&file, text)?;
        Ok(file)
    }

    /// Everything that a daemon could leave behind.
    fn traces(&self) -> Result<String> {
        let mut text = String::new();
        for what in [
            "-d link show",
            "addr show",
            "-4 route show table all",
            "-6 route show table all",
            "rule show",
        ] {
            text += &self.namespace.ip(what)?;
        }
        text += &format!("socket: {}\n", self.socket().exists());
        let name = self.namespace.name();
        for pins in ["/sys/fs/bpf", "/sys/fs/bpf/teredo", "/run/teredo"] {
            let is_there = find(Path::new(pins), name);
            text += &format!("in {pins}: {is_there}\n");
        }
        Ok(text)
    }

    /// `teredo COMMAND` is refused with the sentence, and leaves nothing.
    fn assert_refused(&self, file: &Path, parts: &[&str]) -> Result<()> {
        for name in COMMANDS {
            let mut command = self.namespace.command(binary()?)?;
            command.args([name, "--config"]).arg(file);
            self.assert_command_refused(command, parts)?;
        }
        Ok(())
    }

    fn assert_command_refused(&self, command: Command, parts: &[&str]) -> Result<()> {
        let before = self.traces()?;
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
        for part in parts {
            assert!(sentence.contains(part), "no {part:?} in {whole}");
        }
        assert_eq!(self.traces()?, before, "{whole}");
        Ok(())
    }
}

fn find(directory: &Path, name: &str) -> bool {
    fs::read_dir(directory).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().contains(name))
    })
}

/// Runs a command that should end by itself.
fn to_the_end(mut command: Command) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    // What they print fits into the pipes.
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
fn the_host_of_these_tests_is_a_good_one() -> Result<()> {
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
    host.assert_refused(
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
    host.assert_refused(&file, &["none.toml", "--config FILE"])
}

#[test]
fn port_in_use() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("", "port = 4545")?;
    let _other = host.namespace.run(|| UdpSocket::bind("0.0.0.0:4545"))??;
    host.assert_refused(&file, &["port 4545 of 20.0.0.1 is in use", "relay.port"])
}

#[test]
fn address_not_on_this_host() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("", "ipv4 = \"20.0.0.7\"")?;
    host.assert_refused(
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
    host.assert_refused(&file, &["relay.ipv4 is \"auto\"", "no IPv4 default route"])
}

#[test]
fn interface_missing() -> Result<()> {
    let host = Host::new()?;
    for mode in ["auto", "native", "generic"] {
        let xdp = format!("xdp = {{ mode = \"{mode}\", interfaces = [\"wan\", \"wan7\"] }}");
        let file = host.configure("", &xdp)?;
        host.assert_refused(&file, &["no interface wan7", "relay.xdp.interfaces", "wan"])?;
    }
    Ok(())
}

#[test]
fn interface_without_ethernet() -> Result<()> {
    let host = Host::new()?;
    host.namespace.ip("tuntap add dev other mode tun")?;
    let file = host.configure("", "xdp = { interfaces = [\"other\"] }")?;
    host.assert_refused(&file, &["other is not Ethernet", "relay.xdp.interfaces"])
}

#[test]
fn no_permission() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("", "")?;
    // The daemon and its configuration where everybody can read them.
    let everybody = fs::Permissions::from_mode(0o755);
    fs::set_permissions(host.directory.path(), everybody)?;
    let copy = host.directory.path().join("teredo");
    fs::copy(binary()?, &copy)?;
    for name in COMMANDS {
        let mut command = host.namespace.command("setpriv")?;
        command
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(&copy)
            .args([name, "--config"])
            .arg(&file);
        host.assert_command_refused(command, &["no permission", "CAP_NET_ADMIN", "root"])?;
    }
    Ok(())
}

#[test]
fn another_xdp_program_is_attached() -> Result<()> {
    let host = Host::new()?;
    let other = Attached::sink(&host.namespace, &["wan"])?;
    for mode in ["auto", "native", "generic"] {
        let file = host.configure("", &format!("xdp.mode = \"{mode}\""))?;
        host.assert_refused(
            &file,
            &["(sink)", "attached to wan", "ip link set dev wan xdp off"],
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
    host.assert_refused(&file, &["sysctl -w net.ipv6.conf.all.forwarding=1"])
}

#[test]
fn no_tun_device() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("", "")?;
    for name in COMMANDS {
        // A mount of its own hides the device from this process alone.
        let mut command = host.namespace.command("unshare")?;
        command
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg("mount -t tmpfs none /dev/net && exec \"$@\"")
            .arg("sh")
            .arg(binary()?)
            .args([name, "--config"])
            .arg(&file);
        host.assert_command_refused(command, &["/dev/net/tun", "modprobe tun"])?;
    }
    Ok(())
}

#[test]
fn tunnel_name_of_another_interface() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("", "tun = \"wan\"")?;
    host.assert_refused(&file, &["wan exists and is no TUN interface"])
}

#[test]
fn somebody_elses_route() -> Result<()> {
    let host = Host::new()?;
    host.namespace
        .ip("-6 route add 2001::/32 via 2001:db8::2 dev wan")?;
    let file = host.configure("", "")?;
    host.assert_refused(
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
    host.assert_refused(&file, &["is not a socket", "node.api"])?;
    assert_eq!(fs::read_to_string(host.socket())?, "precious");
    Ok(())
}

#[test]
fn host_specific_without_ipv6() -> Result<()> {
    let host = Host::new()?;
    host.namespace.ip("addr del 2001:db8::1/64 dev wan")?;
    let file = host.configure("", "host-specific = true")?;
    host.assert_refused(&file, &["no native IPv6 address", "relay.host-specific"])
}

#[test]
fn user_that_cannot_be() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("user = \"no-such-user\"", "")?;
    host.assert_refused(&file, &["node.user = \"no-such-user\"", "useradd"])?;
    let file = host.configure("user = \"nobody\"", "")?;
    host.assert_refused(&file, &["node.user = \"nobody\"", "relay.xdp.pin = false"])
}
