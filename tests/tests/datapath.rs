//! The daemon's datapath against the real kernel.

use std::{
    collections::HashSet,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    os::fd::AsFd as _,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    poll::{PollFd, PollFlags, poll},
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::socket::{setsockopt, sockopt},
    unistd::Pid,
};
use teredo::{
    datapath::{
        native::{self, Native},
        route::{Routes, Table, TunnelRoute},
        tun::{PacketBatch, Tun, TunError},
        watch::{StaleNeighbour, Watch},
    },
    host::{Scope, Setting, Snapshot},
};
use teredo_common::address::ServicePrefix;
use teredo_lab::{Capture, Namespace, cpu::threads_named, links, peers::udp_packet, wait_until};

const MTU: u16 = 1280;
const TIMEOUT: Duration = Duration::from_secs(5);
/// Time without changes after which the kernel has reported all of them.
const QUIET: Duration = Duration::from_millis(500);
/// A network on the link, of which no host answers.
const SCANNED: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0);
/// A native host behind the relay, and the relay's address towards it.
const HOST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
const RELAY: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// The address of one of many peers.
fn peer(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0, 0x1400, 1, 0, !40000, 0xebfe, !number)
}

/// Runs `work` in the namespace with a runtime like the daemon's.
fn run<T: Send>(namespace: &Namespace, work: impl AsyncFnOnce() -> Result<T> + Send) -> Result<T> {
    namespace.run(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(async { tokio::time::timeout(TIMEOUT * 4, work()).await? })
    })?
}

/// Makes a relay's host and a native host on one cable, interface `v6` on both; forwarding is on
/// except for the TUN interface.
fn hosts() -> Result<(Namespace, Namespace)> {
    let (relay, host) = (Namespace::new("relay")?, Namespace::new("host")?);
    links::cable((&relay, "v6"), (&host, "v6"))?;
    relay.sysctl("net.ipv6.conf.all.forwarding", 1)?;
    relay.ip(&format!("addr add {RELAY}/64 dev v6 nodad"))?;
    host.ip(&format!("addr add {HOST}/64 dev v6 nodad"))?;
    host.ip(&format!("route add 2001::/32 via {RELAY}"))?;
    Ok((relay, host))
}

/// Returns the route of the Teredo prefix.
fn prefix_route() -> Result<TunnelRoute> {
    Ok(TunnelRoute {
        table: Table::Main,
        prefix: "2001::/32".parse()?,
        metric: 1024,
    })
}

/// Makes the TUN interface as the node does.
async fn open() -> Result<(Tun, Routes)> {
    let (tun, routes) = (Tun::open("teredo")?, Routes::open()?);
    routes.bring_up(tun.index(), Some(MTU)).await?;
    Setting::ipv6_forwarding(tun.name()).write("1")?;
    // An earlier owner may have left it.
    let _ = routes.add_route(prefix_route()?, tun.index()).await;
    Ok((tun, routes))
}

/// Reads packets from the interface until `wanted` returns a value.
fn read_until<T>(tun: &Tun, mut wanted: impl FnMut(&[u8]) -> Option<T>) -> Result<T> {
    let mut batch = PacketBatch::new(MTU);
    loop {
        let mut readable = [PollFd::new(tun.as_fd(), PollFlags::POLLIN)];
        if poll(&mut readable, TIMEOUT.as_millis() as u16)? == 0 {
            bail!("nothing came out of the TUN interface");
        }
        read(tun, &mut batch)?;
        if let Some(found) = batch.packets().find_map(|packet| wanted(packet)) {
            return Ok(found);
        }
    }
}

/// Reads the packets that are there, perhaps none.
fn read(tun: &Tun, batch: &mut PacketBatch) -> Result<usize> {
    match tun.read(batch) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        result => Ok(result?),
    }
}

/// Type, code and parameter of an ICMPv6 message.
fn icmp(packet: &[u8]) -> Option<(u8, u8, u32)> {
    let parameter = packet.get(44..48)?.try_into().ok()?;
    (packet[6] == 58).then(|| (packet[40], packet[41], u32::from_be_bytes(parameter)))
}

#[test]
fn packets_pass_between_the_tun_interface_and_the_native_host() -> Result<()> {
    let (relay, host) = hosts()?;
    let capture = Capture::start(&host, "v6")?;
    run(&relay, async || {
        let (tun, routes) = open().await?;
        // Out of the tunnel: decapsulated packets are forwarded, in more than one batch.
        let packets: Vec<_> = (0..200)
            .map(|number| udp_packet((peer(number), 1), (HOST, 7), 9, b"out"))
            .collect::<Result<_>>()?;
        let packets: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
        ensure!(tun.write(&packets) == packets.len());
        for number in 0..200 {
            let frame = capture.wait_for("a forwarded packet", TIMEOUT, |frame| {
                frame.bytes.get(22..38) == Some(&peer(number).octets())
            })?;
            ensure!(frame.bytes[21] == 8, "the hop limit has gone down by one");
        }
        // A packet that is not IPv6 does not stop the others.
        ensure!(tun.write(&[&[0; 60], packets[0]]) >= 1);

        // Into the tunnel: the largest packet that fits.
        let largest = vec![0; usize::from(MTU) - 48];
        send(&host, 64, &largest)?;
        read_until(&tun, |packet| {
            (packet[24..40] == peer(1).octets() && packet.len() == usize::from(MTU)).then_some(())
        })?;
        routes.remove_link(tun.index()).await?;
        routes.remove_link(tun.index()).await?;
        Ok(())
    })?;
    ensure!(relay.ip("link show dev teredo").is_err());
    Ok(())
}

#[test]
fn the_kernel_reports_size_and_hop_limit_errors() -> Result<()> {
    let (relay, host) = hosts()?;
    let capture = Capture::start(&host, "v6")?;
    run(&relay, async || {
        let (tun, _routes) = open().await?;
        // A packet into the tunnel that is one octet too large.
        send(&host, 64, &vec![0; usize::from(MTU) - 47])?;
        let frame = capture.wait_for("Packet Too Big", TIMEOUT, |frame| {
            frame
                .bytes
                .get(14..)
                .and_then(icmp)
                .is_some_and(|found| found.0 == 2)
        })?;
        ensure!(icmp(&frame.bytes[14..]) == Some((2, 0, u32::from(MTU))));

        // A hop limit that expires, in both directions.
        send(&host, 1, b"in")?;
        capture.wait_for("Time Exceeded", TIMEOUT, |frame| {
            frame.bytes.get(14..).and_then(icmp) == Some((3, 0, 0))
        })?;
        tun.write(&[&udp_packet((peer(1), 1), (HOST, 7), 1, b"out")?]);
        let source = read_until(&tun, |packet| {
            (icmp(packet) == Some((3, 0, 0))).then(|| packet[8..24].to_vec())
        })?;
        ensure!(
            source == RELAY.octets(),
            "an address that can be answered: {source:?}"
        );
        Ok(())
    })
}

/// Sends a datagram from the host to a peer.
fn send(host: &Namespace, hop_limit: i32, payload: &[u8]) -> Result<()> {
    host.run(|| {
        let socket = UdpSocket::bind((HOST, 7))?;
        setsockopt(&socket, sockopt::Ipv6Ttl, &hop_limit)?;
        socket.send_to(payload, (peer(1), 1))?;
        Ok(())
    })?
}

#[test]
fn twenty_thousand_peers_make_one_neighbour_entry() -> Result<()> {
    const PEERS: u16 = 20_000;
    let (relay, host) = hosts()?;
    run(&relay, async || {
        let (tun, _routes) = open().await?;
        let mut waiting: HashSet<_> = (0..PEERS).map(peer).collect();
        let mut batch = PacketBatch::new(MTU);
        host.run(|| -> Result<()> {
            let socket = UdpSocket::bind((HOST, 7))?;
            for number in 0..PEERS {
                socket.send_to(b"in", (peer(number), 1))?;
                // Fewer than the interface's queue holds.
                if number % 32 == 31 || number + 1 == PEERS {
                    while waiting.len() > usize::from(PEERS - 1 - number) {
                        let mut readable = [PollFd::new(tun.as_fd(), PollFlags::POLLIN)];
                        ensure!(poll(&mut readable, 5000u16)? == 1, "{} lost", waiting.len());
                        read(&tun, &mut batch)?;
                        for packet in batch.packets() {
                            let to: [u8; 16] = packet[24..40].try_into()?;
                            waiting.remove(&Ipv6Addr::from(to));
                        }
                    }
                }
            }
            Ok(())
        })??;
        // The command leaves out the entries of interfaces without resolution.
        let entries = relay.ip("-6 neigh show dev teredo nud all")?;
        ensure!(entries.lines().count() <= 4, "{entries}");
        Ok(())
    })
}

#[test]
fn an_interface_is_taken_over_after_a_crash_but_not_from_a_running_daemon() -> Result<()> {
    let namespace = Namespace::new("tun")?;
    namespace.ip("link add other type veth peer name another")?;
    run(&namespace, async || {
        let (first, routes) = open().await?;
        let index = first.index();
        ensure!(
            first.is_threaded(),
            "this kernel has threads for interfaces"
        );
        let error = Tun::open("teredo").unwrap_err();
        ensure!(matches!(error, TunError::Busy(_)), "{error}");
        // As when the process dies, without any clean-up.
        drop(first);
        let (second, _) = open().await?;
        ensure!(second.is_taken_over() && second.index() == index);
        ensure!(namespace.ip("-6 route show 2001::/32")?.lines().count() == 1);
        routes.remove_route(prefix_route()?, index).await?;
        routes.remove_route(prefix_route()?, index).await?;
        ensure!(namespace.ip("-6 route show 2001::/32")?.is_empty());

        for name in [
            "",
            "teredo/0",
            "te redo",
            "abcdefghijklmnop",
            "teredo%d",
            "..",
        ] {
            let error = Tun::open(name).unwrap_err();
            ensure!(matches!(error, TunError::Name(_)), "{name}: {error}");
        }
        let error = Tun::open("other").unwrap_err();
        ensure!(matches!(error, TunError::Foreign(_)), "{error}");
        Ok(())
    })
}

#[test]
fn the_kernel_thread_of_the_interface_stays_on_our_cpus_and_never_preempts() -> Result<()> {
    let namespace = Namespace::new("cpus")?;
    namespace.run(|| {
        let here = Pid::from_raw(0);
        let all = sched_getaffinity(here)?;
        let mut last = CpuSet::new();
        let number = (0..CpuSet::count()).rfind(|&cpu| all.is_set(cpu) == Ok(true));
        last.set(number.context("a CPU")?)?;
        sched_setaffinity(here, &last)?;
        // A name that no other test has.
        for _ in 0..2 {
            let _tun = Tun::open("teredo-cpus")?;
            let threads = threads_named(|name| name.starts_with("napi/teredo-cpu"))?;
            ensure!(threads.len() == 1, "{threads:?}");
            ensure!(sched_getaffinity(threads[0])? == last);
            // SAFETY: the call has no precondition.
            let policy = unsafe { libc::sched_getscheduler(threads[0].as_raw()) };
            ensure!(policy == libc::SCHED_BATCH);
        }
        Ok(())
    })?
}

#[test]
fn default_routes_give_interfaces_and_address() -> Result<()> {
    let (host, router) = (Namespace::new("host")?, Namespace::new("router")?);
    for interface in ["v4", "v6", "other"] {
        links::cable((&host, interface), (&router, interface))?;
    }
    host.ip("addr add 20.0.0.5/24 dev v4")?;
    host.ip("addr add 20.0.0.6/24 dev v4")?;
    host.ip("addr add 20.0.1.5/24 dev other")?;
    host.ip(&format!("addr add {HOST}/64 dev v6 nodad"))?;
    run(&host, async || {
        let routes = Routes::open()?;
        let scope = Scope {
            prefix: ServicePrefix::STANDARD,
            prefixes: Vec::new(),
            settings: Vec::new(),
        };
        let address = async || -> Result<_> {
            let snapshot = Snapshot::read(&routes, &scope).await?;
            Ok(snapshot.default_ipv4_address())
        };
        let nothing = Snapshot::read(&routes, &scope).await?;
        ensure!(nothing.default_ipv4_address().is_none() && nothing.default_links().is_empty());
        host.ip("route add default via 20.0.1.1 metric 100")?;
        ensure!(address().await? == Some(Ipv4Addr::new(20, 0, 1, 5)));
        host.ip("route add default via 20.0.0.1 metric 10")?;
        ensure!(address().await? == Some(Ipv4Addr::new(20, 0, 0, 5)));
        host.ip("route replace default via 20.0.0.1 metric 10 src 20.0.0.6")?;
        ensure!(address().await? == Some(Ipv4Addr::new(20, 0, 0, 6)));
        host.ip(&format!("-6 route add default via {RELAY}"))?;
        let snapshot = Snapshot::read(&routes, &scope).await?;
        let addresses = snapshot.own_addresses();
        for address in [[20, 0, 0, 5], [20, 0, 0, 6], [20, 0, 1, 5], [20, 0, 1, 255]] {
            ensure!(addresses.ipv4.contains(&address.into()), "{addresses:?}");
        }
        ensure!(addresses.ipv6.contains(&HOST), "{addresses:?}");
        let links = snapshot.default_links().into_iter();
        let found: HashSet<_> = links.map(|link| &*link.name).collect();
        ensure!(found == HashSet::from(["v4", "other", "v6"]), "{found:?}");
        Ok(())
    })
}

#[test]
fn settings_are_read_and_written_in_the_callers_namespace() -> Result<()> {
    let namespace = Namespace::new("forwarding")?;
    namespace.ip("link add eth1 type veth peer name eth3")?;
    namespace.run(|| -> Result<()> {
        for of in [Setting::ipv4_forwarding, Setting::ipv6_forwarding] {
            ensure!(of("eth1").read()?.as_deref() == Some("0"));
            of("eth1").write("1")?;
            ensure!(of("eth1").read()?.as_deref() == Some("1"));
            ensure!(of("all").read()?.as_deref() == Some("0"));
            ensure!(of("eth2").read()?.is_none() && of("eth2").write("1").is_err());
        }
        Ok(())
    })?
}

#[test]
fn changes_of_the_network_are_noticed_and_stale_neighbours_probed() -> Result<()> {
    let (relay, host) = hosts()?;
    let index = relay.run(|| nix::net::if_::if_nametoindex("v6"))??;
    run(&relay, async || {
        relay.ip("neigh add 20.0.0.3 lladdr 02:00:00:00:00:01 dev v6")?;
        let (mut watch, routes) = (Watch::open()?, Routes::open()?);
        for change in [
            "link set lo mtu 65000",
            "addr add 20.0.0.1/24 dev v6",
            "route add 20.1.0.0/16 via 20.0.0.2",
            "-6 addr add 2001:db8:1::1/64 dev v6 nodad",
            "-6 route add 2001:db8:2::/64 via 2001:db8:1::2",
            "-6 rule add from 2001:db8:3::/64 table 7",
            "neigh replace 20.0.0.3 lladdr 02:00:00:00:00:02 dev v6",
        ] {
            relay.ip(change)?;
            // Further events of the previous change may come late.
            let is_it = async |watch: &mut Watch| -> Result<()> {
                while !watch.changed().await?.addresses && change.contains("addr add") {}
                Ok(())
            };
            tokio::time::timeout(TIMEOUT, is_it(&mut watch))
                .await
                .context(change)??;
        }

        // A scan finds nobody, and changes nothing.
        while tokio::time::timeout(QUIET, watch.changed()).await.is_ok() {}
        relay.sysctl("net.ipv6.neigh.v6.mcast_solicit", 1)?;
        relay.sysctl("net.ipv6.neigh.v6.retrans_time_ms", 10)?;
        let scan = UdpSocket::bind("[::]:0")?;
        for number in 0x100..0x120 {
            let nobody = Ipv6Addr::from_bits(SCANNED.to_bits() + number);
            scan.send_to(b"?", (nobody, 9))?;
        }
        wait_until("the scan has failed", TIMEOUT, || {
            let failed = relay.ip("neigh show dev v6 nud failed")?;
            Ok(failed.lines().count() >= 0x20)
        })?;

        // Once the host has been resolved, its entry is set stale by hand.
        let mac = host.ip("-br link show v6")?;
        let mac = mac
            .split_whitespace()
            .nth(2)
            .context("a hardware address")?;
        relay.ip(&format!(
            "neigh replace {HOST} lladdr {mac} dev v6 nud stale"
        ))?;
        let expected = StaleNeighbour {
            interface: index,
            address: IpAddr::V6(HOST),
        };
        // The change alone is no report: it concerns no next hop.
        tokio::time::timeout(TIMEOUT, async {
            while !watch.stale().any(|(neighbour, _)| neighbour == expected) {
                let _ = tokio::time::timeout(QUIET / 10, watch.changed()).await;
            }
        })
        .await?;
        routes.probe(index, IpAddr::V6(HOST)).await?;
        // The kernel waits for five seconds before it asks.
        wait_until("the host is reachable", TIMEOUT * 2, || {
            let entry = relay.ip(&format!("neigh show {HOST} dev v6"))?;
            ensure!(!entry.contains("FAILED"), "{entry}");
            Ok(entry.contains("REACHABLE"))
        })
    })
}

#[test]
fn connectivity_tests_leave_with_the_source_of_a_client() -> Result<()> {
    let (server, host) = hosts()?;
    let capture = Capture::start(&host, "v6")?;
    let test = |to| udp_packet((peer(1), 1), (to, 2), 21, b"as it is");
    let packet = test(HOST)?;
    let (has_route, sent) = server.run(|| -> Result<_> {
        let native = Native::open()?;
        let has_route = native::has_route(ServicePrefix::STANDARD)?;
        Ok((has_route, native.send(&packet)))
    })??;
    // No route and no interface of ours leads to the client.
    ensure!(!has_route && sent);
    capture.wait_for("the test as it was sent", TIMEOUT, |frame| {
        frame.bytes.get(14..) == Some(&packet[..])
    })?;

    // Packets without header and packets without a route are both refused.
    let nowhere = test(Ipv6Addr::new(0x2620, 0, 0, 0, 0, 0, 0, 1))?;
    for bad in [&packet[..39], &nowhere] {
        ensure!(!server.run(|| Native::open().map(|native| native.send(bad)))??);
    }
    server.ip(&format!("-6 route add 2001::/32 via {HOST}"))?;
    ensure!(server.run(|| native::has_route(ServicePrefix::STANDARD))??);
    ensure!(!server.run(|| native::has_route(ServicePrefix::DRAFT))??);
    server.ip(&format!("-6 route add default via {HOST}"))?;
    ensure!(server.run(|| native::has_route(ServicePrefix::DRAFT))??);
    Ok(())
}
