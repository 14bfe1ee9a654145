//! Our server on a real kernel: Miredo's clients qualify with it and find their relays, and forged
//! clients receive the answers of the protocol from the right address.

mod answers;
mod connection;
mod keys;
mod life;
mod roles;

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, UdpSocket},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    process::Output,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use teredo_common::wire::SERVER_PORT;
use teredo_lab::{
    Capture, Namespace, Scene, Teredo, Topology,
    caller::Caller,
    capture::Frame,
    links::cable,
    packet::octets,
    peers::{bubble, is_bubble, teredo_address, udp_packet},
    programs::Attached,
    qualification::{
        CLIENT, CONE_CLIENT, advertisement_of, icmpv6, nonce_only, origin, solicitation,
    },
    scene::{
        Host, IPV6_INTERFACE, Maker, Place, RELAY, RELAY_IPV6, SECONDARY, SERVER, SERVER_IPV6,
    },
    teredo::{Config, Paths, binary},
    traffic::Ping,
    wait_until,
};
use teredo_proto::wire::authentication::{Algorithm, Key};

/// Time after which a step has failed.
const SOON: Duration = Duration::from_secs(10);

/// The address of a forged client in the scene.
const FORGED: Ipv4Addr = Ipv4Addr::new(20, 0, 2, 1);

fn scene(place: Place) -> Result<Scene> {
    Scene::new(Topology {
        place,
        server: None,
        ..Topology::default()
    })
}

/// Checks that the path of this mode answered all solicitations but those that are always `left` to
/// the daemon.
fn answered_by(server: &Teredo, mode: &str, left: u64) -> Result<()> {
    let status = server.status()?;
    let Paths { xdp, userspace } = server.advertised()?;
    let as_expected = match mode {
        "off" => xdp == 0 && userspace > 0,
        _ => xdp > 0 && userspace == left,
    };
    ensure!(
        as_expected,
        "{mode}: {xdp} in XDP, {userspace} in userspace; {:?}",
        status.passed
    );
    Ok(())
}

/// Starts our server with this `xdp.mode`, which must take effect.
fn start(namespace: &Namespace, config: &Config, mode: &str) -> Result<Teredo> {
    let server = Teredo::start(namespace, &config.clone().set("server.xdp.mode", mode))?;
    for attachment in server.status()?.xdp {
        ensure!(
            attachment.mode.name() == mode,
            "{attachment:?} instead of {mode}"
        );
    }
    Ok(server)
}

fn start_in(scene: &Scene, mode: &str) -> Result<Teredo> {
    start(scene.server_namespace(), &scene.server_config(), mode)
}

/// A forged client in the scene, which the server's host has resolved; its namespace is dropped
/// last.
fn forged(scene: &Scene, port: u16) -> Result<(Caller, Namespace)> {
    let namespace = scene.add_ipv4_host("forged", FORGED)?;
    for address in [SERVER, SECONDARY] {
        wait_until("the server's host answers", SOON, || {
            answers_ping(&namespace, FORGED, address)
        })?;
    }
    let caller = Caller::open(&namespace, SocketAddrV4::new(FORGED, port))?;
    Ok((caller, namespace))
}

fn answers_ping(from: &Namespace, source: Ipv4Addr, to: Ipv4Addr) -> Result<bool> {
    let mut ping = from.command("ping")?;
    ping.args(["-c1", "-W1", "-I", &source.to_string(), &to.to_string()]);
    Ok(ping.output()?.status.success())
}

/// A server's host and a client's host on one cable, with addresses that no scene uses.
struct Pair {
    server: Namespace,
    client: Namespace,
    _program: Attached,
}

impl Pair {
    /// Makes the hosts of a server at `primary` and the next address, and of a client at `client`.
    fn new(primary: Ipv4Addr, client: Ipv4Addr) -> Result<Self> {
        let [server, far] = [Namespace::new("server")?, Namespace::new("client")?];
        cable((&server, "v4"), (&far, "v4"))?;
        let program = Attached::nothing(&far, &["v4"])?;
        let gateway = Ipv4Addr::from_bits(primary.to_bits() ^ 0x10);
        server.ip_batch(&format!(
            "addr add {primary}/24 dev v4
            addr add {}/24 dev v4
            route add default via {gateway}",
            next(primary)
        ))?;
        far.ip_batch(&format!(
            "addr add {gateway}/24 dev v4
            addr add {client}/32 dev v4"
        ))?;
        let pair = Self {
            server,
            client: far,
            _program: program,
        };
        wait_until("both know each other", SOON, || {
            answers_ping(&pair.client, client, primary)
        })?;
        Ok(pair)
    }

    fn config(primary: Ipv4Addr) -> Config {
        let addresses = [primary, next(primary)].map(|address| address.to_string());
        Config::new().set("server.ipv4", addresses.to_vec())
    }
}

fn next(address: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits() + 1)
}

/// The bubble that the server forwarded for a relay, with its origin indication (S-15).
fn is_forwarded_bubble(frame: &Frame, relay: SocketAddrV4) -> bool {
    frame.udp_payload().is_some_and(|payload| {
        payload.starts_with(&origin(relay)) && payload.get(8..).is_some_and(is_bubble)
    })
}

fn is_echo_request(frame: &Frame, source: Ipv6Addr) -> bool {
    frame.bytes.get(12..14) == Some(&[0x86, 0xdd])
        && frame.bytes.get(22..38) == Some(&source.octets())
        && frame.bytes.get(54) == Some(&128)
}
