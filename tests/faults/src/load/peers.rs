//! Teredo clients that exist only as sockets.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, UdpSocket},
    sync::atomic::Ordering,
};

use anyhow::{Context as _, Result};
use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    resource::{Resource, getrlimit, setrlimit},
};
use teredo_common::wire::ICMPV6;
use teredo_lab::{
    packet::ipv6,
    peers::{answer_to, is_bubble, teredo_address, udp_packet},
    qualification::origin,
    scene::{RELAY, SERVER},
};

use super::{
    HOST_PORT, PEER_PORT, Rates, Shared, TICK, drain,
    native::Turns,
    pace::Pace,
    prepare, send,
    tally::{Class, MARK, Mark},
};

/// The address of all of them.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(20, 0, 40, 1);
/// Peers that are new again after they were forgotten.
pub const NEW_PEERS: u16 = 600;
/// Peers that do not exist.
pub const SILENT_PEERS: u16 = 20_000;
/// Packets to one new peer.
pub const NEW_PACKETS: usize = 3;
const STEADY_PORT: u16 = 10_000;
const NEW_PORT: u16 = 12_000;
const STRANGER_PORT: u16 = 14_000;
const SILENT_PORT: u16 = 20_000;
/// Octets of the IPv6 and UDP headers before the mark.
const HEADERS: usize = 48;
/// A native address without a route at the relay.
const UNROUTED: Ipv6Addr = Ipv6Addr::new(0x2a00, 0x99, 0, 0, 0, 0, 0, 1);

/// The Teredo address of a peer that sends all the time.
pub fn steady(number: u16) -> Ipv6Addr {
    address(STEADY_PORT + number)
}

/// The Teredo address of a peer that is new, or was forgotten.
pub fn new(number: u16) -> Ipv6Addr {
    address(NEW_PORT + number)
}

/// The Teredo address of a peer that does not exist.
pub fn silent(number: u16) -> Ipv6Addr {
    address(SILENT_PORT + number)
}

fn address(port: u16) -> Ipv6Addr {
    teredo_address(SERVER, SocketAddrV4::new(ADDRESS, port))
}

/// A peer.
struct Peer {
    socket: UdpSocket,
    address: Ipv6Addr,
    /// Whether the native host has sent to it.
    is_met: bool,
    /// Whether it answers each packet with one.
    answers: bool,
}

impl Peer {
    fn open(port: u16, answers: bool) -> Result<Self> {
        let socket =
            UdpSocket::bind((ADDRESS, port)).with_context(|| format!("bind port {port}"))?;
        prepare(&socket)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            address: address(port),
            is_met: false,
            answers,
        })
    }
}

/// Sends and receives until the load is over.
pub fn run(shared: &Shared, host: Ipv6Addr, rates: Rates) -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let steady = (0..rates.steady_peers).map(|number| (STEADY_PORT + number, false));
    let new = (0..NEW_PEERS).map(|number| (NEW_PORT + number, true));
    let mut peers = steady
        .chain(new)
        .map(|(port, answers)| Peer::open(port, answers))
        .collect::<Result<Vec<_>>>()?;
    let stranger = Peer::open(STRANGER_PORT, false)?;
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    for (index, peer) in peers.iter().enumerate() {
        epoll.add(
            &peer.socket,
            EpollEvent::new(EpollFlags::EPOLLIN, index as u64),
        )?;
    }
    let mut events = [EpollEvent::empty(); 64];
    let mut buffer = vec![0; 4096];
    let mut turns = Turns::new(rates.steady_peers);
    let mut paces = [rates.steady, rates.refused].map(Pace::new);
    while !shared.is_over() {
        let ready = match epoll.wait(&mut events, EpollTimeout::try_from(TICK)?) {
            Ok(ready) => ready,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in &events[..ready] {
            receive(shared, &mut peers[event.data() as usize], host, &mut buffer)?;
        }
        let due = paces.each_mut().map(Pace::due);
        if !shared.sends() {
            continue;
        }
        for _ in 0..due[0] {
            let peer = &peers[usize::from(turns.next())];
            if peer.is_met {
                data(shared, peer, Class::Up, (host, HOST_PORT), 64)?;
            }
        }
        for _ in 0..due[1] {
            let index = usize::from(turns.next());
            let peer = &peers[index];
            if !peer.is_met {
                continue;
            }
            data(shared, peer, Class::HopsUp, (host, HOST_PORT), 1)?;
            data(shared, peer, Class::Unrouted, (UNROUTED, HOST_PORT), 64)?;
            garbage(shared, peer, &stranger, host)?;
        }
    }
    Ok(())
}

/// Handles everything that waits for a peer: bubbles are answered.
fn receive(shared: &Shared, peer: &mut Peer, host: Ipv6Addr, buffer: &mut [u8]) -> Result<()> {
    let (mut met, mut answers) = (0, Vec::new());
    drain(&peer.socket, buffer, |octets, from| {
        // Through the server there is an origin indication in front.
        let (packet, is_forwarded) = match octets {
            [0, 0, _, _, _, _, _, _, packet @ ..] => (packet, true),
            packet => (packet, false),
        };
        if is_bubble(packet) {
            shared.bubbles[0].fetch_add(is_forwarded.into(), Ordering::Relaxed);
            answers.push(answer_to(packet));
        } else if is_echo_request(packet) {
            // Of the relay itself: the answer to its bubble is proof enough.
        } else if let Some(mark) = packet.get(HEADERS..).and_then(Mark::decode)
            && from.ip() == IpAddr::V4(*RELAY.ip())
        {
            shared.tally.receive(mark);
            met += 1;
        } else {
            shared.unexpected.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    })?;
    for answer in answers {
        if peer.socket.send_to(&answer, RELAY).is_ok() {
            shared.bubbles[1].fetch_add(1, Ordering::Relaxed);
        }
    }
    peer.is_met |= met > 0;
    if peer.answers && shared.sends() {
        for _ in 0..met {
            data(shared, peer, Class::NewUp, (host, HOST_PORT), 64)?;
        }
    }
    Ok(())
}

/// Whether this is an ICMPv6 echo request.
fn is_echo_request(packet: &[u8]) -> bool {
    packet.get(6) == Some(&ICMPV6) && packet.get(40) == Some(&128)
}

/// Sends a packet of a peer to the relay.
fn data(
    shared: &Shared,
    peer: &Peer,
    class: Class,
    to: (Ipv6Addr, u16),
    hop_limit: u8,
) -> Result<()> {
    send(shared, &peer.socket, class, RELAY, |mark| {
        udp_packet((peer.address, PEER_PORT), to, hop_limit, mark)
    })
}

/// Sends one datagram of each kind that the relay has to refuse.
fn garbage(shared: &Shared, peer: &Peer, stranger: &Peer, host: Ipv6Addr) -> Result<()> {
    let to = (host, HOST_PORT);
    let packet = |source, to| udp_packet((source, PEER_PORT), to, 64, &[0; MARK]);
    let native: Ipv6Addr = "2001:db8:7::7".parse()?;
    let local: Ipv6Addr = "fd00::1".parse()?;
    let valid = packet(peer.address, to)?;
    let refused: [(&Peer, Vec<u8>); 8] = [
        (peer, vec![0xa5; 10]),
        (stranger, packet(stranger.address, to)?),
        (stranger, valid.clone()),
        (peer, packet(native, to)?),
        (peer, packet(peer.address, (local, HOST_PORT))?),
        (peer, packet(peer.address, (new(0), HOST_PORT))?),
        (
            peer,
            [&origin(SocketAddrV4::new(ADDRESS, 1))[..], &valid].concat(),
        ),
        (peer, ipv6(peer.address, peer.address, 17, &[0; 8])),
    ];
    for (from, octets) in refused {
        send(shared, &from.socket, Class::Garbage, RELAY, |_| Ok(octets))?;
    }
    Ok(())
}
