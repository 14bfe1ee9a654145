//! Generators of forged frames, and test runs on them.

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, ProgramArray},
    programs::{ProgramError, ProgramFd, TestRun as _, TestRunAttrs, TestRunOptions, Xdp},
};
use teredo_lab_ebpf::{
    AGAIN, Flow,
    flood::{FRAME, Flood, KINDS, Progress},
    spray::{self, Spray},
};

use super::cpu;
use crate::{
    Namespace,
    programs::{OBJECT, program},
};

/// Frames that a generator holds and sends before it lets the network work: the kernel's default.
pub const BATCH: u32 = 64;
/// Number of attempts at runs that are interrupted.
const ATTEMPTS: u32 = 10;
/// The return value of an XDP program that has chosen another interface.
const XDP_REDIRECT: u32 = 4;
/// The return value of an XDP program that has chosen the interface by which the frame came.
const XDP_TX: u32 = 3;

/// The cost of a run of a generator.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// From the start of the call to its end.
    pub elapsed: Duration,
    /// CPU time of the generator's thread, which includes all processing inline with it.
    pub thread: Duration,
    /// Other work of the generator's core.
    pub core: cpu::Core,
}

/// A generator of forged frames.
#[derive(Debug)]
pub struct Generator {
    object: Ebpf,
    /// The program.
    name: &'static str,
    frame: Vec<u8>,
}

impl Generator {
    /// Loads a generator of this flow, whose first frame is `frame`. If `turns` is not empty, the clients of
    /// the frames are those of this list in turn; its length is a power of two.
    ///
    /// # Errors
    ///
    /// Fails when the frame is too short for a flow, or the kernel refuses the program.
    pub fn load(flow: Option<Flow>, frame: Vec<u8>, turns: &[u32]) -> Result<Self> {
        let flow = flow.context("the frame is too short for its headers")?;
        let flow = flow.with_list(turns.len() as u32);
        Self::with_flow("generate", flow, frame, turns)
    }

    /// Loads a generator of this frame.
    ///
    /// # Errors
    ///
    /// Fails when the frame is too short or the kernel refuses the program.
    pub fn fixed(interface: u32, frame: Vec<u8>) -> Result<Self> {
        Self::load(Flow::fixed(interface, &frame), frame, &[])
    }

    /// Loads a generator of a flood, which starts with the first of its `kinds` of frames. The addresses of two
    /// subsequent sources have the distance `spacing`.
    ///
    /// # Errors
    ///
    /// Fails when a frame is not from the first forged client, or when the kernel refuses the
    /// program.
    pub fn flood(
        interface: u32,
        interval: Duration,
        sources: u32,
        spacing: u32,
        kinds: [&[u8; FRAME]; KINDS],
    ) -> Result<Self> {
        let interval = u32::try_from(interval.as_nanos())?;
        let flood = Flood::new(interface, interval, sources, spacing, kinds)
            .context("a frame is not the first client's")?;
        let octets = <[u8; size_of::<Flood>()]>::try_from(bytemuck::bytes_of(&flood))?;
        Self::with_parameters("flood", "FLOOD", octets, kinds[0].to_vec())
    }

    /// Loads a generator of a spray.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses the program.
    pub fn spray(spray: &Spray) -> Result<Self> {
        let octets = <[u8; size_of::<Spray>()]>::try_from(bytemuck::bytes_of(spray))?;
        Self::with_parameters("spray", "SPRAY", octets, vec![0; spray::FRAME])
    }

    fn with_parameters<const SIZE: usize>(
        name: &'static str,
        map: &str,
        parameters: [u8; SIZE],
        frame: Vec<u8>,
    ) -> Result<Self> {
        let mut object = Ebpf::load(OBJECT)?;
        let map = object.map_mut(map).context("the object has no such map")?;
        Array::<_, [u8; SIZE]>::try_from(map)?.set(0, parameters, 0)?;
        program(&mut object, name)?;
        Ok(Self {
            object,
            name,
            frame,
        })
    }

    /// Number of frames that a flood or spray has sent so far.
    ///
    /// # Errors
    ///
    /// Fails when the map cannot be read.
    pub fn sent(&self) -> Result<u64> {
        Ok(self.progress()?.sent)
    }

    fn progress(&self) -> Result<Progress> {
        const WORDS: usize = size_of::<Progress>() / 8;
        let map = self.object.map("PROGRESS");
        let map = map.context("the object has no PROGRESS")?;
        let words = Array::<_, [u64; WORDS]>::try_from(map)?.get(&0, 0)?;
        Ok(bytemuck::cast(words))
    }

    fn with_flow(name: &'static str, flow: Flow, frame: Vec<u8>, turns: &[u32]) -> Result<Self> {
        let mut object = EbpfLoader::new()
            .map_max_entries("ORDER", turns.len().max(1) as u32)
            .load(OBJECT)?;
        let map = object.map_mut("FLOW").context("the object has no FLOW")?;
        let octets = <[u8; size_of::<Flow>()]>::try_from(bytemuck::bytes_of(&flow))?;
        Array::<_, [u8; size_of::<Flow>()]>::try_from(map)?.set(0, octets, 0)?;
        let map = object.map_mut("ORDER").context("the object has no ORDER")?;
        let mut order = Array::<_, u32>::try_from(map)?;
        for (place, client) in turns.iter().enumerate() {
            order.set(place as u32, client, 0)?;
        }
        program(&mut object, name)?;
        Ok(Self {
            object,
            name,
            frame,
        })
    }

    /// Sends `count` frames from `namespace`, on the generator's core, at the pace of one in `interval`.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses it.
    pub fn send_paced(
        &mut self,
        namespace: &Namespace,
        count: u32,
        interval: Duration,
        batch: u32,
    ) -> Result<Run> {
        /// Runs of the program in one call, most of which find that no frame is due.
        const RUNS: u32 = 10_000_000;
        let interval = interval.as_nanos().try_into()?;
        let before = self.sent()?;
        self.set_pace(interval, before + u64::from(count))?;
        let run = self.send(namespace, RUNS, batch);
        let mut run = run?;
        while self.sent()? < before + u64::from(count) {
            let more = self.send(namespace, RUNS, batch)?;
            run.elapsed += more.elapsed;
            run.thread += more.thread;
            run.core.idle += more.core.idle;
            run.core.softirq += more.core.softirq;
        }
        self.set_pace(0, 0)?;
        Ok(run)
    }

    fn set_pace(&mut self, interval: u64, most: u64) -> Result<()> {
        let map = self
            .object
            .map_mut("PACE")
            .context("the object has no PACE")?;
        let mut pace = Array::<_, u64>::try_from(map)?;
        pace.set(1, most, 0)?;
        pace.set(0, interval, 0)?;
        Ok(())
    }

    fn program(&self, name: &str) -> Result<&Xdp> {
        let program = self.object.program(name).context("it was loaded")?;
        Ok(program.try_into()?)
    }

    /// Sends `count` frames from `namespace`, on the generator's core, in batches of `batch`.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses it.
    pub fn send(&self, namespace: &Namespace, count: u32, batch: u32) -> Result<Run> {
        self.send_on(cpu::GENERATOR, namespace, count, batch)
    }

    /// Sends frames as [`Self::send`] does, on this core.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses it.
    pub fn send_on(
        &self,
        core: usize,
        namespace: &Namespace,
        count: u32,
        batch: u32,
    ) -> Result<Run> {
        namespace.run(|| self.run_on(core, count, batch))?
    }

    /// Sends frames as [`Self::send`] does, from the namespace of the calling thread, which stays
    /// on the generator's core.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses it.
    pub fn send_here(&self, count: u32, batch: u32) -> Result<Run> {
        self.run_on(cpu::GENERATOR, count, batch)
    }

    fn run_on(&self, core: usize, count: u32, batch: u32) -> Result<Run> {
        let program = self.program(self.name)?;
        cpu::pin(core)?;
        let last = self.progress()?.runs + u64::from(count);
        let before = cpu::of_core(core)?;
        let thread = cpu::of_this_thread()?;
        let start = Instant::now();
        loop {
            let left = last.saturating_sub(self.progress()?.runs);
            if left == 0 {
                break;
            }
            let options = TestRunOptions {
                data_in: Some(&self.frame),
                repeat: left as u32,
                attrs: TestRunAttrs::new().xdp_live_frames(batch),
                ..TestRunOptions::default()
            };
            match program.test_run(options) {
                Err(error) if is_interrupted(&error) => {}
                result => {
                    result?;
                }
            }
        }
        Ok(Run {
            elapsed: start.elapsed(),
            thread: cpu::of_this_thread()? - thread,
            core: cpu::of_core(core)? - before,
        })
    }
}

/// Whether runs of a program ended before the last one, as the process was stopped, or its control group frozen, and goes on.
fn is_interrupted(error: &ProgramError) -> bool {
    matches!(error, ProgramError::SyscallError(error) if error.io_error.kind() == ErrorKind::Interrupted)
}

/// Runs of single programs on forged frames.
#[derive(Debug)]
pub struct Bench {
    generator: Generator,
}

impl Bench {
    /// Prepares to run programs on this flow.
    ///
    /// # Errors
    ///
    /// Fails as [`Generator::load`].
    pub fn load(direction: u32, clients: u32, frame: Vec<u8>) -> Result<Self> {
        let flow = Flow::new(direction, clients, 0, &frame);
        let flow = flow.context("the frame is too short for its headers")?;
        let mut generator = Generator::with_flow("rewind", flow, frame, &[])?;
        program(&mut generator.object, "nothing")?;
        program(&mut generator.object, "reference")?;
        Ok(Self { generator })
    }

    /// Nanoseconds per packet for the frame's preparation and a program that does nothing.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses it.
    pub fn nothing(&mut self, namespace: &Namespace, interface: u32, count: u32) -> Result<u64> {
        let nothing = self.generator.program("nothing")?.fd()?.try_clone()?;
        let (nanoseconds, _) = self.run(namespace, interface, &nothing, count)?;
        Ok(nanoseconds)
    }

    /// Nanoseconds per packet for the frame's preparation and a program with a fixed amount of work.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses it.
    pub fn reference(&mut self, namespace: &Namespace, interface: u32, count: u32) -> Result<u64> {
        let reference = self.generator.program("reference")?.fd()?.try_clone()?;
        self.relay(namespace, interface, &reference, count)
    }

    /// Nanoseconds per packet for the frame's preparation and this program, if every packet ends in
    /// a redirect.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses it, or the last packet does not end so.
    pub fn relay(
        &mut self,
        namespace: &Namespace,
        interface: u32,
        program: &ProgramFd,
        count: u32,
    ) -> Result<u64> {
        let (nanoseconds, action) = self.run(namespace, interface, program, count)?;
        ensure!(
            action == XDP_REDIRECT,
            "the program's answer to the last packet was {action}, not a redirect"
        );
        Ok(nanoseconds)
    }

    fn run(
        &mut self,
        namespace: &Namespace,
        interface: u32,
        program: &ProgramFd,
        count: u32,
    ) -> Result<(u64, u32)> {
        let map = self.generator.object.map_mut("MEASURED");
        ProgramArray::try_from(map.context("the object has no MEASURED")?)?.set(0, program, 0)?;
        let program = self.generator.program(self.generator.name)?;
        let frame = &self.generator.frame;
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index,
        // egress_ifindex.
        let context = [0, frame.len() as u32, 0, interface, 0, 0];
        namespace.run(|| {
            cpu::pin(cpu::GENERATOR)?;
            let mut attempts = 0;
            let result = loop {
                let options = TestRunOptions {
                    data_in: Some(frame),
                    ctx_in: Some(bytemuck::bytes_of(&context)),
                    repeat: count,
                    ..TestRunOptions::default()
                };
                attempts += 1;
                match program.test_run(options) {
                    // Its time would be that of a part.
                    Err(error) if is_interrupted(&error) && attempts < ATTEMPTS => {}
                    result => break result?,
                }
            };
            Ok((
                u64::try_from(result.duration.as_nanos())?,
                result.return_value,
            ))
        })?
    }
}

/// Runs of programs on one frame, again and again.
#[derive(Debug)]
pub struct Again(Bench);

impl Again {
    /// Prepares to run programs on a frame of [`AGAIN`] octets or more.
    ///
    /// # Errors
    ///
    /// Fails when the frame is too short or the kernel refuses the program.
    pub fn load(frame: Vec<u8>) -> Result<Self> {
        let (words, _) = frame.as_chunks::<8>();
        let words = words.iter().map(|word| u64::from_ne_bytes(*word));
        let words: Vec<u64> = [frame.len() as u64].into_iter().chain(words).collect();
        let words = words.first_chunk().context("the frame is too short")?;
        let mut object = Ebpf::load(OBJECT)?;
        let map = object
            .map_mut("REPEATED")
            .context("the object has no REPEATED")?;
        Array::<_, [u64; 1 + AGAIN / 8]>::try_from(map)?.set(0, *words, 0)?;
        program(&mut object, "again")?;
        program(&mut object, "nothing")?;
        Ok(Self(Bench {
            generator: Generator {
                object,
                name: "again",
                frame,
            },
        }))
    }

    /// Nanoseconds per packet of a program, without those for restoring the frame.
    ///
    /// # Errors
    ///
    /// As [`Bench::relay`], and if the program sends no frame.
    pub fn run(
        &mut self,
        namespace: &Namespace,
        interface: u32,
        program: &ProgramFd,
        count: u32,
    ) -> Result<f64> {
        let (whole, action) = self.0.run(namespace, interface, program, count)?;
        ensure!(
            [XDP_TX, XDP_REDIRECT].contains(&action),
            "the program's answer to the last packet was {action}"
        );
        let nothing = self.0.nothing(namespace, interface, count)?;
        Ok(whole as f64 - nothing as f64)
    }
}
