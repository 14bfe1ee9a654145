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
