//! Packets a second, and what each costs.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use super::{
    cases::{Case, Variant},
    cpu::{self, Threads},
    programs::{BATCH, Generator, Run},
    relay::Relay,
};

/// Frames of the first run, which warms everything up and shows how fast the generator is.
const WARM_UP: u32 = 100_000;
/// How long ago the relay may have heard of a client when a measurement starts. With the longest
/// measurement it stays under the 30 seconds for which a peer is usable.
const AGE: Duration = Duration::from_secs(8);
/// The longest measurement.
pub const LONGEST: Duration = Duration::from_secs(15);

/// Below this share of its core's time a relay process was not saturated.
const SATURATED: f64 = 0.85;

/// One measurement.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// Packets that the generator sent.
    pub offered: u64,
    /// Packets that reached the sink.
    pub delivered: u64,
    /// Packets a second of time that the core was to be had: without what other processes and the
    /// hypervisor took of it.
    pub rate: f64,
    /// Share of the time that the core was to be had.
    pub share: f64,
    /// Share of that time in which the core was busy. Well below 1, the packets did not come fast
    /// enough, and the relay is faster than it looks.
    pub busy: f64,
    /// CPU nanoseconds per packet of everything on the generator's core, for relays that run there.
    pub inline_nanoseconds: Option<f64>,
    /// CPU nanoseconds per packet of the relay's processes, user and system time, with what
    /// interrupts have left to their core's kernel thread.
    pub process_nanoseconds: f64,
    /// Share of the delivered packets that the relay forwarded in XDP, for ours.
    pub fast_share: Option<f64>,
}

impl Sample {
    /// Whether the packets came as fast as the relay could take them; inline with the generator
    /// they always do.
    #[must_use]
    pub fn is_saturated(&self) -> bool {
        self.inline_nanoseconds.is_some() || self.busy >= SATURATED
    }
}

/// A relay and a workload for it.
#[derive(Debug)]
pub struct Measurement<'a> {
    relay: &'a mut Relay,
    case: Case,
    generator: Generator,
    /// Frames that the generator sends in a second.
    pace: f64,
}

impl<'a> Measurement<'a> {
    /// Loads the generator and runs it once.
    ///
    /// # Errors
    ///
    /// When the relay does not work.
    pub fn prepare(relay: &'a mut Relay, case: Case) -> Result<Self> {
        let generator = relay.generator(case)?;
        relay.acquaint(case.clients, AGE)?;
        relay.prove(case)?;
        let run = generator.send(&relay.site.far, WARM_UP, BATCH)?;
        relay.sink.settle()?;
        Ok(Self {
            relay,
            case,
            generator,
            pace: pace(WARM_UP, run),
        })
    }

    /// Which relay this is.
    #[must_use]
    pub fn variant(&self) -> Variant {
        self.relay.variant
    }

    /// Measures for about this time.
    ///
    /// # Errors
    ///
    /// When the relay does not work.
    pub fn measure(&mut self, time: Duration) -> Result<Sample> {
        self.sample(time)
            .with_context(|| format!("{}: {}", self.relay.variant.title(), self.case))
    }

    fn sample(&mut self, time: Duration) -> Result<Sample> {
        let relay = &mut *self.relay;
        relay.acquaint(self.case.clients, AGE)?;
        relay.sink.settle()?;
        relay.sink.reset()?;
        let fast = relay.fast_packets(self.case.direction)?;
        let count = (self.pace * time.as_secs_f64()) as u32;

        let processes = relay.processes()?;
        let (core, before) = (cpu::of_core(cpu::RELAY)?, Threads::of(&processes)?);
        let run = self.generator.send(&relay.site.far, count, BATCH)?;
        let sent = (cpu::of_core(cpu::RELAY)? - core, Threads::of(&processes)?);
        let counted = relay.sink.settle()?;
        let process = Threads::of(&processes)?.since(&before);

        self.pace = pace(count, run);
        ensure!(counted.stamped > 0, "nothing reached the sink");
        let fast_share = match (fast, relay.fast_packets(self.case.direction)?) {
            (Some(before), Some(after)) => Some((after - before) as f64 / counted.packets as f64),
            _ => None,
        };
        let (used, core) = match relay.variant.is_inline() {
            true => (run.thread, run.core),
            false => (sent.1.since(&before), sent.0),
        };
        // What interrupts left to the core's kernel thread was for the relay, too.
        let used = used + core.softirq;
        let had = used + core.idle;
        let share = (had.as_secs_f64() / run.elapsed.as_secs_f64()).min(1.0);
        let process = match relay.variant.is_inline() {
            true => process,
            false => process + core.softirq,
        };
        let span = Duration::from_nanos(counted.last - counted.first).as_secs_f64() * share;
        let rate = counted.stamped as f64 / span;
        Ok(Sample {
            offered: count.into(),
            delivered: counted.packets,
            rate,
            share,
            busy: used.as_secs_f64() / had.as_secs_f64(),
            inline_nanoseconds: relay.variant.is_inline().then_some(1e9 / rate),
            process_nanoseconds: process.as_nanos() as f64 / counted.packets as f64,
            fast_share,
        })
    }
}

fn pace(count: u32, run: Run) -> f64 {
    f64::from(count) / run.elapsed.as_secs_f64()
}
