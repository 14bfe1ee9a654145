//! A UDP port as the event loop uses it.

use std::{
    cell::RefCell,
    future::pending,
    io,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    time::sleep,
};

use crate::datapath::udp::{Mailbox, ReceiveBatch, Receiver};

/// The wait after an error of a socket.
pub const RETRY: Duration = Duration::from_millis(10);

/// The receiving half of a [`crate::datapath::udp::UdpSocket`].
#[derive(Debug)]
pub struct Port {
    receiver: AsyncFd<Receiver>,
    marked: AsyncFd<Receiver>,
    mailbox: Option<AsyncFd<Mailbox>>,
}

impl Port {
    /// Registers the sockets. Needs a tokio runtime.
    pub fn new(receiver: Receiver, marked: Receiver) -> io::Result<Self> {
        Ok(Self {
            receiver: register(receiver)?,
            marked: register(marked)?,
            mailbox: None,
        })
    }

    /// Returns the receiving sockets.
    pub fn receivers(&self) -> [&Receiver; 2] {
        [self.receiver.get_ref(), self.marked.get_ref()]
    }

    /// Lets the sockets have all datagrams from now on.
    pub fn end_mailbox(&self) {
        if self.mailbox.is_some() {
            self.receiver.get_ref().detach_filter();
        }
    }

    /// Receives from the mailbox. Returns whether there was something.
    pub fn receive_mail_now(&self, batch: &mut ReceiveBatch) -> bool {
        let mailbox = self.mailbox.as_ref().map(AsyncFd::get_ref);
        mailbox.is_some_and(|mailbox| mailbox.receive(batch).is_ok_and(|received| received > 0))
    }

    /// Makes room for the datagrams that come until the next process receives them.
    pub fn make_room(&self) {
        self.make_room_among(1);
    }

    /// Makes room as [`Self::make_room`] does, as much as for one receiver in all of as many.
    pub fn make_room_among(&self, receivers: usize) {
        for receiver in self.receivers() {
            receiver.make_room_among(receivers);
        }
    }

    /// Ends [`Self::make_room`].
    pub fn end_room(&self) {
        for receiver in self.receivers() {
            receiver.end_room();
        }
    }

    /// Adds a mailbox before the receiver.
    pub fn with_mailbox(self, mailbox: Mailbox) -> io::Result<Self> {
        Ok(Self {
            mailbox: Some(register(mailbox)?),
            ..self
        })
    }

    /// Returns the number of datagrams that were lost because they came faster than they were received.
    /// To be called before four thousand million more are lost.
    pub fn lost(&self) -> u64 {
        // The program of a mailbox drops every datagram that it takes out of the socket.
        if let Some(mailbox) = &self.mailbox {
            return mailbox.get_ref().lost();
        }
        self.receivers().map(Receiver::lost).iter().sum()
    }

    /// Receives from the first of the sockets and the mailbox that has datagrams, and returns how many.
    /// Cancelling loses nothing. The batch may be lent to several ports, of which one will use it.
    ///
    /// An error, for example for want of memory, delays the datagrams.
    pub async fn receive(&self, batch: &RefCell<&mut ReceiveBatch>) -> usize {
        loop {
            match self.try_receive(batch).await {
                Ok(received) => return received,
                Err(error) => {
                    tracing::debug!("cannot receive datagrams: {error}");
                    sleep(RETRY).await;
                }
            }
        }
    }

    async fn try_receive(&self, batch: &RefCell<&mut ReceiveBatch>) -> io::Result<usize> {
        let read = |receiver: &Receiver| receiver.receive(&mut batch.borrow_mut());
        tokio::select! {
            received = self.receiver.async_io(Interest::READABLE, read) => received,
            received = self.marked.async_io(Interest::READABLE, read) => received,
            received = receive_mail(self.mailbox.as_ref(), batch) => received,
        }
    }
}

/// Receives from the mailbox; waits forever without one.
async fn receive_mail(
    mailbox: Option<&AsyncFd<Mailbox>>,
    batch: &RefCell<&mut ReceiveBatch>,
) -> io::Result<usize> {
    let Some(mailbox) = mailbox else {
        return pending().await;
    };
    mailbox
        .async_io(Interest::READABLE, |mailbox| {
            mailbox.receive(&mut batch.borrow_mut())
        })
        .await
}

/// Registers a descriptor for readability with tokio.
pub fn register<T: AsFd + AsRawFd>(readable: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: every type used here owns one descriptor, which stays open and the same.
    unsafe { AsyncFd::register_with_interest(readable, Interest::READABLE) }.map_err(Into::into)
}
