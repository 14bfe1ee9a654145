//! The server's answers by the XDP program alone: the vectors to the octet, and every row of the
//! table of verdicts from both sides.

use anyhow::Result;
use teredo_common::{
    address::ServicePrefix,
    limiter::Rate,
    time::Instant,
    verdict::Verdict::*,
    wire::{ALL_ROUTERS, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ICMPV6, NO_NEXT_HEADER},
};
use teredo_lab::{
    fixture::{Fixture, HOST, Outcome, Port, ROUTER, Setup, WAN, now, relay},
    packet::{
        IP, address, datagram, echo, endpoint, ethernet, fix_header_checksum, fix_udp_checksum,
        ipv6, octets, udp,
    },
};
use teredo_proto::{server::Config, testing::transport};

const PRIMARY: &str = "1.2.3.4:3544";
const SECONDARY: &str = "1.2.3.5:3544";
const CLIENT: &str = "9.0.0.1:4096";
/// Address of the client.
const CLIENT_ADDRESS: &str = "2001:0:102:304:0:efff:f6ff:fffe";
const OTHER_ADDRESS: &str = "2001:0:102:304:0:fbff:f7ff:fffe";
const OTHER: &str = "8.0.0.1:1024";
const LINK_LOCAL: &str = "fe80::ffff:ffff:ffff";
const CONE: &str = "fe80::8000:ffff:ffff:ffff";

/// A server at 1.2.3.4 and 1.2.3.5 that has plenty of tokens.
fn config() -> Config {
    let mut config = Config::new([1, 2, 3, 4].into(), [1, 2, 3, 5].into());
    config.limits.source = Rate::new(1_000_000, 1_000_000);
    config.limits.network = Rate::new(1_000_000, 1_000_000);
    config
}

fn setup(config: Config) -> Setup {
    Setup {
        relay: false,
        server: Some(config),
        ..Setup::default()
    }
}

fn fixture(setup: &Setup) -> Result<Fixture> {
    let mut fixture = Fixture::new(setup)?;
    fixture.program.set_identification(|| 0x1234)?;
    Ok(fixture)
}

/// A datagram in a frame from the router.
fn frame(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let datagram = datagram(endpoint(from), endpoint(to), 7, payload);
    ethernet(WAN, ROUTER, ETHERTYPE_IPV4, &datagram)
}

/// The frame with a datagram that the server sends to the router.
fn answer(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let datagram = datagram(endpoint(from), endpoint(to), 0x1234, payload);
    ethernet(ROUTER, WAN, ETHERTYPE_IPV4, &datagram)
}

/// A solicitation with these options.
fn solicitation(source: &str, options: &[u8]) -> Vec<u8> {
    let message = [&[133, 0, 0, 0, 0, 0, 0, 0], options].concat();
    transport(
        ICMPV6,
        255,
        &address(source).octets(),
        &ALL_ROUTERS,
        &message,
    )
}

fn plain() -> Vec<u8> {
    solicitation(LINK_LOCAL, &[])
}

fn bubble(source: &str, destination: &str) -> Vec<u8> {
    ipv6(address(source), address(destination), NO_NEXT_HEADER, &[])
}

/// The packet after a nonce-only authentication header.
fn authenticated(packet: &[u8]) -> Vec<u8> {
    [&octets("00010000 cd5669400b22df88 00"), packet].concat()
}

/// The client's frame with the IPv4 packet changed and valid checksums.
fn outer(payload: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut datagram = datagram(endpoint(CLIENT), endpoint(PRIMARY), 7, payload);
    change(&mut datagram);
    fix_udp_checksum(&mut datagram);
    fix_header_checksum(&mut datagram);
    ethernet(WAN, ROUTER, ETHERTYPE_IPV4, &datagram)
}

/// The packet with the octet at `at` changed to `value`.
fn changed(mut packet: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    packet[at] = value;
    packet
}

/// Runs the program on a payload of the client.
fn show(fixture: &mut Fixture, to: &str, payload: &[u8]) -> Result<Outcome> {
    fixture.run(Port::Wan, &frame(CLIENT, to, payload))
}

const V11: &str = "00010000cd5669400b22df8800 6000000000183aff fe800000000000008000fffffffffffd
    ff020000000000000000000000000002 8500a91d00000000 01020000000000008000f12ab9c82815";
const V12: &str = "00010000cd5669400b22df8800 0000f12ab9c82815 6000000000303aff
    fe800000000000008000f227bec861af fe800000000000008000fffffffffffd
    86001f57 00000000 00000000 000007d0 03044040ffffffffffffffff00000000
    2001000041379e500000000000000000";
const V16: &str = "6000000000383aff fe800000000000008000f227fefdfcfb
    fe800000000000000000ffffffffffff 8600954c 00000000 00000000 000007d0
    03044040ffffffffffffffff00000000 20010000010203040000000000000000 0501000000000500";
/// The origin indication of 9.0.0.1:4096.
const ORIGIN: &str = "0000effff6fffffe";

#[test]
fn s17_s18_s19_v11_the_captured_solicitation_gets_the_captured_advertisement() -> Result<()> {
    let config = Config {
        mtu: None,
        ..Config::new([65, 55, 158, 80].into(), [65, 55, 158, 81].into())
    };
    let client = "70.55.215.234:3797";
    let outcome = fixture(&setup(config))?
        .run(Port::Wan, &frame(client, "65.55.158.80:3544", &octets(V11)))?;
    assert_eq!(outcome.verdict, RespondAdvertised);
    assert!(outcome.same_interface);
    assert_eq!(
        outcome.frame,
        answer("65.55.158.81:3544", client, &octets(V12))
    );
    Ok(())
}

#[test]
fn s17_v15_v16_with_and_without_authentication_header() -> Result<()> {
    let mut fixture = fixture(&setup(config()))?;
    let advertisement = [octets(ORIGIN), octets(V16)].concat();
    let outcome = show(&mut fixture, PRIMARY, &plain())?;
    assert_eq!(outcome.verdict, RespondAdvertised);
    assert_eq!(outcome.frame, answer(PRIMARY, CLIENT, &advertisement));
    fixture.program.set_identification(|| 0x1234)?;
    let outcome = show(&mut fixture, PRIMARY, &authenticated(&plain()))?;
    assert_eq!(outcome.verdict, RespondAdvertised);
    let expected = answer(PRIMARY, CLIENT, &authenticated(&advertisement));
    assert_eq!(outcome.frame, expected);
    Ok(())
}

#[test]
fn s15_v19_a_bubble_gets_the_origin() -> Result<()> {
    let server = Config::new([9, 10, 11, 12].into(), [9, 10, 11, 13].into());
    let packet = octets(
        "6000000000003bff 20010000010203040000effff6fffffe
        20010000090a0b0c0000fbfff7fffffe",
    );
    let outcome =
        fixture(&setup(server))?.run(Port::Wan, &frame(CLIENT, "9.10.11.12:3544", &packet))?;
    assert_eq!(outcome.verdict, RespondForwarded);
    assert!(outcome.same_interface);
    let payload = [octets(ORIGIN), packet].concat();
    assert_eq!(outcome.frame, answer("9.10.11.12:3544", OTHER, &payload));
    Ok(())
}

#[test]
fn usual_forms_are_answered() -> Result<()> {
    let mut fixture = fixture(&setup(config()))?;
    let xp = octets("0102000000000000 8000f12ab9c82815");
    let two = octets("0101000000000000 fe01f12ab9c82815");
    let teredo = "2001:0:506:708:0:efff:f6ff:fffe";
    let mut unchecked = frame(CLIENT, PRIMARY, &plain());
    unchecked[IP + 26..IP + 28].fill(0);
    let mut padded = frame(CLIENT, PRIMARY, &plain());
    padded.extend([0xee; 100]);
    let mut padded_bubble = frame(CLIENT, PRIMARY, &bubble(teredo, OTHER_ADDRESS));
    padded_bubble.extend([0xee; 7]);
    let rows = [
        ("Vista", frame(CLIENT, PRIMARY, &authenticated(&plain()))),
        (
            "XP",
            frame(
                CLIENT,
                PRIMARY,
                &authenticated(&solicitation(LINK_LOCAL, &xp)),
            ),
        ),
        (
            "two options",
            frame(CLIENT, PRIMARY, &solicitation(LINK_LOCAL, &two)),
        ),
        ("cone", frame(CLIENT, PRIMARY, &solicitation(CONE, &[]))),
        ("secondary", frame(CLIENT, SECONDARY, &plain())),
        (
            "secondary, cone",
            frame(CLIENT, SECONDARY, &solicitation(CONE, &[])),
        ),
        (
            "confirmation",
            frame(CLIENT, PRIMARY, &changed(authenticated(&plain()), 12, 0xa7)),
        ),
        (
            "flow label",
            frame(CLIENT, PRIMARY, &changed(plain(), 3, 0x9c)),
        ),
        ("no checksum", unchecked),
        ("padding", padded),
        (
            "congestion, DF",
            outer(&plain(), |packet| {
                packet[1] = 3;
                packet[6] = 0x40;
            }),
        ),
    ];
    for (name, frame) in rows {
        let outcome = fixture.run(Port::Wan, &frame)?;
        assert_eq!(outcome.verdict, RespondAdvertised, "{name}");
    }
    let rows = [
        (
            "client",
            frame(CLIENT, PRIMARY, &bubble(teredo, OTHER_ADDRESS)),
        ),
        (
            "relay",
            frame(
                "7.7.7.7:3545",
                PRIMARY,
                &bubble("fe80::1234", CLIENT_ADDRESS),
            ),
        ),
        (
            "native",
            frame("7.7.7.7:9", PRIMARY, &bubble("2000::1", CLIENT_ADDRESS)),
        ),
        (
            "hop limit 0",
            frame(
                CLIENT,
                PRIMARY,
                &changed(bubble(teredo, OTHER_ADDRESS), 7, 0),
            ),
        ),
        ("padding", padded_bubble),
    ];
    for (name, frame) in rows {
        let outcome = fixture.run(Port::Wan, &frame)?;
        assert_eq!(outcome.verdict, RespondForwarded, "{name}");
    }
    Ok(())
}

#[test]
fn s18_answers_leave_from_the_right_address() -> Result<()> {
    let mut fixture = fixture(&setup(config()))?;
    for (to, source, from) in [
        (PRIMARY, LINK_LOCAL, PRIMARY),
        (PRIMARY, CONE, SECONDARY),
        (SECONDARY, LINK_LOCAL, SECONDARY),
        (SECONDARY, CONE, PRIMARY),
    ] {
        let outcome = show(&mut fixture, to, &solicitation(source, &[]))?;
        assert_eq!(outcome.frame[IP + 12..IP + 16], endpoint(from).address);
    }
    let mut apart = Fixture::new(&Setup {
        one_interface: false,
        ..setup(config())
    })?;
    let frame = frame(CLIENT, PRIMARY, &solicitation(CONE, &[]));
    apart.refuse(Port::Wan, vec![("cone", frame, RespondCone)])?;
    assert_eq!(
        show(&mut apart, PRIMARY, &plain())?.verdict,
        RespondAdvertised
    );
    Ok(())
}

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

#[test]
fn s04_s05_l03_packets_not_for_a_server() -> Result<()> {
    let mut fixture = fixture(&setup(config()))?;
    let plain_frame = |payload: &[u8]| frame(CLIENT, PRIMARY, payload);
    let cut = |packet: Vec<u8>, length: usize| plain_frame(&packet[..length]);
    let origin = [octets(ORIGIN), plain()].concat();
    let data = udp(address(CLIENT_ADDRESS), address("2000::b"), b"hello");
    let echo = echo(address(CLIENT_ADDRESS), address("2000::b"), b"hello");
    let mut rows = vec![
        ("empty", plain_frame(&[]), RespondMalformed),
        ("one octet", plain_frame(&[0x60]), RespondMalformed),
        ("39 octets", cut(plain(), 39), RespondMalformed),
        ("cut short", cut(plain(), 47), RespondMalformed),
        (
            "version 4",
            plain_frame(&changed(plain(), 0, 0x45)),
            RespondMalformed,
        ),
        (
            "zero and two",
            plain_frame(&[0, 2, 0, 0, 0, 0, 0, 0]),
            RespondMalformed,
        ),
        (
            "auth cut short",
            cut(authenticated(&plain()), 52),
            RespondMalformed,
        ),
        (
            "two auths",
            plain_frame(&authenticated(&authenticated(&plain()))),
            RespondMalformed,
        ),
        ("origin", plain_frame(&origin), RespondUnexpectedHeader),
        (
            "auth and origin",
            plain_frame(&authenticated(&origin)),
            RespondMalformed,
        ),
        (
            "auth and bubble",
            plain_frame(&authenticated(&bubble(CLIENT_ADDRESS, OTHER_ADDRESS))),
            RespondUnexpectedHeader,
        ),
        (
            "auth and echo",
            plain_frame(&authenticated(&echo)),
            RespondIcmpv6,
        ),
        ("data", plain_frame(&data), RespondNotService),
        (
            "59 with payload",
            plain_frame(&ipv6(
                address(CLIENT_ADDRESS),
                address(OTHER_ADDRESS),
                59,
                &[0],
            )),
            RespondNotService,
        ),
        ("echo", plain_frame(&echo), RespondIcmpv6),
        (
            "identification",
            plain_frame(&octets("00010500 616c696365 cd5669400b22df88 00")),
            RespondAuthentication,
        ),
        (
            "value",
            plain_frame(&[octets("00010004 01020304 cd5669400b22df88 00"), plain()].concat()),
            RespondAuthentication,
        ),
    ];
    for (name, payload, verdict) in [
        ("data to Q", data, RespondSecondary),
        (
            "bubble to Q",
            bubble(CLIENT_ADDRESS, OTHER_ADDRESS),
            RespondSecondary,
        ),
        ("echo to Q", echo, RespondIcmpv6),
    ] {
        rows.push((name, frame(CLIENT, SECONDARY, &payload), verdict));
    }
    fixture.refuse(Port::Wan, rows)
}

#[test]
fn s07_s21_solicitations() -> Result<()> {
    let mut fixture = fixture(&setup(config()))?;
    let with = |at: usize, value: u8| frame(CLIENT, PRIMARY, &changed(plain(), at, value));
    let option = |text: &str| frame(CLIENT, PRIMARY, &solicitation(LINK_LOCAL, &octets(text)));
    fixture.refuse(
        Port::Wan,
        vec![
            ("hop limit", with(7, 254), RespondInvalidSolicitation),
            ("code", with(41, 1), RespondInvalidSolicitation),
            ("checksum", with(43, 0), RespondInvalidSolicitation),
            (
                "checksum over reserved",
                with(47, 1),
                RespondInvalidSolicitation,
            ),
            ("advertisement", with(40, 134), RespondIcmpv6),
            ("to another", with(39, 1), RespondIcmpv6),
            (
                "source",
                frame(CLIENT, PRIMARY, &solicitation("2000::1", &[])),
                RespondIcmpv6,
            ),
            (
                "site-local source",
                frame(CLIENT, PRIMARY, &solicitation("fec0::1", &[])),
                RespondIcmpv6,
            ),
            (
                "trailers",
                frame(CLIENT, PRIMARY, &[plain(), octets("0104deadbeef")].concat()),
                RespondIcmpv6,
            ),
            ("one unit", option("0101000000000000"), RespondIcmpv6),
            (
                "length 0",
                option("0100000000000000 0101000000000000"),
                RespondInvalidSolicitation,
            ),
            (
                "second length 0",
                option("0101000000000000 0100000000000000"),
                RespondInvalidSolicitation,
            ),
            (
                "length 3",
                option("0103000000000000 0101000000000000"),
                RespondInvalidSolicitation,
            ),
        ],
    )
}

#[test]
fn s08_s09_s14_bubbles() -> Result<()> {
    let mut fixture = fixture(&setup(Config {
        prefixes: vec![ServicePrefix::STANDARD, ServicePrefix::DRAFT],
        ..config()
    }))?;
    let from_client =
        |source: &str, destination: &str| frame(CLIENT, PRIMARY, &bubble(source, destination));
    let to = |destination: &str| from_client(CLIENT_ADDRESS, destination);
    let from = |source: &str| from_client(source, OTHER_ADDRESS);
    fixture.refuse(
        Port::Wan,
        vec![
            (
                "trailers",
                frame(
                    CLIENT,
                    PRIMARY,
                    &[bubble(CLIENT_ADDRESS, OTHER_ADDRESS), vec![1]].concat(),
                ),
                RespondTrailers,
            ),
            ("to itself", to(CLIENT_ADDRESS), RespondSameAddress),
            (
                "from elsewhere",
                from("2001:0:102:304:0:efff:f6ff:fffd"),
                RespondSourceMismatch,
            ),
            (
                "from another port",
                from("2001:0:102:304:0:eff0:f6ff:fffe"),
                RespondSourceMismatch,
            ),
            (
                "draft prefix, from elsewhere",
                from("3ffe:831f:102:304:0:efff:f6ff:fffd"),
                RespondSourceMismatch,
            ),
            ("from the unspecified address", from("::"), RespondSource),
            ("from all", from("ff02::1"), RespondSource),
            ("6to4 of this host", from("2002:102:304::1"), RespondSource),
            (
                "ISATAP of this host",
                from("2000::5efe:506:709"),
                RespondSource,
            ),
            ("to a native host", to("2000::b"), RespondDestination),
            ("to all nodes", to("ff02::1"), RespondDestination),
            (
                "to the server",
                to("fe80::8000:f227:fefd:fcfb"),
                RespondDestination,
            ),
            (
                "client of another server",
                to("2001:0:102:305:0:fbff:f7ff:fffe"),
                RespondForeign,
            ),
            (
                "a relay's to one",
                from_client("fe80::1", "2001:0:102:305:0:fbff:f7ff:fffe"),
                RespondForeign,
            ),
            (
                "V-23",
                to("2001:0:102:304:0:f227:fefd:fcfb"),
                RespondMapping,
            ),
            (
                "to secondary",
                to("2001:0:102:304:0:f227:fefd:fcfa"),
                RespondMapping,
            ),
            (
                "to this host",
                to("2001:0:102:304:0:efff:faf9:f8f6"),
                RespondMapping,
            ),
            (
                "to port 0",
                to("2001:0:102:304:0:ffff:f7ff:fffe"),
                RespondMapping,
            ),
            (
                "to a private address",
                to("2001:0:102:304:0:fbff:f5ff:fffe"),
                RespondMapping,
            ),
            (
                "no route",
                to("2001:0:102:304:0:fbff:f6f7:fffe"),
                RespondNextHop,
            ),
        ],
    )?;
    for (source, destination) in [
        ("3ffe:831f:102:304:0:efff:f6ff:fffe", OTHER_ADDRESS),
        (CLIENT_ADDRESS, "3ffe:831f:102:304:0:fbff:f7ff:fffe"),
        ("2002:102:309::1", OTHER_ADDRESS),
    ] {
        let packet = bubble(source, destination);
        fixture.program.set_identification(|| 0x1234)?;
        let outcome = show(&mut fixture, PRIMARY, &packet)?;
        assert_eq!(outcome.verdict, RespondForwarded, "{source}");
        let payload = [octets(ORIGIN), packet].concat();
        assert_eq!(outcome.frame, answer(PRIMARY, OTHER, &payload));
    }
    Ok(())
}

#[test]
fn packets_left_to_the_daemon() -> Result<()> {
    let foreign = bubble(CLIENT_ADDRESS, "2001:0:102:305:0:fbff:f7ff:fffe");
    let own = bubble(CLIENT_ADDRESS, OTHER_ADDRESS);
    let fixture_of = |change: fn(&mut Config)| {
        let mut config = config();
        change(&mut config);
        fixture(&setup(config))
    };
    let mut forwarding = fixture_of(|config| config.forward_foreign = true)?;
    assert_eq!(
        show(&mut forwarding, PRIMARY, &foreign)?.verdict,
        RespondDaemon
    );
    assert_eq!(
        show(&mut forwarding, PRIMARY, &own)?.verdict,
        RespondForwarded
    );

    let mut many = fixture_of(|config| {
        config.prefixes = (0..5).map(|n| ServicePrefix([0x20, 1, 0, n])).collect();
    })?;
    assert_eq!(show(&mut many, PRIMARY, &own)?.verdict, RespondDaemon);
    assert_eq!(
        show(&mut many, PRIMARY, &plain())?.verdict,
        RespondAdvertised
    );

    let mut secure = fixture_of(|config| config.require_authentication = true)?;
    for packet in [plain(), authenticated(&plain())] {
        assert_eq!(
            show(&mut secure, PRIMARY, &packet)?.verdict,
            RespondAuthentication
        );
    }
    assert_eq!(show(&mut secure, PRIMARY, &own)?.verdict, RespondForwarded);

    let mut small = fixture_of(|config| config.icmpv6_payload = 23)?;
    let option = solicitation(LINK_LOCAL, &octets("0102000000000000 8000f12ab9c82815"));
    assert_eq!(show(&mut small, PRIMARY, &option)?.verdict, RespondIcmpv6);
    assert_eq!(
        show(&mut small, PRIMARY, &plain())?.verdict,
        RespondAdvertised
    );
    Ok(())
}

#[test]
fn s23_limits_are_shared_with_the_daemon() -> Result<()> {
    let mut config = config();
    config.limits.source = Rate::new(1, 3);
    config.limits.network = Rate::new(1, 5);
    config.limits.total = Rate::new(1, 7);
    let limits = config.limits;
    let mut fixture = fixture(&setup(config))?;
    let mut run = |from: &str| {
        let packet = frame(from, PRIMARY, &plain());
        anyhow::Ok(fixture.run(Port::Wan, &packet)?.verdict)
    };
    let sources = [
        "9.0.0.1:1",
        "9.0.0.1:2",
        "9.0.0.1:3",
        "9.0.0.2:1",
        "9.0.0.2:1",
    ];
    for source in sources {
        assert_eq!(run(source)?, RespondAdvertised);
    }
    assert_eq!(run("9.0.0.1:1")?, RespondSourceLimit);
    assert_eq!(run("9.0.0.2:1")?, RespondNetworkLimit);
    assert_eq!(run("9.0.1.1:1")?, RespondAdvertised);
    assert_eq!(run("9.0.1.2:1")?, RespondAdvertised);
    assert_eq!(run("9.0.2.1:1")?, RespondTotalLimit);
    // Refused packets have cost no token, and the daemon sees all tokens that were taken.
    let buckets = fixture.program.limits()?.expect("there is a server");
    let tokens = |slot: u32, rate: Rate| {
        let bucket = buckets.as_ref()[slot as usize].load(std::sync::atomic::Ordering::Relaxed);
        let second = rate.interval;
        bucket.saturating_sub(now().as_nanos()).div_ceil(second)
    };
    assert_eq!(tokens(limits.source_slot([9, 0, 0, 1]), limits.source), 3);
    assert_eq!(tokens(limits.source_slot([9, 0, 0, 2]), limits.source), 2);
    assert_eq!(tokens(limits.source_slot([9, 0, 2, 1]), limits.source), 0);
    assert_eq!(tokens(limits.network_slot([9, 0, 0, 7]), limits.network), 5);
    Ok(())
}

#[test]
fn s23_the_total_is_taken_in_chunks_and_to_the_last_token() -> Result<()> {
    let mut config = config();
    config.limits.total = Rate::new(1, 100);
    let mut fixture = fixture(&setup(config))?;
    let packet = frame(CLIENT, PRIMARY, &plain());
    let mut answered = 0;
    while fixture.run(Port::Wan, &packet)?.verdict == RespondAdvertised {
        answered += 1;
    }
    assert!((100..105).contains(&answered), "{answered}");
    Ok(())
}

#[test]
fn s27_draining() -> Result<()> {
    let mut fixture = fixture(&setup(config()))?;
    let bubble = bubble(CLIENT_ADDRESS, OTHER_ADDRESS);
    let end = now() + std::time::Duration::from_secs(60);
    for (end, solicited, forwarded) in [
        (Some(end), RespondDraining, RespondForwarded),
        // Long ago, even on a clock that lags behind by a tick.
        (
            Some(Instant::from_nanos(1)),
            RespondDraining,
            RespondDraining,
        ),
        (None, RespondAdvertised, RespondForwarded),
    ] {
        fixture.program.set_draining(end)?;
        assert_eq!(show(&mut fixture, PRIMARY, &plain())?.verdict, solicited);
        assert_eq!(show(&mut fixture, PRIMARY, &bubble)?.verdict, forwarded);
    }
    Ok(())
}

/// The relay's address and port are the server's: 5.6.7.8:3545.
fn shared() -> Result<Fixture> {
    let mut config = Config::new([5, 6, 7, 8].into(), [5, 6, 7, 9].into());
    config.port = 3545;
    config.relay = Some(relay());
    Fixture::new(&Setup {
        server: Some(config),
        ..Setup::default()
    })
}

#[test]
fn s30_a_relay_on_the_same_port() -> Result<()> {
    let mut fixture = shared()?;
    let client = "2001:0:506:708:0:efff:f6ff:fffe";
    let data = udp(address(client), address("2000::b"), b"hello");
    let (primary, secondary) = ("5.6.7.8:3545", "5.6.7.9:3545");
    let verdict = |fixture: &mut Fixture, to: &str, packet: &[u8]| {
        anyhow::Ok(show(fixture, to, packet)?.verdict)
    };
    assert_eq!(verdict(&mut fixture, primary, &data)?, DecapUnknownPeer);
    fixture.trust(address(client), endpoint(CLIENT))?;
    assert_eq!(verdict(&mut fixture, primary, &data)?, DecapForwarded);
    assert_eq!(verdict(&mut fixture, secondary, &data)?, RespondSecondary);
    let echo = echo(address(client), address("2000::b"), b"hello");
    assert_eq!(verdict(&mut fixture, primary, &echo)?, DecapForwarded);
    for to in [primary, secondary] {
        assert_eq!(verdict(&mut fixture, to, &plain())?, RespondAdvertised);
    }
    let to_other = bubble(client, "2001:0:506:708:0:fbff:f7ff:fffe");
    assert_eq!(verdict(&mut fixture, primary, &to_other)?, RespondForwarded);
    // The bubble may bring back a cookie of the relay.
    let to_relay = bubble(client, "fe80::1234");
    assert_eq!(verdict(&mut fixture, primary, &to_relay)?, RespondDaemon);
    let from_relay = frame("5.6.7.8:3545", primary, &plain());
    fixture.refuse(Port::Wan, vec![("relay", from_relay, RespondOwnSource)])
}

#[test]
fn a_relay_on_another_port_is_unaffected() -> Result<()> {
    let mut fixture = Fixture::new(&Setup {
        server: Some(config()),
        ..Setup::default()
    })?;
    fixture.trust(address(CLIENT_ADDRESS), endpoint(CLIENT))?;
    let data = udp(address(CLIENT_ADDRESS), address("2000::b"), b"hello");
    let mut verdict = |to: &str, packet: &[u8]| anyhow::Ok(show(&mut fixture, to, packet)?.verdict);
    assert_eq!(verdict("5.6.7.8:3545", &data)?, DecapForwarded);
    assert_eq!(verdict(PRIMARY, &data)?, RespondNotService);
    assert_eq!(verdict("5.6.7.8:3545", &plain())?, DecapSource);
    assert_eq!(verdict(PRIMARY, &plain())?, RespondAdvertised);
    assert_eq!(verdict("5.6.7.8:3544", &plain())?, DecapNotOurs);
    Ok(())
}
