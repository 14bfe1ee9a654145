//! The UDP ports that the protocol opens besides the service port.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    datapath::udp::{BindError, ReceiveBatch, Receiver, Sender, UdpSocket},
    node::port::register,
};

/// Ports of which one look tells that they have something.
const LOOK: usize = 16;

/// Ports that come and go, however many, behind one descriptor that tells when to look at them.
#[derive(Debug)]
pub struct Ports {
    gate: AsyncFd<Gate>,
    open: HashMap<u16, UdpSocket>,
}

#[derive(Debug)]
struct Gate(Epoll);

impl Ports {
    pub fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self {
            gate: register(Gate(epoll))?,
            open: HashMap::new(),
        })
    }

    /// Opens a port of all addresses.
    pub fn open(&mut self, port: u16) -> Result<(), BindError> {
        let local = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
        let socket = UdpSocket::bind(local)?;
        for receiver in [&socket.receiver, &socket.marked] {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, u64::from(port));
            let added = self.gate.get_ref().0.add(receiver, event);
            added.map_err(|source| BindError::Other {
                address: local,
                source: source.into(),
            })?;
        }
        self.open.insert(port, socket);
        Ok(())
    }

    /// Closes a port, if it is open.
    pub fn close(&mut self, port: u16) {
        self.open.remove(&port);
    }

    /// Sends from a port, if it is open.
    pub fn sender(&mut self, port: u16) -> Option<&mut Sender> {
        self.open.get_mut(&port).map(|socket| &mut socket.sender)
    }

    /// Waits until datagrams have come to one of the ports, and tells to which. Cancelling loses
    /// nothing.
    pub async fn receive(&self, batch: &RefCell<&mut ReceiveBatch>) -> io::Result<u16> {
        let look = |gate: &Gate| self.look(gate, &mut batch.borrow_mut());
        self.gate.async_io(Interest::READABLE, look).await
    }

    fn look(&self, gate: &Gate, batch: &mut ReceiveBatch) -> io::Result<u16> {
        let mut events = [EpollEvent::empty(); LOOK];
        let count = gate.0.wait(&mut events, 0u8)?;
        for event in &events[..count] {
            let port = event.data() as u16;
            let Some(socket) = self.open.get(&port) else {
                continue;
            };
            // What is wrong with one port is no trouble for the others.
            let receive = |receiver: &Receiver| receiver.receive(batch).is_ok();
            if [&socket.receiver, &socket.marked].into_iter().any(receive) {
                return Ok(port);
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl AsFd for Gate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

impl AsRawFd for Gate {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin, task::Poll};

    use tokio::runtime::Builder;

    use super::*;

    /// The number of a port that nobody has.
    fn free() -> u16 {
        let any = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        any.local.port()
    }

    async fn receive(ports: &Ports) -> (u16, Vec<Vec<u8>>) {
        let mut batch = ReceiveBatch::new();
        let port = ports.receive(&RefCell::new(&mut batch)).await.unwrap();
        let payloads = batch.datagrams().map(|one| one.payload.to_vec()).collect();
        (port, payloads)
    }

    #[test]
    fn ports_come_and_go() {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut ports = Ports::new().unwrap();
            let (first, second) = (free(), free());
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
            // Both at once: neither is forgotten.
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
                poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_pending()));
            assert!(is_idle.await);
        });
    }
}
