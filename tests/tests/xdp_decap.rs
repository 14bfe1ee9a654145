//! Every row of decision table D1 (IPv4 to IPv6), from both sides.

use std::net::Ipv6Addr;

use anyhow::Result;
use teredo_common::{
    address::{Endpoint, ServicePrefix},
    maps::Peer,
    prefixes::TeredoPrefixes,
    verdict::Verdict::*,
    wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};
use teredo_lab::{
    fixture::{
        Fixture, HOST, LAN, Passage, Port, ROUTER, ROUTER_V6, SHORTEST, Setup, WAN, now, relay,
        wait_for_stale_stamps,
    },
    packet::{
        IP, address, datagram, echo, endpoint, ethernet, fix_header_checksum, fix_udp_checksum,
        ipv6, octets, tcp, udp,
    },
};

const CLIENT: &str = "2001:0:102:304:0:efff:f6ff:fffe";
const HOST_ADDRESS: &str = "2000::b";

fn client() -> Endpoint {
    endpoint("9.0.0.1:4096")
}

/// The client's frame: the packet in a datagram in a frame.
fn frame(packet: &[u8]) -> Vec<u8> {
    let datagram = datagram(client(), relay(), 7, packet);
    ethernet(WAN, ROUTER, ETHERTYPE_IPV4, &datagram)
}

fn data() -> Vec<u8> {
    udp(address(CLIENT), address(HOST_ADDRESS), b"hello, world")
}

fn to(destination: &str) -> Vec<u8> {
    udp(address(CLIENT), address(destination), b"hello, world")
}

/// The client's frame with the IPv4 packet changed and valid checksums.
fn outer(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut datagram = datagram(client(), relay(), 7, &data());
    change(&mut datagram);
    fix_udp_checksum(&mut datagram);
    fix_header_checksum(&mut datagram);
    ethernet(WAN, ROUTER, ETHERTYPE_IPV4, &datagram)
}

/// The client's frame with the inner packet changed and valid outer checksums.
fn inner(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut packet = data();
    change(&mut packet);
    frame(&packet)
}

/// The client's frame with an outer UDP checksum of zero.
fn unchecked(packet: &[u8]) -> Vec<u8> {
    let mut frame = frame(packet);
    frame[IP + 26..IP + 28].fill(0);
    frame
}

/// The frame that the host receives.
fn forwarded(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[7] -= 1;
    ethernet(HOST, LAN, ETHERTYPE_IPV6, &packet)
}

fn fixture(setup: &Setup) -> Result<Fixture> {
    let mut fixture = Fixture::new(setup)?;
    fixture.trust(address(CLIENT), client())?;
    Ok(fixture)
}

/// Checks that packets are translated: the name of each, its frame, and the packet in it.
fn forward(fixture: &mut Fixture, rows: Vec<Passage>) -> Result<()> {
    for (name, frame, packet) in rows {
        fixture.forward(Port::Wan, DecapForwarded, (name, frame, forwarded(&packet)))?;
    }
    Ok(())
}

#[test]
fn d1_01_to_04_frames_for_the_relay() -> Result<()> {
    let mut fixture = fixture(&Setup::default())?;
    let tagged = octets("8100 0064");
    fixture.refuse(
        Port::Wan,
        vec![
            (
                "another station",
                ethernet(
                    [2, 0, 0, 0, 0, 0x1a],
                    ROUTER,
                    ETHERTYPE_IPV4,
                    &frame(&data())[IP..],
                ),
                OtherStation,
            ),
            (
                "another station that differs in the last octets",
                ethernet(
                    [2, 0, 0, 0, 1, 0x0a],
                    ROUTER,
                    ETHERTYPE_IPV4,
                    &frame(&data())[IP..],
                ),
                OtherStation,
            ),
            (
                "broadcast",
                ethernet([0xff; 6], ROUTER, ETHERTYPE_IPV4, &frame(&data())[IP..]),
                OtherStation,
            ),
            ("ARP", ethernet(WAN, ROUTER, 0x0806, &[0; 46]), NotIp),
            (
                "VLAN tag",
                [&frame(&data())[..12], &tagged, &frame(&data())[12..]].concat(),
                Tagged,
            ),
            (
                "service VLAN tag",
                [
                    &frame(&data())[..12],
                    &octets("88a8 0064"),
                    &frame(&data())[12..],
                ]
                .concat(),
                Tagged,
            ),
            ("TCP", outer(|packet| packet[9] = 6), DecapNotOurs),
            ("ICMP", outer(|packet| packet[9] = 1), DecapNotOurs),
            ("protocol 41", outer(|packet| packet[9] = 41), DecapNotOurs),
            (
                "to another address",
                outer(|packet| packet[19] = 9),
                DecapNotOurs,
            ),
            (
                "to another port",
                outer(|packet| packet[23] ^= 1),
                DecapNotOurs,
            ),
            (
                "from port 0",
                outer(|packet| packet[20..22].fill(0)),
                DecapNotOurs,
            ),
            (
                "options",
                outer(|packet| packet[0] = 0x46),
                DecapIpv4Options,
            ),
            (
                "version 6",
                outer(|packet| packet[0] = 0x65),
                DecapIpv4Options,
            ),
            (
                "short header",
                outer(|packet| packet[0] = 0x44),
                DecapIpv4Options,
            ),
            (
                "reserved bit",
                outer(|packet| packet[6] = 0x80),
                DecapFragment,
            ),
            (
                "first fragment",
                outer(|packet| packet[6] = 0x20),
                DecapFragment,
            ),
            (
                "later fragment",
                outer(|packet| packet[7] = 1),
                DecapFragment,
            ),
            (
                "last fragment",
                outer(|packet| packet[6] = 0x1f),
                DecapFragment,
            ),
            (
                "time to live 0",
                outer(|packet| packet[8] = 0),
                DecapTimeToLive,
            ),
        ],
    )?;
    let outcome = fixture.run(Port::Other, &frame(&data()))?;
    assert_eq!(
        outcome.verdict, OtherStation,
        "an interface that is not ours"
    );
    forward(
        &mut fixture,
        vec![
            ("as it is", frame(&data()), data()),
            (
                "may not be fragmented",
                outer(|packet| packet[6] = 0x40),
                data(),
            ),
            ("time to live 1", outer(|packet| packet[8] = 1), data()),
            ("identification", outer(|packet| packet[4] = 0xff), data()),
        ],
    )
}

#[test]
fn d1_02_a_wrong_header_checksum_is_dropped() -> Result<()> {
    let mut fixture = fixture(&Setup::default())?;
    for octet in 10..12 {
        for bit in 0..8 {
            let mut frame = frame(&data());
            frame[IP + octet] ^= 1 << bit;
            let outcome = fixture.run(Port::Wan, &frame)?;
            assert_eq!(
                outcome.verdict, DecapHeaderChecksum,
                "octet {octet} bit {bit}"
            );
        }
    }
    let mut elsewhere = frame(&data());
    elsewhere[IP + 19] ^= 1;
    fixture.refuse(
        Port::Wan,
        vec![("wrong, but not for the relay", elsewhere, DecapNotOurs)],
    )
}

#[test]
fn d1_05_lengths() -> Result<()> {
    let mut fixture = fixture(&Setup::default())?;
    let padded = |octets: usize| [frame(&data()), vec![0xaa; octets]].concat();
    fixture.refuse(
        Port::Wan,
        vec![
            (
                "longer than the frame",
                outer(|packet| packet[3] += 1),
                DecapLength,
            ),
            ("much longer", outer(|packet| packet[2] = 0xff), DecapLength),
            (
                "datagram longer than the packet",
                outer(|packet| packet[25] += 1),
                DecapLength,
            ),
            (
                "datagram shorter than the packet",
                outer(|packet| packet[25] -= 1),
                DecapLength,
            ),
            (
                "no room for an IPv6 header",
                frame(&data()[..39]),
                DecapLength,
            ),
            ("no payload at all", frame(&[]), DecapLength),
            (
                "cut off at the end",
                {
                    let mut frame = frame(&data());
                    frame.pop();
                    frame
                },
                DecapLength,
            ),
        ],
    )?;
    forward(
        &mut fixture,
        vec![
            ("padding of one octet", padded(1), data()),
            ("padding of 4 octets", padded(4), data()),
            ("padding of 100 octets", padded(100), data()),
            (
                "one octet of data",
                frame(&udp(address(CLIENT), address(HOST_ADDRESS), b"x")),
                udp(address(CLIENT), address(HOST_ADDRESS), b"x"),
            ),
        ],
    )
}

#[test]
fn every_truncated_frame_passes_unchanged() -> Result<()> {
    let mut fixture = fixture(&Setup::default())?;
    let whole = frame(&data());
    for length in SHORTEST..whole.len() {
        let outcome = fixture.run(Port::Wan, &whole[..length])?;
        let expected = if length < IP + 28 {
            DecapNotOurs
        } else {
            DecapLength
        };
        assert_eq!(outcome.verdict, expected, "{length} octets");
        assert_eq!(outcome.frame, whole[..length], "{length} octets");
    }
    Ok(())
}

#[test]
fn d1_06_to_09_datagram_contents() -> Result<()> {
    let mut fixture = fixture(&Setup::default())?;
    let origin = octets("0000 efff f6fffffe");
    let authentication = octets("0001 0000 0011223344556677 00");
    fixture.refuse(
        Port::Wan,
        vec![
            ("ECT(1)", outer(|packet| packet[1] = 1), DecapCongestion),
            ("ECT(0)", outer(|packet| packet[1] = 2), DecapCongestion),
            (
                "congestion experienced",
                outer(|packet| packet[1] = 3),
                DecapCongestion,
            ),
            (
                "from the relay's own address",
                outer(|packet| packet[12..16].copy_from_slice(&relay().address)),
                DecapOwnSource,
            ),
            ("origin", frame(&[origin, data()].concat()), DecapNotIpv6),
            (
                "authentication",
                frame(&[authentication, data()].concat()),
                DecapNotIpv6,
            ),
            ("version 4", inner(|packet| packet[0] = 0x40), DecapNotIpv6),
            (
                "trailer",
                frame(&[data(), octets("0104deadbeef")].concat()),
                DecapTrailers,
            ),
            (
                "one octet too many",
                frame(&[data(), vec![0]].concat()),
                DecapTrailers,
            ),
            (
                "one octet missing",
                frame(&data()[..data().len() - 1]),
                DecapTrailers,
            ),
            (
                "length of 65535",
                inner(|packet| packet[4..6].fill(0xff)),
                DecapTrailers,
            ),
        ],
    )?;
    forward(
        &mut fixture,
        vec![
            (
                "differentiated services",
                outer(|packet| packet[1] = 0xfc),
                data(),
            ),
            (
                "traffic class and flow label",
                inner(|packet| packet[..4].copy_from_slice(&[0x6f, 0xf1, 0x23, 0x45])),
                {
                    let mut packet = data();
                    packet[..4].copy_from_slice(&[0x6f, 0xf1, 0x23, 0x45]);
                    packet
                },
            ),
        ],
    )
}

#[test]
fn d1_10_and_11_packets_for_userspace() -> Result<()> {
    let mut fixture = fixture(&Setup::default())?;
    let with = |next_header| {
        frame(&ipv6(
            address(CLIENT),
            address(HOST_ADDRESS),
            next_header,
            &[0; 24],
        ))
    };
    fixture.refuse(
        Port::Wan,
        vec![
            (
                "bubble",
                frame(&ipv6(address(CLIENT), address(HOST_ADDRESS), 59, &[])),
                DecapBubble,
            ),
            (
                "no payload",
                frame(&ipv6(address(CLIENT), address(HOST_ADDRESS), 17, &[])),
                DecapBubble,
            ),
            ("no next header, but payload", with(59), DecapBubble),
            (
                "an echo reply of the length of a cookie",
                frame(&ipv6(
                    address(CLIENT),
                    address(HOST_ADDRESS),
                    58,
                    &[129, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8],
                )),
                DecapAnswer,
            ),
            ("hop-by-hop options", with(0), DecapExtensionHeader),
            ("routing", with(43), DecapExtensionHeader),
            ("destination options", with(60), DecapExtensionHeader),
        ],
    )
}

#[test]
fn d1_12_to_14_senders() -> Result<()> {
    wait_for_stale_stamps()?;
    let mut fixture = fixture(&Setup::default())?;
    let insert = |fixture: &mut Fixture, last: u16, peer: Peer| -> Result<Ipv6Addr> {
        let mut octets = address(CLIENT).octets();
        octets[8..10].copy_from_slice(&last.to_be_bytes());
        fixture.insert(octets.into(), peer)?;
        Ok(octets.into())
    };
    let trusted = Peer {
        mapped: client(),
        flags: Peer::TRUSTED,
        last_received: now(),
        ..Peer::default()
    };
    let unproved = insert(
        &mut fixture,
        1,
        Peer {
            flags: 0,
            ..trusted
        },
    )?;
    let second = std::time::Duration::from_secs(1);
    let stale = insert(
        &mut fixture,
        2,
        Peer {
            // The program's clock may be a tick behind.
            last_received: now() - 30 * second - second / 10,
            ..trusted
        },
    )?;
    let nearly = insert(
        &mut fixture,
        3,
        Peer {
            last_received: now() - 25 * second,
            ..trusted
        },
    )?;
    let elsewhere = insert(
        &mut fixture,
        4,
        Peer {
            mapped: endpoint("9.0.0.2:4096"),
            ..trusted
        },
    )?;
    let otherwise = insert(
        &mut fixture,
        5,
        Peer {
            mapped: endpoint("9.0.0.1:4097"),
            ..trusted
        },
    )?;
    let future = insert(
        &mut fixture,
        6,
        Peer {
            last_received: now() + second,
            ..trusted
        },
    )?;
    let never = insert(
        &mut fixture,
        7,
        Peer {
            last_received: teredo_common::time::Instant::ZERO,
            ..trusted
        },
    )?;

    let from = |source: Ipv6Addr| udp(source, address(HOST_ADDRESS), b"hello");
    let via = |mapped: Endpoint, packet: &[u8]| {
        ethernet(
            WAN,
            ROUTER,
            ETHERTYPE_IPV4,
            &datagram(mapped, relay(), 7, packet),
        )
    };
    fixture.refuse(
        Port::Wan,
        vec![
            (
                "native source",
                frame(&from(address("2000::c"))),
                DecapSource,
            ),
            (
                "nearly the prefix",
                frame(&from(address("2001:1:102:304:0:efff:f6ff:fffe"))),
                DecapSource,
            ),
            (
                "the old prefix",
                frame(&from(address("3ffe:831f:102:304:0:efff:f6ff:fffe"))),
                DecapSource,
            ),
            (
                "unknown",
                frame(&from(address("2001:0:102:304:9:efff:f6ff:fffe"))),
                DecapUnknownPeer,
            ),
            (
                "other server",
                frame(&from(address("2001:0:102:305:0:efff:f6ff:fffe"))),
                DecapUnknownPeer,
            ),
            ("not trusted", frame(&from(unproved)), DecapStalePeer),
            ("stale", frame(&from(stale)), DecapStalePeer),
            ("never heard", frame(&from(never)), DecapStalePeer),
            (
                "another port",
                via(endpoint("9.0.0.1:4097"), &data()),
                DecapMapping,
            ),
            (
                "another address",
                via(endpoint("9.0.0.2:4096"), &data()),
                DecapMapping,
            ),
            (
                "the entry says another address",
                frame(&from(elsewhere)),
                DecapMapping,
            ),
            (
                "the entry says another port",
                frame(&from(otherwise)),
                DecapMapping,
            ),
            (
                "as the entry says, but not embedded: address",
                via(endpoint("9.0.0.2:4096"), &from(elsewhere)),
                DecapMapping,
            ),
            (
                "as the entry says, but not embedded: port",
                via(endpoint("9.0.0.1:4097"), &from(otherwise)),
                DecapMapping,
            ),
        ],
    )?;
    let symmetric = insert(
        &mut fixture,
        8,
        Peer {
            mapped: endpoint("9.0.0.2:4099"),
            flags: Peer::TRUSTED | Peer::SYMMETRIC,
            ..trusted
        },
    )?;
    fixture.refuse(
        Port::Wan,
        vec![
            (
                "symmetric, from the embedded endpoint",
                frame(&from(symmetric)),
                DecapMapping,
            ),
            (
                "symmetric, from another port",
                via(endpoint("9.0.0.2:4100"), &from(symmetric)),
                DecapMapping,
            ),
        ],
    )?;
    forward(
        &mut fixture,
        vec![
            ("getting stale", frame(&from(nearly)), from(nearly)),
            (
                "heard a moment ahead of the clock",
                frame(&from(future)),
                from(future),
            ),
            (
                "symmetric",
                via(endpoint("9.0.0.2:4099"), &from(symmetric)),
                from(symmetric),
            ),
        ],
    )
}

#[test]
fn d1_15_destinations() -> Result<()> {
    let mut fixture = fixture(&Setup::default())?;
    let refused = [
        ("unspecified", "::"),
        ("loopback", "::1"),
        ("IPv4-mapped", "::ffff:9.9.9.9"),
        ("link-local", "fe80::b"),
        ("site-local", "fec0::b"),
        ("unique local", "fd00::b"),
        ("multicast", "ff0e::b"),
        ("Teredo", "2001:0:102:304::1"),
        ("Teredo of the draft", "3ffe:831f:102:304::1"),
        ("6to4 of the relay", "2002:506:708::1"),
        ("6to4 of another own address", "2002:506:709::1"),
        ("ISATAP of the relay", "2000::5efe:506:708"),
        ("ISATAP of the relay, universal", "2000::200:5efe:506:709"),
    ];
    for (name, destination) in refused {
        fixture.refuse(
            Port::Wan,
            vec![(name, frame(&to(destination)), DecapDestination)],
        )?;
    }
    for (name, destination) in [
        ("6to4 of another address", "2002:506:70a::1"),
        ("ISATAP of another address", "2600::5efe:506:70a"),
        ("nearly ISATAP", "2600::100:5efe:506:708"),
        ("nearly the prefix", "2001:1::b"),
        ("NAT64", "64:ff9b::9.9.9.9"),
        ("the last unicast", "fdff::1"),
    ] {
        let verdict = fixture.run(Port::Wan, &frame(&to(destination)))?.verdict;
        let expected = if destination.starts_with("fdff") {
            DecapDestination
        } else {
            DecapForwarded
        };
        assert_eq!(verdict, expected, "{name}");
    }
    Ok(())
}

#[test]
fn d1_15_no_service_is_native() -> Result<()> {
    let served: Vec<_> = (1..=8)
        .map(|last| ServicePrefix([0x2a, 0, 0, last]))
        .collect();
    let setup = Setup {
        teredo: TeredoPrefixes::new(served),
        ..Setup::default()
    };
    let mut fixture = fixture(&setup)?;
    for (destination, verdict) in [
        ("2a00:1::1", DecapDestination),
        ("2a00:8::1", DecapDestination),
        ("2001::1", DecapDestination),
        ("3ffe:831f::1", DecapDestination),
        ("2a00:9::1", DecapForwarded),
        ("2a00::1", DecapForwarded),
    ] {
        let outcome = fixture.run(Port::Wan, &frame(&to(destination)))?;
        assert_eq!(outcome.verdict, verdict, "{destination}");
    }
    Ok(())
}

#[test]
fn d1_15_only_served_prefixes() -> Result<()> {
    let setup = Setup {
        served: vec!["2000::/64".parse()?, "2600:1:2::/48".parse()?],
        ..Setup::default()
    };
    let mut fixture = fixture(&setup)?;
    for (destination, verdict) in [
        ("2000::b", DecapForwarded),
        ("2600:1:2:ffff::1", DecapForwarded),
        ("2600:1:3::1", DecapDestination),
        ("2000:0:0:1::b", DecapDestination),
        ("2a00::1", DecapDestination),
    ] {
        let outcome = fixture.run(Port::Wan, &frame(&to(destination)))?;
        assert_eq!(outcome.verdict, verdict, "{destination}");
    }
    Ok(())
}

#[test]
fn d1_16_hop_limit() -> Result<()> {
    let mut fixture = fixture(&Setup::default())?;
    for hop_limit in 0..=255 {
        let frame = inner(|packet| packet[7] = hop_limit);
        let outcome = fixture.run(Port::Wan, &frame)?;
        if hop_limit <= 1 {
            assert_eq!(outcome.verdict, DecapHopLimit);
            assert_eq!(outcome.frame, frame);
        } else {
            assert_eq!(outcome.verdict, DecapForwarded);
            assert_eq!(outcome.frame[IP + 7], hop_limit - 1);
        }
    }
    Ok(())
}

/// Zero is accepted; a wrong checksum is left to the kernel, which drops the datagram (W-08).
#[test]
fn d1_17_checksum() -> Result<()> {
    let mut fixture = fixture(&Setup::default())?;
    let (from, to) = (address(CLIENT), address(HOST_ADDRESS));
    let wrong = |packet: &[u8]| {
        let mut frame = frame(packet);
        frame[IP + 27] ^= 1;
        frame
    };
    let damaged = {
        let mut packet = data();
        *packet.last_mut().expect("there is data") ^= 1;
        packet
    };
    let no_checksum = {
        let mut packet = data();
        packet[46..48].fill(0);
        packet
    };
    // Options as in RFC 9868, between the end of the datagram and that of the packet.
    let options = {
        let mut packet = data();
        packet.extend([0, 0]);
        packet[5] += 2;
        packet
    };
    let fragment = ipv6(
        from,
        to,
        44,
        &[17, 0, 0, 1, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8],
    );
    let encrypted = ipv6(from, to, 50, &[7; 40]);
    let short_tcp = ipv6(from, to, 6, &[0; 19]);
    let short_udp = ipv6(from, to, 17, &[0; 7]);
    let short_icmp = ipv6(from, to, 58, &[0; 7]);
    fixture.refuse(
        Port::Wan,
        vec![
            ("wrong outer", wrong(&data()), DecapChecksum),
            ("outer right, inner damaged", frame(&damaged), DecapChecksum),
            ("UDP without checksum", frame(&no_checksum), DecapChecksum),
            ("UDP with options", frame(&options), DecapChecksum),
            ("fragment", frame(&fragment), DecapChecksum),
            ("ESP", frame(&encrypted), DecapChecksum),
            ("TCP cut short", frame(&short_tcp), DecapChecksum),
            ("UDP cut short", frame(&short_udp), DecapChecksum),
            ("ICMPv6 cut short", frame(&short_icmp), DecapChecksum),
        ],
    )?;
    let segment = tcp(from, to, b"segment");
    let request = echo(from, to, b"odd");
    forward(
        &mut fixture,
        vec![
            ("TCP", frame(&segment), segment),
            ("ICMPv6, odd length", frame(&request), request),
            ("zero: UDP", unchecked(&data()), data()),
            ("zero: inner damaged", unchecked(&damaged), damaged),
            (
                "zero: UDP without checksum",
                unchecked(&no_checksum),
                no_checksum,
            ),
            ("zero: UDP with options", unchecked(&options), options),
            ("zero: fragment", unchecked(&fragment), fragment),
            ("zero: ESP", unchecked(&encrypted), encrypted),
            ("zero: TCP cut short", unchecked(&short_tcp), short_tcp),
        ],
    )
}

/// A packet whose outer checksum is computed as zero and therefore sent as all ones.
#[test]
fn d1_17_all_ones_stands_for_zero() -> Result<()> {
    let mut fixture = fixture(&Setup::default())?;
    let packet = (0..=u16::MAX)
        .map(|label| {
            let mut packet = data();
            packet[2..4].copy_from_slice(&label.to_be_bytes());
            packet
        })
        .find(|packet| frame(packet)[IP + 26..IP + 28] == [0xff, 0xff])
        .expect("some label makes the sum zero");
    forward(&mut fixture, vec![("all ones", frame(&packet), packet)])
}

#[test]
fn d1_18_next_hops() -> Result<()> {
    let mut fixture = fixture(&Setup::default())?;
    let sized = |destination: &str, length: usize| {
        udp(address(CLIENT), address(destination), &vec![1; length - 48])
    };
    fixture.refuse(
        Port::Wan,
        vec![
            (
                "larger than the route's MTU",
                frame(&sized("2000:1000::1", 1281)),
                DecapTooBig,
            ),
            (
                "larger than the link's MTU",
                frame(&sized("2000::b", 1501)),
                DecapTooBig,
            ),
            ("no neighbour", frame(&to("2000::c")), DecapNextHop),
            ("unreachable", frame(&to("2000:8::1")), DecapNextHop),
            ("an own address", frame(&to("2000::1")), DecapNextHop),
            (
                "an interface that is not ours",
                frame(&to("2000:99::b")),
                DecapNextHop,
            ),
        ],
    )?;
    forward(
        &mut fixture,
        vec![
            (
                "as large as the route's MTU",
                frame(&sized("2000:1000::1", 1280)),
                sized("2000:1000::1", 1280),
            ),
            (
                "as large as the link's MTU",
                frame(&sized("2000::b", 1500)),
                sized("2000::b", 1500),
            ),
            ("through a router", frame(&to("2a00::1")), to("2a00::1")),
        ],
    )?;
    let outcome = fixture.run(Port::Wan, &frame(&to("2000:3::b")))?;
    assert_eq!(outcome.verdict, DecapForwarded);
    assert!(outcome.same_interface, "a relay with one arm");
    assert_eq!(outcome.frame[..12], [ROUTER_V6, WAN].concat());
    Ok(())
}
