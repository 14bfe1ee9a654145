use std::{
    collections::{HashMap, HashSet},
    net::Ipv4Addr,
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
    thread,
    vec::Vec,
};

use bytemuck::Zeroable as _;
use proptest::prelude::*;
use teredo_common::{
    address::{Endpoint, ServicePrefix, TeredoAddress, embedded_mapping},
    generations::SECOND,
    maps::Settings,
    peers::{HORIZON, Peer},
    time::Instant,
    traffic::Count,
};

use super::Cursor;
use crate::host::{Cpu, Maps};

const NOW: Instant = Instant::from_nanos(70_000 << 30);

fn maps(peers: u32) -> Maps {
    let settings = Settings {
        prefix: ServicePrefix::STANDARD,
        peer_lifetime: 30_000_000_000,
        ..Settings::zeroed()
    };
    Maps::new(settings, peers, 0x5eed)
}

fn teredo(number: u32) -> TeredoAddress {
    let client = Ipv4Addr::from_bits(0x0900_0000 + number);
    // Some share a port.
    let port = 4096 + (number % 9) as u16;
    TeredoAddress::new([1, 2, 3, 4].into(), Endpoint::new(client, port))
}

fn address(number: u32) -> [u8; 16] {
    teredo(number).encode().octets()
}

/// A peer at the mapping in its address, or elsewhere.
fn peer(number: u32, is_symmetric: bool) -> Peer {
    let mapped = match is_symmetric {
        true => Endpoint::new([8, 8, 8, 8].into(), number as u16 | 1),
        false => teredo(number).mapped,
    };
    Peer {
        mapped,
        last_received: NOW,
        last_sent: NOW,
    }
}

/// The search of the program finds exactly the peers of the model, with their mappings.
fn agree(maps: &Maps, model: &HashMap<u32, Peer>, most: u32) {
    for number in 0..most {
        let found = maps.find(&address(number), NOW);
        assert_eq!(
            found,
            model.get(&number).map(|peer| peer.mapped),
            "{number}"
        );
        assert_eq!(
            maps.peer(&address(number), NOW),
            model.get(&number).copied()
        );
    }
    let mut seen = HashMap::new();
    maps.for_each_peer(NOW, |address, peer| {
        assert!(seen.insert(*address, *peer).is_none(), "a peer comes twice");
    });
    let expected = model.iter().map(|(&number, &peer)| (address(number), peer));
    assert_eq!(seen, expected.collect());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn it_behaves_like_a_map(
        steps in prop::collection::vec((0u8..8, 0u32..300), 1..600),
    ) {
        let maps = maps(200);
        let mut model = HashMap::new();
        for (action, number) in steps {
            match action {
                0..5 => {
                    let peer = peer(number, action == 4);
                    let is_there = maps.insert(&address(number), &peer, NOW);
                    prop_assert_eq!(is_there, model.len() < 200 || model.contains_key(&number));
                    if is_there {
                        model.insert(number, peer);
                    }
                }
                _ => {
                    maps.remove(&address(number), NOW);
                    model.remove(&number);
                }
            }
        }
        agree(&maps, &model, 300);
        // Until nothing is left.
        for number in 0..300 {
            maps.remove(&address(number), NOW);
            model.remove(&number);
            if number % 50 == 0 {
                agree(&maps, &model, 300);
            }
        }
    }
}

/// The packets that were counted, by peer, as a daemon collects them.
#[derive(Default)]
struct Account(HashMap<[u8; 16], Count>);

impl Account {
    /// Collects everything that a daemon can.
    fn collect(&mut self, maps: &Maps) {
        let mut cursor = Cursor::default();
        maps.visit_peers(&mut cursor, usize::MAX, NOW, |address, _, traffic| {
            *self.0.entry(*address).or_default() += traffic.encap;
        });
        for (address, traffic) in maps.take_left() {
            *self.0.entry(address).or_default() += traffic.encap;
        }
    }

    /// Collects what a daemon has left behind.
    fn collect_rest(&mut self, maps: &Maps) {
        maps.collect(|address, traffic| *self.0.entry(*address).or_default() += traffic.encap);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_packet_is_counted_for_its_peer_however_the_table_changes(
        steps in prop::collection::vec((0u8..16, 0u32..120), 1..900),
    ) {
        let maps = maps(100);
        // The last two share the words of CPUs without own ones.
        let cpus: Vec<_> = (0..4).map(Cpu::numbered).collect();
        let (mut account, mut expected) = (Account::default(), HashMap::<_, Count>::new());
        for (action, number) in steps {
            let address = address(number);
            match action {
                0..4 => {
                    maps.insert(&address, &peer(number, action == 3), NOW);
                }
                4 => maps.remove(&address, NOW),
                5 => account.collect(&maps),
                _ => {
                    let octets = 41 + number as usize;
                    if maps.count(&address, NOW, &cpus[usize::from(action) % 4], octets) {
                        expected.entry(address).or_default().add(octets);
                    }
                }
            }
        }
        // The next daemon finds the rest.
        for (address, traffic) in maps.take_left() {
            *account.0.entry(address).or_default() += traffic.encap;
        }
        account.collect_rest(&maps);
        account.collect_rest(&maps);
        account.0.retain(|_, count| count.packets > 0);
        prop_assert_eq!(account.0, expected);
    }
}

#[test]
fn cpus_that_share_words_lose_no_packet() {
    const PACKETS: u64 = 20_000;
    let maps = maps(20);
    for number in 0..3 {
        maps.insert(&address(number), &peer(number, number == 2), NOW);
    }
    thread::scope(|scope| {
        for cpu in 0..5 {
            let maps = &maps;
            scope.spawn(move || {
                let cpu = Cpu::numbered(cpu);
                for packet in 0..PACKETS {
                    assert!(maps.count(&address(packet as u32 % 3), NOW, &cpu, 100));
                }
            });
        }
    });
    let mut account = Account::default();
    account.collect(&maps);
    let packets: u64 = account.0.values().map(|count| count.packets).sum();
    let octets: u64 = account.0.values().map(|count| count.octets).sum();
    assert_eq!((packets, octets), (5 * PACKETS, 500 * PACKETS));
}

/// The search of the program looks for flags and port at first.
#[test]
fn peers_that_share_flags_and_port_are_found() {
    const PEERS: u32 = 2_000;
    let address = |number: u32| {
        let mut address = address(0);
        address[13..].copy_from_slice(&number.to_be_bytes()[1..]);
        address
    };
    let maps = maps(PEERS);
    let peer = |number| Peer {
        mapped: embedded_mapping(&address(number)),
        ..peer(0, false)
    };
    for number in 0..PEERS {
        assert!(maps.insert(&address(number), &peer(number), NOW));
    }
    for number in 0..PEERS {
        let mapped = maps.find(&address(number), NOW);
        assert_eq!(mapped, Some(peer(number).mapped), "{number}");
    }
    assert_eq!(maps.find(&address(PEERS), NOW), None);
}

#[test]
fn the_table_grows_and_shrinks_with_its_peers() {
    let most = 5_000;
    let maps = maps(most);
    let mut model = HashMap::new();
    let empty = maps.sets().count();
    for number in 0..most {
        assert!(maps.insert(&address(number), &peer(number, false), NOW));
        model.insert(number, peer(number, false));
        // Few are not in their sets, however many there are.
        let in_slots = maps.peers_in_slots();
        assert!(
            in_slots * 12 < number as usize + 60,
            "{in_slots} of {number}"
        );
    }
    assert!(
        !maps.insert(&address(most), &peer(most, false), NOW),
        "is full"
    );
    agree(&maps, &model, most + 1);
    let full = maps.sets().count();
    assert!((most * 4 / 8..most).contains(&full), "{full} sets");
    for number in 0..most {
        maps.remove(&address(number), NOW);
        model.remove(&number);
        if number % 1_000 == 0 {
            agree(&maps, &model, most);
        }
    }
    assert_eq!(maps.peers_in_slots(), 0);
    assert!(maps.sets().count() < full / 4);
    assert!(maps.sets().count() >= empty);
}

#[test]
fn two_visits_in_parts_find_every_peer_while_the_table_grows_and_shrinks() {
    const PEERS: u32 = 1_000;
    let maps = maps(10_000);
    for number in 0..PEERS {
        // Some of them are in slots.
        maps.insert(&address(number), &peer(number, number % 10 == 0), NOW);
    }
    let mut other = PEERS;
    for is_growing in [true, false] {
        let mut found = HashSet::new();
        for _ in 0..2 {
            let (mut cursor, mut parts) = (Cursor::default(), 0);
            while !maps.visit_peers(&mut cursor, 7, NOW, |address, _, _| {
                _ = found.insert(*address);
            }) {
                parts += 1;
                for _ in 0..5 {
                    if is_growing {
                        maps.insert(&address(other), &peer(other, false), NOW);
                        other += 1;
                    } else if other > PEERS {
                        other -= 1;
                        maps.remove(&address(other), NOW);
                    }
                }
            }
            assert!(parts > 50, "{parts}");
        }
        assert!((0..PEERS).all(|number| found.contains(&address(number))));
    }
}

#[test]
fn a_peer_that_moves_is_at_its_new_mapping_alone() {
    let maps = maps(10);
    for is_symmetric in [false, true, true, false, true] {
        let peer = peer(1, is_symmetric);
        assert!(maps.insert(&address(1), &peer, NOW));
        assert_eq!(maps.find(&address(1), NOW), Some(peer.mapped));
    }
    maps.remove(&address(1), NOW);
    assert_eq!(maps.find(&address(1), NOW), None);
}

#[test]
fn stamps_only_advance() {
    let maps = maps(10);
    for is_symmetric in [false, true] {
        let known = peer(1, is_symmetric);
        maps.insert(&address(1), &known, NOW);
        let older = Peer {
            last_received: NOW - SECOND * 7,
            last_sent: NOW + SECOND * 3,
            ..known
        };
        let later = NOW + SECOND * 5;
        maps.insert(&address(1), &older, later);
        let expected = Peer {
            last_sent: NOW + SECOND * 3,
            ..known
        };
        assert_eq!(maps.peer(&address(1), later), Some(expected));
        maps.remove(&address(1), later);
    }
}

/// Stamps are modulo nine hours; a sweep keeps those that are older from looking young.
#[test]
fn a_peer_that_was_silent_for_days_stays_old() {
    let maps = maps(10);
    maps.insert(&address(1), &peer(1, false), NOW);
    maps.insert(&address(2), &peer(2, true), NOW);
    let mut now = NOW;
    for _ in 0..30 {
        now += SECOND * (HORIZON / 2);
        maps.for_each_peer(now, |_, peer| {
            assert!(peer.last_received + SECOND * (HORIZON / 2) <= now);
        });
        for number in [1, 2] {
            assert_eq!(maps.find(&address(number), now), None, "it is stale");
        }
    }
}

/// Without a daemon the age of a stamp is known for half of nine hours, and then for no stamp.
#[test]
fn without_a_daemon_no_peer_is_fresh_in_the_end() {
    let maps = maps(10);
    for number in [1, 2] {
        maps.insert(&address(number), &peer(number, number == 2), NOW);
    }
    let mut fresh = 0;
    for second in 0..200_000 {
        let now = NOW + SECOND * second;
        fresh += u32::from(maps.find(&address(1), now).is_some());
        fresh += u32::from(maps.find(&address(2), now).is_some());
    }
    let lifetime = 30_000_000_000_u64 / SECOND.as_nanos() as u64;
    assert_eq!(u64::from(fresh), 2 * lifetime);
}

/// The program finds a peer at any moment, while others make the table grow and shrink.
#[test]
fn a_peer_is_never_lost_while_the_table_changes() {
    let maps = maps(4_000);
    let lasting = 0..200_u32;
    for number in lasting.clone() {
        maps.insert(&address(number), &peer(number, number % 8 == 0), NOW);
    }
    let is_over = AtomicBool::new(false);
    let changes = AtomicU64::new(0);
    thread::scope(|scope| {
        let look = || {
            let mut rounds = 0;
            while !is_over.load(Relaxed) || rounds == 0 {
                rounds += 1;
                for number in lasting.clone() {
                    let expected = peer(number, number % 8 == 0).mapped;
                    loop {
                        let before = changes.load(SeqCst);
                        let found = maps.find(&address(number), NOW);
                        if found.is_some() {
                            assert_eq!(found, Some(expected), "{number}");
                            break;
                        }
                        // It may be missed once a second change has begun. The count is odd during a change.
                        let second = before + 3 - before % 2;
                        assert!(changes.load(SeqCst) >= second, "{number}");
                    }
                }
            }
        };
        let readers: Vec<_> = (0..2).map(|_| scope.spawn(look)).collect();
        for _ in 0..10 {
            for number in 1_000..3_000 {
                changes.fetch_add(1, SeqCst);
                maps.insert(&address(number), &peer(number, false), NOW);
                changes.fetch_add(1, SeqCst);
            }
            for number in 1_000..3_000 {
                changes.fetch_add(1, SeqCst);
                maps.remove(&address(number), NOW);
                changes.fetch_add(1, SeqCst);
            }
        }
        is_over.store(true, Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}
