//! The table against a model of it, and its choice of those who leave.

use std::{ops::Range, time::Duration};

use super::*;
use crate::shared::peers::Patience;
use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::StdRng};

const MAX: usize = 24;

const TIMING: Timing = Timing {
    lifetime: Duration::from_secs(30),
    refresh_after: Duration::from_secs(25),
    grace: Duration::ZERO,
};

/// A role that adds nothing.
#[derive(Debug, Default)]
struct Plain;

impl RoleState for Plain {
    const PATIENCE: Patience = Patience::BackOff;

    fn may_refresh(_peer: &Peer<Self>, _now: Instant, _lifetime: Duration) -> bool {
        false
    }

    fn displaces_untrusted(_peer: &Peer<Self>) -> bool {
        false
    }
}

fn table() -> Peers<Plain> {
    Peers::new(MAX, TIMING, Keyed::new(&mut StdRng::from_seed([1; 32])))
}

fn address(number: u8) -> [u8; 16] {
    [number; 16]
}

#[test]
fn p02_a_new_peer_is_neither_trusted_nor_fresh() {
    let mut peers = table();
    let index = peers.insert(address(1), Endpoint::default(), NOBODY);
    let peer = &peers[index];
    assert!(!peer.is_trusted());
    assert!(!peers.is_usable(Instant::ZERO, index));
    assert!(peer.pending.is_none());
    assert_eq!(peers.find(&address(1)), Some(index));
    assert_eq!(peers.find(&address(2)), None);
}

#[test]
fn p03_usable_is_trusted_and_fresh() {
    let mut peers = table();
    let index = peers.insert(address(1), Endpoint::default(), NOBODY);
    peers.trust(index);
    let now = Instant::from_nanos(100_000_000_000);
    peers[index].last_received = now;
    let end = now + TIMING.lifetime;
    assert!(peers.is_usable(end - Duration::from_nanos(1), index));
    assert!(!peers.is_usable(end, index));
}

#[test]
fn p06_an_eighth_is_for_the_untrusted() {
    for (max, untrusted) in [(0, 1), (2, 1), (16, 2), (65_536, 8_192)] {
        let peers = Peers::<Plain>::new(max, TIMING, Keyed::new(&mut StdRng::from_seed([1; 32])));
        assert_eq!(peers.max_untrusted, untrusted);
        assert_eq!(peers.max_untrusted + peers.max_trusted, max.max(2));
    }
}

/// A table that fills by itself.
struct Filled(Peers<Plain>);

impl Filled {
    fn new(max_untrusted: usize) -> Self {
        let keyed = Keyed::new(&mut StdRng::from_seed([1; 32]));
        Self(Peers::new(max_untrusted * 8, TIMING, keyed))
    }

    fn insert(&mut self, number: u32, party: Party) {
        if let Some(heaviest) = self.0.make_room() {
            self.0.remove(heaviest);
        }
        (self.0).insert(Self::address(number), Endpoint::default(), party);
    }

    /// Those of some peers that were not pushed out.
    fn left(&self, numbers: Range<u32>) -> usize {
        let left = numbers.filter(|&number| self.0.find(&Self::address(number)).is_some());
        left.count()
    }

    fn address(number: u32) -> [u8; 16] {
        let mut address = [0; 16];
        address[..4].copy_from_slice(&number.to_be_bytes());
        address
    }
}

#[test]
fn p06_a_flood_pushes_out_its_own_entries() {
    let mut table = Filled::new(64);
    for number in 0..20 {
        table.insert(number, [0x20, 0, 0, number as u8, 0, 0, 0, 0]);
    }
    for number in 20..20_000_u32 {
        // One network, of which every /64 asks once.
        let [_, a, b, c] = number.to_be_bytes();
        table.insert(number, [0x30, 0, 0, 0, 0, a, b, c]);
    }
    assert_eq!(table.left(0..20), 20);
}

#[test]
fn p06_in_a_flood_from_everywhere_two_peers_are_no_large_share() {
    let mut table = Filled::new(1024);
    let everywhere = |first, number: u32| [first, number as u8, (number >> 8) as u8, 0, 0, 0, 0, 0];
    for number in 0..1024 {
        table.insert(number, everywhere(3, number));
    }
    for number in 1024..1034 {
        table.insert(number, [0x20, 0, 0, 0, 0, 0, 0, number as u8]);
    }
    for number in 2000..2900 {
        table.insert(number, everywhere(4, number));
    }
    assert_eq!(table.left(1024..1034), 10);
}

/// The expected contents of the table: most recently used first.
#[derive(Default)]
struct Model {
    trusted: Vec<u8>,
    untrusted: Vec<u8>,
}

impl Model {
    fn forget(&mut self, number: u8) -> bool {
        let is_trusted = self.trusted.contains(&number);
        self.trusted.retain(|&other| other != number);
        self.untrusted.retain(|&other| other != number);
        is_trusted
    }

    fn knows(&self, number: u8) -> bool {
        self.trusted.contains(&number) || self.untrusted.contains(&number)
    }
}

proptest! {
    #[test]
    fn p06_the_table_behaves_like_two_lists(
        steps in prop::collection::vec((0_u8..5, 0_u8..60), 1..400)
    ) {
        let (mut peers, mut model) = (table(), Model::default());
        let (max_trusted, max_untrusted) = (MAX - MAX / 8, MAX / 8);
        for (action, number) in steps {
            let found = peers.find(&address(number));
            prop_assert_eq!(found.is_some(), model.knows(number));
            match (action, found) {
                (0 | 1, None) => {
                    if let Some(oldest) = peers.make_room() {
                        prop_assert_eq!(&peers[oldest].address, &address(model.untrusted.pop().unwrap()));
                        peers.remove(oldest);
                    }
                    peers.insert(address(number), Endpoint::default(), NOBODY);
                    model.untrusted.insert(0, number);
                }
                (0 | 1, Some(index)) if !peers[index].is_trusted() => {
                    if let Some(oldest) = peers.make_trusted_room() {
                        prop_assert_eq!(&peers[oldest].address, &address(model.trusted.pop().unwrap()));
                        peers.remove(oldest);
                    }
                    peers.trust(index);
                    model.forget(number);
                    model.trusted.insert(0, number);
                }
                (2, Some(index)) => {
                    peers.touch(index);
                    if model.forget(number) {
                        model.trusted.insert(0, number);
                    } else {
                        model.untrusted.insert(0, number);
                    }
                }
                (3, Some(index)) if peers[index].is_trusted() && !peers.is_untrusted_full() => {
                    peers.distrust(index);
                    model.forget(number);
                    model.untrusted.push(number);
                }
                (4, Some(index)) => {
                    peers.remove(index);
                    model.forget(number);
                    prop_assert!(!peers.iter().any(|(other, _)| other == index));
                }
                _ => {}
            }
            prop_assert_eq!(peers.trusted(), model.trusted.len());
            prop_assert_eq!(peers.untrusted(), model.untrusted.len());
            prop_assert!(peers.trusted() <= max_trusted && peers.untrusted() <= max_untrusted);
            prop_assert!(peers.slots.len() <= MAX);
            prop_assert_eq!(peers.iter().count(), peers.trusted() + peers.untrusted());
            for (index, peer) in peers.iter() {
                prop_assert_eq!(peers.find(&peer.address), Some(index));
                prop_assert_eq!(peer.is_trusted(), model.trusted.contains(&peer.address[0]));
            }
        }
    }
}
