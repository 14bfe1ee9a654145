//! What this process got from the one before, and what it leaves to the next.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use teredo_common::time::Instant;

use super::tunnel::Lifetime;
use crate::handover::{
    Inheritance, State, Store,
    descriptors::{Named, STATE, UDP, UDP_FURTHER, is, is_tun_of, named},
    memory::Memory,
    successor::{Invocation, Successor},
};
use crate::metrics::Role;

/// The least time between two states that are written because of new peers.
const NOTE_INTERVAL: Duration = Duration::from_millis(50);

/// Seconds after which everything is received that came during a handover.
const HANDOVER_SECONDS: u32 = 10;

/// The keeper of descriptors and state.
#[derive(Debug)]
pub struct Keeper {
    /// The part of an earlier process that was not taken yet.
    pub inheritance: Inheritance,
    /// The store of the service manager, if the service has one.
    pub store: Option<Store>,
    /// The state, of which one file is whole while the other is written.
    files: [Memory; 2],
    written: u64,
    /// The listening sockets of the API.
    listeners: Vec<(String, OwnedFd)>,
    /// The command that starts the next process.
    pub invocation: Option<Invocation>,
    /// The process that has taken over.
    pub successor: Option<Successor>,
    /// The number of the client's trusted peers in the state that was written last, and when that was.
    noted: (usize, Instant),
    /// Calls of [`Keeper::is_over`].
    seconds: u32,
}

impl Keeper {
    /// Creates a keeper; `listeners` are the sockets of the API with their names.
    ///
    /// # Errors
    ///
    /// When there is no memory, or too many files are open.
    pub fn new(
        inheritance: Inheritance,
        mut store: Option<Store>,
        listeners: Vec<(String, OwnedFd)>,
        invocation: Option<Invocation>,
    ) -> io::Result<Self> {
        if let Some(store) = &mut store {
            store.contains(inheritance.all_names());
        }
        Ok(Self {
            written: inheritance.sequence,
            inheritance,
            store,
            files: [Memory::new()?, Memory::new()?],
            listeners,
            invocation,
            successor: None,
            noted: (0, Instant::ZERO),
            seconds: 0,
        })
    }

    /// Closes what is left of the process before.
    pub fn settle(&mut self) {
        self.inheritance.close();
    }

    /// Returns whether there was an earlier process.
    pub fn inherits(&self) -> bool {
        !self.inheritance.is_empty()
    }

    /// Returns the time for which tunnel interfaces exist: as long as the store, or until the daemon stops.
    pub fn lifetime(&self) -> Lifetime {
        match self.store {
            Some(_) => Lifetime::Process,
            None => Lifetime::Persistent,
        }
    }

    /// Returns the descriptors of the keeper itself.
    pub fn descriptors(&self) -> impl Iterator<Item = Named<'_>> {
        let files = self.files.iter().filter_map(|file| named(STATE, file));
        let listeners = self.listeners.iter();
        files.chain(listeners.map(|(name, listener)| (name.clone(), listener.as_fd())))
    }

    /// Returns whether this is the moment at which nothing is left of the handover. To be called once a second.
    pub fn is_over(&mut self) -> bool {
        self.seconds = self.seconds.saturating_add(1);
        self.seconds == HANDOVER_SECONDS
    }

    /// Returns whether to write the state since the client has this many trusted peers. That is not worth
    /// while for each packet of a flood.
    pub fn is_state_due(&mut self, trusted: usize, now: Instant) -> bool {
        let (noted, at) = self.noted;
        let is_due = trusted != noted && now.saturating_since(at) >= NOTE_INTERVAL;
        if is_due {
            self.noted = (trusted, now);
        }
        is_due
    }

    /// Writes the state for the next process.
    pub fn write(&mut self, state: &State) {
        let older = &self.files[usize::from(self.written % 2 == 1)];
        self.written += 1;
        if let Err(error) = older.write(self.written, &state.encode()) {
            tracing::warn!("the state cannot be stored: {error}");
        }
    }

    /// Makes the store give up the UDP ports and the tunnel interfaces of relay and server, which are about to be opened
    /// anew. Otherwise the store would keep queues of the old interface that nobody reads.
    pub fn release_roles(&mut self) {
        let Some(store) = &mut self.store else {
            return;
        };
        let is_gone = |name: &str| {
            let is_port = UDP.iter().chain([&UDP_FURTHER]).any(|kind| is(name, kind));
            is_port || is_tun_of(name, Role::Relay) || is_tun_of(name, Role::Server)
        };
        if let Err(error) = store.remove_if(is_gone) {
            tracing::warn!("the service manager does not give up ports and interfaces: {error}");
        }
    }
}
