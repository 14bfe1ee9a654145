//! The compared servers, each on a site of its own.

use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::Pid;
use teredo::metrics::Mode;
use teredo_common::{address::Endpoint, wire::SERVER_PORT};
use teredo_lab::{
    Namespace, Teredo, cpu,
    frames::datagram,
    links::{Interface, cable},
    miredo,
    programs::{Attached, Generator},
    qualification::{CLIENT, MTU, advertisement, nonce_only, origin, solicitation},
    teredo::Config,
    uninterrupted,
};
use teredo_lab_ebpf::{
    client,
    flood::{FRAME, KINDS},
};

use super::{
    cases::{Direction, Solicitations, Terms, Variant},
    site::{FAR, GATEWAY, NEAR, STRAIGHT, Site},
    throughput::Subject,
};

/// The server's primary address; the secondary one follows it.
const PRIMARY: Ipv4Addr = Ipv4Addr::new(20, 0, 0, 4);
/// Client port at which answers are checked: no forged client has it.
const PROOF: SocketAddrV4 = SocketAddrV4::new(GATEWAY, 30_000);
/// Longest time to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Addresses of a network of 24 bits.
const NETWORK: u32 = 256;
/// A rate limit above the rate of any source.
const UNLIMITED: i64 = 100_000_000;
/// A burst above the number of packets of any source while the fast path's clock stands still.
const AT_ONCE: i64 = 1_000_000;

/// The implementation of a server.
#[derive(Debug)]
enum Work {
    Nobody,
    Bare { _program: Attached },
    Least { _program: Attached },
    Teredo(Teredo),
    Miredo { _server: miredo::Server },
}

/// A server, with generator and sink before it.
#[derive(Debug)]
pub struct Server {
    variant: Variant,
    sink: Attached,
    // Dropped before the site.
    work: Work,
    site: Site,
}

impl Server {
    /// Builds the site and starts the server.
    ///
    /// # Errors
    ///
    /// Fails without root, or when the server does not start.
    pub fn start(variant: Variant) -> Result<Self> {
        let site = Site::new(&format!("{}-server", variant.word()), Terms::Usual)?;
        let sink = match variant {
            Variant::None => {
                cable((&site.far, STRAIGHT[0]), (&site.far, STRAIGHT[1]))?;
                Attached::answers(&site.far, &STRAIGHT[1..])
            }
            Variant::Userspace | Variant::Miredo => Attached::departures(&site.near, NEAR[0]),
            _ => Attached::answers(&site.far, &FAR[..1]),
        }
        .context("attach the sink")?;
        let secondary = Ipv4Addr::from_bits(PRIMARY.to_bits() + 1);
        site.near.ip_batch(&format!(
            "addr add {PRIMARY}/24 dev {0}
            addr add {secondary}/24 dev {0}",
            NEAR[0]
        ))?;
        let work = cpu::on_core(cpu::RELAY, || work(variant, &site))
            .with_context(|| format!("start the server of {}", variant.title()))?;
        Ok(Self {
            variant,
            sink,
            work,
            site,
        })
    }
}

impl Subject for Server {
    type Case = Solicitations;

    fn variant(&self) -> Variant {
        self.variant
    }

    fn generators(&self, case: Solicitations) -> Result<Vec<Generator>> {
        let interface = match self.variant {
            Variant::None => Interface::named(&self.site.far, STRAIGHT[0])?.index,
            _ => self.site.far_interfaces[0].index,
        };
        let server = Endpoint::new(PRIMARY, SERVER_PORT);
        let stations = self.site.stations(Direction::Decap);
        let frame = datagram(stations, client(0).mapped, server, &message())?;
        let frame = <&[u8; FRAME]>::try_from(&frame[..])?;
        let kinds = [frame; KINDS];
        let spacing = if case.are_scattered { NETWORK } else { 1 };
        let flood = Generator::flood(interface, Duration::ZERO, case.clients, spacing, kinds)?;
        Ok(vec![flood])
    }

    fn get_ready(&mut self, _case: Solicitations) -> Result<()> {
        Ok(())
    }

    fn prove(&mut self, _case: Solicitations) -> Result<()> {
        if matches!(
            self.work,
            Work::Nobody | Work::Bare { .. } | Work::Least { .. }
        ) {
            return Ok(());
        }
        let mut expected = nonce_only(NONCE);
        expected.extend(origin(PROOF));
        expected.extend(advertisement(PRIMARY, CLIENT, Some(MTU)));
        let answer = self.site.far.run(|| {
            let socket = UdpSocket::bind(PROOF)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.send_to(&message(), (PRIMARY, SERVER_PORT))?;
            let mut buffer = vec![0; 2048];
            let length = uninterrupted(PATIENCE, || socket.recv(&mut buffer))
                .context("wait for an answer")?;
            buffer.truncate(length);
            anyhow::Ok(buffer)
        })??;
        ensure!(
            answer == expected,
            "{}: {answer:02x?} instead of {expected:02x?}",
            self.variant.title()
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
        self.site.near.processes()
    }

    fn fast_packets(&self, _case: Solicitations) -> Result<Option<u64>> {
        match (&self.work, self.variant) {
            (Work::Teredo(teredo), Variant::Xdp) => Ok(Some(teredo.advertised()?.xdp)),
            _ => Ok(None),
        }
    }
}

/// The nonce of all solicitations.
const NONCE: [u8; 8] = *b"solicits";

/// The clients' solicitation: the form of Miredo and, but for an option, of Windows.
fn message() -> Vec<u8> {
    let mut message = nonce_only(NONCE);
    message.extend(solicitation(CLIENT));
    message
}

fn work(variant: Variant, site: &Site) -> Result<Work> {
    match variant {
        Variant::None => Ok(Work::Nobody),
        Variant::Padded
        | Variant::Kernel
        | Variant::Uncounted
        | Variant::Threads
        | Variant::Calls
        | Variant::Device => {
            bail!("{} is no server", variant.word())
        }
        Variant::Least => Ok(Work::Least {
            _program: Attached::advertise(&site.near, &NEAR[..1])?,
        }),
        Variant::Bare => Ok(Work::Bare {
            _program: Attached::reflect(&site.near, &NEAR[..1])?,
        }),
        Variant::Xdp | Variant::Userspace => {
            let (mode, interfaces) = match variant {
                Variant::Xdp => ("native", NEAR[..1].to_vec()),
                _ => ("off", Vec::new()),
            };
            let secondary = Ipv4Addr::from_bits(PRIMARY.to_bits() + 1);
            let addresses = [PRIMARY, secondary].map(|address| address.to_string());
            let interfaces = interfaces.into_iter().map(str::to_owned);
            // There are few sources for so many solicitations, and they must not be limited.
            let config = Config::new()
                .set("server.ipv4", addresses.to_vec())
                .set("server.rate", UNLIMITED)
                .set("server.burst", AT_ONCE)
                .set("server.network-rate", UNLIMITED)
                .set("server.network-burst", AT_ONCE)
                .set("server.total-rate", UNLIMITED)
                .set("server.xdp.mode", mode)
                .set("server.xdp.interfaces", interfaces.collect::<Vec<_>>());
            let teredo = Teredo::start(&site.near, &config)?;
            let attached = teredo.status()?.xdp;
            ensure!(
                variant == Variant::Userspace
                    || attached
                        .iter()
                        .all(|interface| interface.mode == Mode::Native),
                "its XDP program is not attached in native mode: {attached:?}"
            );
            Ok(Work::Teredo(teredo))
        }
        Variant::Miredo => Ok(Work::Miredo {
            _server: miredo::Server::start(&site.near, PRIMARY)?,
        }),
    }
}
