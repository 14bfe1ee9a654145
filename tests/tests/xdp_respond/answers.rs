//! The answers, octet for octet.

use super::*;

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
