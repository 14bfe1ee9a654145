//! The effects of a client's daemon on its host: one address and its routes, and none at the end.

mod host;

use std::{fs, net::Ipv6Addr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use teredo_lab::{
    Daemon, Namespace,
    process::output,
    teredo::{Config, Teredo, binary},
    wait_for, wait_until,
};

use host::Host;

/// Longest time that any step may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// A host without native IPv6, and its server.
struct Site {
    host: Host,
    _server: Teredo,
}

impl Site {
    fn new() -> Result<Self> {
        let host = Host::new()?;
        host.namespace.ip("-6 route del default")?;
        for address in ["20.0.0.254/24", "20.0.0.253/24"] {
            host.far.ip(&format!("addr add {address} dev wan"))?;
        }
        let config = Config::new()
            .set("node.name", host.far.name())
            .set("server.ipv4", vec!["20.0.0.254", "20.0.0.253"])
            .set("server.forward-echo", false)
            .set("server.xdp.mode", "off");
        let server = Teredo::start(&host.far, &config)?;
        Ok(Self {
            host,
            _server: server,
        })
    }

    fn namespace(&self) -> &Namespace {
        &self.host.namespace
    }

    /// Starts a client with these lines in its sections.
    fn start(&self, node: &str, client: &str) -> Result<Daemon> {
        let client = format!("secondary = \"20.0.0.253\"\n{client}");
        let file = self.host.configure_client(node, &client)?;
        let mut command = self.namespace().command(binary()?)?;
        command.args(["run", "--config"]).arg(file);
        Daemon::start("teredo", command, Daemon::directory("daemon")?)
    }

    /// Waits until the interface has one address, and returns it.
    fn qualified(&self, daemon: &mut Daemon) -> Result<Ipv6Addr> {
        let what = "it has an address";
        daemon.wait_for(what, PATIENCE, || Ok(self.addresses()?.first().copied()))
    }

    fn addresses(&self) -> Result<Vec<Ipv6Addr>> {
        let text = self.namespace().ip("-6 -o addr show")?;
        let lines = text.lines().filter(|line| line.contains(" teredo "));
        lines
            .map(|line| {
                let address = line.split_whitespace().nth(3).context("no address")?;
                let (address, _) = address.split_once('/').context("no prefix")?;
                Ok(address.parse()?)
            })
            .collect()
    }

    fn routes(&self) -> Result<String> {
        self.namespace().ip("-6 route show dev teredo")
    }

    fn has_default(&self) -> Result<bool> {
        Ok(self.routes()?.contains("default via"))
    }

    /// The client's part of `teredo status`.
    fn status(&self) -> Result<Value> {
        let mut command = std::process::Command::new(binary()?);
        let file = self.host.directory.path().join("teredo.toml");
        let text = output(command.args(["status", "--json", "--config"]).arg(file))?;
        let status: Value = serde_json::from_str(&text)?;
        Ok(status["client"].clone())
    }
}

#[test]
fn every_signal_cleans_up() -> Result<()> {
    let site = Site::new()?;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
        let before = site.host.traces()?;
        let mut daemon = site.start("", "")?;
        site.qualified(&mut daemon)?;
        let what = "the routes are there";
        daemon.wait_for(what, PATIENCE, || {
            let routes = site.routes()?;
            let expected = ["2001::/32 via fe80::1", "default via fe80::1"];
            Ok(expected
                .iter()
                .all(|route| routes.contains(route))
                .then_some(()))
        })?;
        daemon.signal(signal)?;
        let status = daemon.wait(PATIENCE)?;
        if signal == Signal::SIGKILL {
            // Directories of the API and of state for the next start.
            fs::remove_file(site.host.socket())?;
        } else {
            assert_eq!(status.code(), Some(0), "{signal}: {}", daemon.log());
        }
        // The kernel releases an interface a little later than the process.
        wait_until(&format!("{signal} leaves nothing"), PATIENCE, || {
            Ok(site.host.traces()? == before)
        })?;
    }
    Ok(())
}

#[test]
fn status_reports_the_qualification() -> Result<()> {
    let site = Site::new()?;
    let mut daemon = site.start("", "port = 5000\nrefresh = 25")?;
    let address = site.qualified(&mut daemon)?;
    let status = site.status()?;
    for (key, expected) in [
        ("state", Value::from("qualified")),
        ("address", Value::from(address.to_string())),
        ("mapped", Value::from("20.0.0.1:5000")),
        ("server", Value::from("20.0.0.254:3544")),
        ("nat", Value::from("restricted")),
        ("port", Value::from(5000)),
        ("port_preserving", Value::from(true)),
        ("refresh_seconds", Value::from(25.0)),
        ("mtu", Value::from(1280)),
    ] {
        assert_eq!(status[key], expected, "{key} in {status}");
    }
    assert_eq!(daemon.terminate()?.code(), Some(0), "{}", daemon.log());
    Ok(())
}

#[test]
fn z01_the_client_stops_for_native_ipv6_and_returns_after_it() -> Result<()> {
    let site = Site::new()?;
    let mut daemon = site.start("", "")?;
    site.qualified(&mut daemon)?;
    let namespace = site.namespace();
    namespace.ip("-6 route add default via 2001:db8::2")?;
    wait_until("it gives its address back", PATIENCE, || {
        Ok(site.addresses()?.is_empty() && site.routes()?.is_empty())
    })?;
    assert_eq!(site.status()?["state"], "offline-native-ipv6");
    namespace.ip("-6 route del default via 2001:db8::2")?;
    site.qualified(&mut daemon)?;
    Ok(())
}

#[test]
fn the_default_route_yields_to_any_other() -> Result<()> {
    let site = Site::new()?;
    let namespace = site.namespace();
    namespace.ip("-6 route add default via 2001:db8::2")?;
    let mut daemon = site.start("", "only-without-ipv6 = false")?;
    site.qualified(&mut daemon)?;
    wait_until("it has its prefix", PATIENCE, || {
        Ok(site.routes()?.contains("2001::/32"))
    })?;
    ensure!(!site.has_default()?);
    namespace.ip("-6 route del default via 2001:db8::2")?;
    wait_until("it takes over", PATIENCE, || site.has_default())?;
    namespace.ip("-6 route add default via 2001:db8::2")?;
    wait_until("it gives way", PATIENCE, || Ok(!site.has_default()?))?;
    // An unreachable route is no path: systems without IPv6 have one.
    namespace.ip("-6 route del default via 2001:db8::2")?;
    namespace.ip("-6 route add unreachable default metric 4294967295")?;
    wait_until("it takes over again", PATIENCE, || site.has_default())
}

#[test]
fn no_default_route_unless_configured() -> Result<()> {
    let site = Site::new()?;
    let mut daemon = site.start("", "default-route = false")?;
    site.qualified(&mut daemon)?;
    wait_until("it has its prefix", PATIENCE, || {
        Ok(site.routes()?.contains("2001::/32"))
    })?;
    ensure!(!site.has_default()?);
    Ok(())
}

#[test]
fn c46_another_network_replaces_the_address() -> Result<()> {
    let site = Site::new()?;
    let mut daemon = site.start("", "")?;
    let first = site.qualified(&mut daemon)?;
    let namespace = site.namespace();
    namespace.ip("addr flush dev wan scope global")?;
    namespace.ip("addr add 20.0.0.77/24 dev wan")?;
    namespace.ip("route add default via 20.0.0.254")?;
    // The obfuscated address is the end of a Teredo address.
    let embedded = [!20, !0, !0, !77];
    let second = wait_for("it has another address", PATIENCE, || {
        let addresses = site.addresses()?;
        ensure!(addresses.len() <= 1, "at most one at a time: {addresses:?}");
        Ok(addresses
            .first()
            .copied()
            .filter(|address| address.octets().ends_with(&embedded)))
    })?;
    ensure!(first != second);
    Ok(())
}

#[test]
fn addresses_of_an_earlier_owner_are_removed() -> Result<()> {
    let site = Site::new()?;
    let namespace = site.namespace();
    for line in [
        "tuntap add dev teredo mode tun",
        "link set teredo up",
        "addr add 2001:0:1400:fe::1/128 dev teredo nodad",
        "-6 route add default dev teredo metric 5",
    ] {
        namespace.ip(line)?;
    }
    let mut daemon = site.start("", "")?;
    let stale: Ipv6Addr = "2001:0:1400:fe::1".parse()?;
    wait_until("it has its own address alone", PATIENCE, || {
        let addresses = site.addresses()?;
        Ok(addresses.len() == 1 && addresses[0] != stale)
    })?;
    ensure!(!site.routes()?.contains("metric 5 "));
    assert_eq!(daemon.terminate()?.code(), Some(0), "{}", daemon.log());
    ensure!(!namespace.ip("link show")?.contains(" teredo:"));
    Ok(())
}

#[test]
fn an_unprivileged_client_follows_its_network() -> Result<()> {
    let site = Site::new()?;
    let before = site.host.traces()?;
    let mut daemon = site.start("user = \"nobody\"", "")?;
    site.qualified(&mut daemon)?;
    site.namespace()
        .ip("-6 route add default via 2001:db8::2")?;
    wait_until("it gives its address back", PATIENCE, || {
        Ok(site.addresses()?.is_empty())
    })?;
    site.namespace()
        .ip("-6 route del default via 2001:db8::2")?;
    site.qualified(&mut daemon)?;
    assert_eq!(daemon.terminate()?.code(), Some(0), "{}", daemon.log());
    assert_eq!(site.host.traces()?, before);
    Ok(())
}
