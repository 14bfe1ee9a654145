//! TCP through the compared clients: a host on the IPv4 internet with a client, our relay in XDP,
//! and a native host. The client has a core for itself; both ends of the connection share the other
//! one. That core is the bottleneck for a fast client, so the relay has a cable of its own to
//! either end: bridges on the path would cost more than the ends do.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use teredo_lab::{
    Namespace, Scene, Teredo, Topology,
    cpu::{self, Threads},
    links::cable,
    programs::Attached,
    scene::{Client, Maker, RELAY, RELAY_IPV6},
    traffic::{Ping, Tcp},
};

use super::{
    cases::{Direction, Stream, Variant},
    relay::INTERFACE_THREAD,
    throughput::Sample,
};

/// The client's address. It has no NAT.
const CLIENT: Ipv4Addr = Ipv4Addr::new(20, 0, 20, 1);
/// The client's service port.
const PORT: u16 = 40_001;
/// The cables between the relay and the client's host, and between the relay and the native host: the
/// relay's interface first.
const CABLES: [[&str; 2]; 2] = [["near4", "direct"], ["near6", "direct"]];
/// The native host's address on its cable.
const HOST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 2);
/// Octets of the first connection, which measures the speed of the client.
const WARM_UP: u64 = 8 << 20;

/// A client with a path to a native host.
#[derive(Debug)]
pub struct Connection {
    /// The client's implementation.
    pub variant: Variant,
    // Dropped before their namespaces.
    client: Client,
    _relay: Teredo,
    _programs: [Attached; 2],
    near: Namespace,
    scene: Scene,
}

impl Connection {
    /// Builds the scene and makes the client and the native host known to each other.
    ///
    /// # Errors
    ///
    /// Fails without root, or when a part does not start.
    pub fn start(variant: Variant) -> Result<Self> {
        let maker = match variant {
            Variant::Userspace => Maker::Teredo,
            Variant::Miredo => Maker::Miredo,
            _ => bail!("{} is no client", variant.word()),
        };
        let scene = Scene::new(Topology {
            clients: 0,
            ..Topology::default()
        })?;
        let near = scene.add_ipv4_host("client", CLIENT)?;
        let programs = lay_cables(&scene, &near)?;
        let cables = CABLES.map(|[relay, _]| relay);
        let interfaces: Vec<String> = (scene.relay_interfaces().into_iter())
            .chain(cables)
            .map(str::to_owned)
            .collect();
        let config = scene
            .relay_config()
            .set("relay.xdp.mode", "native")
            .set("relay.xdp.interfaces", interfaces);
        let relay = scene.start_relay(&config)?;
        // Every kernel has this algorithm, which does not depend on when the cores happened to be
        // free.
        for end in [&near, &scene.host().namespace] {
            end.sysctl("net.ipv4.tcp_congestion_control", "reno")?;
        }
        // The native host stands for another machine: its kernel's work must be done neither on the
        // client's core nor on both cores, which would reorder packets. That of the client's host is
        // done on the client's core.
        let [[_, near_direct], [_, direct]] = CABLES;
        scene.host().namespace.steer(direct, cpu::GENERATOR)?;
        near.steer(near_direct, cpu::RELAY)?;
        let client = cpu::on_core(cpu::RELAY, || scene.start_client_in(maker, &near, PORT))
            .with_context(|| format!("start the client of {}", variant.title()))?;
        Ok(Self {
            variant,
            client,
            _relay: relay,
            _programs: programs,
            near,
            scene,
        })
    }

    /// Measures for about this time.
    ///
    /// # Errors
    ///
    /// Fails when octets do not arrive.
    pub fn measure(&mut self, case: Stream, time: Duration) -> Result<Sample> {
        self.sample(case, time)
            .with_context(|| format!("{}: {case}", self.variant.title()))
    }

    fn sample(&self, case: Stream, time: Duration) -> Result<Sample> {
        Ping::to(HOST).all_from(&self.near)?;
        let warm_up = self.transfer(case.direction, WARM_UP)?;
        let pace = WARM_UP as f64 / warm_up.as_secs_f64();
        let octets = (pace * time.as_secs_f64()) as u64;

        let mut processes = self.near.processes()?;
        if self.client.teredo().is_some() {
            processes.extend(cpu::threads_named(|name| {
                name.starts_with(INTERFACE_THREAD)
            })?);
        }
        let before = Threads::of(&processes)?;
        let elapsed = self.transfer(case.direction, octets)?;
        let used = Threads::of(&processes)?.since(&before);
        let kilobytes = octets as f64 / 1e3;
        Ok(Sample {
            offered: octets / 1000,
            delivered: octets / 1000,
            rate: kilobytes / elapsed.as_secs_f64(),
            share: 1.0,
            busy: used.as_secs_f64() / elapsed.as_secs_f64(),
            inline_nanoseconds: None,
            process_nanoseconds: used.as_nanos() as f64 / kilobytes,
            fast_share: None,
        })
    }

    fn transfer(&self, direction: Direction, octets: u64) -> Result<Duration> {
        let host = self.scene.host();
        let tcp = Tcp::to(HOST).uncompared();
        let tcp = match direction {
            Direction::Encap | Direction::Both => tcp.upload(octets),
            Direction::Decap => tcp.download(octets),
        };
        cpu::on_core(cpu::GENERATOR, || tcp.between(&self.near, &host.namespace))
    }
}

/// Connects the relay with both ends, and routes packets through these cables. Frames that an XDP program
/// redirects into them arrive only if their far ends have programs, too.
fn lay_cables(scene: &Scene, near: &Namespace) -> Result<[Attached; 2]> {
    let [[near4, near_direct], [near6, host_direct]] = CABLES;
    let (relay, host) = (&scene.relay, &scene.host().namespace);
    for ((own, far), end) in [((near4, near_direct), near), ((near6, host_direct), host)] {
        cable((relay, own), (end, far))?;
        // As network cards do, and for good: the kernel may take back what the program brings.
        end.offload(far, "gro on")?;
    }
    relay.ip_batch(&format!(
        "addr add 20.1.0.1/30 dev {near4}
        route add {CLIENT}/32 via 20.1.0.2
        addr add 2001:db8:7::1/64 dev {near6} nodad"
    ))?;
    near.ip_batch(&format!(
        "addr add 20.1.0.2/30 dev {near_direct}
        route add {}/32 via 20.1.0.1 src {CLIENT}",
        RELAY.ip()
    ))?;
    host.ip_batch(&format!(
        "addr add {HOST}/64 dev {host_direct} nodad
        route replace 2001::/32 via 2001:db8:7::1"
    ))?;
    scene
        .server_namespace()
        .ip(&format!("route add 2001:db8:7::/64 via {RELAY_IPV6}"))?;
    Ok([
        Attached::nothing(near, &[near_direct])?,
        Attached::nothing(host, &[host_direct])?,
    ])
}
