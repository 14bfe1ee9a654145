//! A client and its gateway: the requests to forward the port, and to stop forwarding it.

mod gateway;
#[path = "../host/mod.rs"]
mod host;

use std::{net::Ipv4Addr, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::Value;
use teredo_lab::{
    Daemon, Namespace,
    process::output,
    teredo::{Config, Teredo, binary},
    wait_until,
};

use gateway::{Gateway, OUTSIDE};
use host::Host;

/// Longest time that any step may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The client's service port.
const PORT: u16 = 5000;

/// A host with a private address, and a server behind its gateway.
struct Site {
    host: Host,
    server: Option<Teredo>,
}

impl Site {
    fn new() -> Result<Self> {
        let host = Host::new()?;
        for (namespace, addresses) in [
            (&host.namespace, &["192.168.77.2/24"][..]),
            (
                &host.far,
                &["192.168.77.1/24", "20.0.0.254/24", "20.0.0.253/24"],
            ),
        ] {
            namespace.ip("addr flush dev wan scope global")?;
            for address in addresses {
                namespace.ip(&format!("addr add {address} dev wan"))?;
            }
        }
        host.namespace
            .ip("route add 20.0.0.0/24 via 192.168.77.1")?;
        let mut site = Self { host, server: None };
        site.start_server()?;
        Ok(site)
    }

    fn start_server(&mut self) -> Result<()> {
        let config = Config::new()
            .set("node.name", self.host.far.name())
            .set("server.ipv4", vec!["20.0.0.254", "20.0.0.253"])
            .set("server.ipv4-scope", "lab")
            .set("server.forward-echo", false)
            .set("server.xdp.mode", "off");
        self.server = Some(Teredo::start(&self.host.far, &config)?);
        Ok(())
    }

    fn namespace(&self) -> &Namespace {
        &self.host.namespace
    }

    fn route_by(&self, gateway: &str) -> Result<()> {
        let route = format!("route add default via {gateway}");
        self.namespace().ip(&route)?;
        Ok(())
    }

    /// Starts a client and waits until it has an address.
    fn start(&self, client: &str) -> Result<Daemon> {
        let client =
            format!("secondary = \"20.0.0.253\"\nipv4-scope = \"lab\"\nport = {PORT}\n{client}");
        let file = self.host.configure_client("log = \"debug\"", &client)?;
        let mut command = self.namespace().command(binary()?)?;
        command.args(["run", "--config"]).arg(file);
        command.env("STATE_DIRECTORY", self.host.directory.path());
        let mut daemon = Daemon::start("teredo", command, Daemon::directory("daemon")?)?;
        daemon.wait_for("it has an address", PATIENCE, || {
            let status = self.status().unwrap_or_default();
            Ok((status["state"] == "qualified").then_some(()))
        })?;
        Ok(daemon)
    }

    /// The client's part of `teredo status`.
    fn status(&self) -> Result<Value> {
        let mut command = Command::new(binary()?);
        let file = self.host.directory.path().join("teredo.toml");
        let text = output(command.args(["status", "--json", "--config"]).arg(file))?;
        let status: Value = serde_json::from_str(&text)?;
        Ok(status["client"].clone())
    }
}

#[test]
fn x20_x22_the_port_is_forwarded_from_before_qualification_until_the_end() -> Result<()> {
    let site = Site::new()?;
    site.route_by("192.168.77.1")?;
    let gateway = Gateway::start(&site.host.far, Some(OUTSIDE))?;
    let mut daemon = site.start("")?;
    // A client that is qualified has already asked the gateway.
    let requests = gateway.requests();
    assert_eq!(
        gateway.actions(),
        ["AddPortMapping", "GetExternalIPAddress"]
    );
    let (_, arguments) = requests.first().context("no request")?;
    let port = PORT.to_string();
    let expected = ["", &port, "UDP", &port, "192.168.77.2", "1", "TEREDO", "0"];
    assert_eq!(arguments, &expected);
    let external = format!("{OUTSIDE}:{PORT}");
    assert_eq!(site.status()?["port_mapping"], Value::from(external));
    assert_eq!(gateway.ports(), [&*port]);

    assert_eq!(daemon.terminate()?.code(), Some(0), "{}", daemon.log());
    let last = gateway.requests().pop().context("no request")?;
    let expected = ["", &port, "UDP"].map(str::to_owned).to_vec();
    assert_eq!(last, ("DeletePortMapping".to_owned(), expected));
    assert!(gateway.ports().is_empty());
    Ok(())
}

#[test]
fn x20_a_mapping_without_an_external_address_is_removed() -> Result<()> {
    let site = Site::new()?;
    site.route_by("192.168.77.1")?;
    let gateway = Gateway::start(&site.host.far, None)?;
    let _daemon = site.start("")?;
    let expected = [
        "AddPortMapping",
        "GetExternalIPAddress",
        "DeletePortMapping",
    ];
    assert_eq!(gateway.actions(), expected);
    assert!(gateway.ports().is_empty());
    assert_eq!(site.status()?["port_mapping"], Value::Null);
    Ok(())
}

#[test]
fn x22_leftovers_of_a_crash_are_deleted_first() -> Result<()> {
    let site = Site::new()?;
    site.route_by("192.168.77.1")?;
    let gateway = Gateway::start(&site.host.far, Some(OUTSIDE))?;
    let mut daemon = site.start("")?;
    daemon.signal(Signal::SIGKILL)?;
    daemon.wait(PATIENCE)?;
    assert_eq!(
        gateway.ports(),
        [PORT.to_string()],
        "the killed daemon released its port"
    );
    let mut daemon = site.start("")?;
    let actions = gateway.actions();
    assert_eq!(
        actions[2..],
        [
            "DeletePortMapping",
            "AddPortMapping",
            "GetExternalIPAddress"
        ]
    );
    assert_eq!(daemon.terminate()?.code(), Some(0), "{}", daemon.log());
    assert!(gateway.ports().is_empty());
    Ok(())
}

#[test]
fn z01_native_ipv6_ends_the_mapping() -> Result<()> {
    let site = Site::new()?;
    site.route_by("192.168.77.1")?;
    let gateway = Gateway::start(&site.host.far, Some(OUTSIDE))?;
    let _daemon = site.start("")?;
    assert_eq!(gateway.ports().len(), 1);
    // The default route exists already.
    site.namespace()
        .ip("addr add 2001:db8::1/64 dev wan nodad")?;
    wait_until("the port is given back", PATIENCE, || {
        Ok(gateway.ports().is_empty())
    })
}

#[test]
fn x20_only_the_gateway_is_asked_and_only_if_configured() -> Result<()> {
    let site = Site::new()?;
    let gateway = Gateway::start(&site.host.far, Some(OUTSIDE))?;
    // The host that answers is not the one that routes the client's packets.
    site.route_by("192.168.77.254")?;
    let mut daemon = site.start("")?;
    wait_until("it finds the device that answers", PATIENCE, || {
        Ok(daemon
            .log()
            .contains("192.168.77.1 is not the default gateway"))
    })?;
    assert_eq!(daemon.terminate()?.code(), Some(0), "{}", daemon.log());
    site.namespace().ip("route del default")?;
    site.route_by("192.168.77.1")?;
    let _daemon = site.start("port-mapping = false")?;
    assert!(gateway.requests().is_empty(), "{:?}", gateway.requests());
    Ok(())
}

#[test]
fn x20_a_gateway_that_is_late_is_found() -> Result<()> {
    let site = Site::new()?;
    site.route_by("192.168.77.1")?;
    let _daemon = site.start("")?;
    assert_eq!(site.status()?["port_mapping"], Value::Null);
    let gateway = Gateway::start(&site.host.far, Some(OUTSIDE))?;
    let external = Value::from(format!("{OUTSIDE}:{PORT}"));
    wait_until("the port is forwarded", PATIENCE, || {
        Ok(site.status()?["port_mapping"] == external)
    })?;
    assert_eq!(gateway.ports(), [PORT.to_string()]);
    Ok(())
}

/// A gateway that restarts forgets the mapping, and has another port and address. The provider's new
/// address makes the client qualify again; here the server does.
#[test]
fn x20_a_gateway_that_restarted_is_asked_again() -> Result<()> {
    const OTHER: Ipv4Addr = Ipv4Addr::new(20, 9, 9, 10);

    let mut site = Site::new()?;
    site.route_by("192.168.77.1")?;
    let gateway = Gateway::start(&site.host.far, Some(OUTSIDE))?;
    let _daemon = site.start("refresh = 5")?;
    assert_eq!(gateway.ports(), [PORT.to_string()]);
    drop(gateway);
    let gateway = Gateway::start(&site.host.far, Some(OTHER))?;
    site.server = None;
    wait_until("it misses the server", 2 * PATIENCE, || {
        Ok(site.status()?["state"] != "qualified")
    })?;
    site.start_server()?;
    let external = Value::from(format!("{OTHER}:{PORT}"));
    wait_until("the new address is known", 2 * PATIENCE, || {
        Ok(site.status()?["port_mapping"] == external)
    })?;
    assert_eq!(gateway.ports(), [PORT.to_string()]);
    Ok(())
}
