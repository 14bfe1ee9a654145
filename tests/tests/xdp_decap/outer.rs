//! The outer headers: D1-01 to D1-05.

use super::*;

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
