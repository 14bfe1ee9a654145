//! Many Teredo clients that exist only as UDP sockets: for tests with more peers than one would
//! start daemons for.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result};
use teredo_common::address::{ServicePrefix, TeredoAddress};

use super::{namespace::Namespace, wait::wait_for};

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
        anyhow::ensure!(sent == bytes.len(), "only {sent} octets were sent");
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
