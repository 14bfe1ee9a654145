//! The benchmark's XDP programs, attached to interfaces.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, PerCpuArray, PerCpuValues},
    programs::{
        SchedClassifier, TcAttachType, Xdp, XdpMode,
        tc::{self, NlOptions, TcAttachOptions},
    },
    util::nr_cpus,
};
use teredo::datapath::verifier::undisturbed;
use teredo_lab_ebpf::{
    Count, Flow, latency,
    numbers::{PART, Sequence, WORDS},
    sift::Fate,
};

use crate::{Namespace, wait_for};

pub use crate::generator::{Again, BATCH, Bench, Generator, Run};

pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench"));

/// Silence after which a sink counts as finished.
const QUIET: Duration = Duration::from_millis(30);

/// Loads the program of this name.
pub(crate) fn program<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program: &mut Xdp = object
        .program_mut(name)
        .with_context(|| format!("the object has no program {name}"))?
        .try_into()?;
    undisturbed(|| program.load())?;
    Ok(program)
}

/// The programs attached to interfaces of one namespace.
#[derive(Debug)]
pub struct Attached {
    object: Ebpf,
}

impl Attached {
    /// Attaches the sink to these interfaces.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses it.
    pub fn sink(namespace: &Namespace, interfaces: &[&str]) -> Result<Self> {
        Self::everywhere(namespace, interfaces, "sink")
    }

    /// Attaches the sink to these interfaces, with room for this number of numbered packets.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses it.
    pub fn sink_of_numbers(namespace: &Namespace, interfaces: &[&str], most: u32) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("SEEN", most.div_ceil(PART));
        Self::load(namespace, interfaces, "sink", &mut loader)
    }

    /// Attaches the sink for packets to and from forged clients.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses it.
    pub fn answers(namespace: &Namespace, interfaces: &[&str]) -> Result<Self> {
        Self::everywhere(namespace, interfaces, "answers")
    }

    /// Attaches the far end of a relay under attack, which lets only the frames for honest machines
    /// pass.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses it.
    pub fn sift(namespace: &Namespace, interfaces: &[&str]) -> Result<Self> {
        Self::everywhere(namespace, interfaces, "sift")
    }

    /// Number of frames that met this fate at the far end.
    ///
    /// # Errors
    ///
    /// Fails when the map cannot be read.
    pub fn sifted(&self, fate: Fate) -> Result<u64> {
        let map = self.object.map("SIFTED");
        let map = map.context("the object has no SIFTED")?;
        let counts = PerCpuArray::<_, u64>::try_from(map)?.get(&(fate as u32), 0)?;
        Ok(counts.iter().sum())
    }

    /// Attaches the sink for packets from a process to forged clients, at the egress of its host.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses it.
    pub fn departures(namespace: &Namespace, interface: &str) -> Result<Self> {
        namespace.run(|| {
            let mut object = Ebpf::load(OBJECT)?;
            let program = object.program_mut("departures");
            let program: &mut SchedClassifier = program
                .context("the object has no departures")?
                .try_into()?;
            undisturbed(|| program.load())?;
            // The newer way of attaching has no return value that consumes a packet without a drop.
            tc::qdisc_add_clsact(interface)?;
            let options = TcAttachOptions::Netlink(NlOptions::default());
            program.attach_with_options(interface, TcAttachType::Egress, options)?;
            Ok(Self { object })
        })?
    }

    /// Attaches a program that reflects every frame unchanged.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses it.
    pub fn reflect(namespace: &Namespace, interfaces: &[&str]) -> Result<Self> {
        Self::everywhere(namespace, interfaces, "reflect")
    }

    /// Attaches the least work of a server that answers solicitations.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses it.
    pub fn advertise(namespace: &Namespace, interfaces: &[&str]) -> Result<Self> {
        Self::everywhere(namespace, interfaces, "advertise")
    }

    fn everywhere(namespace: &Namespace, interfaces: &[&str], name: &str) -> Result<Self> {
        Self::load(namespace, interfaces, name, &mut EbpfLoader::new())
    }

    fn load(
        namespace: &Namespace,
        interfaces: &[&str],
        name: &str,
        loader: &mut EbpfLoader<'_>,
    ) -> Result<Self> {
        namespace.run(|| {
            let mut object = loader.load(OBJECT)?;
            let program = program(&mut object, name)?;
            for interface in interfaces {
                program.attach(interface, XdpMode::Driver)?;
            }
            Ok(Self { object })
        })?
    }

    /// Attaches a program that passes every frame.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses it.
    pub fn nothing(namespace: &Namespace, interfaces: &[&str]) -> Result<Self> {
        Self::everywhere(namespace, interfaces, "nothing")
    }

    /// Attaches the bare redirect: frames that arrive at `interface` leave by the one of index
    /// `target`.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses it.
    pub fn forward(namespace: &Namespace, interface: &str, target: u32) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        loader.override_global("TARGET", &target, true);
        Self::load(namespace, &[interface], "forward", &mut loader)
    }

    /// Attaches the least work of a relay for at most so many clients: frames that arrive at `interface` leave by the one
    /// of index `target`, with other headers. Each takes so many rounds of arithmetic beside, of 26 instructions.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses it.
    pub fn translate(
        namespace: &Namespace,
        interface: &str,
        target: u32,
        most: u32,
        rounds: u32,
    ) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        loader
            .override_global("TARGET", &target, true)
            .override_global("ROUNDS", &rounds, true)
            .map_max_entries("TRANSLATIONS", most.next_power_of_two());
        Self::load(namespace, &[interface], "translate", &mut loader)
    }

    /// Makes the table of [`Attached::translate`] as large as so many clients need.
    ///
    /// # Errors
    ///
    /// Fails when the map cannot be written.
    pub fn translate_for(&mut self, clients: u32) -> Result<()> {
        let map = self.object.map_mut("LAST_TRANSLATION");
        let mut last = Array::try_from(map.context("the object has no LAST_TRANSLATION")?)?;
        last.set(0, clients.next_power_of_two() - 1, 0)?;
        Ok(())
    }

    /// The sink's counters, summed over all CPUs.
    ///
    /// # Errors
    ///
    /// Fails when the map cannot be read.
    pub fn count(&self) -> Result<Count> {
        let map = self
            .object
            .map("COUNT")
            .context("the object has no COUNT")?;
        let counts = PerCpuArray::<_, [u64; 4]>::try_from(map)?.get(&0, 0)?;
        let mut sum = Count::default();
        for count in counts.iter().map(bytemuck::cast_ref::<_, Count>) {
            if count.packets == 0 {
                continue;
            }
            sum.first = match sum.packets {
                0 => count.first,
                _ => sum.first.min(count.first),
            };
            sum.last = sum.last.max(count.last);
            sum.packets += count.packets;
            sum.stamped += count.stamped;
        }
        Ok(sum)
    }

    /// Resets the sink's counters.
    ///
    /// # Errors
    ///
    /// Fails when the map cannot be written.
    pub fn reset(&mut self) -> Result<()> {
        let map = self
            .object
            .map_mut("COUNT")
            .context("the object has no COUNT")?;
        let cpus = nr_cpus().map_err(|(_, error)| error)?;
        let zero = PerCpuValues::try_from(vec![[0_u64; 4]; cpus])?;
        PerCpuArray::try_from(map)?.set(0, zero, 0)?;
        Ok(())
    }

    /// Makes the sink answer bubbles for the forged clients, instead of passing them. That costs measured packets nothing.
    ///
    /// # Errors
    ///
    /// Fails when the map cannot be written.
    pub fn answer_bubbles(&mut self) -> Result<()> {
        self.set_duty(0, 1)
    }

    /// Makes the sink read the stamps of packets, or not. The histogram begins anew.
    ///
    /// # Errors
    ///
    /// Fails when a map cannot be written.
    pub fn read_stamps(&mut self, does: bool) -> Result<()> {
        let map = self.object.map_mut("LATENCIES");
        let mut map = PerCpuArray::try_from(map.context("the object has no LATENCIES")?)?;
        let cpus = nr_cpus().map_err(|(_, error)| error)?;
        for bucket in 0..latency::BUCKETS {
            map.set(bucket, PerCpuValues::try_from(vec![0_u64; cpus])?, 0)?;
        }
        self.set_duty(1, if does { Flow::TIMES } else { 0 })
    }

    /// Makes the sink read the numbers of packets. None has been seen.
    ///
    /// # Errors
    ///
    /// Fails when a map cannot be written.
    pub fn read_numbers(&mut self) -> Result<()> {
        let cpus = nr_cpus().map_err(|(_, error)| error)?;
        let map = self.object.map_mut("SEEN");
        let mut seen = PerCpuArray::try_from(map.context("the object has no SEEN")?)?;
        for part in 0..seen.len() {
            seen.set(part, PerCpuValues::try_from(vec![[0_u64; WORDS]; cpus])?, 0)?;
        }
        let map = self.object.map_mut("SEQUENCE");
        let mut sequence = PerCpuArray::try_from(map.context("the object has no SEQUENCE")?)?;
        sequence.set(0, PerCpuValues::try_from(vec![[0_u32; 2]; cpus])?, 0)?;
        self.set_duty(1, Flow::NUMBERS)
    }

    /// How many different numbers the sink has seen, and how many packets came after a later one, or again, on the
    /// same CPU.
    ///
    /// # Errors
    ///
    /// Fails when a map cannot be read.
    pub fn numbers(&self) -> Result<(u64, u64)> {
        let map = self.object.map("SEEN").context("the object has no SEEN")?;
        let seen = PerCpuArray::<_, [u64; WORDS]>::try_from(map)?;
        let mut different = 0;
        for part in 0..seen.len() {
            let cpus = seen.get(&part, 0)?;
            let of_all = |word: usize| cpus.iter().fold(0, |all, part| all | part[word]);
            let numbers = (0..WORDS).map(|word| u64::from(of_all(word).count_ones()));
            different += numbers.sum::<u64>();
        }
        let map = self.object.map("SEQUENCE");
        let map = map.context("the object has no SEQUENCE")?;
        let sequences = PerCpuArray::<_, [u32; 2]>::try_from(map)?.get(&0, 0)?;
        let sequences = sequences.iter().map(bytemuck::cast_ref::<_, Sequence>);
        let overtaken = sequences.map(|sequence| u64::from(sequence.overtaken));
        Ok((different, overtaken.sum()))
    }

    /// The histogram of latencies, by [`latency::bucket`].
    ///
    /// # Errors
    ///
    /// Fails when the map cannot be read.
    pub fn latencies(&self) -> Result<Vec<u64>> {
        let map = self.object.map("LATENCIES");
        let map = map.context("the object has no LATENCIES")?;
        let map = PerCpuArray::<_, u64>::try_from(map)?;
        let buckets = 0..latency::BUCKETS;
        let counts = buckets.map(|bucket| Ok(map.get(&bucket, 0)?.iter().sum()));
        counts.collect()
    }

    fn set_duty(&mut self, index: u32, duty: u32) -> Result<()> {
        let map = self.object.map_mut("DUTIES");
        let map = map.context("the object has no DUTIES")?;
        Array::<_, u32>::try_from(map)?.set(index, duty, 0)?;
        Ok(())
    }

    /// The sink's counters once no more packets arrive.
    ///
    /// # Errors
    ///
    /// Fails when packets still arrive after ten seconds.
    pub fn settle(&self) -> Result<Count> {
        let mut before = None;
        wait_for("the last packet arrives", Duration::from_secs(10), || {
            let count = self.count()?;
            if before == Some(count) {
                return Ok(Some(count));
            }
            before = Some(count);
            thread::sleep(QUIET);
            Ok(None)
        })
    }
}
