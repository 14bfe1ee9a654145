//! Native hosts: the connectivity test, and the packets held for it.

use std::time::Duration;

use super::harness::*;
use crate::{
    client::{Bubble, DropReason, Test, exchange::Forward},
    shared::{limiter::Rate, statistics::Unreachable},
    wire::icmpv6,
};
use teredo_common::wire::{ICMPV6, MTU};

#[test]
fn c51_case_2_a_native_host_is_tested_and_the_queue_follows_the_answer_at_once() {
    let mut world = World::new();
    let host = address(HOST);
    let packets = [packet(&own(), &host, 1), packet(&own(), &host, 2)];
    for packet in &packets {
        assert_eq!(world.host_sends(packet), Ok(Forward::Queued));
    }
    let [test] = &world.take_payloads()[..] else {
        panic!("one test for two packets")
    };
    assert_eq!(test.0, endpoint(SERVER));
    world.pass(Duration::from_millis(30));
    assert_eq!(world.arrives(RELAY, &reply_to(&test.1)), Ok(None));
    let expected: Vec<_> = packets
        .iter()
        .map(|test| (endpoint(RELAY), test.clone()))
        .collect();
    assert_eq!(world.take_payloads(), expected);
    assert!(world.trusts(&host));
    let next = packet(&own(), &host, 3);
    assert_eq!(
        world.host_sends(&next),
        Ok(Forward::Send(PORT, endpoint(RELAY), next.len()))
    );
}

#[test]
fn c51_case_2_four_tests_and_then_an_error() {
    let mut world = World::new();
    let host = address(HOST);
    let start = world.now;
    let newest = packet(&own(), &host, 2);
    world.host_sends(&packet(&own(), &host, 1)).unwrap();
    world.host_sends(&newest).unwrap();
    world.pass_seconds(10);
    let times: Vec<_> = world.take_sent().iter().map(|mapping| mapping.at).collect();
    assert_eq!(times.len(), 4);
    for pair in times.windows(2) {
        let gap = pair[1].saturating_since(pair[0]);
        assert!(
            gap >= Duration::from_secs(2) && gap <= Duration::from_millis(2250),
            "P-10"
        );
    }
    assert_eq!(times[0], start);
    let [error] = &world.take_delivered()[..] else {
        panic!("one error, for the newest packet")
    };
    assert_eq!(error[40..42], [1, 3]);
    assert_eq!(error[24..40], own());
    assert_eq!(error[48..], newest);
    assert_eq!(world.statistics().dropped[DropReason::HostNoAnswer], 2);
    assert_eq!(world.statistics().queue_packets, 0);
    // The next packet begins again.
    assert_eq!(world.host_sends(&newest), Ok(Forward::Queued));
    assert_eq!(world.take_sent().len(), 1);
}

#[test]
fn c55_every_test_has_a_new_nonce_and_any_of_the_last_four_is_accepted() {
    for answered in 0..4 {
        let mut world = World::new();
        let host = address(HOST);
        world.host_sends(&packet(&own(), &host, 1)).unwrap();
        world.pass(Duration::from_millis(7000));
        let tests = world.take_payloads();
        let data: Vec<_> = tests.iter().map(|(_, test)| &test[48..]).collect();
        assert_eq!(data.len(), 4);
        assert!(data.iter().all(|data| data.len() == 24));
        assert!((1..4).all(|newer| !data[..newer].contains(&data[newer])));
        assert_eq!(
            world.arrives(RELAY, &reply_to(&tests[answered].1)),
            Ok(None)
        );
        assert!(world.trusts(&host), "test {answered}");
    }
}

#[test]
fn c38_an_answer_has_to_be_exact_and_in_time() {
    let host = address(HOST);
    let mut world = World::new();
    world.host_sends(&packet(&own(), &host, 1)).unwrap();
    let reply = reply_to(&world.take_payloads()[0].1);
    for octet in 44..reply.len() {
        let mut message = reply[40..].to_vec();
        message[octet - 40] ^= 1;
        let wrong = with_checksum(&host, &message);
        assert_ne!(world.arrives(RELAY, &wrong), Err(DropReason::SourceScope));
        assert!(!world.trusts(&host), "octet {octet}");
    }
    assert_eq!(
        world.arrives("192.168.7.7:9", &reply),
        Err(DropReason::SourceScope)
    );
    assert!(!world.trusts(&host));
    assert_eq!(world.arrives(RELAY, &reply), Ok(None));
    assert!(world.trusts(&host));

    let mut world = World::new();
    world.host_sends(&packet(&own(), &host, 1)).unwrap();
    let reply = reply_to(&world.take_payloads()[0].1);
    world.pass_seconds(30);
    let _ = world.arrives(RELAY, &reply);
    assert!(!world.trusts(&host), "too late");
}

/// An ICMPv6 message from the host with a right checksum.
fn with_checksum(host: &[u8; 16], message: &[u8]) -> Vec<u8> {
    transport(ICMPV6, 64, host, &own(), message)
}

#[test]
fn c56_answers_are_consumed_and_the_hosts_own_pings_are_not() {
    let mut world = World::new();
    let host = address(HOST);
    world.host_sends(&packet(&own(), &host, 1)).unwrap();
    world.pass_seconds(3);
    let tests = world.take_payloads();
    assert_eq!(tests.len(), 2);
    for (_, test) in &tests {
        assert_eq!(world.arrives(RELAY, &reply_to(test)), Ok(None));
    }
    assert_eq!(world.delivered.len(), 0);
    let ping = icmpv6::echo_request(
        &own(),
        &host,
        icmpv6::Echo {
            identifier: 1,
            sequence: 1,
            data: b"the host's own",
        },
    );
    world.host_sends(&ping).unwrap();
    let pong = reply_to(&ping);
    assert_eq!(world.arrives(RELAY, &pong), Ok(Some(pong.len())));
}

#[test]
fn c57_a_host_that_refuses_pings_is_there_and_a_router_that_says_so_is_not() {
    let mut world = World::new();
    let host = address(HOST);
    world.host_sends(&packet(&own(), &host, 1)).unwrap();
    let test = world.take_payloads().remove(0).1;
    let router = icmpv6::unreachable(1, &address("2000::1"), &test).unwrap();
    assert_eq!(world.arrives(RELAY, &router), Err(DropReason::Unsolicited));
    assert!(!world.trusts(&host));
    let refusal = icmpv6::unreachable(1, &host, &test).unwrap();
    assert_eq!(world.arrives(RELAY, &refusal), Ok(None));
    assert!(world.trusts(&host));
}

#[test]
fn c58_tests_are_rare() {
    let mut world = World::with(|config| config.test_rate = Rate::new(1, 5));
    for number in 0..50 {
        let host = address(&format!("2000::{number:x}"));
        world.host_sends(&packet(&own(), &host, 0)).unwrap();
    }
    assert_eq!(world.take_sent().len(), 5);
    assert_eq!(world.tests(Test::Limited), 45);
}

#[test]
fn c36_an_answer_by_the_own_server_names_the_relay_in_its_origin() {
    let mut world = World::new();
    let host = address(HOST);
    let first = packet(&own(), &host, 1);
    world.host_sends(&first).unwrap();
    let reply = reply_to(&world.take_payloads()[0].1);
    assert_eq!(world.arrives(SERVER, &with_origin(RELAY, &reply)), Ok(None));
    assert_eq!(world.take_payloads(), [(endpoint(RELAY), first)]);

    let mut world = World::new();
    world.host_sends(&packet(&own(), &host, 1)).unwrap();
    let reply = reply_to(&world.take_payloads()[0].1);
    for origin in [
        "192.168.1.2:40000",
        "9.0.0.1:4096",
        "127.0.0.1:80",
        "224.0.0.1:80",
        "5.6.7.8:0",
    ] {
        assert_eq!(
            world.arrives(SERVER, &with_origin(origin, &reply)),
            Err(DropReason::SourceScope),
            "{origin}"
        );
    }
    assert!(!world.trusts(&host));
}

#[test]
fn c33_the_server_may_be_the_relay_and_origins_are_no_identity() {
    let mut world = World::new();
    let host = address(HOST);
    let first = packet(&own(), &host, 1);
    world.host_sends(&first).unwrap();
    let reply = reply_to(&world.take_payloads()[0].1);
    assert_eq!(world.arrives(SERVER, &reply), Ok(None));
    assert_eq!(world.take_payloads(), [(endpoint(SERVER), first)]);
    let data = packet(&host, &own(), 2);
    assert_eq!(world.arrives(SERVER, &data), Ok(Some(data.len())));
    // The server forwards any sender's packets: its endpoint proves nothing.
    let victim = packet(&address("2000::c"), &own(), 2);
    assert_eq!(
        world.arrives(SERVER, &with_origin(RELAY, &victim)),
        Ok(None),
        "held: the server is a relay that is known"
    );
    assert!(!world.trusts(&address("2000::c")));
}

#[test]
fn c34_and_c41_a_native_host_comes_by_its_relay() {
    let mut world = World::new();
    let cookie = address("fe80::1234:5678:9abc:def0");
    let (host, data) = (address(HOST), packet(&address(HOST), &own(), 1));
    assert_eq!(world.arrives(RELAY, &data), Err(DropReason::Unsolicited));
    assert_eq!(world.take_sent(), []);
    let asked = with_origin(RELAY, &bubble(&cookie, &own(), &[]));
    assert_eq!(world.arrives(SERVER, &asked), Ok(None));
    assert_eq!(
        world.take_payloads(),
        [(endpoint(RELAY), bubble(&own(), &cookie, &[]))]
    );
    // Now its packets are held, and the host is tested.
    assert_eq!(world.arrives(RELAY, &data), Ok(None));
    let second = packet(&host, &own(), 2);
    assert_eq!(world.arrives(RELAY, &second), Ok(None));
    let tests = world.take_payloads();
    assert_eq!(tests.len(), 1);
    assert_eq!(tests[0].0, endpoint(SERVER));
    assert_eq!(world.delivered.len(), 0);
    assert_eq!(world.arrives(RELAY, &reply_to(&tests[0].1)), Ok(None));
    assert_eq!(world.take_delivered(), [data, second]);
    assert!(world.trusts(&host));
}

#[test]
fn c41_a_relay_that_others_are_reached_by_needs_no_new_bubble() {
    let mut world = World::new();
    world.trust_host();
    for second in 0..60 {
        world.pass_seconds(1);
        let data = packet(&address(HOST), &own(), second);
        assert!(world.arrives(RELAY, &data).unwrap().is_some());
    }
    let other = packet(&address("2000::c"), &own(), 1);
    assert_eq!(world.arrives(RELAY, &other), Ok(None), "held");
    assert_eq!(world.take_sent().len(), 1);
}

#[test]
fn c41_what_is_held_goes_with_the_test() {
    let mut world = World::new();
    let cookie = address("fe80::1234:5678:9abc:def0");
    world
        .arrives(SERVER, &with_origin(RELAY, &bubble(&cookie, &own(), &[])))
        .unwrap();
    world
        .arrives(RELAY, &packet(&address(HOST), &own(), 1))
        .unwrap();
    world.pass_seconds(10);
    assert_eq!(world.delivered.len(), 0, "nobody is told");
    assert_eq!(world.statistics().dropped[DropReason::NoAnswer], 1);
    assert_eq!(world.statistics().queue_packets, 0);
    assert_eq!(world.unreachable(Unreachable::Sent), 0);
}

#[test]
fn c41_held_packets_from_elsewhere_are_not_delivered() {
    let mut world = World::new();
    let host = address(HOST);
    world.host_sends(&packet(&own(), &host, 0)).unwrap();
    let test = world.take_payloads().remove(0).1;
    assert_eq!(
        world.arrives("5.6.6.6:666", &packet(&host, &own(), 66)),
        Ok(None)
    );
    assert_eq!(world.arrives(RELAY, &reply_to(&test)), Ok(None));
    assert_eq!(world.take_delivered(), [] as [Vec<u8>; 0]);
    assert_eq!(world.statistics().dropped[DropReason::HeldElsewhere], 1);
}

#[test]
fn c41_a_client_that_accepts_unsolicited_packets_tests_their_sources() {
    let mut world = World::with(|config| config.accept_unsolicited = true);
    let data = packet(&address(HOST), &own(), 1);
    assert_eq!(world.arrives(RELAY, &data), Ok(None));
    let test = world.take_payloads().remove(0).1;
    world.arrives(RELAY, &reply_to(&test)).unwrap();
    assert_eq!(world.take_delivered(), [data]);
}

#[test]
fn c41_c51_an_address_of_another_teredo_service_is_no_native_host() {
    let mut world = World::with(|config| config.accept_unsolicited = true);
    let foreign = address("3ffe:831f:102:304::1");
    assert_eq!(
        world.host_sends(&packet(&own(), &foreign, 1)),
        Err(DropReason::HostDestination)
    );
    assert_eq!(world.unreachable(Unreachable::Sent), 1);
    assert_eq!(
        world.arrives(RELAY, &packet(&foreign, &own(), 1)),
        Err(DropReason::Source)
    );
    assert_eq!(world.take_sent().len(), 0, "no test");
}

#[test]
fn p08_data_from_elsewhere_does_not_move_a_native_host() {
    let mut world = World::new();
    let host = world.trust_host();
    let data = packet(&host, &own(), 1);
    assert_eq!(
        world.arrives("5.6.6.6:666", &data),
        Err(DropReason::Unsolicited)
    );
    world.host_sends(&packet(&own(), &host, 2)).unwrap();
    assert_eq!(world.take_payloads()[0].0, endpoint(RELAY));
    // It may have moved: the test finds out.
    world.pass_seconds(3);
    assert_eq!(world.arrives("5.6.6.7:777", &data), Ok(None), "held");
    let test = world.take_payloads().remove(0).1;
    world.host_sends(&packet(&own(), &host, 2)).unwrap();
    assert_eq!(world.take_payloads()[0].0, endpoint(RELAY));
    assert_eq!(world.arrives("5.6.6.7:777", &reply_to(&test)), Ok(None));
    assert_eq!(world.take_delivered(), [data]);
    world.host_sends(&packet(&own(), &host, 2)).unwrap();
    assert_eq!(world.take_payloads()[0].0, endpoint("5.6.6.7:777"));
}

#[test]
fn p12_a_host_that_is_only_sent_to_is_tested_before_it_is_forgotten() {
    let mut world = World::new();
    let host = world.trust_host();
    let mut waited = 0;
    for _ in 0..120 {
        world.pass_seconds(1);
        let data = packet(&own(), &host, 1);
        waited += u32::from(world.host_sends(&data) == Ok(Forward::Queued));
        for sent in world.take_sent() {
            if sent.to == endpoint(SERVER) {
                world.arrives(RELAY, &reply_to(&sent.payload)).unwrap();
            }
        }
    }
    assert_eq!(waited, 0);
    assert!(
        (4..=5).contains(&world.tests(Test::Sent)),
        "{}",
        world.tests(Test::Sent)
    );
}

#[test]
fn c35_no_test_of_a_relay_itself() {
    let mut world = World::new();
    let cookie = address("fe80::1234:5678:9abc:def0");
    world
        .arrives(SERVER, &with_origin(RELAY, &bubble(&cookie, &own(), &[])))
        .unwrap();
    assert_eq!(
        world.arrives(RELAY, &packet(&cookie, &own(), 1)),
        Err(DropReason::Source),
        "C-18"
    );
    world.pass_seconds(20);
    assert_eq!(world.tests(Test::Sent), 0);
}

#[test]
fn p09_bubbles_to_one_relay_are_rare() {
    let mut world = World::new();
    for number in 0..200 {
        let cookie = address(&format!("fe80::{number:x}"));
        world
            .arrives(SERVER, &with_origin(RELAY, &bubble(&cookie, &own(), &[])))
            .unwrap();
        world.pass(Duration::from_millis(100));
    }
    let sent = world.take_sent();
    assert_eq!(sent.len(), 5, "four, and one eight seconds later");
    assert_eq!(world.bubbles(Bubble::LimitedDirect), 195);
}

#[test]
fn packets_of_the_largest_size_are_held_too() {
    let mut world = World::with(|config| config.accept_unsolicited = true);
    let data = ipv6(17, 64, &address(HOST), &own(), &[7; MTU as usize - 40]);
    assert_eq!(world.arrives(RELAY, &data), Ok(None));
    assert_eq!(world.statistics().queue_packets, 1);
}
