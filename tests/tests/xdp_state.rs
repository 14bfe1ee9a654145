//! The state of the program: stamps of peers and next hops of destinations.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv6Addr,
    thread,
    time::Duration,
};

use anyhow::Result;
use teredo::datapath::watch::{Depths, Hops};
use teredo_common::{
    generations,
    peers::Peer,
    time::Instant,
    traffic::{Count, Traffic},
    verdict::Verdict::{self, *},
    wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};
use teredo_datapath::table::Cursor;
use teredo_lab::{
    fixture::{Fixture, HOST, LAN, Port, ROUTER, Setup, WAN, now, relay, wait_for_stale_stamps},
    packet::{address, datagram, endpoint, ethernet, udp},
};

const CLIENT: &str = "2001:0:102:304:0:efff:f6ff:fffe";
const SECOND: Duration = Duration::from_secs(1);

fn from_client() -> Vec<u8> {
    from_client_to("2000::b")
}

fn from_client_to(native: &str) -> Vec<u8> {
    let packet = udp(address(CLIENT), address(native), b"hello");
    let datagram = datagram(endpoint("9.0.0.1:4096"), relay(), 7, &packet);
    ethernet(WAN, ROUTER, ETHERTYPE_IPV4, &datagram)
}

fn to_client() -> Vec<u8> {
    let packet = udp(address("2000::b"), address(CLIENT), b"hello");
    ethernet(LAN, HOST, ETHERTYPE_IPV6, &packet)
}

fn fixture(last_received: Instant, last_sent: Instant) -> Result<Fixture> {
    let mut fixture = Fixture::new(&Setup::default())?;
    insert(&mut fixture, last_received, last_sent)?;
    Ok(fixture)
}

fn insert(fixture: &mut Fixture, last_received: Instant, last_sent: Instant) -> Result<()> {
    let peer = Peer {
        mapped: endpoint("9.0.0.1:4096"),
        last_received,
        last_sent,
    };
    fixture.insert(address(CLIENT), peer)
}

fn verdict(fixture: &mut Fixture, port: Port, frame: &[u8]) -> Result<Verdict> {
    Ok(fixture.run(port, frame)?.verdict)
}

/// Does `work` on a new fixture, whose daemon has just shown that it lives.
fn with_daemon<T>(mut work: impl FnMut(&mut Fixture) -> Result<T>) -> Result<(Fixture, T)> {
    let mut fixture = fixture(now(), now())?;
    fixture.program.keep_next_hops(now());
    let result = work(&mut fixture)?;
    Ok((fixture, result))
}

fn stamps(fixture: &Fixture) -> Result<(Instant, Instant)> {
    let peer = fixture.peer(address(CLIENT))?;
    Ok((peer.last_received, peer.last_sent))
}

/// Returns a moment as the map has it.
fn rounded(time: Instant) -> Instant {
    let second = generations::SECOND.as_nanos() as u64;
    Instant::from_nanos(time.as_nanos() / second * second)
}

#[test]
fn stamps_are_renewed_when_a_second_old() -> Result<()> {
    let old = now() - 4 * SECOND;
    let mut fixture = fixture(old, old)?;
    verdict(&mut fixture, Port::Wan, &from_client())?;
    let (received, sent) = stamps(&fixture)?;
    assert!(received > old + SECOND && received <= now());
    assert_eq!(sent, rounded(old), "reception does not count as sending");
    verdict(&mut fixture, Port::Lan, &to_client())?;
    let (again, sent) = stamps(&fixture)?;
    assert_eq!(again, received, "sending does not count as reception");
    assert!(sent > old + SECOND && sent <= now());
    Ok(())
}

/// A peer is served for its lifetime of 30 seconds, but for two, and no longer.
#[test]
fn a_silent_peer_is_left_to_the_daemon() -> Result<()> {
    wait_for_stale_stamps()?;
    for (age, is_served) in [(0, true), (20, true), (31, false)] {
        let mut fixture = Fixture::new(&Setup::default())?;
        // Loading the program takes seconds on some machines.
        insert(&mut fixture, now() - age * SECOND, now())?;
        let received = verdict(&mut fixture, Port::Wan, &from_client())?;
        let sent = verdict(&mut fixture, Port::Lan, &to_client())?;
        let expected = match is_served {
            true => (DecapForwarded, EncapForwarded),
            false => (DecapStalePeer, EncapStalePeer),
        };
        assert_eq!((received, sent), expected, "{age}");
    }
    Ok(())
}

#[test]
fn packets_that_are_not_forwarded_leave_no_stamp() -> Result<()> {
    let old = rounded(now() - 4 * SECOND);
    let mut fixture = fixture(old, old)?;
    let mut forged = from_client();
    // Another source port, and no checksum.
    forged[35] ^= 1;
    forged[40..42].fill(0);
    assert_eq!(verdict(&mut fixture, Port::Wan, &forged)?, DecapMapping);
    let mut exhausted = to_client();
    exhausted[21] = 1;
    assert_eq!(verdict(&mut fixture, Port::Lan, &exhausted)?, EncapHopLimit);
    assert_eq!(stamps(&fixture)?, (old, old));
    Ok(())
}

/// An Ethernet address that no neighbour of the fixture has.
const NEW: [u8; 6] = [2, 0, 0, 0, 9, 9];

/// The hops of the destinations of prefixes.
fn hops(prefixes: &[&str]) -> Result<Hops> {
    let mut hops = Hops::default();
    for prefix in prefixes {
        hops.add(prefix.parse()?);
    }
    Ok(hops)
}

/// Whether the frame leaves by a new neighbour once the hops of these prefixes are invalid.
fn is_asked_again(port: Port, frame: &[u8], neighbour: &str, prefixes: &[&str]) -> Result<bool> {
    let hops = hops(prefixes)?;
    let (_, changed) = with_daemon(|fixture| {
        fixture.run(port, frame)?;
        let change = format!("neigh replace {neighbour} lladdr 02:00:00:00:09:09");
        let device = if port == Port::Lan { "wan" } else { "lan" };
        fixture
            .namespace
            .ip(&format!("{change} dev {device} nud permanent"))?;
        fixture.program.invalidate(&hops);
        Ok(fixture.run(port, frame)?.frame[..6] == NEW)
    })?;
    Ok(changed)
}

#[test]
fn a_change_invalidates_the_hops_that_it_concerns_and_no_others() -> Result<()> {
    for (prefixes, is_concerned) in [
        (&["9.0.0.0/24"][..], true),
        (&["9.0.0.1/32"], true),
        (&["9.0.0.0/13"], true),
        (&["8.0.0.0/7"], true),
        (&["0.0.0.0/0"], true),
        (
            &["9.1.0.0/24", "8.0.0.0/8", "10.0.0.0/8", "2000::/32"],
            false,
        ),
    ] {
        let (frame, neighbour) = (to_client(), "5.6.7.1");
        let asked = is_asked_again(Port::Lan, &frame, neighbour, prefixes)?;
        assert_eq!(asked, is_concerned, "{prefixes:?}");
    }
    for (prefixes, is_concerned) in [
        (&["2000::/64"][..], true),
        (&["2000::b/128"], true),
        (&["2000::/28"], true),
        (&["2000::/3"], true),
        (&["2000:1::/32", "2001:db8::/32", "9.0.0.0/24"], false),
    ] {
        let (frame, neighbour) = (from_client(), "2000::b");
        let asked = is_asked_again(Port::Wan, &frame, neighbour, prefixes)?;
        assert_eq!(asked, is_concerned, "{prefixes:?}");
    }
    Ok(())
}

#[test]
fn only_stations_that_frames_leave_for_are_in_use() -> Result<()> {
    let mut fixture = fixture(now(), now())?;
    fixture.program.collect_stations(false);
    assert!(!fixture.program.sends_to(HOST));
    fixture.run(Port::Wan, &from_client())?;
    fixture.program.collect_stations(false);
    assert!(fixture.program.sends_to(HOST) && !fixture.program.sends_to(ROUTER));
    // It is remembered for one period.
    fixture.program.collect_stations(true);
    assert!(fixture.program.sends_to(HOST));
    fixture.program.collect_stations(true);
    assert!(!fixture.program.sends_to(HOST));
    Ok(())
}

/// The next hop of a frame after `change`: once the daemon has changed the generation, and, if there is no
/// daemon, after a second.
fn follows(
    change: &str,
    port: Port,
    frame: &[u8],
    before: [u8; 6],
    after: impl Fn(&mut Fixture) -> Result<()>,
) -> Result<()> {
    let (mut kept, (first, second)) = with_daemon(|fixture| {
        let first = fixture.run(port, frame)?.frame;
        fixture.namespace.ip(change)?;
        let second = fixture.run(port, frame)?.frame;
        Ok((first, second))
    })?;
    assert_eq!(first[..6], before);
    assert_eq!(second[..12], first[..12], "is remembered");
    kept.program.invalidate(&Hops::All);
    after(&mut kept)?;

    let mut left = fixture(now(), now())?;
    assert_eq!(left.run(port, frame)?.frame[..6], before);
    left.namespace.ip(change)?;
    thread::sleep(generations::SECOND + SECOND / 10);
    after(&mut left)
}

#[test]
fn a_new_neighbour_address_is_used() -> Result<()> {
    let (out, home) = (to_client(), from_client());
    follows(
        "neigh replace 5.6.7.1 lladdr 02:00:00:00:09:09 dev wan nud permanent",
        Port::Lan,
        &out,
        ROUTER,
        |fixture| {
            assert_eq!(fixture.run(Port::Lan, &to_client())?.frame[..6], NEW);
            Ok(())
        },
    )?;
    follows(
        "neigh replace 2000::b lladdr 02:00:00:00:09:09 dev lan nud permanent",
        Port::Wan,
        &home,
        HOST,
        |fixture| {
            assert_eq!(fixture.run(Port::Wan, &from_client())?.frame[..6], NEW);
            Ok(())
        },
    )
}

#[test]
fn a_lost_neighbour_and_a_lost_route_are_noticed() -> Result<()> {
    let (out, home) = (to_client(), from_client());
    follows(
        "route replace unreachable 9.0.0.0/8",
        Port::Lan,
        &out,
        ROUTER,
        |fixture| {
            let outcome = fixture.run(Port::Lan, &to_client())?;
            assert_eq!(outcome.verdict, EncapNextHop);
            assert_eq!(outcome.frame, to_client());
            Ok(())
        },
    )?;
    follows(
        "neigh del 2000::b lladdr 02:00:00:00:06:0b dev lan",
        Port::Wan,
        &home,
        HOST,
        |fixture| {
            let outcome = fixture.run(Port::Wan, &from_client())?;
            assert_eq!(outcome.verdict, DecapNextHop);
            assert_eq!(outcome.frame, from_client());
            Ok(())
        },
    )
}

#[test]
fn a_route_through_another_interface_is_used() -> Result<()> {
    follows(
        "route replace 9.0.0.0/8 via inet6 2000::b dev lan",
        Port::Lan,
        &to_client(),
        ROUTER,
        |fixture| {
            let outcome = fixture.run(Port::Lan, &to_client())?;
            assert!(outcome.same_interface);
            assert_eq!(outcome.frame[..12], [HOST, LAN].concat());
            Ok(())
        },
    )
}

/// Whether a packet to `later` leaves by the station that was found for `earlier`, though the route has
/// another gateway now. Both are behind the gateway 2000::b, unless they are on the link; the routes say how
/// many bits decide.
fn shares(routes: &[&str], earlier: &str, later: &str) -> Result<bool> {
    let mut depths = Depths::default();
    for route in routes {
        depths.add_prefix(route.parse()?);
    }
    let (_, shares) = with_daemon(|fixture| {
        fixture.program.share_next_hops(&depths);
        fixture.namespace.ip_batch(
            "neigh add 2000::c lladdr 02:00:00:00:09:09 dev lan nud permanent
            neigh add 2000::d lladdr 02:00:00:00:09:0d dev lan nud permanent
            route add 2400::/16 via 2000::b dev lan",
        )?;
        let first = fixture.run(Port::Wan, &from_client_to(earlier))?;
        assert_eq!(first.verdict, DecapForwarded, "{earlier}");
        fixture
            .namespace
            .ip("route replace 2400::/16 via 2000::c dev lan")?;
        let second = fixture.run(Port::Wan, &from_client_to(later))?;
        assert_eq!(second.verdict, DecapForwarded, "{later}");
        Ok(second.frame[..6] == first.frame[..6])
    })?;
    Ok(shares)
}

#[test]
fn destinations_of_one_route_share_a_next_hop() -> Result<()> {
    // The daemon knows of no longer route: the first bit decides.
    assert!(shares(&[], "2400:1::1", "2400:1:ffff::2")?);
    assert!(shares(&[], "2400:1::1", "2400:2::1")?);
    // One near one of them, shorter than a bucket.
    let shorter = ["2400::/30"];
    assert!(shares(&shorter, "2400:1::1", "2400:2::1")?);
    assert!(!shares(&shorter, "2400:1::1", "2400:4::1")?);
    // A longer one is among the destinations.
    let longer = ["2400:1:7000::/36"];
    assert!(shares(&longer, "2400:1::1", "2400:1:fff::2")?);
    assert!(!shares(&longer, "2400:1::1", "2400:1:1000::2")?);
    // A route of one host: all bits decide.
    let host = ["2400:1:7::1/128"];
    assert!(!shares(&host, "2400:1::1", "2400:1::2")?);
    assert!(shares(&host, "2400:1::1", "2400:1::1")?);
    Ok(())
}

/// A packet meets a new, longer route before the daemon has heard of it. The next hop is not that of others, once it has.
#[test]
fn a_new_route_takes_its_next_hop_from_no_other_destination() -> Result<()> {
    let longer = "2400:1::/48";
    let (_, ()) = with_daemon(|fixture| {
        fixture.program.share_next_hops(&Depths::default());
        fixture.namespace.ip_batch(&format!(
            "neigh add 2000::c lladdr 02:00:00:00:09:09 dev lan nud permanent
            route add 2400::/16 via 2000::b dev lan
            route add {longer} via 2000::c dev lan"
        ))?;
        let new = fixture.run(Port::Wan, &from_client_to("2400:1::1"))?;
        assert_eq!(new.frame[..6], NEW);
        let mut depths = Depths::default();
        depths.add_prefix(longer.parse()?);
        fixture.program.share_next_hops(&depths);
        fixture.program.invalidate(&hops(&[longer])?);
        let other = fixture.run(Port::Wan, &from_client_to("2400:2::1"))?;
        assert_eq!(other.frame[..6], HOST);
        let new = fixture.run(Port::Wan, &from_client_to("2400:1::1"))?;
        assert_eq!(new.frame[..6], NEW);
        Ok(())
    })?;
    Ok(())
}

#[test]
fn neighbours_on_the_link_share_nothing() -> Result<()> {
    assert!(!shares(&[], "2000::b", "2000::d")?);
    assert!(!shares(&[], "2000::d", "2000::c")?);
    Ok(())
}

#[test]
fn without_a_daemon_nothing_is_shared() -> Result<()> {
    let (mut fixture, ()) = with_daemon(|fixture| {
        fixture.program.share_next_hops(&Depths::default());
        fixture
            .namespace
            .ip("route add 2400::/16 via 2000::b dev lan")?;
        Ok(())
    })?;
    // The daemon was there long ago.
    fixture.program.keep_next_hops(now() - 30 * SECOND);
    assert_eq!(
        fixture.run(Port::Wan, &from_client_to("2400:1::1"))?.frame[..6],
        HOST
    );
    fixture
        .namespace
        .ip("neigh replace 2000::b lladdr 02:00:00:00:09:09 dev lan nud permanent")?;
    assert_eq!(
        fixture.run(Port::Wan, &from_client_to("2400:1::2"))?.frame[..6],
        NEW
    );
    Ok(())
}

#[test]
fn a_next_hop_is_never_older_than_its_lifetime() -> Result<()> {
    let (mut fixture, ()) = with_daemon(|fixture| {
        assert_eq!(fixture.run(Port::Lan, &to_client())?.frame[..6], ROUTER);
        fixture
            .namespace
            .ip("neigh replace 5.6.7.1 lladdr 02:00:00:00:09:09 dev wan nud permanent")?;
        assert_eq!(fixture.run(Port::Lan, &to_client())?.frame[..6], ROUTER);
        Ok(())
    })?;
    let start = now();
    let steps = generations::LIFETIME.as_secs() as u32;
    for step in 1..=steps {
        fixture.program.keep_next_hops(start + SECOND * step);
    }
    // The clock of the program is behind.
    fixture.program.keep_next_hops(now());
    assert_eq!(fixture.run(Port::Lan, &to_client())?.frame[..6], NEW);
    Ok(())
}

#[test]
fn destinations_that_share_a_set_do_not_share_a_next_hop() -> Result<()> {
    let mut fixture = fixture(now(), now())?;
    // Each destination is its own neighbour. Some of them share a set with three others.
    let mut neighbours = String::new();
    let hosts = 2_000_u32;
    for host in 0..hosts {
        let [_, _, a, b] = host.to_be_bytes();
        neighbours += &format!(
            "neigh add 2000::1:{host:x} lladdr 02:00:00:07:{a:02x}:{b:02x} dev lan nud permanent\n"
        );
    }
    fixture.namespace.ip_batch(&neighbours)?;
    for round in 0..2 {
        for host in 0..hosts {
            let [_, _, a, b] = host.to_be_bytes();
            let packet = udp(
                address(CLIENT),
                address(&format!("2000::1:{host:x}")),
                b"hello",
            );
            let datagram = datagram(endpoint("9.0.0.1:4096"), relay(), 7, &packet);
            let frame = ethernet(WAN, ROUTER, ETHERTYPE_IPV4, &datagram);
            let (_, out) = fixture.run_uncounted(Port::Wan, &frame, 1)?;
            assert_eq!(out[..6], [2, 0, 0, 7, a, b], "host {host}, round {round}");
        }
    }
    Ok(())
}

#[test]
fn a_moved_peer_gets_another_next_hop() -> Result<()> {
    let mut fixture = fixture(now(), now())?;
    let outcome = fixture.run(Port::Lan, &to_client())?;
    assert_eq!(outcome.frame[..12], [ROUTER, WAN].concat());
    fixture
        .namespace
        .ip("neigh add 5.6.7.9 lladdr 02:00:00:00:09:09 dev wan nud permanent")?;
    let moved = Peer {
        mapped: endpoint("5.6.7.9:5"),
        ..fixture.peer(address(CLIENT))?
    };
    fixture.insert(address(CLIENT), moved)?;
    let outcome = fixture.run(Port::Lan, &to_client())?;
    assert_eq!(outcome.frame[..6], NEW);
    assert_eq!(outcome.frame[30..34], [5, 6, 7, 9]);
    // And back.
    let back = Peer {
        mapped: endpoint("9.0.0.1:4096"),
        ..moved
    };
    fixture.insert(address(CLIENT), back)?;
    let outcome = fixture.run(Port::Lan, &to_client())?;
    assert_eq!(outcome.frame[..6], ROUTER);
    assert_eq!(outcome.frame[30..34], [9, 0, 0, 1]);
    Ok(())
}

#[test]
fn a_full_map_is_reported() -> Result<()> {
    let setup = Setup {
        max_peers: 4,
        ..Setup::default()
    };
    let mut fixture = Fixture::new(&setup)?;
    let peer = |number: u8| [0x20, 1, 0, 0, 1, 2, 3, 4, 0, 0, 1, 1, 5, 6, 7, number];
    let mut inserted = 0;
    let error = loop {
        match fixture
            .program
            .insert(&peer(inserted), &Peer::default(), now())
        {
            Ok(()) => inserted += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(inserted, 4);
    assert!(
        matches!(error, teredo::datapath::xdp::Error::Full),
        "{error}"
    );
    fixture.program.remove(&peer(0), now())?;
    fixture.program.remove(&peer(0), now())?;
    fixture.program.insert(&peer(9), &Peer::default(), now())?;
    Ok(())
}

/// Peers do not hide each other, every one is served, and a removed one is not found.
#[test]
fn every_peer_is_found_in_a_full_table() -> Result<()> {
    let count = 500_u16;
    let setup = Setup {
        max_peers: count.into(),
        ..Setup::default()
    };
    let mut fixture = Fixture::new(&setup)?;
    let peer = |number: u16| {
        let mut octets = address(CLIENT).octets();
        octets[8..10].copy_from_slice(&number.to_be_bytes());
        Ipv6Addr::from(octets)
    };
    // Some are behind symmetric NATs.
    let mapped = |number: u16| match number % 10 {
        0 => endpoint("9.0.0.9:77"),
        _ => endpoint("9.0.0.1:4096"),
    };
    let mut there: BTreeSet<_> = (0..count).collect();
    for &number in &there {
        fixture.trust(peer(number), mapped(number))?;
    }
    assert!(fixture.program.peers_in_slots() > usize::from(count / 10));
    while !there.is_empty() {
        // A machine may be so slow that they would become stale.
        for &number in &there {
            fixture.trust(peer(number), mapped(number))?;
        }
        let mut seen = BTreeSet::new();
        fixture.program.for_each_peer(now(), |address, known| {
            let number = u16::from_be_bytes([address[8], address[9]]);
            assert_eq!(known.mapped, mapped(number));
            assert!(seen.insert(number), "{number} comes twice");
        });
        assert_eq!(seen, there);
        for number in 0..count {
            let packet = udp(address("2000::b"), peer(number), b"hello");
            let frame = ethernet(LAN, HOST, ETHERTYPE_IPV6, &packet);
            let outcome = fixture.run(Port::Lan, &frame)?;
            if there.contains(&number) {
                assert_eq!(
                    outcome.verdict,
                    EncapForwarded,
                    "{number} of {}",
                    there.len()
                );
                assert_eq!(outcome.frame[30..34], mapped(number).address);
            } else {
                assert_eq!(outcome.verdict, EncapUnknownPeer, "{number}");
            }
        }
        // Two of three, until none is left.
        let gone: Vec<_> = there.iter().copied().step_by(3).collect();
        let gone = there
            .iter()
            .copied()
            .filter(|number| !gone.contains(number) || there.len() < 9);
        for number in gone.collect::<Vec<_>>() {
            fixture.program.remove(&peer(number).octets(), now())?;
            there.remove(&number);
        }
    }
    Ok(())
}

/// The traffic of every peer that a daemon has not collected yet.
fn collect(fixture: &mut Fixture) -> Result<BTreeMap<Ipv6Addr, Traffic>> {
    let mut traffic = BTreeMap::<_, Traffic>::new();
    let mut add = |address: &[u8; 16], more: Traffic| {
        *traffic.entry((*address).into()).or_default() += more;
    };
    let mut cursor = Cursor::default();
    let program = &mut fixture.program;
    program.visit_peers(&mut cursor, usize::MAX, now(), |address, _, more| {
        add(address, more)
    });
    for (address, more) in program.take_left()? {
        add(&address, more);
    }
    traffic.retain(|_, traffic| !traffic.is_none());
    Ok(traffic)
}

#[test]
fn every_packet_is_counted_for_its_peer_in_sets_and_in_slots() -> Result<()> {
    let symmetric = address("2001:0:102:304:0:efff:f6ff:fffd");
    let (mut fixture, ()) = with_daemon(|fixture| {
        // Its mapping is not in its address.
        fixture.trust(symmetric, endpoint("9.0.0.9:77"))
    })?;
    assert_eq!(fixture.program.peers_in_slots(), 1);
    assert_eq!(collect(&mut fixture)?, BTreeMap::new());
    let elsewhere = {
        let packet = udp(address("2000::b"), symmetric, b"hello, hello");
        ethernet(LAN, HOST, ETHERTYPE_IPV6, &packet)
    };
    for _ in 0..3 {
        assert_eq!(
            verdict(&mut fixture, Port::Lan, &to_client())?,
            EncapForwarded
        );
        assert_eq!(
            verdict(&mut fixture, Port::Lan, &elsewhere)?,
            EncapForwarded
        );
    }
    for _ in 0..2 {
        assert_eq!(
            verdict(&mut fixture, Port::Wan, &from_client())?,
            DecapForwarded
        );
    }
    // A packet that is not forwarded, as it comes from another port.
    let stray = {
        let packet = udp(address(CLIENT), address("2000::b"), b"hello");
        let datagram = datagram(endpoint("9.0.0.1:4097"), relay(), 7, &packet);
        ethernet(WAN, ROUTER, ETHERTYPE_IPV4, &datagram)
    };
    assert_ne!(verdict(&mut fixture, Port::Wan, &stray)?, DecapForwarded);
    let count = |packets, octets| Count {
        packets,
        octets: packets * octets,
    };
    let client = Traffic {
        encap: count(3, 40 + 8 + 5),
        decap: count(2, 40 + 8 + 5),
    };
    let other = Traffic {
        encap: count(3, 40 + 8 + 12),
        decap: Count::default(),
    };
    let expected = [(address(CLIENT), client), (symmetric, other)];
    assert_eq!(collect(&mut fixture)?, expected.into());
    assert_eq!(collect(&mut fixture)?, BTreeMap::new());
    // What a peer leaves behind does not get lost.
    assert_eq!(
        verdict(&mut fixture, Port::Lan, &to_client())?,
        EncapForwarded
    );
    fixture.program.remove(&address(CLIENT).octets(), now())?;
    let rest = Traffic {
        encap: count(1, 40 + 8 + 5),
        decap: Count::default(),
    };
    assert_eq!(collect(&mut fixture)?, [(address(CLIENT), rest)].into());
    Ok(())
}
