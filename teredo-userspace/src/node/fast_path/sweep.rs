//! The sweep: a pass over the map once a second, which brings the program's stamps to the relay, and
//! repairs differences between the two.
//!
//! A pass over a million peers takes long, so it is made of slices, between which packets are handled.
//! The relay is asked only about peers that the program has used since the last pass, and about a part
//! of the others.

use std::{mem, ops::Range, time::Duration};

use teredo_common::{peers::Peer, time::Instant};
use teredo_datapath::table::Cursor;
use teredo_proto::relay::Relay;

use super::{FastPath, missing::Pass, traffic::record};
use crate::{datapath::xdp::Error, node::clock};

/// The time that one slice takes, about.
const SLICE: Duration = Duration::from_millis(1);
/// The pause between two slices, which leaves most of the time to packets.
pub const PAUSE: Duration = Duration::from_millis(3);
/// Sets of the map, or slots of the relay's list, between two looks at the clock.
const STEP: usize = 32;
/// The passes in which every peer is compared with the relay once, used or not.
const TURNS: u8 = 16;
/// Stamps are whole seconds of a coarse clock.
const ROUNDING: Duration = Duration::from_secs(2);

/// The pass under way, and the last one.
#[derive(Debug, Default)]
pub struct Sweep {
    stage: Stage,
    /// The number of the pass.
    turn: u8,
    /// Whether every peer is compared in this pass: it is the first, or the last found peers that the relay does not
    /// know. There may be more of them, which it missed as they moved.
    is_full: bool,
    /// Peers of this pass that the relay does not know.
    unknown: usize,
    /// Peers whose stamps are older were known to the pass before.
    since: Instant,
    /// When the pass began.
    began: Instant,
    /// Peers that the pass has visited.
    visited: usize,
    /// Changes of the map by the relay when the pass began.
    changes: u64,
}

/// The work that is left of a pass.
#[derive(Debug, Default)]
enum Stage {
    #[default]
    Nothing,
    /// The map, from here on.
    Map(Cursor),
    /// The peers in these slots of the relay's list that the map lacks.
    Relay(Range<usize>),
}

impl Sweep {
    /// Whether a pass is under way.
    pub fn is_under_way(&self) -> bool {
        !matches!(self.stage, Stage::Nothing)
    }

    fn begin(&mut self, now: Instant, changes: u64) {
        self.is_full = self.turn == 0 || self.unknown > 0;
        self.unknown = 0;
        self.since = self.began - ROUNDING;
        self.began = now;
        self.turn = self.turn % TURNS + 1;
        self.visited = 0;
        self.changes = changes;
        self.stage = Stage::Map(Cursor::default());
    }

    /// Whether the relay has to know about a peer.
    fn concerns(&self, address: &[u8; 16], peer: &Peer) -> bool {
        self.is_full
            || peer.last_received.max(peer.last_sent) >= self.since
            || address[15] % TURNS == self.turn % TURNS
    }
}

impl FastPath {
    /// Begins a pass that copies timestamps to the relay and reconciles the map with it, unless the last is
    /// still under way. Call it once a second, and [`FastPath::sweep_on`] as long as the pass lasts.
    pub fn sweep(&mut self, relay: &mut Relay, now: Instant) {
        if self.sweep.is_under_way() {
            return;
        }
        self.failure = None;
        self.set_cookies(relay);
        self.collect_left(relay);
        if self.xdp.is_some() && self.relays {
            self.sweep.begin(now, self.changes);
        }
    }

    /// Returns whether a pass is under way.
    pub fn is_sweeping(&self) -> bool {
        self.sweep.is_under_way()
    }

    /// Does the next slice of the pass.
    pub fn sweep_on(&mut self, relay: &mut Relay, now: Instant) {
        let end = now + SLICE;
        while self.is_sweeping() && clock::now() < end {
            let result = self.step(relay, now);
            self.note(result);
        }
    }

    fn step(&mut self, relay: &mut Relay, now: Instant) -> Result<(), Error> {
        match mem::take(&mut self.sweep.stage) {
            Stage::Nothing => Ok(()),
            Stage::Map(cursor) => self.read_stamps(relay, cursor, now),
            Stage::Relay(slots) => self.insert_missing(relay, slots, now),
        }
    }

    fn read_stamps(
        &mut self,
        relay: &mut Relay,
        mut cursor: Cursor,
        now: Instant,
    ) -> Result<(), Error> {
        let Some(xdp) = self.xdp.as_mut().filter(|_| self.relays) else {
            return Ok(());
        };
        let (sweep, strays) = (&mut self.sweep, &mut self.strays);
        let (mut visited, mut unknown) = (0, Vec::new());
        let is_over = xdp
            .program
            .visit_peers(&mut cursor, STEP, now, |address, peer, traffic| {
                visited += 1;
                record(relay, strays, address, traffic);
                if sweep.concerns(address, peer)
                    && !relay.record_stamps(address, peer.last_received, peer.last_sent)
                {
                    unknown.push(*address);
                }
            });
        sweep.visited += visited;
        sweep.unknown += unknown.len();
        if !is_over {
            sweep.stage = Stage::Map(cursor);
        }
        self.changes += unknown.len() as u64;
        for address in &unknown {
            xdp.program.remove(address, now)?;
        }
        if is_over {
            self.look_for_missing(relay);
        }
        Ok(())
    }

    /// Decides which peers to compare with the map after a pass over it.
    fn look_for_missing(&mut self, relay: &Relay) {
        let Some(xdp) = &mut self.xdp else {
            return;
        };
        // Each change meanwhile may have added a peer that the pass did not visit.
        let added = (self.changes - self.sweep.changes) as usize;
        let most = self.sweep.visited + added;
        if added == 0 || most < xdp.program.peers() {
            // Nothing but another process can have removed others.
            xdp.program.set_peers(most);
        }
        let expected = relay.statistics().proved_peers.min(self.max_peers);
        let missing = expected.saturating_sub(xdp.program.peers()) as u64;
        let slots = match self.missing.pass(missing, relay.slots()) {
            Pass::Nothing => 0..0,
            Pass::Slots(slots) => slots,
            Pass::Everything => 0..relay.slots(),
        };
        self.sweep.stage = Stage::Relay(slots);
    }

    /// Inserts the next proved peers in these slots of the relay's list that the map lacks.
    fn insert_missing(
        &mut self,
        relay: &Relay,
        mut slots: Range<usize>,
        now: Instant,
    ) -> Result<(), Error> {
        if slots.is_empty() {
            let refused_before = mem::replace(&mut self.refused_before, self.refused);
            self.is_full = self.refused > refused_before || self.missing.has_refused();
            return Ok(());
        }
        let part = slots.start..slots.end.min(slots.start + STEP);
        slots.start = part.end;
        self.sweep.stage = Stage::Relay(slots);
        let peers = relay.peers_in(part).map(|(_, peer)| peer);
        for peer in peers.filter(|peer| peer.proved) {
            let address = peer.address.octets();
            if !self.has(&address) {
                let peer = Peer {
                    mapped: peer.mapped,
                    last_received: peer.last_received,
                    last_sent: peer.last_sent,
                };
                self.insert(&address, &peer, now)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_after_one_that_found_unknown_peers_compares_all() {
        let mut sweep = Sweep::default();
        let start = Instant::ZERO + Duration::from_secs(1000);
        let peer = Peer::default();
        let compared = |sweep: &Sweep| {
            let addresses = (0..=255).map(|last| [last; 16]);
            addresses
                .filter(|address| sweep.concerns(address, &peer))
                .count()
        };
        sweep.begin(start, 0);
        assert_eq!(compared(&sweep), 256);
        for (unknown, expected) in [(0, 16), (1, 256), (0, 16), (0, 16)] {
            sweep.unknown = unknown;
            sweep.begin(start, 0);
            assert_eq!(compared(&sweep), expected);
        }
    }

    #[test]
    fn peers_that_are_not_used_concern_the_relay_in_one_pass_of_sixteen() {
        let mut sweep = Sweep::default();
        let start = Instant::ZERO + Duration::from_secs(1000);
        let peer = Peer {
            mapped: Default::default(),
            last_received: start,
            last_sent: start,
        };
        let addresses: Vec<[u8; 16]> = (0..=255).map(|last| [last; 16]).collect();
        let mut counts = vec![0; addresses.len()];
        for second in 100..132 {
            sweep.begin(start + Duration::from_secs(second), 0);
            for (address, count) in addresses.iter().zip(&mut counts) {
                *count += usize::from(sweep.concerns(address, &peer));
            }
        }
        // The first pass has no other before it.
        assert!(counts.iter().all(|&count| (2..=3).contains(&count)));
        let used = Peer {
            last_sent: start + Duration::from_secs(130),
            ..peer
        };
        assert!(
            addresses
                .iter()
                .all(|address| sweep.concerns(address, &used))
        );
    }
}
