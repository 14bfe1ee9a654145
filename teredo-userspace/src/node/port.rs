//! A UDP port as the event loop uses it.

use std::{
    cell::RefCell,
    io,
    os::fd::{AsFd, AsRawFd},
};

use tokio::io::{Interest, unix::AsyncFd};

use crate::datapath::udp::{ReceiveBatch, Receiver};

/// The receiving half of a [`crate::datapath::udp::UdpSocket`].
#[derive(Debug)]
pub struct Port {
    receiver: AsyncFd<Receiver>,
    marked: AsyncFd<Receiver>,
}

impl Port {
    /// Needs a tokio runtime.
    pub fn new(receiver: Receiver, marked: Receiver) -> io::Result<Self> {
        Ok(Self {
            receiver: register(receiver)?,
            marked: register(marked)?,
        })
    }

    /// Receives from whichever of the two sockets has something. Cancelling loses nothing. The
    /// batch may be lent to several ports of which one will use it.
    pub async fn receive(&self, batch: &RefCell<&mut ReceiveBatch>) -> io::Result<usize> {
        let read = |receiver: &Receiver| receiver.receive(&mut batch.borrow_mut());
        tokio::select! {
            received = self.receiver.async_io(Interest::READABLE, read) => received,
            received = self.marked.async_io(Interest::READABLE, read) => received,
        }
    }
}

/// Lets tokio tell when something can be read.
pub fn register<T: AsFd + AsRawFd>(readable: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: both `Receiver` and `Tun` own one descriptor, which stays open and the same.
    unsafe { AsyncFd::register_with_interest(readable, Interest::READABLE) }.map_err(Into::into)
}
