//! Forged Teredo clients, their servers and the native host that they talk to.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::Ipv6Addr,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{MsgFlags, send},
};
use teredo_common::wire::SERVER_PORT;
use teredo_lab_ebpf::{client, index};

use super::{
    cases::{Case, Direction},
    frames::{Datagram, HOST, Inner, Stations, data, datagram},
    site::{FAR, Site},
};
use crate::lab::{
    Namespace,
    capture::{listen, receive},
    peers::{bubble, is_bubble},
};

/// Octets of the packets sent here: not a measured size, so that the sink passes them; odd, for the
/// checksums' sake.
pub const SIZE: u16 = 65;
/// How many clients wait for a packet at a time.
const WINDOW: usize = 256;
/// After which silence what has not arrived is sent again.
const SILENCE: Duration = Duration::from_millis(250);
/// How long one window may take: a relay repeats a bubble after two or three seconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest frame that matters here, in octets.
const LONGEST: usize = 2048;

/// Everybody at the far end of a relay's two cables.
///
/// The clients have no NAT: they answer a bubble that the relay sends through their server from
/// their mapped address. Nothing is read in the background, so this is for the time between
/// measurements.
#[derive(Debug)]
pub struct Clients {
    /// At the far ends, as in [`FAR`].
    sockets: [OwnedFd; 2],
    /// Of frames to the relay by either cable.
    stations: [Stations; 2],
    /// Since when so many clients, the first ones, have all been heard.
    fresh: Option<(Instant, u32)>,
}

impl Clients {
    /// Opens packet sockets at the far ends of the cables.
    ///
    /// # Errors
    ///
    /// When there are no such interfaces.
    pub fn open(namespace: &Namespace, ipv4: Stations, ipv6: Stations) -> Result<Self> {
        let sockets = namespace.run(|| anyhow::Ok([listen(FAR[0])?, listen(FAR[1])?]))??;
        Ok(Self {
            sockets,
            stations: [ipv4, ipv6],
            fresh: None,
        })
    }

    /// Makes the relay know the first `count` clients, and hear of each within the last
    /// `age` before now: a packet from the native host goes to each and a packet of each goes to
    /// the native host. Every one has to arrive, with the right addresses and checksums.
    ///
    /// # Errors
    ///
    /// When something does not arrive, or is damaged.
    pub fn acquaint(&mut self, count: u32, age: Duration) -> Result<()> {
        match self.fresh {
            Some((since, known)) if known >= count && since.elapsed() < age => return Ok(()),
            _ => {}
        }
        self.drain()?;
        let since = Instant::now();
        for first in (0..count).step_by(WINDOW) {
            let window: BTreeSet<u32> = (first..count).take(WINDOW).collect();
            self.deliver(Direction::Encap, count, window.clone())?;
            self.deliver(Direction::Decap, count, window)?;
        }
        self.fresh = Some((since, count));
        Ok(())
    }

    /// Looks at `frames` packets of [`SIZE`] that `send` sends through the relay by a generator.
    ///
    /// # Errors
    ///
    /// When one does not arrive or is damaged.
    pub fn prove(
        &mut self,
        case: Case,
        frames: u32,
        send: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        self.drain()?;
        send()?;
        let exit = 1 - Site::entry(case.direction);
        let mut arrived = BTreeMap::new();
        let mut count = 0;
        while count < frames && self.wait(SILENCE)? {
            while self.next(1 - exit)?.is_some() {}
            while let Some(frame) = self.next(exit)? {
                let number = match case.direction {
                    Direction::Encap => self.at_ipv4(&frame, case.clients)?,
                    Direction::Decap => at_ipv6(&frame, case.clients)?,
                };
                if let Some(number) = number {
                    *arrived.entry(number).or_insert(0) += 1;
                    count += 1;
                }
            }
        }
        let clients = frames.min(case.clients);
        ensure!(
            count == frames && arrived.len() == clients as usize,
            "of {frames} generated packets of {clients} clients {count} of {} arrived",
            arrived.len()
        );
        Ok(())
    }

    /// Sends a packet between the native host and each of some clients until all have arrived.
    fn deliver(
        &mut self,
        direction: Direction,
        count: u32,
        mut missing: BTreeSet<u32>,
    ) -> Result<()> {
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
                let frame = data(self.stations[entry], direction, number, SIZE)?;
                self.send(entry, &frame)?;
            }
            while !missing.is_empty() && self.wait(SILENCE)? {
                while let Some(frame) = self.next(0)? {
                    if let Some(number) = self.at_ipv4(&frame, count)?
                        && direction == Direction::Encap
                    {
                        missing.remove(&number);
                    }
                }
                while let Some(frame) = self.next(1)? {
                    if let Some(number) = at_ipv6(&frame, count)?
                        && direction == Direction::Decap
                    {
                        missing.remove(&number);
                    }
                }
            }
        }
        Ok(())
    }

    /// What servers and clients make of a frame. Answers a bubble; tells which client has got a
    /// packet.
    fn at_ipv4(&self, frame: &[u8], count: u32) -> Result<Option<u32>> {
        let Some(datagram) = Datagram::parse(frame)? else {
            return Ok(None);
        };
        if is_bubble(datagram.payload) {
            if datagram.destination.port() == SERVER_PORT {
                self.answer(&datagram, count)?;
            }
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

    /// The client answers a bubble that has come by its server.
    fn answer(&self, indirect: &Datagram<'_>, count: u32) -> Result<()> {
        let mut addresses = [[0; 16]; 2];
        for (address, octets) in addresses.iter_mut().zip(indirect.payload[8..40].chunks(16)) {
            address.copy_from_slice(octets);
        }
        let [relay, asked] = addresses.map(Ipv6Addr::from);
        let mapped = teredo_common::address::embedded_mapping(&asked.octets());
        let Some(number) = index(mapped, count) else {
            return Ok(());
        };
        let client = client(number);
        ensure!(
            client.encode() == asked && client.server == indirect.destination.ip(),
            "a bubble for {asked} went to the server {}",
            indirect.destination
        );
        let answer = bubble(asked, relay);
        let frame = datagram(self.stations[0], client.mapped, indirect.source, &answer)?;
        self.send(0, &frame)
    }

    /// Forgets what has arrived in measurements, when nobody reads.
    fn drain(&self) -> Result<()> {
        for cable in 0..FAR.len() {
            while self.next(cable)?.is_some() {}
        }
        Ok(())
    }

    fn send(&self, cable: usize, frame: &[u8]) -> Result<()> {
        loop {
            match send(self.sockets[cable].as_raw_fd(), frame, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR) => {
                    let mut ready = [PollFd::new(self.sockets[cable].as_fd(), PollFlags::POLLOUT)];
                    poll(&mut ready, PollTimeout::from(10_u8))?;
                }
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }

    /// Whether something arrives before `timeout`.
    fn wait(&self, timeout: Duration) -> Result<bool> {
        let mut ready = self
            .sockets
            .each_ref()
            .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN));
        Ok(poll(&mut ready, PollTimeout::try_from(timeout)?)? > 0)
    }

    /// The next frame that has arrived by a cable.
    fn next(&self, cable: usize) -> Result<Option<Vec<u8>>> {
        let mut buffer = [0; LONGEST];
        loop {
            match receive(&self.sockets[cable], &mut buffer)? {
                // Ours, on its way out.
                Some((_, true)) => {}
                Some((length, false)) => return Ok(Some(buffer[..length].to_vec())),
                None => return Ok(None),
            }
        }
    }
}

/// Whose packet has reached the native host.
fn at_ipv6(frame: &[u8], count: u32) -> Result<Option<u32>> {
    let Some(inner) = Inner::parse_frame(frame)? else {
        return Ok(None);
    };
    if inner.destination != HOST.octets() {
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
