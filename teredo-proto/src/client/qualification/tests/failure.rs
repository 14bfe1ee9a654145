//! Servers that do not answer, and hosts without or with too much of a network.

use std::{net::Ipv4Addr, time::Duration};

use super::{
    harness::{OTHER, PORT, PRIMARY, ROUND_TRIP, SECONDARY, World, endpoint, link_local, seconds},
    nat::Kind,
};
use crate::{
    client::{Config, Event, Misfit, Offline, Refresh, ServerEndpoints, State},
    testing::ipv6,
};

/// Refresh intervals that end no measurement in between.
fn two_servers() -> World {
    World::with(Kind::Restricted, |config| {
        config.servers.push(ServerEndpoints::new(OTHER));
        config.refresh = Refresh::Fixed(seconds(30));
    })
}

#[test]
fn c01_the_secondary_address_is_the_next_one() {
    assert_eq!(ServerEndpoints::new(PRIMARY).secondary, SECONDARY);
}

#[test]
fn c01_three_solicitations_and_then_off_line() {
    let mut world = World::new(Kind::Restricted);
    let start = world.now;
    world.silent.insert(PRIMARY);
    world.offline(Offline::NoAnswer);
    assert_eq!(world.now, start + seconds(12));
    assert_eq!(
        world.asked(PRIMARY),
        [0, 4, 8].map(|after| start + seconds(after))
    );
    assert!(world.asked(SECONDARY).is_empty());
    assert_eq!(world.all_events(), [Event::Offline(Offline::NoAnswer)]);
}

#[test]
fn a_secondary_address_that_does_not_answer_is_as_bad() {
    let mut world = World::new(Kind::Restricted);
    let start = world.now;
    world.silent.insert(SECONDARY);
    world.offline(Offline::SecondarySilent);
    assert_eq!(world.now, start + ROUND_TRIP + seconds(12));
    assert_eq!(world.asked(SECONDARY).len(), 3);
}

#[test]
fn a_secondary_address_that_is_silent_is_told_whatever_another_server_does() {
    let mut world = two_servers();
    world.silent.insert(SECONDARY);
    world.silent.insert(OTHER);
    world.offline(Offline::SecondarySilent);
    // Neither answers any more.
    world.silent.insert(PRIMARY);
    world.run_until(State::Starting);
    world.offline(Offline::NoAnswer);
    let told = [Offline::SecondarySilent, Offline::NoAnswer].map(Event::Offline);
    assert_eq!(world.all_events(), told);
}

#[test]
fn c47_short_waits_at_first_and_then_up_to_a_minute() {
    let mut world = World::new(Kind::Restricted);
    world.silent.insert(PRIMARY);
    let start = world.now;
    let mut waits = vec![];
    for _ in 0..26 {
        world.offline(Offline::NoAnswer);
        let from = world.now;
        assert_eq!(world.client.poll_timeout().unwrap(), {
            world.run_until(State::Starting);
            world.now
        });
        waits.push(world.now.saturating_since(from).as_secs());
    }
    assert_eq!(waits[..4], [5, 10, 20, 20]);
    let long = waits.iter().position(|&wait| wait > 20).unwrap();
    assert_eq!(waits[long..long + 6], [40, 60, 60, 60, 60, 60]);
    let short: u64 = waits[..long].iter().sum();
    assert!((600..640).contains(&(short + 12 * long as u64)));
    let early = world.asked(PRIMARY);
    let early = early
        .iter()
        .filter(|at| at.saturating_since(start) < seconds(600));
    assert!(early.count() <= 60, "as many as of two qualified clients");
    assert_eq!(
        world.all_events(),
        [Event::Offline(Offline::NoAnswer)],
        "told once"
    );
    // The server is back: the next spell begins with the shortest wait again.
    world.silent.clear();
    world.qualified();
    world.silent.insert(PRIMARY);
    world.offline(Offline::NoAnswer);
    let from = world.now;
    world.run_until(State::Starting);
    assert_eq!(world.now, from + seconds(5));
    let told = world.all_events();
    let offline = |event: &&Event| matches!(event, Event::Offline(_));
    assert_eq!(told.iter().filter(offline).count(), 2);
}

#[test]
fn c47_what_wants_out_hastens_the_client_within_bounds() {
    let mut world = World::new(Kind::Restricted);
    world.silent.insert(PRIMARY);
    let own = "2001:0:c000:201::1".parse::<std::net::Ipv6Addr>().unwrap();
    let host = "2000::b".parse::<std::net::Ipv6Addr>().unwrap();
    let packet = ipv6(17, 64, &own.octets(), &host.octets(), &[0; 8]);
    let send = |world: &mut World| {
        assert_eq!(
            world.client.handle_ipv6(world.now, &mut packet.clone()),
            None
        );
        world.collect();
    };
    world.offline(Offline::NoAnswer);
    // Long after the beginning, when the waits are long.
    world.run(seconds(3000));
    world.run_until(State::Starting);
    world.offline(Offline::NoAnswer);
    let before = world.asked(PRIMARY).len();
    world.run(seconds(2));
    send(&mut world);
    assert_eq!(world.asked(PRIMARY).len(), before + 1, "at once");
    let start = world.now;
    for _ in 0..3000 {
        send(&mut world);
        world.run(Duration::from_millis(200));
    }
    let asked = world.asked(PRIMARY);
    let recent = asked.iter().filter(|&&at| at >= start).count();
    assert!((100..=120).contains(&recent), "{recent} in ten minutes");
    // The network is back.
    world.silent.clear();
    let back = world.now;
    while world.client.state() != State::Qualified {
        send(&mut world);
        world.run(Duration::from_millis(100));
    }
    assert!(world.now.saturating_since(back) < seconds(9));
}

/// Packets of the kernel to the link are no reason, nor is there one while the client has another
/// reason to be off-line.
#[test]
fn c47_packets_to_the_link_hasten_nothing() {
    let mut world = World::new(Kind::Restricted);
    world.silent.insert(PRIMARY);
    world.offline(Offline::NoAnswer);
    let until = world.client.poll_timeout();
    let routers = "ff02::2".parse::<std::net::Ipv6Addr>().unwrap().octets();
    let mut packet = ipv6(
        58,
        255,
        &link_local(),
        &routers,
        &[133, 0, 0, 0, 0, 0, 0, 0],
    );
    world.run(seconds(3));
    world.client.handle_ipv6(world.now, &mut packet);
    assert_eq!(world.client.poll_timeout(), until);
    world.set_network(|network| network.source = None);
    world.client.hasten(world.now);
    assert_eq!(world.client.state(), State::Offline(Offline::NoNetwork));
    assert_eq!(world.client.poll_timeout(), None);
}

/// Any change of the network is a reason, even with the same address.
#[test]
fn c47_a_network_that_changes_hastens_the_client() {
    let mut world = World::new(Kind::Restricted);
    world.silent.insert(PRIMARY);
    world.offline(Offline::NoAnswer);
    world.run(seconds(3000));
    world.run_until(State::Starting);
    world.offline(Offline::NoAnswer);
    world.run(seconds(10));
    world.silent.clear();
    let start = world.now;
    world.set_network(|network| network.port_mapping = Some(endpoint("9.0.0.9:9")));
    world.qualified();
    assert_eq!(world.now, start + ROUND_TRIP * 2);
}

#[test]
fn a_new_network_ends_the_wait() {
    let mut world = World::new(Kind::Restricted);
    world.silent.insert(PRIMARY);
    world.offline(Offline::NoAnswer);
    world.run(seconds(50));
    world.silent.clear();
    world.set_network(|network| network.source = Some([10, 0, 0, 7].into()));
    let start = world.now;
    world.qualified();
    assert_eq!(world.now, start + ROUND_TRIP * 2);
}

#[test]
fn doubt_ends_the_wait() {
    let mut world = World::new(Kind::Restricted);
    world.silent.insert(PRIMARY);
    world.offline(Offline::NoAnswer);
    world.run(seconds(50));
    world.silent.clear();
    let start = world.now;
    world.client.recheck_mapping(world.now);
    world.collect();
    world.qualified();
    assert_eq!(world.now, start + ROUND_TRIP * 2);
}

#[test]
fn c01_the_next_server_when_the_first_does_not_answer() {
    let mut world = two_servers();
    let start = world.now;
    world.silent.insert(PRIMARY);
    let identity = world.qualified();
    assert_eq!(identity.server, ServerEndpoints::new(OTHER));
    assert_eq!(world.client.server(), Some(ServerEndpoints::new(OTHER)));
    assert_eq!(world.now, start + seconds(12) + ROUND_TRIP * 2);
    assert_eq!(world.all_events(), [Event::Qualified(identity)]);
    let qualifications = world.client.statistics().qualifications;
    assert_eq!(qualifications.sum(), seconds(12) + ROUND_TRIP * 2);
}

#[test]
fn c01_a_server_that_fails_later_is_replaced() {
    let mut world = two_servers();
    let first = world.qualified();
    world.silent.extend([PRIMARY, SECONDARY]);
    world.run(seconds(60));
    let second = world.qualified();
    assert_eq!(second.server, ServerEndpoints::new(OTHER));
    // Then that one fails: back to the first.
    world.silent.clear();
    world.silent.insert(OTHER);
    world.run(seconds(60));
    let third = world.qualified();
    assert_eq!(third.server, ServerEndpoints::new(PRIMARY));
    assert_ne!(third.address, second.address);
    let expected = [
        Event::Qualified(first),
        Event::Unqualified,
        Event::Qualified(second),
        Event::Unqualified,
        Event::Qualified(third),
    ];
    assert_eq!(world.all_events(), expected);
}

#[test]
fn c01_off_line_when_all_servers_failed() {
    let mut world = two_servers();
    let start = world.now;
    world.silent.extend([PRIMARY, OTHER]);
    world.offline(Offline::NoAnswer);
    assert_eq!(world.now, start + seconds(24));
    assert_eq!(world.asked(PRIMARY).len(), 3);
    assert_eq!(world.asked(OTHER).len(), 3);
    // The next round begins with the first.
    world.silent.remove(&PRIMARY);
    assert_eq!(world.qualified().server, ServerEndpoints::new(PRIMARY));
    assert_eq!(world.now, start + seconds(29) + ROUND_TRIP * 2);
}

#[test]
fn servers_in_use_stay_until_they_fail() {
    let mut world = World::with(Kind::Restricted, |config| {
        config.refresh = Refresh::Fixed(seconds(30))
    });
    let first = world.qualified();
    world.client.set_servers(vec![ServerEndpoints::new(OTHER)]);
    world.run(seconds(100));
    assert_eq!(world.client.identity(), Some(&first));
    world.silent.insert(PRIMARY);
    world.offline(Offline::NoAnswer);
    assert_eq!(world.qualified().server, ServerEndpoints::new(OTHER));
    // No server at all is no reason to panic.
    world.client.set_servers(vec![]);
    world.silent.insert(OTHER);
    world.offline(Offline::NoAnswer);
    world.run(seconds(2000));
    assert_eq!(world.client.state(), State::Offline(Offline::NoAnswer));
}

#[test]
fn a_state_is_refused_with_the_reason() {
    let mut world = World::new(Kind::Restricted);
    let config = |servers: &[Ipv4Addr], port| {
        let servers = servers.iter().map(|&server| ServerEndpoints::new(server));
        Config::new(servers.collect(), port)
    };
    let first = world.qualified();
    let saved = world.client.save(world.now);
    assert_eq!(saved.check(&config(&[OTHER, PRIMARY], PORT)), Ok(()));
    let misfit = saved.check(&config(&[OTHER], PORT));
    assert_eq!(misfit, Err(Misfit::Server(first.server.primary())));
    let misfit = saved.check(&config(&[PRIMARY], PORT + 1));
    assert_eq!(misfit, Err(Misfit::Port(PORT)));
}

#[test]
fn no_network_is_waited_for_without_a_word() {
    let mut world = World::new(Kind::Restricted);
    let first = world.qualified();
    world.run(seconds(10));
    let sent = world.sent.len();
    world.set_network(|network| network.source = None);
    assert_eq!(world.client.state(), State::Offline(Offline::NoNetwork));
    assert_eq!(world.client.poll_timeout(), None);
    world.run(seconds(10_000));
    assert_eq!(world.sent.len(), sent);
    world.set_network(|_| ());
    assert_eq!(world.asked(PRIMARY).last(), Some(&world.now), "at once");
    let second = world.qualified();
    let expected = [
        Event::Qualified(first),
        Event::Unqualified,
        Event::Offline(Offline::NoNetwork),
        Event::Qualified(second),
    ];
    assert_eq!(world.all_events(), expected);
}

#[test]
fn c03_z01_z02_other_ipv6_connectivity_ends_it_gracefully() {
    let mut world = World::new(Kind::Restricted);
    let identity = world.qualified();
    // Into the measurement, so that the secondary port is open.
    world.run(seconds(10));
    assert_eq!(world.open_ports.len(), 2);
    world.set_network(|network| network.native_ipv6 = true);
    assert_eq!(world.client.state(), State::Offline(Offline::NativeIpv6));
    assert_eq!(world.client.identity(), None);
    assert_eq!(world.open_ports.len(), 1, "the service port alone");
    let sent = world.sent.len();
    world.client.recheck_mapping(world.now);
    world.run(seconds(1000));
    assert_eq!(world.sent.len(), sent);
    // Gone again.
    world.set_network(|_| ());
    world.run(ROUND_TRIP * 2);
    let expected = [
        Event::Qualified(identity),
        Event::Unqualified,
        Event::Offline(Offline::NativeIpv6),
    ];
    assert_eq!(world.all_events()[..3], expected);
    assert_eq!(world.client.state(), State::Qualified);
}

#[test]
fn c03_z01_never_begins_with_other_ipv6_connectivity() {
    let mut world = World::stopped(Kind::Restricted, |_| (), &mut |_| ());
    world.set_network(|network| network.native_ipv6 = true);
    world.client.start(world.now);
    world.collect();
    world.run(seconds(1000));
    assert!(world.sent.is_empty());
    assert_eq!(world.all_events(), [Event::Offline(Offline::NativeIpv6)]);
}

#[test]
fn z01_stopping_gives_everything_back() {
    let mut world = World::new(Kind::Restricted);
    world.qualified();
    world.run(seconds(10));
    world.client.stop(world.now);
    world.collect();
    assert_eq!(world.client.state(), State::Stopped);
    assert_eq!(world.client.identity(), None);
    assert_eq!(world.client.poll_timeout(), None);
    assert_eq!(world.open_ports.len(), 1);
    assert_eq!(world.all_events().last(), Some(&Event::Unqualified));
    // Once more does nothing, and neither does a network.
    world.client.stop(world.now);
    world.set_network(|network| network.port_mapping = Some(endpoint("8.8.8.8:1")));
    world.run(seconds(100));
    assert_eq!(world.all_events().len(), 2);
}

#[test]
fn no_change_that_matters_starts_nothing() {
    let mut world = World::with(Kind::Restricted, |config| {
        config.refresh = Refresh::Fixed(seconds(30))
    });
    world.qualified();
    let sent = world.sent.len();
    world.set_network(|network| {
        network.attached.push(crate::client::Attached {
            address: [192, 168, 1, 2].into(),
            prefix_length: 24,
        });
    });
    world.run(Duration::from_secs(3));
    assert_eq!(world.sent.len(), sent);
}
