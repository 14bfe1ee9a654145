//! How often the server sends something.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use teredo_common::{
    limiter::{BUCKETS, Rate, TOTAL_SLOT},
    time::Instant,
};

use super::harness::*;
use crate::server::{Buckets, Config, DropReason, Server, TooFew};

const SECOND: Duration = Duration::from_secs(1);

/// A server with the default limits.
fn limited() -> World {
    World::with(|config| {
        let defaults = Config::new(config.primary, config.secondary);
        config.limits = defaults.limits;
        config.limits.seed = 0x1234_5678_9abc_def0;
    })
}

fn answered(world: &mut World, from: &str, count: usize) -> usize {
    let solicitation = solicitation(SOLICITOR);
    let sent = (0..count).filter(|_| world.receives(from, &solicitation).is_some());
    sent.count()
}

#[test]
fn s23_twenty_at_once_and_ten_a_second_for_each_source() {
    let mut world = limited();
    assert_eq!(answered(&mut world, CLIENT, 100), 20);
    assert_eq!(world.dropped(DropReason::SourceRate), 80);
    // The port does not matter, the address does.
    assert_eq!(answered(&mut world, "9.0.0.1:1", 1), 0);
    assert_eq!(answered(&mut world, "9.0.0.2:4096", 1), 1);
    world.pass(SECOND);
    assert_eq!(answered(&mut world, CLIENT, 100), 10);
    world.pass(10 * SECOND);
    assert_eq!(answered(&mut world, CLIENT, 100), 20);
}

#[test]
fn p04_limits_recover_during_suspension() {
    let mut world = limited();
    assert_eq!(answered(&mut world, CLIENT, 100), 20);
    world.server.handle_suspension(world.now, SECOND / 2);
    assert_eq!(answered(&mut world, CLIENT, 100), 5);
    world.server.handle_suspension(world.now, 3600 * SECOND);
    assert_eq!(answered(&mut world, CLIENT, 100), 20);
}

#[test]
fn s23_each_network_has_a_limit() {
    let mut world = limited();
    let sent: usize = (1..=20)
        .map(|last| answered(&mut world, &format!("9.0.0.{last}:1"), 20))
        .sum();
    assert_eq!(sent, 200);
    assert!(world.dropped(DropReason::NetworkRate) >= 180);
    assert_eq!(answered(&mut world, "9.0.1.1:1", 1), 1, "another network");
    // What the network refused, its sources still have.
    world.pass(SECOND);
    assert_eq!(answered(&mut world, "9.0.0.20:1", 100), 20);
}

#[test]
fn s23_everything_has_a_limit() {
    let mut world = World::with(|config| config.limits.total = Rate::new(100, 50));
    let sent: usize = (0..200)
        .map(|third| answered(&mut world, &format!("9.0.{third}.1:1"), 1))
        .sum();
    assert_eq!(sent, 50);
    assert_eq!(world.dropped(DropReason::TotalRate), 150);
    world.pass(SECOND);
    assert_eq!(answered(&mut world, CLIENT, 1), 1);
}

#[test]
fn s23_every_kind_of_answer_takes_from_the_same_buckets() {
    let (client, host) = (teredo(CLIENT), address(HOST));
    for payload in [
        solicitation(SOLICITOR),
        with_nonce(&solicitation(CONE_SOLICITOR)),
        bubble(&client, &teredo(OTHER)),
        echo(&client, &host),
        echo(&client, &address("ff02::2")),
        echo(&client, &teredo(OTHER)),
    ] {
        let mut world = World::with(|config| config.limits.source = Rate::new(1, 1));
        assert!(world.receives(CLIENT, &payload).is_some());
        for refused in [&payload, &solicitation(SOLICITOR)] {
            assert_eq!(world.receives(CLIENT, refused), None);
        }
        assert_eq!(world.dropped(DropReason::SourceRate), 2);
        world.pass(SECOND);
        assert!(world.receives(CLIENT, &payload).is_some());
    }
}

/// A packet that is refused for any other reason takes no token: nobody is silenced by what others
/// send in his name and the server would not have answered.
#[test]
fn s23_the_rates_come_last() {
    let mut world = World::with(|config| {
        config.limits.source = Rate::new(1, 1);
        config.require_authentication = true;
    });
    let client = teredo(CLIENT);
    for payload in [
        vec![],
        solicitation(SOLICITOR),
        bubble(&client, &client),
        bubble(&client, &teredo("10.0.0.1:1")),
        bubble(&client, &address(HOST)),
        bubble(&teredo(OTHER), &client),
        [&bubble(&client, &teredo(OTHER))[..], &[0; 129]].concat(),
        icmpv6(128, 1, &client, &address(HOST), &[0; 8]),
        icmpv6(129, 9, &client, &address("ff02::2"), &[0; 8]),
        icmpv6(1, 9, &client, &address(HOST), &[0; 8]),
    ] {
        assert_eq!(world.receives(CLIENT, &payload), None);
        assert_eq!(world.dropped(DropReason::SourceRate), 0);
    }
    assert!(
        world
            .receives(CLIENT, &bubble(&client, &teredo(OTHER)))
            .is_some()
    );
    assert_eq!(
        world.receives(CLIENT, &bubble(&client, &teredo(OTHER))),
        None
    );
    assert_eq!(world.dropped(DropReason::SourceRate), 1);
}

/// The relay in the same process has limits of its own.
#[test]
fn s30_the_relays_bubbles_take_no_token() {
    let mut world = World::with(|config| config.limits.source = Rate::new(1, 1));
    let bubble = bubble(&address("fe80::1"), &teredo(CLIENT));
    for _ in 0..100 {
        assert!(world.relay_sends(&bubble).is_some());
    }
}

#[test]
fn s23_a_rate_of_zero_answers_nobody() {
    let mut world = World::with(|config| config.limits.network = Rate::new(0, 1));
    assert_eq!(world.receives(CLIENT, &solicitation(SOLICITOR)), None);
    assert_eq!(world.dropped(DropReason::NetworkRate), 1);
}

#[derive(Clone)]
struct Shared(Arc<Vec<AtomicU64>>);

impl AsRef<[AtomicU64]> for Shared {
    fn as_ref(&self) -> &[AtomicU64] {
        &self.0
    }
}

/// What another path took is gone here, too, and the other way round.
#[test]
fn s23_buckets_may_be_shared() {
    let numbers = |count| Shared(Arc::new((0..count).map(|_| AtomicU64::new(0)).collect()));
    assert_eq!(Buckets::shared(numbers(BUCKETS - 1)).unwrap_err(), TooFew);
    let shared = numbers(BUCKETS);
    let mut config = Config::new(PRIMARY.parse().unwrap(), SECONDARY.parse().unwrap());
    config.limits.seed = 77;
    let limits = config.limits;
    let now = Instant::from_nanos(1_000_000_000_000);
    let buckets = Buckets::shared(shared.clone()).unwrap();
    let mut server = Server::new(config, buckets);
    let mut answers = |from| {
        let payload = solicitation(SOLICITOR);
        let sent = server.handle_datagram(now, Primary, endpoint(from), &payload);
        sent.is_some()
    };
    assert!(answers(CLIENT));
    let address = endpoint(CLIENT).address;
    let slots = [
        limits.source_slot(address),
        limits.network_slot(address),
        TOTAL_SLOT,
    ];
    let rates = [limits.source, limits.network, limits.total];
    for (slot, rate) in slots.into_iter().zip(rates) {
        let number = shared.0[slot as usize].load(Ordering::Relaxed);
        assert_eq!(number, now.as_nanos() + rate.interval);
    }
    let used = shared
        .0
        .iter()
        .filter(|number| number.load(Ordering::Relaxed) != 0);
    assert_eq!(used.count(), 3);
    shared.0[slots[0] as usize].store(u64::MAX, Ordering::Relaxed);
    assert!(!answers(CLIENT));
    assert!(answers(OTHER));
}
