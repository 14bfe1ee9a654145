//! TCP through the clients that are compared: a host on the IPv4 internet with a client, our relay in
//! XDP, and a native host. The client has a core for itself; both ends of the connection share the
//! other one.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result, bail};

use super::{
    cases::{Direction, Stream, Variant},
    cpu::{self, Threads},
    relay::INTERFACE_THREAD,
    throughput::Sample,
};
use crate::lab::{
    Namespace, Scene, Teredo, Topology,
    scene::{Client, IPV6_INTERFACE, Maker},
    traffic::{Ping, Tcp},
};

/// Where the client is. It has no NAT.
const CLIENT: Ipv4Addr = Ipv4Addr::new(20, 0, 20, 1);
/// Its service port.
const PORT: u16 = 40_001;
/// Octets of the first connection, which shows how fast the client is.
const WARM_UP: u64 = 8 << 20;

/// A client with a way to a native host.
#[derive(Debug)]
pub struct Connection {
    /// Whose client it is.
    pub variant: Variant,
    // Ended before their places go.
    client: Client,
    _relay: Teredo,
    near: Namespace,
    scene: Scene,
}

impl Connection {
    /// Builds the scene and makes the client and the native host acquainted.
    ///
    /// # Errors
    ///
    /// Without root, or when a part does not start.
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
        let relay = scene.start_relay(&scene.relay_config().set("relay.xdp.mode", "native"))?;
        let near = scene.add_ipv4_host("client", CLIENT)?;
        // What every kernel has, and what makes no guesses from when the cores happened to be free.
        for end in [&near, &scene.host().namespace] {
            end.sysctl("net.ipv4.tcp_congestion_control", "reno")?;
        }
        // The native host is another machine: what its kernel does is not to be done on the client's
        // core, nor on both, which would mix up the order of packets.
        scene
            .host()
            .namespace
            .steer(IPV6_INTERFACE, cpu::GENERATOR)?;
        let client = cpu::on_core(cpu::RELAY, || scene.start_client_in(maker, &near, PORT))
            .with_context(|| format!("start the client of {}", variant.title()))?;
        Ok(Self {
            variant,
            client,
            _relay: relay,
            near,
            scene,
        })
    }

    /// Measures for about this time.
    ///
    /// # Errors
    ///
    /// When something does not arrive.
    pub fn measure(&mut self, case: Stream, time: Duration) -> Result<Sample> {
        self.sample(case, time)
            .with_context(|| format!("{}: {case}", self.variant.title()))
    }

    fn sample(&self, case: Stream, time: Duration) -> Result<Sample> {
        let host = self.scene.host();
        Ping::to(host.address).all_from(&self.near)?;
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
        let tcp = Tcp::to(host.address).uncompared();
        let tcp = match direction {
            Direction::Encap => tcp.upload(octets),
            Direction::Decap => tcp.download(octets),
        };
        cpu::on_core(cpu::GENERATOR, || tcp.between(&self.near, &host.namespace))
    }
}
