//! The life of the honest.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use teredo_lab::{
    frames::{Stations, datagram},
    peers::{bubble, is_bubble},
};
use teredo_lab_ebpf::sift::SIZE;

use super::people::{Client, Newcomer};
use crate::{cases::Direction, ends::Ends, frames::Datagram, site::Site};

/// Number of trusted clients.
const TRUSTED: u32 = 50;
/// Time between the groups of packets of trusted clients.
const TICK: Duration = Duration::from_millis(5);
/// Packets of trusted clients in each direction in each group.
const GROUP: u32 = 5;
/// Octets of the first packets to clients.
const FIRST: usize = SIZE + 1;
/// Seconds after which a host tries again: as TCP does.
const TRIES: [u64; 4] = [0, 1, 3, 7];
/// Time after the last try in which its packet may arrive.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Time over which the first tries of newcomers are spread.
const ARRIVALS: Duration = Duration::from_millis(1500);
/// Time in which packets that are on their way arrive.
const FLIGHT: Duration = Duration::from_millis(150);
/// Longest wait for a frame.
const NAP: Duration = Duration::from_millis(1);

/// Something that an honest machine does later.
#[derive(Debug)]
enum Action {
    /// The host of this client sends its first packet, or repeats it.
    Try(usize),
    /// A frame of a client.
    Send(Vec<u8>),
}

/// A client, and what has become of it.
#[derive(Debug)]
struct Known {
    client: Client,
    since: Option<Instant>,
    arrived: Option<Instant>,
}

/// All honest machines.
#[derive(Debug)]
pub struct Honest {
    ends: Ends,
    /// Addresses of frames to the relay by either cable.
    stations: [Stations; 2],
    people: Vec<Known>,
    numbers: HashMap<Ipv6Addr, usize>,
    /// The first of the newest newcomers.
    first: usize,
    actions: BTreeMap<(Instant, u64), Action>,
    scheduled: u64,
    /// Frames of trusted clients, in both directions, and the next group of them.
    frames: Vec<[Vec<u8>; 2]>,
    turn: usize,
    tick: Instant,
    sent: u64,
}

impl Honest {
    /// Makes the trusted clients known to the relay.
    ///
    /// # Errors
    ///
    /// Fails when a client gets no packet.
    pub fn new(site: &Site) -> Result<Self> {
        let stations = [Direction::Decap, Direction::Encap].map(|way| site.stations(way));
        let mut honest = Self {
            ends: Ends::open(&site.far, None)?,
            stations,
            people: Vec::new(),
            numbers: HashMap::new(),
            first: 0,
            actions: BTreeMap::new(),
            scheduled: 0,
            frames: Vec::new(),
            turn: 0,
            tick: Instant::now(),
            sent: 0,
        };
        honest.invite((0..TRUSTED).map(Client::trusted));
        honest.live_until(Self::have_met)?;
        let met = honest.people.iter();
        let missing = met.filter(|known| known.arrived.is_none()).count();
        ensure!(
            missing == 0,
            "{missing} clients get no packets without an attack"
        );
        for number in 0..TRUSTED {
            let client = Client::trusted(number);
            honest.frames.push([
                client.outbound(stations[0], SIZE)?,
                client.inbound(stations[1], SIZE)?,
            ]);
        }
        Ok(honest)
    }

    /// Number of packets that trusted clients and their host have sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Lets hosts contact `count` clients whom the relay does not know.
    pub fn meet(&mut self, count: u32) {
        let before = self.people.len() as u32 - TRUSTED;
        self.invite((before..before + count).map(Client::newcomer));
    }

    fn invite(&mut self, clients: impl ExactSizeIterator<Item = Client>) {
        let now = Instant::now();
        let gap = ARRIVALS / (clients.len() as u32).max(1);
        self.first = self.people.len();
        for (order, client) in clients.enumerate() {
            let number = self.people.len();
            self.numbers.insert(client.address(), number);
            self.people.push(Known {
                client,
                since: None,
                arrived: None,
            });
            for seconds in TRIES {
                let at = now + gap * order as u32 + Duration::from_secs(seconds);
                self.schedule(at, Action::Try(number));
            }
        }
    }

    /// Whether every newcomer has got a packet or given up.
    #[must_use]
    pub fn have_met(&self) -> bool {
        let last = Duration::from_secs(TRIES[TRIES.len() - 1]) + PATIENCE;
        self.people[self.first..].iter().all(|known| {
            known.arrived.is_some() || known.since.is_some_and(|since| since.elapsed() > last)
        })
    }

    /// The newest newcomers.
    #[must_use]
    pub fn newcomers(&self) -> Vec<Newcomer> {
        let newest = self.people[self.first..].iter();
        newest
            .map(|known| Newcomer {
                round_trip: known.client.round_trip.as_millis() as u64,
                is_server_known: known.client.is_server_known(),
                seconds: match (known.since, known.arrived) {
                    (Some(since), Some(arrived)) => Some((arrived - since).as_secs_f64()),
                    _ => None,
                },
            })
            .collect()
    }

    /// Lets everybody live until the condition is true.
    ///
    /// # Errors
    ///
    /// Fails when a datagram is damaged, or a socket fails.
    pub fn live_until(&mut self, condition: impl Fn(&Self) -> bool) -> Result<()> {
        self.tick = Instant::now();
        while !condition(self) {
            self.talk()?;
            self.act()?;
            self.receive()?;
        }
        Ok(())
    }

    /// Lets the packets that are on their way arrive, while trusted clients are silent.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::live_until`].
    pub fn settle(&mut self) -> Result<()> {
        let end = Instant::now() + FLIGHT;
        while Instant::now() < end {
            self.act()?;
            self.receive()?;
        }
        Ok(())
    }

    fn schedule(&mut self, at: Instant, action: Action) {
        self.scheduled += 1;
        self.actions.insert((at, self.scheduled), action);
    }

    /// Sends the packets of trusted clients that are due.
    fn talk(&mut self) -> Result<()> {
        if self.frames.is_empty() || Instant::now() < self.tick {
            return Ok(());
        }
        for _ in 0..GROUP {
            let frames = &self.frames[self.turn];
            for (cable, frame) in frames.iter().enumerate() {
                self.ends.try_send(cable, frame)?;
                self.sent += 1;
            }
            self.turn = (self.turn + 1) % self.frames.len();
        }
        self.tick = (self.tick + TICK).max(Instant::now() - 4 * TICK);
        Ok(())
    }

    /// Does what is due.
    fn act(&mut self) -> Result<()> {
        let now = Instant::now();
        while let Some(entry) = self.actions.first_entry()
            && entry.key().0 <= now
        {
            match entry.remove() {
                Action::Try(number) => {
                    let known = &mut self.people[number];
                    known.since.get_or_insert(now);
                    if known.arrived.is_none() {
                        let frame = known.client.inbound(self.stations[1], FIRST)?;
                        self.ends.try_send(1, &frame)?;
                    }
                }
                Action::Send(frame) => self.ends.try_send(0, &frame)?,
            }
        }
        Ok(())
    }

    /// Handles the frames that have come.
    fn receive(&mut self) -> Result<()> {
        if !self.ends.wait(NAP)? {
            return Ok(());
        }
        while self.ends.next(1)?.is_some() {}
        while let Some(frame) = self.ends.next(0)? {
            if let Some(datagram) = Datagram::parse(&frame)? {
                self.handle(&datagram)?;
            }
        }
        Ok(())
    }

    /// Handles a datagram as servers and clients do: a bubble is answered, by the way of the server
    /// or directly.
    fn handle(&mut self, datagram: &Datagram<'_>) -> Result<()> {
        let Some(addresses) = datagram.payload.get(8..40) else {
            return Ok(());
        };
        let [from, to] = [0, 16].map(|at| {
            let mut address = [0; 16];
            address.copy_from_slice(&addresses[at..at + 16]);
            Ipv6Addr::from(address)
        });
        let Some(known) = self
            .numbers
            .get(&to)
            .map(|number| &mut self.people[*number])
        else {
            return Ok(());
        };
        let client = known.client;
        if !client.is_at(datagram.destination) {
            return Ok(());
        }
        if is_bubble(datagram.payload) {
            let answer = bubble(to, from);
            let frame = self::datagram(self.stations[0], client.mapped, datagram.source, &answer)?;
            self.schedule(Instant::now() + client.round_trip, Action::Send(frame));
        } else if known.arrived.is_none() {
            known.arrived = Some(Instant::now());
        }
        Ok(())
    }
}
