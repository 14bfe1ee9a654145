//! The program and the daemon at the same slot of the table of peers, in every order of their accesses.
//!
//! Loom runs each test again and again, with every order that the memory model allows, up to a number of
//! preemptions. A packet must leave for its own peer's mapping, by the way to that mapping; and a place
//! must not keep what belongs to its previous owner.

mod machine;

use loom::{model::Builder, sync::Arc, thread};
use teredo_common::{peers::Peer, time::Instant};
use teredo_datapath::Fate;

use machine::{ELSEWHERE, Memory, NATIVE, NOW, SECOND, X, Y, mixture, peer, way};

/// Runs a history in every order with at most this number of preemptions.
fn explore(preemptions: usize, history: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(history);
}

/// A table with the peer `X`, whose way is not cached.
fn with_x() -> Arc<Memory> {
    let memory = Memory::default();
    memory.insert(X, &peer(X));
    Arc::new(memory)
}

/// A table with the peer `X`, whose way is cached.
fn with_cached_x() -> Arc<Memory> {
    let memory = with_x();
    assert_eq!(memory.encapsulate(X), Some((X, way(X))));
    memory
}

/// The daemon gives the slot of X to Y while the program encapsulates a packet for X.
#[test]
fn a_packet_never_leaves_for_another_peer() {
    explore(2, || {
        let memory = with_x();
        let program = {
            let memory = memory.clone();
            thread::spawn(move || memory.encapsulate(X))
        };
        memory.remove(X);
        memory.insert(Y, &peer(Y));
        let sent = program.join().unwrap();
        if let Some((mapped, station)) = sent {
            assert_eq!(mapped, X, "left for another peer");
            assert_eq!(station, way(X), "left by the way of another peer");
        }
    });
}

/// The same, and another CPU encapsulates a packet for Y.
#[test]
fn a_way_is_never_cached_for_the_next_peer_in_the_slot() {
    explore(2, || {
        let memory = with_x();
        let program = {
            let memory = memory.clone();
            thread::spawn(move || memory.encapsulate(X))
        };
        memory.remove(X);
        memory.insert(Y, &peer(Y));
        let own = memory.encapsulate(Y);
        assert_eq!(own, Some((Y, way(Y))));
        let sent = program.join().unwrap();
        assert!(sent.is_none_or(|sent| sent == (X, way(X))), "{sent:?}");
    });
}

/// The program encapsulates a packet for X while the daemon moves it to another mapping.
#[test]
fn a_packet_leaves_by_the_way_to_its_mapping() {
    for start in [with_x, with_cached_x] {
        explore(2, move || {
            let memory = start();
            let program = {
                let memory = memory.clone();
                thread::spawn(move || memory.encapsulate(X))
            };
            memory.insert(X, &peer(Y));
            if let Some((mapped, station)) = program.join().unwrap() {
                assert!(mapped == X || mapped == Y);
                assert_eq!(station, way(mapped), "the way of the other mapping");
            }
        });
    }
}

/// The slot of X goes to Y, whose way is cached, and to X again.
#[test]
fn a_peer_that_returns_to_its_slot_is_another() {
    explore(2, || {
        let memory = with_cached_x();
        let program = {
            let memory = memory.clone();
            thread::spawn(move || memory.encapsulate(X))
        };
        memory.remove(X);
        memory.insert(Y, &peer(Y));
        assert_eq!(memory.encapsulate(Y), Some((Y, way(Y))));
        memory.remove(Y);
        memory.insert(X, &peer(X));
        let sent = program.join().unwrap();
        assert!(sent.is_none_or(|sent| sent == (X, way(X))), "{sent:?}");
    });
}

/// X is stale. The daemon gives its slot to Y, which is not, while a packet of X arrives.
#[test]
fn a_stale_peer_is_never_fresh_by_the_stamp_of_another() {
    explore(2, || {
        let memory = Arc::new(Memory::default());
        let stale = Peer {
            last_received: Instant::from_nanos(NOW - 40 * SECOND),
            ..peer(X)
        };
        memory.insert(X, &stale);
        let program = {
            let memory = memory.clone();
            thread::spawn(move || memory.decapsulate(X, X))
        };
        memory.remove(X);
        memory.insert(Y, &peer(Y));
        assert_eq!(program.join().unwrap(), Fate::Pass);
    });
}

/// The program decapsulates a packet of X, whose stamp is old, while the daemon gives the slot to Y.
#[test]
fn a_packet_never_keeps_another_peer_alive() {
    explore(2, || {
        let memory = with_x();
        let program = {
            let memory = memory.clone();
            thread::spawn(move || memory.decapsulate(X, X))
        };
        memory.remove(X);
        let stale = Peer {
            last_received: Instant::from_nanos(NOW - 40 * SECOND),
            last_sent: Instant::from_nanos(NOW - 40 * SECOND),
            ..peer(Y)
        };
        memory.insert(Y, &stale);
        assert!(matches!(program.join().unwrap(), Fate::Return | Fate::Pass));
        let last_received = memory.get(Y).unwrap().last_received;
        assert_eq!(last_received, stale.last_received, "heard of another peer");
    });
}

/// The slot of Y, which is behind a symmetric NAT, goes to X. Meanwhile a packet with X as its source comes
/// from the mapping of Y.
#[test]
fn a_packet_from_another_peers_mapping_is_never_forwarded() {
    explore(2, || {
        let memory = Arc::new(Memory::default());
        memory.insert(Y, &peer(ELSEWHERE));
        let program = {
            let memory = memory.clone();
            thread::spawn(move || memory.decapsulate(X, ELSEWHERE))
        };
        memory.remove(Y);
        memory.insert(X, &peer(X));
        assert_eq!(program.join().unwrap(), Fate::Pass);
    });
}

/// The program encapsulates a packet for X, which was not sent to for long, while the daemon gives the slot
/// to Y.
#[test]
fn a_packet_is_never_noted_as_sent_to_another_peer() {
    explore(2, || {
        let memory = with_x();
        let program = {
            let memory = memory.clone();
            thread::spawn(move || memory.encapsulate(X))
        };
        memory.remove(X);
        let silent = Peer {
            last_sent: Instant::from_nanos(NOW - 40 * SECOND),
            ..peer(Y)
        };
        memory.insert(Y, &silent);
        program.join().unwrap();
        let last_sent = memory.get(Y).unwrap().last_sent;
        assert_eq!(last_sent, silent.last_sent, "sent to another peer");
    });
}

#[test]
fn all_peers_have_the_same_home() {
    assert!(machine::share_home());
}

/// The place of X goes to Y, while a packet comes whose source is a mixture of both.
#[test]
fn a_mixture_of_two_peers_is_nobody() {
    explore(2, || {
        let memory = with_x();
        let program = {
            let memory = memory.clone();
            thread::spawn(move || memory.decapsulate_from(mixture(), Y, NATIVE).0)
        };
        memory.remove(X);
        memory.insert(Y, &peer(Y));
        assert_eq!(program.join().unwrap(), Fate::Pass);
    });
}

/// The program sees a new peer whole or not at all.
#[test]
fn a_new_peer_is_found_with_all_of_its_fields() {
    explore(2, || {
        let memory = Arc::new(Memory::default());
        let program = {
            let memory = memory.clone();
            thread::spawn(move || memory.encapsulate(X))
        };
        memory.insert(X, &peer(X));
        let sent = program.join().unwrap();
        assert!(sent.is_none_or(|sent| sent == (X, way(X))), "{sent:?}");
        assert_eq!(memory.get(X).unwrap().mapped, peer(X).mapped);
    });
}

/// Two CPUs send packets of X to native hosts whose routes have the same place in the cache.
#[test]
fn a_packet_leaves_by_the_way_to_its_native_host() {
    explore(2, || {
        let memory = with_x();
        // All places but the last are taken, which both of the others take.
        for host in [20, 21] {
            assert_eq!(memory.decapsulate_to(X, X, host).1, way(host));
        }
        let send = |host: u8| {
            let memory = memory.clone();
            thread::spawn(move || {
                // The first packet fills the place, and the second finds it filled, or taken by another.
                for _ in 0..2 {
                    let (fate, station) = memory.decapsulate_to(X, X, host);
                    assert_eq!((fate, station), (Fate::Return, way(host)));
                }
            })
        };
        let threads = [send(200), send(201)];
        for thread in threads {
            thread.join().unwrap();
        }
    });
}
