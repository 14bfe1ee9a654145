//! Requests that are answered, dropped, or left to the daemon.

use super::*;

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
