//! The budget of what the XDP program leaves to the daemon: which packets share it, and who still gets
//! through once it is used up.

use std::{net::Ipv6Addr, time::Duration};

use anyhow::Result;
use teredo_common::{
    address::Endpoint,
    budget::{Allowance, Budget, Class, LEVELS},
    cookie::{self, CookieKey, EPOCH, Sent},
    limiter::Rate,
    verdict::Verdict::*,
    wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};
use teredo_lab::{
    fixture::{Fixture, LAN, Port, ROUTER, ROUTER_V6, Setup, WAN, now, relay},
    packet::{
        IP, address, datagram, endpoint, ethernet, fix_header_checksum, fix_udp_checksum, udp,
    },
    peers::bubble,
};
use teredo_proto::server::Config;

/// A client at [`MAPPED`].
const CLIENT: &str = "2001:0:102:304:0:efff:f6ff:fffe";
const MAPPED: &str = "9.0.0.1:4096";
/// A client of another server.
const OTHER: &str = "2001:0:102:305:0:efff:f6ff:fffe";
const KEY: CookieKey = CookieKey([7, 8]);
/// Tokens come back after this time, which no test takes.
const HOUR: u64 = 3_600_000_000_000;

/// So many tokens.
const fn tokens(count: u64) -> Rate {
    Rate {
        interval: HOUR,
        tolerance: HOUR * (count - 1),
    }
}

/// So many tokens for everything, and plenty for every network; none for those who try again.
fn in_total(count: u64) -> Allowance {
    Allowance {
        networks: [tokens(1000); LEVELS],
        total: tokens(count),
        again: Rate::new(0, 0),
    }
}

fn budget(allowances: &[(Class, Allowance)]) -> Budget {
    let mut budget = Budget::default();
    for &(class, allowance) in allowances {
        budget.allowances[class as usize] = allowance;
    }
    budget
}

fn fixture(allowances: &[(Class, Allowance)]) -> Result<Fixture> {
    let mut fixture = Fixture::new(&Setup {
        budget: budget(allowances),
        ..Setup::default()
    })?;
    fixture.program.set_cookies(KEY, Duration::ZERO)?;
    Ok(fixture)
}

/// A datagram to the relay in a frame.
fn to_relay(from: &str, payload: &[u8]) -> Vec<u8> {
    let datagram = datagram(endpoint(from), relay(), 7, payload);
    ethernet(WAN, ROUTER, ETHERTYPE_IPV4, &datagram)
}

fn garbage(from: &str) -> Vec<u8> {
    to_relay(from, &[0xff; 48])
}

/// An answer of [`CLIENT`] to a bubble, as it was sent `epochs` ago.
fn answer(key: CookieKey, epochs: u64, sent: Sent) -> Vec<u8> {
    let client = address(CLIENT);
    let [first, second] = [0, 8].map(|at| {
        let mut word = [0; 8];
        word.copy_from_slice(&client.octets()[at..at + 8]);
        u64::from_ne_bytes(word)
    });
    let epoch = cookie::epoch(now(), 0).saturating_sub(epochs);
    let identifier = key.interface_identifier(epoch, sent, [first, second]);
    let mut destination = [0; 16];
    destination[..8].copy_from_slice(&cookie::PREFIX.to_ne_bytes());
    destination[8..].copy_from_slice(&identifier.to_ne_bytes());
    // Not from the endpoint in the address, so that nothing else speaks for it.
    to_relay("9.0.0.1:9", &bubble(client, Ipv6Addr::from(destination)))
}

fn native(from: &str, to: &str) -> Vec<u8> {
    let packet = udp(address(from), address(to), b"hello, world");
    ethernet(LAN, ROUTER_V6, ETHERTYPE_IPV6, &packet)
}

#[test]
fn l20_garbage_ends_in_the_driver_and_takes_nothing_from_others() -> Result<()> {
    let mut fixture = fixture(&[
        (Class::Other, in_total(2)),
        (Class::Claim, in_total(1)),
        (Class::Cookie, in_total(1)),
        (Class::Peer, in_total(1)),
    ])?;
    fixture.trust(address(OTHER), endpoint("9.0.0.1:4097"))?;
    let claim = to_relay(MAPPED, &bubble(address(CLIENT), address("fe80::1")));
    let mut congested = datagram(
        endpoint("9.0.0.1:4097"),
        relay(),
        7,
        &udp(address(OTHER), address("2000::b"), b"x"),
    );
    congested[1] = 1;
    fix_udp_checksum(&mut congested);
    fix_header_checksum(&mut congested);
    let peer = ethernet(WAN, ROUTER, ETHERTYPE_IPV4, &congested);
    fixture.refuse(
        Port::Wan,
        vec![
            ("one", garbage("9.1.0.1:1"), DecapNotIpv6),
            ("two", garbage("9.2.0.1:1"), DecapNotIpv6),
            ("three", garbage("9.3.0.1:1"), DecapOtherLimit),
            (
                "a wrong address",
                to_relay("9.9.9.9:9", &bubble(address(CLIENT), address("fe80::1"))),
                DecapOtherLimit,
            ),
            ("an address", claim.clone(), DecapBubble),
            ("another address", claim, DecapClaimLimit),
            ("a peer", peer.clone(), DecapCongestion),
            ("a peer again", peer, DecapPeerLimit),
            ("a cookie", answer(KEY, 0, Sent::Indirectly), DecapBubble),
            (
                "a cookie again",
                answer(KEY, 0, Sent::Indirectly),
                DecapCookieLimit,
            ),
        ],
    )
}

#[test]
fn l20_answers_are_known_by_their_cookies() -> Result<()> {
    let mut fixture = fixture(&[(Class::Other, in_total(1)), (Class::Cookie, in_total(9))])?;
    let mapping = Sent::To(endpoint("9.0.0.1:9"));
    let elsewhere = Sent::To(endpoint("9.0.0.1:8"));
    fixture.refuse(
        Port::Wan,
        vec![
            ("garbage", garbage("9.1.0.1:1"), DecapNotIpv6),
            ("of now", answer(KEY, 0, Sent::Indirectly), DecapBubble),
            ("to its mapping", answer(KEY, 0, mapping), DecapBubble),
            (
                "to another mapping",
                answer(KEY, 0, elsewhere),
                DecapOtherLimit,
            ),
            (
                "with another key",
                answer(CookieKey([7, 9]), 0, mapping),
                DecapOtherLimit,
            ),
        ],
    )?;
    // The clock has not counted an epoch, and the machine may be younger than two of them.
    let skipped = Duration::from_nanos(EPOCH);
    fixture.program.set_cookies(KEY, skipped)?;
    let before = answer(KEY, 0, Sent::Indirectly);
    fixture.refuse(
        Port::Wan,
        vec![("of the epoch before", before, DecapBubble)],
    )?;
    fixture.program.set_cookies(KEY, 3 * skipped)?;
    let old = answer(KEY, 0, Sent::Indirectly);
    fixture.refuse(Port::Wan, vec![("too old", old, DecapOtherLimit)])
}

#[test]
fn l21_a_network_has_a_share_of_its_own() -> Result<()> {
    let shares = Allowance {
        networks: [tokens(1), tokens(2), tokens(3)],
        ..in_total(20)
    };
    let mut fixture = fixture(&[(Class::Other, shares), (Class::Native, shares)])?;
    // Nobody has to keep to his share before half of everything is used up.
    let same = || garbage("9.3.1.1:1");
    fixture.refuse(Port::Wan, vec![("first", same(), DecapNotIpv6); 2])?;
    for network in 0..8 {
        let other = garbage(&format!("9.{}.1.1:1", 100 + network));
        fixture.refuse(Port::Wan, vec![("elsewhere", other, DecapNotIpv6)])?;
    }
    for network in 0..10 {
        let other = native(&format!("2000:{}::1", 100 + network), CLIENT);
        fixture.refuse(Port::Lan, vec![("elsewhere", other, EncapUnknownPeer)])?;
    }
    fixture.refuse(
        Port::Wan,
        vec![
            ("the first", garbage("9.1.1.1:1"), DecapNotIpv6),
            ("the same address", garbage("9.1.1.1:2"), DecapOtherLimit),
            ("the same /24", garbage("9.1.1.2:1"), DecapNotIpv6),
            ("a third in the /24", garbage("9.1.1.3:1"), DecapOtherLimit),
            ("the same /16", garbage("9.1.2.1:1"), DecapNotIpv6),
            ("a fourth in the /16", garbage("9.1.3.1:1"), DecapOtherLimit),
            ("another /16", garbage("9.2.1.1:1"), DecapNotIpv6),
        ],
    )?;
    fixture.refuse(
        Port::Lan,
        vec![
            (
                "the first",
                native("2000:1:1:1::1", CLIENT),
                EncapUnknownPeer,
            ),
            (
                "the same /64",
                native("2000:1:1:1::2", CLIENT),
                EncapNewPeerLimit,
            ),
            (
                "the same /48",
                native("2000:1:1:2::1", CLIENT),
                EncapUnknownPeer,
            ),
            (
                "a third in the /48",
                native("2000:1:1:3::1", CLIENT),
                EncapNewPeerLimit,
            ),
            (
                "the same /32",
                native("2000:1:2:1::1", CLIENT),
                EncapUnknownPeer,
            ),
            (
                "a fourth in the /32",
                native("2000:1:3:1::1", CLIENT),
                EncapNewPeerLimit,
            ),
            (
                "another /32",
                native("2000:2:1:1::1", CLIENT),
                EncapUnknownPeer,
            ),
        ],
    )
}

#[test]
fn l22_who_tries_again_gets_through_beside_forged_sources() -> Result<()> {
    let again = Allowance {
        again: tokens(2),
        ..in_total(1)
    };
    let mut fixture = fixture(&[(Class::Native, again)])?;
    let (one, other) = (native("2000:1::1", CLIENT), native("2000:2::1", CLIENT));
    fixture.refuse(
        Port::Lan,
        vec![
            (
                "the last token",
                native("2000:3::1", CLIENT),
                EncapUnknownPeer,
            ),
            ("refused", one.clone(), EncapNewPeerLimit),
            (
                "another client",
                native("2000:1::1", OTHER),
                EncapNewPeerLimit,
            ),
            ("another source", other.clone(), EncapNewPeerLimit),
            ("tried again", one.clone(), EncapUnknownPeer),
            ("tried again, too", other, EncapUnknownPeer),
            ("no tokens for repetitions", one, EncapNewPeerLimit),
        ],
    )
}

#[test]
fn l22_clients_of_servers_that_answer_have_a_budget_of_their_own() -> Result<()> {
    let mut fixture = fixture(&[
        (Class::Native, in_total(1)),
        (Class::NativeKnown, in_total(1)),
    ])?;
    fixture.refuse(
        Port::Lan,
        vec![
            (
                "the last token",
                native("2000:3::1", CLIENT),
                EncapUnknownPeer,
            ),
            ("refused", native("2000:1::1", CLIENT), EncapNewPeerLimit),
        ],
    )?;
    let answer = answer(KEY, 0, Sent::Indirectly);
    fixture.refuse(Port::Wan, vec![("an answer", answer, DecapBubble)])?;
    fixture.refuse(
        Port::Lan,
        vec![
            (
                "of another server",
                native("2000:1::1", OTHER),
                EncapNewPeerLimit,
            ),
            (
                "of that server",
                native("2000:1::1", CLIENT),
                EncapUnknownPeer,
            ),
            (
                "and no more",
                native("2000:2::1", CLIENT),
                EncapNewPeerLimit,
            ),
        ],
    )
}

#[test]
fn l20_fragments_and_options_have_a_budget_and_other_ports_none() -> Result<()> {
    let mut fixture = fixture(&[(Class::Fragment, in_total(2)), (Class::Other, in_total(1))])?;
    let fragment = |from| {
        let mut frame = garbage(from);
        frame[IP + 7] = 8;
        let mut packet = frame.split_off(IP);
        fix_header_checksum(&mut packet);
        [frame, packet].concat()
    };
    let mut options = garbage("9.3.0.1:1");
    options[IP] = 0x46;
    let elsewhere = |port| {
        let to = Endpoint::new(relay().ip(), port);
        let datagram = datagram(endpoint(MAPPED), to, 7, &[0xff; 48]);
        ethernet(WAN, ROUTER, ETHERTYPE_IPV4, &datagram)
    };
    fixture.refuse(
        Port::Wan,
        vec![
            ("one", fragment("9.1.0.1:1"), DecapFragment),
            ("options", options.clone(), DecapIpv4Options),
            ("three", fragment("9.2.0.1:1"), DecapFragmentLimit),
            ("options again", options, DecapFragmentLimit),
            ("garbage", garbage("9.1.0.1:1"), DecapNotIpv6),
            ("another port", elsewhere(53), DecapNotOurs),
            ("another port again", elsewhere(53), DecapNotOurs),
        ],
    )
}

#[test]
fn l20_what_the_server_leaves_to_the_daemon_has_a_budget() -> Result<()> {
    let again = Allowance {
        again: tokens(1),
        ..in_total(1)
    };
    let mut fixture = Fixture::new(&Setup {
        relay: false,
        server: Some(Config::new([1, 2, 3, 4].into(), [1, 2, 3, 5].into())),
        budget: budget(&[(Class::Server, again)]),
        ..Setup::default()
    })?;
    let request = |from| {
        let payload = [&[0, 1, 4, 0][..], b"namenonce-nonce", &[0; 48]].concat();
        let datagram = datagram(endpoint(from), endpoint("1.2.3.4:3544"), 7, &payload);
        ethernet(WAN, ROUTER, ETHERTYPE_IPV4, &datagram)
    };
    fixture.refuse(
        Port::Wan,
        vec![
            ("one", request("9.1.0.1:1"), RespondAuthentication),
            ("two", request("9.2.0.1:1"), RespondDaemonLimit),
            ("three", request("9.3.0.1:1"), RespondDaemonLimit),
            ("two, again", request("9.2.0.1:1"), RespondAuthentication),
        ],
    )
}

#[test]
fn without_allowances_nothing_is_limited() -> Result<()> {
    let mut fixture = fixture(&[])?;
    for host in 1..200 {
        let frame = garbage(&format!("9.1.1.{host}:1"));
        fixture.refuse(Port::Wan, vec![("garbage", frame, DecapNotIpv6)])?;
    }
    Ok(())
}
