//! The class of each packet that is left to the daemon, and the networks that pay for it.

use std::net::Ipv6Addr;

use anyhow::{Result, ensure};
use teredo_common::{
    address::{Endpoint, TeredoAddress},
    budget::{Allowance, Budget, CLASSES, Class, LEVELS},
    cookie::{self, CookieKey, Sent},
    limiter::Rate,
    peers::Peer,
    verdict::{Action, Verdict},
    wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, NO_NEXT_HEADER},
};
use teredo_differential::{
    FastPath as _,
    host::HostPath,
    packet::{datagram, endpoint, ethernet, fix_header_checksum, ipv6, udp},
    server,
    site::{HOST, LAN, Port, ROUTER, Setup, WAN, relay},
};

const CLIENT: &str = "9.0.0.1:4096";
const NATIVE: &str = "2800:1:2:3::1";
const KEY: CookieKey = CookieKey([7, 8]);
const OF_SERVER: [u8; 4] = [1, 2, 3, 4];

/// The classes, with the verdict about a packet beyond the allowance.
const LIMITS: [(Class, Verdict); CLASSES] = [
    (Class::Other, Verdict::DecapOtherLimit),
    (Class::Claim, Verdict::DecapClaimLimit),
    (Class::Cookie, Verdict::DecapCookieLimit),
    (Class::Peer, Verdict::DecapPeerLimit),
    (Class::Fragment, Verdict::DecapFragmentLimit),
    (Class::Server, Verdict::RespondDaemonLimit),
    (Class::Native, Verdict::EncapNewPeerLimit),
    (Class::NativeKnown, Verdict::EncapNewPeerLimit),
    (Class::NativePeer, Verdict::EncapPeerLimit),
];

/// A fast path with relay and server that lets one packet of a class pass.
fn path_with_one(class: Class) -> HostPath {
    let mut budget = Budget {
        seed: 0x5eed,
        ..Budget::default()
    };
    budget.allowances[class as usize] = Allowance::new(1);
    path(budget)
}

fn path(budget: Budget) -> HostPath {
    let path = HostPath::new(&Setup {
        budget,
        server: Some(server::config()),
        ..Setup::default()
    });
    path.maps.set_cookies(KEY, 0);
    path
}

/// Returns the class that pays for a frame, after `prepare`; `None` if it is not limited.
fn class_of(
    prepare: impl Fn(&mut HostPath) -> Result<()>,
    port: Port,
    frame: &[u8],
) -> Result<Option<Class>> {
    let mut found = None;
    for (class, limit) in LIMITS {
        let mut path = path_with_one(class);
        prepare(&mut path)?;
        let first = path.run(port, frame)?.verdict;
        ensure!(first.action() == Action::Pass, "{first:?}");
        let second = path.run(port, frame)?.verdict;
        if second != first {
            ensure!(second == limit, "{second:?} of {class:?}");
            ensure!(found.replace(class).is_none(), "{class:?} is the second");
        }
    }
    Ok(found)
}

fn teredo(mapped: Endpoint) -> Ipv6Addr {
    TeredoAddress::new(OF_SERVER.into(), mapped).encode()
}

fn peer() -> Ipv6Addr {
    teredo(endpoint(CLIENT))
}

fn insert_peer(path: &mut HostPath) -> Result<()> {
    let now = path.now();
    let peer_at = Peer {
        mapped: endpoint(CLIENT),
        last_received: now,
        last_sent: now,
    };
    path.insert(peer(), peer_at)
}

fn nothing(_: &mut HostPath) -> Result<()> {
    Ok(())
}

/// A datagram to the relay.
fn to_relay(from: &str, packet: &[u8]) -> Vec<u8> {
    datagram(endpoint(from), relay(), 1, packet)
}

fn bubble(source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    ipv6(source, destination, NO_NEXT_HEADER, &[])
}

fn link_local() -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)
}

/// A cookie of the relay for the client, at the time of the tests.
fn cookie(sent: Sent) -> Ipv6Addr {
    let octets = peer().octets();
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&octets[at..at + 8]);
        u64::from_ne_bytes(word)
    };
    let epoch = cookie::epoch(HostPath::new(&Setup::default()).now(), 0);
    let identifier = KEY.interface_identifier(epoch, sent, [word(0), word(8)]);
    let mut address = [0; 16];
    address[..8].copy_from_slice(&cookie::PREFIX.to_ne_bytes());
    address[8..].copy_from_slice(&identifier.to_ne_bytes());
    address.into()
}

fn wan(packet: &[u8]) -> Vec<u8> {
    ethernet(WAN, ROUTER, ETHERTYPE_IPV4, packet)
}

fn lan(packet: &[u8]) -> Vec<u8> {
    ethernet(LAN, HOST, ETHERTYPE_IPV6, packet)
}

fn changed(mut packet: Vec<u8>, change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut packet);
    fix_header_checksum(&mut packet);
    packet
}

#[test]
fn l20_a_datagram_to_the_relay_pays_as_what_speaks_for_it() -> Result<()> {
    let is = |packet: Vec<u8>, expected| {
        let found = class_of(nothing, Port::Wan, &wan(&packet))?;
        ensure!(found == Some(expected), "{found:?} of {packet:02x?}");
        Ok(())
    };
    let from_client = bubble(peer(), link_local());
    is(to_relay(CLIENT, &from_client), Class::Claim)?;
    // Elsewhere by the port or the address, or without an address that says where it comes from.
    is(to_relay("9.0.0.1:4097", &from_client), Class::Other)?;
    is(to_relay("9.0.0.2:4096", &from_client), Class::Other)?;
    let native = bubble(NATIVE.parse()?, link_local());
    is(to_relay(CLIENT, &native), Class::Other)?;
    is(to_relay(CLIENT, b"short"), Class::Other)?;
    let mut version = from_client.clone();
    version[0] = 0x50;
    is(to_relay(CLIENT, &version), Class::Other)?;

    let mapped = endpoint(CLIENT);
    for sent in [Sent::Indirectly, Sent::To(mapped)] {
        is(
            to_relay(CLIENT, &bubble(peer(), cookie(sent))),
            Class::Cookie,
        )?;
    }
    // The proof of the server's side holds for each mapping, and that of a mapping for no other.
    let elsewhere = "9.0.0.1:4097";
    let answer = |sent| to_relay(elsewhere, &bubble(peer(), cookie(sent)));
    is(answer(Sent::Indirectly), Class::Cookie)?;
    is(answer(Sent::To(mapped)), Class::Other)?;
    // Not a bubble, and not to a cookie.
    let packet = udp(peer(), cookie(Sent::Indirectly), b"data");
    is(to_relay(CLIENT, &packet), Class::Claim)?;
    let mut octets = cookie(Sent::Indirectly).octets();
    octets[7] = 1;
    is(
        to_relay(CLIENT, &bubble(peer(), octets.into())),
        Class::Claim,
    )
}

#[test]
fn l20_a_datagram_of_a_peer_pays_as_that_from_its_mapping_alone() -> Result<()> {
    let packet = bubble(peer(), link_local());
    for (from, expected) in [
        (CLIENT, Class::Peer),
        ("9.0.0.1:4097", Class::Other),
        ("9.0.0.2:4096", Class::Other),
    ] {
        let found = class_of(insert_peer, Port::Wan, &wan(&to_relay(from, &packet)))?;
        assert_eq!(found, Some(expected), "{from}");
    }
    // A cookie of a peer is that of a peer.
    let answer = bubble(peer(), cookie(Sent::Indirectly));
    let found = class_of(insert_peer, Port::Wan, &wan(&to_relay(CLIENT, &answer)))?;
    assert_eq!(found, Some(Class::Peer));
    Ok(())
}

#[test]
fn l20_fragments_and_options_pay_for_themselves() -> Result<()> {
    let to_server = |packet: &[u8]| datagram(endpoint(CLIENT), endpoint("1.2.3.4:3544"), 1, packet);
    let packet = bubble(peer(), link_local());
    let of_relay = to_relay(CLIENT, &packet);
    for (datagram, expected) in [
        (of_relay.clone(), Class::Fragment),
        (to_server(&packet), Class::Server),
    ] {
        let more = changed(datagram.clone(), |packet| packet[6] = 0x20);
        let later = changed(datagram.clone(), |packet| packet[7] = 1);
        for fragment in [more, later] {
            let found = class_of(nothing, Port::Wan, &wan(&fragment))?;
            assert_eq!(found, Some(expected));
        }
    }
    // Four octets of options in front of the ports, and the sum of all words.
    let mut options = of_relay;
    options[0] = 0x46;
    options.splice(20..20, [1; 4]);
    let length = (options.len() as u16).to_be_bytes();
    options[2..4].copy_from_slice(&length);
    options[10..12].fill(0);
    let sum = teredo_common::checksum::Sum::ZERO.add_octets(&options[..24]);
    options[10..12].copy_from_slice(&sum.checksum());
    let found = class_of(nothing, Port::Wan, &wan(&options))?;
    assert_eq!(found, Some(Class::Fragment));
    Ok(())
}

#[test]
fn l20_a_datagram_to_the_server_pays_at_its_port_alone() -> Result<()> {
    // Echo requests, of which the daemon judges.
    let packet = teredo_differential::packet::echo(peer(), NATIVE.parse()?, b"data");
    let at = |to: &str| {
        let datagram = datagram(endpoint(CLIENT), endpoint(to), 1, &packet);
        class_of(nothing, Port::Wan, &wan(&datagram))
    };
    assert_eq!(at("1.2.3.4:3544")?, Some(Class::Server));
    for elsewhere in [
        "1.2.3.4:3545",
        "1.2.3.6:3544",
        "5.6.7.8:3544",
        "5.6.7.9:3545",
    ] {
        assert_eq!(at(elsewhere)?, None, "{elsewhere}");
    }
    // What is not UDP is not for the daemon, wherever it goes.
    let tcp = changed(to_relay(CLIENT, &bubble(peer(), link_local())), |packet| {
        packet[9] = 6
    });
    assert_eq!(class_of(nothing, Port::Wan, &wan(&tcp))?, None);
    Ok(())
}

#[test]
fn l20_a_native_packet_pays_as_what_speaks_for_its_peer() -> Result<()> {
    let native: Ipv6Addr = NATIVE.parse()?;
    let of = |prepare: fn(&mut HostPath) -> Result<()>, packet: &[u8]| {
        class_of(prepare, Port::Lan, &lan(packet))
    };
    let other = teredo(endpoint("9.0.0.7:7"));
    let packet = udp(native, other, b"data");
    assert_eq!(of(nothing, &packet)?, Some(Class::Native));
    // A client of the same server has answered.
    let answered = |path: &mut HostPath| {
        let answer = to_relay(CLIENT, &bubble(peer(), cookie(Sent::Indirectly)));
        let verdict = path.run(Port::Wan, &wan(&answer))?.verdict;
        ensure!(verdict.action() == Action::Pass, "{verdict:?}");
        Ok(())
    };
    assert_eq!(of(answered, &packet)?, Some(Class::NativeKnown));
    // Too large for the tunnel.
    let large = udp(native, peer(), &[0; 1300]);
    assert_eq!(of(insert_peer, &large)?, Some(Class::NativePeer));
    assert_eq!(of(nothing, &udp(native, native, b"data"))?, None);
    Ok(())
}

/// Returns whether a second packet passes when the first has used up what a network of this size has.
fn is_apart(level: usize, port: Port, [first, second]: &[Vec<u8>; 2]) -> Result<bool> {
    let mut budget = Budget {
        seed: 0x5eed,
        ..Budget::default()
    };
    let plenty = Rate::new(1_000_000, 4);
    for allowance in &mut budget.allowances {
        *allowance = Allowance {
            networks: [Rate::new(1_000_000, 1_000_000); LEVELS],
            total: plenty,
            again: plenty,
        };
        allowance.networks[level] = Rate::new(1, 1);
    }
    let mut path = path(budget);
    // Tokens are scarce when half of the burst has gone; others use it.
    let mut run = |frame: &[u8]| {
        path.set_clock(teredo_common::time::Instant::from_nanos(1_000_000_000_000));
        anyhow::Ok(path.run(port, frame)?.verdict.action() == Action::Pass)
    };
    let others = match port {
        Port::Wan => wan(&to_relay(
            "7.0.0.1:7",
            &bubble(NATIVE.parse()?, link_local()),
        )),
        _ => lan(&udp("2a00::1".parse()?, peer(), b"data")),
    };
    ensure!(run(&others)? && run(first)?);
    // Now they are scarce.
    run(second)
}

#[test]
fn l21_networks_of_three_sizes_pay() -> Result<()> {
    let from = |address: &str| {
        let packet = bubble(NATIVE.parse().expect("an address"), link_local());
        wan(&to_relay(&format!("{address}:9"), &packet))
    };
    let native = |address: &str| lan(&udp(address.parse().expect("an address"), peer(), b"data"));
    for (level, same, other) in [
        (0, "9.9.9.9", "9.9.9.8"),
        (1, "9.9.9.8", "9.9.8.9"),
        (2, "9.9.8.9", "9.8.9.9"),
    ] {
        assert!(!is_apart(level, Port::Wan, &[from("9.9.9.9"), from(same)])?);
        assert!(is_apart(level, Port::Wan, &[from("9.9.9.9"), from(other)])?);
    }
    for (level, same, other) in [
        (0, "2800:1:2:3::1", "2800:1:2:4::1"),
        (1, "2800:1:2:4::1", "2800:1:3:3::1"),
        (2, "2800:1:3:3::1", "2800:2:2:3::1"),
    ] {
        let first = || native(NATIVE);
        assert!(!is_apart(level, Port::Lan, &[first(), native(same)])?);
        assert!(is_apart(level, Port::Lan, &[first(), native(other)])?);
    }
    Ok(())
}
