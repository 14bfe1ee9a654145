//! Forged Teredo clients, their servers and their native host.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use teredo_lab::{
    Namespace,
    frames::{Stations, datagram},
    peers::{bubble, is_bubble},
};
use teredo_lab_ebpf::{client, host, index};

use super::{
    cases::{Case, Direction, Hosts, Order, Place},
    ends::Ends,
    frames::{Datagram, HOST, Inner, data},
    site::{Site, first_host},
};

/// Octets of the packets sent here: not a measured size, so that the sink passes them; odd, to test
/// the checksums.
pub const SIZE: u16 = 65;
/// Number of clients that wait for a packet at a time.
const WINDOW: usize = 256;
/// Silence after which missing packets are sent again.
pub const SILENCE: Duration = Duration::from_millis(250);
/// Longest time for one window: a relay repeats a bubble after two or three seconds.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The machines at the far ends of a relay's two cables.
///
/// The clients have no NAT: they answer a bubble that the relay sends through their server from
/// their mapped address. Frames are not read in the background, so this is for the time between
/// measurements.
#[derive(Debug)]
pub struct Clients {
    ends: Ends,
    /// Addresses of frames to the relay by either cable.
    stations: [Stations; 2],
    /// Number of clients, the first ones, that have all been heard, and since when.
    fresh: Option<(Instant, u32)>,
}

impl Clients {
    /// Opens packet sockets at the far ends of the cables.
    ///
    /// # Errors
    ///
    /// Fails when there are no such interfaces.
    pub fn open(
        namespace: &Namespace,
        ipv4: Stations,
        ipv6: Stations,
        tag: Option<u16>,
    ) -> Result<Self> {
        Ok(Self {
            ends: Ends::open(namespace, tag)?,
            stations: [ipv4, ipv6],
            fresh: None,
        })
    }

    /// Makes the first `count` clients known to the relay, each heard within the last `age` before
    /// now: a packet from the native host goes to each and a packet of each goes to the native
    /// host. All must arrive, with the right addresses and checksums.
    ///
    /// # Errors
    ///
    /// Fails when a packet does not arrive, or is damaged.
    pub fn acquaint(&mut self, count: u32, age: Duration) -> Result<()> {
        match self.fresh {
            Some((since, known)) if known >= count && since.elapsed() < age => return Ok(()),
            _ => {}
        }
        let since = Instant::now();
        self.introduce(count)?;
        self.fresh = Some((since, count));
        Ok(())
    }

    fn introduce(&self, count: u32) -> Result<()> {
        self.ends.drain()?;
        for first in (0..count).step_by(WINDOW) {
            let window: BTreeSet<u32> = (first..count).take(WINDOW).collect();
            self.deliver(Direction::Encap, count, window.clone())?;
            self.deliver(Direction::Decap, count, window)?;
        }
        // The last ones may still have to prove that they are at their mappings.
        while self.ends.wait(SILENCE)? {
            while let Some(frame) = self.ends.next(0)? {
                self.at_ipv4(&frame, count)?;
            }
            while self.ends.next(1)?.is_some() {}
        }
        Ok(())
    }

    /// Checks `frames` packets of [`SIZE`] that `send` sends through the relay by a generator.
    ///
    /// # Errors
    ///
    /// Fails when a packet does not arrive or is damaged.
    pub fn prove(
        &mut self,
        case: Case,
        frames: u32,
        send: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        self.ends.drain()?;
        send()?;
        let exit = 1 - Site::entry(case.direction);
        let mut arrived = BTreeMap::new();
        let mut count = 0;
        while count < frames && self.ends.wait(SILENCE)? {
            while self.ends.next(1 - exit)?.is_some() {}
            while let Some(frame) = self.ends.next(exit)? {
                let number = match case.direction {
                    Direction::Encap | Direction::Both => self.at_ipv4(&frame, case.clients)?,
                    Direction::Decap => at_ipv6(&frame, case.clients, case.hosts)?,
                };
                if let Some(number) = number {
                    *arrived.entry(number).or_insert(0) += 1;
                    count += 1;
                }
            }
        }
        // In another order than the rotation, some clients have several of these packets.
        let clients = match case.order {
            Order::Rotation => frames.min(case.clients),
            _ => arrived.len() as u32,
        };
        ensure!(
            count == frames && arrived.len() == clients as usize,
            "of {frames} generated packets of {clients} clients {count} of {} arrived",
            arrived.len()
        );
        Ok(())
    }

    /// Sends a packet between the native host and each of some clients until all have arrived.
    fn deliver(&self, direction: Direction, count: u32, mut missing: BTreeSet<u32>) -> Result<()> {
        let entry = Site::entry(direction);
        let start = Instant::now();
        while !missing.is_empty() {
            if start.elapsed() > PATIENCE {
                bail!(
                    "{}: packets of {} clients do not arrive within {PATIENCE:?}",
                    direction.word(),
                    missing.len()
                );
            }
            for &number in &missing {
                let frame = data(self.stations[entry], direction, number, HOST, SIZE)?;
                self.ends.send(entry, &frame)?;
            }
            while !missing.is_empty() && self.ends.wait(SILENCE)? {
                while let Some(frame) = self.ends.next(0)? {
                    if let Some(number) = self.at_ipv4(&frame, count)?
                        && direction == Direction::Encap
                    {
                        missing.remove(&number);
                    }
                }
                while let Some(frame) = self.ends.next(1)? {
                    if let Some(number) = at_ipv6(&frame, count, Hosts::ONE)?
                        && direction == Direction::Decap
                    {
                        missing.remove(&number);
                    }
                }
            }
        }
        Ok(())
    }

    /// Handles a frame as servers and clients do. Answers a bubble; returns the client that
    /// received a packet.
    fn at_ipv4(&self, frame: &[u8], count: u32) -> Result<Option<u32>> {
        let Some(datagram) = Datagram::parse(frame)? else {
            return Ok(None);
        };
        if is_bubble(datagram.payload) {
            self.answer(&datagram, count)?;
            return Ok(None);
        }
        let Some(inner) = Inner::parse(datagram.payload)? else {
            return Ok(None);
        };
        let number = index(datagram.destination, count);
        if let Some(number) = number {
            let expected = client(number).encode();
            ensure!(
                inner.destination == expected.octets(),
                "a packet for {} came to {expected}",
                Ipv6Addr::from(inner.destination)
            );
        }
        Ok(number)
    }

    /// The client answers a bubble that has come through its server, or the question that came to
    /// its mapping.
    fn answer(&self, asks: &Datagram<'_>, count: u32) -> Result<()> {
        let mut addresses = [[0; 16]; 2];
        for (address, octets) in addresses.iter_mut().zip(asks.payload[8..40].chunks(16)) {
            address.copy_from_slice(octets);
        }
        let [relay, asked] = addresses.map(Ipv6Addr::from);
        let mapped = teredo_common::address::embedded_mapping(&asked.octets());
        let Some(number) = index(mapped, count) else {
            return Ok(());
        };
        let client = client(number);
        ensure!(
            client.encode() == asked
                && (client.server == asks.destination.ip() || client.mapped == asks.destination),
            "a bubble for {asked} went to {}",
            asks.destination
        );
        let answer = bubble(asked, relay);
        let frame = datagram(self.stations[0], client.mapped, asks.source, &answer)?;
        self.ends.send(0, &frame)
    }
}

/// The client whose packet has reached one of the native hosts.
fn at_ipv6(frame: &[u8], count: u32, hosts: Hosts) -> Result<Option<u32>> {
    let Some(inner) = Inner::parse_frame(frame)? else {
        return Ok(None);
    };
    let first = first_host(hosts.place);
    let is_scattered = hosts.place == Place::Scattered;
    let is_reached = match hosts.count {
        1 => inner.destination == first.octets(),
        // Their order is the generator's, so that few packets go to the first ones.
        count => {
            (0..count).any(|number| host(first, number, is_scattered).octets() == inner.destination)
        }
    };
    if !is_reached {
        return Ok(None);
    }
    let number = index(
        teredo_common::address::embedded_mapping(&inner.source),
        count,
    );
    if let Some(number) = number {
        let expected = client(number).encode();
        ensure!(
            inner.source == expected.octets(),
            "a packet of {expected} came from {}",
            Ipv6Addr::from(inner.source)
        );
    }
    Ok(number)
}
