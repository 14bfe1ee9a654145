//! The benchmark's XDP programs, loaded.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, PerCpuArray, PerCpuValues, ProgramArray},
    programs::{
        ProgramFd, SchedClassifier, TcAttachType, TestRun as _, TestRunAttrs, TestRunOptions, Xdp,
        XdpMode,
        tc::{self, NlOptions, TcAttachOptions},
    },
    util::nr_cpus,
};
use teredo_lab_ebpf::{
    Count, Flow,
    flood::{FRAME, Flood, KINDS, Progress},
    sift::Fate,
    spray::{self, Spray},
};

use super::cpu;
use crate::{Namespace, wait_for};

pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench"));

/// Frames that a generator holds and sends before it lets the network work: the kernel's default.
pub const BATCH: u32 = 64;
/// The return value of an XDP program that has chosen another interface.
const XDP_REDIRECT: u32 = 4;
/// Silence after which a sink counts as finished.
const QUIET: Duration = Duration::from_millis(30);

fn program<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program: &mut Xdp = object
        .program_mut(name)
        .with_context(|| format!("the object has no program {name}"))?
        .try_into()?;
    program.load()?;
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
            program.load()?;
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

    fn everywhere(namespace: &Namespace, interfaces: &[&str], name: &str) -> Result<Self> {
        namespace.run(|| {
            let mut object = Ebpf::load(OBJECT)?;
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
        namespace.run(|| {
            let mut object = EbpfLoader::new()
                .override_global("TARGET", &target, true)
                .load(OBJECT)?;
            program(&mut object, "forward")?.attach(interface, XdpMode::Driver)?;
            Ok(Self { object })
        })?
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
    /// Loads a generator for this flow, whose first frame is `frame`.
    ///
    /// # Errors
    ///
    /// Fails when the frame is too short or the kernel refuses the program.
    pub fn load(direction: u32, clients: u32, interface: u32, frame: Vec<u8>) -> Result<Self> {
        Self::with_program("generate", direction, clients, interface, frame)
    }

    /// Loads a generator of packets to this many native hosts; see [`Flow::with_hosts`].
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn to_hosts(clients: u32, hosts: u32, interface: u32, frame: Vec<u8>) -> Result<Self> {
        let flow = Flow::new(Flow::DECAP, clients, interface, &frame);
        let flow = flow.map(|flow| flow.with_hosts(hosts));
        Self::with_flow("generate", flow, frame)
    }

    /// Loads a generator of this frame.
    ///
    /// # Errors
    ///
    /// Fails when the frame is too short or the kernel refuses the program.
    pub fn fixed(interface: u32, frame: Vec<u8>) -> Result<Self> {
        Self::with_flow("generate", Flow::fixed(interface, &frame), frame)
    }

    /// Loads a generator of a flood, which starts with the first of its `kinds` of frames.
    ///
    /// # Errors
    ///
    /// Fails when a frame is not from the first forged client, or when the kernel refuses the
    /// program.
    pub fn flood(
        interface: u32,
        interval: Duration,
        sources: u32,
        kinds: [&[u8; FRAME]; KINDS],
    ) -> Result<Self> {
        let interval = u32::try_from(interval.as_nanos())?;
        let flood = Flood::new(interface, interval, sources, kinds)
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
        const WORDS: usize = size_of::<Progress>() / 8;
        let map = self.object.map("PROGRESS");
        let map = map.context("the object has no PROGRESS")?;
        let words = Array::<_, [u64; WORDS]>::try_from(map)?.get(&0, 0)?;
        Ok(bytemuck::cast::<_, Progress>(words).sent)
    }

    fn with_program(
        name: &'static str,
        direction: u32,
        clients: u32,
        interface: u32,
        frame: Vec<u8>,
    ) -> Result<Self> {
        let flow = Flow::new(direction, clients, interface, &frame);
        Self::with_flow(name, flow, frame)
    }

    fn with_flow(name: &'static str, flow: Option<Flow>, frame: Vec<u8>) -> Result<Self> {
        let flow = flow.context("the frame is too short for its headers")?;
        let mut object = Ebpf::load(OBJECT)?;
        let map = object.map_mut("FLOW").context("the object has no FLOW")?;
        let words: [u32; size_of::<Flow>() / 4] = bytemuck::cast(flow);
        Array::<_, [u32; size_of::<Flow>() / 4]>::try_from(map)?.set(0, words, 0)?;
        program(&mut object, name)?;
        Ok(Self {
            object,
            name,
            frame,
        })
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
        namespace.run(|| self.send_here(count, batch))?
    }

    /// Sends frames as [`Self::send`] does, from the namespace of the calling thread, which stays
    /// on the generator's core.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses it.
    pub fn send_here(&self, count: u32, batch: u32) -> Result<Run> {
        let program = self.program(self.name)?;
        cpu::pin(cpu::GENERATOR)?;
        let options = TestRunOptions {
            data_in: Some(&self.frame),
            repeat: count,
            attrs: TestRunAttrs::new().xdp_live_frames(batch),
            ..TestRunOptions::default()
        };
        let core = cpu::of_core(cpu::GENERATOR)?;
        let thread = cpu::of_this_thread()?;
        let start = Instant::now();
        program.test_run(options)?;
        Ok(Run {
            elapsed: start.elapsed(),
            thread: cpu::of_this_thread()? - thread,
            core: cpu::of_core(cpu::GENERATOR)? - core,
        })
    }
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
        let mut generator = Generator::with_program("rewind", direction, clients, 0, frame)?;
        program(&mut generator.object, "nothing")?;
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
        let rewind = self.generator.program("rewind")?;
        let frame = &self.generator.frame;
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index,
        // egress_ifindex.
        let context = [0, frame.len() as u32, 0, interface, 0, 0];
        namespace.run(|| {
            cpu::pin(cpu::GENERATOR)?;
            let options = TestRunOptions {
                data_in: Some(frame),
                ctx_in: Some(bytemuck::bytes_of(&context)),
                repeat: count,
                ..TestRunOptions::default()
            };
            let result = rewind.test_run(options)?;
            Ok((
                u64::try_from(result.duration.as_nanos())?,
                result.return_value,
            ))
        })?
    }
}
