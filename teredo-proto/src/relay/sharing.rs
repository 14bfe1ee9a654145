//! Peers that the relays of a fleet tell each other about (requirements F-10 to F-23).
//!
//! What a relay of the fleet says about a peer counts as if its packet had come here, within bounds: it
//! has to pass the checks for peers of this relay's own, it takes no peer away from a relay that hears
//! it, and a relay has its share of the table and no more.

use std::{collections::VecDeque, ops::Range, time::Duration};

use teredo_common::{address::Endpoint, cookie::CookieKey, time::Instant};

use super::Relay;
use crate::shared::{counts::named, party::NOBODY, peers::PeerIndex};

/// The number of relays that may tell this one about peers.
pub const MAX_MEMBERS: usize = 63;

/// The time for which a peer that was heard at one mapping stays there, whatever a relay says that did
/// not hear it there (F-15). Longer than the time between two reports of a peer that is heard.
const HELD: Duration = Duration::from_secs(8);
/// A peer is worth another report when it was heard this much later than the fleet knows.
const NEWS: Duration = Duration::from_secs(1);
/// A peer whose cookie came back again is not worth another report for this time (F-13).
const REPETITION: Duration = Duration::from_millis(100);
/// Bound on peers that wait to be told about. The next round makes up for those that are lost.
const MAX_NEWS: usize = 65_536;

/// A relay of the fleet: 0 is this one, others have numbers up to [`MAX_MEMBERS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Member(u8);

/// A moment in four octets, or none. Moments that are less than a month apart can be compared.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Stamp(u32);

/// The news about one trusted peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The peer's Teredo address, network byte order.
    pub address: [u8; 16],
    /// Endpoint that reaches the peer.
    pub mapped: Endpoint,
    /// When a packet of the peer last arrived.
    pub last_received: Instant,
    /// When a packet was last sent to the peer; [`Instant::ZERO`] if never.
    pub last_sent: Instant,
    /// When something that was sent to [`Report::mapped`] last came back from there;
    /// [`Instant::ZERO`] if that is no proof any more.
    pub proved: Instant,
}

named! {
    /// The outcome of [`Relay::learn`].
    Learned {
        /// The relay did not know the peer, did not trust it, or had another mapping of it.
        Peer = "peer",
        /// The relay knew the peer, and the report is newer.
        Newer = "newer",
        /// The relay knows as much, or the peer was silent for too long.
        Old = "old",
        /// No peer of this relay could have this address or mapping (F-14).
        Unacceptable = "unacceptable",
        /// Another relay, or this one, hears the peer at another mapping (F-15).
        HeldElsewhere = "held-elsewhere",
        /// The table, or the other relay's share of it, is full (F-16).
        Full = "full",
    }
}

/// The part of a relay that only one of a fleet has.
#[derive(Debug)]
pub struct Sharing {
    /// Peers to tell about.
    news: VecDeque<[u8; 16]>,
    /// Number of entries that are there because of each member.
    entries: [usize; MAX_MEMBERS + 1],
    /// Bound on them.
    share: usize,
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
    fn until(self, later: Instant) -> Option<Duration> {
        let difference = Self::new(later).0.wrapping_sub(self.0) as i32;
        let difference = u64::try_from(difference).unwrap_or(0);
        (self.0 != 0).then(|| Duration::from_nanos(difference << 20))
    }
}

impl Relay {
    /// Makes the relay one of a fleet: its cookies are those of all (F-02), and it keeps the news that
    /// [`Relay::poll_news`] returns. `skew` is the largest difference between their clocks.
    pub fn join_fleet(&mut self, cookies: &[CookieKey], skew: Duration) {
        self.cookie.share(cookies, skew);
        let share = self.config.max_peers / 4 * 3;
        if self.sharing.is_none() {
            self.sharing = Some(Box::new(Sharing {
                news: VecDeque::new(),
                entries: [0; MAX_MEMBERS + 1],
                share: share.max(1),
            }));
        }
    }

    /// Divides what the relay may send to others unasked among as many relays, itself among them, so that the
    /// limits of the configuration hold for all of them together (F-23).
    pub fn divide_limits_among(&mut self, relays: u32) {
        let part = self.config.clone().divided_among(relays);
        self.unreachable_rate = part.unreachable_rate;
        self.new_peer_rates.set_rates(&part.new_peer_rates.list());
        self.direct_bubble_rates
            .set_rates(&part.direct_bubble_rates.list());
        self.question_rates.set_rates(&part.question_rates.list());
        self.unproved.set_rates(&part);
        self.turns.set_pace(part.server_pace);
    }

    /// Sets the time since 1970 that the epochs of a fleet's cookies are counted from (F-02).
    pub fn set_wall_clock(&mut self, now: Instant, wall: Duration) {
        let skipped = wall.saturating_sub(Duration::from_nanos(now.as_nanos()));
        // Small corrections would reach the fast path's map each time.
        if skipped.abs_diff(self.cookie.skipped()) > Duration::from_millis(100) {
            self.cookie.set_skipped(skipped);
        }
    }

    /// Returns the prefix of the addresses that the relay serves.
    #[must_use]
    pub fn prefix(&self) -> teredo_common::address::ServicePrefix {
        self.config.prefix
    }

    /// Returns the number of trusted peers.
    #[must_use]
    pub fn trusted_peers(&self) -> usize {
        self.peers.trusted()
    }

    /// Returns the next peer that brought back a cookie.
    pub fn poll_news(&mut self) -> Option<[u8; 16]> {
        self.sharing.as_mut()?.news.pop_front()
    }

    /// Returns the report of a peer that is usable, for all others.
    pub fn tell(&mut self, now: Instant, address: &[u8; 16]) -> Option<Report> {
        let index = self.peers.find(address)?;
        let report = self.report_of(now, index)?;
        self.peers[index].state.told = Stamp::new(report.last_received);
        Some(report)
    }

    /// Appends the reports of peers in these slots that this relay heard later than the fleet knows
    /// (F-12).
    pub fn tell_slots(&mut self, now: Instant, slots: Range<usize>, reports: &mut Vec<Report>) {
        let first = reports.len();
        let peers = self.peers.in_slots(slots);
        let news = peers.filter(|(_, peer)| {
            let since = peer.state.told.until(peer.last_received);
            peer.is_trusted() && since.is_none_or(|since| since >= NEWS)
        });
        let news: Vec<[u8; 16]> = news.map(|(_, peer)| peer.address).collect();
        reports.extend(news.iter().filter_map(|address| self.tell(now, address)));
        debug_assert!(reports.len() - first <= news.len());
    }

    /// Appends the reports of all usable peers in these slots, or of those that this relay heard last
    /// itself.
    pub fn reports(
        &self,
        now: Instant,
        slots: Range<usize>,
        only_own: bool,
        reports: &mut Vec<Report>,
    ) {
        let peers = self.peers.in_slots(slots);
        let peers = peers.filter(|(_, peer)| !only_own || peer.state.member == Member::OWN);
        let addresses = peers.filter_map(|(_, peer)| self.peers.find(&peer.address));
        reports.extend(addresses.filter_map(|index| self.report_of(now, index)));
    }

    fn report_of(&self, now: Instant, index: PeerIndex) -> Option<Report> {
        let peer = &self.peers[index];
        self.peers.is_usable(now, index).then(|| Report {
            address: peer.address,
            mapped: peer.mapped,
            last_received: peer.last_received,
            last_sent: peer.last_sent,
            proved: peer.state.proved(),
        })
    }

    /// Learns what another relay of the fleet tells about a peer. Packets that wait for it are sent.
    pub fn learn(&mut self, now: Instant, member: Member, report: &Report) -> Learned {
        let report = &Report {
            last_received: report.last_received.min(now),
            last_sent: report.last_sent.min(now),
            proved: report.proved.min(now),
            ..*report
        };
        let Report {
            address, mapped, ..
        } = *report;
        let is_acceptable = self.config.prefix.contains(&address)
            && self.may_be_peer(&address)
            && self.own_ipv4.may_send_to(mapped);
        if !is_acceptable {
            return Learned::Unacceptable;
        }
        let silence = now.saturating_since(report.last_received);
        if silence >= self.config.peer_lifetime {
            return Learned::Old;
        }
        let Some(index) = self.peers.find(&address) else {
            return self.learn_peer(now, member, report);
        };
        let peer = &self.peers[index];
        let (is_usable, is_here) = (self.peers.is_usable(now, index), peer.mapped == mapped);
        if is_usable && is_here {
            return self.learn_newer(now, member, index, report);
        }
        if is_usable {
            let is_held =
                peer.state.member != member && now.saturating_since(peer.last_received) < HELD;
            if report.last_received <= peer.last_received {
                return Learned::Old;
            }
            if is_held {
                return Learned::HeldElsewhere;
            }
        }
        let peer = &self.peers[index];
        let is_crowded = self.peers.is_trusted_full() && !peer.is_trusted() && !peer.is_asked();
        if is_crowded || !self.has_room_for(member, index) {
            return Learned::Full;
        }
        self.assign(index, member);
        self.adopt_report(now, index, report);
        Learned::Peer
    }

    fn learn_peer(&mut self, now: Instant, member: Member, report: &Report) -> Learned {
        let entries = self.sharing.as_ref();
        let has_share = entries.is_some_and(|sharing| sharing.has_share(member));
        if self.peers.is_trusted_full() || !has_share {
            return Learned::Full;
        }
        self.make_room();
        let index = self.peers.insert(report.address, report.mapped, NOBODY);
        self.assign(index, member);
        self.adopt_report(now, index, report);
        Learned::Peer
    }

    /// Trusts a peer because of a report.
    fn adopt_report(&mut self, now: Instant, index: PeerIndex, report: &Report) {
        self.trust_as_of(now, report.last_received, index, report.mapped);
        let peer = &mut self.peers[index];
        peer.last_sent = peer.last_sent.max(report.last_sent);
        peer.state.told = Stamp::new(report.last_received);
        self.learn_proof(now, index, report.proved);
    }

    /// Learns the times of a peer that is usable at the same mapping.
    fn learn_newer(
        &mut self,
        now: Instant,
        member: Member,
        index: PeerIndex,
        report: &Report,
    ) -> Learned {
        let peer = &self.peers[index];
        let is_newer = report.last_received > peer.last_received;
        let is_proof = report.proved > peer.state.proved();
        if is_newer {
            if peer.state.member != Member::OWN && self.has_room_for(member, index) {
                self.assign(index, member);
            }
            let is_due = now >= self.peers[index].next_touch;
            if self.peers[index].pending.is_some() {
                // It answers the bubbles that were sent from here.
                self.trust_as_of(now, report.last_received, index, report.mapped);
            } else {
                self.peers[index].last_received = report.last_received;
                self.earn_credit(index);
            }
            self.peers[index].state.told = Stamp::new(report.last_received);
            if is_due {
                self.refresh(now, index);
            }
        }
        let peer = &mut self.peers[index];
        peer.last_sent = peer.last_sent.max(report.last_sent);
        self.learn_proof(now, index, report.proved);
        match is_newer || is_proof {
            true => Learned::Newer,
            false => Learned::Old,
        }
    }

    /// Keeps a peer fresh, on the fast path as well if packets for it pass here.
    fn refresh(&mut self, now: Instant, index: PeerIndex) {
        self.peers.touch_busy(now, index);
        let peer = &self.peers[index];
        let is_used = peer.last_sent != Instant::ZERO
            && now.saturating_since(peer.last_sent) < self.config.peer_lifetime;
        if is_used && peer.state.holds() {
            self.announce(index);
        }
    }

    /// Records that a peer brought back a cookie: every time, since the relay that asked may be another
    /// one (F-11). `is_change` says whether this relay did not know it.
    pub(super) fn note_news(&mut self, address: &[u8; 16], is_change: bool) {
        let Some(index) = self.peers.find(address) else {
            return;
        };
        let peer = &self.peers[index];
        let is_repeated = !is_change
            && (peer.state.told.until(peer.last_received)).is_some_and(|since| since < REPETITION);
        let Some(sharing) = &mut self.sharing else {
            return;
        };
        if !is_repeated && sharing.news.len() < MAX_NEWS {
            sharing.news.push_back(*address);
        }
    }

    /// Takes note that this relay itself hears a peer.
    pub(super) fn claim(&mut self, index: PeerIndex) {
        if self.peers[index].state.member != Member::OWN {
            self.assign(index, Member::OWN);
        }
    }

    /// Counts a peer for the relay that it was last heard by.
    fn assign(&mut self, index: PeerIndex, member: Member) {
        let old = std::mem::replace(&mut self.peers[index].state.member, member);
        if let Some(sharing) = &mut self.sharing {
            let entries = &mut sharing.entries;
            if old != Member::OWN {
                entries[old.number()] -= 1;
            }
            if member != Member::OWN {
                entries[member.number()] += 1;
            }
        }
    }

    /// Whether a relay may have this peer among its own.
    fn has_room_for(&self, member: Member, index: PeerIndex) -> bool {
        let is_there = self.peers[index].state.member == member;
        let sharing = self.sharing.as_ref();
        is_there || sharing.is_some_and(|sharing| sharing.has_share(member))
    }
}

impl Sharing {
    fn has_share(&self, member: Member) -> bool {
        let entries = self.entries.get(member.number());
        entries.is_some_and(|&entries| entries < self.share)
    }
}
