//! The other relays of a fleet.

use std::{net::SocketAddr, time::Duration};

use teredo_common::time::Instant;

use super::{transfer::Transfer, window::Window};
use crate::{relay::Member, shared::limiter::Bucket};

/// Silence after which a relay counts as gone (F-18).
pub const SILENCE: Duration = Duration::from_secs(3);

/// Another relay of the fleet.
#[derive(Debug)]
pub struct Other {
    /// Its address.
    pub address: SocketAddr,
    /// Its number towards the relay's table.
    pub member: Member,
    /// When its last datagram came; [`Instant::ZERO`] if none did.
    pub heard: Instant,
    /// The run that it is in; 0 if none is known.
    pub run: u64,
    /// The datagrams of this run that came.
    pub window: Window,
    /// The last sequence number sent to it.
    pub sequence: u64,
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
}

impl Other {
    /// Creates a relay that was not heard yet.
    pub fn new(address: SocketAddr, member: Member) -> Self {
        Self {
            address,
            member,
            heard: Instant::ZERO,
            run: 0,
            window: Window::default(),
            sequence: 0,
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
        self.heard != Instant::ZERO && now.saturating_since(self.heard) < SILENCE
    }

    /// Whether datagrams pass in both directions.
    pub fn is_reachable(&self, now: Instant) -> bool {
        self.is_live(now) && self.hears_us
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

    /// Begins another run of it.
    pub fn begin_run(&mut self, run: u64) {
        self.run = run;
        self.window = Window::default();
        self.forget();
    }

    /// Returns its state.
    pub fn info(&self, now: Instant) -> OtherInfo {
        OtherInfo {
            address: self.address,
            is_live: self.is_live(now),
            hears_us: self.hears_us,
            is_in_step: self.is_in_step,
            is_known: matches!(self.table, Table::Known),
            peers: self.peers,
            clock_ahead: self.clock_ahead,
            heard: self.heard,
        }
    }
}
