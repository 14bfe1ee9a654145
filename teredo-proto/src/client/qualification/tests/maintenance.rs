//! Keeping the mapping, and its loss.

use std::time::Duration;

use super::{
    harness::{
        MAPPED, PORT, PRIMARY, ROUND_TRIP, SECONDARY, World, advertisement, endpoint, fields,
        seconds,
    },
    nat::Kind,
};
use crate::client::{DropReason, Event, Nat, Offline, Refresh, ServerEndpoints, State};

fn fixed(kind: Kind) -> World {
    World::with(kind, |config| config.refresh = Refresh::Fixed(seconds(30)))
}

fn gaps(world: &World) -> Vec<Duration> {
    let asked = world.asked(PRIMARY);
    let pairs = asked.iter().zip(&asked[1..]);
    pairs
        .map(|(last, next)| next.saturating_since(*last))
        .collect()
}

#[test]
fn c44_maintenance_after_75_to_100_percent_of_the_interval() {
    let mut world = fixed(Kind::Restricted);
    let identity = world.qualified();
    world.run(seconds(10_000));
    let gaps = gaps(&world);
    assert!(gaps.len() > 330);
    let slack = ROUND_TRIP * 2;
    assert!(gaps.iter().all(|&gap| gap >= Duration::from_millis(22_500)));
    assert!(gaps.iter().all(|&gap| gap <= seconds(30) + slack));
    // Drawn anew each time.
    assert!(gaps.iter().any(|&gap| gap < Duration::from_millis(23_500)));
    assert!(gaps.iter().any(|&gap| gap > Duration::from_millis(29_000)));
    assert_eq!(world.all_events(), [Event::Qualified(identity)]);
    assert_eq!(world.client.identity(), Some(&identity));
}

#[test]
fn c53_five_seconds_are_the_shortest_interval() {
    for given in [1, 5] {
        let mut world = World::with(Kind::Restricted, |config| {
            config.refresh = Refresh::Fixed(seconds(given));
        });
        world.run(seconds(100));
        let gaps = gaps(&world);
        assert!(gaps.iter().all(|&gap| gap >= Duration::from_millis(3750)));
        assert!(gaps.iter().all(|&gap| gap <= seconds(5) + ROUND_TRIP * 2));
    }
}

#[test]
fn c44_lost_answers_are_asked_for_again() {
    let mut world = fixed(Kind::Restricted);
    let identity = world.qualified();
    let qualified = world.now;
    world.silent.insert(PRIMARY);
    world.run(seconds(36));
    let asked = world.asked(PRIMARY);
    assert!(asked.len() == 3 || asked.len() == 4);
    assert_eq!(asked[2].saturating_since(asked[1]), seconds(4));
    assert_eq!(world.client.state(), State::Qualified);
    world.silent.clear();
    world.run(seconds(4));
    assert_eq!(world.client.identity(), Some(&identity));
    assert!(asked[1].saturating_since(qualified) <= seconds(30));
    assert_eq!(world.all_events().len(), 1);
}

#[test]
fn c44_c45_the_address_is_kept_until_qualification_failed_again() {
    let mut world = fixed(Kind::Restricted);
    let identity = world.qualified();
    world.silent.extend([PRIMARY, SECONDARY]);
    world.run_until(State::Starting);
    let first = world.asked(PRIMARY)[1];
    assert_eq!(world.now, first + seconds(12));
    assert_eq!(world.client.identity(), Some(&identity));
    world.offline(Offline::NoAnswer);
    assert_eq!(world.now, first + seconds(24));
    assert_eq!(world.client.identity(), None);
    let expected = [
        Event::Qualified(identity),
        Event::Unqualified,
        Event::Offline(Offline::NoAnswer),
    ];
    assert_eq!(world.all_events(), expected);
}

#[test]
fn c45_the_same_mapping_after_a_failure_is_the_same_address() {
    let mut world = fixed(Kind::Restricted);
    let identity = world.qualified();
    world.silent.insert(PRIMARY);
    world.run_until(State::Starting);
    world.silent.clear();
    assert_eq!(world.qualified(), identity);
    assert_eq!(world.all_events().len(), 1);
    assert_eq!(world.client.statistics().qualified, 1);
}

#[test]
fn c45_another_mapping_is_another_address_within_one_interval() {
    for (kind, nat) in [
        (Kind::Restricted, Nat::Restricted),
        (Kind::Symmetric, Nat::Symmetric),
    ] {
        let mut world = fixed(kind);
        let first = world.qualified();
        let lost = world.now;
        world.nat.reboot();
        while world.client.identity() == Some(&first) {
            world.run(Duration::from_millis(10));
        }
        assert!(world.now.saturating_since(lost) <= seconds(30) + ROUND_TRIP * 2);
        let second = world.qualified();
        assert_ne!(second.mapped, first.mapped);
        assert_eq!(second.nat, nat);
        assert_eq!(fields(second.address).mapped, second.mapped);
        // Nothing in between: the interface goes from the one address to the other.
        assert_eq!(
            world.all_events(),
            [Event::Qualified(first), Event::Qualified(second)]
        );
    }
}

#[test]
fn c45_another_mapping_may_be_another_nat() {
    let mut world = fixed(Kind::Restricted);
    world.qualified();
    world.nat = super::nat::Nat::new(Kind::Symmetric);
    world.nat.address = [8, 0, 0, 1];
    world.run(seconds(31));
    let identity = world.qualified();
    assert_eq!(identity.mapped.address, [8, 0, 0, 1]);
    assert_eq!(identity.nat, Nat::Symmetric);
}

#[test]
fn c45_behind_a_cone_nat_the_other_address_answers() {
    let mut world = World::with(Kind::Cone, |config| {
        config.refresh = Refresh::Fixed(seconds(30));
        config.cone_probe = true;
    });
    let first = world.qualified();
    world.run(seconds(100));
    assert_eq!(world.client.identity(), Some(&first));
    assert!(world.asked(PRIMARY).len() > 3);
    world.nat.reboot();
    world.run(seconds(31));
    let second = *world.client.identity().unwrap();
    assert_eq!(second.nat, Nat::Cone);
    assert_ne!(second.mapped, first.mapped);
    assert!(world.asked(SECONDARY).is_empty());
}

#[test]
fn dec14_only_a_valid_advertisement_puts_maintenance_off() {
    let mut world = fixed(Kind::Restricted);
    world.qualified();
    let due = world.client.poll_timeout().unwrap();
    let server = ServerEndpoints::new(PRIMARY).primary();
    let forged = advertisement(&world.sent[0].payload, MAPPED);
    let bubble = crate::wire::bubble::build(&[0x20; 16], &[0x21; 16]).to_vec();
    for payload in [forged, bubble] {
        world.run(seconds(1));
        let mut payload = payload;
        world
            .client
            .handle_datagram(world.now, PORT, server, 0, &mut payload);
        assert_eq!(world.client.poll_timeout().unwrap(), due);
    }
    assert_eq!(world.dropped(DropReason::AdvertisementNonce), 1);
}

#[test]
fn c46_at_once_when_the_mapping_is_in_doubt() {
    let mut world = fixed(Kind::Restricted);
    world.qualified();
    world.run(seconds(10));
    world.nat.reboot();
    world.client.recheck_mapping(world.now);
    world.collect();
    assert_eq!(world.asked(PRIMARY).last(), Some(&world.now));
    world.run(ROUND_TRIP * 2);
    assert_ne!(world.client.identity().unwrap().mapped, endpoint(MAPPED));
}

#[test]
fn c46_at_once_when_the_network_is_another() {
    let mut world = fixed(Kind::Restricted);
    let first = world.qualified();
    world.run(seconds(10));
    world.nat.reboot();
    world.nat.address = [8, 0, 0, 1];
    world.set_network(|network| network.source = Some([10, 0, 0, 7].into()));
    assert_eq!(world.asked(PRIMARY).last(), Some(&world.now));
    assert_eq!(world.client.identity(), Some(&first), "until that ended");
    let second = world.qualified();
    assert_eq!(second.mapped.address, [8, 0, 0, 1]);
    assert_eq!(
        world.all_events(),
        [Event::Qualified(first), Event::Qualified(second)]
    );
}

#[test]
fn c46_never_more_than_one_in_two_seconds() {
    let mut world = World::new(Kind::Restricted);
    for round in 0..600_u32 {
        let host = 1 + (round % 200) as u8;
        match round % 5 {
            0 => world.set_network(|network| network.source = None),
            1 | 3 => world.set_network(|network| network.source = Some([10, 0, 0, host].into())),
            2 => world.client.stop(world.now),
            _ => world.client.recheck_mapping(world.now),
        }
        world.client.start(world.now);
        world.collect();
        world.run(Duration::from_millis(u64::from(round % 7) * 30));
    }
    let gaps = gaps(&world);
    assert!(gaps.len() > 10);
    assert!(gaps.iter().all(|&gap| gap >= seconds(2)), "{gaps:?}");
    // And it recovers.
    world.set_network(|_| ());
    let before = world.now;
    world.qualified();
    assert!(world.now.saturating_since(before) <= seconds(2) + ROUND_TRIP * 2);
}
