//! The compared relays, each on a site of its own.

use std::{net::Ipv6Addr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Pid;
use teredo::metrics::Mode;
use teredo_lab::{
    Namespace, Teredo, cpu,
    links::{Interface, cable},
    miredo,
    programs::{Attached, BATCH, Generator},
    teredo::Config,
};
use teredo_lab_ebpf::SIZES;

use super::{
    cases::{Case, Direction, Hosts, Variant},
    clients::{self, Clients},
    frames::{HOST, HOST_BEHIND, RELAY, data},
    site::{FAR, NEAR, STRAIGHT, Site},
    throughput::Subject,
};

/// Prefix of the names of the kernel threads of our TUN interfaces. Those of other daemons are idle
/// meanwhile.
pub const INTERFACE_THREAD: &str = "napi/teredo-";

/// Longest silence of a client at the start of a measurement. With the longest measurement, it
/// stays under the 30 seconds for which a peer is usable.
pub const AGE: Duration = Duration::from_secs(8);

/// Clients that become known at once, before those known earlier have to be heard again.
const AT_ONCE: u32 = 20_000;
/// Peers of a relay with room for a million clients that are proved.
const LARGE: i64 = 1_300_000;

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
    Teredo(Teredo),
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
    pub fn start(variant: Variant) -> Result<Self> {
        Self::start_with(variant, config())
    }

    /// Builds the site and starts the relay with room for a million clients.
    ///
    /// # Errors
    ///
    /// Fails without root, or when the relay does not start.
    pub fn start_large(variant: Variant) -> Result<Self> {
        Self::start_with(variant, config().set("relay.max-peers", LARGE))
    }

    fn start_with(variant: Variant, config: Config) -> Result<Self> {
        let site = Site::new(variant.word())?;
        let sink = match variant {
            Variant::None => {
                cable((&site.far, STRAIGHT[0]), (&site.far, STRAIGHT[1]))?;
                Attached::sink(&site.far, &STRAIGHT[1..])
            }
            _ => Attached::sink(&site.far, &FAR),
        }
        .context("attach the sink")?;
        let work = cpu::on_core(cpu::RELAY, || work(variant, &site, config))
            .with_context(|| format!("start {}", variant.title()))?;
        Ok(Self {
            variant,
            sink,
            clients: site.clients()?,
            neighbours: 1,
            work,
            site,
        })
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
    fn frame_to(&self, hosts: Hosts, direction: Direction, size: u16) -> Result<Vec<u8>> {
        let stations = self.site.stations(direction);
        data(stations, direction, 0, first_host(hosts), size)
    }

    /// Makes the clients known to the relay, all heard within the last `age`.
    ///
    /// # Errors
    ///
    /// Fails when a packet does not arrive, or is damaged.
    pub fn acquaint(&mut self, clients: u32, age: Duration) -> Result<()> {
        if matches!(self.work, Work::Nobody | Work::Bare { .. }) {
            return Ok(());
        }
        let title = self.variant.title();
        let context = || format!("{title} and its clients");
        if clients <= AT_ONCE || age == Duration::MAX {
            return self.clients.acquaint(clients, age).with_context(context);
        }
        // The first would be silent for too long before the last are known.
        let known = self.clients.known();
        for count in (AT_ONCE..clients)
            .step_by(AT_ONCE as usize)
            .chain([clients])
        {
            if count > known {
                self.keep_alive(count.saturating_sub(AT_ONCE).max(1))?;
                self.clients.extend(count).with_context(context)?;
            }
        }
        self.keep_alive(clients)
    }

    /// Lets the first clients send, as fast as the relay can forward.
    fn keep_alive(&self, clients: u32) -> Result<()> {
        let frame = self.frame_to(Hosts::ONE_BEHIND, Direction::Decap, SIZES[0])?;
        let interface = self.site.far_interfaces[Site::entry(Direction::Decap)].index;
        let flow = Direction::Decap.flow();
        let generator = Generator::load(flow, clients, interface, frame)?;
        // Some frames are lost, but hardly those of one client thrice.
        let frames = clients.saturating_mul(3).max(1_000);
        generator.send(&self.site.far, frames, BATCH).map(drop)
    }
}

impl Subject for Relay {
    type Case = Case;

    fn variant(&self) -> Variant {
        self.variant
    }

    fn generator(&self, case: Case) -> Result<Generator> {
        let frame = self.frame_to(case.hosts, case.direction, case.size)?;
        let interface = match self.variant {
            Variant::None => Interface::named(&self.site.far, STRAIGHT[0])?.index,
            _ => self.site.far_interfaces[Site::entry(case.direction)].index,
        };
        match case.hosts.count {
            1 => Generator::load(case.direction.flow(), case.clients, interface, frame),
            hosts => Generator::to_hosts(case.clients, hosts, interface, frame),
        }
    }

    fn get_ready(&mut self, case: Case) -> Result<()> {
        let Hosts { count, are_on_link } = case.hosts;
        if are_on_link && count > self.neighbours {
            self.site.add_neighbours(count)?;
            self.neighbours = count;
        }
        self.acquaint(case.clients, AGE)
    }

    fn prove(&mut self, case: Case) -> Result<()> {
        if matches!(self.work, Work::Nobody | Work::Bare { .. }) {
            return Ok(());
        }
        let case = Case {
            size: clients::SIZE,
            ..case
        };
        let generator = self.generator(case)?;
        self.clients.prove(case, PROOF, || {
            generator.send(&self.site.far, PROOF, PROOF_BATCH).map(drop)
        })
    }

    fn far(&self) -> &Namespace {
        &self.site.far
    }

    fn sink(&mut self) -> &mut Attached {
        &mut self.sink
    }

    fn processes(&self) -> Result<Vec<Pid>> {
        let mut processes = self.site.near.processes()?;
        if let Work::Teredo(_) = self.work {
            processes.extend(cpu::threads_named(|name| {
                name.starts_with(INTERFACE_THREAD)
            })?);
        }
        Ok(processes)
    }

    fn fast_packets(&self, case: Case) -> Result<Option<u64>> {
        match (&self.work, self.variant) {
            (Work::Teredo(teredo), Variant::Xdp) => {
                let packets = teredo.status()?.packets;
                Ok(Some(match case.direction {
                    Direction::Encap => packets.encap.xdp,
                    Direction::Decap => packets.decap.xdp,
                }))
            }
            _ => Ok(None),
        }
    }
}

/// The native host to whose frame those to the other hosts are alike.
pub const fn first_host(hosts: Hosts) -> Ipv6Addr {
    match hosts.are_on_link {
        true => HOST,
        false => HOST_BEHIND,
    }
}

/// The configuration of our relay, without mode and interfaces.
fn config() -> Config {
    Config::new()
        .set("relay.ipv4", RELAY.ip().to_string())
        .set("relay.port", i64::from(RELAY.port()))
        // All clients are new at the start, and wait for nothing but the relay's bubbles.
        .set("relay.xdp.new-peer-rate", 0)
        .set("relay.xdp.answer-rate", 0)
}

fn work(variant: Variant, site: &Site, config: Config) -> Result<Work> {
    match variant {
        Variant::None => Ok(Work::Nobody),
        Variant::Bare => {
            let [v4, v6] = site.near_interfaces;
            Ok(Work::Bare {
                _programs: [
                    Attached::forward(&site.near, NEAR[0], v6.index)?,
                    Attached::forward(&site.near, NEAR[1], v4.index)?,
                ],
            })
        }
        Variant::Xdp => {
            let config = config
                .set("relay.xdp.mode", "native")
                .set("relay.xdp.interfaces", NEAR.map(str::to_owned).to_vec());
            let teredo = Teredo::start(&site.near, &config)?;
            let attached = teredo.status()?.xdp;
            ensure!(
                attached.len() == NEAR.len()
                    && attached
                        .iter()
                        .all(|interface| interface.mode == Mode::Native),
                "its XDP program is not attached in native mode: {attached:?}"
            );
            Ok(Work::Teredo(teredo))
        }
        Variant::Userspace => {
            let config = config.set("relay.xdp.mode", "off");
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
