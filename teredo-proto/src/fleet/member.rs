//! The other relays of a fleet.

use std::{net::SocketAddr, time::Duration};

use teredo_common::{address::Endpoint, time::Instant};

use super::{statistics::DropReason, transfer::Transfer, window::Window};
use crate::{relay::Member, shared::limiter::Bucket};

/// Silence after which a relay counts as gone (F-18).
pub const SILENCE: Duration = Duration::from_secs(3);
/// Silence after which a relay that starts goes without the others (F-18). A relay that is there answers each of
/// the fifty signs of life that are sent to it meanwhile, and sends ten of its own: so long for the network of a host that
/// starts, and for relays that are just restarted. More would only delay the first relay of a fleet that is down.
pub const ALONE: Duration = Duration::from_secs(10);

/// Another relay of the fleet.
#[derive(Debug)]
pub struct Other {
    /// Its address.
    pub address: SocketAddr,
    /// Its number towards the relay's table.
    pub member: Member,
    /// The run of this relay towards it.
    pub own_run: u64,
    /// The last sequence number of this run.
    pub sequence: u64,
    /// The run of it whose datagrams are accepted; 0 if there is none.
    pub run: u64,
    /// The datagrams of this run that came.
    pub window: Window,
    /// When its last datagram of this run came; [`Instant::ZERO`] if none did.
    pub heard: Instant,
    /// When a datagram of any run last came, and this run.
    pub named: (Instant, u64),
    /// When a datagram was last refused, and why.
    pub refused: Option<(Instant, Refusal)>,
    /// Whether it hears this relay.
    pub hears_us: bool,
    /// Whether it is in step.
    pub is_in_step: bool,
    /// Number of its peers.
    pub peers: u64,
    /// Milliseconds by which its clock is ahead of this one, with the way of its last datagram.
    pub clock_ahead: i64,
    /// When it gets the next sign of life.
    pub next_beat: Instant,
    /// When it may get an additional one.
    pub next_answer: Instant,
    /// What is known of its table.
    pub table: Table,
    /// Limits what it sends.
    pub received: Bucket,
    /// Limits what it gets of the table.
    pub served: Bucket,
}

/// What this relay knows of the table of another.
#[derive(Debug)]
pub enum Table {
    /// It was not asked for since the relay was heard first, or again.
    Unknown,
    /// It is on its way.
    Coming(Transfer),
    /// Everything that was in it is here.
    Known,
    /// The other relay did not give it. It is asked again at this time.
    Refused(Instant),
}

/// The reason why datagrams of another relay are refused, as far as the two relays differ in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// They have another version (F-06).
    Version,
    /// They are signed with a key that this relay does not have (F-04).
    Key,
    /// Their tag is wrong: their addresses were changed under way (F-03).
    Tag,
    /// Its clock and this one differ too much (F-05).
    Clock,
    /// It serves this endpoint; if that is the right one, another prefix (F-24).
    Service(Endpoint),
}

/// The state of another relay of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherInfo {
    /// Its address.
    pub address: SocketAddr,
    /// Whether it was heard lately.
    pub is_live: bool,
    /// Whether it hears this relay.
    pub hears_us: bool,
    /// Whether it says that it is in step.
    pub is_in_step: bool,
    /// Whether everything that is in its table is in this one.
    pub is_known: bool,
    /// Number of its peers.
    pub peers: u64,
    /// Milliseconds by which its clock is ahead of this one.
    pub clock_ahead: i64,
    /// When its last datagram came; [`Instant::ZERO`] if none did.
    pub heard: Instant,
    /// Why its datagrams were refused lately.
    pub refusal: Option<Refusal>,
}

impl Refusal {
    /// Returns the reason why a datagram was refused, if it is one in which two relays differ.
    pub(super) const fn of(reason: DropReason) -> Option<Self> {
        match reason {
            DropReason::Version => Some(Self::Version),
            DropReason::Key => Some(Self::Key),
            DropReason::Tag => Some(Self::Tag),
            DropReason::Clock => Some(Self::Clock),
            _ => None,
        }
    }
}

impl Other {
    /// Creates a relay that was not heard yet, towards which this one begins a run.
    pub fn new(address: SocketAddr, member: Member, own_run: u64) -> Self {
        Self {
            address,
            member,
            own_run,
            sequence: 0,
            run: 0,
            window: Window::default(),
            heard: Instant::ZERO,
            named: (Instant::ZERO, 0),
            refused: None,
            hears_us: false,
            is_in_step: false,
            peers: 0,
            clock_ahead: 0,
            next_beat: Instant::ZERO,
            next_answer: Instant::ZERO,
            table: Table::Unknown,
            received: Bucket::default(),
            served: Bucket::default(),
        }
    }

    /// Whether it was heard lately.
    pub fn is_live(&self, now: Instant) -> bool {
        is_recent(self.heard, SILENCE, now)
    }

    /// Whether datagrams pass in both directions.
    pub fn is_reachable(&self, now: Instant) -> bool {
        self.is_live(now) && self.hears_us
    }

    /// Returns when anything last came from its address that may be its: it is there, whether it is understood or
    /// not.
    pub fn last_sign(&self) -> Instant {
        let refused = self.refused.map(|(at, _)| at);
        self.named.0.max(refused.unwrap_or(Instant::ZERO))
    }

    /// Returns the run that it is told that it is heard in; 0 for none. If that is a later one than its own, it takes another
    /// one.
    pub fn heard_run(&self, now: Instant) -> u64 {
        let (at, run) = self.named;
        match is_recent(at, SILENCE, now) {
            true => run.max(self.run),
            false => 0,
        }
    }

    /// Whether nothing of its table is missing here that could be had.
    pub fn is_settled(&self) -> bool {
        matches!(self.table, Table::Known | Table::Refused(_))
    }

    /// Forgets what was before a silence or another run.
    pub fn forget(&mut self) {
        self.hears_us = false;
        self.is_in_step = false;
        self.table = Table::Unknown;
    }

    /// Accepts a run of it, from this sequence number on.
    pub fn begin_run(&mut self, run: u64, sequence: u64) {
        self.run = run;
        self.window = Window::from(sequence);
        self.forget();
    }

    /// Begins another run towards it.
    pub fn begin_own_run(&mut self, run: u64) {
        self.own_run = run;
        self.sequence = 0;
        self.hears_us = false;
    }

    /// Accepts its run no longer, and begins another one towards it: what was recorded so far never counts again. `now` is the
    /// run of a relay that starts, `latest` the last one that others accept.
    pub fn end_runs(&mut self, now: u64, latest: u64) {
        self.run = 0;
        self.heard = Instant::ZERO;
        self.forget();
        self.renew_own_run(now, latest);
    }

    /// Begins another run towards it, which is a later one if that can be.
    pub fn renew_own_run(&mut self, now: u64, latest: u64) {
        let next = self.own_run.saturating_add(1).max(now);
        self.begin_own_run(if next <= latest { next } else { now });
    }

    /// Returns its state.
    pub fn info(&self, now: Instant) -> OtherInfo {
        let (named, _) = self.named;
        let refused = self.refused.filter(|&(at, _)| is_recent(at, ALONE, now));
        OtherInfo {
            address: self.address,
            is_live: is_recent(named, SILENCE, now),
            hears_us: self.hears_us,
            is_in_step: self.is_in_step,
            is_known: matches!(self.table, Table::Known),
            peers: self.peers,
            clock_ahead: self.clock_ahead,
            heard: named,
            refusal: refused.map(|(_, refusal)| refusal),
        }
    }
}

/// Whether a moment, if there is one, is within this time before `now`.
fn is_recent(at: Instant, time: Duration, now: Instant) -> bool {
    at != Instant::ZERO && now.saturating_since(at) < time
}
