//! The outer UDP checksum: D1-17.

use super::*;

/// Zero is accepted, and what is right over all octets; a wrong checksum is left to the kernel, which drops the
/// datagram (W-08).
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
            ("UDP without checksum", wrong(&no_checksum), DecapChecksum),
            ("UDP with options", wrong(&options), DecapChecksum),
            ("fragment", wrong(&fragment), DecapChecksum),
            ("ESP", wrong(&encrypted), DecapChecksum),
            ("TCP cut short", wrong(&short_tcp), DecapChecksum),
        ],
    )?;
    forward(
        &mut fixture,
        vec![
            ("inner damaged", frame(&damaged), damaged.clone()),
            (
                "UDP without checksum",
                frame(&no_checksum),
                no_checksum.clone(),
            ),
            ("UDP with options", frame(&options), options.clone()),
            ("fragment", frame(&fragment), fragment.clone()),
            ("ESP", frame(&encrypted), encrypted.clone()),
            ("TCP cut short", frame(&short_tcp), short_tcp.clone()),
            ("UDP cut short", frame(&short_udp), short_udp),
            ("ICMPv6 cut short", frame(&short_icmp), short_icmp),
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

/// The sum over all octets is right for every length, also those that end with an odd octet.
#[test]
fn d1_17_a_walk_over_every_length() -> Result<()> {
    let mut fixture = fixture(&Setup::default())?;
    let (from, to) = (address(CLIENT), address(HOST_ADDRESS));
    for length in (1..70).chain([255, 256, 511, 513, 1023, 1024, 1025, 1239, 1240]) {
        let octets: Vec<u8> = (0..length).map(|octet| (octet * 7) as u8).collect();
        let encrypted = ipv6(from, to, 50, &octets);
        let mut wrong = frame(&encrypted);
        *wrong.last_mut().expect("there is data") ^= 1;
        fixture.refuse(Port::Wan, vec![("damaged", wrong, DecapChecksum)])?;
        forward(&mut fixture, vec![("ESP", frame(&encrypted), encrypted)])?;
    }
    Ok(())
}
