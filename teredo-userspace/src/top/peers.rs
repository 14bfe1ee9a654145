//! The peers that the view has seen. It reads one bounded page in each interval, and so goes round a
//! table of any size.

use std::{cmp::Ordering, collections::HashMap, net::Ipv6Addr, time::Duration};

use super::{
    answers::{Both, Cursor, Listing, Page, Peer},
    filter::Filter,
};

/// The most peers that are remembered.
const MOST: usize = 131_072;
/// A shorter time gives no meaningful rate.
const SHORTEST: Duration = Duration::from_millis(50);

/// An order of peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// By packets in a second, the most first.
    #[default]
    Traffic,
    /// By packets since the peer is known, the most first.
    Total,
    /// By the last packet of the peer, the newest first.
    Heard,
    /// By address.
    Address,
}

impl Order {
    /// All orders, as the key goes through them.
    pub const ALL: [Self; 4] = [Self::Traffic, Self::Total, Self::Heard, Self::Address];

    /// Returns the next order.
    pub fn next(self) -> Self {
        let place = Self::ALL.iter().position(|order| *order == self);
        Self::ALL[(place.unwrap_or_default() + 1) % Self::ALL.len()]
    }

    /// The name for the user.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Traffic => "traffic",
            Self::Total => "total",
            Self::Heard => "last heard",
            Self::Address => "address",
        }
    }
}

/// The traffic of a peer in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PeerRate {
    /// Packets to the peer.
    pub packets_encap: f64,
    /// Packets from it.
    pub packets_decap: f64,
    /// Octets to the peer.
    pub bytes_encap: f64,
    /// Octets from it.
    pub bytes_decap: f64,
}

impl PeerRate {
    /// Packets in both directions.
    pub fn packets(self) -> f64 {
        self.packets_encap + self.packets_decap
    }
}

/// A peer as it was seen last.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The peer.
    pub peer: Peer,
    /// When it was seen.
    pub at: Duration,
    /// Its traffic since it was seen before.
    pub rate: Option<PeerRate>,
    round: u64,
}

impl Observed {
    /// Returns the seconds since a packet of the peer arrived.
    pub fn heard(&self, now: Duration) -> Option<f64> {
        let seconds = self.peer.last_received_seconds?;
        Some(seconds + now.saturating_sub(self.at).as_secs_f64())
    }

    /// Returns the seconds since a packet was sent to the peer.
    pub fn sent(&self, now: Duration) -> Option<f64> {
        let seconds = self.peer.last_sent_seconds?;
        Some(seconds + now.saturating_sub(self.at).as_secs_f64())
    }

    fn total(&self) -> u64 {
        self.peer.packets.map(Both::total).unwrap_or_default()
    }
}

/// The peers that were seen.
#[derive(Debug, Default)]
pub struct Peers {
    table: HashMap<Ipv6Addr, Observed>,
    round: u64,
    cursor: Option<Cursor>,
    began: Duration,
    /// The length of the last complete round.
    length: Option<Duration>,
    is_counted: bool,
    is_refused: bool,
    is_full: bool,
    sorted: Vec<Ipv6Addr>,
}

impl Peers {
    /// Returns the beginning of the next page.
    pub fn cursor(&self) -> Option<Cursor> {
        self.cursor.clone()
    }

    /// Begins anew, as for another filter.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Begins the round anew and forgets the rates, as for another process of the daemon.
    pub fn restart(&mut self) {
        self.cursor = None;
        for observed in self.table.values_mut() {
            observed.peer.packets = None;
            observed.peer.bytes = None;
            observed.rate = None;
        }
    }

    /// Adds what the daemon lists.
    pub fn handle_listing(&mut self, now: Duration, listing: Listing) {
        let page = match listing {
            Listing::Page(page) => page,
            Listing::TooMany => {
                self.clear();
                self.is_refused = true;
                return;
            }
        };
        self.is_refused = false;
        if self.cursor.is_none() {
            self.began = now;
        }
        let Page { peers, next } = page;
        for peer in peers {
            self.observe(now, peer);
        }
        // A cursor that stays would stop the round.
        self.cursor = next.filter(|next| Some(next) != self.cursor.as_ref());
        if self.cursor.is_none() {
            let round = self.round;
            self.table.retain(|_, observed| observed.round == round);
            self.round += 1;
            self.length = Some(now.saturating_sub(self.began));
        }
    }

    /// Adds a peer, or what is new about it.
    pub fn observe(&mut self, now: Duration, peer: Peer) {
        let round = self.round;
        self.is_counted = peer.packets.is_some();
        if let Some(observed) = self.table.get_mut(&peer.address) {
            let seconds = now.saturating_sub(observed.at);
            observed.round = round;
            if seconds < SHORTEST {
                return;
            }
            observed.rate = rate(&observed.peer, &peer, seconds);
            observed.peer = peer;
            observed.at = now;
        } else if self.table.len() < MOST {
            let observed = Observed {
                at: now,
                rate: None,
                round,
                peer,
            };
            self.table.insert(observed.peer.address, observed);
        } else {
            self.is_full = true;
        }
    }

    /// Sorts the peers that the filter admits.
    pub fn sort(&mut self, filter: &Filter, order: Order, is_reversed: bool) {
        let mut peers: Vec<_> = self
            .table
            .values()
            .filter(|observed| filter.admits(&observed.peer))
            .collect();
        peers.sort_unstable_by(|a, b| {
            let order = compare(order, a, b);
            if is_reversed { order.reverse() } else { order }
        });
        self.sorted = peers
            .into_iter()
            .map(|observed| observed.peer.address)
            .collect();
    }

    /// Returns the addresses in order.
    pub fn sorted(&self) -> &[Ipv6Addr] {
        &self.sorted
    }

    /// Returns a peer.
    pub fn get(&self, address: &Ipv6Addr) -> Option<&Observed> {
        self.table.get(address)
    }

    /// Whether the daemon counts the traffic of its peers.
    pub fn are_counted(&self) -> bool {
        self.is_counted
    }

    /// Whether the daemon has too many peers for a list, and no pages.
    pub fn are_refused(&self) -> bool {
        self.is_refused
    }

    /// Whether there are more peers than are remembered.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// Returns the length of a round through all peers, if it takes more than one page.
    pub fn round(&self) -> Option<Duration> {
        self.length.filter(|length| !length.is_zero())
    }

    /// Whether the first round has not ended yet.
    pub fn is_first_round(&self) -> bool {
        self.length.is_none()
    }
}

/// Compares peers, which are never equal, so that every order can be reversed.
fn compare(order: Order, a: &Observed, b: &Observed) -> Ordering {
    let rate = |observed: &Observed| observed.rate.map_or(-1.0, PeerRate::packets);
    let heard = |observed: &Observed| {
        // Moments, since peers were seen at different times.
        let seconds = observed.peer.last_received_seconds.unwrap_or(f64::INFINITY);
        observed.at.as_secs_f64() - seconds
    };
    let ordering = match order {
        Order::Traffic => rate(b)
            .total_cmp(&rate(a))
            .then_with(|| b.total().cmp(&a.total()))
            .then_with(|| heard(b).total_cmp(&heard(a))),
        Order::Total => b.total().cmp(&a.total()),
        Order::Heard => heard(b).total_cmp(&heard(a)),
        Order::Address => Ordering::Equal,
    };
    ordering.then_with(|| a.peer.address.cmp(&b.peer.address))
}

/// Returns the traffic between two moments; `None` if the counters began anew meanwhile.
fn rate(before: &Peer, after: &Peer, time: Duration) -> Option<PeerRate> {
    let per_second =
        |before: u64, after: u64| Some(after.checked_sub(before)? as f64 / time.as_secs_f64());
    let (packets, earlier) = (after.packets?, before.packets?);
    let (bytes, bytes_earlier) = (after.bytes?, before.bytes?);
    Some(PeerRate {
        packets_encap: per_second(earlier.encap, packets.encap)?,
        packets_decap: per_second(earlier.decap, packets.decap)?,
        bytes_encap: per_second(bytes_earlier.encap, bytes.encap)?,
        bytes_decap: per_second(bytes_earlier.decap, bytes.decap)?,
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{peer, sent},
        *,
    };

    fn page(peers: impl IntoIterator<Item = Peer>, next: Option<u64>) -> Listing {
        Listing::Page(Page {
            peers: peers.into_iter().collect(),
            next: next.map(Cursor::Number),
        })
    }

    fn sorted(peers: &mut Peers, order: Order) -> Vec<u8> {
        peers.sort(&Filter::default(), order, false);
        let addresses = peers.sorted().iter();
        addresses.map(|address| !address.octets()[15]).collect()
    }

    #[test]
    fn a_round_goes_through_all_pages_and_forgets_the_gone() {
        let mut peers = Peers::default();
        let second = Duration::from_secs(1);
        peers.handle_listing(second, page([peer(1), peer(2)], Some(2)));
        assert_eq!(peers.cursor(), Some(Cursor::Number(2)));
        assert!(peers.is_first_round());
        peers.handle_listing(second * 2, page([peer(3)], None));
        assert_eq!(peers.cursor(), None);
        assert_eq!(peers.round(), Some(second));
        assert_eq!(sorted(&mut peers, Order::Address), [3, 2, 1]);
        peers.handle_listing(second * 3, page([peer(1)], Some(2)));
        assert_eq!(peers.sorted().len(), 3, "the others may be on a later page");
        peers.handle_listing(second * 4, page([], None));
        assert_eq!(sorted(&mut peers, Order::Address), [1]);
    }

    #[test]
    fn a_cursor_that_stays_ends_the_round() {
        let mut peers = Peers::default();
        peers.handle_listing(Duration::ZERO, page([peer(1)], Some(2)));
        peers.handle_listing(Duration::ZERO, page([peer(1)], Some(2)));
        assert_eq!(peers.cursor(), None);
    }

    #[test]
    fn peers_are_sorted_by_their_traffic() {
        let mut peers = Peers::default();
        let start = [sent(peer(1), 9_000), sent(peer(2), 100), peer(3)];
        peers.handle_listing(Duration::ZERO, page(start, None));
        let later = [sent(peer(1), 9_001), sent(peer(2), 300), peer(3)];
        peers.handle_listing(Duration::from_secs(2), page(later, None));
        assert_eq!(sorted(&mut peers, Order::Traffic), [2, 1, 3]);
        assert_eq!(sorted(&mut peers, Order::Total), [1, 2, 3]);
        let rate = peers.get(&peer(2).address).unwrap().rate.unwrap();
        assert_eq!((rate.packets_encap, rate.packets_decap), (100.0, 0.0));
        // Another process counts anew.
        let anew = [sent(peer(1), 5)];
        peers.handle_listing(Duration::from_secs(3), page(anew, None));
        assert_eq!(peers.get(&peer(1).address).unwrap().rate, None);
    }

    #[test]
    fn every_order_can_be_reversed() {
        let mut peers = Peers::default();
        // Some differ only in their addresses.
        let start = [1, 2, 3, 4, 5].map(peer).map(|peer| sent(peer, 5));
        peers.handle_listing(Duration::ZERO, page(start, None));
        let later = [
            sent(peer(1), 9),
            peer(2),
            sent(peer(3), 5),
            peer(4),
            peer(5),
        ];
        peers.handle_listing(Duration::from_secs(1), page(later, None));
        for order in Order::ALL {
            let mut expected = sorted(&mut peers, order);
            expected.reverse();
            peers.sort(&Filter::default(), order, true);
            let reversed = peers.sorted().iter().map(|address| !address.octets()[15]);
            assert_eq!(reversed.collect::<Vec<_>>(), expected, "{order:?}");
        }
    }

    #[test]
    fn ages_grow_between_two_looks_at_a_peer() {
        let mut peers = Peers::default();
        let mut old = peer(1);
        old.last_received_seconds = Some(3.0);
        peers.observe(Duration::from_secs(5), old.clone());
        let observed = peers.get(&old.address).unwrap();
        assert_eq!(observed.heard(Duration::from_secs(9)), Some(7.0));
        assert_eq!(observed.sent(Duration::from_secs(9)), None);
    }

    #[test]
    fn memory_is_bounded() {
        let mut peers = Peers::default();
        let many = (0..MOST + 10).map(|number| {
            let mut peer = peer(1);
            peer.address = Ipv6Addr::from_bits(number as u128);
            peer
        });
        peers.handle_listing(Duration::ZERO, page(many, None));
        assert_eq!(peers.table.len(), MOST);
        assert!(peers.is_full());
        peers.handle_listing(Duration::ZERO, Listing::TooMany);
        assert!(peers.are_refused());
        assert!(peers.table.is_empty());
    }
}
