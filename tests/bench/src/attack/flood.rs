//! The attacks, and their generator.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use teredo_common::{address::Endpoint, wire::ETHERTYPE_IPV6};
use teredo_lab::{
    flood::Flood,
    frames::{Stations, datagram, ethernet},
    peers::{bubble, teredo_address, udp_packet},
    programs::Generator,
    qualification::{CLIENT, nonce_only, solicitation},
};
use teredo_lab_ebpf::spray::{FRAME, Kind, Spray, Template};

use super::target::SERVER;
use crate::{cases::Direction, frames::RELAY, site::Site};

/// The packets of an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Packets {
    /// Octets without a meaning, to the relay.
    Garbage,
    /// Router solicitations with a nonce, to the server.
    Solicitations,
    /// Router solicitations of a client with a key, to the server.
    Authentication,
    /// Bubbles to the relay that answer none.
    Bubbles,
    /// Packets of native hosts to clients that do not exist.
    Native,
    /// Fragments to the relay of which the first never comes.
    Fragments,
    /// All of these in turn.
    Everything,
}

impl Packets {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Garbage,
        Self::Solicitations,
        Self::Authentication,
        Self::Bubbles,
        Self::Native,
        Self::Fragments,
        Self::Everything,
    ];

    /// The name, on the command line and in tables.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Garbage => "garbage",
            Self::Solicitations => "solicitations",
            Self::Authentication => "authentication",
            Self::Bubbles => "bubbles",
            Self::Native => "native",
            Self::Fragments => "fragments",
            Self::Everything => "everything",
        }
    }
}

impl FromStr for Packets {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|kind| kind.word() == text);
        found.with_context(|| format!("there is no attack called \"{text}\""))
    }
}

/// The sources of an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sources {
    /// One address.
    One,
    /// A subscriber's network: an IPv4 /24, or a /64.
    Subnet,
    /// A site's network: an IPv4 /16, or a /48.
    Site,
    /// A provider's network: an IPv4 /8, or a /32.
    Provider,
    /// All over the address space.
    All,
}

impl Sources {
    /// Every choice.
    pub const ALL: [Self; 5] = [
        Self::One,
        Self::Subnet,
        Self::Site,
        Self::Provider,
        Self::All,
    ];

    /// The name, on the command line and in tables.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Subnet => "subnet",
            Self::Site => "site",
            Self::Provider => "provider",
            Self::All => "all",
        }
    }

    /// The varying bits of an IPv4 source.
    const fn ipv4(self) -> [u8; 8] {
        let [a, b, c, d] = match self {
            Self::One => [0; 4],
            Self::Subnet => [0, 0, 0, 0xff],
            Self::Site => [0, 0, 0xff, 0xff],
            Self::Provider => [0, 0xff, 0xff, 0xff],
            Self::All => [0x3f, 0xff, 0xff, 0xff],
        };
        [a, b, c, d, 0, 0, 0, 0]
    }

    /// The varying bits of the upper half of an IPv6 source.
    const fn ipv6(self) -> [u8; 8] {
        let bits: u64 = match self {
            Self::One | Self::Subnet => 0,
            Self::Site => 0xffff,
            Self::Provider => 0xffff_ffff,
            Self::All => 0x07ff_ffff_ffff_ffff,
        };
        bits.to_be_bytes()
    }
}

impl FromStr for Sources {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|kind| kind.word() == text);
        found.with_context(|| format!("there are no sources called \"{text}\""))
    }
}

/// An attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Attack {
    /// Its packets.
    pub packets: Packets,
    /// Their sources.
    pub sources: Sources,
}

/// The first source over IPv4.
const ATTACKER: Endpoint = Endpoint::new(Ipv4Addr::new(64, 1, 1, 1), 40_000);
/// The first source over IPv6.
const NATIVE: Ipv6Addr = Ipv6Addr::new(0x2800, 0xdb8, 1, 1, 0, 0, 0, 1);
/// The first of the servers of clients that do not exist.
const SERVERS: Ipv4Addr = Ipv4Addr::new(20, 32, 0, 1);
/// Varying bits of those servers: a million of them.
const SERVER_BITS: u32 = 0x000f_ffff;
/// Octets of garbage.
const GARBAGE: usize = 60;
/// "More fragments" is clear; the offset is 64 octets.
const FRAGMENT: [u8; 2] = [0, 8];

impl Attack {
    fn templates(self, site: &Site) -> Result<Vec<Template>> {
        let kinds = match self.packets {
            Packets::Everything => &Packets::ALL[..Packets::ALL.len() - 1],
            _ => &[self.packets],
        };
        kinds
            .iter()
            .map(|kind| self.template(*kind, site))
            .collect()
    }

    fn template(self, packets: Packets, site: &Site) -> Result<Template> {
        let ipv4 = self.sources.ipv4();
        let [v4, v6] = site.far_interfaces.map(|interface| interface.index);
        let stations = site.stations(Direction::Decap);
        let to_relay = |payload: &[u8]| forged(stations, RELAY, payload);
        let server = Endpoint::new(SERVER[0], teredo_common::wire::SERVER_PORT);
        let frame = match packets {
            Packets::Garbage => {
                let payload: Vec<u8> = (0..GARBAGE).map(|at| (at * at / 3 + 17) as u8).collect();
                to_relay(&payload)?
            }
            Packets::Solicitations => {
                let mut payload = nonce_only(*b"forgery!");
                payload.extend(solicitation(CLIENT));
                forged(stations, server, &payload)?
            }
            Packets::Authentication => {
                let mut payload = vec![0, 1, 4, 0];
                payload.extend(b"name");
                payload.extend(b"forgery!\0");
                payload.extend(solicitation(CLIENT));
                forged(stations, server, &payload)?
            }
            Packets::Bubbles => {
                let claimed = teredo_address(SERVERS, ATTACKER.into());
                let frame = to_relay(&bubble(claimed, CLIENT))?;
                return Ok(Template::new(Kind::Bubble, v4, &frame, ipv4, 0));
            }
            Packets::Fragments => {
                let mut frame = to_relay(&[0xa5; GARBAGE])?;
                frame[20..22].copy_from_slice(&FRAGMENT);
                return Ok(Template::new(Kind::Fragment, v4, &frame, ipv4, 0));
            }
            Packets::Native => {
                let mapped = std::net::SocketAddrV4::new(Ipv4Addr::new(191, 255, 0, 1), 4096);
                let client = teredo_address(SERVERS, mapped);
                let packet = udp_packet((NATIVE, 4000), (client, 4000), 64, &[0; 16])?;
                let frame = ethernet(site.stations(Direction::Encap), ETHERTYPE_IPV6, &packet);
                let sources = self.sources.ipv6();
                return Ok(Template::new(
                    Kind::Native,
                    v6,
                    &frame,
                    sources,
                    SERVER_BITS,
                ));
            }
            Packets::Everything => bail!("everything is no kind of packet"),
        };
        Ok(Template::new(Kind::Datagram, v4, &frame, ipv4, 0))
    }
}

/// A datagram from the first source without a checksum.
fn forged(stations: Stations, to: Endpoint, payload: &[u8]) -> Result<Vec<u8>> {
    let mut frame = datagram(stations, ATTACKER, to, payload)?;
    frame[40..42].fill(0);
    anyhow::ensure!(frame.len() <= FRAME, "{} octets are too many", frame.len());
    Ok(frame)
}

/// Starts a flood of `rate` packets per second; the generator may be slower.
///
/// # Errors
///
/// Fails when the generator cannot be loaded.
pub fn start(site: &Site, attack: Attack, rate: u32) -> Result<Flood> {
    let interval = 1_000_000_000 / rate.max(1);
    let spray = Spray::new(random_seed(), interval, &attack.templates(site)?);
    let spray = spray.context("an attack has templates")?;
    Flood::start(&site.far, Generator::spray(&spray)?)
}

/// A number that no earlier flood has started with, so that its clients are new.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0)
}
