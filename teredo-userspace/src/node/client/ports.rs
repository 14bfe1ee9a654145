//! The UDP ports that the protocol opens besides the service port.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::sleep,
};

use crate::{
    datapath::udp::{BindError, ReceiveBatch, Receiver, Sender, UdpSocket},
    handover::descriptors::{self, Named},
    node::port::{RETRY, register},
};

/// Most ready ports that one poll returns.
const READY_MAX: usize = 16;

/// Any number of ports that come and go, behind one epoll descriptor that is ready when one of them
/// is.
#[derive(Debug)]
pub struct ExtraPorts {
    poll: AsyncFd<Poll>,
    open: HashMap<u16, UdpSocket>,
    /// Those of an earlier process that were not opened again yet.
    left: Vec<UdpSocket>,
}

#[derive(Debug)]
struct Poll(Epoll);

impl ExtraPorts {
    /// Creates a set without ports; those in `left` are taken over when they are opened.
    pub fn new(left: Vec<UdpSocket>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self {
            poll: register(Poll(epoll))?,
            open: HashMap::new(),
            left,
        })
    }

    /// Opens a port on all addresses.
    pub fn open(&mut self, port: u16) -> Result<(), BindError> {
        let local = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
        let there = self.left.iter().position(|socket| socket.local == local);
        let socket = match there {
            Some(place) => self.left.swap_remove(place),
            None => UdpSocket::bind(local)?,
        };
        for receiver in [&socket.receiver, &socket.marked] {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, u64::from(port));
            let added = self.poll.get_ref().0.add(receiver, event);
            added.map_err(|source| BindError::Other {
                address: local,
                source: source.into(),
            })?;
        }
        self.open.insert(port, socket);
        Ok(())
    }

    /// Returns the descriptors that outlive the process.
    pub fn descriptors(&self) -> impl Iterator<Item = Named<'_>> {
        let sockets = self.open.values();
        sockets
            .flat_map(|socket| descriptors::udp(&socket.sender, [&socket.receiver, &socket.marked]))
    }

    /// Closes a port, if it is open.
    pub fn close(&mut self, port: u16) {
        self.open.remove(&port);
    }

    /// Returns the sender of a port, if it is open.
    pub fn sender(&mut self, port: u16) -> Option<&mut Sender> {
        self.open.get_mut(&port).map(|socket| &mut socket.sender)
    }

    /// Receives datagrams from one of the ports and returns its number. Cancelling loses nothing.
    pub async fn receive(&self, batch: &RefCell<&mut ReceiveBatch>) -> u16 {
        loop {
            let receive = |poll: &Poll| self.receive_ready(poll, &mut batch.borrow_mut());
            match self.poll.async_io(Interest::READABLE, receive).await {
                Ok(port) => return port,
                Err(_) => sleep(RETRY).await,
            }
        }
    }

    fn receive_ready(&self, poll: &Poll, batch: &mut ReceiveBatch) -> io::Result<u16> {
        let mut events = [EpollEvent::empty(); READY_MAX];
        let count = poll.0.wait(&mut events, 0u8)?;
        for event in &events[..count] {
            let port = event.data() as u16;
            let Some(socket) = self.open.get(&port) else {
                continue;
            };
            // The failure of one port must not affect the others.
            let receive = |receiver: &Receiver| receiver.receive(batch).is_ok();
            if [&socket.receiver, &socket.marked].into_iter().any(receive) {
                return Ok(port);
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl AsFd for Poll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

impl AsRawFd for Poll {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin, task};

    use tokio::runtime::Builder;

    use super::*;

    /// The numbers of two unused ports.
    fn free() -> [u16; 2] {
        let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        // Both at once, lest they are the same.
        let sockets = [(); 2].map(|()| UdpSocket::bind(any).unwrap());
        sockets.map(|socket| socket.local.port())
    }

    async fn receive(ports: &ExtraPorts) -> (u16, Vec<Vec<u8>>) {
        let mut batch = ReceiveBatch::new();
        let port = ports.receive(&RefCell::new(&mut batch)).await;
        let payloads = batch
            .datagrams()
            .map(|datagram| datagram.payload.to_vec())
            .collect();
        (port, payloads)
    }

    #[test]
    fn ports_come_and_go() {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut ports = ExtraPorts::new(Vec::new()).unwrap();
            let [first, second] = free();
            ports.open(first).unwrap();
            ports.open(second).unwrap();
            assert!(matches!(ports.open(first), Err(BindError::InUse { .. })));
            let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let to = |port: u16| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
            for round in 0..3_u8 {
                for port in [first, second] {
                    peer.send_to(&[round], to(port)).unwrap();
                    assert_eq!(receive(&ports).await, (port, vec![vec![round]]));
                }
            }
            // Both at once.
            peer.send_to(b"1", to(first)).unwrap();
            peer.send_to(b"2", to(second)).unwrap();
            let mut got = [receive(&ports).await.0, receive(&ports).await.0];
            got.sort_unstable();
            let mut expected = [first, second];
            expected.sort_unstable();
            assert_eq!(got, expected);

            let back = peer.local_addr().unwrap();
            let std::net::SocketAddr::V4(back) = back else {
                panic!("{back}");
            };
            assert_eq!(ports.sender(second).unwrap().send(&[(back, b"x")]), 1);
            let mut buffer = [0; 9];
            let (_, from) = peer.recv_from(&mut buffer).unwrap();
            assert_eq!(from.port(), second);

            ports.close(first);
            assert!(ports.sender(first).is_none());
            peer.send_to(b"late", to(first)).unwrap();
            let mut batch = ReceiveBatch::new();
            let batch = RefCell::new(&mut batch);
            let mut waiting = pin!(ports.receive(&batch));
            let is_idle =
                poll_fn(|context| task::Poll::Ready(waiting.as_mut().poll(context).is_pending()));
            assert!(is_idle.await);
        });
    }
}
