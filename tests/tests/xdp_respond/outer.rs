//! The outer headers and sources.

use super::*;

#[test]
fn outer_headers() -> Result<()> {
    let mut fixture = fixture(&setup(config()))?;
    let change = |change: fn(&mut Vec<u8>)| outer(&plain(), change);
    let damaged = |at: usize| {
        let mut frame = frame(CLIENT, PRIMARY, &plain());
        frame[at] ^= 1;
        frame
    };
    fixture.refuse(
        Port::Wan,
        vec![
            (
                "another station",
                changed(frame(CLIENT, PRIMARY, &plain()), 5, 9),
                OtherStation,
            ),
            (
                "IPv6",
                ethernet(
                    WAN,
                    HOST,
                    ETHERTYPE_IPV6,
                    &udp(address("2000::b"), address(CLIENT_ADDRESS), b"x"),
                ),
                NoRelay,
            ),
            ("TCP", change(|packet| packet[9] = 6), RespondNotOurs),
            (
                "to another address",
                change(|packet| packet[19] = 6),
                RespondNotOurs,
            ),
            (
                "to another port",
                change(|packet| packet[23] ^= 1),
                RespondNotOurs,
            ),
            ("options", change(|packet| packet[0] = 0x46), RespondNotOurs),
            (
                "a fragment",
                change(|packet| packet[6] = 0x20),
                RespondNotOurs,
            ),
            (
                "time to live 0",
                change(|packet| packet[8] = 0),
                RespondHeader,
            ),
            (
                "from port 0",
                change(|packet| packet[20..22].fill(0)),
                RespondHeader,
            ),
            ("header checksum", damaged(IP + 10), RespondHeaderChecksum),
            ("UDP checksum", damaged(IP + 26), RespondChecksum),
            (
                "UDP length",
                change(|packet| packet[25] -= 1),
                RespondLength,
            ),
            (
                "UDP too short",
                change(|packet| {
                    packet.truncate(27);
                    packet[2..4].copy_from_slice(&[0, 27]);
                    packet.extend([0]);
                    packet[24..26].copy_from_slice(&[0, 7]);
                }),
                RespondLength,
            ),
            (
                "longer than the frame",
                change(|packet| {
                    packet.pop();
                }),
                RespondLength,
            ),
        ],
    )
}

#[test]
fn l01_s06_s24_outer_sources() -> Result<()> {
    let mut fixture = fixture(&setup(Config {
        allow: vec![
            "9.0.0.0/24".parse()?,
            "20.1.0.0/16".parse()?,
            "192.0.0.0/8".parse()?,
        ],
        ..config()
    }))?;
    let from = |source: &str| frame(source, PRIMARY, &plain());
    let bubble_from = |source: &str| frame(source, PRIMARY, &bubble("fe80::1234", CLIENT_ADDRESS));
    fixture.refuse(
        Port::Wan,
        vec![
            ("primary", from("1.2.3.4:3544"), RespondOwnSource),
            ("primary, other port", from("1.2.3.4:99"), RespondOwnSource),
            ("secondary", from("1.2.3.5:3544"), RespondOwnSource),
            (
                "another of the host",
                from("5.6.7.9:4096"),
                RespondOwnSource,
            ),
            ("bubble", bubble_from("5.6.7.9:4096"), RespondOwnSource),
            ("private", from("10.0.0.1:4096"), RespondSourceScope),
            (
                "private bubble",
                bubble_from("10.0.0.1:4096"),
                RespondSourceScope,
            ),
            (
                "for documentation",
                from("192.0.2.1:4096"),
                RespondSourceScope,
            ),
            ("multicast", from("224.0.0.253:4096"), RespondSourceScope),
            ("not served", from("9.0.1.1:4096"), RespondNotAllowed),
            (
                "not served, bubble",
                bubble_from("20.2.0.1:4096"),
                RespondNotAllowed,
            ),
        ],
    )?;
    for source in ["9.0.0.255:1", "20.1.9.9:4096"] {
        let outcome = fixture.run(Port::Wan, &from(source))?;
        assert_eq!(outcome.verdict, RespondAdvertised);
        let outcome = fixture.run(Port::Wan, &bubble_from(source))?;
        assert_eq!(outcome.verdict, RespondForwarded);
    }
    Ok(())
}

#[test]
fn l05_other_scopes() -> Result<()> {
    use teredo_common::scope::Ipv4Scope;
    let solicit = |source: &str| frame(source, PRIMARY, &plain());
    for (scope, documentation, private) in [
        (Ipv4Scope::Rfc4380, RespondAdvertised, RespondSourceScope),
        (Ipv4Scope::Lab, RespondAdvertised, RespondAdvertised),
    ] {
        let mut fixture = fixture(&setup(Config {
            ipv4_scope: scope,
            ..config()
        }))?;
        let mut verdict = |source| anyhow::Ok(fixture.run(Port::Wan, &solicit(source))?.verdict);
        assert_eq!(verdict("198.51.100.7:1")?, documentation);
        assert_eq!(verdict("10.0.0.7:1")?, private);
        assert_eq!(verdict("127.0.0.1:1")?, RespondSourceScope);
    }
    Ok(())
}
