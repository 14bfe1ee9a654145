//! The event loop that connects the datapath with the protocol.
//!
//! One thread does everything, except for what the [other threads](relay) of a relay carry. Packets move in
//! batches: those that one system call delivers go through the protocol together, and leave with the next
//! system call.

mod accounting;
mod calendar;
mod client;
mod clock;
mod events;
mod evidence;
mod explain;
pub mod fast_path;
mod fleet;
mod handover;
mod host;
mod keeper;
mod parameters;
mod port;
mod rates;
mod relay;
mod requests;
mod roles;
mod send_failures;
mod server;
mod start;
mod suspend;
mod timer;
mod tunnel;
mod upkeep;
mod withdrawal;

use std::{
    collections::BTreeMap,
    future::{Future, pending},
    time::{Duration, Instant as StartTime, SystemTime},
};

use anyhow::{Context as _, Result};
use teredo_proto::server::RegisteredClient;
use tokio::time::{MissedTickBehavior, interval};

use calendar::Calendar;
use client::ClientRole;
pub use client::port_mapping_directory;
use evidence::Evidence;
use fast_path::{FastPath, SWEEP_PAUSE};
use handover::Replacement;
pub use handover::{End, Estate};
use keeper::Keeper;
use rates::Rates;
use relay::RelayRole;
use roles::Roles;
use server::ServerRole;
use suspend::SuspendClock;
use upkeep::Upkeep;
use withdrawal::Withdrawal;

use crate::{
    api::{Handle, Request, Requests},
    config::{Config, secrets::Secrets},
    datapath::{
        route::Routes,
        watch::{Changes, StaleNeighbour, Watch},
    },
    ipfix::Exporter,
    metrics::{Role, Turns},
    plan::Announcement,
};

/// The interval at which the map of the fast path is reconciled with the relay.
const SWEEP: Duration = Duration::from_secs(1);
/// The most neighbours that the kernel is made to confirm at one sweep.
const PROBES: usize = 64;

/// What a start does about a host that lacks something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// It waits until the host has it.
    Wait,
    /// It fails.
    Fail,
}

/// The running roles and their parts of the host.
///
/// Dropping it without [`Node::run`] leaves TUN interfaces to the next start, as a crash does.
#[derive(Debug)]
pub struct Node {
    config: Config,
    /// The clients of the server with their keys.
    clients: Vec<RegisteredClient>,
    /// The keys of the relay's fleet.
    fleet: Option<teredo_proto::fleet::Keys>,
    started: StartTime,
    roles: Roles,
    client: Option<ClientRole>,
    calendar: Calendar,
    fast_path: FastPath,
    routes: Routes,
    watch: Watch,
    upkeep: Upkeep,
    suspend: SuspendClock,
    rates: Rates,
    /// The states of the roles that readers of events know.
    states: BTreeMap<Role, String>,
    turns: Turns,
    /// The evidence of a firewall in the way of the relay's datagrams, and of its packets.
    evidence: [Evidence; 2],
    /// The roles that drain, and the time for which they go on to accept new clients and peers: that of the relay counts
    /// from the moment at which its route has gone.
    draining: BTreeMap<Role, Duration>,
    announcement: Announcement,
    withdrawal: Withdrawal,
    /// Whether the peers that an earlier run left in the map were handed to the relay.
    is_handed_over: bool,
    keeper: Keeper,
    /// The request for a new process, until it runs.
    replacement: Option<Replacement>,
    requests: Requests,
    handle: Handle,
    /// Reports the traffic of peers to a collector.
    exporter: Option<Exporter>,
}

/// An input that is ready.
enum Input {
    Relay(relay::Input),
    Server(server::Input),
    Client(client::Input),
    Sweep,
    /// The next slice of the sweep is due.
    Slice,
    Request(Request),
    Changes(std::io::Result<Changes>),
    Look(bool),
    FastPath(fast_path::Input),
}

impl Node {
    /// Sets everything up that the host permits: sockets, TUN interfaces, the fast path, and finally
    /// routes. Must be called in a tokio runtime of one thread.
    ///
    /// # Errors
    ///
    /// When a part of the configuration cannot be set up, and waiting would not help or is not wanted: a
    /// sentence with the reason and the remedy. Nothing new is left behind then.
    pub async fn start(
        config: Config,
        secrets: Secrets,
        patience: Patience,
        estate: Estate,
    ) -> Result<Self> {
        start::start(config, secrets, patience, estate).await
    }

    /// Returns a handle for requests to the running node.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until `shutdown` is ready or another process has taken over, and returns which of the two.
    pub async fn run(&mut self, shutdown: impl Future<Output = ()>) -> End {
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let replacement = tokio::select! {
                replacement = self.serve() => replacement,
                () = &mut shutdown => return End::Stop,
            };
            tokio::select! {
                is_replaced = self.replace(replacement) => {
                    if is_replaced {
                        return End::Replaced;
                    }
                }
                () = &mut shutdown => return End::Stop,
            }
        }
    }

    /// Serves until a new process is wanted.
    async fn serve(&mut self) -> Replacement {
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut slice = interval(SWEEP_PAUSE);
        slice.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let roles = &mut self.roles;
            let input = tokio::select! {
                input = relay_input(roles.relay.as_mut()) => Input::Relay(input),
                input = server_input(roles.server.as_mut()) => Input::Server(input),
                input = client_input(self.client.as_mut()) => Input::Client(input),
                _ = sweep.tick() => Input::Sweep,
                _ = slice.tick(), if self.fast_path.is_sweeping() => Input::Slice,
                input = self.fast_path.input() => Input::FastPath(input),
                Some(request) = self.requests.recv() => Input::Request(request),
                changes = self.watch.changed() => Input::Changes(changes),
                has_snapshot = self.upkeep.looked(&self.routes) => Input::Look(has_snapshot),
            };
            let start = StartTime::now();
            self.handle_input(input).await;
            self.turns.add(start.elapsed());
            if let Some(replacement) = self.replacement.take() {
                return replacement;
            }
        }
    }

    async fn handle_input(&mut self, input: Input) {
        match input {
            Input::Relay(input) => {
                if let Some(relay) = &mut self.roles.relay {
                    relay.handle(input, self.roles.server.as_mut());
                    relay.flush(&mut self.fast_path, self.roles.server.as_mut());
                    if matches!(input, relay::Input::Fleet(_)) && relay.has_fleet_changed() {
                        self.upkeep.look_soon();
                    }
                }
            }
            Input::Server(input) => {
                if let Some(server) = &mut self.roles.server {
                    server.handle(input);
                }
            }
            Input::Client(input) => {
                if let Some(client) = &mut self.client {
                    client.handle(input);
                    let trusted = client.client.trusted_peers();
                    let has_changed = client.take_changed();
                    if has_changed {
                        self.publish_states();
                        self.upkeep.look_soon();
                    }
                    if has_changed || self.keeper.is_state_due(trusted, clock::now()) {
                        self.note_state();
                    }
                }
            }
            Input::Sweep => {
                self.sweep();
                self.confirm_neighbours();
            }
            Input::Slice => self.sweep_on(),
            Input::Request(request) => self.handle_request(request),
            Input::FastPath(input) => self.fast_path.handle(input),
            Input::Changes(Ok(changes)) => self.handle_changes(changes).await,
            Input::Changes(Err(error)) => self.reopen_watch(&error).await,
            Input::Look(has_snapshot) => {
                self.reconcile(has_snapshot).await;
                self.keep();
            }
        }
    }

    fn sweep(&mut self) {
        if let Some(duration) = self.suspend.suspension() {
            self.handle_suspension(duration);
        }
        for role in self.calendar.roles_over(SystemTime::now()) {
            self.drain_role(role);
        }
        self.fast_path.begin_look();
        if self.fast_path.examine_tags() {
            self.upkeep.look_soon();
        }
        if let Some(relay) = &mut self.roles.relay {
            relay.go_on();
            self.fast_path
                .sweep(&mut relay.settled_relay(), clock::now());
            // A small map needs no other slice.
            self.fast_path
                .sweep_on(&mut relay.settled_relay(), clock::now());
            relay.flush(&mut self.fast_path, self.roles.server.as_mut());
        }
        self.account();
        self.measure();
        self.note_state();
        self.keep();
        if self.keeper.is_over() {
            self.roles.relay.iter().for_each(RelayRole::end_room);
            self.client.iter().for_each(ClientRole::end_room);
        }
    }

    fn sweep_on(&mut self) {
        if let Some(relay) = &mut self.roles.relay {
            self.fast_path
                .sweep_on(&mut relay.settled_relay(), clock::now());
            relay.flush(&mut self.fast_path, self.roles.server.as_mut());
        }
    }

    /// Ends the freshness of everything that was learnt before the host was suspended (P-04), since the
    /// clock of the protocol stood still.
    fn handle_suspension(&mut self, duration: Duration) {
        tracing::info!("the host was suspended for {} s", duration.as_secs());
        if let Some(relay) = &mut self.roles.relay {
            relay.relay().handle_suspension(duration);
            relay.clear_journal();
            relay.flush(&mut self.fast_path, self.roles.server.as_mut());
        }
        if let Some(server) = &mut self.roles.server {
            let protocol = server.protocol_mut();
            protocol.handle_suspension(clock::now(), duration);
            self.fast_path.set_drain_end(protocol.drain_end());
        }
        if let Some(client) = &mut self.client {
            client.handle_suspension(duration);
        }
        self.fast_path.forget_next_hops();
        self.upkeep.look_soon();
    }

    /// Makes every role accept no new clients and peers from now on (S-27, R-26).
    fn drain(&mut self) {
        self.drain_role(Role::Relay);
        self.drain_role(Role::Server);
    }

    fn drain_role(&mut self, role: Role) {
        if !self.draining.contains_key(&role) {
            let wait = match role {
                // Routers follow the route first: what still comes meanwhile is served.
                Role::Relay => self.withdraw(),
                Role::Server | Role::Client => Duration::ZERO,
            };
            self.draining.insert(role, wait);
        }
        self.go_on_draining();
        self.publish_states();
        self.upkeep.look_soon();
    }

    /// Makes the roles refuse new clients and peers whose time for that has come. A role that waits for the host
    /// does as soon as it runs.
    fn go_on_draining(&mut self) {
        let now = clock::now();
        for (&role, &wait) in &self.draining {
            if !wait.is_zero() {
                let Some(since) = self.withdrawal.since else {
                    continue;
                };
                let due = since + wait;
                if now < due {
                    self.upkeep.look_after(due.saturating_since(now));
                    continue;
                }
            }
            match (role, &mut self.roles.relay, &mut self.roles.server) {
                (Role::Relay, Some(relay), _) => relay.relay().drain(),
                (Role::Server, _, Some(server)) if !server.protocol().is_draining() => {
                    server.protocol_mut().drain(now);
                    self.fast_path.set_drain_end(server.protocol().drain_end());
                }
                _ => {}
            }
        }
    }

    /// Applies changes of the kernel's routing.
    async fn handle_changes(&mut self, changes: Changes) {
        if changes.depths {
            // Before the next hops become invalid, so that none is cached for too many destinations.
            self.fast_path.set_depths(self.watch.depths());
        }
        self.fast_path.handle_changes(&changes);
        if changes.addresses || changes.routes {
            self.upkeep.look_soon();
        }
        // After an outage, an event is the first sign that the network is back.
        if let Some(client) = &mut self.client {
            client.hasten();
        }
    }

    /// Makes the kernel confirm neighbours that the fast path uses, which the kernel does not know.
    fn confirm_neighbours(&mut self) {
        if !self.fast_path.collect_stations(clock::now()) {
            // This process was stopped, and changes may wait.
            self.watch.doubt();
            self.fast_path.set_depths(self.watch.depths());
        }
        let stale = self.watch.stale();
        let used = stale
            .filter(|(neighbour, station)| self.fast_path.sends_to(neighbour.interface, *station));
        let due: Vec<_> = used.map(|(neighbour, _)| neighbour).take(PROBES).collect();
        for neighbour in due {
            self.probe(neighbour);
        }
    }

    /// Subscribes to changes again after the subscription has failed. Meanwhile the host is looked at
    /// more often.
    async fn reopen_watch(&mut self, error: &std::io::Error) {
        tracing::debug!("the subscription to changes of the host has failed: {error}");
        match Watch::open() {
            Ok(watch) => {
                self.watch = watch;
                self.watch.set_prefixes(self.upkeep.scope.prefixes.clone());
            }
            Err(_) => tokio::time::sleep(port::RETRY).await,
        }
        // Changes may be lost.
        self.watch.doubt();
        self.fast_path.set_depths(self.watch.depths());
        self.fast_path.forget_next_hops();
        self.upkeep.look_soon();
    }

    /// Has the kernel find out whether a neighbour is still there, and does not wait for it.
    fn probe(&self, neighbour: StaleNeighbour) {
        let routes = self.routes.clone();
        self.routes.spawn(async move {
            let probed = routes.probe(neighbour.interface, neighbour.address);
            if let Err(error) = probed.await {
                tracing::debug!("{error}");
            }
        });
    }

    /// Undoes everything that [`Self::start`] set up.
    ///
    /// # Errors
    ///
    /// When cleaning up fails.
    pub async fn stop(mut self) -> Result<()> {
        if let Some(relay) = &mut self.roles.relay {
            relay.come_to_rest();
        }
        self.finish_accounts();
        let stopped = std::mem::take(&mut self.fast_path).stop();
        if let Some(client) = &mut self.client {
            client.stop().await;
        }
        self.restore_settings();
        for (interface, _) in self.tunnels() {
            self.routes.remove_link(interface).await?;
        }
        stopped.context("the fast path was not removed completely")
    }

    /// Iterates over the TUN interfaces of all roles, and whether an earlier run left them.
    fn tunnels(&self) -> impl Iterator<Item = (u32, bool)> {
        let relay = self.roles.relay.as_ref().map(|role| role.tunnel.origin());
        let server = self.roles.server.as_ref().and_then(ServerRole::tunnel);
        let client = self.client.as_ref().map(|role| role.tunnel.origin());
        relay
            .into_iter()
            .chain(server.map(tunnel::Tunnel::origin))
            .chain(client)
    }
}

/// Waits for input of the relay; forever without a relay.
async fn relay_input(relay: Option<&mut RelayRole>) -> relay::Input {
    match relay {
        Some(relay) => relay.input().await,
        None => pending().await,
    }
}

/// Waits for input of the server; forever without a server.
async fn server_input(server: Option<&mut ServerRole>) -> server::Input {
    match server {
        Some(server) => server.input().await,
        None => pending().await,
    }
}

/// Waits for input of the client; forever without a client.
async fn client_input(client: Option<&mut ClientRole>) -> client::Input {
    match client {
        Some(client) => client.input().await,
        None => pending().await,
    }
}
