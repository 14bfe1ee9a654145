//! Forged clients receive the answers of the protocol, from the right address.

use super::*;

/// The server gives the answers of a Microsoft server to a client of Windows XP, whose cone bit was
/// set (S-18, S-19, A-03).
#[test]
fn v11_v12_windows_xp_is_answered_as_by_microsoft() -> Result<()> {
    const PRIMARY: Ipv4Addr = Ipv4Addr::new(65, 55, 158, 80);
    let mapped = SocketAddrV4::new(Ipv4Addr::new(70, 55, 215, 234), 3797);
    let solicitation = octets(
        "00010000cd5669400b22df8800 6000000000183aff
        fe800000000000008000fffffffffffd ff020000000000000000000000000002
        8500a91d00000000 01020000000000008000f12ab9c82815",
    );
    let advertisement = octets(
        "00010000cd5669400b22df8800 0000f12ab9c82815 6000000000303aff
        fe800000000000008000f227bec861af fe800000000000008000fffffffffffd
        86001f57 00000000 00000000 000007d0 03044040ffffffffffffffff00000000
        2001000041379e500000000000000000",
    );
    let pair = Pair::new(PRIMARY, *mapped.ip())?;
    let client = Caller::open(&pair.client, mapped)?;
    for mode in ["native", "generic", "off"] {
        let config = Pair::config(PRIMARY).set("server.mtu", 0);
        let server = start(&pair.server, &config, mode)?;
        let (answer, from) = client.ask(PRIMARY, &solicitation)?;
        ensure!(answer == advertisement, "{mode}: {answer:02x?}");
        let expected = SocketAddrV4::new(next(PRIMARY), SERVER_PORT);
        ensure!(from == expected, "{mode}: from {from}");
        answered_by(&server, mode, 0)?;
    }
    Ok(())
}

/// A solicitation to either address is answered from the right address, with the prefix of the
/// primary one, even if the kernel would route the answer through the other's interface (S-01,
/// S-17, S-18).
#[test]
fn the_right_address_answers() -> Result<()> {
    // The program answers through the ingress interface.
    for (place, left) in [(Place::Alone, 0), (Place::TwoInterfaces, 2)] {
        let scene = scene(place)?;
        let (client, _namespace) = forged(&scene, 4096)?;
        for mode in ["native", "generic", "off"] {
            let server = start_in(&scene, mode)?;
            for (to, link_local, from) in [
                (SERVER, CLIENT, SERVER),
                (SECONDARY, CLIENT, SECONDARY),
                (SERVER, CONE_CLIENT, SECONDARY),
                (SECONDARY, CONE_CLIENT, SERVER),
            ] {
                client.qualify(SERVER, to, link_local, from)?;
            }
            answered_by(&server, mode, left).with_context(|| format!("{place:?}"))?;
        }
    }
    Ok(())
}

/// Bubbles reach their client with the origin indication and all trailers (S-09, S-14 to S-16).
#[test]
fn bubbles_are_forwarded_with_their_origin() -> Result<()> {
    let scene = scene(Place::Alone)?;
    let (client, namespace) = forged(&scene, 4096)?;
    let relay = Caller::open(&namespace, SocketAddrV4::new(FORGED, 4097))?;
    let plain = bubble(CLIENT, teredo_address(SERVER, client.mapped()));
    // A nonce (RFC 6081 section 4.2).
    let trailed = [&plain[..], &[1, 4, 0xde, 0xad, 0xbe, 0xef]].concat();
    for mode in ["native", "generic", "off"] {
        let server = start_in(&scene, mode)?;
        for bubble in [&plain, &plain, &trailed] {
            relay.say(SERVER, bubble)?;
            let (heard, from) = client.hear()?;
            let expected = [&origin(relay.mapped())[..], bubble].concat();
            ensure!(heard == expected, "{mode}: {heard:02x?}");
            ensure!(from == SocketAddrV4::new(SERVER, SERVER_PORT), "{from}");
        }
        let paths = server.served("bubble", "forwarded")?;
        let expected = match mode {
            "off" => Paths {
                xdp: 0,
                userspace: 3,
            },
            // The daemon judges trailers.
            _ => Paths {
                xdp: 2,
                userspace: 1,
            },
        };
        let passed = server.status()?.passed;
        ensure!(paths == expected, "{mode}: {paths:?}, {passed:?}");
    }
    Ok(())
}

/// Sends datagrams that must have no effect, whatever comes before and after them.
#[test]
fn unexpected_datagrams_are_dropped_silently() -> Result<()> {
    let scene = scene(Place::Alone)?;
    let (client, _namespace) = forged(&scene, 4096)?;
    let good = solicitation(CLIENT);
    let mut damaged = good.clone();
    damaged[42] ^= 1;
    let own = teredo_address(SERVER, client.mapped());
    let foreign = teredo_address(Ipv4Addr::new(20, 9, 9, 9), client.mapped());
    let host = scene.host().address;
    let bad = [
        // Datagrams that the server drops (S-04, S-21, L-03, S-10, S-12, S-13, DEC-8).
        good[..47].to_vec(),
        damaged,
        [&origin(client.mapped())[..], &good].concat(),
        [&nonce_only([1; 8])[..], &bubble(CLIENT, own)].concat(),
        bubble(own, host),
        bubble(own, Ipv6Addr::LOCALHOST),
        bubble(host, foreign),
        bubble(own, own),
        udp_packet((own, 1), (host, 2), 64, b"data")?,
    ];
    for mode in ["native", "generic", "off"] {
        let server = start_in(&scene, mode)?;
        client.qualify(SERVER, SERVER, CLIENT, SERVER)?;
        for datagram in &bad {
            client.say(SERVER, datagram)?;
        }
        // Malformed datagrams (S-22).
        client.say(SECONDARY, &bubble(CLIENT, own))?;
        client.qualify(SERVER, SERVER, CLIENT, SERVER)?;
        drop(server);
    }
    Ok(())
}

/// A connectivity test leaves once there is a way back (S-25).
#[test]
fn s25_connectivity_tests_need_a_route() -> Result<()> {
    let scene = scene(Place::Alone)?;
    let namespace = scene.server_namespace();
    namespace.ip("route del 2001::/32")?;
    let (client, _forged) = forged(&scene, 4096)?;
    let _server = start_in(&scene, "off")?;
    let host = scene.host();
    let source = teredo_address(SERVER, client.mapped());
    let mut message = vec![128, 0, 0, 0, 0xd3, 0x73, 0xb6, 0x9b];
    message.extend(*b"test");
    let test = icmpv6(source, host.address, &message);
    let capture = Capture::start(&host.namespace, IPV6_INTERFACE)?;
    client.say(SERVER, &test)?;
    // The server has handled the test before it answers this.
    client.qualify(SERVER, SERVER, CLIENT, SERVER)?;
    namespace.ip(&format!("route add 2001::/32 via {}", RELAY_IPV6))?;
    wait_until("a test arrives", SOON, || {
        client.say(SERVER, &test)?;
        let frames = capture.frames();
        Ok(frames.iter().any(|frame| is_echo_request(frame, source)))
    })?;
    // The hop limit is one less (S-13); nothing else is changed.
    let frames = capture.stop()?.0;
    let frame = frames.iter().find(|frame| is_echo_request(frame, source));
    let mut expected = test;
    expected[7] -= 1;
    ensure!(frame.is_some_and(|frame| frame.bytes[14..] == expected));
    Ok(())
}
