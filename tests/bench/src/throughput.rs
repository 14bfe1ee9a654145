//! Packets per second, and the cost of each.

use std::{panic::resume_unwind, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use teredo_lab::{
    Namespace,
    cpu::{self, Threads},
    programs::{Attached, BATCH, Generator, Run},
};

use super::cases::{Variant, Workload};

/// Frames of the first run, which warms up the caches and measures the generator's speed.
const WARM_UP: u32 = 100_000;
/// Longest duration of a measurement.
pub const LONGEST: Duration = Duration::from_secs(15);

/// Share of its core's time below which a process was not saturated.
const SATURATED: f64 = 0.85;

/// The subject of a measurement: a relay or a server, with a generator and a sink around it.
pub trait Subject {
    /// The subject's workloads.
    type Case: Workload;

    /// The subject's variant.
    fn variant(&self) -> Variant;

    /// Makes the generators of the subject's packets in this case, each for a core of its own: the
    /// generators' first, then that of processes.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses them.
    fn generators(&self, case: Self::Case) -> Result<Vec<Generator>>;

    /// Prepares the subject for a measurement that starts now.
    ///
    /// # Errors
    ///
    /// Fails when the subject does not work.
    fn get_ready(&mut self, case: Self::Case) -> Result<()>;

    /// Checks some of the subject's output.
    ///
    /// # Errors
    ///
    /// Fails when there is no output, or it is damaged.
    fn prove(&mut self, case: Self::Case) -> Result<()>;

    /// Whether the subject is another machine, whose processors nothing is known about.
    fn is_elsewhere(&self) -> bool {
        false
    }

    /// The namespace of generator and sink.
    fn far(&self) -> &Namespace;

    /// The counter of the subject's packets.
    fn sink(&mut self) -> &mut Attached;

    /// The subject's processes.
    ///
    /// # Errors
    ///
    /// Fails when the processes cannot be listed.
    fn processes(&self) -> Result<Vec<Pid>>;

    /// Packets that our daemon counts as handled by XDP, if it does.
    ///
    /// # Errors
    ///
    /// Fails when the daemon does not answer.
    fn fast_packets(&self, case: Self::Case) -> Result<Option<u64>>;
}

/// One measurement.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// Packets that the generator sent.
    pub offered: u64,
    /// Packets that reached the sink.
    pub delivered: u64,
    /// Packets per second of the time that the core was available: without the time that other
    /// processes and the hypervisor took.
    pub rate: f64,
    /// Share of the time that the core was available.
    pub share: f64,
    /// Share of that time in which the core was busy. Well below 1, the packets came too slowly and
    /// the subject is faster than measured.
    pub busy: f64,
    /// CPU nanoseconds per packet of the generators' cores, for variants that run on them.
    pub inline_nanoseconds: Option<f64>,
    /// CPU nanoseconds per packet of the subject's processes, user and system time, with the work
    /// that interrupts have deferred to their core's kernel thread.
    pub process_nanoseconds: f64,
    /// Share of the delivered packets that XDP handled, for our daemon.
    pub fast_share: Option<f64>,
}

impl Sample {
    /// Whether the packets came as fast as the subject could handle them; inline with the generator
    /// they always do.
    #[must_use]
    pub fn is_saturated(&self) -> bool {
        self.inline_nanoseconds.is_some() || self.busy >= SATURATED
    }
}

/// A subject and a workload for it.
#[derive(Debug)]
pub struct Measurement<'a, S: Subject> {
    subject: &'a mut S,
    case: S::Case,
    generators: Vec<Generator>,
    /// Frames that each generator sends per second.
    pace: f64,
}

impl<'a, S: Subject> Measurement<'a, S> {
    /// Loads the generator and runs it once.
    ///
    /// # Errors
    ///
    /// Fails when the subject does not work.
    pub fn prepare(subject: &'a mut S, case: S::Case) -> Result<Self> {
        let generators = subject.generators(case)?;
        subject.get_ready(case)?;
        subject.prove(case)?;
        let run = send(&generators, subject.far(), WARM_UP)?;
        subject.sink().settle()?;
        Ok(Self {
            subject,
            case,
            generators,
            pace: pace(WARM_UP, run),
        })
    }

    /// The variant of the subject.
    #[must_use]
    pub fn variant(&self) -> Variant {
        self.subject.variant()
    }

    /// Measures for about this time.
    ///
    /// # Errors
    ///
    /// Fails when the subject does not work.
    pub fn measure(&mut self, time: Duration) -> Result<Sample> {
        self.sample(time)
            .with_context(|| format!("{}: {}", S::Case::title(self.variant()), self.case))
    }

    fn sample(&mut self, time: Duration) -> Result<Sample> {
        let subject = &mut *self.subject;
        let is_inline = subject.variant().is_inline();
        subject.get_ready(self.case)?;
        subject.sink().settle()?;
        subject.sink().reset()?;
        let fast = subject.fast_packets(self.case)?;
        let count = (self.pace * time.as_secs_f64()) as u32;

        let processes = subject.processes()?;
        let (core, before) = (cpu::of_core(cpu::RELAY)?, Threads::of(&processes)?);
        let run = send(&self.generators, subject.far(), count)?;
        let sent = (cpu::of_core(cpu::RELAY)? - core, Threads::of(&processes)?);
        let counted = subject.sink().settle()?;
        let process = Threads::of(&processes)?.since(&before);

        self.pace = pace(count, run);
        ensure!(counted.stamped > 0, "nothing reached the sink");
        let fast_share = match (fast, subject.fast_packets(self.case)?) {
            (Some(before), Some(after)) => Some((after - before) as f64 / counted.packets as f64),
            _ => None,
        };
        let (used, core) = match is_inline {
            true => (run.thread, run.core),
            false => (sent.1.since(&before), sent.0),
        };
        // Interrupts deferred this work of the process to the core's kernel thread.
        let used = used + core.softirq;
        let had = used + core.idle;
        let share = (had.as_secs_f64() / run.elapsed.as_secs_f64()).min(1.0);
        let process = match is_inline {
            true => process,
            false => process + core.softirq,
        };
        let (share, busy) = match subject.is_elsewhere() {
            true => (1.0, 1.0),
            false => (share, used.as_secs_f64() / had.as_secs_f64()),
        };
        let span = Duration::from_nanos(counted.last - counted.first).as_secs_f64() * share;
        let rate = counted.stamped as f64 / span;
        let cores = self.generators.len() as f64;
        Ok(Sample {
            offered: u64::from(count) * self.generators.len() as u64,
            delivered: counted.packets,
            rate,
            share,
            busy,
            inline_nanoseconds: is_inline.then_some(1e9 / rate * cores),
            process_nanoseconds: process.as_nanos() as f64 / counted.packets as f64,
            fast_share,
        })
    }
}

fn pace(count: u32, run: Run) -> f64 {
    f64::from(count) / run.elapsed.as_secs_f64()
}

/// Sends `count` frames by each generator at once. Returns the longest time, and the CPU times of the first one's
/// core; the others' are alike.
fn send(generators: &[Generator], namespace: &Namespace, count: u32) -> Result<Run> {
    /// The cores of the generators, in their order.
    const CORES: [usize; 2] = [cpu::GENERATOR, cpu::RELAY];
    if let [generator] = generators {
        return generator.send(namespace, count, BATCH);
    }
    ensure!(generators.len() <= CORES.len(), "there are two cores");
    let runs = thread::scope(|scope| {
        let threads: Vec<_> = generators
            .iter()
            .zip(CORES)
            .map(|(generator, core)| {
                scope.spawn(move || generator.send_on(core, namespace, count, BATCH))
            })
            .collect();
        let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
        let ended = |run: thread::Result<_>| run.unwrap_or_else(|panic| resume_unwind(panic));
        joined.map(ended).collect::<Result<Vec<Run>>>()
    })?;
    let longest = runs.iter().map(|run| run.elapsed).max();
    let first = runs.first().context("there is no generator")?;
    Ok(Run {
        elapsed: longest.unwrap_or_default(),
        ..*first
    })
}
