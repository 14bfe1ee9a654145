//! The relay's two paths.

use std::{collections::HashMap, net::Ipv6Addr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rand::{SeedableRng as _, rngs::StdRng};
use teredo_common::{
    address::Endpoint,
    peers::Peer,
    verdict::{Action, Direction, Verdict},
};
use teredo_proto::{
    relay::{Config, DropReason, Event, Relay, Transmit},
    wire::{
        bubble, encapsulation,
        ipv6::Header,
        trailer::{self, Trailer},
    },
};

use crate::{
    FastPath, Outcome,
    frames::{self, Frames, Known},
    kernel,
    site::{self, OWN_IPV4, Port, Setup},
};

/// Number of frames after which the peers are kept alive.
const REFRESH: usize = 500;

/// Both paths with the same peers.
#[derive(Debug)]
pub struct Paths<F> {
    fast: F,
    relay: Relay,
    known: Vec<Known>,
    seen: HashMap<Verdict, usize>,
}

impl<F: FastPath> Paths<F> {
    /// Makes the relay of a set-up beside its fast path, and gives both the same peers.
    ///
    /// # Errors
    ///
    /// Fails when the fast path does.
    pub fn new(fast: F, setup: &Setup) -> Result<Self> {
        let mut config = Config::new(site::relay());
        config.mtu = setup.mtu;
        config.served = setup.served.clone();
        config.teredo = setup.teredo;
        config.own_ipv4 = vec![OWN_IPV4[1].into()];
        config.peer_lifetime = Duration::from_nanos(setup.peer_lifetime);
        let mut paths = Self {
            relay: Relay::new(config, [7; 32]),
            fast,
            known: frames::known(),
            seen: HashMap::new(),
        };
        for known in paths.known.clone() {
            paths.introduce(&known)?;
        }
        Ok(paths)
    }

    /// Adds a peer to both paths, or an entry that must not be used to the fast path alone.
    fn introduce(&mut self, known: &Known) -> Result<()> {
        let now = self.fast.now();
        let entry = Peer {
            mapped: known.mapped,
            last_received: now - known.age,
            last_sent: now - known.age,
        };
        self.fast.insert(known.address, entry)?;
        let adopted = self.relay.adopt_peer(now, known.address, &entry);
        ensure!(adopted == known.is_usable(), "{known:?}");
        Ok(())
    }

    /// Keeps the peers alive, as other traffic would.
    fn refresh(&mut self) -> Result<()> {
        let now = self.fast.now();
        let proved: Vec<_> = self.relay.peers().filter(|peer| peer.proved).collect();
        for peer in proved {
            self.relay.record_stamps(&peer.address.octets(), now, now);
            self.tell(peer.address, peer.mapped)?;
        }
        Ok(())
    }

    fn tell(&mut self, address: Ipv6Addr, mapped: Endpoint) -> Result<()> {
        let now = self.fast.now();
        let entry = Peer {
            mapped,
            last_received: now,
            last_sent: now,
        };
        self.fast.insert(address, entry)
    }

    /// Does the daemon's work after each packet.
    fn settle(&mut self) -> Result<()> {
        self.relay.handle_timeout(self.fast.now());
        while let Some(transmit) = self.relay.poll_transmit() {
            self.answer(&transmit);
        }
        while let Some(event) = self.relay.poll_event() {
            match event {
                Event::PeerTrusted {
                    address, mapped, ..
                } => self.tell(address, mapped)?,
                Event::PeerForgotten { address } => {
                    self.fast.remove(address)?;
                }
            }
        }
        Ok(())
    }

    /// Answers the relay's question whether a peer is at its mapping, as the peer would.
    fn answer(&mut self, transmit: &Transmit) {
        let Transmit::Datagram { to, payload } = transmit else {
            return;
        };
        let Ok(parts) = encapsulation::parse(payload) else {
            return;
        };
        let mut trailers = trailer::parse(parts.trailers);
        if trailers.any(|trailer| trailer == Ok(Trailer::NeighborSolicitation))
            && let Ok(question) = Header::parse(parts.packet)
        {
            let mut answer = bubble::build(&question.destination(), &question.source());
            (self.relay).handle_datagram(self.fast.now(), *to, 0, &mut answer);
        }
    }

    /// The packet that leaves for a native host without XDP.
    fn slow_decapsulation(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let mut datagram = kernel::receive(frame).filter(|datagram| datagram.is_intact)?;
        let (from, ecn) = (datagram.from, datagram.ecn);
        let payload = &mut datagram.payload;
        let packet = self
            .relay
            .handle_datagram(self.fast.now(), from, ecn, payload)?;
        Some(packet.to_vec())
    }

    /// The datagram that leaves for a client without XDP.
    fn slow_encapsulation(&mut self, frame: &[u8]) -> Option<(Endpoint, Vec<u8>)> {
        let mut packet = kernel::route(kernel::ipv6(frame)?)?;
        let (to, payload) = self.relay.handle_ipv6(self.fast.now(), &mut packet)?;
        Some((to, payload.to_vec()))
    }

    fn run_fast(&mut self, port: Port, frame: &[u8]) -> Result<Outcome> {
        let outcome = self.fast.run(port, frame)?;
        *self.seen.entry(outcome.verdict).or_default() += 1;
        if outcome.verdict.action() != Action::Forward {
            ensure!(outcome.frame == frame, "changed and then not forwarded");
        }
        Ok(outcome)
    }

    fn compare_decapsulation(&mut self, frame: &[u8]) -> Result<()> {
        let outcome = self.run_fast(Port::Wan, frame)?;
        let is_damaged = kernel::receive(frame).is_some_and(|datagram| !datagram.is_intact);
        if is_damaged && outcome.verdict.action() == Action::Forward {
            // The headers alone prove the outer checksum if the inner one is right. Wrong octets
            // after them are for the native host to detect.
            let packet = kernel::ipv6(&outcome.frame).context("no packet")?;
            ensure!(
                !kernel::is_inner_valid(packet),
                "damaged without a checksum that shows it"
            );
            return Ok(());
        }
        let slow = self.slow_decapsulation(frame);
        match outcome.verdict.action() {
            Action::Forward => {
                let slow = slow.and_then(kernel::route);
                let fast = kernel::ipv6(&outcome.frame).map(<[u8]>::to_vec);
                ensure!(
                    fast.is_some() && fast == slow,
                    "fast {fast:x?}\nslow {slow:x?}"
                );
            }
            Action::Drop => ensure!(slow.is_none(), "dropped, but userspace forwards"),
            Action::Pass => ensure!(
                slow.is_none() || !contradicts(outcome.verdict),
                "{:?}, but userspace forwards",
                outcome.verdict
            ),
        }
        self.settle()
    }

    fn compare_encapsulation(&mut self, port: Port, frame: &[u8]) -> Result<()> {
        let outcome = self.run_fast(port, frame)?;
        let slow = self.slow_encapsulation(frame);
        match outcome.verdict.action() {
            Action::Forward => {
                let (to, payload) = slow.context("forwarded, but not by userspace")?;
                kernel::check_sent(&outcome.frame, to, &payload)?;
            }
            Action::Drop => ensure!(slow.is_none(), "dropped, but userspace forwards"),
            Action::Pass => ensure!(
                slow.is_none() || !contradicts(outcome.verdict),
                "{:?}, but userspace forwards",
                outcome.verdict
            ),
        }
        self.settle()
    }

    /// The packets that userspace has dropped so far, by reason.
    fn dropped(&self) -> Vec<(&'static str, u64)> {
        let statistics = self.relay.statistics();
        let reasons = DropReason::ALL.iter();
        reasons
            .map(|&reason| (reason.reason(), statistics.dropped[reason]))
            .collect()
    }

    /// Runs both paths on `count` frames in each direction.
    ///
    /// # Errors
    ///
    /// Fails when they differ, with the frame, or when hardly any frame was forwarded.
    pub fn compare(&mut self, seed: u64, count: usize) -> Result<()> {
        let mut frames = Frames::new(StdRng::seed_from_u64(seed), self.known.clone());
        for number in 0..count {
            if number % REFRESH == 0 {
                self.refresh()?;
            }
            let frame = frames.client_sends();
            let before = self.dropped();
            self.compare_decapsulation(&frame).with_context(|| {
                let after = self.dropped();
                let reason = before.iter().zip(after).find(|(old, new)| *old != new);
                format!("seed {seed}, frame {number}, {reason:?}: {frame:02x?}")
            })?;
            let (port, frame) = frames.native_sends();
            self.compare_encapsulation(port, &frame)
                .with_context(|| format!("seed {seed}, frame {number}: {port:?} {frame:02x?}"))?;
        }
        self.check_variety(count)
    }

    /// Checks that the compared frames did not all end at the first test of the tables.
    fn check_variety(&self, frames: usize) -> Result<()> {
        for (forwarded, direction) in [
            (Verdict::DecapForwarded, Direction::Decap),
            (Verdict::EncapForwarded, Direction::Encap),
        ] {
            let count = self.count(forwarded);
            ensure!(
                count > frames / 10,
                "only {count} {forwarded:?}: {:?}",
                self.seen
            );
            let verdicts = self.verdicts(direction);
            ensure!(verdicts >= 10, "only {verdicts} verdicts: {:?}", self.seen);
        }
        Ok(())
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.seen.get(&verdict).copied().unwrap_or_default()
    }

    fn verdicts(&self, direction: Direction) -> usize {
        let mut verdicts = self.seen.keys();
        verdicts
            .by_ref()
            .filter(|verdict| verdict.direction() == Some(direction))
            .count()
    }
}

/// Whether XDP's reason is one for which userspace would drop the packet, too.
#[must_use]
pub fn contradicts(verdict: Verdict) -> bool {
    matches!(
        verdict,
        Verdict::DecapNotOurs
            | Verdict::DecapNotIpv6
            | Verdict::DecapSource
            | Verdict::DecapDestination
            | Verdict::EncapNotOurs
            | Verdict::EncapLength
            | Verdict::EncapSource
    )
}
