//! The event loop that joins the datapath and the protocol.
//!
//! One thread does everything. Packets move in batches: what one system call delivered goes
//! through the protocol, and leaves with the next one.

mod answers;
mod calendar;
pub(crate) mod client;
mod clock;
pub mod fast_path;
mod parameters;
mod port;
mod relay;
mod server;
mod start;

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

/// How often the fast path's peers are compared with the relay's.
const SWEEP: Duration = Duration::from_secs(1);

/// The roles that run, with what they need of the host.
///
/// Dropped without [`Node::run`] it leaves TUN interfaces to the next start, as a crash does.
#[derive(Debug)]
pub struct Node {
    config: config::Node,
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
    /// Sets everything up: sockets, TUN interfaces, the fast path, and at last routes. Must be
    /// called in a tokio runtime of one thread.
    ///
    /// # Errors
    ///
    /// When something that the configuration asks for cannot be had, with the reason and the mend.
    /// Nothing new is left behind then.
    pub async fn start(config: config::Config, secrets: Secrets) -> Result<Self> {
        start::start(config, secrets).await
    }

    /// For asking the node while it runs.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until `shutdown` is ready, then takes everything back.
    ///
    /// # Errors
    ///
    /// When a socket or a TUN interface fails for good, or something cannot be taken back.
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
                        relay.settle(&mut self.fast_path, self.server.as_mut())?;
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
                Some(request) = self.requests.recv() => self.answer(request)?,
                changes = self.watch.changed() => {
                    let changes = changes.context("cannot watch the kernel's routing")?;
                    self.follow(changes).await?;
                }
            }
        }
    }

    async fn sweep(&mut self) -> Result<()> {
        if let Some(client) = &mut self.client {
            client.look_at_the_clocks(&self.routes).await?;
        }
        for role in self.calendar.turn(SystemTime::now()) {
            self.drain_role(role)?;
        }
        if let Some(relay) = &mut self.relay {
            self.fast_path.sweep(&mut relay.relay)?;
            relay.settle(&mut self.fast_path, self.server.as_mut())?;
        } else {
            self.fast_path.flush_log();
        }
        Ok(())
    }

    /// Has every role take no new clients and peers from now on (S-27, R-26).
    fn drain(&mut self) -> Result<()> {
        self.drain_role(Role::Relay)?;
        self.drain_role(Role::Server)
    }

    fn drain_role(&mut self, role: Role) -> Result<()> {
        match (role, &mut self.relay, &mut self.server) {
            (Role::Relay, Some(relay), _) => relay.relay.drain(),
            (Role::Server, _, Some(server)) if !server.protocol().is_draining() => {
                let now = clock::now();
                server.server().drain(now);
                self.fast_path.drain(now + DRAIN)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Follows a change of the kernel's routing.
    async fn follow(&mut self, changes: Changes) -> Result<()> {
        self.fast_path.forget_routes()?;
        let addresses = if changes.addresses {
            Some(self.routes.addresses().await?)
        } else {
            None
        };
        if let Some(addresses) = &addresses {
            self.fast_path.set_own_ipv4(&addresses.ipv4)?;
            if let Some(relay) = &mut self.relay {
                relay.learn(addresses, &self.routes).await?;
                relay.settle(&mut self.fast_path, self.server.as_mut())?;
            }
        }
        if let Some(server) = &mut self.server {
            server.follow(addresses.as_ref())?;
        }
        if let Some(client) = &mut self.client
            && (changes.addresses || changes.routes)
        {
            client.follow(&self.routes).await?;
        }
        // Nobody but the kernel knows that the fast path still uses them.
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

    /// The TUN interfaces of all roles, and whether an earlier run has left them.
    fn interfaces(&self) -> impl Iterator<Item = (u32, bool)> {
        let relay = self.relay.as_ref().map(RelayRole::tun);
        let server = self.server.as_ref().and_then(ServerRole::tun);
        let client = self.client.as_ref().map(ClientRole::tun);
        let tuns = relay.into_iter().chain(server).chain(client);
        tuns.map(|tun| (tun.index(), tun.is_taken_over()))
    }

    /// Takes everything back.
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

/// Waits for something that the relay has to do; forever, if there is none.
async fn relay_input(relay: Option<&mut RelayRole>) -> Result<relay::Input> {
    match relay {
        Some(relay) => relay.input().await,
        None => pending().await,
    }
}

/// Waits for something that the server has to do; forever, if there is none.
async fn server_input(server: Option<&mut ServerRole>) -> Result<server::Input> {
    match server {
        Some(server) => server.input().await,
        None => pending().await,
    }
}

/// Waits for something that the client has to do; forever, if there is none.
async fn client_input(client: Option<&mut ClientRole>) -> Result<client::Input> {
    match client {
        Some(client) => client.input().await,
        None => pending().await,
    }
}
