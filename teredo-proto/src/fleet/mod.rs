//! A fleet: several relays with one IPv4 address, to which routers send packets as they like, and
//! which behave as one (requirements F-01 to F-25).
//!
//! Each relay has a table of all peers of the fleet. What brings trust to one, the cookie that comes
//! back, is told to all others at once; how fresh peers are, in rounds of a few seconds; everything, to
//! a relay that joins. A relay is *in step* when it has everything that the others know, and only
//! then it should draw packets.
//!
//! A [`Fleet`] has no sockets and no clock, as a [`Relay`] has none. Beside each call of a `handle_`
//! function of the relay, call [`Fleet::flush`]; then, after the relay's own output,
//! [`Fleet::poll_transmit`] until it returns `None`, and [`Fleet::poll_timeout`].

mod keys;
mod member;
mod reception;
mod state;
mod statistics;
mod synchronisation;
mod telling;
mod transfer;
mod window;
pub mod wire;

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use rand::{SeedableRng as _, rngs::StdRng};
use teredo_common::time::Instant;

pub use keys::{Keys, MAX_KEYS, SECRET, WrongKeys};
pub use member::{OtherInfo, Refusal};
pub use state::State;
pub use statistics::{DropReason, Statistics};

use crate::{
    relay::{MAX_MEMBERS, Member, Relay},
    shared::{
        keyed::Keyed,
        limiter::{Bucket, Rate},
    },
};
use member::{ALONE, Other};
use telling::News;
use wire::{Header, Heartbeat, Kind, Message, Service};

/// The time between two looks at what is due.
const TICK: Duration = Duration::from_millis(100);
/// The time between two signs of life.
const BEAT: Duration = Duration::from_secs(1);
/// The time between two signs of life of a relay that has not joined yet.
const FAST_BEAT: Duration = Duration::from_millis(200);
/// Bound on datagrams that wait for [`Fleet::poll_transmit`].
const MAX_TRANSMITS: usize = 65_536;

/// The configuration of a relay's part in a fleet; [`Config::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address that this relay sends from and that the others know it by.
    pub address: SocketAddr,
    /// The addresses of the others; more than [`MAX_MEMBERS`] are ignored.
    pub members: Vec<SocketAddr>,
    /// Whether these are all that the fleet has. Otherwise the relay waits for [`Fleet::set_members`] before
    /// it takes itself for alone, or for in step.
    pub is_complete: bool,
    /// The largest difference between the clocks of two relays (F-05).
    pub skew: Duration,
    /// The time in which the whole table is told (F-12).
    pub round: Duration,
    /// Rate of reports about peers that brought back a cookie (F-13).
    pub news_rate: Rate,
    /// Rate of datagrams from each other relay (F-07).
    pub receive_rate: Rate,
    /// Rate of the work for tables that each other relay asks for (F-17): one for a part that is looked at,
    /// eight for a datagram.
    pub serve_rate: Rate,
}

/// The time on two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// The clock that never goes back.
    pub now: Instant,
    /// Time since 1970.
    pub wall: Duration,
}

/// A datagram to another relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The other relay.
    pub to: SocketAddr,
    /// UDP payload.
    pub payload: Vec<u8>,
}

/// A relay's part in a fleet; the [module](self) tells how to use it.
#[derive(Debug)]
pub struct Fleet {
    config: Config,
    keys: Keys,
    random: StdRng,
    /// The run at the start, which is that towards relays that are no members.
    run: u64,
    began: Instant,
    /// Whether all others are known.
    is_complete: bool,
    /// Since when they are.
    completed: Instant,
    others: Vec<Other>,
    /// The number of the member that was added last.
    last_number: usize,
    /// When a relay with the key that is no member was last heard, and its address.
    stranger: Option<(Instant, SocketAddr)>,
    /// Limits the datagrams from addresses of no members that are looked at.
    strangers: Bucket,
    /// The last sequence number towards relays that are no members.
    stranger_sequence: u64,
    /// The latest time that a datagram was sent at, in milliseconds since 1970.
    last_sent: u64,
    news: News,
    news_bucket: Bucket,
    next_news: Instant,
    round_began: Instant,
    /// Slots of the table that this round has told.
    told_slots: usize,
    next_tick: Instant,
    /// Whether the table has everything that there was to have when this relay began.
    is_based: bool,
    is_in_step: bool,
    has_joined: bool,
    transmits: VecDeque<Transmit>,
    statistics: Statistics,
}

impl Config {
    /// Creates the default configuration of a relay at `address`.
    #[must_use]
    pub fn new(address: SocketAddr, members: Vec<SocketAddr>) -> Self {
        Self {
            address,
            members,
            is_complete: true,
            skew: Duration::from_secs(5),
            round: Duration::from_secs(5),
            news_rate: Rate::new(50_000, 50_000),
            // Twice what two relays with a million peers tell each other.
            receive_rate: Rate::new(5_000, 5_000),
            // 5,000 full datagrams a second, or all parts of a table of two million places that has nothing.
            serve_rate: Rate::new(45_000, 9_000),
        }
    }
}

impl Clocks {
    /// Returns the milliseconds since 1970.
    fn milliseconds(self) -> u64 {
        u64::try_from(self.wall.as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns the run that a relay begins.
    fn run(self) -> u64 {
        self.milliseconds().max(1)
    }

    /// Returns the latest run that a relay whose clock differs by `skew` at most may be in.
    fn latest_run(self, skew: Duration) -> u64 {
        let skew = u64::try_from(skew.as_millis()).unwrap_or(u64::MAX);
        self.run().saturating_add(skew)
    }
}

impl Fleet {
    /// Creates the part of a relay that starts. `seed` comes from the operating system's random number
    /// generator.
    #[must_use]
    pub fn new(config: Config, keys: Keys, seed: [u8; 32], clocks: Clocks) -> Self {
        let mut random = StdRng::from_seed(seed);
        let keyed = Keyed::new(&mut random);
        let members = config.members.clone();
        let mut fleet = Self {
            keys,
            random,
            run: clocks.run(),
            began: clocks.now,
            is_complete: config.is_complete,
            completed: clocks.now,
            others: Vec::new(),
            last_number: 0,
            stranger: None,
            strangers: Bucket::default(),
            stranger_sequence: 0,
            last_sent: clocks.milliseconds(),
            news: News::new(keyed),
            news_bucket: Bucket::default(),
            next_news: Instant::ZERO,
            round_began: clocks.now,
            told_slots: 0,
            next_tick: clocks.now,
            is_based: false,
            is_in_step: false,
            has_joined: false,
            transmits: VecDeque::new(),
            statistics: Statistics::default(),
            config,
        };
        fleet.know(clocks, &members);
        fleet
    }

    /// Makes a relay one of this fleet. To be called once, before anything else.
    pub fn enlist(&self, clocks: Clocks, relay: &mut Relay) {
        relay.join_fleet(clocks.now, &self.keys.cookies(), self.config.skew);
        relay.divide_limits_among(self.size());
        relay.set_wall_clock(clocks.now, clocks.wall);
    }

    /// Sets the addresses of all others. What is known of those that stay is kept (F-08), and the limits are
    /// divided anew (F-23).
    pub fn set_members(&mut self, clocks: Clocks, members: &[SocketAddr], relay: &mut Relay) {
        self.know(clocks, members);
        relay.divide_limits_among(self.size());
        if !self.is_complete {
            self.is_complete = true;
            self.completed = clocks.now;
        }
    }

    /// Returns the number of relays, this one among them.
    fn size(&self) -> u32 {
        u32::try_from(self.others.len() + 1).unwrap_or(u32::MAX)
    }

    /// Makes these the others. One that was removed and comes back gets another run: what was recorded of the one before
    /// counts no more.
    fn know(&mut self, clocks: Clocks, members: &[SocketAddr]) {
        let own = self.config.address;
        self.others.retain(|other| members.contains(&other.address));
        for &address in members {
            let is_there = self.others.iter().any(|other| other.address == address);
            let is_free = |&number: &usize| {
                let mut others = self.others.iter();
                others.all(|other| Some(other.member) != Member::other(number))
            };
            // Peers may be counted for the number of one that is gone.
            let mut numbers = (1..=MAX_MEMBERS).map(|next| (self.last_number + next) % MAX_MEMBERS);
            if address != own
                && !is_there
                && let Some(number) = numbers.find(is_free)
                && let Some(member) = Member::other(number)
            {
                self.last_number = number;
                self.others.push(Other::new(address, member, clocks.run()));
            }
        }
    }

    /// Sets the keys, for the cookies of `relay` as well (F-04).
    pub fn set_keys(&mut self, keys: Keys, relay: &mut Relay) {
        relay.share_cookies(&keys.cookies(), self.config.skew);
        self.keys = keys;
    }

    /// Does what is due. Call it at [`Fleet::poll_timeout`]. An earlier call does no harm.
    pub fn handle_timeout(&mut self, clocks: Clocks, relay: &mut Relay) {
        if clocks.now >= self.next_tick {
            self.next_tick = clocks.now + TICK;
            relay.set_wall_clock(clocks.now, clocks.wall);
            self.follow_clock(clocks);
            self.beat(clocks, relay);
            self.tell_round(clocks, relay);
            self.synchronise(clocks);
        }
        self.flush(clocks, relay);
    }

    /// Returns the next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Returns the time at which to call [`Fleet::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let news = (!self.news.is_empty()).then_some(self.next_news);
        let first = news.into_iter().chain(self.news.deadline()).min();
        first.map_or(self.next_tick, |first| first.min(self.next_tick))
    }

    /// Returns `true` if everything that the others know is known here (F-18).
    #[must_use]
    pub const fn is_in_step(&self) -> bool {
        self.is_in_step
    }

    /// Returns `true` once the relay was in step since it started, from when on it may draw packets
    /// (F-19).
    #[must_use]
    pub const fn has_joined(&self) -> bool {
        self.has_joined
    }

    /// Returns the other relays.
    pub fn others(&self, now: Instant) -> impl Iterator<Item = OtherInfo> {
        self.others.iter().map(move |other| other.info(now))
    }

    /// Returns the address of a relay that has the key, was heard lately, and is no member.
    #[must_use]
    pub fn stranger(&self, now: Instant) -> Option<SocketAddr> {
        let (at, address) = self.stranger?;
        (now.saturating_since(at) < ALONE).then_some(address)
    }

    /// Takes note that a datagram of [`Fleet::poll_transmit`] could not be sent.
    pub fn handle_unsent(&mut self) {
        self.statistics.dropped[DropReason::Unsent] += 1;
    }

    /// Returns the counters since the start.
    #[must_use]
    pub const fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// Begins other runs after the clock went back, since others take none that has not come yet, and what was sent before
    /// would be of now some time later (F-05).
    fn follow_clock(&mut self, clocks: Clocks) {
        let (now, latest) = (clocks.run(), clocks.latest_run(self.config.skew));
        let has_gone_back = self.last_sent > latest;
        if has_gone_back {
            self.last_sent = 0;
            (self.run, self.stranger_sequence) = (now, 0);
        }
        for other in &mut self.others {
            if other.run > latest {
                other.end_runs(now, latest);
            } else if has_gone_back || other.own_run > latest {
                other.renew_own_run(now, latest);
            }
        }
    }

    /// Sends signs of life where they are due.
    fn beat(&mut self, clocks: Clocks, relay: &Relay) {
        for place in 0..self.others.len() {
            if clocks.now >= self.others[place].next_beat {
                self.send_heartbeat(clocks, place, relay);
            }
        }
    }

    fn send_heartbeat(&mut self, clocks: Clocks, place: usize, relay: &Relay) {
        let pause = if self.has_joined { BEAT } else { FAST_BEAT };
        let is_in_step = self.is_in_step;
        let other = &mut self.others[place];
        other.next_beat = clocks.now + pause;
        let heartbeat = Heartbeat {
            is_in_step,
            wants_answer: !other.is_reachable(clocks.now),
            service: Some(Service::of(relay.config())),
            heard_run: other.heard_run(clocks.now),
            peers: relay.trusted_peers() as u64,
        };
        self.send(clocks, place, &Message::Heartbeat(heartbeat));
    }

    /// Answers a relay that is no member, so that it does not take itself for alone (F-25).
    fn answer_stranger(&mut self, clocks: Clocks, to: SocketAddr, relay: &Relay) {
        let heartbeat = Heartbeat {
            is_in_step: self.is_in_step,
            wants_answer: false,
            service: Some(Service::of(relay.config())),
            heard_run: 0,
            peers: 0,
        };
        self.stranger_sequence += 1;
        let (run, sequence) = (self.run, self.stranger_sequence);
        let message = Message::Heartbeat(heartbeat);
        self.transmit(clocks, to, (run, sequence), &message);
    }

    fn send(&mut self, clocks: Clocks, place: usize, message: &Message<'_>) {
        let other = &mut self.others[place];
        other.sequence += 1;
        let (to, number) = (other.address, (other.own_run, other.sequence));
        self.transmit(clocks, to, number, message);
    }

    /// Queues a datagram of this run with this sequence number.
    fn transmit(
        &mut self,
        clocks: Clocks,
        to: SocketAddr,
        (run, sequence): (u64, u64),
        message: &Message<'_>,
    ) {
        if self.transmits.len() >= MAX_TRANSMITS {
            self.statistics.dropped[DropReason::Backlog] += 1;
            return;
        }
        self.last_sent = self.last_sent.max(clocks.milliseconds());
        let header = Header {
            kind: Kind::Heartbeat,
            key: self.keys.id(),
            run,
            sequence,
            sent: clocks.milliseconds(),
        };
        let mut payload = message.build(header);
        self.keys.sign(self.config.address, to, &mut payload);
        self.statistics.sent.add(payload.len());
        self.transmits.push_back(Transmit { to, payload });
    }
}
