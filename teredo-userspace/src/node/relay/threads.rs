//! The threads that carry packets beside the event loop.

use std::{
    io,
    os::fd::AsFd as _,
    process::abort,
    sync::Arc,
    thread::{self, JoinHandle, panicking, sleep},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd},
};

use super::lane::Lane;
use crate::{
    datapath::{tun::Queue, udp::Receiver},
    node::port::RETRY,
};

/// What one thread reads, and where it writes.
#[derive(Debug)]
pub struct Ends {
    /// Sockets with datagrams from clients.
    pub receivers: Vec<Arc<Receiver>>,
    /// Queues with packets from the kernel.
    pub queues: Vec<Arc<Queue>>,
    /// The queue for packets to the kernel.
    pub out: Arc<Queue>,
}

/// The running threads. Dropping it ends them, when they have handled what they have read.
#[derive(Debug, Default)]
pub struct Threads(Vec<Running>);

#[derive(Debug)]
struct Running {
    thread: Option<JoinHandle<()>>,
    end: Arc<EventFd>,
}

impl Threads {
    /// Starts a thread for each lane.
    ///
    /// # Errors
    ///
    /// When the system has no room for more threads or descriptors.
    pub fn start(lanes: impl IntoIterator<Item = (Lane, Ends)>) -> io::Result<Self> {
        let mut threads = Self::default();
        for (number, (lane, ends)) in (1..).zip(lanes) {
            let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
            let end = Arc::new(EventFd::from_flags(flags)?);
            let until = end.clone();
            let thread = thread::Builder::new().name(format!("relay-{number}"));
            let thread = thread.spawn(move || {
                let _abort_on_panic = AbortOnPanic;
                carry(lane, ends, &until);
            })?;
            threads.0.push(Running {
                thread: Some(thread),
                end,
            });
        }
        Ok(threads)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The counter is far from its limit.
        let _ = self.end.write(1);
        if let Some(thread) = self.thread.take() {
            // A panic ends the process.
            let _ = thread.join();
        }
    }
}

/// Ends the process with a thread that panics: the packets of some peers would be lost silently.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if panicking() {
            abort();
        }
    }
}

/// Carries packets until `end` is readable.
fn carry(mut lane: Lane, mut ends: Ends, end: &EventFd) {
    loop {
        let of = |descriptor| PollFd::new(descriptor, PollFlags::POLLIN);
        let mut polled = vec![of(end.as_fd())];
        polled.extend(ends.receivers.iter().map(|receiver| of(receiver.as_fd())));
        polled.extend(ends.queues.iter().map(|queue| of(queue.as_fd())));
        if let Err(error) = poll(&mut polled, PollTimeout::NONE)
            && error != Errno::EINTR
        {
            tracing::debug!("cannot wait for packets: {error}");
            sleep(RETRY);
            continue;
        }
        let is_ready: Vec<bool> = polled.iter().map(|one| one.any() == Some(true)).collect();
        let (own, others) = is_ready.split_at(1);
        if own[0] {
            return;
        }
        let (receivers, queues) = others.split_at(ends.receivers.len());
        for (receiver, _) in ends
            .receivers
            .iter()
            .zip(receivers)
            .filter(|(_, ready)| **ready)
        {
            match receiver.receive(&mut lane.datagrams) {
                Ok(_) => lane.decapsulate(&ends.out),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    tracing::debug!("cannot receive datagrams: {error}");
                    sleep(RETRY);
                }
            }
        }
        let mut is_ready = queues.iter();
        ends.queues.retain(|queue| {
            if is_ready.next() != Some(&true) {
                return true;
            }
            match queue.read(&mut lane.packets) {
                Ok(_) => lane.encapsulate(&ends.out),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The interface is lost, and there will be other threads when it is back.
                Err(error) if error.raw_os_error() == Some(libc::EBADFD) => {
                    tracing::debug!("a queue of the tunnel interface is lost: {error}");
                    return false;
                }
                Err(error) => {
                    tracing::debug!("cannot read from the tunnel interface: {error}");
                    sleep(RETRY);
                }
            }
            true
        });
    }
}
