//! Telling the others about peers (F-11 to F-13).

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use teredo_common::time::Instant;

use super::{
    Clocks, Fleet,
    wire::{Message, REPORTS, Reports, build_reports},
};
use crate::{
    relay::{Relay, Report},
    shared::keyed::Keyed,
};

/// The time between two datagrams with news, during which they are collected.
const PAUSE: Duration = Duration::from_millis(2);
/// The times after which news is told again, each after the time before, in case that the datagram was
/// lost. One of them is longer than the silence after which a table is asked for anew.
pub const AGAIN: [Duration; 4] = [
    Duration::from_millis(200),
    Duration::from_millis(800),
    Duration::from_secs(3),
    Duration::from_secs(6),
];
/// Bound on peers that wait to be told about, and on those to be told about again. The round makes up
/// for others.
const MAX_NEWS: usize = 65_536;
/// Number of peers that wait from which on nothing is told again.
const BUSY: usize = 100 * REPORTS;

/// Peers to tell about.
#[derive(Debug)]
pub struct News {
    /// In this order, each with the number of times that it was told about already.
    queue: VecDeque<([u8; 16], usize)>,
    /// The same without order.
    waiting: HashSet<[u8; 16], Keyed>,
    /// Peers that were told about once, twice and so on, with the time for the next time.
    again: [VecDeque<(Instant, [u8; 16])>; AGAIN.len()],
}

impl News {
    pub fn new(keyed: Keyed) -> Self {
        Self {
            queue: VecDeque::new(),
            waiting: HashSet::with_hasher(keyed),
            again: Default::default(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns when the first of those is due that were told about already.
    pub fn deadline(&self) -> Option<Instant> {
        let first = self.again.iter().filter_map(VecDeque::front);
        first.map(|&(due, _)| due).min()
    }

    fn push(&mut self, address: [u8; 16], told: usize) {
        if self.queue.len() < MAX_NEWS && self.waiting.insert(address) {
            self.queue.push_back((address, told));
        }
    }

    /// Queues again what is due again.
    fn repeat(&mut self, now: Instant) {
        for stage in 0..AGAIN.len() {
            while let Some(&(due, address)) = self.again[stage].front()
                && due <= now
            {
                self.again[stage].pop_front();
                if self.queue.len() < BUSY {
                    self.push(address, stage + 1);
                }
            }
        }
    }

    fn pop(&mut self, now: Instant) -> Option<[u8; 16]> {
        let (address, told) = self.queue.pop_front()?;
        self.waiting.remove(&address);
        if let Some((again, pause)) = self.again.get_mut(told).zip(AGAIN.get(told))
            && again.len() < MAX_NEWS
        {
            again.push_back((now + *pause, address));
        }
        Some(address)
    }
}

impl Fleet {
    /// Tells the others about peers that brought back a cookie, at once if that is allowed. Call it
    /// after every call of a `handle_` function of the relay.
    pub fn flush(&mut self, clocks: Clocks, relay: &mut Relay) {
        while let Some(address) = relay.poll_news() {
            self.news.push(address, 0);
        }
        self.news.repeat(clocks.now);
        if self.news.is_empty() || clocks.now < self.next_news {
            return;
        }
        self.next_news = clocks.now + PAUSE;
        let mut reports = Vec::new();
        while !self.news.is_empty()
            && self.news_bucket.take(self.config.news_rate, clocks.now)
            && let Some(address) = self.news.pop(clocks.now)
        {
            reports.extend(relay.tell(clocks.now, &address));
        }
        self.tell(clocks, &reports);
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
