//! The two builds of the data path agree: the XDP program in the kernel and the same code on this host
//! treat the same frames alike, with the same maps, and leave the same in the maps.

use std::{collections::HashMap, sync::atomic::Ordering::Relaxed, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use teredo_common::{generations::SECOND, peers::Peer, verdict::Verdict, vlan::Tags};
use teredo_differential::{
    FastPath as _,
    frames::{self, Frames, Known},
    host::HostPath,
    server::{self, datagrams},
    tags,
};
use teredo_lab::fixture::{Fixture, Port, Setup, cases, now};

/// Frames for each set-up.
const FRAMES: usize = 4_000;
/// The clocks of the two builds differ by less: one reads it after the other, and a tick late.
const SIMULTANEOUS: Duration = Duration::from_millis(900);

/// Both builds, with the same maps.
struct Builds {
    kernel: Fixture,
    host: HostPath,
    random: StdRng,
    known: Vec<Known>,
    seen: HashMap<Verdict, usize>,
    setup: Setup,
}

impl Builds {
    fn new(setup: &Setup, seed: u64) -> Result<Self> {
        let mut kernel = Fixture::new(setup)?;
        let host = kernel.on_host(setup);
        kernel.program.set_identification(|| 0xfff0)?;
        host.cpu.set_identification(0xfff0);
        Ok(Self {
            host,
            kernel,
            random: StdRng::seed_from_u64(seed),
            known: frames::known(),
            seen: HashMap::new(),
            setup: setup.clone(),
        })
    }

    /// Gives a frame to both.
    fn compare(&mut self, port: Port, frame: &[u8]) -> Result<()> {
        let (port, frame) = &self.setup.tagged(port, frame);
        let port = *port;
        let in_kernel = self.kernel.run(port, frame)?;
        self.host.set_clock(now());
        let on_host = self.host.run(port, frame)?;
        *self.seen.entry(in_kernel.verdict).or_default() += 1;
        ensure!(
            in_kernel == on_host,
            "{port:?} {frame:02x?}\nkernel {in_kernel:02x?}\nhost {on_host:02x?}"
        );
        Ok(())
    }

    /// Adds, changes, makes stale or removes a peer in both.
    fn change(&mut self) -> Result<()> {
        let known = &self.known[self.random.random_range(0..self.known.len())];
        if self.random.random_ratio(1, 4) {
            self.kernel.remove(known.address)?;
            return self.host.remove(known.address);
        }
        // Never near the end of the lifetime, which may pass between the two runs of a frame.
        let (fresh, stale) = (0..10, 50..60);
        let ages = match self.random.random_ratio(1, 4) {
            true => stale,
            false => fresh,
        };
        let age = Duration::from_secs(self.random.random_range(ages));
        let last = now() - age;
        let mapped = match self.random.random_ratio(1, 4) {
            true => self.known[0].mapped,
            false => known.mapped,
        };
        let peer = Peer {
            mapped,
            last_received: last,
            last_sent: last,
        };
        self.host.set_clock(now());
        self.kernel.insert(known.address, peer)?;
        self.host.insert(known.address, peer)
    }

    /// Compares the maps.
    fn compare_maps(&self) -> Result<()> {
        for known in &self.known {
            let address = known.address.octets();
            let now = now();
            let in_kernel = self.kernel.program.peer(&address, now);
            let on_host = self.host.maps.peer(&address, now);
            ensure!(
                in_kernel.map(|peer| peer.mapped) == on_host.map(|peer| peer.mapped),
                "{in_kernel:?}\n{on_host:?}"
            );
            if let (Some(one), Some(other)) = (in_kernel, on_host) {
                let stamps = [
                    (one.last_received, other.last_received),
                    (one.last_sent, other.last_sent),
                ];
                for (one, other) in stamps {
                    let difference = one.saturating_since(other).max(other.saturating_since(one));
                    // A stamp may have become old enough to be replaced between the two runs.
                    let most = SECOND + SIMULTANEOUS;
                    ensure!(difference < most, "{one:?} {other:?}");
                }
            }
        }
        let vlan_frames = self.kernel.program.vlan_frames()?;
        ensure!(vlan_frames == self.host.cpu.vlan_frames());
        for (verdict, counter) in self.kernel.program.counters()? {
            ensure!(counter == self.host.cpu.counter(verdict), "{verdict:?}");
            let frames = self.seen.get(&verdict).copied().unwrap_or_default();
            ensure!(counter.packets == frames as u64, "{verdict:?}");
        }
        let Some(limits) = self.kernel.program.limits()? else {
            return Ok(());
        };
        let used = |index: usize| limits.as_ref()[index].load(Relaxed);
        for (index, &word) in self.host.maps.buckets().iter().enumerate() {
            ensure!((word != 0) == (used(index) != 0), "bucket {index}");
        }
        Ok(())
    }

    fn compare_relays(&mut self, count: usize) -> Result<()> {
        let seed = self.random.random();
        let mut frames = Frames::new(StdRng::seed_from_u64(seed), self.known.clone());
        for number in 0..count / 2 {
            if self.random.random_ratio(1, 8) {
                self.change()?;
            }
            let frame = frames.client_sends();
            self.compare(Port::Wan, &frame)?;
            let (port, frame) = frames.native_sends();
            self.compare(port, &frame)?;
            if number % 64 == 0 {
                self.compare_maps()?;
            }
        }
        self.compare_maps()
    }

    fn compare_servers(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let from = datagrams::source(&mut self.random);
            let to = datagrams::destination(&mut self.random);
            let payload = datagrams::payload(&mut self.random, from);
            let frame = datagrams::frame(&mut self.random, from, to, &payload);
            self.compare(Port::Wan, &frame)?;
        }
        self.compare_maps()
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.seen.get(&verdict).copied().unwrap_or_default()
    }
}

#[test]
fn relays_agree_on_random_frames() -> Result<()> {
    for (seed, setup) in [Setup::default(), Setup::restricted()].iter().enumerate() {
        let mut builds = Builds::new(setup, seed as u64)?;
        builds.compare_relays(cases(FRAMES))?;
        let forwarded = [Verdict::DecapForwarded, Verdict::EncapForwarded];
        for verdict in forwarded {
            ensure!(
                builds.count(verdict) > cases(FRAMES) / 20,
                "{:?}",
                builds.seen
            );
        }
        ensure!(builds.seen.len() > 25, "{:?}", builds.seen);
    }
    Ok(())
}

#[test]
fn relays_agree_on_frames_with_tags() -> Result<()> {
    for (seed, setup) in tags::setups(&Setup::default()).iter().enumerate() {
        let mut builds = Builds::new(setup, seed as u64)?;
        builds.compare_relays(cases(FRAMES) / 2)?;
        for verdict in [Verdict::DecapForwarded, Verdict::EncapForwarded] {
            ensure!(builds.count(verdict) > 0, "{:?}", builds.seen);
        }
    }
    Ok(())
}

#[test]
fn servers_agree_on_random_frames() -> Result<()> {
    servers_agree(&[])
}

#[test]
fn servers_agree_on_frames_with_tags() -> Result<()> {
    servers_agree(&[10])?;
    servers_agree(&[100, 10])
}

/// Compares servers in a VLAN.
fn servers_agree(numbers: &[u16]) -> Result<()> {
    let setup = Setup {
        relay: false,
        server: Some(server::config()),
        tags: [tags::tags(numbers), Tags::NONE],
        ..Setup::default()
    };
    let mut builds = Builds::new(&setup, 7)?;
    builds.compare_servers(cases(FRAMES))?;
    for verdict in [Verdict::RespondAdvertised, Verdict::RespondForwarded] {
        ensure!(
            builds.count(verdict) > cases(FRAMES) / 80,
            "{:?}",
            builds.seen
        );
    }
    ensure!(builds.seen.len() > 12, "{:?}", builds.seen);
    Ok(())
}

#[test]
fn frames_of_every_length_are_cut_alike() -> Result<()> {
    let mut builds = Builds::new(&Setup::default(), 9)?;
    let known = builds.known[0].clone();
    let peer = Peer {
        mapped: known.mapped,
        last_received: now(),
        last_sent: now(),
    };
    builds.host.set_clock(now());
    builds.kernel.insert(known.address, peer)?;
    builds.host.insert(known.address, peer)?;
    let mut frames = Frames::new(
        StdRng::seed_from_u64(9),
        vec![known.clone(), known.clone(), known],
    );
    for frame in [frames.client_sends(), frames.native_sends().1] {
        for length in 14..=frame.len() {
            builds
                .compare(Port::Wan, &frame[..length])
                .with_context(|| format!("{length} octets"))?;
        }
    }
    builds.compare_maps()
}
