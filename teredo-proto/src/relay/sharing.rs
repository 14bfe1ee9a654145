//! Peers that the relays of a fleet tell each other about (requirements F-10 to F-24).
//!
//! What a relay of the fleet says about a peer counts as if its packet had come here, within bounds: it
//! has to pass the checks for peers of this relay's own, it takes no peer away from a relay that hears
//! it, and a relay has its share of the table and no more.

use std::{collections::VecDeque, ops::Range, time::Duration};

use teredo_common::{address::Endpoint, cookie::CookieKey, time::Instant};

use super::{
    Relay,
    hearing::{Hearings, Member},
};
use crate::shared::{counts::named, party::NOBODY, peers::PeerIndex};

/// A peer's silence is known to be shorter when a report says that it is by as much. Reports come every five
/// seconds; those of a member that never stops must not hide what the fast path sees, which tells seconds.
const STEP: Duration = Duration::from_secs(3);
/// A peer whose cookie came back again is not worth another report for this time (F-13).
const REPETITION: Duration = Duration::from_millis(100);
/// Bound on peers that wait to be told about. The next round makes up for those that are lost.
const MAX_NEWS: usize = 65_536;

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
    /// What the relays of the fleet said of all peers.
    hearings: Hearings,
}

impl Sharing {
    /// Returns whether there is a peer to tell about.
    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }
}

impl Relay {
    /// Makes the relay one of a fleet: its cookies are those of all (F-02), and it keeps the news that
    /// [`Relay::poll_news`] returns. `skew` is the largest difference between their clocks.
    pub fn join_fleet(&mut self, now: Instant, cookies: &[CookieKey], skew: Duration) {
        self.share_cookies(cookies, skew);
        if self.sharing.is_some() {
            return;
        }
        let mut hearings = Hearings::new(self.config.max_peers, self.config.peer_lifetime);
        for (index, peer) in self.peers.iter().filter(|(_, peer)| peer.is_trusted()) {
            hearings.adopt(index.slot(), peer.last_received, now);
        }
        self.sharing = Some(Box::new(Sharing {
            news: VecDeque::new(),
            hearings,
        }));
    }

    /// Sets the keys of the fleet's cookies (F-04).
    pub fn share_cookies(&mut self, cookies: &[CookieKey], skew: Duration) {
        self.cookie.share(cookies, skew);
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
        self.turns.divide_among(relays);
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

    /// Returns the report of a peer that this relay heard itself, for all others.
    pub fn tell(&mut self, now: Instant, address: &[u8; 16]) -> Option<Report> {
        let index = self.peers.find(address)?;
        let report = self.report_of(now, index)?;
        let age = self.sharing.as_mut()?.hearings.tell(index.slot(), now)?;
        Some(Report {
            last_received: now - age,
            ..report
        })
    }

    /// Appends the reports of peers in these slots that this relay heard later than it told (F-12).
    pub fn tell_slots(&mut self, now: Instant, slots: Range<usize>, reports: &mut Vec<Report>) {
        let Some(sharing) = &mut self.sharing else {
            return;
        };
        let peers = self.peers.in_slots(slots);
        let news = peers.filter(|&(slot, peer)| {
            let is_news = sharing.hearings.is_news(slot, now);
            is_news && peer.is_trusted()
        });
        let news: Vec<[u8; 16]> = news.map(|(_, peer)| peer.address).collect();
        reports.extend(news.iter().filter_map(|address| self.tell(now, address)));
    }

    /// Appends the reports of the usable peers in these slots that are counted for the relays that `is_wanted`
    /// names.
    pub fn reports(
        &self,
        now: Instant,
        slots: Range<usize>,
        is_wanted: impl Fn(Member) -> bool,
        reports: &mut Vec<Report>,
    ) {
        let hearings = self.sharing.as_ref().map(|sharing| &sharing.hearings);
        let peers = self.peers.in_slots(slots).filter(|(slot, _)| {
            let member = hearings.map_or(Member::OWN, |hearings| hearings.member(*slot));
            is_wanted(member)
        });
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
        let Some(sharing) = &self.sharing else {
            return Learned::Full;
        };
        let (hearings, slot) = (&sharing.hearings, index.slot());
        let peer = &self.peers[index];
        let (is_usable, is_here) = (self.peers.is_usable(now, index), peer.mapped == mapped);
        if is_usable && is_here {
            return self.learn_newer(now, member, index, report);
        }
        if is_usable && report.last_received <= peer.last_received {
            return Learned::Old;
        }
        if !is_here && !hearings.may_move(slot, member, now) {
            return Learned::HeldElsewhere;
        }
        let is_crowded = self.peers.is_trusted_full() && !peer.is_trusted() && !peer.is_asked();
        if is_crowded || !hearings.has_room_for(slot, member) {
            return Learned::Full;
        }
        self.adopt_report(now, member, index, report);
        Learned::Peer
    }

    fn learn_peer(&mut self, now: Instant, member: Member, report: &Report) -> Learned {
        let sharing = self.sharing.as_ref();
        let has_share = sharing.is_some_and(|sharing| sharing.hearings.has_share(member));
        if self.peers.is_trusted_full() || !has_share {
            return Learned::Full;
        }
        self.make_room();
        let index = self.peers.insert(report.address, report.mapped, NOBODY);
        self.adopt_report(now, member, index, report);
        Learned::Peer
    }

    /// Trusts a peer because of a report.
    fn adopt_report(&mut self, now: Instant, member: Member, index: PeerIndex, report: &Report) {
        self.trust_as_of(now, report.last_received, index, report.mapped);
        if let Some(sharing) = &mut self.sharing {
            let hearings = &mut sharing.hearings;
            hearings.move_by(index.slot(), member, report.last_received);
        }
        let peer = &mut self.peers[index];
        peer.last_sent = peer.last_sent.max(report.last_sent);
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
        let heard = report.last_received;
        let is_confirmed = (self.sharing.as_mut())
            .is_some_and(|sharing| sharing.hearings.confirm(index.slot(), member, heard, now));
        if !is_confirmed {
            return Learned::Full;
        }
        let peer = &self.peers[index];
        let step = match peer.pending {
            Some(_) => Duration::from_nanos(1),
            None => STEP,
        };
        let is_newer = heard >= peer.last_received + step;
        let is_proof = report.proved > peer.state.proved();
        if is_newer {
            let is_due = now >= peer.next_touch;
            if peer.pending.is_some() {
                // It answers the bubbles that were sent from here.
                self.trust_as_of(now, heard, index, report.mapped);
            } else {
                self.peers[index].last_received = heard;
                self.earn_credit(index);
            }
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
        let Some(sharing) = &mut self.sharing else {
            return;
        };
        let is_repeated = !is_change && sharing.hearings.was_told(index.slot(), REPETITION);
        if !is_repeated && sharing.news.len() < MAX_NEWS {
            sharing.news.push_back(*address);
        }
    }

    /// Takes note that this relay itself heard a peer at its mapping.
    pub(super) fn claim(&mut self, index: PeerIndex, heard: Instant) {
        if let Some(sharing) = &mut self.sharing {
            sharing.hearings.hear(index.slot(), heard);
        }
    }

    /// Takes note that a peer from the fast path's map was heard.
    pub(super) fn adopt_hearing(&mut self, now: Instant, index: PeerIndex) {
        if let Some(sharing) = &mut self.sharing {
            let last_received = self.peers[index].last_received;
            (sharing.hearings).adopt(index.slot(), last_received, now);
        }
    }

    /// Forgets what the fleet said of a peer, which is removed, or heard at another mapping.
    pub(super) fn forget_hearing(&mut self, index: PeerIndex) {
        if let Some(sharing) = &mut self.sharing {
            sharing.hearings.forget(index.slot());
        }
    }
}
