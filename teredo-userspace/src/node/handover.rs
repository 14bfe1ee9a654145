//! The handover of a node to the next process.

use std::{io, os::fd::OwnedFd};

use anyhow::Result;
use nix::libc::SIGHUP;
use tokio::sync::oneshot;

use super::{
    Node, client::ClientRole, clock, host::configured, keeper::Keeper, server::ServerRole,
};
use crate::{
    api::Gate,
    handover::{
        Inheritance, State, Store,
        descriptors::{self, Named},
        state::{DaemonState, RelayState},
        successor::{Failure, Invocation, Successor},
    },
    metrics::Role,
};

/// What a node has from the process before, and for the next.
#[derive(Debug, Default)]
pub struct Estate {
    /// The descriptors and the state of the process before.
    pub inheritance: Inheritance,
    /// The store of the service manager.
    pub store: Option<Store>,
    /// The listening sockets of the API, with their names.
    pub listeners: Vec<(String, OwnedFd)>,
    /// The command that starts the next process.
    pub invocation: Option<Invocation>,
}

/// Why [`Node::run`] has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The daemon is to stop.
    Stop,
    /// Another process has taken over.
    Replaced,
}

/// The request for a new process, to be answered when that runs.
#[derive(Debug)]
pub struct Replacement(pub oneshot::Sender<Result<(), String>>);

impl Estate {
    /// Returns the keeper of all this.
    pub(super) fn into_keeper(self) -> io::Result<Keeper> {
        Keeper::new(
            self.inheritance,
            self.store,
            self.listeners,
            self.invocation,
        )
    }
}

impl Node {
    /// Returns the state of the roles for the next process. If this one goes on, it is that which a crash
    /// must not lose: little, and independent of the number of peers.
    fn saved(&self, is_last: bool) -> State {
        let now = clock::now();
        State {
            daemon: Some(DaemonState {
                draining: self
                    .draining
                    .keys()
                    .map(|role| role.name().into())
                    .collect(),
                announcement: self.announcement.save(),
            }),
            relay: self.roles.relay.as_ref().map(|role| RelayState {
                endpoint: role.endpoint(),
                relay: match is_last {
                    true => role.relay().state(now),
                    false => teredo_proto::relay::State::of_secrets(role.relay().secrets()),
                },
            }),
            fleet: self.roles.relay.as_ref().and_then(|role| match is_last {
                true => role.fleet_state(),
                false => None,
            }),
            server: self.roles.server.as_ref().map(|role| match is_last {
                true => role.protocol().state(now),
                false => role.protocol().state_of_clients(),
            }),
            client: self.client.as_ref().map(|role| role.client.save(now)),
            server_names: self.client.as_ref().map(ClientRole::server_names),
        }
    }

    /// Returns the descriptors that outlive the process, each once.
    fn descriptors(&self) -> Vec<Named<'_>> {
        let mut all = Vec::new();
        all.extend(self.roles.relay.iter().flat_map(|role| role.descriptors()));
        all.extend(self.roles.server.iter().flat_map(ServerRole::descriptors));
        all.extend(self.client.iter().flat_map(|role| role.descriptors()));
        all.extend(self.fast_path.descriptors());
        all.extend(self.keeper.descriptors());
        all.sort_by_key(|(name, _)| (descriptors::is_further(name), name.clone()));
        all.dedup_by(|(name, _), (other, _)| name == other);
        all
    }

    /// Notes what a crash must not lose, if it outlives the process.
    pub(super) fn note_state(&mut self) {
        if let Some(relay) = &mut self.roles.relay {
            relay.note_peers();
        }
        if self.keeper.store.is_some() {
            let state = self.saved(false);
            self.keeper.write(&state);
        }
    }

    /// Brings the store of the service manager up to date.
    pub(super) fn keep(&mut self) {
        if self.has_all_roles() {
            // Nobody will ask for the rest.
            self.keeper.settle();
        }
        let Some(mut store) = self.keeper.store.take() else {
            return;
        };
        let inheritance = &self.keeper.inheritance;
        let kept = store.keep(&self.descriptors(), |name| inheritance.has(name));
        if let Err(error) = kept {
            tracing::debug!("the service manager does not keep descriptors: {error}");
        }
        self.keeper.store = Some(store);
    }

    fn has_all_roles(&self) -> bool {
        configured(&self.config).into_iter().all(|role| match role {
            Role::Relay => self.roles.relay.is_some(),
            Role::Server => self.roles.server.is_some(),
            Role::Client => self.client.is_some(),
        })
    }

    /// Stops the work without a trace of that for others: the next process takes everything over.
    fn come_to_rest(&mut self) {
        self.fast_path.end_capture();
        if let Some(server) = &mut self.roles.server {
            server.empty_mailboxes();
        }
        if let Some(relay) = &mut self.roles.relay {
            relay.come_to_rest();
            relay.flush(&mut self.fast_path, self.roles.server.as_mut());
            relay.make_room();
        }
        if let Some(client) = &mut self.client {
            client.make_room();
        }
        self.finish_accounts();
        let state = self.saved(true);
        self.keeper.write(&state);
    }

    /// Ends the work at the request of the service manager, and leaves everything in its store.
    ///
    /// # Errors
    ///
    /// When the service manager does not answer.
    pub fn leave(mut self) -> io::Result<()> {
        self.requests.set_gate(Gate::Closed);
        // Who starts the service again wants it to serve.
        self.draining.clear();
        self.come_to_rest();
        self.keep();
        crate::handover::store::barrier()
    }

    /// Returns whether everything outlives the process in the store of the service manager.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.keeper.store.is_some()
    }

    /// Starts a new process and hands over to it. Returns whether it runs; otherwise this one goes on.
    pub(super) async fn replace(&mut self, replacement: Replacement) -> bool {
        let mut requesters = vec![replacement];
        let replaced = self.try_replace(&mut requesters).await;
        if let Err(error) = &replaced {
            tracing::error!("a new process does not take over, and this one goes on: {error}");
        }
        let outcome = replaced.map_err(|error| error.to_string());
        for requester in requesters {
            // It may be gone.
            let _ = requester.0.send(outcome.clone());
        }
        outcome.is_ok()
    }

    async fn try_replace(&mut self, requesters: &mut Vec<Replacement>) -> Result<(), Failure> {
        let mut successor = self.start_successor(requesters).await?;
        // The listening sockets are the successor's, too.
        self.requests.set_gate(Gate::Shut);
        self.come_to_rest();
        if let Err(error) = successor.take_over(&self.descriptors()).await {
            drop(successor);
            self.go_on();
            return Err(error);
        }
        tracing::info!("process {} has taken over", successor.process());
        self.requests.set_gate(Gate::Closed);
        if self.requests.want_replacement() {
            // The configuration has changed since the successor read it.
            successor.pass_on(SIGHUP);
        }
        self.keeper.successor = Some(successor);
        Ok(())
    }

    /// Starts a process, and waits until it can take over. Another request meanwhile starts another process,
    /// as the configuration may have changed since this one read it.
    async fn start_successor(
        &mut self,
        requesters: &mut Vec<Replacement>,
    ) -> Result<Successor, Failure> {
        let Some(invocation) = self.keeper.invocation.clone() else {
            return Err(io::Error::from(io::ErrorKind::Unsupported).into());
        };
        loop {
            let mut successor = Successor::start(&invocation, &self.config.node.name)?;
            // Packets do not wait for a process that starts.
            tokio::select! {
                ready = successor.ready() => return ready.map(|()| successor),
                another = self.serve() => requesters.push(another),
            }
        }
    }

    /// Goes on after another process has perhaps taken something over, and failed.
    fn go_on(&mut self) {
        self.requests.set_gate(Gate::Open);
        if let Some(relay) = &mut self.roles.relay {
            relay.go_on();
        }
        self.fast_path.doubt();
        self.upkeep.look_soon();
    }

    /// Returns the process that has taken over, once.
    pub fn take_successor(&mut self) -> Option<Successor> {
        self.keeper.successor.take()
    }
}
