//! The pace of packets through one server, and the turns of those that have to wait (L-18).
//!
//! A server limits what one address may cause (S-23), and says nothing when it refuses a packet. So
//! the sender keeps below the limit that a server of this project has by default: what exceeds it
//! waits here, where it is not lost. Servers whose limit is higher are found by trial: the pace
//! doubles as long as the answers keep up with it.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    hash::BuildHasher as _,
    time::Duration,
};

use teredo_common::{
    limiter::{self, Rate},
    time::Instant,
};

use super::keyed::Keyed;

/// The time over which answers are compared with what was sent. A packet that is not answered within
/// two seconds is sent again.
const TRIAL: Duration = Duration::from_secs(3);
/// The time after a trial that failed until there is another one.
const HOLD: Duration = Duration::from_secs(300);
/// Silence after which a pace that was found by trial is forgotten.
const IDLE: Duration = Duration::from_secs(60);

/// The limits of a pace, in packets a second. As many as in two seconds may leave at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Pace towards a server of which nothing is known, at least 1.
    pub first: u32,
    /// Upper bound on the pace towards a server that answers. If it is not above
    /// [`Pace::first`], nothing is tried.
    pub most: u32,
}

impl Pace {
    /// Below the limits of a server of this project at its defaults (S-23): 10 a second, 20 at once.
    /// The rest is for packets that the network delays, and then delivers together.
    pub const DEFAULT: Self = Self {
        first: 9,
        most: 500,
    };
}

/// The party on whose behalf a packet goes through a server. Parties take turns, however much each
/// of them wants.
pub type Party = [u8; 8];

/// The place of a peer in the line for its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Address of the peer.
    pub peer: [u8; 16],
    /// Number of the turn; no other has the same.
    pub number: u64,
}

/// Decides when packets may go through servers.
#[derive(Debug)]
pub struct Turns {
    pace: Pace,
    keyed: Keyed,
    /// Servers whose hashes meet share a pace, as [`super::limiter::Buckets`] do.
    servers: Box<[Server]>,
    /// Those for which peers wait.
    lines: HashMap<usize, Line, Keyed>,
    /// When the first in a line may go, at the latest.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    waiting: usize,
    last_number: u64,
}

impl Turns {
    /// Creates turns for `servers` servers, at least one.
    pub(crate) fn new(pace: Pace, servers: usize, keyed: Keyed) -> Self {
        Self {
            pace,
            keyed,
            servers: vec![Server::default(); servers.max(1)].into(),
            lines: HashMap::with_hasher(keyed),
            due: BinaryHeap::new(),
            waiting: 0,
            last_number: 0,
        }
    }

    /// Whether a packet may go through `server` now; if so, counts it as sent. It may not if others
    /// wait for that server.
    pub fn take(&mut self, server: [u8; 4], now: Instant) -> bool {
        let slot = self.slot(server);
        !self.lines.contains_key(&slot) && self.servers[slot].take(self.pace, now)
    }

    /// Lets a peer wait until [`Turns::next`] returns its turn, and returns the turn's number.
    pub fn wait(&mut self, server: [u8; 4], party: Party, peer: [u8; 16]) -> u64 {
        self.last_number += 1;
        let turn = Turn {
            peer,
            number: self.last_number,
        };
        let slot = self.slot(server);
        let keyed = self.keyed;
        let line = self.lines.entry(slot).or_insert_with(|| {
            let free = self.servers[slot].free_at(self.pace);
            self.due.push(Reverse((free, slot)));
            Line::new(keyed)
        });
        line.push(party, turn);
        self.waiting += 1;
        turn.number
    }

    /// Returns the next turn that has come, and counts its packet as sent. Skips those for which
    /// `holds` is false.
    pub fn next(&mut self, now: Instant, holds: impl Fn(Turn) -> bool) -> Option<Turn> {
        while let Some(&Reverse((at, slot))) = self.due.peek()
            && at <= now
        {
            self.due.pop();
            let server = &mut self.servers[slot];
            let Some(line) = self.lines.get_mut(&slot) else {
                continue;
            };
            let before = line.length;
            let next = line.find(&holds);
            self.waiting -= before - line.length;
            let Some(party) = next else {
                self.lines.remove(&slot);
                continue;
            };
            let turn = match server.take(self.pace, now) {
                true => line.pop(party),
                false => None,
            };
            self.waiting -= usize::from(turn.is_some());
            self.due.push(Reverse((server.free_at(self.pace), slot)));
            if turn.is_some() {
                return turn;
            }
        }
        None
    }

    /// Records that a peer of `server` answered what was sent to it.
    pub fn answered(&mut self, server: [u8; 4]) {
        let slot = self.slot(server);
        let server = &mut self.servers[slot];
        server.answered = server.answered.saturating_add(1);
    }

    /// Forgets the turns for which `holds` is false, when there are more than twice as many as
    /// `peers`; costs O(1) for each [`Turns::wait`].
    pub fn compact(&mut self, peers: usize, holds: impl Fn(Turn) -> bool) {
        if self.waiting <= 2 * peers + 64 {
            return;
        }
        self.lines.retain(|_, line| {
            line.retain(&holds);
            line.length > 0
        });
        self.waiting = self.lines.values().map(|line| line.length).sum();
        let lines = &self.lines;
        self.due
            .retain(|Reverse((_, slot))| lines.contains_key(slot));
    }

    /// Returns when [`Turns::next`] may have something to return, or `None` if nobody waits.
    pub fn deadline(&self) -> Option<Instant> {
        self.due.peek().map(|&Reverse((at, _))| at)
    }

    /// Returns the number of those that wait. Some of them may have lost interest.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    fn slot(&self, server: [u8; 4]) -> usize {
        self.keyed.hash_one(server) as usize % self.servers.len()
    }
}

/// The pace towards one server.
#[derive(Clone, Copy, Debug, Default)]
struct Server {
    /// A bucket of [`limiter`].
    bucket: u64,
    /// Packets a second; 0 stands for [`Pace::first`].
    pace: u32,
    /// The start of the trial.
    since: Instant,
    /// Packets of the trial.
    sent: u32,
    /// Answers that came during the trial.
    answered: u32,
    /// No other pace is tried before this.
    held_until: Instant,
}

impl Server {
    fn rate(&self, pace: Pace) -> Rate {
        let per_second = self.pace.max(pace.first);
        Rate::new(per_second, per_second.saturating_mul(2))
    }

    fn take(&mut self, pace: Pace, now: Instant) -> bool {
        self.adjust(pace, now);
        let taken = limiter::take(self.bucket, self.rate(pace), now);
        self.bucket = taken.unwrap_or(self.bucket);
        self.sent = self.sent.saturating_add(taken.is_some().into());
        taken.is_some()
    }

    /// When [`Server::take`] has a token.
    fn free_at(&self, pace: Pace) -> Instant {
        Instant::from_nanos(self.bucket.saturating_sub(self.rate(pace).tolerance))
    }

    /// Ends a trial. A server that answers at least three quarters of nearly as many packets as were
    /// permitted gets twice as many; one that does not gets no more than any other.
    fn adjust(&mut self, pace: Pace, now: Instant) {
        let duration = now.saturating_since(self.since);
        if duration < TRIAL {
            return;
        }
        let current = self.pace.max(pace.first);
        let permitted = u64::from(current) * TRIAL.as_secs();
        let is_busy = duration < 2 * TRIAL && u64::from(self.sent) * 4 >= permitted * 3;
        let is_answered = u64::from(self.answered) * 4 >= u64::from(self.sent) * 3;
        if duration >= IDLE {
            self.pace = pace.first;
        } else if !is_answered && current > pace.first {
            self.pace = pace.first;
            self.held_until = now + HOLD;
        } else if is_busy && is_answered && now >= self.held_until {
            self.pace = current.saturating_mul(2).min(pace.most.max(pace.first));
        }
        self.since = now;
        self.sent = 0;
        self.answered = 0;
    }
}

/// Those that wait for one server: parties take turns, and each is served in the order of arrival.
#[derive(Debug)]
struct Line {
    order: VecDeque<Party>,
    parties: HashMap<Party, VecDeque<Turn>, Keyed>,
    length: usize,
}

impl Line {
    fn new(keyed: Keyed) -> Self {
        Self {
            order: VecDeque::new(),
            parties: HashMap::with_hasher(keyed),
            length: 0,
        }
    }

    fn push(&mut self, party: Party, turn: Turn) {
        let turns = self.parties.entry(party).or_insert_with(|| {
            self.order.push_back(party);
            VecDeque::new()
        });
        turns.push_back(turn);
        self.length += 1;
    }

    /// Returns the party whose turn it is, after turns that do not hold are forgotten.
    fn find(&mut self, holds: impl Fn(Turn) -> bool) -> Option<Party> {
        while let Some(&party) = self.order.front() {
            let turns = self.parties.entry(party).or_default();
            while let Some(&turn) = turns.front() {
                if holds(turn) {
                    return Some(party);
                }
                turns.pop_front();
                self.length -= 1;
            }
            self.parties.remove(&party);
            self.order.pop_front();
        }
        None
    }

    /// Removes the first turn of the party that [`Line::find`] returned, which is the last of all
    /// then.
    fn pop(&mut self, party: Party) -> Option<Turn> {
        let turn = self.parties.get_mut(&party)?.pop_front();
        self.length -= usize::from(turn.is_some());
        self.order.rotate_left(1);
        turn
    }

    fn retain(&mut self, holds: impl Fn(Turn) -> bool) {
        self.parties.retain(|_, turns| {
            turns.retain(|&turn| holds(turn));
            !turns.is_empty()
        });
        let parties = &self.parties;
        self.order.retain(|party| parties.contains_key(party));
        self.length = self.parties.values().map(VecDeque::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng as _, rngs::StdRng};

    const START: Instant = Instant::from_nanos(1_000_000_000_000);
    const SERVER: [u8; 4] = [1, 2, 3, 4];
    const HOST: Party = [0x20; 8];

    fn turns(most: u32) -> Turns {
        let keyed = Keyed::new(&mut StdRng::from_seed([1; 32]));
        Turns::new(Pace { first: 9, most }, 4096, keyed)
    }

    fn peer(number: u16) -> [u8; 16] {
        let mut address = [0; 16];
        address[14..].copy_from_slice(&number.to_be_bytes());
        address
    }

    /// Lets everybody go who may until `end`, answered or not, and returns the times.
    fn run(
        turns: &mut Turns,
        end: Instant,
        answers: impl Fn(usize) -> bool,
    ) -> Vec<(Instant, Turn)> {
        let mut gone = Vec::new();
        while let Some(at) = turns.deadline().filter(|&at| at <= end) {
            let now = at.max(START);
            while let Some(turn) = turns.next(now, |_| true) {
                if answers(gone.len()) {
                    turns.answered(SERVER);
                }
                gone.push((now, turn));
            }
        }
        gone
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn l18_a_burst_goes_at_once_and_the_rest_in_turn() {
        let mut turns = turns(9);
        let at_once = (0..100).filter(|_| turns.take(SERVER, START)).count();
        assert_eq!(at_once, 18);
        for number in 0..100 {
            turns.wait(SERVER, HOST, peer(number));
            assert!(!turns.take(SERVER, START + seconds(1)), "others wait");
        }
        assert!(turns.take([1, 2, 3, 5], START), "another server");
        let gone = run(&mut turns, START + seconds(60), |_| true);
        let order: Vec<_> = gone.iter().map(|(_, turn)| turn.peer).collect();
        assert_eq!(order, (0..100).map(peer).collect::<Vec<_>>());
        let last = gone.last().unwrap().0.saturating_since(START);
        assert!((seconds(10)..seconds(12)).contains(&last), "{last:?}");
        assert_eq!((turns.waiting(), turns.deadline()), (0, None));
    }

    /// In no span of time more than a server of this project permits by default.
    #[test]
    fn l18_the_pace_is_below_the_default_limit_of_a_server() {
        let mut turns = turns(Pace::DEFAULT.first);
        let mut bucket = 0;
        let limit = Rate::new(10, 20);
        for number in 0..500 {
            turns.wait(SERVER, HOST, peer(number));
        }
        for (at, _) in run(&mut turns, START + seconds(100), |_| true) {
            // As late as 200 ms after the one before.
            let delay = Duration::from_millis(at.as_nanos() % 3 * 100);
            bucket = limiter::take(bucket, limit, at + delay).expect("not refused");
        }
        assert_eq!(turns.waiting(), 0);
    }

    #[test]
    fn l18_parties_take_turns() {
        let mut turns = turns(9);
        for number in 0..1000 {
            turns.wait(SERVER, HOST, peer(number));
        }
        turns.wait(SERVER, [0x21; 8], peer(2000));
        turns.wait(SERVER, [0x21; 8], peer(2001));
        let gone = run(&mut turns, START + seconds(1), |_| true);
        let order: Vec<_> = gone.iter().map(|(_, turn)| turn.peer).take(5).collect();
        assert_eq!(order, [peer(0), peer(2000), peer(1), peer(2001), peer(2)]);
    }

    #[test]
    fn l18_turns_that_do_not_hold_are_skipped_and_do_not_pile_up() {
        let mut turns = turns(9);
        for _ in 0..10_000 {
            let number = turns.wait(SERVER, HOST, peer(1));
            let holds = |turn: Turn| turn.number == number;
            turns.compact(1, holds);
            assert!(turns.waiting() <= 67);
        }
        let last = turns.last_number;
        let turn = turns.next(START, |turn| turn.number == last).unwrap();
        assert_eq!(turn.peer, peer(1));
        assert_eq!(turns.next(START, |_| true), None);
        assert_eq!(turns.waiting(), 0);
    }

    #[test]
    fn l18_a_server_that_answers_everything_gets_more() {
        let mut turns = turns(500);
        for number in 0..5000 {
            turns.wait(SERVER, HOST, peer(number));
        }
        let gone = run(&mut turns, START + seconds(600), |_| true);
        let took = gone.last().unwrap().0.saturating_since(START);
        assert!(took < seconds(30), "{took:?}");
        assert_eq!(gone.len(), 5000);
    }

    #[test]
    fn l18_a_server_that_does_not_gets_no_more_than_others_for_minutes() {
        let mut turns = turns(500);
        let limit = Rate::new(10, 20);
        let mut bucket = 0;
        let mut refused = 0;
        let mut number = 0;
        let mut now = START;
        while now < START + seconds(600) {
            while turns.waiting() < 100 {
                number += 1;
                turns.wait(SERVER, HOST, peer(number));
            }
            now = turns.deadline().unwrap().max(now);
            while turns.next(now, |_| true).is_some() {
                match limiter::take(bucket, limit, now) {
                    Some(new) => {
                        bucket = new;
                        turns.answered(SERVER);
                    }
                    None => refused += 1,
                }
            }
        }
        assert!((1..150).contains(&refused), "{refused} in three trials");
    }

    #[test]
    fn l18_a_pace_found_by_trial_is_forgotten_in_idle_time() {
        let mut turns = turns(500);
        for number in 0..2000 {
            turns.wait(SERVER, HOST, peer(number));
        }
        let gone = run(&mut turns, START + seconds(600), |_| true);
        let later = gone.last().unwrap().0 + IDLE + TRIAL;
        let at_once = (0..1000).filter(|_| turns.take(SERVER, later)).count();
        assert_eq!(at_once, 18);
    }
}
