//! The compared relays, each on a site of its own.

mod introduction;
mod turns;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::Pid;
use teredo::metrics::Mode;
use teredo_lab::{
    Namespace, Teredo, cpu,
    links::{Interface, cable_with_queues},
    miredo,
    process::Daemon,
    programs::{Attached, Generator},
    service::Service,
    teredo::Config,
};
use teredo_lab_ebpf::Flow;

use crate::{
    calls,
    cases::{Case, Direction, Hosts, Order, Place, Terms, Variant},
    clients::{self, Clients},
    ends::tagged,
    frames::{HOST, RELAY, data},
    site::{FAR, NEAR, STRAIGHT, Site, first_host, queues},
    throughput::Subject,
};

/// Prefix of the names of the kernel threads of our TUN interfaces. Those of other daemons are idle
/// meanwhile.
pub const INTERFACE_THREAD: &str = "napi/teredo-";

/// Longest silence of a client at the start of a measurement. With the longest measurement, it
/// stays under the 30 seconds for which a peer is usable.
pub const AGE: Duration = Duration::from_secs(8);

/// The most clients.
const MOST: u32 = 1_000_000;
/// Rounds of arithmetic of [`Variant::Padded`].
const ROUNDS: u32 = 23;
/// Peers of a relay with room for as many clients that are proved.
const LARGE: i64 = 1_300_000;
/// A rate limit that is never reached.
const UNLIMITED: i64 = 100_000_000;

/// Number of checked frames: small enough that no queue overflows.
pub const PROOF: u32 = 40;
/// Number of frames that the generator holds meanwhile: small enough that most are used again.
pub const PROOF_BATCH: u32 = 8;

/// The implementation of a relay.
#[derive(Debug)]
enum Work {
    Nobody,
    /// One program for each direction.
    Bare {
        _programs: [Attached; 2],
    },
    /// One program for each direction.
    Least([Attached; 2]),
    Kernel,
    Elsewhere,
    Calls {
        _program: Daemon,
    },
    Teredo(Teredo),
    /// Our relay under a service manager.
    Service(Box<Service>),
    Miredo {
        _relay: miredo::Relay,
    },
}

/// A relay, with generator and sink around it.
#[derive(Debug)]
pub struct Relay {
    /// The relay's variant.
    pub variant: Variant,
    /// The counter at the packets' far end.
    pub sink: Attached,
    clients: Clients,
    /// Number of clients, the first ones, that the generator has made known, and when they last sent.
    known: Option<(Instant, u32)>,
    /// Number of native hosts on the link that the relay knows.
    neighbours: u32,
    // Dropped before the site.
    work: Work,
    /// The relay's site.
    pub site: Site,
}

impl Relay {
    /// Builds the site and starts the relay.
    ///
    /// # Errors
    ///
    /// Fails without root, or when the relay does not start.
    pub fn start(variant: Variant, terms: Terms) -> Result<Self> {
        let site = Site::new(variant.word(), terms)?;
        let sink = match variant {
            Variant::None => {
                let [out, back] = STRAIGHT;
                cable_with_queues((&site.far, out), (&site.far, back), queues(terms))?;
                Attached::sink(&site.far, &STRAIGHT[1..])
            }
            _ => Attached::sink(&site.far, &FAR),
        }
        .context("attach the sink")?;
        let start = || work(variant, &site, config(terms), terms);
        let work = match variant {
            Variant::Threads => start(),
            _ => cpu::on_core(cpu::RELAY, start),
        };
        let work = work.with_context(|| format!("start {}", variant.title()))?;
        Ok(Self {
            variant,
            sink,
            clients: site.clients()?,
            known: None,
            neighbours: 1,
            work,
            site,
        })
    }

    /// Builds the site and starts our relay under a service manager, with a fast path or without. The sink has
    /// room for this number of numbered packets.
    ///
    /// # Errors
    ///
    /// Fails without root, or when the relay does not start.
    pub fn serviced(variant: Variant, most: u32) -> Result<Self> {
        let terms = Terms::default();
        let site = Site::new("service", terms)?;
        let sink = Attached::sink_of_numbers(&site.far, &FAR, most).context("attach the sink")?;
        let mode = match variant {
            Variant::Xdp => "native",
            _ => "off",
        };
        let config = config(terms)
            .set("relay.xdp.mode", mode)
            .set("relay.xdp.interfaces", NEAR.map(str::to_owned).to_vec());
        let service = cpu::on_core(cpu::RELAY, || Service::start(&site.near, &config))?;
        Ok(Self {
            variant,
            sink,
            clients: site.clients()?,
            known: None,
            neighbours: 1,
            work: Work::Service(Box::new(service)),
            site,
        })
    }

    /// Returns the service manager of [`Relay::serviced`], and the namespaces of the relay and of the
    /// generator.
    pub fn service(&mut self) -> Option<(&mut Service, &Namespace, &Namespace)> {
        match &mut self.work {
            Work::Service(service) => Some((service, &self.site.near, &self.site.far)),
            _ => None,
        }
    }

    /// Makes ready to measure a relay outside this machine, between two of its interfaces.
    ///
    /// # Errors
    ///
    /// Fails when the interfaces cannot be used, or the relay does not answer.
    pub fn elsewhere(interfaces: &[String; 2]) -> Result<Self> {
        let site = Site::around(interfaces)?;
        Ok(Self {
            variant: Variant::Device,
            sink: Attached::sink(&site.far, &FAR).context("attach the sink")?,
            clients: site.clients()?,
            known: None,
            neighbours: 1,
            work: Work::Elsewhere,
            site,
        })
    }

    /// Whether the variant can take part in a case: the kernel only forwards to clients.
    #[must_use]
    pub fn has(&self, case: Case) -> bool {
        self.variant != Variant::Kernel || case.direction == Direction::Encap
    }

    /// The first client's frame.
    ///
    /// # Errors
    ///
    /// Fails when the size is not possible.
    pub fn frame(&self, direction: Direction, size: u16) -> Result<Vec<u8>> {
        let stations = self.site.stations(direction);
        data(stations, direction, 0, HOST, size)
    }

    /// The same to the first of these hosts.
    fn frame_to(&self, place: Place, direction: Direction, size: u16) -> Result<Vec<u8>> {
        let stations = self.site.stations(direction);
        let frame = data(stations, direction, 0, first_host(place), size)?;
        Ok(tagged(&frame, self.site.tag()).into_owned())
    }

    /// Makes the generator of a case with packets in one direction, which carry the time.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses it.
    pub fn stamped(&self, case: Case) -> Result<Generator> {
        self.generator_of(case, Flow::with_stamps)
    }

    /// Makes the generator of a case with packets in one direction, which carry their numbers.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses it.
    pub fn numbered(&self, case: Case) -> Result<Generator> {
        self.generator_of(case, Flow::with_numbers)
    }

    /// Makes the generator of a case with packets in one direction.
    fn generator(&self, case: Case) -> Result<Generator> {
        self.generator_of(case, |flow| flow)
    }

    fn generator_of(&self, case: Case, change: impl Fn(Flow) -> Flow) -> Result<Generator> {
        let Hosts { count, place } = case.hosts;
        let frame = self.frame_to(place, case.direction, case.size)?;
        let interface = match self.variant {
            Variant::None => Interface::named(&self.site.far, STRAIGHT[0])?.index,
            _ => self.site.far_interfaces[Site::entry(case.direction)].index,
        };
        let flow = Flow::new(case.direction.flow(), case.clients, interface, &frame);
        let flow = flow.map(|flow| match count {
            1 => flow,
            count => flow.with_hosts(count, place == Place::Scattered),
        });
        let (train, turns) = match case.order {
            Order::Rotation => (1, Vec::new()),
            Order::Trains => (Order::TRAIN, Vec::new()),
            Order::Zipf => (1, turns::zipf(case.clients)),
        };
        let flow = flow.map(|flow| change(flow.with_trains(train)));
        Generator::load(flow, frame, &turns)
    }
}

impl Subject for Relay {
    type Case = Case;

    fn variant(&self) -> Variant {
        self.variant
    }

    fn generators(&self, case: Case) -> Result<Vec<Generator>> {
        let flows = case.flows().into_iter();
        flows.map(|flow| self.generator(flow)).collect()
    }

    fn get_ready(&mut self, case: Case) -> Result<()> {
        let Hosts { count, place } = case.hosts;
        if place == Place::OnLink && count > self.neighbours {
            self.site.add_neighbours(count)?;
            self.neighbours = count;
        }
        if let Work::Least(programs) = &mut self.work {
            for program in programs {
                program.translate_for(case.clients)?;
            }
        }
        self.acquaint(case.clients, AGE)
    }

    fn prove(&mut self, case: Case) -> Result<()> {
        if matches!(
            self.work,
            Work::Nobody | Work::Bare { .. } | Work::Least(_) | Work::Kernel | Work::Calls { .. }
        ) {
            return Ok(());
        }
        let size = clients::SIZE;
        for case in case.flows().into_iter().map(|case| Case { size, ..case }) {
            let generator = self.generator(case)?;
            self.clients.prove(case, PROOF, || {
                generator.send(&self.site.far, PROOF, PROOF_BATCH).map(drop)
            })?;
        }
        Ok(())
    }

    fn is_elsewhere(&self) -> bool {
        matches!(self.work, Work::Elsewhere)
    }

    fn far(&self) -> &Namespace {
        &self.site.far
    }

    fn sink(&mut self) -> &mut Attached {
        &mut self.sink
    }

    fn processes(&self) -> Result<Vec<Pid>> {
        let mut processes = self.site.near.processes()?;
        if let Work::Teredo(_) | Work::Calls { .. } = self.work {
            processes.extend(cpu::threads_named(|name| {
                name.starts_with(INTERFACE_THREAD)
            })?);
        }
        Ok(processes)
    }

    fn fast_packets(&self, case: Case) -> Result<Option<u64>> {
        match (&self.work, self.variant) {
            (Work::Teredo(teredo), Variant::Xdp | Variant::Uncounted) => {
                let packets = teredo.status()?.packets;
                Ok(Some(match case.direction {
                    Direction::Encap => packets.encap.xdp,
                    Direction::Decap => packets.decap.xdp,
                    Direction::Both => packets.encap.xdp + packets.decap.xdp,
                }))
            }
            _ => Ok(None),
        }
    }
}

/// The configuration of our relay, without mode and interfaces.
fn config(terms: Terms) -> Config {
    let config = Config::new()
        .set("relay.ipv4", RELAY.ip().to_string())
        .set("relay.port", i64::from(RELAY.port()))
        // All clients are new at the start, and wait for nothing but the relay's bubbles.
        .set("relay.xdp.new-peer-rate", 0)
        .set("relay.xdp.answer-rate", 0);
    let served = ["2001:db8::/32", "2a00::/12"].map(str::to_owned).to_vec();
    let limits = [
        "bubble-rate",
        "bubble-total-rate",
        "new-peer-rate",
        "new-peer-total-rate",
        "unproved-rate",
    ];
    let config = limits.into_iter().fold(config, |config, limit| {
        config.set(&format!("relay.{limit}"), UNLIMITED)
    });
    match terms {
        Terms::Large => config.set("relay.max-peers", LARGE),
        Terms::Served => config.set("relay.serve", served),
        _ => config,
    }
}

fn work(variant: Variant, site: &Site, config: Config, terms: Terms) -> Result<Work> {
    match variant {
        Variant::None => Ok(Work::Nobody),
        Variant::Device => bail!("the device is not on this machine"),
        Variant::Kernel => site.route_clients().map(|()| Work::Kernel),
        Variant::Bare => {
            let [v4, v6] = site.near_interfaces;
            Ok(Work::Bare {
                _programs: [
                    Attached::forward(&site.near, NEAR[0], v6.index)?,
                    Attached::forward(&site.near, NEAR[1], v4.index)?,
                ],
            })
        }
        Variant::Least | Variant::Padded => {
            let rounds = match variant {
                Variant::Padded => ROUNDS,
                _ => 0,
            };
            let [v4, v6] = site.near_interfaces;
            let attach = |interface, target: Interface| {
                Attached::translate(&site.near, interface, target.index, MOST, rounds)
            };
            Ok(Work::Least([attach(NEAR[0], v6)?, attach(NEAR[1], v4)?]))
        }
        Variant::Xdp | Variant::Uncounted => {
            let (mode, word) = match terms {
                Terms::Generic => (Mode::Generic, "generic"),
                _ => (Mode::Native, "native"),
            };
            let config = config
                .set("relay.accounting", variant == Variant::Xdp)
                .set("relay.xdp.mode", word)
                .set("relay.xdp.interfaces", NEAR.map(str::to_owned).to_vec());
            let teredo = Teredo::start(&site.near, &config)?;
            let attached = teredo.status()?.xdp;
            ensure!(
                attached.len() == NEAR.len()
                    && attached.iter().all(|interface| interface.mode == mode),
                "its XDP program is not attached in {word} mode: {attached:?}"
            );
            Ok(Work::Teredo(teredo))
        }
        Variant::Calls => Ok(Work::Calls {
            _program: calls::start(&site.near, RELAY.into())?,
        }),
        Variant::Userspace | Variant::Threads => {
            let threads = match variant {
                Variant::Threads => 2,
                _ => 1,
            };
            let config = config
                .set("relay.xdp.mode", "off")
                .set("relay.threads", threads);
            Ok(Work::Teredo(Teredo::start(&site.near, &config)?))
        }
        Variant::Miredo => {
            let relay = miredo::Relay::start(&site.near, RELAY.ip(), RELAY.port())?;
            // Miredo's own route gives every client a neighbour entry, which thrashes the kernel's
            // table with more than a thousand. A single gateway avoids that.
            let interface = miredo::INTERFACE;
            site.near.ip(&format!(
                "-6 route replace 2001::/32 via fe80::1 dev {interface} onlink"
            ))?;
            Ok(Work::Miredo { _relay: relay })
        }
    }
}
