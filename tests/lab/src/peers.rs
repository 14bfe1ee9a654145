//! Many Teredo clients that exist only as UDP sockets, for tests with too many peers to start
//! daemons for.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket},
    ops::Range,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use teredo_common::{address::TeredoAddress, wire::NO_NEXT_HEADER};

use super::{
    namespace::Namespace,
    packet::ipv6,
    scene::{Host, Scene, Topology},
    wait::{uninterrupted, wait_until},
};

impl Scene {
    /// Builds a scene for a relay and many peers, in which nobody but a patient server and a native host is at work.
    ///
    /// # Errors
    ///
    /// Fails as [`Scene::new`], or when the server does not come up.
    pub fn for_many_peers() -> Result<Self> {
        let topology = Topology {
            clients: 0,
            server: None,
            ..Topology::default()
        };
        Self::new(topology)?.with_patient_server()
    }
}

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
    /// Fails when a port is in use, or when the process may not open that many files.
    pub fn open(
        namespace: &Namespace,
        server: Ipv4Addr,
        address: Ipv4Addr,
        first_port: u16,
        count: u16,
    ) -> Result<Self> {
        // One socket for each client; other tests of the same process have some too.
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
        let sockets = namespace.run(|| {
            (first_port..)
                .take(usize::from(count))
                .map(|port| {
                    UdpSocket::bind((address, port))
                        .with_context(|| format!("bind {address}:{port}"))
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

    /// Number of clients.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Whether there are no clients.
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

    /// Sends these octets from client `index` to the relay or another destination.
    ///
    /// # Errors
    ///
    /// Fails when the socket refuses.
    pub fn send(&self, index: usize, to: SocketAddrV4, bytes: &[u8]) -> Result<()> {
        let sent = self.sockets[index].send_to(bytes, to)?;
        ensure!(sent == bytes.len(), "only {sent} octets were sent");
        Ok(())
    }

    /// Waits for the next datagram to client `index` that `wanted` selects; others are skipped, and
    /// questions for the proof of the client's mapping are answered.
    ///
    /// # Errors
    ///
    /// Fails when no such datagram comes within `timeout`.
    pub fn wait_for(
        &self,
        index: usize,
        what: &str,
        timeout: Duration,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>> {
        let socket = &self.sockets[index];
        let end = Instant::now() + timeout;
        let mut buffer = [0; 2048];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            // A timeout of zero would mean forever.
            let left = left.max(Duration::from_millis(1));
            socket.set_read_timeout(Some(left))?;
            let (length, from) = uninterrupted(left, || socket.recv_from(&mut buffer))
                .with_context(|| format!("client {index}: {what}"))?;
            let datagram = &buffer[..length];
            if is_question(datagram) {
                socket.send_to(&answer_to(datagram), from)?;
            }
            if wanted(datagram) {
                return Ok(datagram.to_vec());
            }
        }
    }
}

/// Whether these octets are a relay's question for the proof that a peer is at its mapping: a bubble
/// with a neighbor solicitation trailer.
#[must_use]
pub fn is_question(packet: &[u8]) -> bool {
    is_bubble(packet) && packet[40..] == [4, 4, 0, 0, 0, 0]
}

/// Returns the answer to a bubble of a relay.
///
/// # Panics
///
/// If these octets are no bubble.
#[must_use]
pub fn answer_to(packet: &[u8]) -> Vec<u8> {
    let address = |at: usize| {
        let octets: [u8; 16] = packet[at..at + 16].try_into().expect("a bubble");
        Ipv6Addr::from(octets)
    };
    bubble(address(24), address(8))
}

/// A conversation in datagrams between a native host and every one of many peers in turn.
#[derive(Debug)]
pub struct Conversation<'a> {
    peers: &'a Peers,
    socket: UdpSocket,
    host: (Ipv6Addr, u16),
}

/// The port of all peers inside the tunnel.
const PORT: u16 = 7;
/// Time for an answer on an idle host.
const BRIEF: Duration = Duration::from_millis(20);
/// Number of peers that send at the same time.
const GROUP: usize = 100;
/// Longest time that one datagram may take.
const ARRIVAL: Duration = Duration::from_secs(10);

impl<'a> Conversation<'a> {
    /// Starts a conversation without datagrams.
    ///
    /// # Errors
    ///
    /// Fails when the host's socket cannot be opened.
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

    /// Sends a first datagram from the host to every peer. It waits in the relay for the bubbles
    /// and must arrive.
    ///
    /// # Errors
    ///
    /// Fails when a datagram does not arrive.
    pub fn open(&self, relay: SocketAddrV4) -> Result<()> {
        for group in self.groups() {
            self.open_group(group, Some(relay), ARRIVAL)?;
        }
        Ok(())
    }

    /// Opens the conversation as [`Self::open`] does, through whichever relay asks a peer by the server.
    ///
    /// # Errors
    ///
    /// Fails when a datagram does not arrive.
    pub fn open_anywhere(&self) -> Result<()> {
        for group in self.groups() {
            self.open_group(group, None, ARRIVAL)?;
        }
        Ok(())
    }

    /// Opens the conversation as [`Self::open`] does, but with all peers at once: each may have to
    /// wait for its turn at the server for as long as `patience`.
    ///
    /// # Errors
    ///
    /// Fails when a datagram does not arrive.
    pub fn open_at_once(&self, relay: SocketAddrV4, patience: Duration) -> Result<()> {
        self.open_group(0..self.peers.len(), Some(relay), patience)
    }

    fn open_group(
        &self,
        group: Range<usize>,
        relay: Option<SocketAddrV4>,
        patience: Duration,
    ) -> Result<()> {
        // So long that the relay asks again if its bubble is lost (L-19).
        let content = |index| format!("the first datagram for {index}");
        for index in group.clone() {
            self.send(index, &content(index))?;
        }
        for index in group.clone() {
            // From the relay directly or, after an origin indication, through the server.
            let packet = self.peers.wait_for(index, "a bubble", patience, |packet| {
                (relay.is_some() && is_bubble(packet) && !is_question(packet))
                    || origin(packet).is_some()
            })?;
            let (asks, asker) = match origin(&packet) {
                None => (&packet[..], relay),
                Some(origin) => (&packet[8..], relay.or(Some(origin))),
            };
            let asker = asker.context("nobody asks")?;
            self.peers.send(index, asker, &answer_to(asks))?;
        }
        for index in group {
            self.expect(index, &content(index))?;
        }
        Ok(())
    }

    /// Waits until every peer has answered the question of our relay.
    ///
    /// # Errors
    ///
    /// Fails when a question does not come.
    pub fn prove(&self) -> Result<()> {
        for index in 0..self.peers.len() {
            (self.peers).wait_for(index, "a question", ARRIVAL, is_question)?;
        }
        Ok(())
    }

    /// Opens the conversation as [`Self::open`] does, but the peers send bubbles until the datagram
    /// comes instead of waiting for the relay's bubbles, whose rate to one server is limited.
    ///
    /// # Errors
    ///
    /// Fails when a datagram does not arrive.
    pub fn open_unasked(&self, relay: SocketAddrV4) -> Result<()> {
        // So long that the relay asks again if its bubble is lost (L-19).
        let content = |index| format!("the first datagram for {index}");
        for group in self.groups() {
            for index in group.clone() {
                self.send(index, &content(index))?;
            }
            for index in group {
                wait_until("the first datagram comes", ARRIVAL, || {
                    let answer = bubble(self.peers.address(index), self.host.0);
                    self.peers.send(index, relay, &answer)?;
                    Ok(self.comes(index, &content(index), BRIEF).is_ok())
                })?;
            }
        }
        Ok(())
    }

    /// Sends a datagram from every peer to the host, which answers; all must arrive.
    ///
    /// # Errors
    ///
    /// Fails when a datagram does not arrive.
    pub fn exchange(&self, relay: SocketAddrV4) -> Result<()> {
        let all: Vec<usize> = (0..self.peers.len()).collect();
        self.exchange_with(relay, &all)
    }

    /// Exchanges datagrams as [`Self::exchange`] does, with these peers alone.
    ///
    /// # Errors
    ///
    /// Fails when a datagram does not arrive.
    pub fn exchange_with(&self, relay: SocketAddrV4, peers: &[usize]) -> Result<()> {
        let content = |index| format!("answer {index}");
        for group in peers.chunks(GROUP) {
            let mut sources = HashSet::new();
            for &index in group {
                let source = self.peers.address(index);
                let content = source.octets();
                let packet = udp_packet((source, PORT), self.host, 64, &content)?;
                self.peers.send(index, relay, &packet)?;
                sources.insert(source);
            }
            while !sources.is_empty() {
                let source = self.receive()?;
                ensure!(
                    sources.remove(&source),
                    "more than one datagram came from {source}"
                );
            }
            for &index in group {
                self.send(index, &content(index))?;
            }
            for &index in group {
                self.expect(index, &content(index))?;
            }
        }
        Ok(())
    }

    /// Number of peers whose datagrams fit into one socket's buffer together.
    fn groups(&self) -> impl Iterator<Item = Range<usize>> {
        let count = self.peers.len();
        (0..count)
            .step_by(GROUP)
            .map(move |first| first..count.min(first + GROUP))
    }

    /// The source of the next datagram to the host, which must also be its content.
    fn receive(&self) -> Result<Ipv6Addr> {
        let mut buffer = [0; 2048];
        let (length, from) = uninterrupted(ARRIVAL, || self.socket.recv_from(&mut buffer))
            .context("a datagram from a peer")?;
        let SocketAddr::V6(from) = from else {
            bail!("{from} is no IPv6 host");
        };
        ensure!(
            buffer[..length] == from.ip().octets(),
            "{from} has not sent this"
        );
        Ok(*from.ip())
    }

    fn send(&self, index: usize, content: &str) -> Result<()> {
        let to = (self.peers.address(index), PORT);
        self.socket.send_to(content.as_bytes(), to)?;
        Ok(())
    }

    fn expect(&self, index: usize, content: &str) -> Result<()> {
        self.comes(index, content, ARRIVAL)
    }

    fn comes(&self, index: usize, content: &str, timeout: Duration) -> Result<()> {
        let what = format!("the datagram {content:?}");
        let packet = self.peers.wait_for(index, &what, timeout, |packet| {
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
    TeredoAddress::new(server, mapped.into()).encode()
}

/// A bubble (RFC 4380 section 2.8).
#[must_use]
pub fn bubble(source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    ipv6(source, destination, NO_NEXT_HEADER, &[])
}

/// Whether these octets are a bubble.
#[must_use]
pub fn is_bubble(packet: &[u8]) -> bool {
    packet.len() >= 40 && packet[0] >> 4 == 6 && packet[4..6] == [0, 0] && packet[6] == 59
}

/// The relay that sent a bubble by a server, if these octets are such a bubble (RFC 4380 section 5.1.1).
#[must_use]
pub fn origin(packet: &[u8]) -> Option<SocketAddrV4> {
    let (&[0, 0, high, low, a, b, c, d], rest) = packet.split_first_chunk()? else {
        return None;
    };
    let address = Ipv4Addr::new(!a, !b, !c, !d);
    is_bubble(rest).then(|| SocketAddrV4::new(address, !u16::from_be_bytes([high, low])))
}

/// An IPv6 packet with a UDP datagram, checksum included.
///
/// # Errors
///
/// Fails when the payload is too long.
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
    fn bubbles_are_recognised() {
        let one = Ipv6Addr::LOCALHOST;
        assert!(is_bubble(&bubble(one, one)));
        assert!(!is_bubble(
            &udp_packet((one, 1), (one, 2), 64, b"x").unwrap()
        ));
    }
}
