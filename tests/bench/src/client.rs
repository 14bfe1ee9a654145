//! The compared clients, each on a site of its own: a host that forwards the generator's packets
//! into the tunnel, and the packets that come out of it to the sink. A server, a relay and a native
//! host, in the far namespace, are idle during the measurement.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::Pid;
use teredo_common::{address::Endpoint, wire::ETHERTYPE_IPV6};
use teredo_lab::{
    Namespace, Teredo, cpu,
    frames::{datagram, ethernet},
    miredo::{self, INTERFACE},
    peers::udp_packet,
    programs::{Attached, Generator},
    scene::Client as Process,
    teredo::Config,
};

use super::{
    cases::{Direction, Terms, Tunnel, Variant},
    clients::{PATIENCE, SILENCE, SIZE},
    ends::Ends,
    frames::{CLIENT_PORT, Datagram, HOP_LIMIT, HOST, HOST_PORT, INNER_HEADERS, Inner},
    relay::{AGE, INTERFACE_THREAD, PROOF, PROOF_BATCH},
    site::{FAR, GATEWAY, NEAR, Site},
    throughput::Subject,
};

/// The client's endpoint, which is also its mapped endpoint.
const CLIENT: Endpoint = Endpoint::new(Ipv4Addr::new(20, 0, 0, 1), 40_001);
/// The relay's endpoint.
const RELAY: Endpoint = Endpoint::new(GATEWAY, 3545);
/// The server's primary address; the secondary one follows it.
const SERVER: Ipv4Addr = Ipv4Addr::new(20, 0, 0, 4);

/// A client, with the server, relay and host that it needs.
#[derive(Debug)]
pub struct Client {
    variant: Variant,
    /// The counter at the packets' far end.
    sink: Attached,
    ends: Ends,
    address: Ipv6Addr,
    /// Time at which the client last received a packet of the native host.
    heard: Option<Instant>,
    // Dropped before the site.
    _process: Process,
    _others: Teredo,
    /// The client's site.
    site: Site,
}

impl Client {
    /// Builds the site and starts the client.
    ///
    /// # Errors
    ///
    /// Fails without root, or when the client does not start.
    pub fn start(variant: Variant) -> Result<Self> {
        let site = Site::new(&format!("{}-client", variant.word()), Terms::Usual)?;
        let others = others(&site)?;
        // All IPv6 packets go into the tunnel.
        site.near
            .ip(&format!("-6 addr flush dev {} scope global", NEAR[1]))?;
        let process = cpu::on_core(cpu::RELAY, || process(variant, &site.near))
            .with_context(|| format!("start the client of {}", variant.title()))?;
        forward_what_comes_out(&site)?;
        Ok(Self {
            variant,
            sink: Attached::sink(&site.far, &FAR).context("attach the sink")?,
            ends: Ends::open(&site.far, None)?,
            address: process.address(),
            heard: None,
            _process: process,
            _others: others,
            site,
        })
    }

    /// A frame for the client's host, with an inner packet of this size.
    fn frame(&self, direction: Direction, size: u16) -> Result<Vec<u8>> {
        let payload = usize::from(size)
            .checked_sub(INNER_HEADERS)
            .with_context(|| format!("{size} octets are too few for a datagram"))?;
        let (here, there) = ((self.address, CLIENT_PORT), (HOST, HOST_PORT));
        let (source, destination) = match direction {
            Direction::Encap | Direction::Both => (here, there),
            Direction::Decap => (there, here),
        };
        let packet = udp_packet(source, destination, HOP_LIMIT, &vec![0xa5; payload])?;
        let stations = self.site.stations(direction);
        match direction {
            Direction::Encap | Direction::Both => Ok(ethernet(stations, ETHERTYPE_IPV6, &packet)),
            Direction::Decap => datagram(stations, RELAY, CLIENT, &packet),
        }
    }

    /// Whether a frame at the far ends is the result of one of [`Self::frame`].
    fn is_whole(&self, direction: Direction, frame: &[u8]) -> Result<bool> {
        let inner = match direction {
            Direction::Decap => Inner::parse_frame(frame)?,
            Direction::Encap | Direction::Both => match Datagram::parse(frame)? {
                Some(datagram) if datagram.destination == RELAY => {
                    ensure!(
                        datagram.source == CLIENT,
                        "it came from {}",
                        datagram.source
                    );
                    Inner::parse(datagram.payload)?
                }
                _ => None,
            },
        };
        let Some(inner) = inner else {
            return Ok(false);
        };
        let addresses = [inner.source, inner.destination].map(Ipv6Addr::from);
        Ok(match direction {
            Direction::Encap | Direction::Both => addresses == [self.address, HOST],
            Direction::Decap => addresses == [HOST, self.address],
        })
    }

    /// Sends a packet in one direction until one arrives.
    fn deliver(&self, direction: Direction) -> Result<()> {
        let entry = Site::entry(direction);
        let frame = self.frame(direction, SIZE)?;
        let start = Instant::now();
        self.ends.drain()?;
        while start.elapsed() < PATIENCE {
            self.ends.send(entry, &frame)?;
            while self.ends.wait(SILENCE)? {
                let mut arrived = false;
                while self.ends.next(entry)?.is_some() {}
                while let Some(frame) = self.ends.next(1 - entry)? {
                    arrived |= self.is_whole(direction, &frame)?;
                }
                if arrived {
                    return Ok(());
                }
            }
        }
        bail!("{}: nothing arrives within {PATIENCE:?}", direction.word())
    }
}

impl Subject for Client {
    type Case = Tunnel;

    fn variant(&self) -> Variant {
        self.variant
    }

    fn generators(&self, case: Tunnel) -> Result<Vec<Generator>> {
        let interface = self.site.far_interfaces[Site::entry(case.direction)].index;
        let frame = self.frame(case.direction, case.size)?;
        Ok(vec![Generator::fixed(interface, frame)?])
    }

    fn get_ready(&mut self, _case: Tunnel) -> Result<()> {
        if self.heard.is_some_and(|heard| heard.elapsed() < AGE) {
            return Ok(());
        }
        let heard = Instant::now();
        self.deliver(Direction::Encap)?;
        self.deliver(Direction::Decap)?;
        self.heard = Some(heard);
        Ok(())
    }

    fn prove(&mut self, case: Tunnel) -> Result<()> {
        let generators = self.generators(Tunnel { size: SIZE, ..case })?;
        self.ends.drain()?;
        for generator in generators {
            generator.send(&self.site.far, PROOF, PROOF_BATCH)?;
        }
        let entry = Site::entry(case.direction);
        let mut count = 0;
        while count < PROOF && self.ends.wait(SILENCE)? {
            while self.ends.next(entry)?.is_some() {}
            while let Some(frame) = self.ends.next(1 - entry)? {
                count += u32::from(self.is_whole(case.direction, &frame)?);
            }
        }
        ensure!(
            count == PROOF,
            "of {PROOF} generated packets {count} arrived"
        );
        Ok(())
    }

    fn far(&self) -> &Namespace {
        &self.site.far
    }

    fn sink(&mut self) -> &mut Attached {
        &mut self.sink
    }

    fn processes(&self) -> Result<Vec<Pid>> {
        let mut processes = self.site.near.processes()?;
        if self.variant == Variant::Userspace {
            processes.extend(cpu::threads_named(|name| {
                name.starts_with(INTERFACE_THREAD)
            })?);
        }
        Ok(processes)
    }

    fn fast_packets(&self, _case: Tunnel) -> Result<Option<u64>> {
        Ok(None)
    }
}

/// The server and the relay.
fn others(site: &Site) -> Result<Teredo> {
    let secondary = Ipv4Addr::from_bits(SERVER.to_bits() + 1);
    site.far.ip_batch(&format!(
        "addr add {SERVER}/24 dev {0}
        addr add {secondary}/24 dev {0}",
        FAR[0]
    ))?;
    let addresses = [SERVER, secondary].map(|address| address.to_string());
    let config = Config::new()
        .set("relay.ipv4", RELAY.ip().to_string())
        .set("relay.port", i64::from(RELAY.port()))
        .set("relay.tun", "relay")
        .set("relay.host-specific", true)
        .set("relay.xdp.mode", "off")
        .set("server.ipv4", addresses.to_vec())
        .set("server.xdp.mode", "off");
    Teredo::start(&site.far, &config).context("start server and relay")
}

fn process(variant: Variant, near: &Namespace) -> Result<Process> {
    match variant {
        Variant::Miredo => miredo::Client::start(near, SERVER, CLIENT.port()).map(Process::Miredo),
        Variant::Userspace => {
            let config = Config::new()
                .set("client.server", vec![SERVER.to_string()])
                .set("client.port", i64::from(CLIENT.port()));
            let mut teredo = Teredo::start(near, &config)?;
            let address = teredo.qualified(near)?;
            Ok(Process::Teredo(Box::new(teredo), address))
        }
        _ => bail!("{} is no client", variant.word()),
    }
}

/// Lets the host forward packets from the tunnel to the sink, although they are for itself.
fn forward_what_comes_out(site: &Site) -> Result<()> {
    let station = site.far_interfaces[1]
        .station
        .map(|octet| format!("{octet:02x}"))
        .join(":");
    let interface = NEAR[1];
    for arguments in [
        format!("-6 rule add pref 10 iif {INTERFACE} lookup 100"),
        "-6 rule add pref 20 lookup local".to_owned(),
        "-6 rule del pref 0".to_owned(),
        format!("-6 neigh add fe80::1 lladdr {station} dev {interface} nud permanent"),
        format!("-6 route add default via fe80::1 dev {interface} onlink table 100"),
    ] {
        site.near.ip(&arguments)?;
    }
    Ok(())
}
