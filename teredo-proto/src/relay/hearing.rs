//! Which relays of a fleet heard a peer at its mapping, and when (F-12, F-15, F-16).
//!
//! It is apart from the entries of peers, as their traffic is: only relays of a fleet have it.

use std::time::Duration;

use teredo_common::time::Instant;

/// The number of relays that may tell this one about peers.
pub const MAX_MEMBERS: usize = 63;
/// A peer is worth another report when it was heard this much later than this relay has told.
const NEWS: Duration = Duration::from_secs(1);
/// The time in which everything is told that is worth it, with something to spare.
const TOLD: Duration = Duration::from_secs(10);

/// A relay of the fleet: 0 is this one, others have numbers up to [`MAX_MEMBERS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Member(u8);

/// A moment in four octets, or none. Moments that are less than a month apart can be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp(u32);

/// What the relays of the fleet said of one peer, all of it about the mapping that the peer has here.
#[derive(Clone, Copy, Debug, Default)]
struct Hearing {
    /// The relay that the entry is counted for.
    member: Member,
    /// When that relay last heard the peer.
    heard: Stamp,
    /// When any other relay did. It may be `member`, of a time when the entry was counted for another one.
    others: Stamp,
    /// When this relay had last heard the peer when it last told about it.
    told: Stamp,
}

/// What the relays of the fleet said of all peers, by their slots.
#[derive(Debug)]
pub struct Hearings {
    slots: Vec<Hearing>,
    /// The time for which a relay's word counts: that for which a peer is trusted.
    lifetime: Duration,
    /// Number of entries that are counted for each member; those of this relay are not.
    entries: [usize; MAX_MEMBERS + 1],
    /// Number of all of them.
    all: usize,
    /// Bound on those of each other relay.
    share: usize,
    /// Bound on those of all other relays.
    together: usize,
}

impl Member {
    /// This relay.
    pub const OWN: Self = Self(0);

    /// Creates the number of another relay, from 0 to [`MAX_MEMBERS`] - 1.
    #[must_use]
    pub fn other(number: usize) -> Option<Self> {
        let number = u8::try_from(number + 1).ok()?;
        (usize::from(number) <= MAX_MEMBERS).then_some(Self(number))
    }

    fn number(self) -> usize {
        self.0.into()
    }
}

impl Stamp {
    /// Converts a moment, to a millisecond or so.
    fn new(at: Instant) -> Self {
        Self(((at.as_nanos() >> 20) as u32).max(1))
    }

    /// Returns the time from this moment to a later one; `None` if there is no moment.
    fn until(self, later: Self) -> Option<Duration> {
        let difference = later.0.wrapping_sub(self.0) as i32;
        let difference = u64::try_from(difference).unwrap_or(0);
        (self.0 != 0).then(|| Duration::from_nanos(difference << 20))
    }

    /// Returns the later one of two moments.
    fn or_later(self, other: Self) -> Self {
        let is_later = other.0.wrapping_sub(self.0) as i32 > 0;
        match self.0 == 0 || other.0 != 0 && is_later {
            true => other,
            false => self,
        }
    }

    /// Whether the moment is within this time before `now`.
    fn is_within(self, time: Duration, now: Stamp) -> bool {
        self.until(now).is_some_and(|age| age < time)
    }
}

impl Hearings {
    /// Creates what is known of no peers, for a table of `max_peers` of them that are trusted for `lifetime`
    /// after their last packet.
    pub fn new(max_peers: usize, lifetime: Duration) -> Self {
        Self {
            slots: Vec::new(),
            lifetime,
            entries: [0; MAX_MEMBERS + 1],
            all: 0,
            // Of the places, seven eighths are for trusted peers. A sixteenth is left for what this relay hears.
            share: (max_peers / 4 * 3).max(1),
            together: (max_peers / 16 * 13).max(1),
        }
    }

    /// Returns the relay that an entry is counted for.
    pub fn member(&self, slot: usize) -> Member {
        self.get(slot).member
    }

    /// Takes note that this relay heard a peer itself.
    pub fn hear(&mut self, slot: usize, at: Instant) {
        let hearing = self.get_mut(slot);
        let at = Stamp::new(at);
        if hearing.member == Member::OWN {
            hearing.heard = hearing.heard.or_later(at);
        } else {
            hearing.others = hearing.others.or_later(hearing.heard);
            hearing.heard = at;
            hearing.told = Stamp::default();
            self.assign(slot, Member::OWN);
        }
    }

    /// Takes note that a peer was known before this relay was one of the fleet, as if this relay had heard it.
    pub fn adopt(&mut self, slot: usize, last_received: Instant, now: Instant) {
        let heard = Stamp::new(last_received);
        let is_told = !heard.is_within(TOLD, Stamp::new(now));
        *self.get_mut(slot) = Hearing {
            heard,
            told: if is_told { heard } else { Stamp::default() },
            ..Hearing::default()
        };
    }

    /// Whether what this relay says may move a peer to another mapping: not while any other one's word about
    /// this one counts, so that nobody takes a peer from a relay that hears it (F-15).
    pub fn may_move(&self, slot: usize, member: Member, now: Instant) -> bool {
        let (hearing, now) = (self.get(slot), Stamp::new(now));
        let is_held = hearing.member != member && hearing.heard.is_within(self.lifetime, now);
        !is_held && !hearing.others.is_within(self.lifetime, now)
    }

    /// Takes note that another relay heard a peer at its mapping. Its word counts beside that of the relay that
    /// the entry is counted for; after the end of that one's it is counted for the other. Returns `false`,
    /// and does nothing, if the other one's share is full then (F-16).
    pub fn confirm(&mut self, slot: usize, member: Member, heard: Instant, now: Instant) -> bool {
        let (heard, now, lifetime) = (Stamp::new(heard), Stamp::new(now), self.lifetime);
        let has_share = self.has_share(member);
        let hearing = self.get_mut(slot);
        if hearing.member == member {
            hearing.heard = hearing.heard.or_later(heard);
        } else if hearing.heard.is_within(lifetime, now) {
            hearing.others = hearing.others.or_later(heard);
        } else if has_share {
            hearing.heard = heard;
            self.assign(slot, member);
        } else {
            return false;
        }
        true
    }

    /// Takes note that another relay's word moved a peer to another mapping, or made it known.
    pub fn move_by(&mut self, slot: usize, member: Member, heard: Instant) {
        self.assign(slot, member);
        *self.get_mut(slot) = Hearing {
            member,
            heard: Stamp::new(heard),
            ..Hearing::default()
        };
    }

    /// Forgets what was said of a peer: it is at another mapping, which this relay itself heard, or no peer any
    /// more.
    pub fn forget(&mut self, slot: usize) {
        if self.get(slot).member != Member::OWN {
            self.assign(slot, Member::OWN);
        }
        if let Some(hearing) = self.slots.get_mut(slot) {
            *hearing = Hearing::default();
        }
    }

    /// Whether a relay may have this peer among its own.
    pub fn has_room_for(&self, slot: usize, member: Member) -> bool {
        self.member(slot) == member || self.has_share(member)
    }

    /// Whether a relay may have another peer among its own.
    pub fn has_share(&self, member: Member) -> bool {
        let entries = self.entries.get(member.number());
        self.all < self.together && entries.is_some_and(|&entries| entries < self.share)
    }

    /// Whether this relay heard a peer so much later than it told that it has to tell again. Ends what does not count any
    /// more, which has to happen at least once a week.
    pub fn is_news(&mut self, slot: usize, now: Instant) -> bool {
        let (lifetime, now) = (self.lifetime, Stamp::new(now));
        let Some(hearing) = self.slots.get_mut(slot) else {
            return false;
        };
        for word in [&mut hearing.heard, &mut hearing.others] {
            if !word.is_within(lifetime, now) {
                *word = Stamp::default();
            }
        }
        if hearing.heard == Stamp::default() {
            hearing.told = Stamp::default();
        }
        let since = hearing.told.until(hearing.heard);
        hearing.member == Member::OWN
            && hearing.heard != Stamp::default()
            && since.is_none_or(|since| since >= NEWS)
    }

    /// Whether this relay told about a peer within `time` before it last heard it.
    pub fn was_told(&self, slot: usize, time: Duration) -> bool {
        let hearing = self.get(slot);
        hearing.member == Member::OWN && hearing.told.is_within(time, hearing.heard)
    }

    /// Returns the time since this relay heard a peer, and takes note that it tells that now; `None` if it did not
    /// hear the peer.
    pub fn tell(&mut self, slot: usize, now: Instant) -> Option<Duration> {
        let hearing = self.slots.get_mut(slot)?;
        let age = hearing.heard.until(Stamp::new(now))?;
        if hearing.member != Member::OWN {
            return None;
        }
        hearing.told = hearing.heard;
        Some(age)
    }

    fn get(&self, slot: usize) -> Hearing {
        self.slots.get(slot).copied().unwrap_or_default()
    }

    fn get_mut(&mut self, slot: usize) -> &mut Hearing {
        if slot >= self.slots.len() {
            self.slots.resize(slot + 1, Hearing::default());
        }
        &mut self.slots[slot]
    }

    /// Counts an entry for a relay.
    fn assign(&mut self, slot: usize, member: Member) {
        let old = std::mem::replace(&mut self.get_mut(slot).member, member);
        if old != Member::OWN {
            self.entries[old.number()] -= 1;
            self.all -= 1;
        }
        if member != Member::OWN {
            self.entries[member.number()] += 1;
            self.all += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(1_000_000_000_000);
    const LIFETIME: Duration = Duration::from_secs(30);

    fn other(number: usize) -> Member {
        Member::other(number).expect("a number")
    }

    fn after(seconds: u64) -> Instant {
        NOW + Duration::from_secs(seconds)
    }

    #[test]
    fn f15_the_word_of_each_other_relay_holds_a_peer() {
        let (one, two, three) = (other(0), other(1), other(2));
        let mut hearings = Hearings::new(1_000, LIFETIME);
        hearings.move_by(7, one, NOW);
        assert!(hearings.may_move(7, one, NOW), "its own part");
        assert!(!hearings.may_move(7, two, after(29)));
        assert!(hearings.may_move(7, two, after(31)));
        // The same mapping, whatever is said how often: nobody becomes its only witness.
        for second in 1..60 {
            assert!(hearings.confirm(7, two, after(second), after(second)));
            if second % 5 == 0 {
                assert!(hearings.confirm(7, three, after(second), after(second)));
            }
            assert!(!hearings.may_move(7, three, after(second)));
            assert!(second < 5 || !hearings.may_move(7, two, after(second)));
        }
        assert!(!hearings.may_move(7, two, after(84)));
        assert!(hearings.may_move(7, two, after(89)));
    }

    #[test]
    fn f15_what_this_relay_hears_is_nobody_elses() {
        let (one, two) = (other(0), other(1));
        let mut hearings = Hearings::new(1_000, LIFETIME);
        hearings.move_by(7, one, NOW);
        hearings.hear(7, after(1));
        assert_eq!(hearings.member(7), Member::OWN);
        assert_eq!((hearings.entries[1], hearings.all), (0, 0));
        for second in 1..31 {
            assert!(hearings.confirm(7, two, after(second), after(second)));
            assert!(!hearings.may_move(7, one, after(second)));
            assert!(!hearings.may_move(7, two, after(second)));
        }
        // It is heard elsewhere now.
        assert!(hearings.confirm(7, two, after(31), after(31)));
        assert_eq!(hearings.member(7), two);
        assert!(!hearings.may_move(7, one, after(31)));
    }

    #[test]
    fn f12_what_others_say_changes_nothing_of_what_is_told() {
        let mut hearings = Hearings::new(1_000, LIFETIME);
        assert!(!hearings.is_news(7, NOW));
        hearings.hear(7, NOW);
        assert!(hearings.is_news(7, NOW));
        assert_eq!(hearings.tell(7, NOW), Some(Duration::ZERO));
        assert!(!hearings.is_news(7, NOW));
        hearings.hear(7, after(2));
        assert!(hearings.confirm(7, other(0), after(2), after(2)));
        assert!(hearings.is_news(7, after(2)) && !hearings.was_told(7, Duration::from_secs(1)));
        // Nor is it told on.
        hearings.move_by(8, other(0), NOW);
        assert!(!hearings.is_news(8, NOW) && hearings.tell(8, NOW).is_none());
    }

    #[test]
    fn f16_all_others_together_leave_places() {
        let mut hearings = Hearings::new(1_600, LIFETIME);
        let mut slot = 0;
        for member in (0..3).map(other) {
            while hearings.has_share(member) {
                hearings.move_by(slot, member, NOW);
                slot += 1;
            }
        }
        assert_eq!(hearings.entries[1..4], [1_200, 100, 0]);
        // What its own relay does not speak of any more, another one cannot keep without a place.
        assert!(!hearings.confirm(0, other(1), after(31), after(31)));
        hearings.forget(1);
        assert!(hearings.confirm(0, other(1), after(31), after(31)));
        assert_eq!(hearings.entries[1..3], [1_198, 101]);
    }

    #[test]
    fn moments_of_long_ago_do_not_come_back() {
        let mut hearings = Hearings::new(1_000, LIFETIME);
        hearings.move_by(7, other(0), NOW);
        assert!(hearings.confirm(7, other(1), NOW, NOW));
        let day = 24 * 60 * 60;
        for days in 1..60 {
            assert!(!hearings.is_news(7, after(days * day)));
            assert!(hearings.may_move(7, other(2), after(days * day)), "{days}");
        }
    }
}
