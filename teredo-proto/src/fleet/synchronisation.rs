//! Getting in step with the others (F-17 to F-19).

use std::time::Duration;

use rand::Rng as _;
use teredo_common::time::Instant;

use super::{
    Clocks, Fleet,
    member::{ALONE, Other, Table},
    transfer::Transfer,
    wire::Message,
};

/// The time for which it waits for one that is in step.
const CHOOSY: Duration = Duration::from_secs(1);
/// The time for which a relay that gave nothing is not asked again.
const REFUSED: Duration = Duration::from_secs(30);
/// The time after which a relay joins that does not know all others, if it hears none.
const LONGEST: Duration = Duration::from_secs(60);
/// Tables that come at a time.
const TRANSFERS: usize = 8;

impl Fleet {
    /// Asks others for their tables, one of them for everything, and then each for what it alone knows
    /// well.
    pub(super) fn synchronise(&mut self, clocks: Clocks) {
        let (now, latest) = (clocks.now, clocks.latest_run(self.config.skew));
        for other in &mut self.others {
            if !other.is_live(now) && other.heard != Instant::ZERO {
                other.end_runs(clocks.run(), latest);
            }
            other.table = match std::mem::replace(&mut other.table, Table::Unknown) {
                Table::Coming(mut transfer) => match transfer.has_failed(now) {
                    true => {
                        self.statistics.stalled += 1;
                        Table::Refused(now + REFUSED)
                    }
                    false => Table::Coming(transfer),
                },
                Table::Refused(until) if until <= now => Table::Unknown,
                table => table,
            };
        }
        if self.is_based {
            self.ask_all(now);
        } else {
            self.ask_one(now);
        }
        for place in 0..self.others.len() {
            self.proceed(clocks, place);
        }
        let mut reachable = self.others.iter().filter(|other| other.is_reachable(now));
        self.is_in_step = self.is_based && self.is_complete && reachable.all(Other::is_settled);
        let is_late = now.saturating_since(self.began) >= LONGEST && self.silence(now) >= ALONE;
        self.has_joined |= self.is_in_step || is_late;
    }

    /// Returns the time since anybody gave a sign of being there, since the others are known. Datagrams that are
    /// refused count as well: a relay that does not understand the others is not alone.
    fn silence(&self, now: Instant) -> Duration {
        let signs = self.others.iter().map(Other::last_sign);
        let stranger = self.stranger.filter(|_| !self.is_complete);
        let last = signs.chain(stranger.map(|(at, _)| at)).max();
        now.saturating_since(self.completed.max(last.unwrap_or_default()))
    }

    /// Asks one relay for everything, since peers of relays that are gone are known to all others.
    fn ask_one(&mut self, now: Instant) {
        let waited = now.saturating_since(self.completed);
        let is_coming = |other: &Other| matches!(other.table, Table::Coming(_));
        if self.others.iter().any(is_coming) {
            return;
        }
        let (id, is_alone) = (self.random.next_u32(), self.silence(now) >= ALONE);
        let others = self.others.iter_mut();
        let candidates = others.filter(|other| other.is_reachable(now) && !other.is_settled());
        let best = candidates.max_by_key(|other| (other.is_in_step, other.peers));
        match best {
            Some(other) if other.is_in_step || waited >= CHOOSY => {
                other.table = Table::Coming(Transfer::new(id, false, now));
            }
            Some(_) => {}
            None if is_alone => self.is_based = self.is_complete,
            // All were asked in vain, and are asked again. If they give nothing for long, they tell what they hear from
            // now on.
            None if waited >= ALONE => {
                let mut others = self.others.iter();
                self.is_based = self.is_complete && others.any(|other| other.is_reachable(now));
            }
            None => {
                for other in &mut self.others {
                    other.table = Table::Unknown;
                }
            }
        }
    }

    /// Asks others for the peers that they hear.
    fn ask_all(&mut self, now: Instant) {
        let coming = (self.others.iter())
            .filter(|other| matches!(other.table, Table::Coming(_)))
            .count();
        let others = self.others.iter_mut();
        let unknown =
            others.filter(|other| other.is_reachable(now) && matches!(other.table, Table::Unknown));
        for other in unknown.take(TRANSFERS.saturating_sub(coming)) {
            let id = self.random.next_u32();
            other.table = Table::Coming(Transfer::new(id, true, now));
        }
    }

    /// Sends the next requests of a transfer, or ends it.
    pub(super) fn proceed(&mut self, clocks: Clocks, place: usize) {
        let Table::Coming(transfer) = &mut self.others[place].table else {
            return;
        };
        if transfer.is_complete() {
            self.is_based |= !transfer.only_own;
            self.others[place].table = Table::Known;
            self.statistics.transfers += 1;
            return;
        }
        for request in transfer.requests(clocks.now) {
            self.send(clocks, place, &Message::Request(request));
        }
    }
}
