//! Every row of decision table D2 (IPv6 to IPv4), from both sides.

use std::{net::Ipv6Addr, time::Duration};

use anyhow::Result;
use teredo_common::{
    address::Endpoint,
    checksum::ipv6_pseudo_header,
    maps::Settings,
    peers::Peer,
    time::Instant,
    verdict::Verdict::*,
    wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};
use teredo_lab::{
    fixture::{
        Fixture, HOST, LAN, Passage, Port, ROUTER, ROUTER_V6, SHORTEST, Setup, WAN, now, relay,
        wait_for_stale_stamps,
    },
    packet::{IP, address, datagram, echo, endpoint, ethernet, ipv6, tcp, udp},
};

const CLIENT: &str = "2001:0:102:304:0:efff:f6ff:fffe";
const HOST_ADDRESS: &str = "2000::b";
const IDENTIFICATION: u16 = 0xfffe;
/// Every setting of checksums that are zero.
const ZERO_CHECKSUMS: [u32; 3] = [
    0,
    Settings::ALLOW_ZERO_CHECKSUM,
    Settings::ALWAYS_ZERO_CHECKSUM,
];

fn client() -> Endpoint {
    endpoint("9.0.0.1:4096")
}

/// The host's frame.
fn frame(packet: &[u8]) -> Vec<u8> {
    ethernet(LAN, HOST, ETHERTYPE_IPV6, packet)
}

fn data() -> Vec<u8> {
    udp(address(HOST_ADDRESS), address(CLIENT), b"hello, world")
}

fn from(source: &str) -> Vec<u8> {
    udp(address(source), address(CLIENT), b"hello, world")
}

fn to(destination: Ipv6Addr) -> Vec<u8> {
    udp(address(HOST_ADDRESS), destination, b"hello, world")
}

/// The packet that the client receives, with a checksum over every octet.
fn encapsulated(mapped: Endpoint, identification: u16, packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[7] -= 1;
    datagram(relay(), mapped, identification, &packet)
}

fn forwarded(packet: &[u8]) -> Vec<u8> {
    let packet = encapsulated(client(), IDENTIFICATION, packet);
    ethernet(ROUTER, WAN, ETHERTYPE_IPV4, &packet)
}

/// The frame of [`forwarded`] without outer checksum.
fn forwarded_unchecked(packet: &[u8]) -> Vec<u8> {
    let mut frame = forwarded(packet);
    frame[IP + 26..IP + 28].fill(0);
    frame
}

fn fixture(setup: &Setup) -> Result<Fixture> {
    let mut fixture = Fixture::new(setup)?;
    fixture.trust(address(CLIENT), client())?;
    Ok(fixture)
}

fn forward(fixture: &mut Fixture, rows: Vec<Passage>) -> Result<()> {
    for row in rows {
        fixture
            .program
            .set_identification(|| u32::from(IDENTIFICATION))?;
        fixture.forward(Port::Lan, EncapForwarded, row)?;
    }
    Ok(())
}

#[test]
fn d2_01_and_02_packets_for_clients() -> Result<()> {
    let mut fixture = fixture(&Setup::default())?;
    let changed = |change: fn(&mut Vec<u8>)| {
        let mut packet = data();
        change(&mut packet);
        frame(&packet)
    };
    fixture.refuse(
        Port::Lan,
        vec![
            (
                "another station",
                ethernet([2, 0, 0, 0, 0, 0x1b], HOST, ETHERTYPE_IPV6, &data()),
                OtherStation,
            ),
            (
                "the other interface's address",
                ethernet(WAN, HOST, ETHERTYPE_IPV6, &data()),
                OtherStation,
            ),
            (
                "multicast",
                ethernet([0x33, 0x33, 0, 0, 0, 1], HOST, ETHERTYPE_IPV6, &data()),
                OtherStation,
            ),
            ("version 4", changed(|packet| packet[0] = 0x40), EncapLength),
            ("version 7", changed(|packet| packet[0] = 0x70), EncapLength),
            (
                "longer than the frame",
                changed(|packet| packet[5] += 1),
                EncapLength,
            ),
            (
                "length 65535",
                changed(|packet| packet[4..6].fill(0xff)),
                EncapLength,
            ),
            ("native", frame(&to(address("2a00::1"))), EncapNotOurs),
            (
                "nearly the prefix",
                frame(&to(address("2001:1::1"))),
                EncapNotOurs,
            ),
            (
                "the old prefix",
                frame(&to(address("3ffe:831f::1"))),
                EncapNotOurs,
            ),
            ("link-local", frame(&to(address("fe80::1"))), EncapNotOurs),
        ],
    )?;
    let padded = |octets: usize| [frame(&data()), vec![0xaa; octets]].concat();
    let tiny = ipv6(address(HOST_ADDRESS), address(CLIENT), 50, &[9]);
    forward(
        &mut fixture,
        vec![
            ("as it is", frame(&data()), forwarded(&data())),
            ("padding of one octet", padded(1), forwarded(&data())),
            ("padding of 100 octets", padded(100), forwarded(&data())),
            (
                "padded to the smallest frame",
                [frame(&tiny), vec![0; 5]].concat(),
                forwarded_unchecked(&tiny),
            ),
            (
                "traffic class and flow label",
                changed(|packet| packet[..4].copy_from_slice(&[0x6f, 0xf1, 0x23, 0x45])),
                {
                    let mut packet = data();
                    packet[..4].copy_from_slice(&[0x6f, 0xf1, 0x23, 0x45]);
                    forwarded(&packet)
                },
            ),
        ],
    )
}

#[test]
fn every_truncated_frame_passes_unchanged() -> Result<()> {
    let mut fixture = fixture(&Setup::default())?;
    let whole = frame(&data());
    for length in SHORTEST..whole.len() {
        let outcome = fixture.run(Port::Lan, &whole[..length])?;
        assert_eq!(outcome.verdict, EncapLength, "{length} octets");
        assert_eq!(outcome.frame, whole[..length], "{length} octets");
    }
    Ok(())
}

#[test]
fn d2_03_sources() -> Result<()> {
    let mut fixture = fixture(&Setup::default())?;
    for (name, source) in [
        ("unspecified", "::"),
        ("loopback", "::1"),
        ("IPv4-mapped", "::ffff:9.9.9.9"),
        ("link-local", "fe80::b"),
        ("site-local", "fec0::b"),
        ("unique local", "fc00::b"),
        ("multicast", "ff0e::b"),
        ("Teredo", "2001:0:102:304::1"),
        ("Teredo of the draft", "3ffe:831f:102:304::1"),
        ("6to4 of the relay", "2002:506:708::1"),
        ("ISATAP of another own address", "2000::200:5efe:506:709"),
    ] {
        fixture.refuse(Port::Lan, vec![(name, frame(&from(source)), EncapSource)])?;
    }
    for (name, source) in [
        ("6to4 of another address", "2002:506:70a::1"),
        ("ISATAP of another address", "2600::5efe:506:70a"),
        ("far away", "2a00:1450::1"),
    ] {
        forward(
            &mut fixture,
            vec![(name, frame(&from(source)), forwarded(&from(source)))],
        )?;
    }
    Ok(())
}

#[test]
fn d2_03_only_served_prefixes() -> Result<()> {
    let setup = Setup {
        served: vec!["2000::/64".parse()?],
        ..Setup::default()
    };
    let mut fixture = fixture(&setup)?;
    fixture.refuse(
        Port::Lan,
        vec![("not served", frame(&from("2a00::1")), EncapSource)],
    )?;
    forward(
        &mut fixture,
        vec![("served", frame(&data()), forwarded(&data()))],
    )
}

#[test]
fn d2_04_packets_for_userspace() -> Result<()> {
    let mut fixture = fixture(&Setup::default())?;
    let with = |next_header, payload: &[u8]| {
        frame(&ipv6(
            address(HOST_ADDRESS),
            address(CLIENT),
            next_header,
            payload,
        ))
    };
    fixture.refuse(
        Port::Lan,
        vec![
            ("bubble", with(59, &[]), EncapBubble),
            ("no payload", with(17, &[]), EncapBubble),
            (
                "no next header, but payload",
                with(59, &[0; 8]),
                EncapBubble,
            ),
            ("hop-by-hop options", with(0, &[0; 8]), EncapExtensionHeader),
            ("routing", with(43, &[0; 8]), EncapExtensionHeader),
            (
                "destination options",
                with(60, &[0; 8]),
                EncapExtensionHeader,
            ),
            (
                "options in a fragment",
                with(44, &[60, 0, 0, 1, 0, 0, 0, 1]),
                EncapExtensionHeader,
            ),
        ],
    )?;
    for next_header in [51, 135, 139, 140, 253, 254, 4, 41, 47, 200] {
        let frame = with(next_header, &[0; 24]);
        fixture.refuse(Port::Lan, vec![("not plain", frame, EncapExtensionHeader)])?;
    }
    Ok(())
}

#[test]
fn d2_05_peers() -> Result<()> {
    wait_for_stale_stamps()?;
    let mut fixture = fixture(&Setup::default())?;
    let peer = |flags: u16| -> Ipv6Addr {
        let mut octets = address(CLIENT).octets();
        octets[8..10].copy_from_slice(&flags.to_be_bytes());
        octets.into()
    };
    let second = Duration::from_secs(1);
    let trusted = Peer {
        mapped: client(),
        last_received: now(),
        last_sent: now(),
    };
    fixture.insert(
        peer(2),
        Peer {
            // The program's clock may be a tick behind.
            last_received: now() - 30 * second - second / 10,
            ..trusted
        },
    )?;
    fixture.insert(
        peer(3),
        Peer {
            last_received: Instant::ZERO,
            ..trusted
        },
    )?;
    fixture.refuse(
        Port::Lan,
        vec![
            ("unknown", frame(&to(peer(9))), EncapUnknownPeer),
            ("stale", frame(&to(peer(2))), EncapStalePeer),
            ("never heard", frame(&to(peer(3))), EncapStalePeer),
        ],
    )?;
    // A peer that was not heard for a while is still sent to (D2-08); the stamps notify the daemon.
    fixture.insert(
        peer(4),
        Peer {
            last_received: now() - 20 * second,
            ..trusted
        },
    )?;
    let elsewhere = endpoint("9.7.7.7:65535");
    fixture.insert(
        peer(5),
        Peer {
            mapped: elsewhere,
            ..trusted
        },
    )?;
    let packet = encapsulated(elsewhere, IDENTIFICATION, &to(peer(5)));
    forward(
        &mut fixture,
        vec![
            (
                "getting stale",
                frame(&to(peer(4))),
                forwarded(&to(peer(4))),
            ),
            (
                "the endpoint of the entry",
                frame(&to(peer(5))),
                ethernet(ROUTER, WAN, ETHERTYPE_IPV4, &packet),
            ),
        ],
    )
}

#[test]
fn d2_06_hop_limit() -> Result<()> {
    let mut fixture = fixture(&Setup::default())?;
    for hop_limit in 0..=255 {
        let mut packet = data();
        packet[7] = hop_limit;
        if hop_limit <= 1 {
            fixture.refuse(Port::Lan, vec![("end", frame(&packet), EncapHopLimit)])?;
        } else {
            forward(
                &mut fixture,
                vec![("on", frame(&packet), forwarded(&packet))],
            )?;
        }
    }
    Ok(())
}

fn sized(destination: &str, length: usize) -> Vec<u8> {
    let data = vec![1; length - 48];
    udp(address(HOST_ADDRESS), address(destination), &data)
}

/// A packet larger than the MTU is not encapsulated, so that no fragments leave (W-09).
#[test]
fn d2_07_packets_of_the_tunnel_mtu() -> Result<()> {
    let mut fixture = fixture(&Setup::default())?;
    fixture.refuse(
        Port::Lan,
        vec![
            ("1281", frame(&sized(CLIENT, 1281)), EncapTooBig),
            ("1500", frame(&sized(CLIENT, 1500)), EncapTooBig),
        ],
    )?;
    let largest = sized(CLIENT, 1280);
    forward(
        &mut fixture,
        vec![("1280", frame(&largest), forwarded(&largest))],
    )
}

/// A packet that would have to be fragmented by its route is not encapsulated, either (W-09).
#[test]
fn d2_07_packets_of_the_route_mtu() -> Result<()> {
    let setup = Setup {
        mtu: 9000,
        ..Setup::default()
    };
    let mut fixture = fixture(&setup)?;
    // Embeds 9.9.0.1, which has a route of MTU 1000.
    let behind = "2001:0:102:304:0:efff:f6f6:fffe";
    let mapped = endpoint("9.9.0.1:4096");
    fixture.trust(address(behind), mapped)?;
    fixture.refuse(
        Port::Lan,
        vec![
            ("the link's", frame(&sized(CLIENT, 1473)), EncapTooBig),
            ("the route's", frame(&sized(behind, 973)), EncapTooBig),
        ],
    )?;
    let (link, route) = (sized(CLIENT, 1472), sized(behind, 972));
    let packet = encapsulated(mapped, IDENTIFICATION, &route);
    forward(
        &mut fixture,
        vec![
            ("the link's", frame(&link), forwarded(&link)),
            (
                "the route's",
                frame(&route),
                ethernet(ROUTER, WAN, ETHERTYPE_IPV4, &packet),
            ),
        ],
    )
}

/// Packets without an inner checksum from which the outer one follows, by name.
fn without_proof() -> Vec<(&'static str, Vec<u8>)> {
    let (from, to) = (address(HOST_ADDRESS), address(CLIENT));
    let mut no_checksum = data();
    no_checksum[46..48].fill(0);
    // Options as in RFC 9868, between the end of the datagram and that of the packet.
    let mut options = data();
    options.extend([0, 0]);
    options[5] += 2;
    vec![
        ("UDP without checksum", no_checksum),
        ("UDP with options", options),
        (
            "fragment",
            ipv6(
                from,
                to,
                44,
                &[17, 0, 0, 1, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8],
            ),
        ),
        ("ESP", ipv6(from, to, 50, &[7; 41])),
        ("SCTP", ipv6(from, to, 132, &[7; 16])),
        ("UDP-Lite", ipv6(from, to, 136, &[7; 16])),
        ("TCP cut short", ipv6(from, to, 6, &[0; 19])),
        ("UDP cut short", ipv6(from, to, 17, &[0; 7])),
        ("ICMPv6 cut short", ipv6(from, to, 58, &[0; 7])),
    ]
}

/// Packets as the kernel leaves them to a network card that finishes checksums.
fn unfinished() -> Vec<(&'static str, Vec<u8>)> {
    let (from, to) = (address(HOST_ADDRESS), address(CLIENT));
    [
        ("UDP", udp(from, to, b"datagram"), 6),
        ("UDP, odd length", udp(from, to, b"odd"), 6),
        ("TCP", tcp(from, to, b"segment"), 16),
        ("TCP, no data", tcp(from, to, b""), 16),
    ]
    .map(|(name, mut packet, offset)| {
        let sum = pseudo_header_sum(&packet);
        packet[40 + offset..42 + offset].copy_from_slice(&sum);
        (name, packet)
    })
    .to_vec()
}

/// The sum of a packet's pseudo-header.
fn pseudo_header_sum(packet: &[u8]) -> [u8; 2] {
    let (from, to) = (address(HOST_ADDRESS), address(CLIENT));
    let length = (packet.len() - 40) as u32;
    ipv6_pseudo_header(&from.octets(), &to.octets(), length, packet[6]).fold()
}

/// One checksum in 65,536 is that of the pseudo-header although it is finished.
#[test]
fn d2_11_finished_checksums_that_look_unfinished() -> Result<()> {
    let (from, to) = (address(HOST_ADDRESS), address(CLIENT));
    type Build = fn(Ipv6Addr, Ipv6Addr, &[u8]) -> Vec<u8>;
    let builders: [(_, Build, _); 2] = [("UDP", udp, 46), ("TCP", tcp, 56)];
    for flags in ZERO_CHECKSUMS {
        let setup = Setup {
            flags,
            ..Setup::default()
        };
        let mut fixture = fixture(&setup)?;
        for (name, build, checksum) in builders {
            let packet = (0..=u16::MAX)
                .map(|number| build(from, to, &[&number.to_be_bytes()[..], b"odd"].concat()))
                .find(|packet| packet[checksum..checksum + 2] == pseudo_header_sum(packet))
                .expect("some number makes the checksum so");
            let expected = match flags {
                Settings::ALWAYS_ZERO_CHECKSUM => forwarded_unchecked(&packet),
                _ => forwarded(&packet),
            };
            forward(&mut fixture, vec![(name, frame(&packet), expected)])?;
        }
    }
    Ok(())
}

#[test]
fn d2_11_unfinished_checksums() -> Result<()> {
    for flags in ZERO_CHECKSUMS {
        let setup = Setup {
            flags,
            ..Setup::default()
        };
        let mut fixture = fixture(&setup)?;
        for (name, packet) in unfinished() {
            fixture.refuse(Port::Lan, vec![(name, frame(&packet), EncapChecksum)])?;
        }
    }
    Ok(())
}

#[test]
fn d2_09_checksum_from_headers_or_zero() -> Result<()> {
    let mut fixture = fixture(&Setup::default())?;
    let (from, to) = (address(HOST_ADDRESS), address(CLIENT));
    for (name, packet) in [
        ("UDP", data()),
        ("UDP, odd length", udp(from, to, b"odd")),
        ("UDP, no data", udp(from, to, b"")),
        ("TCP", tcp(from, to, b"segment")),
        ("TCP, no data", tcp(from, to, b"")),
        ("ICMPv6", echo(from, to, b"12345")),
    ] {
        forward(
            &mut fixture,
            vec![(name, frame(&packet), forwarded(&packet))],
        )?;
    }
    for (name, packet) in without_proof() {
        let expected = forwarded_unchecked(&packet);
        forward(&mut fixture, vec![(name, frame(&packet), expected)])?;
    }
    Ok(())
}

#[test]
fn d2_09_a_walk_where_zero_is_not_allowed() -> Result<()> {
    let setup = Setup {
        flags: 0,
        ..Setup::default()
    };
    let mut fixture = fixture(&setup)?;
    for (name, packet) in without_proof() {
        forward(
            &mut fixture,
            vec![(name, frame(&packet), forwarded(&packet))],
        )?;
    }
    forward(
        &mut fixture,
        vec![("UDP", frame(&data()), forwarded(&data()))],
    )
}

#[test]
fn d2_09_always_zero() -> Result<()> {
    let setup = Setup {
        flags: Settings::ALWAYS_ZERO_CHECKSUM,
        ..Setup::default()
    };
    let mut fixture = fixture(&setup)?;
    for (name, packet) in without_proof().into_iter().chain([("UDP", data())]) {
        let expected = forwarded_unchecked(&packet);
        forward(&mut fixture, vec![(name, frame(&packet), expected)])?;
    }
    Ok(())
}

/// A packet whose outer checksum is computed as zero is sent with all ones (W-08).
#[test]
fn d2_09_a_computed_zero() -> Result<()> {
    let mut fixture = fixture(&Setup::default())?;
    let packet = (0..=u16::MAX)
        .map(|label| {
            let mut packet = data();
            packet[2..4].copy_from_slice(&label.to_be_bytes());
            packet
        })
        .find(|packet| forwarded(packet)[IP + 26..IP + 28] == [0xff, 0xff])
        .expect("some label makes the sum zero");
    forward(
        &mut fixture,
        vec![("all ones", frame(&packet), forwarded(&packet))],
    )
}

#[test]
fn d2_10_next_hops() -> Result<()> {
    let mut fixture = fixture(&Setup::default())?;
    let mut at = |mapped: &str| -> Result<Ipv6Addr> {
        let mapped = endpoint(mapped);
        let mut octets = address(CLIENT).octets();
        octets[10..12].copy_from_slice(&mapped.port.map(|octet| !octet));
        octets[12..].copy_from_slice(&mapped.address.map(|octet| !octet));
        fixture.trust(octets.into(), mapped)?;
        Ok(octets.into())
    };
    let (blackhole, neighbour, own) = (at("9.8.0.1:9")?, at("5.6.7.77:9")?, at("5.6.7.8:9")?);
    fixture.refuse(
        Port::Lan,
        vec![
            ("blackhole", frame(&to(blackhole)), EncapNextHop),
            ("no neighbour", frame(&to(neighbour)), EncapNextHop),
            ("an own address", frame(&to(own)), EncapNextHop),
        ],
    )?;
    // A relay with one arm: packets come and leave by the interface towards the IPv4 internet.
    let arrived = ethernet(WAN, ROUTER_V6, ETHERTYPE_IPV6, &data());
    fixture
        .program
        .set_identification(|| u32::from(IDENTIFICATION))?;
    let outcome = fixture.run(Port::Wan, &arrived)?;
    assert_eq!(outcome.verdict, EncapForwarded);
    assert!(outcome.same_interface, "a relay with one arm");
    assert_eq!(outcome.frame, forwarded(&data()));
    Ok(())
}

#[test]
fn identification_counts_and_wraps() -> Result<()> {
    let mut fixture = fixture(&Setup::default())?;
    fixture.program.set_identification(|| 0xfffe)?;
    for expected in [0xfffe, 0xffff, 0, 1] {
        let outcome = fixture.run(Port::Lan, &frame(&data()))?;
        let identification = u16::from_be_bytes([outcome.frame[IP + 4], outcome.frame[IP + 5]]);
        assert_eq!(identification, expected);
    }
    Ok(())
}

/// Extension headers that nobody but the receiver looks at, in front of a transport.
#[test]
fn d2_04_extension_headers_before_a_transport() -> Result<()> {
    let mut fixture = fixture(&Setup::default())?;
    let whole = data();
    let with = |chain: &[u8], first: u8| {
        let payload = [chain, &whole[40..]].concat();
        ipv6(address(HOST_ADDRESS), address(CLIENT), first, &payload)
    };
    let options = [17, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let three = [
        &[60, 0, 0, 0, 0, 0, 0, 0][..],
        &[51, 0, 1, 4, 0, 0, 0, 0],
        &{
            let mut authentication = [0; 16];
            authentication[..2].copy_from_slice(&[17, 2]);
            authentication
        },
    ]
    .concat();
    for (name, packet) in [
        ("destination options", with(&options, 60)),
        ("three headers", with(&three, 60)),
    ] {
        let expected = forwarded_unchecked(&packet);
        forward(&mut fixture, vec![(name, frame(&packet), expected)])?;
    }
    let mut unfinished = with(&options, 60);
    let pseudo_header = ipv6_pseudo_header(
        &address(HOST_ADDRESS).octets(),
        &address(CLIENT).octets(),
        (whole.len() - 40) as u32,
        17,
    );
    unfinished[62..64].copy_from_slice(&pseudo_header.fold());
    let four = with(&[[60, 0, 0, 0, 0, 0, 0, 0]; 4].concat(), 60);
    let cut = with(&options[..8], 60);
    fixture.refuse(
        Port::Lan,
        vec![
            ("unfinished", frame(&unfinished), EncapChecksum),
            ("four headers", frame(&four), EncapExtensionHeader),
            (
                "hop by hop",
                frame(&with(&options, 0)),
                EncapExtensionHeader,
            ),
            ("routing", frame(&with(&options, 43)), EncapExtensionHeader),
            ("beyond the end", frame(&cut[..48 + 8]), EncapLength),
        ],
    )
}
