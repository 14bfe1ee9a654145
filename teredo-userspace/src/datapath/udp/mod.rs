//! The UDP port that carries a node's Teredo datagrams.

mod discovery;
mod mailbox;
mod messages;
mod receive;
pub mod segmentation;
mod send;
mod socket;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::OwnedFd,
};

use nix::sys::socket::sockopt;
use thiserror::Error;

pub use discovery::{Arrival, DiscoverySocket, GROUP as DISCOVERY_GROUP};
pub use mailbox::{Mailbox, MailboxError};
pub use receive::{Datagram, ReceiveBatch, Receiver};
pub use segmentation::Segmentation;
pub use send::{Payload, Sender};
pub use socket::set_buffers;

/// Port of the discard service, which never sends.
const DISCARD: u16 = 9;

/// An error of [`UdpSocket::bind`]. Each is a sentence for the user.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another program has the port.
    #[error("UDP port {port} of {address} is in use by another program")]
    InUse {
        /// The local address.
        address: Ipv4Addr,
        /// The port, host byte order.
        port: u16,
    },
    /// The address belongs to no interface of this host.
    #[error("{0} is not an address of this host")]
    NotOurs(Ipv4Addr),
    /// A port below 1024 without `CAP_NET_BIND_SERVICE`.
    #[error("no permission for UDP port {0}: grant CAP_NET_BIND_SERVICE, or choose another port")]
    Permission(u16),
    /// Anything else.
    #[error("cannot set up the UDP socket {address}")]
    Other {
        /// The endpoint that was to be bound.
        address: SocketAddrV4,
        /// The error of the kernel.
        source: io::Error,
    },
}

/// A bound UDP port.
///
/// Datagrams leave with a time to live of 64, DSCP and ECN zero and without "don't fragment"
/// (RFC 4380 section 5.1.2). Fragments arrive reassembled; datagrams with a wrong checksum do not
/// arrive. No operation blocks.
#[derive(Debug)]
pub struct UdpSocket {
    /// The local endpoint.
    pub local: SocketAddrV4,
    /// Sends from the port.
    pub sender: Sender,
    /// Receives the other datagrams, almost all.
    pub receiver: Receiver,
    /// Receives the datagrams that experienced congestion (RFC 3168). Asking the kernel for the mark
    /// of each datagram would add a tenth to the cost of receiving, so marked ones have a socket of
    /// their own.
    pub marked: Receiver,
    /// The receivers with shares of the other datagrams; all of a peer arrive at one. See [`Self::divide`].
    pub further: Vec<Receiver>,
}

impl UdpSocket {
    /// Binds to an address of this host; port 0 lets the kernel choose.
    ///
    /// # Errors
    ///
    /// A sentence for the user, see [`BindError`].
    pub fn bind(local: SocketAddrV4) -> Result<Self, BindError> {
        // This socket does not share the port, so binding it fails unless the port is free.
        let first = socket::open().map_err(|error| refuse(local, error))?;
        let local = socket::bind(&first, local).map_err(|error| refuse(local, error))?;
        Self::share(first, local).map_err(|source| BindError::Other {
            address: local,
            source: source.into(),
        })
    }

    /// Takes over the sockets of a port that another process has opened: sender, receiver, and that for marked
    /// datagrams; and the `further` ones among which it has divided the others.
    #[must_use]
    pub fn inherited(
        local: SocketAddrV4,
        [sender, receiver, marked]: [OwnedFd; 3],
        further: Vec<OwnedFd>,
    ) -> Self {
        // A mailbox has ended with its process.
        socket::detach_filter(&receiver);
        socket::coalesce(&receiver);
        let port = Self {
            local,
            sender: Sender::new(sender),
            receiver: Receiver::new(receiver),
            marked: Receiver::new(marked),
            further: further.into_iter().map(Receiver::new).collect(),
        };
        // The earlier process may have had more.
        if let Err(error) = port.receiver.divide_among(port.further.len() + 1) {
            tracing::debug!("the datagrams to {local} are divided as before: {error}");
        }
        port
    }

    /// Divides the datagrams among `count` receivers, among more if there are more, or among fewer if there is no room.
    /// Sockets of another user get no further ones: the kernel lets only one user share a port.
    pub fn divide(&mut self, count: usize) {
        if self.further.len() + 1 >= count || !socket::is_own(self.receiver.socket()) {
            return;
        }
        // The sender does not share the port, so both must permit reuse of the address while others are bound.
        let sender = self.sender.socket();
        let reuse = |on| socket::set(sender, sockopt::ReuseAddr, on);
        let mut added = reuse(true);
        while added.is_ok() && self.further.len() + 1 < count {
            added = socket::open_sharing(self.local)
                .map(|socket| self.further.push(Receiver::new(socket)));
        }
        let divided = added
            .and(reuse(false))
            .map_err(io::Error::from)
            .and(self.receiver.divide_among(self.further.len() + 1));
        if let Err(error) = divided {
            tracing::warn!("no sockets of {} for more threads: {error}", self.local);
        }
    }

    /// Puts a mailbox before the receiver, which then receives only long datagrams and those that
    /// come while the mailbox is full.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; nothing is changed then.
    pub fn mailbox(&self) -> Result<Mailbox, MailboxError> {
        let mailbox = Mailbox::before(self.receiver.socket())?;
        // The filter would see datagrams that arrive together as one.
        socket::do_not_coalesce(self.receiver.socket());
        Ok(mailbox)
    }

    fn share(first: OwnedFd, local: SocketAddrV4) -> nix::Result<Self> {
        socket::set(&first, sockopt::ReuseAddr, true)?;
        let receiver = socket::open_sharing(local)?;
        let marked = socket::open_sharing(local)?;
        socket::set_option(&marked, libc::IP_RECVTOS, 1)?;
        socket::distribute(&receiver, 1)?;
        let sender = if local.ip().is_unspecified() {
            // The kernel chooses the source address for each datagram.
            receiver.try_clone().map_err(|_| nix::Error::EMFILE)?
        } else {
            // A connected socket has its own counter of IPv4 identifications; others use a table
            // shared by all CPUs, whose contention is a fifth of the cost of sending to many peers.
            // Datagrams from the connected endpoint are lost, but a node accepts none from its own
            // address.
            socket::connect(&first, SocketAddrV4::new(*local.ip(), DISCARD))?;
            first
        };
        socket::set(&sender, sockopt::ReuseAddr, false)?;
        Ok(Self {
            local,
            sender: Sender::new(sender),
            receiver: Receiver::new(receiver),
            marked: Receiver::new(marked),
            further: Vec::new(),
        })
    }
}

/// Returns the source address that this host uses towards `to`, or `None` without a route. No packet
/// is sent.
#[must_use]
pub fn source_towards(to: SocketAddrV4) -> Option<Ipv4Addr> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(to).ok()?;
    match socket.local_addr().ok()? {
        SocketAddr::V4(local) => Some(*local.ip()),
        SocketAddr::V6(_) => None,
    }
}

fn refuse(local: SocketAddrV4, error: nix::Error) -> BindError {
    match error {
        nix::Error::EADDRINUSE => BindError::InUse {
            address: *local.ip(),
            port: local.port(),
        },
        nix::Error::EADDRNOTAVAIL => BindError::NotOurs(*local.ip()),
        nix::Error::EACCES => BindError::Permission(local.port()),
        error => BindError::Other {
            address: local,
            source: error.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd as _, AsRawFd as _};

    use nix::{
        poll::{PollFd, PollFlags, poll},
        sys::socket::{MsgFlags, SockaddrIn, sendto},
    };

    use teredo_common::steering;

    use super::*;

    const LOCAL: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);

    fn bound() -> UdpSocket {
        UdpSocket::bind(LOCAL).unwrap()
    }

    /// Receives until `count` datagrams have come.
    fn collect(receiver: &Receiver, count: usize) -> Vec<(SocketAddrV4, u8, Vec<u8>)> {
        let mut batch = ReceiveBatch::new();
        let mut all = Vec::new();
        while all.len() < count {
            let mut readable = [PollFd::new(receiver.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut readable, 5000u16), Ok(1), "{all:?}");
            receiver.receive(&mut batch).unwrap();
            all.extend(
                batch
                    .datagrams()
                    .map(|datagram| (datagram.source, datagram.ecn, datagram.payload.to_vec())),
            );
        }
        all
    }

    fn assert_nothing(receiver: &Receiver) {
        let nothing = receiver.receive(&mut ReceiveBatch::new()).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn datagrams_arrive_as_they_were_sent() {
        let (mut here, there, elsewhere) = (bound(), bound(), bound());
        let filled = |octet: u8, length: usize| vec![octet; length];
        // Runs with a shorter end, other lengths, another endpoint between, more than a batch.
        let mut payloads = vec![
            filled(1, 100),
            filled(2, 100),
            filled(3, 50),
            filled(4, 100),
        ];
        payloads.extend((5..100).map(|octet| filled(octet, 1308)));
        payloads.push(Vec::new());
        payloads.push(filled(200, 1));
        let mut datagrams: Vec<(SocketAddrV4, &[u8])> = payloads
            .iter()
            .map(|payload| (there.local, payload.as_slice()))
            .collect();
        datagrams.insert(2, (elsewhere.local, b"elsewhere"));
        assert_eq!(here.sender.send(&datagrams), datagrams.len());

        let received = collect(&there.receiver, payloads.len());
        let expected: Vec<_> = payloads
            .into_iter()
            .map(|payload| (here.local, 0, payload))
            .collect();
        assert_eq!(received, expected);
        assert_eq!(collect(&elsewhere.receiver, 1)[0].2, b"elsewhere");
        assert_nothing(&here.receiver);
        assert_nothing(&there.marked);
    }

    #[test]
    fn a_refused_datagram_does_not_stop_the_others() {
        let (mut here, there) = (bound(), bound());
        // Port 0 is no destination; broadcasts are not permitted.
        let nowhere = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let broadcast = SocketAddrV4::new(Ipv4Addr::BROADCAST, 9);
        let to = there.local;
        let sent = here.sender.send(&[
            (nowhere, b"a"),
            (to, b"b"),
            (broadcast, b"c"),
            (broadcast, b"d"),
            (to, b"e"),
            (to, b"f"),
            (nowhere, b"g"),
        ]);
        assert_eq!(sent, 3);
        let payloads: Vec<_> = collect(&there.receiver, 3)
            .into_iter()
            .map(|got| got.2)
            .collect();
        assert_eq!(payloads, [b"b", b"e", b"f"]);
    }

    #[test]
    fn congested_datagrams_arrive_at_their_own_socket() {
        let there = bound();
        let socket: OwnedFd = std::net::UdpSocket::bind(LOCAL).unwrap().into();
        let send = |type_of_service: i32, payload: &[u8]| {
            socket::set_option(&socket, libc::IP_TOS, type_of_service).unwrap();
            let to = SockaddrIn::from(there.local);
            let flags = MsgFlags::empty();
            sendto(socket.as_raw_fd(), payload, &to, flags).unwrap();
        };
        send(0, b"none");
        send(0x03, b"congestion experienced");
        send(0xb9, b"expedited, ECT(1)");
        send(0xbb, b"expedited, congestion experienced");
        send(0x02, b"ECT(0)");
        let payloads = |receiver, count, ecn| {
            let received = collect(receiver, count).into_iter();
            received
                .map(|(_, found, payload)| {
                    assert_eq!(found, ecn);
                    String::from_utf8(payload).unwrap()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(
            payloads(&there.receiver, 3, 0),
            ["none", "expedited, ECT(1)", "ECT(0)"]
        );
        assert_eq!(
            payloads(&there.marked, 2, 3),
            [
                "congestion experienced",
                "expedited, congestion experienced"
            ]
        );
    }

    #[test]
    fn datagrams_are_divided_by_their_sender() {
        let mut there = bound();
        there.divide(4);
        let receivers: Vec<&Receiver> = [&there.receiver]
            .into_iter()
            .chain(&there.further)
            .collect();
        assert_eq!(receivers.len(), 4);
        let mut senders: Vec<UdpSocket> = (0..40).map(|_| bound()).collect();
        let mut expected = vec![Vec::new(); receivers.len()];
        for sender in &mut senders {
            assert_eq!(
                sender
                    .sender
                    .send(&[(there.local, b"one"), (there.local, b"two")]),
                2
            );
            let share = steering::share(sender.local.into()) as usize % receivers.len();
            expected[share].extend([
                (sender.local, b"one".to_vec()),
                (sender.local, b"two".to_vec()),
            ]);
        }
        for (receiver, expected) in receivers.iter().zip(expected) {
            // Forty ports in a row leave none out.
            assert!(!expected.is_empty());
            let received = collect(receiver, expected.len()).into_iter();
            let received: Vec<_> = received.map(|(from, _, payload)| (from, payload)).collect();
            assert_eq!(received, expected);
            assert_nothing(receiver);
        }
        let marked: OwnedFd = std::net::UdpSocket::bind(LOCAL).unwrap().into();
        socket::set_option(&marked, libc::IP_TOS, 3).unwrap();
        let to = SockaddrIn::from(there.local);
        sendto(marked.as_raw_fd(), b"marked", &to, MsgFlags::empty()).unwrap();
        assert_eq!(collect(&there.marked, 1)[0].2, b"marked");
        // Nobody else gets the port.
        assert!(matches!(
            UdpSocket::bind(there.local),
            Err(BindError::InUse { .. })
        ));
        let sharing = socket::open().unwrap();
        socket::set(&sharing, sockopt::ReuseAddr, true).unwrap();
        assert_eq!(
            socket::bind(&sharing, there.local),
            Err(nix::Error::EADDRINUSE)
        );
    }

    #[test]
    fn a_port_that_another_process_has_divided_is_taken_over_and_divided_further() {
        let mut before = bound();
        before.divide(2);
        let local = before.local;
        let copy = |socket: &OwnedFd| socket.try_clone().unwrap();
        let sockets = [
            before.sender.socket(),
            before.receiver.socket(),
            before.marked.socket(),
        ]
        .map(copy);
        let further = before
            .further
            .iter()
            .map(|receiver| copy(receiver.socket()))
            .collect();
        drop(before);
        let mut there = UdpSocket::inherited(local, sockets, further);
        there.divide(3);
        assert_eq!(there.further.len(), 2);
        let mut senders: Vec<UdpSocket> = (0..30).map(|_| bound()).collect();
        for sender in &mut senders {
            assert_eq!(sender.sender.send(&[(local, b"x")]), 1);
            let receiver = match steering::share(sender.local.into()) as usize % 3 {
                0 => &there.receiver,
                share => &there.further[share - 1],
            };
            assert_eq!(collect(receiver, 1)[0].0, sender.local);
        }
    }

    #[test]
    fn the_largest_datagram_fits() {
        let (mut here, there) = (bound(), bound());
        let largest = [1; 65_507];
        assert_eq!(here.sender.send(&[(there.local, &largest)]), 1);
        assert_eq!(collect(&there.receiver, 1)[0].2, largest);
    }

    #[test]
    fn a_port_in_use_and_a_foreign_address_are_told_apart() {
        let here = bound();
        let error = UdpSocket::bind(here.local).unwrap_err();
        assert!(matches!(error, BindError::InUse { .. }), "{error}");
        let foreign = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 3545);
        let error = UdpSocket::bind(foreign).unwrap_err();
        assert_eq!(
            error.to_string(),
            "192.0.2.1 is not an address of this host"
        );
        // Not even a socket that offers to share gets the port.
        let sharing = socket::open().unwrap();
        socket::set(&sharing, sockopt::ReuseAddr, true).unwrap();
        let taken = socket::bind(&sharing, here.local);
        assert_eq!(taken, Err(nix::Error::EADDRINUSE));
    }

    #[test]
    fn a_port_of_every_address_sends_and_receives() {
        let mut here = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let mut there = bound();
        assert_eq!(here.sender.send(&[(there.local, b"out")]), 1);
        let (from, _, payload) = collect(&there.receiver, 1).remove(0);
        assert_eq!(payload, b"out");
        assert_eq!(there.sender.send(&[(from, b"back")]), 1);
        assert_eq!(collect(&here.receiver, 1)[0].2, b"back");
    }
}
