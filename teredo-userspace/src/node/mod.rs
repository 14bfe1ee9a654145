//! The event loop that connects the datapath with the protocol.
//!
//! One thread does everything. Packets move in batches: those that one system call delivers go
//! through the protocol together, and leave with the next system call.

mod calendar;
mod client;
mod clock;
pub mod fast_path;
mod parameters;
mod port;
mod relay;
mod requests;
mod send_failures;
mod server;
mod start;
mod timer;

use std::{
    future::{Future, pending},
    time::{Duration, Instant as StartTime, SystemTime},
};

use anyhow::{Context as _, Result};
use teredo_proto::server::DRAIN;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use calendar::Calendar;
use client::ClientRole;
use fast_path::FastPath;
use relay::RelayRole;
use server::ServerRole;

use crate::{
    api::{Handle, Request},
    config::{self, secrets::Secrets},
    datapath::{
        route::Routes,
        watch::{Changes, StaleNeighbour, Watch},
    },
    metrics::Role,
};

/// The interval at which the map of the fast path is reconciled with the relay.
const SWEEP: Duration = Duration::from_secs(1);

/// The running roles and their parts of the host.
///
/// Dropping it without [`Node::run`] leaves TUN interfaces to the next start, as a crash does.
#[derive(Debug)]
pub struct Node {
    config: config::NodeSection,
    started: StartTime,
    relay: Option<RelayRole>,
    server: Option<ServerRole>,
    client: Option<ClientRole>,
    calendar: Calendar,
    fast_path: FastPath,
    routes: Routes,
    watch: Watch,
    requests: mpsc::Receiver<Request>,
    handle: Handle,
}

impl Node {
    /// Sets everything up: sockets, TUN interfaces, the fast path, and finally routes. Must be called
    /// in a tokio runtime of one thread.
    ///
    /// # Errors
    ///
    /// When a part of the configuration cannot be set up: a sentence with the reason and the remedy.
    /// Nothing new is left behind then.
    pub async fn start(config: config::Config, secrets: Secrets) -> Result<Self> {
        start::start(config, secrets).await
    }

    /// Returns a handle for requests to the running node.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until `shutdown` is ready, then undoes everything that [`Node::start`] set up.
    ///
    /// # Errors
    ///
    /// When a socket or a TUN interface fails for good, or cleaning up fails.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let result = tokio::select! {
            result = self.serve() => result,
            () = shutdown => Ok(()),
        };
        result.and(self.stop().await)
    }

    async fn serve(&mut self) -> Result<()> {
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                input = relay_input(self.relay.as_mut()) => {
                    let input = input?;
                    if let Some(relay) = &mut self.relay {
                        relay.handle(input, self.server.as_mut());
                        relay.flush(&mut self.fast_path, self.server.as_mut())?;
                    }
                }
                input = server_input(self.server.as_mut()) => {
                    let input = input?;
                    if let Some(server) = &mut self.server {
                        server.handle(input);
                    }
                }
                input = client_input(self.client.as_mut()) => {
                    let input = input?;
                    if let Some(client) = &mut self.client {
                        client.handle(input, &self.routes).await?;
                    }
                }
                _ = sweep.tick() => self.sweep().await?,
                Some(request) = self.requests.recv() => self.handle_request(request)?,
                changes = self.watch.changed() => {
                    let changes = changes.context("cannot watch the kernel's routing")?;
                    self.handle_changes(changes).await?;
                }
            }
        }
    }

    async fn sweep(&mut self) -> Result<()> {
        if let Some(client) = &mut self.client {
            client.check_for_suspend(&self.routes).await?;
        }
        for role in self.calendar.roles_over(SystemTime::now()) {
            self.drain_role(role)?;
        }
        self.fast_path.examine_drops();
        if let Some(relay) = &mut self.relay {
            self.fast_path.sweep(&mut relay.relay)?;
            relay.flush(&mut self.fast_path, self.server.as_mut())?;
        } else {
            self.fast_path.flush_log();
        }
        Ok(())
    }

    /// Makes every role accept no new clients and peers from now on (S-27, R-26).
    fn drain(&mut self) -> Result<()> {
        self.drain_role(Role::Relay)?;
        self.drain_role(Role::Server)
    }

    fn drain_role(&mut self, role: Role) -> Result<()> {
        match (role, &mut self.relay, &mut self.server) {
            (Role::Relay, Some(relay), _) => relay.relay.drain(),
            (Role::Server, _, Some(server)) if !server.protocol().is_draining() => {
                let now = clock::now();
                server.protocol_mut().drain(now);
                self.fast_path.drain(now + DRAIN)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Applies changes of the kernel's routing.
    async fn handle_changes(&mut self, changes: Changes) -> Result<()> {
        if changes.hops {
            self.fast_path.invalidate_routes()?;
        }
        let addresses = if changes.addresses {
            Some(self.routes.addresses().await?)
        } else {
            None
        };
        if let Some(addresses) = &addresses {
            self.fast_path.set_own_ipv4(&addresses.ipv4)?;
            if let Some(relay) = &mut self.relay {
                relay.set_own_addresses(addresses, &self.routes).await?;
                relay.flush(&mut self.fast_path, self.server.as_mut())?;
            }
        }
        if let Some(server) = &mut self.server {
            server.handle_changes(addresses.as_ref())?;
        }
        if let Some(client) = &mut self.client
            && (changes.addresses || changes.routes)
        {
            client.handle_changes(&self.routes).await?;
        }
        // The kernel does not know that the fast path still uses them.
        for stale in changes.stale {
            if self.fast_path.uses(stale.interface) {
                self.probe(stale).await;
            }
        }
        Ok(())
    }

    async fn probe(&self, neighbour: StaleNeighbour) {
        let probed = self.routes.probe(neighbour.interface, neighbour.address);
        if let Err(error) = probed.await {
            tracing::debug!("{error}");
        }
    }

    /// Iterates over the TUN interfaces of all roles, and whether an earlier run left them.
    fn interfaces(&self) -> impl Iterator<Item = (u32, bool)> {
        let relay = self.relay.as_ref().map(RelayRole::tun);
        let server = self.server.as_ref().and_then(ServerRole::tun);
        let client = self.client.as_ref().map(ClientRole::tun);
        let tuns = relay.into_iter().chain(server).chain(client);
        tuns.map(|tun| (tun.index(), tun.is_taken_over()))
    }

    /// Undoes everything that [`Self::start`] set up.
    async fn stop(mut self) -> Result<()> {
        let stopped = std::mem::take(&mut self.fast_path).stop();
        if let Some(client) = &mut self.client {
            client.stop(&self.routes).await;
        }
        for (interface, _) in self.interfaces() {
            self.routes.remove_link(interface).await?;
        }
        Ok(stopped?)
    }
}

/// Waits for input of the relay; forever without a relay.
async fn relay_input(relay: Option<&mut RelayRole>) -> Result<relay::Input> {
    match relay {
        Some(relay) => relay.input().await,
        None => pending().await,
    }
}

/// Waits for input of the server; forever without a server.
async fn server_input(server: Option<&mut ServerRole>) -> Result<server::Input> {
    match server {
        Some(server) => server.input().await,
        None => pending().await,
    }
}

/// Waits for input of the client; forever without a client.
async fn client_input(client: Option<&mut ClientRole>) -> Result<client::Input> {
    match client {
        Some(client) => client.input().await,
        None => pending().await,
    }
}
