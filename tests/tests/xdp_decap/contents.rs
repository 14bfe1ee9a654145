//! The contents of the datagram: D1-06 to D1-11.

use super::*;

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

/// D1-11: the daemon's rules for routing headers, behind other headers and in fragments.
#[test]
fn d1_11_extension_headers_before_a_transport() -> Result<()> {
    let mut fixture = fixture(&Setup::default())?;
    let whole = data();
    let with = |first: u8, chain: &[[u8; 8]]| {
        let payload = [&chain.concat(), &whole[40..]].concat();
        frame(&ipv6(
            address(CLIENT),
            address(HOST_ADDRESS),
            first,
            &payload,
        ))
    };
    let header = |next: u8, kind: u8| [next, 0, kind, 0, 0, 0, 0, 0];
    let later = |next: u8| [next, 0, 0, 8, 0, 0, 0, 1];
    for (name, frame, forwarded) in [
        ("options", with(60, &[header(17, 0)]), true),
        ("Mobile IPv6", with(43, &[header(17, 2)]), true),
        (
            "options, Mobile IPv6",
            with(60, &[header(43, 0), header(17, 2)]),
            true,
        ),
        (
            "options in a fragment",
            with(44, &[header(60, 0), header(17, 0)]),
            true,
        ),
        (
            "a later fragment",
            with(44, &[later(60), header(43, 0)]),
            true,
        ),
        ("source route", with(43, &[header(17, 0)]), false),
        ("segments", with(60, &[header(43, 0), header(17, 4)]), false),
        (
            "a fragment in a fragment",
            with(44, &[header(44, 0), later(17)]),
            false,
        ),
        ("hop by hop", with(0, &[header(17, 0)]), false),
        (
            "experiment",
            with(60, &[header(253, 0), header(17, 0)]),
            false,
        ),
        ("unknown", with(60, &[header(200, 0)]), false),
    ] {
        let outcome = fixture.run(Port::Wan, &frame)?;
        let expected = match forwarded {
            true => DecapForwarded,
            false => DecapExtensionHeader,
        };
        assert_eq!(outcome.verdict, expected, "{name}");
    }
    Ok(())
}
