//! From the start to an address (the states of RFC 4380 section 5.2.1).

use super::{
    harness::{
        MAPPED, OTHER, PORT, PRIMARY, ROUND_TRIP, SECONDARY, World, advertisement, endpoint,
        fields, link_local, network, seconds, teredo_prefix,
    },
    nat::Kind,
};
use crate::{
    client::{DropReason, Event, Extensions, Nat, Offline, ServerEndpoints, State},
    wire::encapsulation,
};
use teredo_common::{
    address::{Endpoint, RANDOM_FLAGS, ServicePrefix, server_link_local},
    wire::MTU,
};

#[test]
fn c10_c11_c14_behind_a_restricted_nat_in_two_round_trips() {
    let mut world = World::new(Kind::Restricted);
    let start = world.now;
    assert_eq!(world.client.state(), State::Starting);
    assert_eq!(world.asked(PRIMARY), [start], "at once");
    world.run(ROUND_TRIP);
    assert_eq!(world.client.state(), State::Second);
    assert_eq!(world.asked(SECONDARY), [start + ROUND_TRIP]);
    assert_eq!(world.client.identity(), None);
    let identity = world.qualified();
    assert_eq!(world.now, start + ROUND_TRIP * 2);
    assert_eq!(identity.nat, Nat::Restricted);
    assert_eq!(identity.mapped, endpoint(MAPPED));
    assert_eq!(identity.server, ServerEndpoints::new(PRIMARY));
    assert!(!identity.tunnel);
    assert_eq!(world.all_events(), [Event::Qualified(identity)]);
    assert_eq!(world.client.statistics().qualified, 1);
}

#[test]
fn c04_everything_leaves_from_the_service_port() {
    let mut world = World::with(Kind::Restricted, |config| {
        config.refresh = crate::client::Refresh::Fixed(seconds(30));
    });
    world.run(seconds(300));
    assert!(world.sent.iter().all(|datagram| datagram.from == PORT));
}

#[test]
fn c02_nothing_happens_before_the_start() {
    let mut world = World::stopped(Kind::Restricted, |_| (), &mut |_| ());
    world.client.set_network(world.now, network());
    world.client.recheck_mapping(world.now);
    world.run(seconds(100));
    assert_eq!(world.client.state(), State::Stopped);
    assert!(world.sent.is_empty() && world.events.is_empty());
}

#[test]
fn c12_a_cone_nat_is_found_with_the_probe_alone() {
    let mut world = World::with(Kind::Cone, |config| config.cone_probe = true);
    let identity = world.qualified();
    assert_eq!(identity.nat, Nat::Cone);
    assert_eq!(world.sent.len(), 1);
    // RFC 5991: no cone flag all the same.
    assert!(!fields(identity.address).is_cone());
    // Without the probe it looks like any other.
    assert_eq!(World::new(Kind::Cone).qualified().nat, Nat::Restricted);
}

#[test]
fn c12_the_answer_to_a_probe_must_come_from_the_other_address() {
    let mut world = World::with(Kind::Cone, |config| config.cone_probe = true);
    world.tamper = Box::new(|from, _| {
        *from = ServerEndpoints::new(PRIMARY).primary();
        true
    });
    world.run(seconds(11));
    assert_eq!(world.client.state(), State::Starting);
    assert_eq!(world.dropped(DropReason::AdvertisementSource), 3);
}

#[test]
fn c12_without_probe_the_answer_must_come_from_the_same_address() {
    let mut world = World::new(Kind::Cone);
    world.tamper = Box::new(|from, _| {
        *from = ServerEndpoints::new(PRIMARY).secondary();
        true
    });
    world.run(seconds(11));
    assert_eq!(world.client.state(), State::Starting);
    assert_eq!(world.dropped(DropReason::AdvertisementSource), 3);
}

#[test]
fn dec3_behind_other_nats_the_probe_ends_after_three() {
    let mut world = World::with(Kind::Restricted, |config| config.cone_probe = true);
    let start = world.now;
    assert_eq!(world.qualified().nat, Nat::Restricted);
    let expected = [0, 4, 8, 12].map(|after| start + seconds(after));
    assert_eq!(world.asked(PRIMARY), expected);
    assert_eq!(world.asked(SECONDARY), [start + seconds(12) + ROUND_TRIP]);
}

#[test]
fn dec3_a_filter_that_was_opened_is_not_taken_for_a_cone_nat() {
    let mut world = World::with(Kind::Restricted, |config| config.cone_probe = true);
    assert_eq!(world.qualified().nat, Nat::Restricted);
    world.client.stop(world.now);
    world.run(seconds(3));
    world.client.start(world.now);
    world.collect();
    assert_eq!(world.qualified().nat, Nat::Restricted);
    // In another network that has to be found out again.
    world.nat = super::nat::Nat::new(Kind::Cone);
    world.run(seconds(3));
    world.set_network(|network| network.source = Some([10, 0, 0, 7].into()));
    assert_eq!(world.qualified().nat, Nat::Cone);
}

#[test]
fn c15_draft_flags_are_the_cone_flag_or_nothing() {
    for (kind, flags) in [(Kind::Cone, 0x8000), (Kind::Restricted, 0)] {
        let mut world = World::with(kind, |config| {
            config.cone_probe = true;
            config.draft_flags = true;
        });
        let address = world.qualified().address;
        assert_eq!(fields(address).flags, flags);
    }
}

#[test]
fn x10_behind_a_symmetric_nat_the_first_mapping_holds() {
    let mut world = World::new(Kind::Symmetric);
    let identity = world.qualified();
    assert_eq!(identity.nat, Nat::Symmetric);
    assert_eq!(identity.mapped, endpoint(MAPPED));
    assert_eq!(fields(identity.address).mapped, endpoint(MAPPED));
}

#[test]
fn x10_without_the_extension_a_symmetric_nat_ends_it() {
    let mut world = World::with(Kind::Symmetric, |config| {
        config.extensions = Extensions::NONE
    });
    world.offline(Offline::Symmetric);
    assert_eq!(world.client.identity(), None);
    assert_eq!(world.all_events(), [Event::Offline(Offline::Symmetric)]);
}

#[test]
fn c14_another_port_or_another_address_is_another_mapping() {
    for second in ["9.0.0.1:4097", "9.0.0.2:4096"] {
        let mut world = World::new(Kind::Restricted);
        world.silent.extend([PRIMARY, SECONDARY]);
        let server = ServerEndpoints::new(PRIMARY);
        let answer = advertisement(&world.sent[0].payload, MAPPED);
        world.arrives(PORT, server.primary(), answer);
        let answer = advertisement(&world.sent[1].payload, second);
        world.arrives(PORT, server.secondary(), answer);
        assert_eq!(world.client.identity().unwrap().nat, Nat::Symmetric);
    }
}

#[test]
fn c15_w12_the_address_names_the_server_and_the_mapping() {
    let address = World::new(Kind::Restricted).qualified().address;
    let fields = fields(address);
    assert_eq!(fields.prefix, ServicePrefix::STANDARD);
    assert_eq!(fields.server, PRIMARY);
    assert_eq!(fields.mapped, endpoint(MAPPED));
    assert_eq!(fields.flags & !RANDOM_FLAGS, 0);
    assert_ne!(fields.flags, 0, "random");
}

#[test]
fn w12_flags_last_as_long_as_mapping_and_server() {
    let mut world = World::with(Kind::Restricted, |config| {
        config.servers.push(ServerEndpoints::new(OTHER));
    });
    let first = world.qualified().address;
    world.client.stop(world.now);
    world.run(seconds(3));
    world.client.start(world.now);
    world.collect();
    assert_eq!(world.qualified().address, first);
    // Another mapping.
    world.nat.reboot();
    world.run(seconds(31));
    let second = world.qualified().address;
    assert_ne!(fields(second).mapped, fields(first).mapped);
    assert_ne!(fields(second).flags, fields(first).flags);
    // Another server.
    world.silent.extend([PRIMARY, SECONDARY]);
    world.run(seconds(70));
    let third = world.qualified().address;
    assert_eq!(fields(third).server, OTHER);
    assert_eq!(fields(third).mapped, fields(second).mapped);
    assert_ne!(fields(third).flags, fields(second).flags);
}

#[test]
fn c16_the_mtu_of_the_server() {
    for (advertised, expected) in [
        (None, MTU),
        (Some(1280), 1280),
        (Some(1400), 1400),
        (Some(1279), MTU),
    ] {
        let mut world =
            World::with_server(Kind::Restricted, |_| (), |server| server.mtu = advertised);
        assert_eq!(world.qualified().mtu, expected);
    }
}

#[test]
fn c17_x31_a_nat_that_preserves_ports() {
    let mut world = World::stopped(Kind::Restricted, |_| (), &mut |_| ());
    world.nat.preserves_ports = true;
    world.set_network(|_| ());
    world.client.start(world.now);
    world.collect();
    assert!(world.qualified().port_preserving);
    assert!(!World::new(Kind::Restricted).qualified().port_preserving);
    // Without NAT as well.
    let identity = World::new(Kind::Absent).qualified();
    assert!(identity.port_preserving);
    assert_eq!(identity.nat, Nat::Restricted);
}

#[test]
fn x21_the_port_mapping_is_kept_behind_nested_nats_alone() {
    for (mapping, kept, upnp) in [
        (None, None, false),
        (Some(MAPPED), None, true),
        (Some("10.0.0.7:4096"), Some("10.0.0.7:4096"), false),
    ] {
        let mut world = World::stopped(Kind::Restricted, |_| (), &mut |_| ());
        world.set_network(|network| network.port_mapping = mapping.map(endpoint));
        world.client.start(world.now);
        world.collect();
        let identity = world.qualified();
        assert_eq!(
            (identity.port_mapping, identity.upnp),
            (kept.map(endpoint), upnp)
        );
        // It may be found later, too; that starts nothing anew.
        let sent = world.sent.len();
        world.set_network(|network| network.port_mapping = Some(endpoint(MAPPED)));
        let identity = world.client.identity().unwrap();
        assert_eq!((identity.port_mapping, identity.upnp), (None, true));
        assert_eq!(world.sent.len(), sent);
    }
}

#[test]
fn c11_one_solicitation_is_lost_and_the_next_is_answered() {
    let mut world = World::new(Kind::Restricted);
    let start = world.now;
    world.silent.insert(PRIMARY);
    world.run(seconds(5));
    world.silent.clear();
    world.qualified();
    assert_eq!(world.now, start + seconds(8) + ROUND_TRIP * 2);
    assert_eq!(world.asked(PRIMARY).len(), 3);
}

#[test]
fn a02_a_late_answer_to_an_earlier_solicitation_is_good() {
    let mut world = World::new(Kind::Restricted);
    world.silent.extend([PRIMARY, SECONDARY]);
    world.run(seconds(9));
    assert_eq!(world.sent.len(), 3);
    let answer = advertisement(&world.sent[0].payload, MAPPED);
    world.arrives(
        PORT,
        ServerEndpoints::new(PRIMARY).primary(),
        answer.clone(),
    );
    assert_eq!(world.client.state(), State::Second);
    // Once more, and late: it answers nothing that is outstanding.
    world.arrives(PORT, ServerEndpoints::new(PRIMARY).primary(), answer);
    assert_eq!(world.client.state(), State::Second);
    // Source before nonce: the secondary address is to answer.
    assert_eq!(world.dropped(DropReason::AdvertisementSource), 1);
    let answer = advertisement(&world.sent[1].payload, MAPPED);
    world.arrives(PORT, ServerEndpoints::new(PRIMARY).secondary(), answer);
    assert_eq!(world.dropped(DropReason::AdvertisementNonce), 1);
    // An answer of the secondary address, after the second time it was asked.
    world.run(seconds(5));
    let late = advertisement(&world.sent[3].payload, MAPPED);
    world.arrives(
        PORT,
        ServerEndpoints::new(PRIMARY).secondary(),
        late.clone(),
    );
    assert_eq!(world.client.state(), State::Qualified);
    let identity = *world.client.identity().unwrap();
    // No server is asked now: no advertisement does anything.
    world.arrives(PORT, ServerEndpoints::new(PRIMARY).secondary(), late);
    assert_eq!(world.dropped(DropReason::AdvertisementNonce), 2);
    assert_eq!(world.client.identity(), Some(&identity));
}

#[test]
fn c18_no_advertisement_reaches_the_host() {
    // The harness checks every datagram; this one is unsolicited.
    let mut world = World::new(Kind::Restricted);
    world.qualified();
    let server = ServerEndpoints::new(PRIMARY).primary();
    let answer = advertisement(&world.sent[0].payload, MAPPED);
    world.arrives(PORT, server, answer);
    assert_eq!(world.client.statistics().decapsulated.packets, 0);
}

#[test]
fn c19_the_secondary_address_is_asked_in_qualification_alone() {
    let mut world = World::with(Kind::Restricted, |config| {
        config.refresh = crate::client::Refresh::Fixed(seconds(30));
    });
    world.qualified();
    world.run(seconds(600));
    assert_eq!(world.asked(SECONDARY).len(), 1);
}

#[test]
fn dec4_random_link_local_addresses() {
    let mut world = World::with(Kind::Restricted, |config| config.random_link_local = true);
    world.qualified();
    world.run(seconds(100));
    let mut sources: Vec<_> = world
        .sent
        .iter()
        .filter(|datagram| datagram.is_solicitation())
        .map(|datagram| encapsulation::parse(&datagram.payload).unwrap().packet[8..24].to_vec())
        .collect();
    assert!(
        sources
            .iter()
            .all(|source| source.starts_with(&[0xfe, 0x80, 0, 0, 0, 0, 0, 0]))
    );
    assert!(sources.iter().all(|source| source[8] & 0x83 == 0));
    let count = sources.len();
    sources.sort();
    sources.dedup();
    assert!(count > 4);
    assert_eq!(sources.len(), count);
}

#[test]
fn a_legacy_server_without_authentication() {
    let bare = |payload: &[u8]| advertisement(payload, MAPPED)[13..].to_vec();
    let server = ServerEndpoints::new(PRIMARY);
    for is_legacy in [false, true] {
        let mut world = World::with(Kind::Restricted, |config| config.legacy_server = is_legacy);
        world.silent.extend([PRIMARY, SECONDARY]);
        let answer = bare(&world.sent[0].payload);
        world.arrives(PORT, server.primary(), answer);
        if !is_legacy {
            assert_eq!(world.dropped(DropReason::AdvertisementNonce), 1);
            continue;
        }
        let answer = bare(&world.sent[1].payload);
        world.arrives(PORT, server.secondary(), answer);
        assert_eq!(world.client.state(), State::Qualified);
    }
}

#[test]
fn a_legacy_prefix_stands_for_the_configured_one() {
    for is_accepted in [false, true] {
        let mut world = World::with_server(
            Kind::Restricted,
            |config| config.legacy_prefix = is_accepted,
            |server| server.prefixes = vec![ServicePrefix::DRAFT],
        );
        if is_accepted {
            assert_eq!(
                fields(world.qualified().address).prefix,
                ServicePrefix::STANDARD
            );
        } else {
            world.offline(Offline::NoAnswer);
            assert_eq!(world.dropped(DropReason::AdvertisementPrefix), 3);
        }
    }
}

#[test]
fn the_server_of_the_harness_is_the_one_of_the_hand_made_advertisements() {
    let mut world = World::new(Kind::Restricted);
    let made = advertisement(&world.sent[0].payload, MAPPED);
    let compared = std::rc::Rc::new(std::cell::Cell::new(false));
    let seen = compared.clone();
    world.tamper = Box::new(move |from, payload| {
        assert_eq!(*from, Endpoint::new(PRIMARY, 3544));
        assert_eq!(*payload, made);
        seen.set(true);
        false
    });
    world.run(ROUND_TRIP);
    assert!(compared.get());
    assert_eq!(link_local(), server_link_local(PRIMARY, 3544).octets());
    assert_eq!(teredo_prefix()[4..], PRIMARY.octets());
}
