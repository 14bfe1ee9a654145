//! The native host.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd as _,
};

use anyhow::Result;
use teredo_lab::{peers::teredo_address, scene::SERVER};

use super::{
    HOST_PORT, PEER_PORT, Rates, Shared, drain,
    pace::Pace,
    peers::{self, NEW_PACKETS},
    prepare, send,
    tally::{Class, Mark},
    wait,
};

/// Packets to one silent peer.
const SILENT_PACKETS: usize = 4;
/// Octets of a packet that is too big for the tunnel.
const BIG: usize = 1350;
/// An endpoint to which nobody may send.
const FORBIDDEN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 1, 2, 3), 1234);

/// Sends and receives until the load is over.
pub fn run(
    shared: &Shared,
    address: Ipv6Addr,
    client: Option<Ipv6Addr>,
    rates: Rates,
) -> Result<()> {
    let socket = UdpSocket::bind((address, HOST_PORT))?;
    prepare(&socket)?;
    socket.set_nonblocking(true)?;
    let last_hop = UdpSocket::bind((address, 0))?;
    set(&last_hop, libc::IPV6_UNICAST_HOPS, 1)?;
    let big = UdpSocket::bind((address, 0))?;
    // Neither fragmented nor held back, whatever routers say.
    set(&big, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;

    let mut buffer = vec![0; 4096];
    let mut steady = Turns::new(rates.steady_peers);
    let mut new = Turns::new(peers::NEW_PEERS);
    let mut silent = Turns::new(peers::SILENT_PEERS);
    let mut paces = [
        rates.steady,
        rates.new_peers,
        rates.silent_peers,
        rates.client,
        rates.refused,
    ]
    .map(Pace::new);
    let plain = |mark: &[u8]| Ok(mark.to_vec());
    while !shared.is_over() {
        wait([&socket])?;
        drain(&socket, &mut buffer, |octets, _| {
            if let Some(mark) = Mark::decode(octets) {
                shared.tally.receive(mark);
            }
            Ok(())
        })?;
        let due = paces.each_mut().map(Pace::due);
        if !shared.sends() {
            continue;
        }
        for _ in 0..due[0] {
            let to = (peers::steady(steady.next()), PEER_PORT);
            send(shared, &socket, Class::Down, to, plain)?;
        }
        for _ in 0..due[1] {
            let to = (peers::new(new.next()), PEER_PORT);
            for _ in 0..NEW_PACKETS {
                send(shared, &socket, Class::NewDown, to, plain)?;
            }
        }
        for _ in 0..due[2] {
            let to = (peers::silent(silent.next()), PEER_PORT);
            for _ in 0..SILENT_PACKETS {
                send(shared, &socket, Class::Silent, to, plain)?;
            }
        }
        if let Some(client) = client {
            for _ in 0..due[3] {
                let to = (client, PEER_PORT);
                send(shared, &socket, Class::ClientDown, to, plain)?;
            }
        }
        for _ in 0..due[4] {
            let forbidden = (teredo_address(SERVER, FORBIDDEN), PEER_PORT);
            send(shared, &socket, Class::Misdirected, forbidden, plain)?;
            let to = (peers::steady(steady.next()), PEER_PORT);
            send(shared, &last_hop, Class::HopsDown, to, plain)?;
            send(shared, &big, Class::TooBig, to, |mark| {
                let mut octets = mark.to_vec();
                octets.resize(BIG, 0);
                Ok(octets)
            })?;
        }
    }
    Ok(())
}

/// Sets an option of IPv6.
fn set(socket: &UdpSocket, option: i32, value: i32) -> Result<()> {
    // SAFETY: the option is an integer, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IPV6,
            option,
            std::ptr::from_ref(&value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    Ok(nix::Error::result(result).map(drop)?)
}

/// The numbers from zero, again and again.
#[derive(Debug)]
pub struct Turns {
    next: u16,
    count: u16,
}

impl Turns {
    pub fn new(count: u16) -> Self {
        Self { next: 0, count }
    }

    pub fn next(&mut self) -> u16 {
        let next = self.next;
        self.next = (next + 1) % self.count.max(1);
        next
    }
}
