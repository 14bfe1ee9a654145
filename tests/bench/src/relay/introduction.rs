//! Clients become known to a relay, and stay so.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use teredo_lab::programs::BATCH;

use super::{Relay, Work};
use crate::{
    cases::{Case, Direction, Hosts},
    throughput::Subject as _,
};

/// More clients than these become known by a generator instead of packet sockets.
const BY_SOCKETS: u32 = 20_000;
/// Clients that become known at a time. Even a slow machine makes them known long before the relay takes the first ones
/// for silent.
const AT_ONCE: u32 = 20_000;
/// Time from one new client to the next, at which a relay process on a fast machine loses hardly any packet.
const NEW_CLIENT: Duration = Duration::from_micros(25);
/// Time from one packet to the next that a relay process can forward without loss.
const EASY: Duration = Duration::from_micros(4);
/// Frames in a burst of a generator whose packets all have consequences.
const FEW: u32 = 8;
/// The least time after which a relay asks a client again for a proof of its mapping.
const AGAIN: Duration = Duration::from_secs(1);
/// Silence after which the relay may have stopped trusting a client: a little less than it permits.
const TRUSTED: Duration = Duration::from_secs(25);
/// Silence after which no more packets are expected, and the longest time to wait for it.
const QUIET: Duration = Duration::from_millis(30);
const PATIENCE: Duration = Duration::from_secs(1);
/// Time between two looks whether the relay asks clients for something, and the most of its bubbles meanwhile if it
/// does not.
const LOOK: Duration = Duration::from_millis(100);
const HARDLY_ANY: u64 = 100;
/// The longest time to wait until it has asked all.
const LONGEST: Duration = Duration::from_secs(90);
/// One packet of this number may be left to the daemon, although its client is known: for its checksum.
const OTHERS: u32 = 10_000;
/// Attempts to make all clients known.
const ATTEMPTS: usize = 20;

impl Relay {
    /// Makes the clients known to the relay, all heard within the last `age`.
    ///
    /// # Errors
    ///
    /// Fails when a packet does not arrive, or is damaged.
    pub fn acquaint(&mut self, clients: u32, age: Duration) -> Result<()> {
        let is_miredo = match self.work {
            Work::Nobody
            | Work::Bare { .. }
            | Work::Least(_)
            | Work::Kernel
            | Work::Calls { .. } => return Ok(()),
            Work::Teredo(_) | Work::Service(_) | Work::Elsewhere => false,
            Work::Miredo { .. } => true,
        };
        let title = self.variant.title();
        let context = || format!("{title} and its clients");
        self.wait_for_rest().with_context(context)?;
        if clients <= BY_SOCKETS || is_miredo {
            return self.clients.acquaint(clients, age).with_context(context);
        }
        match self.known {
            Some((since, known)) if known >= clients && since.elapsed() < age => Ok(()),
            Some((since, known)) if known >= clients && since.elapsed() < TRUSTED => {
                self.keep_alive(clients)
            }
            _ => self.introduce(clients).with_context(context),
        }
    }

    /// Waits until our relay asks hardly any client for a proof or a sign of life: it does that for all that earlier cases
    /// made known, and what comes of it would take its time from the packets that are measured.
    fn wait_for_rest(&self) -> Result<()> {
        let (Work::Teredo(teredo), Some(_)) = (&self.work, self.known) else {
            return Ok(());
        };
        let start = Instant::now();
        let mut before = teredo.status()?.bubbles.sent;
        loop {
            thread::sleep(LOOK);
            let now = teredo.status()?.bubbles.sent;
            if now - before <= HARDLY_ANY {
                return Ok(());
            }
            if start.elapsed() > LONGEST {
                bail!("it asks its clients for signs of life without an end");
            }
            before = now;
        }
    }

    /// Makes clients known by packets of a native host to each, until all packets arrive. From now on, the sink answers
    /// the relay's bubbles for them, which asks every few minutes for another proof of their mappings.
    fn introduce(&mut self, clients: u32) -> Result<()> {
        let known = self.known.filter(|(since, _)| since.elapsed() < TRUSTED);
        let known = known.map_or(0, |(_, known)| known);
        self.sink.answer_bubbles()?;
        let mut pause = NEW_CLIENT;
        for first in (known..clients).step_by(AT_ONCE as usize) {
            let count = AT_ONCE.min(clients - first);
            pause = self.introduce_some(first, count, pause)?;
            // The first ones must not be silent for too long meanwhile.
            self.keep_alive(first + count)?;
        }
        Ok(())
    }

    /// Makes `count` clients known, with `pause` from one to the next or longer. Returns the pause that it took.
    fn introduce_some(&mut self, first: u32, count: u32, mut pause: Duration) -> Result<Duration> {
        let case = Case::of(Direction::Encap, count);
        let mut generator = self.generator_of(case, |flow| flow.from(first))?;
        let mut interval = pause;
        for attempt in 0..ATTEMPTS {
            self.come_to_rest()?;
            self.sink.reset()?;
            let fast = self.fast_packets(case)?;
            generator.send_paced(&self.site.far, count, interval, FEW)?;
            let mut arrived = self.come_to_rest()?;
            // A client is on the fast path when it has proved its mapping, too.
            if attempt > 0
                && let (Some(before), Some(after)) = (fast, self.fast_packets(case)?)
            {
                arrived = arrived.min(after - before);
            }
            let missing = u64::from(count).saturating_sub(arrived);
            if attempt > 0 && missing <= u64::from(count / OTHERS) {
                return Ok(pause);
            }
            if missing > u64::from(count / 20) {
                pause = pause * 5 / 4;
                interval = pause;
                continue;
            }
            // Nearly all are known and need not wait for the others, whom the relay asks for a proof
            // again when some time has passed.
            interval = EASY;
            if attempt > 0 {
                thread::sleep(AGAIN);
            }
        }
        bail!("after {ATTEMPTS} attempts not all of {count} clients are known")
    }

    /// Returns the number of packets at the sink when no more arrive, or after a while: those whose
    /// bubble was lost come seconds later.
    fn come_to_rest(&self) -> Result<u64> {
        let start = Instant::now();
        let mut before = self.sink.count()?.packets;
        while start.elapsed() < PATIENCE {
            thread::sleep(QUIET);
            let now = self.sink.count()?.packets;
            if now == before {
                break;
            }
            before = now;
        }
        Ok(before)
    }

    /// Lets the first clients send, as fast as the relay can forward.
    fn keep_alive(&mut self, clients: u32) -> Result<()> {
        let since = Instant::now();
        let case = Case {
            hosts: Hosts::ONE_BEHIND,
            ..Case::of(Direction::Decap, clients)
        };
        let mut generator = self.generator(case)?;
        if self.variant.is_inline() {
            generator.send(&self.site.far, clients, BATCH)?;
        } else {
            generator.send_paced(&self.site.far, clients, EASY, BATCH)?;
        }
        self.sink.settle()?;
        self.known = Some((since, clients));
        Ok(())
    }
}
