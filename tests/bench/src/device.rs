//! A relay outside this machine, between two of its interfaces.
//!
//! The interfaces move into a namespace for the time of the measurement, and back at its end. The device
//! is configured as the relays of a [`Site`](crate::site::Site) are; see [`REQUIREMENTS`].

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::{Pid, gettid};
use serde_json::Value;
use teredo_lab::{Namespace, links::Interface, wait_for};

use super::{
    frames::{HOST, RELAY},
    site::{FAR, GATEWAY},
};

/// The configuration that the device needs.
pub const REQUIREMENTS: &str = "\
The relay behind the interfaces needs:
  - towards the first: the address 20.0.0.1/24, the service port 3545, and 20.0.0.2 as default gateway;
  - towards the second: the address 2001:db8:6::1/64, and a route for 2001:db8:7::/48 via 2001:db8:6::10;
  - forwarding, and for more than a few thousand peers the limits of [relay] and [relay.xdp] raised
    (bubble-rate, bubble-total-rate, new-peer-rate, new-peer-total-rate, unproved-rate; new-peer-rate and
    answer-rate of [relay.xdp] 0), and max-peers.";

/// The device's address towards native hosts.
const NATIVE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 6, 0, 0, 0, 0, 1);
/// The longest time that the device may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// A port at which nobody listens.
const DISCARD: u16 = 9;

/// Interfaces of this machine that a namespace has for a while. They are back when this is dropped, which
/// has to be before the namespace is.
#[derive(Debug)]
pub struct Borrowed {
    names: [String; 2],
    /// The name of the namespace.
    namespace: String,
    /// The thread to whose namespace they return.
    owner: Pid,
}

impl Borrowed {
    /// Moves interfaces of the caller's namespace into another one, where their names are those of [`FAR`].
    ///
    /// # Errors
    ///
    /// Fails when there are no such interfaces, or they cannot be moved.
    pub fn take(names: &[String; 2], namespace: &Namespace) -> Result<Self> {
        let to = namespace.name();
        for (name, new) in names.iter().zip(FAR) {
            ip(&format!("link set {name} down"))?;
            ip(&format!("link set {name} netns {to} name {new}"))?;
        }
        let borrowed = Self {
            names: names.clone(),
            namespace: to.to_owned(),
            owner: gettid(),
        };
        for new in FAR {
            namespace.ip(&format!("link set {new} up"))?;
        }
        namespace.ip_batch(&format!(
            "addr add {GATEWAY}/24 dev {}
            addr add {HOST}/64 dev {} nodad",
            FAR[0], FAR[1]
        ))?;
        Ok(borrowed)
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        for (name, new) in self.names.iter().zip(FAR) {
            let (from, to) = (&self.namespace, self.owner);
            let back = format!("-netns {from} link set {new} netns {to} name {name}");
            let returned = ip(&back).and_then(|()| ip(&format!("link set {name} up")));
            if let Err(error) = returned {
                eprintln!("the interface {name} is not back: {error:#}");
            }
        }
    }
}

/// Finds the Ethernet addresses of the device at the other ends.
///
/// # Errors
///
/// Fails when it does not answer.
pub fn stations(namespace: &Namespace) -> Result<[Interface; 2]> {
    let station = |address, interface| {
        let station = ask(namespace, address, interface);
        let station = station.with_context(|| {
            format!("the device does not answer as {address} at {interface}\n{REQUIREMENTS}")
        })?;
        anyhow::Ok(Interface { index: 0, station })
    };
    Ok([
        station(IpAddr::V4(RELAY.ip()), FAR[0])?,
        station(IpAddr::V6(NATIVE), FAR[1])?,
    ])
}

/// Lets the kernel ask for the Ethernet address of a neighbour.
fn ask(namespace: &Namespace, address: IpAddr, interface: &str) -> Result<[u8; 6]> {
    wait_for("the device answers", PATIENCE, || {
        namespace.run(|| {
            let unspecified = match address {
                IpAddr::V4(_) => "0.0.0.0:0",
                IpAddr::V6(_) => "[::]:0",
            };
            let socket = UdpSocket::bind(unspecified)?;
            // Any packet will do. Until there is an address, the kernel may refuse it.
            socket.send_to(&[0], SocketAddr::new(address, DISCARD)).ok();
            anyhow::Ok(())
        })??;
        let text = namespace.ip(&format!("-json neigh show {address} dev {interface}"))?;
        let neighbours: Value = serde_json::from_str(&text)?;
        Ok(neighbours[0]["lladdr"].as_str().and_then(|text| {
            let octets = text.split(':').map(|octet| u8::from_str_radix(octet, 16));
            octets.collect::<Result<Vec<_>, _>>().ok()?.try_into().ok()
        }))
    })
}

/// Runs `ip` in the caller's namespace.
fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .context("run ip")?;
    ensure!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
