//! Many Teredo clients that exist only as UDP sockets: for tests with more peers than one would
//! start daemons for.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use teredo_common::address::{ServicePrefix, TeredoAddress};

use super::{namespace::Namespace, scene::Host, wait::wait_for};

/// Clients on the open IPv4 internet: one address, a port each.
#[derive(Debug)]
pub struct Peers {
    server: Ipv4Addr,
    address: Ipv4Addr,
    first_port: u16,
    sockets: Vec<UdpSocket>,
}

impl Peers {
    /// Opens `count` clients of `server` on `address`, from `first_port` on.
    ///
    /// # Errors
    ///
    /// When a port is in use.
    pub fn open(
        namespace: &Namespace,
        server: Ipv4Addr,
        address: Ipv4Addr,
        first_port: u16,
        count: u16,
    ) -> Result<Self> {
        // A socket each, and what the program has open already.
        let files = u64::from(count) + 1024;
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, files.max(most), files.max(most))?;
        let sockets = namespace.run(|| {
            (first_port..)
                .take(usize::from(count))
                .map(|port| {
                    let socket = UdpSocket::bind((address, port))
                        .with_context(|| format!("bind {address}:{port}"))?;
                    socket.set_nonblocking(true)?;
                    Ok(socket)
                })
                .collect::<Result<Vec<_>>>()
        })??;
        Ok(Self {
            server,
            address,
            first_port,
            sockets,
        })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// The Teredo address of client `index`.
    #[must_use]
    pub fn address(&self, index: usize) -> Ipv6Addr {
        let port = usize::from(self.first_port) + index;
        teredo_address(self.server, SocketAddrV4::new(self.address, port as u16))
    }

    /// Client `index` sends these octets to the relay, or to whomever.
    ///
    /// # Errors
    ///
    /// When the socket refuses.
    pub fn send(&self, index: usize, to: SocketAddrV4, bytes: &[u8]) -> Result<()> {
        let sent = self.sockets[index].send_to(bytes, to)?;
        ensure!(sent == bytes.len(), "only {sent} octets were sent");
        Ok(())
    }

    /// What has arrived for client `index`, without waiting.
    ///
    /// # Errors
    ///
    /// When the socket refuses.
    pub fn take(&self, index: usize) -> Result<Option<(SocketAddrV4, Vec<u8>)>> {
        let mut buffer = [0; 2048];
        match self.sockets[index].recv_from(&mut buffer) {
            Ok((length, std::net::SocketAddr::V4(from))) => {
                Ok(Some((from, buffer[..length].to_vec())))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for the next datagram for client `index` that `wanted` chooses; others are skipped.
    ///
    /// # Errors
    ///
    /// When there is none within `timeout`.
    pub fn wait_for(
        &self,
        index: usize,
        what: &str,
        timeout: Duration,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>> {
        wait_for(&format!("client {index}: {what}"), timeout, || {
            while let Some((_, bytes)) = self.take(index)? {
                if wanted(&bytes) {
                    return Ok(Some(bytes));
                }
            }
            Ok(None)
        })
    }
}

/// Datagrams between a native host and every one of many peers, each in its turn.
#[derive(Debug)]
pub struct Conversation<'a> {
    peers: &'a Peers,
    socket: UdpSocket,
    host: (Ipv6Addr, u16),
}

/// The port of all peers inside the tunnel.
const PORT: u16 = 7;
/// How long one datagram may take.
const ARRIVAL: Duration = Duration::from_secs(10);

impl<'a> Conversation<'a> {
    /// A conversation in which nothing was said yet.
    ///
    /// # Errors
    ///
    /// When the host's socket cannot be opened.
    pub fn new(host: &Host, peers: &'a Peers) -> Result<Self> {
        let socket = host
            .namespace
            .run(|| UdpSocket::bind((host.address, 0)))??;
        socket.set_read_timeout(Some(ARRIVAL))?;
        let host = (host.address, socket.local_addr()?.port());
        Ok(Self {
            peers,
            socket,
            host,
        })
    }

    /// The host sends a first datagram to every peer; it waits in the relay for the bubbles and
    /// has to arrive.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn open(&self, relay: SocketAddrV4) -> Result<()> {
        for index in 0..self.peers.len() {
            let content = format!("first {index}");
            self.send(index, &content)?;
            // From the relay or, with an origin indication in front, by way of the server.
            self.peers.wait_for(index, "a bubble", ARRIVAL, |packet| {
                is_bubble(packet) || packet.get(8..).is_some_and(is_bubble)
            })?;
            let answer = bubble(self.peers.address(index), self.host.0);
            self.peers.send(index, relay, &answer)?;
            self.expect(index, &content)?;
        }
        Ok(())
    }

    /// The host and every peer send each other a datagram that has to arrive.
    ///
    /// # Errors
    ///
    /// When one does not.
    pub fn exchange(&self, relay: SocketAddrV4) -> Result<()> {
        let mut buffer = [0; 2048];
        for index in 0..self.peers.len() {
            let content = format!("to {index}");
            self.send(index, &content)?;
            self.expect(index, &content)?;

            let content = format!("from {index}");
            let source = (self.peers.address(index), PORT);
            let packet = udp_packet(source, self.host, 64, content.as_bytes())?;
            self.peers.send(index, relay, &packet)?;
            let (length, from) = self
                .socket
                .recv_from(&mut buffer)
                .with_context(|| format!("a datagram from peer {index}"))?;
            ensure!(
                &buffer[..length] == content.as_bytes() && from.ip() == source.0,
                "peer {index}: something else came from {from}"
            );
        }
        Ok(())
    }

    fn send(&self, index: usize, content: &str) -> Result<()> {
        let to = (self.peers.address(index), PORT);
        self.socket.send_to(content.as_bytes(), to)?;
        Ok(())
    }

    fn expect(&self, index: usize, content: &str) -> Result<()> {
        let what = format!("the datagram {content:?}");
        let packet = self.peers.wait_for(index, &what, ARRIVAL, |packet| {
            !is_bubble(packet) && packet.ends_with(content.as_bytes())
        })?;
        let address: [u8; 16] = packet[8..24].try_into()?;
        ensure!(
            Ipv6Addr::from(address) == self.host.0,
            "peer {index}: another source"
        );
        Ok(())
    }
}

/// The Teredo address of a client that `server` sees as `mapped`; no flags.
#[must_use]
pub fn teredo_address(server: Ipv4Addr, mapped: SocketAddrV4) -> Ipv6Addr {
    let address = TeredoAddress {
        prefix: ServicePrefix::STANDARD,
        server,
        flags: 0,
        mapped: mapped.into(),
    };
    address.encode()
}

/// A bubble (RFC 4380 section 2.8).
#[must_use]
pub fn bubble(source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let mut packet = vec![0; 40];
    packet[0] = 0x60;
    packet[6] = 59;
    packet[7] = 64;
    packet[8..24].copy_from_slice(&source.octets());
    packet[24..].copy_from_slice(&destination.octets());
    packet
}

/// Whether these octets are a bubble.
#[must_use]
pub fn is_bubble(packet: &[u8]) -> bool {
    packet.len() >= 40 && packet[0] >> 4 == 6 && packet[4..6] == [0, 0] && packet[6] == 59
}

/// An IPv6 packet with a UDP datagram, checksum included.
///
/// # Errors
///
/// When the payload is too long.
pub fn udp_packet(
    source: (Ipv6Addr, u16),
    destination: (Ipv6Addr, u16),
    hop_limit: u8,
    payload: &[u8],
) -> Result<Vec<u8>> {
    let builder =
        etherparse::PacketBuilder::ipv6(source.0.octets(), destination.0.octets(), hop_limit)
            .udp(source.1, destination.1);
    let mut packet = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut packet, payload)?;
    Ok(packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bubble_is_one() {
        let one = Ipv6Addr::LOCALHOST;
        assert!(is_bubble(&bubble(one, one)));
        assert!(!is_bubble(
            &udp_packet((one, 1), (one, 2), 64, b"x").unwrap()
        ));
    }
}
