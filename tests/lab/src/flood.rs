//! Floods of forged datagrams to a server.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use teredo_common::{address::Endpoint, wire::SERVER_PORT};
use teredo_lab_ebpf::{
    client,
    flood::{FRAME, KINDS},
};

use super::{
    namespace::Namespace,
    qualification::{CLIENT, nonce_only, solicitation},
    scene::{IPV4_INTERFACE, SERVER, Scene},
    wait::wait_until,
};
use crate::{
    frames::{Stations, datagram},
    links::Interface,
    programs::{Attached, BATCH, Generator},
};

/// The interface from which all forged datagrams really come.
const ATTACKER: Ipv4Addr = Ipv4Addr::new(20, 0, 3, 1);
/// The networks of all forged sources.
const FORGED: &str = "20.64.0.0/10";
/// Octets of a forged payload.
const PAYLOAD: usize = FRAME - 42;
/// Datagrams in one run of the generator: long enough that the pause between runs does not matter,
/// and short enough that a flood ends soon after it is told to.
const RUN: Duration = Duration::from_secs(2);

/// The payload of a forged datagram.
#[derive(Clone, Copy, Debug)]
pub enum Forgery {
    /// A router solicitation that the server answers.
    Solicitation,
    /// Octets without a meaning.
    Noise,
    /// A router solicitation with a wrong checksum.
    Damaged,
    /// A bubble between two addresses that nobody has.
    Bubble,
    /// A truncated router solicitation.
    Truncated,
}

impl Forgery {
    /// Every payload except those that are answered.
    pub const GARBAGE: [Self; KINDS] = [Self::Noise, Self::Damaged, Self::Bubble, Self::Truncated];

    fn payload(self) -> Vec<u8> {
        let mut payload = nonce_only(*b"forgery!");
        payload.extend(solicitation(CLIENT));
        let ipv6 = payload.len() - 48;
        match self {
            Self::Solicitation => {}
            Self::Noise => payload = (0..PAYLOAD).map(|at| (at * at / 3 + 17) as u8).collect(),
            Self::Damaged => payload[ipv6 + 42] ^= 0x5a,
            Self::Bubble => {
                // No authentication, no payload; a trailer to the same length.
                payload.drain(..ipv6);
                payload[4..8].copy_from_slice(&[0, 0, 59, 255]);
                payload[40..].fill(0);
                payload.resize(PAYLOAD, 0);
            }
            Self::Truncated => payload[ipv6 + 5] = 200,
        }
        payload
    }
}

/// An attacker on the IPv4 internet that forges the sources of its datagrams to the server. The
/// server's answers come back to the attacker.
#[derive(Debug)]
pub struct Attacker {
    answers: Attached,
    stations: Stations,
    interface: u32,
    namespace: Namespace,
}

impl Attacker {
    /// Connects the attacker to a scene.
    ///
    /// # Errors
    ///
    /// Fails when the attacker's interface cannot be made.
    pub fn new(scene: &mut Scene) -> Result<Self> {
        let namespace = Namespace::new("attacker")?;
        scene.ipv4.plug_xdp(&namespace, IPV4_INTERFACE)?;
        namespace.ip(&format!("addr add {ATTACKER}/16 dev {IPV4_INTERFACE}"))?;
        let server = scene.server_namespace();
        server.ip(&format!("route add {FORGED} via {ATTACKER}"))?;
        let own = Interface::named(&namespace, IPV4_INTERFACE)?;
        let stations = Stations {
            source: own.station,
            destination: Interface::named(server, IPV4_INTERFACE)?.station,
        };
        let attacker = Self {
            answers: Attached::answers(&namespace, &[IPV4_INTERFACE])?,
            stations,
            interface: own.index,
            namespace,
        };
        // Both sides must resolve each other before the flood leaves no time for it.
        wait_until("the server is reached", Duration::from_secs(5), || {
            Ok(attacker.ping()? && server_knows(scene)?)
        })?;
        Ok(attacker)
    }

    fn ping(&self) -> Result<bool> {
        let mut ping = self.namespace.command("ping")?;
        let result = ping.args(["-c1", "-W1", &SERVER.to_string()]).output()?;
        Ok(result.status.success())
    }

    /// Number of answers that have arrived for forged sources.
    ///
    /// # Errors
    ///
    /// Fails when the answers cannot be counted.
    pub fn answers(&self) -> Result<u64> {
        Ok(self.answers.count()?.packets)
    }

    /// Starts a flood of datagrams from `sources` sources in turn, `rate` per second, which
    /// continues until the returned value is dropped.
    ///
    /// # Errors
    ///
    /// Fails when the generator cannot be loaded.
    pub fn flood(&self, kinds: [Forgery; KINDS], sources: u32, rate: u32) -> Result<Flood> {
        let interval = Duration::from_secs(1) / rate;
        Flood::start(&self.namespace, self.generator(kinds, sources, interval)?)
    }

    fn generator(
        &self,
        kinds: [Forgery; KINDS],
        sources: u32,
        interval: Duration,
    ) -> Result<Generator> {
        let server = Endpoint::new(SERVER, SERVER_PORT);
        let mut frames = [[0; FRAME]; KINDS];
        for (frame, kind) in frames.iter_mut().zip(kinds) {
            let payload = kind.payload();
            let octets = datagram(self.stations, client(0).mapped, server, &payload)?;
            *frame = octets[..].try_into()?;
        }
        Generator::flood(self.interface, interval, sources, 1, frames.each_ref())
    }
}

/// Whether the server has resolved the attacker's Ethernet address.
fn server_knows(scene: &Scene) -> Result<bool> {
    let neighbours = scene
        .server_namespace()
        .ip(&format!("neigh show {ATTACKER}"))?;
    Ok(neighbours.contains("lladdr"))
}

/// A running flood.
#[derive(Debug)]
pub struct Flood {
    generator: Arc<Generator>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Flood {
    /// Lets a generator send from a namespace until the flood is stopped or dropped.
    ///
    /// # Errors
    ///
    /// Fails when there is no thread for it.
    pub fn start(namespace: &Namespace, generator: Generator) -> Result<Self> {
        let generator = Arc::new(generator);
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (generator, stop) = (Arc::clone(&generator), Arc::clone(&stop));
            namespace.spawn(move || {
                let mut count = 100_000;
                while !stop.load(Ordering::Relaxed) {
                    let run = generator.send_here(count, BATCH)?;
                    let pace = f64::from(count) / run.elapsed.as_secs_f64();
                    count = (pace * RUN.as_secs_f64()) as u32;
                }
                Ok(())
            })?
        };
        Ok(Self {
            generator,
            stop,
            thread: Some(thread),
        })
    }

    /// Frames sent so far.
    ///
    /// # Errors
    ///
    /// Fails when the frames cannot be counted.
    pub fn sent(&self) -> Result<u64> {
        self.generator.sent()
    }

    /// Ends the flood.
    ///
    /// # Errors
    ///
    /// Fails when the flood had ended by itself.
    pub fn stop(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(()),
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Counts the packets per second that an interface receives.
#[derive(Debug)]
pub struct Meter<'a> {
    namespace: &'a Namespace,
    interface: &'a str,
    start: Instant,
    before: u64,
}

impl<'a> Meter<'a> {
    /// Starts to count.
    ///
    /// # Errors
    ///
    /// Fails when there is no such interface.
    pub fn start(namespace: &'a Namespace, interface: &'a str) -> Result<Self> {
        Ok(Self {
            namespace,
            interface,
            before: received(namespace, interface)?,
            start: Instant::now(),
        })
    }

    /// Packets received so far.
    ///
    /// # Errors
    ///
    /// Fails when the interface is gone.
    pub fn packets(&self) -> Result<u64> {
        Ok(received(self.namespace, self.interface)? - self.before)
    }

    /// Packets a second since the start.
    ///
    /// # Errors
    ///
    /// Fails when the interface is gone.
    pub fn rate(&self) -> Result<f64> {
        let packets = self.packets()?;
        let elapsed = self.start.elapsed();
        ensure!(!elapsed.is_zero(), "no time has passed");
        Ok(packets as f64 / elapsed.as_secs_f64())
    }
}

/// Packets that an interface has received.
fn received(namespace: &Namespace, interface: &str) -> Result<u64> {
    let text = namespace.ip(&format!("-json -statistics link show dev {interface}"))?;
    let links: Value = serde_json::from_str(&text)?;
    let packets = links[0]["stats64"]["rx"]["packets"].as_u64();
    packets.with_context(|| format!("{interface} counts no packets"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_forged_payload_has_the_same_length() {
        for kind in Forgery::GARBAGE.into_iter().chain([Forgery::Solicitation]) {
            assert_eq!(kind.payload().len(), PAYLOAD, "{kind:?}");
        }
    }
}
