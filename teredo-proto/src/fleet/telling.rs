//! Telling the others about peers (F-11 to F-13).

use std::time::Duration;

use teredo_common::time::Instant;

use super::{
    Clocks, Fleet,
    wire::{Message, REPORTS, Reports, build_reports},
};
use crate::relay::{Relay, Report};

/// The time between two datagrams with news, during which they are collected.
const PAUSE: Duration = Duration::from_millis(2);
/// The time after which news is told once more, in case that the first datagram was lost.
const AGAIN: Duration = Duration::from_millis(200);
/// Bound on peers that wait to be told about, and on those to be told about once more. The round makes
/// up for others.
const MAX_NEWS: usize = 65_536;

/// How often a peer was told about already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Never,
    Once,
}

impl Fleet {
    /// Tells the others about peers that brought back a cookie, at once if that is allowed. Call it
    /// after every call of a `handle_` function of the relay.
    pub fn flush(&mut self, clocks: Clocks, relay: &mut Relay) {
        while let Some(address) = relay.poll_news() {
            self.queue(address, Told::Never);
        }
        while let Some(&(due, address)) = self.repetitions.front()
            && due <= clocks.now
        {
            self.repetitions.pop_front();
            self.queue(address, Told::Once);
        }
        if self.news.is_empty() || clocks.now < self.next_news {
            return;
        }
        self.next_news = clocks.now + PAUSE;
        let mut reports = Vec::new();
        while !self.news.is_empty()
            && self.news_bucket.take(self.config.news_rate, clocks.now)
            && let Some((address, told)) = self.news.pop_front()
        {
            self.waiting.remove(&address);
            reports.extend(relay.tell(clocks.now, &address));
            if told == Told::Never && self.repetitions.len() < MAX_NEWS {
                self.repetitions.push_back((clocks.now + AGAIN, address));
            }
        }
        self.tell(clocks, &reports);
    }

    fn queue(&mut self, address: [u8; 16], told: Told) {
        if self.news.len() < MAX_NEWS && self.waiting.insert(address) {
            self.news.push_back((address, told));
        }
    }

    /// Tells the others about the peers in a part of the table that were heard here. A round through
    /// all takes as long as the configuration says.
    pub(super) fn tell_round(&mut self, clocks: Clocks, relay: &mut Relay) {
        let (now, slots) = (clocks.now, relay.slots());
        let part = part_of(now, self.round_began, self.config.round);
        let end = (slots as f64 * part).ceil() as usize;
        let mut reports = Vec::new();
        if end > self.told_slots {
            relay.tell_slots(now, self.told_slots..end, &mut reports);
            self.told_slots = end;
        }
        if part >= 1.0 {
            self.round_began = now;
            self.told_slots = 0;
        }
        self.tell(clocks, &reports);
    }

    fn tell(&mut self, clocks: Clocks, reports: &[Report]) {
        self.statistics.told += reports.len() as u64;
        for reports in reports.chunks(REPORTS) {
            let octets = build_reports(clocks.now, reports);
            let message = Message::Reports(Reports::of(&octets));
            for place in 0..self.others.len() {
                if self.others[place].is_live(clocks.now) {
                    self.send(clocks, place, &message);
                }
            }
        }
    }
}

/// Returns the part of a round that has passed, 0 to 1.
fn part_of(now: Instant, began: Instant, round: Duration) -> f64 {
    let passed = now.saturating_since(began);
    (passed.as_secs_f64() / round.as_secs_f64().max(f64::MIN_POSITIVE)).min(1.0)
}
