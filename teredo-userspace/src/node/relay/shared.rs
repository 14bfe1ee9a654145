//! The part of a relay that its threads share: the protocol.
//!
//! Nine tenths of the time for a packet are those of system calls, which need nothing of what is here. So one relay, with
//! one table of peers and one set of limits, serves all threads: each has its turn with a batch of packets, and makes its
//! calls outside of it.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use teredo_common::{time::Instant, wire::IPV6_HEADER};
use teredo_proto::relay::Relay;
use tokio::sync::Notify;

use crate::{capture::Tap, node::send_failures::SendFailures};

/// The relay as its threads share it.
#[derive(Debug)]
pub struct Shared {
    core: Mutex<Core>,
    /// Wakes the event loop, which applies events and waits for deadlines.
    pub call: Notify,
    /// Held while packets are on their way out that nothing may overtake.
    sending: RwLock<()>,
    /// Packets that the kernel refused, in the order of [`SendFailures`].
    failures: [AtomicU64; 2],
}

/// The protocol, and what goes with it.
#[derive(Debug)]
pub struct Core {
    /// The protocol.
    pub relay: Relay,
    /// Captures packets.
    pub tap: Tap,
    /// Datagrams from clients, and packets from the kernel, since the start.
    pub received: [u64; 2],
    /// Bubbles for the server in the same process.
    pub bubbles: Vec<[u8; IPV6_HEADER]>,
    /// The deadline that the event loop waits for.
    pub deadline: Option<Instant>,
}

/// The turn of one thread, which sees the protocol in it.
pub struct Turn<'a>(MutexGuard<'a, Core>);

impl Shared {
    /// Shares the protocol.
    pub fn new(relay: Relay) -> Self {
        Self {
            core: Mutex::new(Core {
                relay,
                tap: Tap::default(),
                received: [0; 2],
                bubbles: Vec::new(),
                deadline: None,
            }),
            call: Notify::new(),
            sending: RwLock::new(()),
            failures: Default::default(),
        }
    }

    /// Waits for the turn of this thread.
    pub fn turn(&self) -> MutexGuard<'_, Core> {
        // A thread that fails ends the process.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn of this thread, for the protocol alone.
    pub fn relay(&self) -> Turn<'_> {
        Turn(self.turn())
    }

    /// Marks packets as being sent until the guard is dropped. Call it within a turn.
    pub fn send(&self) -> RwLockReadGuard<'_, ()> {
        self.sending.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no packets of other threads are on their way out. Within a turn, none follow.
    pub fn wait_for_sent(&self) {
        drop(self.sending.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Counts IPv6 packets that the tunnel interface did not take.
    pub fn add_decapsulated(&self, packets: usize) {
        self.failures[0].fetch_add(packets as u64, Relaxed);
    }

    /// Counts datagrams that the socket did not take.
    pub fn add_encapsulated(&self, datagrams: usize) {
        self.failures[1].fetch_add(datagrams as u64, Relaxed);
    }

    /// Returns the packets that the kernel did not take.
    pub fn failures(&self) -> SendFailures {
        let [decapsulated, encapsulated] =
            [0, 1].map(|kind: usize| self.failures[kind].load(Relaxed));
        SendFailures {
            decapsulated,
            encapsulated,
        }
    }
}

impl Core {
    /// Returns whether there is something for the event loop to do: an event, news for a fleet, a bubble for the server, or
    /// a deadline before the one that it waits for.
    pub fn needs_event_loop(&self) -> bool {
        let due = self.relay.poll_timeout();
        self.relay.has_news()
            || !self.bubbles.is_empty()
            || due.is_some_and(|due| self.deadline.is_none_or(|deadline| due < deadline))
    }
}

impl Deref for Turn<'_> {
    type Target = Relay;

    fn deref(&self) -> &Relay {
        &self.0.relay
    }
}

impl DerefMut for Turn<'_> {
    fn deref_mut(&mut self) -> &mut Relay {
        &mut self.0.relay
    }
}
