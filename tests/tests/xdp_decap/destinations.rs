//! The inner destination, the hop limit and the next hop: D1-15, D1-16 and D1-18.

use super::*;

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
