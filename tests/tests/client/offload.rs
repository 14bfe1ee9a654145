//! Packets of one flow cross the tunnel interface together, and the IPv4 internet one by one.

use std::{
    fmt,
    net::{Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use teredo_common::{
    checksum::ipv6_transport,
    wire::{MTU, TCP, UDP},
};
use teredo_lab::{
    Capture, Namespace, NatKind,
    scene::Maker,
    together,
    traffic::{Ping, Tcp},
    uninterrupted,
};

use super::scene;

/// Octets of each datagram but the last.
const SIZE: usize = 1000;
/// Octets of the last datagram.
const TAIL: usize = 333;
/// Datagrams of one call.
const COUNT: usize = 40;
/// Octets in each direction of a connection.
const STREAM: u64 = 4 << 20;
/// Time after which a datagram is lost.
const LATE: Duration = Duration::from_secs(10);

/// Returns the octets of a number of datagrams, all different.
fn content(count: usize) -> Vec<u8> {
    let length = (count - 1) * SIZE + TAIL;
    (0..length)
        .map(|octet| (octet ^ ((octet >> 8) * 7)) as u8)
        .collect()
}

/// Sends datagrams with one call, which the kernel or the client splits; each must arrive.
fn send_datagrams(from: &Namespace, to: (&Namespace, Ipv6Addr), count: usize) -> Result<()> {
    let receiver = to.0.run(|| UdpSocket::bind((to.1, 0)))??;
    receiver.set_read_timeout(Some(LATE))?;
    let address = receiver.local_addr()?;
    let content = content(count);
    from.run(|| send_segments(&content, address))??;
    let mut datagram = [0; SIZE + 1];
    for (number, expected) in content.chunks(SIZE).enumerate() {
        let length = uninterrupted(LATE, || receiver.recv(&mut datagram));
        let length = length.with_context(|| format!("datagram {number} of {count}"))?;
        ensure!(datagram[..length] == *expected, "datagram {number} differs");
    }
    Ok(())
}

fn send_segments(content: &[u8], to: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
    let size = SIZE as libc::c_int;
    // SAFETY: the option reads an integer.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const size).cast(),
            size_of_val(&size) as libc::socklen_t,
        )
    };
    Errno::result(result)?;
    socket.send_to(content, to)?;
    Ok(())
}

/// Exchanges datagrams and a connection between a client's host and a native host.
fn exchange(client: (&Namespace, Ipv6Addr), host: (&Namespace, Ipv6Addr)) -> Result<()> {
    send_datagrams(client.0, host, COUNT).context("from the client's host")?;
    send_datagrams(host.0, client, COUNT).context("to the client's host")?;
    Tcp::to(host.1)
        .upload(STREAM)
        .download(STREAM)
        .between(client.0, host.0)?;
    Ok(())
}

/// Checks a packet in a datagram: its length, and its checksum if it is of TCP or UDP.
fn is_whole(packet: &[u8]) -> Result<()> {
    ensure!(packet.len() <= usize::from(MTU), "{} octets", packet.len());
    let payload = packet.get(40..).context("a packet has a header")?;
    ensure!(usize::from(u16::from_be_bytes([packet[4], packet[5]])) == payload.len());
    let (source, destination) = (packet[8..24].try_into()?, packet[24..40].try_into()?);
    let checksum = match packet[6] {
        protocol @ (TCP | UDP) => ipv6_transport(source, destination, protocol, payload),
        _ => [0, 0],
    };
    ensure!(checksum == [0, 0], "a wrong checksum");
    Ok(())
}

#[test]
fn super_packets_leave_as_packets_that_fit_and_have_right_checksums() -> Result<()> {
    let scene = scene(Maker::Teredo, &[NatKind::PortRestricted])?;
    let _relay = scene.start_relay_of(Maker::Teredo)?;
    let (site, host) = (scene.site(), scene.host());
    let client = scene.start_client_of(Maker::Teredo, site)?;
    Ping::to(host.address).all_from(&site.client)?;

    let outside = Capture::start(&site.client, "eth0")?;
    let inside = Capture::start(&site.client, "teredo")?;
    exchange(
        (&site.client, client.address()),
        (&host.namespace, host.address),
    )?;

    let (outside, inside) = (outside.stop()?, inside.stop()?);
    for protocol in [TCP, UDP] {
        for outgoing in [true, false] {
            let mut packets = inside.0.iter().filter(|frame| frame.outgoing == outgoing);
            ensure!(
                packets.any(|frame| {
                    frame.bytes.get(6) == Some(&protocol)
                        && frame.bytes.len() > 2 * usize::from(MTU)
                }),
                "protocol {protocol}, outgoing {outgoing}: no packets came together"
            );
        }
    }
    let bad = outside.bad_checksums()?;
    ensure!(bad.is_empty(), "{bad:?}");
    let sent = outside.0.iter().filter(|frame| frame.outgoing);
    let mut count = 0;
    for payload in sent.filter_map(|frame| frame.udp_payload()) {
        if payload.first().is_some_and(|octet| octet >> 4 == 6) {
            is_whole(payload).with_context(|| format!("{payload:02x?}"))?;
            count += 1;
        }
    }
    ensure!(count as u64 > STREAM / u64::from(MTU), "{count} packets");
    Ok(())
}

#[test]
fn a_flow_may_begin_with_a_super_packet() -> Result<()> {
    let scene = scene(Maker::Teredo, &[NatKind::PortRestricted])?;
    let _relay = scene.start_relay_of(Maker::Teredo)?;
    let (site, host) = (scene.site(), scene.host());
    let _client = scene.start_client_of(Maker::Teredo, site)?;
    // No more than may wait for a peer.
    send_datagrams(&site.client, (&host.namespace, host.address), 10)
}

/// What keeps packets from staying together.
#[derive(Clone, Copy, Debug)]
enum Obstacle {
    /// The client's host sends datagrams to the NAT one by one.
    NoSegmentation,
    /// The client has an interface without offloads.
    NoOffload,
    /// Segments are longer than the MTU of the way to the NAT, so the kernel refuses them together.
    SmallMtu,
    /// One packet in fifty is lost in the NAT.
    Loss,
    /// Packets leave from many ports.
    Symmetric,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

impl Obstacle {
    fn passes(self) -> Result<()> {
        let nat = match self {
            Self::Symmetric => NatKind::Symmetric,
            _ => NatKind::PortRestricted,
        };
        let scene = scene(Maker::Teredo, &[nat])?;
        let _relay = scene.start_relay_of(Maker::Teredo)?;
        let (site, host) = (scene.site(), scene.host());
        let config = scene.client_config(site.port);
        let config = match self {
            Self::NoSegmentation => config.set("node.udp-segmentation", "off"),
            Self::NoOffload => config.set("client.tun-offload", false),
            _ => config,
        };
        if matches!(self, Self::SmallMtu) {
            for (namespace, interface) in [(&site.client, "eth0"), (site.nat.namespace(), "lan2")] {
                namespace.ip(&format!("link set {interface} mtu 1290"))?;
            }
        }
        let client = scene.start_client(&site.client, &config)?;
        Ping::to(host.address).all_from(&site.client)?;
        let ends = [
            (&site.client, client.address()),
            (&host.namespace, host.address),
        ];
        let [client, host] = ends;
        if matches!(self, Self::Loss) {
            site.nat.lose_one_in(50)?;
            let tcp = Tcp::to(host.1).upload(STREAM / 4).download(STREAM / 4);
            return tcp.between(client.0, host.0).map(drop);
        }
        exchange(client, host)
    }
}

#[test]
fn packets_arrive_where_they_cannot_stay_together() -> Result<()> {
    let all = [
        Obstacle::NoSegmentation,
        Obstacle::NoOffload,
        Obstacle::SmallMtu,
        Obstacle::Loss,
        Obstacle::Symmetric,
    ];
    together(all, Obstacle::passes)
}
