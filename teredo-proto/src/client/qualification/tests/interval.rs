//! The refresh interval, measured with the secondary port.

use std::time::Duration;

use super::{
    harness::{PORT, PRIMARY, SECONDARY, World, seconds},
    nat::Kind,
};
use crate::{
    client::{Bubble, Event, Refresh, ServerEndpoints},
    wire::{bubble, encapsulation, ipv6::Header},
};

/// Creates a client behind a NAT with mappings of this lifetime.
fn world(kind: Kind, lifetime: Duration) -> World {
    let mut world = World::new(kind);
    world.nat.lifetime = lifetime;
    world
}

fn found(world: &World) -> Option<Duration> {
    world
        .all_events()
        .into_iter()
        .find_map(|event| match event {
            Event::RefreshFound(interval) => Some(interval),
            _ => None,
        })
}

/// How long the secondary port was silent before the first of each series of bubbles, and how many
/// there were.
fn probes(world: &World) -> Vec<(Duration, usize)> {
    let mut probes: Vec<(Duration, usize)> = vec![];
    let mut last = world.now;
    let mut is_first = true;
    for sent in &world.sent {
        let packet = encapsulation::parse(&sent.payload).unwrap().packet;
        if sent.from != PORT {
            (last, is_first) = (sent.at, true);
        } else if Header::parse(packet).unwrap().is_bubble() {
            assert_eq!(sent.to, ServerEndpoints::new(PRIMARY).primary());
            if is_first {
                probes.push((sent.at.saturating_since(last), 0));
            }
            probes.last_mut().unwrap().1 += 1;
            is_first = false;
        }
    }
    probes
}

type Probes = &'static [(f64, bool)];

/// The probes in half seconds, and whether the bubble came through: otherwise there are four.
fn rounded(world: &World) -> Vec<(f64, bool)> {
    let halves = |time: Duration| (time.as_secs_f64() * 2.0).floor() / 2.0;
    let probes = probes(world).into_iter();
    probes
        .map(|(silence, count)| {
            assert!(count == 1 || count == 4);
            (halves(silence), count == 1)
        })
        .collect()
}

#[test]
fn v24_c52_dec13_the_interval_for_each_lifetime() {
    #[rustfmt::skip]
    let cases: &[(u64, f64, Probes)] = &[
        (35, 30.0, &[(60.0, false), (45.0, false), (37.5, false)]),
        (40, 37.5, &[(60.0, false), (45.0, false), (37.5, true)]),
        (50, 45.0, &[(60.0, false), (45.0, true)]),
        (70, 60.0, &[(60.0, true), (90.0, false), (75.0, false)]),
        (80, 75.0, &[(60.0, true), (90.0, false), (75.0, true)]),
        (91, 90.0, &[(60.0, true), (90.0, true)]),
        (1000, 90.0, &[(60.0, true), (90.0, true)]),
    ];
    for kind in [Kind::Restricted, Kind::Symmetric, Kind::Absent] {
        for &(lifetime, interval, expected) in cases {
            let mut world = world(kind, seconds(lifetime));
            let identity = world.qualified();
            world.run(seconds(600));
            assert_eq!(rounded(&world), expected, "lifetime {lifetime}");
            let interval = Duration::from_secs_f64(interval);
            assert_eq!(found(&world), Some(interval), "lifetime {lifetime}");
            assert_eq!(world.open_ports.len(), 1, "closed when done");
            let counted = &world.client.statistics().bubbles;
            let sent: usize = probes(&world).iter().map(|&(_, count)| count).sum();
            assert_eq!(counted[Bubble::SentInterval], sent as u64);
            let came = expected.iter().filter(|(_, is_through)| *is_through);
            assert_eq!(counted[Bubble::ReceivedInterval], came.count() as u64);
            // The service port never lost its mapping for it.
            assert_eq!(world.client.identity(), Some(&identity));
            // And maintenance uses it.
            let before = world.asked(PRIMARY).len();
            world.run(interval * 100);
            let count = world.asked(PRIMARY).len() - before;
            assert!((100..=134).contains(&count), "{count}");
            assert_eq!(world.client.identity(), Some(&identity));
        }
    }
}

#[test]
fn c52_behind_a_cone_nat_that_was_found() {
    let mut world = World::with(Kind::Cone, |config| config.cone_probe = true);
    world.nat.lifetime = seconds(50);
    world.run(seconds(600));
    assert_eq!(found(&world), Some(seconds(45)));
    assert!(world.asked(SECONDARY).is_empty());
}

#[test]
fn c52_thirty_seconds_while_that_is_not_known() {
    let mut world = world(Kind::Restricted, seconds(1000));
    world.qualified();
    world.run(seconds(140));
    assert_eq!(found(&world), None);
    let asked = world.asked(PRIMARY);
    let pairs = asked.iter().zip(&asked[1..]);
    assert!(pairs.clone().count() >= 4);
    assert!(
        pairs
            .into_iter()
            .all(|(last, next)| next.saturating_since(*last) <= seconds(31))
    );
}

#[test]
fn c52_not_measured_if_it_is_given() {
    let mut world = World::with(Kind::Restricted, |config| {
        config.refresh = Refresh::Fixed(seconds(20));
    });
    world.run(seconds(600));
    assert!(world.sent.iter().all(|datagram| datagram.from == PORT));
    assert_eq!(found(&world), None);
}

#[test]
fn c52_thirty_seconds_if_the_secondary_port_does_not_qualify() {
    let mut world = World::new(Kind::Restricted);
    world.qualified();
    world.silent.insert(SECONDARY);
    world.run(seconds(16));
    assert_eq!(world.open_ports.len(), 1);
    world.run(seconds(600));
    assert_eq!(found(&world), None);
    assert!(probes(&world).is_empty());
}

#[test]
fn c52_measured_again_with_another_mapping() {
    let mut world = world(Kind::Restricted, seconds(1000));
    world.run(seconds(200));
    assert_eq!(found(&world), Some(seconds(90)));
    world.nat.reboot();
    world.nat.lifetime = seconds(50);
    world.events.clear();
    world.run(seconds(400));
    assert_eq!(found(&world), Some(seconds(45)));
}

#[test]
fn c52_another_network_ends_the_measurement() {
    let mut world = world(Kind::Restricted, seconds(1000));
    world.run(seconds(20));
    assert_eq!(world.open_ports.len(), 2);
    world.set_network(|network| network.source = Some([10, 0, 0, 7].into()));
    assert_eq!(world.open_ports.len(), 1);
    world.run(seconds(200));
    assert_eq!(found(&world), Some(seconds(90)), "and it begins again");
}

#[test]
fn dec12_a_stray_packet_begins_the_silence_anew() {
    let mut world = world(Kind::Restricted, seconds(1000));
    world.run(seconds(40));
    let port = *world.open_ports.iter().find(|&&port| port != PORT).unwrap();
    let stray = bubble::build(&[0x20; 16], &[0x21; 16]).to_vec();
    let from_secondary = |world: &World| {
        world
            .sent
            .iter()
            .filter(|datagram| datagram.from == port)
            .count()
    };
    let before = from_secondary(&world);
    world.arrives(port, super::harness::endpoint("7.7.7.7:7"), stray.clone());
    world.run(seconds(3));
    assert_eq!(from_secondary(&world), before + 1, "maintenance");
    world.run(seconds(58));
    assert!(probes(&world).is_empty());
    world.run(seconds(3));
    assert_eq!(rounded(&world), [(60.0, true)]);
    // Not for ever.
    for _ in 0..1000 {
        if world.open_ports.contains(&port) {
            world.arrives(port, super::harness::endpoint("7.7.7.7:7"), stray.clone());
        }
        world.run(Duration::from_millis(100));
    }
    assert_eq!(world.open_ports.len(), 1);
    assert!(from_secondary(&world) < before + 15);
    assert_eq!(found(&world), None);
}

#[test]
fn c52_only_the_own_bubble_counts() {
    let mut world = world(Kind::Restricted, seconds(1000));
    world.run(seconds(63));
    let port = *world.open_ports.iter().find(|&&port| port != PORT).unwrap();
    // The server loses everything from here on, but forged bubbles arrive.
    world.silent.insert(PRIMARY);
    world.run(seconds(2));
    assert!(matches!(probes(&world)[..], [(_, 1..)]));
    let own = world.client.identity().unwrap().address.octets();
    let last = world
        .sent
        .iter()
        .rev()
        .find(|datagram| datagram.from == PORT && !datagram.is_solicitation());
    let secondary: [u8; 16] = *last.unwrap().payload[24..].first_chunk().unwrap();
    let server = ServerEndpoints::new(PRIMARY).primary();
    let elsewhere = super::harness::endpoint("7.7.7.7:3544");
    for (from, source, destination) in [
        (elsewhere, own, secondary),
        (server, secondary, own),
        (server, [0x20; 16], secondary),
        (server, own, [0x20; 16]),
    ] {
        world.arrives(port, from, bubble::build(&source, &destination).to_vec());
    }
    world.run(seconds(8));
    assert_eq!(rounded(&world)[0], (60.0, false));
}

#[test]
fn another_secondary_port_if_the_first_is_taken() {
    let mut world = World::stopped(Kind::Restricted, |_| (), &mut |_| ());
    world.ports_taken = 3;
    world.set_network(|_| ());
    world.client.start(world.now);
    world.collect();
    world.run(seconds(10));
    assert_eq!(world.open_ports.len(), 2);
    assert!(world.open_ports.iter().all(|&port| port >= 49152));
    // But not without end.
    let mut world = World::stopped(Kind::Restricted, |_| (), &mut |_| ());
    world.ports_taken = 100;
    world.set_network(|_| ());
    world.client.start(world.now);
    world.collect();
    world.run(seconds(100));
    assert_eq!(world.ports_taken, 92);
}
