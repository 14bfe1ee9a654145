//! Frames that random ones are seldom like.

use std::net::Ipv6Addr;

use anyhow::Result;
use teredo_common::{
    address::{Endpoint, TeredoAddress},
    maps::Settings,
    peers::Peer,
    verdict::{Action, Verdict},
    wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};
use teredo_differential::{
    FastPath as _,
    host::HostPath,
    packet::{IP, datagram, endpoint, ethernet, fix_header_checksum, ipv6, tcp, udp},
    server,
    site::{HOST, LAN, Port, ROUTER, Setup, WAN},
};

const CLIENT: &str = "9.0.0.1:4096";
const SERVER: &str = "1.2.3.4:3544";

/// A fast path with a client as its peer, and the client's Teredo address.
fn with_client(setup: &Setup) -> Result<(HostPath, Ipv6Addr)> {
    let mut fast = HostPath::new(setup);
    let mapped = endpoint(CLIENT);
    let client = TeredoAddress::new([1, 2, 3, 4].into(), mapped).encode();
    let now = fast.now();
    let peer = Peer {
        mapped,
        last_received: now,
        last_sent: now,
    };
    fast.insert(client, peer)?;
    Ok((fast, client))
}

/// A router solicitation that the server answers.
fn solicitation(to: Endpoint) -> Vec<u8> {
    let (source, routers) = ("fe80::ffff:ffff:ffff", "ff02::2");
    let message = [133, 0, 0, 0, 0, 0, 0, 0];
    let packet = teredo_proto::testing::transport(
        58,
        255,
        &teredo_proto::testing::address(source),
        &teredo_proto::testing::address(routers),
        &message,
    );
    datagram(endpoint(CLIENT), to, 1, &packet)
}

#[test]
fn what_is_not_for_the_server_is_left_to_the_kernel() -> Result<()> {
    let mut fast = HostPath::new(&Setup {
        relay: false,
        server: Some(server::config()),
        ..Setup::default()
    });
    let own = endpoint(SERVER);
    let mut run = |packet: &[u8]| {
        let frame = ethernet(WAN, ROUTER, ETHERTYPE_IPV4, packet);
        let outcome = fast.run(Port::Wan, &frame)?;
        let is_same = outcome.frame == frame;
        anyhow::Ok((outcome.verdict, is_same))
    };
    assert_eq!(run(&solicitation(own))?.0, Verdict::RespondAdvertised);
    let elsewhere = ["1.2.3.4:3545", "1.2.3.6:3544", "5.6.7.9:3544"];
    let mut others = elsewhere.map(|to| solicitation(endpoint(to))).to_vec();
    let changed = |change: fn(&mut Vec<u8>)| {
        let mut packet = solicitation(own);
        change(&mut packet);
        fix_header_checksum(&mut packet);
        packet
    };
    // TCP, more fragments, a later fragment.
    others.push(changed(|packet| packet[9] = 6));
    others.push(changed(|packet| packet[6] = 0x20));
    others.push(changed(|packet| packet[7] = 1));
    for packet in others {
        assert_eq!(
            run(&packet)?,
            (Verdict::RespondNotOurs, true),
            "{packet:02x?}"
        );
    }
    Ok(())
}

/// A checksum that a network card was to finish is that of the pseudo-header; a finished one looks like that once in
/// 65,536 times.
#[test]
fn d2_11_only_unfinished_checksums_are_left_to_the_daemon() -> Result<()> {
    let mapped = endpoint(CLIENT);
    let host = "2000::b".parse()?;
    for flags in [Settings::ALLOW_ZERO_CHECKSUM, 0] {
        let setup = Setup {
            flags,
            ..Setup::default()
        };
        let (mut fast, client) = with_client(&setup)?;
        for (place, build) in [(IP + 46, udp as fn(_, _, &[u8]) -> Vec<u8>), (IP + 56, tcp)] {
            let mut verdict = |packet: &[u8]| {
                let frame = ethernet(LAN, HOST, ETHERTYPE_IPV6, packet);
                anyhow::Ok(fast.run(Port::Lan, &frame)?.verdict)
            };
            let finished = build(host, client, b"data");
            assert_eq!(verdict(&finished)?, Verdict::EncapForwarded);
            let sum = pseudo_header_sum(&finished);
            let at = place - IP;
            let mut unfinished = finished.clone();
            unfinished[at..at + 2].copy_from_slice(&sum);
            assert_eq!(verdict(&unfinished)?, Verdict::EncapChecksum);
            let alike = (0..=u16::MAX)
                .map(|number| build(host, client, &number.to_be_bytes()))
                .find(|packet| packet[at..at + 2] == pseudo_header_sum(packet));
            assert_eq!(verdict(&alike.unwrap())?, Verdict::EncapForwarded);
        }
        // No header tells the sum of SCTP, and the walk over it does.
        let unknown = ipv6(host, client, 132, b"data without a sum");
        let frame = ethernet(LAN, HOST, ETHERTYPE_IPV6, &unknown);
        let outcome = fast.run(Port::Lan, &frame)?;
        assert_eq!(
            outcome.verdict.action(),
            Action::Forward,
            "{:?}",
            outcome.verdict
        );
        let checksum = &outcome.frame[IP + 26..IP + 28];
        let (from, to) = (teredo_differential::site::relay(), mapped);
        let expected = teredo_common::checksum::ipv4_udp(from, to, &outcome.frame[IP + 28..]);
        match flags {
            0 => assert_eq!(checksum, expected),
            _ => assert_eq!(checksum, [0, 0]),
        }
    }
    Ok(())
}

/// The largest packets, those with the least hop limit, and those with headers that take a walk are on the fast path.
#[test]
fn the_last_packets_that_need_no_daemon() -> Result<()> {
    let host = "2000::b".parse()?;
    let setup = Setup::default();
    let (mut fast, client) = with_client(&setup)?;
    let mut encap = |packet: &[u8]| {
        let frame = ethernet(LAN, HOST, ETHERTYPE_IPV6, packet);
        anyhow::Ok(fast.run(Port::Lan, &frame)?.verdict)
    };
    let of_length = |length: u16| udp(host, client, &vec![7; usize::from(length) - 48]);
    assert_eq!(encap(&of_length(setup.mtu))?, Verdict::EncapForwarded);
    assert_eq!(encap(&of_length(setup.mtu + 1))?, Verdict::EncapTooBig);
    let mut near = of_length(100);
    for (hop_limit, expected) in [(2, Verdict::EncapForwarded), (1, Verdict::EncapHopLimit)] {
        near[7] = hop_limit;
        assert_eq!(encap(&near)?, expected);
    }
    // Destination options of eight octets, and the datagram behind them.
    let datagram_in = udp(client, host, b"data");
    let behind = [&[17, 0, 1, 4, 0, 0, 0, 0], &datagram_in[40..]].concat();
    let inner = ipv6(client, host, 60, &behind);
    let outer = datagram(
        endpoint(CLIENT),
        teredo_differential::site::relay(),
        1,
        &inner,
    );
    let frame = ethernet(WAN, ROUTER, ETHERTYPE_IPV4, &outer);
    assert_eq!(
        fast.run(Port::Wan, &frame)?.verdict,
        Verdict::DecapForwarded
    );
    Ok(())
}

/// The sum of an IPv6 packet's pseudo-header, as a checksum that is not finished.
fn pseudo_header_sum(packet: &[u8]) -> [u8; 2] {
    let words = packet[8..40].chunks_exact(2);
    let words = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let length = u32::from(u16::from_be_bytes([packet[4], packet[5]]));
    let mut sum = words.sum::<u32>() + length + u32::from(packet[6]);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (sum as u16).to_be_bytes()
}
