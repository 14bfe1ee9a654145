//! The time that the program takes for rare frames, relative to usual ones of the same direction in the same run.

use anyhow::{Context as _, Result, bail};
use aya::programs::ProgramFd;
use nix::net::if_::if_nametoindex;
use teredo_common::{
    vlan::Tags,
    wire::{DESTINATION_OPTIONS, ESP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, UDP},
};
use teredo_lab::{
    fixture::{Fixture, HOST, LAN, ROUTER, Setup, WAN, relay},
    packet::{address, datagram, endpoint, ethernet, ipv6, udp},
    programs::Again,
};

use super::time::{ROUNDS, Time};
use crate::{cases::Direction, report::Spread};

/// Runs in each measurement.
const RUNS: u32 = 1_000_000;
/// Octets of the payload: longer than the shortest frame of [`Again`].
const PAYLOAD: [u8; 66] = [7; 66];
/// The client, its mapped endpoint, and the native host.
const CLIENT: (&str, &str) = ("2001:0:102:304:0:efff:f6ff:fffe", "9.0.0.1:4096");
const NATIVE: &str = "2000::b";
/// Octets in front of tags.
const ADDRESSES: usize = 12;
/// The VLANs of the interfaces of IPv4 and of IPv6, and that which both are within if there are two tags.
const VLANS: [u16; 2] = [10, 20];
const SERVICE: u16 = 100;

/// A kind of frames, on a host of its own.
struct Kind {
    name: &'static str,
    direction: Direction,
    fixture: Fixture,
    interface: u32,
    program: ProgramFd,
    runs: Again,
}

/// Measures all kinds of rare frames.
///
/// # Errors
///
/// Fails without root, when the kernel refuses a program, or when the program does not forward a frame.
pub fn measure() -> Result<Vec<Time>> {
    let mut kinds = kinds()?;
    let mut ratios = vec![Vec::new(); kinds.len()];
    for _ in 0..ROUNDS {
        let times = kinds.iter_mut().map(Kind::run);
        let times = times.collect::<Result<Vec<_>>>()?;
        for ((kind, time), ratios) in kinds.iter().zip(&times).zip(&mut ratios) {
            // The first kind of a direction is the usual one.
            let usual = kinds.iter().position(|one| one.direction == kind.direction);
            ratios.push(time / times[usual.context("no usual frame")?]);
        }
    }
    let spreads = kinds.iter().zip(ratios).filter_map(|(kind, ratios)| {
        let ratio = Spread::of(ratios)?;
        let name = format!("{}{}", kind.direction.word(), kind.name);
        Some(Time { name, ratio })
    });
    Ok(spreads.collect())
}

/// All kinds; of each direction, usual frames first.
fn kinds() -> Result<Vec<Kind>> {
    let none = Tags::NONE;
    let within =
        |outer: Option<Tags>| VLANS.map(|number| outer.and_then(|tags| tags.and(false, number)));
    let [Some(client_side), Some(native_side)] = within(Some(none)) else {
        bail!("no numbers of VLANs");
    };
    let [Some(client_twice), Some(native_twice)] = within(none.and(true, SERVICE)) else {
        bail!("no numbers of VLANs");
    };
    let (client, native) = (address(CLIENT.0), address(NATIVE));
    let esp = |octets: usize| from_client(&ipv6(client, native, ESP, &vec![7; octets]));
    let (outward, inward) = (udp(client, native, &PAYLOAD), udp(native, client, &PAYLOAD));
    let options = [UDP, 0, 1, 4, 0, 0, 0, 0];
    let options = [&options, &inward[40..]].concat();
    let options = to_client(&ipv6(native, client, DESTINATION_OPTIONS, &options));
    let (outward, inward) = (from_client(&outward), to_client(&inward));
    let decap = |name, tags, frame: &[u8]| Kind::new(name, Direction::Decap, tags, frame);
    let encap = |name, tags, frame: &[u8]| Kind::new(name, Direction::Encap, tags, frame);
    Ok(vec![
        decap("", [none, none], &outward)?,
        decap(", VLAN in", [client_side, none], &outward)?,
        decap(", VLAN out", [none, native_side], &outward)?,
        decap(", VLAN both ways", [client_side, native_side], &outward)?,
        decap(", QinQ both ways", [client_twice, native_twice], &outward)?,
        decap(", ESP, 64 octets", [none, none], &esp(64))?,
        decap(", ESP, 1240 octets", [none, none], &esp(1240))?,
        encap("", [none, none], &inward)?,
        encap(", VLAN in", [none, native_side], &inward)?,
        encap(", VLAN out", [client_side, none], &inward)?,
        encap(", VLAN both ways", [client_side, native_side], &inward)?,
        encap(", destination options", [none, none], &options)?,
    ])
}

impl Kind {
    /// Makes a host whose interfaces of IPv4 and of IPv6 have these tags, for a frame without tags.
    fn new(
        name: &'static str,
        direction: Direction,
        tags: [Tags; 2],
        frame: &[u8],
    ) -> Result<Self> {
        let setup = Setup {
            tags,
            ..Setup::default()
        };
        let mut fixture = Fixture::new(&setup)?;
        let [ipv4, ipv6] = tags;
        let (arrival, plain) = match direction {
            Direction::Encap => (ipv6, "lan"),
            _ => (ipv4, "wan"),
        };
        let interface = if arrival == Tags::NONE {
            plain
        } else {
            "other"
        };
        let interface = fixture.namespace.run(|| if_nametoindex(interface))??;
        let program = fixture.program.xdp()?.fd()?.try_clone()?;
        let (addresses, rest) = frame.split_at(ADDRESSES);
        let Tags(words) = arrival;
        let octets = words.map(u32::to_ne_bytes).concat();
        let frame = [addresses, &octets[..arrival.octets()], rest].concat();
        Ok(Self {
            name,
            direction,
            fixture,
            interface,
            program,
            runs: Again::load(frame)?,
        })
    }

    /// Returns the nanoseconds of one frame.
    fn run(&mut self) -> Result<f64> {
        // A peer counts as silent after a while.
        self.fixture.trust(address(CLIENT.0), endpoint(CLIENT.1))?;
        let (interface, program) = (self.interface, &self.program);
        self.runs
            .run(&self.fixture.namespace, interface, program, RUNS)
            .with_context(|| format!("{}{}", self.direction.word(), self.name))
    }
}

fn from_client(packet: &[u8]) -> Vec<u8> {
    let datagram = datagram(endpoint(CLIENT.1), relay(), 7, packet);
    ethernet(WAN, ROUTER, ETHERTYPE_IPV4, &datagram)
}

fn to_client(packet: &[u8]) -> Vec<u8> {
    ethernet(LAN, HOST, ETHERTYPE_IPV6, packet)
}
