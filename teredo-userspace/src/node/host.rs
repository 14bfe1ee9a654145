//! The host as the plan asks for it: the acts of the reconciler are carried out here.

use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::net::if_::if_indextoname;
use teredo_common::verdict::Verdict;

use super::{
    Node,
    client::ClientRole,
    clock,
    evidence::Passage,
    fast_path::{FastPath, PlaceError},
    relay::RelayRole,
    roles::{Addresses, Roles},
    server::ServerRole,
    tunnel::Tunnel,
};
use crate::{
    condition::{Condition, Kind},
    config::Config,
    host::{Setting, bgp},
    metrics::Role,
    plan::{self, Act, FastPathItem, Item, Own, Plan, State},
};

/// The wait before roles are made again whose sockets could not be opened.
const RETRY: Duration = Duration::from_secs(1);
/// The prefix length of a tunnel's address. On-link routes are added separately.
const ADDRESS_PREFIX: u8 = 128;

/// An error of an act.
#[derive(Debug)]
pub enum ActError {
    /// The fast path is not as planned.
    FastPath(PlaceError),
    /// Anything else, as a clause for the user.
    Other(String),
}

impl std::fmt::Display for ActError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::FastPath(error) => write!(formatter, "no fast path: {error}"),
            Self::Other(text) => formatter.write_str(text),
        }
    }
}

/// Returns the parts of the network that belong to this daemon.
pub fn own(roles: &Roles, client: Option<&ClientRole>, fast_path: &FastPath) -> Own {
    let relay = roles.relay.as_ref().map(|role| &role.tunnel);
    let server = roles.server.as_ref().and_then(ServerRole::tunnel);
    let client = client.map(|role| &role.tunnel);
    let tunnels = [
        (Role::Relay, relay),
        (Role::Server, server),
        (Role::Client, client),
    ];
    let index = |(role, tunnel): (Role, Option<&Tunnel>)| Some((role, tunnel?.index()?));
    Own {
        tunnels: tunnels.into_iter().filter_map(index).collect(),
        fast_path: fast_path.item().cloned(),
        program: fast_path.program(),
    }
}

/// Returns the roles of a configuration.
pub fn configured(config: &Config) -> Vec<Role> {
    let relay = config.relay.as_ref().map(|_| Role::Relay);
    let server = config.server.as_ref().map(|_| Role::Server);
    let client = config.client.as_ref().map(|_| Role::Client);
    [relay, server, client].into_iter().flatten().collect()
}

impl Node {
    /// Returns the state of the daemon that the plan depends on.
    pub(super) fn state(&self) -> State {
        State {
            own: own(&self.roles, self.client.as_ref(), &self.fast_path),
            is_withdrawn: self.is_withdrawn(),
            waits_for_fleet: self
                .roles
                .relay
                .as_ref()
                .is_some_and(RelayRole::waits_for_fleet),
            fleet_trouble: self.roles.relay.as_ref().and_then(RelayRole::fleet_trouble),
            client: self.client.as_ref().and_then(ClientRole::tunnelled),
            hidden_tags: self.fast_path.hidden_tags().clone(),
        }
    }

    /// Returns the plan for the host as it is in the last snapshot.
    pub(super) fn plan(&mut self) -> Plan {
        let mut plan = Plan::make(&self.config, &self.upkeep.snapshot, &self.state());
        let now = clock::now();
        // The kernel goes through the places of all its connections to answer that.
        let speaks_bgp = self.announcement.depends_on_bgp() && bgp::is_spoken();
        self.announcement
            .apply(now, &self.config, speaks_bgp, &mut plan);
        if let Some(due) = self.announcement.poll_timeout() {
            self.upkeep.look_after(due.saturating_since(now));
        }
        plan
    }

    /// Makes the next look cover the roles' tunnels.
    pub(super) fn update_scope(&mut self) {
        let own = own(&self.roles, self.client.as_ref(), &self.fast_path);
        self.upkeep.scope = plan::scope(&self.config, &self.upkeep.snapshot, &own);
        self.watch.set_prefixes(self.upkeep.scope.prefixes.clone());
    }

    /// Brings the host nearer to the plan after a look. Trouble becomes a condition.
    pub(super) async fn reconcile(&mut self, has_snapshot: bool) {
        self.update_scope();
        self.go_on_draining();
        if has_snapshot {
            self.fast_path.recognise(&mut self.upkeep.snapshot);
            self.apply_snapshot();
        }
        let plan = self.plan();
        let mut trouble = None;
        if has_snapshot {
            match self.make_roles(&plan) {
                // Their interfaces are not in the snapshot yet.
                Ok(true) => self.upkeep.look_at_acts(),
                Ok(false) => self.carry_out(&plan).await,
                Err(error) => {
                    let role = configured(&self.config)[0];
                    trouble = Some(condition(role, Kind::Socket, "", sentence(&error)));
                    self.upkeep.look_after(RETRY);
                }
            }
        }
        self.note_withdrawal();
        self.set_conditions(plan, trouble);
    }

    async fn carry_out(&mut self, plan: &Plan) {
        if let Some(refusal) = &plan.refusal {
            self.fast_path.refuse(refusal);
        }
        for (act, outcome) in self.act(plan).await {
            if let Err(error) = outcome {
                tracing::debug!("{act:?}: {error}");
            }
        }
    }

    /// Passes the addresses and routes of the host to the roles and the program.
    fn apply_snapshot(&mut self) {
        let snapshot = &self.upkeep.snapshot;
        let began = self.upkeep.snapshot_began;
        self.watch
            .set_routes(snapshot.gateways.clone(), &snapshot.depths, began);
        self.fast_path.set_depths(self.watch.depths());
        let own = snapshot.own_addresses();
        self.fast_path.set_own_ipv4(&own.ipv4);
        self.fast_path.set_names(snapshot);
        if let Some(server) = &mut self.roles.server {
            server.handle_changes(&own, snapshot.has_native_route);
        }
        if let Some(relay) = &mut self.roles.relay {
            relay.set_own_addresses(&own);
            relay.tunnel.note_dropped(snapshot);
            relay.flush(&mut self.fast_path, self.roles.server.as_mut());
        }
        if let Some(client) = &mut self.client {
            client.tunnel.note_dropped(snapshot);
            client.handle_changes(snapshot);
        }
    }

    /// Makes the relay and the server when the host has their addresses, and anew when the relay's has
    /// changed. Returns whether it did.
    ///
    /// # Errors
    ///
    /// When a socket or a TUN interface cannot be opened. The roles do not run then.
    pub(super) fn make_roles(&mut self, plan: &Plan) -> Result<bool> {
        let addresses = Addresses {
            relay: plan.relay_address,
            server: plan.has_server_addresses,
        };
        if !self.roles.are_due(&self.config, addresses) {
            return Ok(false);
        }
        let snapshot = &self.upkeep.snapshot;
        let own = snapshot.own_addresses();
        let had_relay = self.roles.relay.is_some();
        if had_relay {
            // Peers know the relay by its old address, from which their NATs let packets through.
            self.fast_path.remove(&self.config);
        }
        let had_roles = had_relay || self.roles.server.is_some();
        // The sockets are free for the new roles then.
        self.roles = Roles::default();
        if had_roles {
            self.keeper.release_roles();
        }
        let mut roles = Roles::make(
            &self.config,
            addresses,
            &self.clients,
            self.fleet.as_ref(),
            &own,
            &mut self.keeper,
        )?;
        roles.set_tap(&self.handle);
        if let Some(relay) = roles.relay.as_ref().filter(|_| had_relay) {
            tracing::info!("the relay is {} now", relay.endpoint());
        }
        if let Some(server) = &mut roles.server {
            server.handle_changes(&own, snapshot.has_native_route);
            server
                .protocol_mut()
                .set_buckets(clock::now(), self.fast_path.buckets());
        }
        self.roles = roles;
        self.go_on_draining();
        self.publish_states();
        Ok(true)
    }

    /// Carries out the acts that are due, and returns their outcomes.
    pub(super) async fn act(&mut self, plan: &Plan) -> Vec<(Act, Result<(), ActError>)> {
        let own = self.state().own;
        let snapshot = &self.upkeep.snapshot;
        let is_held = |item: &Item| item.is_held(snapshot, &own);
        let acts = self.upkeep.reconciler.acts(clock::now(), plan, is_held);
        self.upkeep.log_notices();
        let mut outcomes = Vec::new();
        for act in acts {
            let outcome = match &act {
                Act::Place(item) => self.place(item).await,
                Act::Remove(item) => self.remove(item).await,
            };
            let clause = outcome.as_ref().copied().map_err(ToString::to_string);
            self.upkeep.reconciler.finish(clock::now(), &act, clause);
            outcomes.push((act, outcome));
        }
        if !outcomes.is_empty() {
            self.upkeep.look_at_acts();
        }
        let now = clock::now();
        if let Some(due) = self.upkeep.reconciler.poll_timeout(now) {
            self.upkeep.look_after(due.saturating_since(now));
        }
        outcomes
    }

    async fn place(&mut self, item: &Item) -> Result<(), ActError> {
        match item {
            Item::Tunnel { role, mtu } => self.place_tunnel(*role, *mtu).await.map_err(other),
            Item::Setting { setting, value, .. } => write(setting, value).map_err(other),
            Item::Address { role, address } => {
                let tunnel = self.tunnel(*role).map_err(other)?;
                let added = self
                    .routes
                    .add_address(tunnel, (*address).into(), ADDRESS_PREFIX);
                added.await.map_err(|error| other(error.into()))
            }
            Item::Route { role, route } => {
                let tunnel = self.tunnel(*role).map_err(other)?;
                let added = self.routes.add_route(*route, tunnel).await;
                added.map_err(|error| other(error.into()))
            }
            Item::FastPath(item) => self.place_fast_path(item).map_err(ActError::FastPath),
        }
    }

    async fn remove(&mut self, item: &Item) -> Result<(), ActError> {
        match item {
            // The interface ends with its role, and the settings with the interface.
            Item::Tunnel { .. } => Ok(()),
            Item::Setting { setting, .. } => self.restore(setting).map_err(other),
            Item::Address { role, address } => {
                let Ok(tunnel) = self.tunnel(*role) else {
                    return Ok(());
                };
                let removed = self
                    .routes
                    .remove_address(tunnel, (*address).into(), ADDRESS_PREFIX);
                removed.await.map_err(|error| other(error.into()))
            }
            Item::Route { role, route } => {
                let Ok(tunnel) = self.tunnel(*role) else {
                    return Ok(());
                };
                let removed = self.routes.remove_route(*route, tunnel).await;
                removed.map_err(|error| other(error.into()))
            }
            Item::FastPath(_) => {
                self.fast_path.remove(&self.config);
                self.share_buckets();
                Ok(())
            }
        }
    }

    /// Opens the tunnel interface of a role again if it has gone, and brings it up.
    async fn place_tunnel(&mut self, role: Role, mtu: u16) -> Result<()> {
        // A role that was made since the last look has an interface that the snapshot lacks.
        let is_there =
            |tunnel: &Tunnel| tunnel.index().is_some_and(|index| name_of(index).is_some());
        let tunnel = match role {
            Role::Relay => {
                let relay = self
                    .roles
                    .relay
                    .as_mut()
                    .context("the relay does not run")?;
                if !is_there(&relay.tunnel) {
                    relay.reopen_tunnel()?;
                }
                &relay.tunnel
            }
            Role::Server | Role::Client => {
                let tunnel = match role {
                    Role::Server => self.roles.server.as_mut().and_then(ServerRole::tunnel_mut),
                    _ => self.client.as_mut().map(|role| &mut role.tunnel),
                };
                let tunnel = tunnel.context("the role does not run")?;
                if !is_there(tunnel) {
                    tunnel.reopen()?;
                }
                tunnel
            }
        };
        let index = tunnel.index().context("the tunnel interface is lost")?;
        if tunnel.is_divisible()
            && let Err(error) = self.routes.remove_queueing(index).await
        {
            // The kernel makes one for each of the 256 queues that the interface may get, each as long as the whole.
            tracing::debug!("{error}");
        }
        // Once it is up, it would have an address of its own. A failure shows when the plan is
        // compared again.
        if let Some(name) = name_of(index) {
            for &(setting, value) in plan::tunnel_settings(role) {
                let _ = Setting::ipv6(&name, setting).write(value);
            }
        }
        Ok(self.routes.bring_up(index, Some(mtu)).await?)
    }

    fn place_fast_path(&mut self, item: &FastPathItem) -> Result<(), PlaceError> {
        let roles = self.roles.in_program(&self.config);
        let relay = self.roles.relay.as_ref().map(RelayRole::settled_relay);
        let placed = self.fast_path.place(
            &self.config,
            item,
            &self.upkeep.snapshot,
            &roles,
            relay.as_deref(),
        );
        drop(relay);
        self.fast_path.set_depths(self.watch.depths());
        self.share_buckets();
        if let Some(relay) = &mut self.roles.relay {
            if !self.is_handed_over {
                self.is_handed_over = true;
                self.fast_path
                    .hand_over(&mut relay.settled_relay(), clock::now());
            }
            self.fast_path
                .sweep(&mut relay.settled_relay(), clock::now());
        }
        placed
    }

    /// Makes the server use the limits that the program uses.
    fn share_buckets(&mut self) {
        if let Some(server) = &mut self.roles.server {
            server
                .protocol_mut()
                .set_buckets(clock::now(), self.fast_path.buckets());
        }
    }

    /// Returns the index of the tunnel interface of a role.
    fn tunnel(&self, role: Role) -> Result<u32> {
        let own = own(&self.roles, self.client.as_ref(), &self.fast_path);
        let index = own.tunnels.get(&role).copied();
        index.context("the tunnel interface is missing")
    }

    /// Restores the settings of interfaces that are not the daemon's.
    pub(super) fn restore_settings(&self) {
        for item in self.upkeep.reconciler.placed() {
            if let Item::Setting { setting, .. } = item
                && item.tunnel().is_none()
                && let Err(error) = self.restore(setting)
            {
                tracing::warn!("{error:#}");
            }
        }
    }

    /// Gives a setting of an interface the value that interfaces have by default. The value found at the
    /// start is no guide, since an earlier daemon may have crashed.
    fn restore(&self, setting: &Setting) -> Result<()> {
        let default = Setting {
            interface: "all".to_owned(),
            ..setting.clone()
        };
        match default.read()? {
            Some(value) => write(setting, &value),
            None => Ok(()),
        }
    }

    /// Returns the conditions for packets that this host drops between the program and the daemon.
    fn firewall_conditions(&mut self) -> Vec<Condition> {
        let Some(relay) = &self.roles.relay else {
            return Vec::new();
        };
        let counters = self.fast_path.counters();
        let passed = |verdict| {
            let mut counters = counters.iter();
            let found = counters.find(|(counted, _)| *counted == verdict);
            found.map_or(0, |(_, counter)| counter.packets)
        };
        let [datagrams, packets] = relay.received();
        let passages = [
            Passage {
                passed: passed(Verdict::DecapBubble) + passed(Verdict::DecapUnknownPeer),
                received: datagrams,
            },
            Passage {
                passed: passed(Verdict::EncapUnknownPeer),
                received: packets,
            },
        ];
        let now = clock::now();
        let mut is_dropped = passages.iter().zip(&mut self.evidence);
        let mut is_dropped = || {
            let next = is_dropped.next();
            next.is_some_and(|(passage, evidence)| evidence.observe(now, *passage))
        };
        let port = relay.endpoint().port();
        let prefix = self.config.node.prefix;
        let mut conditions = Vec::new();
        if is_dropped() {
            let text = format!(
                "datagrams for UDP port {port} arrive, but this host drops them before the daemon gets them: \
                 let them through its firewall, with nftables `nft insert rule inet filter input udp dport \
                 {port} accept`"
            );
            conditions.push(condition(Role::Relay, Kind::Firewall, "input", text));
        }
        if is_dropped() {
            let text = format!(
                "packets for {prefix} arrive, but this host drops them before the daemon gets them: let its \
                 firewall forward them, with nftables `nft insert rule inet filter forward ip6 daddr {prefix} \
                 accept`, or remove the policy rule or route that diverts them"
            );
            conditions.push(condition(Role::Relay, Kind::Firewall, "forward", text));
        }
        conditions
    }

    /// Sets the conditions: those of the plan and of the roles, and `trouble`.
    fn set_conditions(&mut self, plan: Plan, trouble: Option<Condition>) {
        let mut conditions = plan.conditions;
        conditions.extend(trouble);
        if let Some(client) = &self.client {
            conditions.extend(client.conditions());
        }
        conditions.extend(self.firewall_conditions());
        conditions.extend(self.fast_path.conditions());
        let role = configured(&self.config).first().copied();
        let role = role.unwrap_or(Role::Relay);
        conditions.extend(self.accounting_condition(role));
        let transition = self.upkeep.set_conditions(clock::now(), role, conditions);
        self.publish_conditions(transition);
    }
}

fn condition(role: Role, kind: Kind, subject: &str, text: String) -> Condition {
    Condition {
        kind,
        role,
        subject: subject.to_owned(),
        text,
    }
}

fn name_of(interface: u32) -> Option<String> {
    let name = if_indextoname(interface).ok()?.into_string().ok()?;
    // The crate takes a missing interface for one without a name.
    (!name.is_empty()).then_some(name)
}

fn write(setting: &Setting, value: &str) -> Result<()> {
    setting.write(value).with_context(|| {
        format!(
            "cannot set {setting} to {value}; let the daemon write it, or set it before the start"
        )
    })
}

fn other(error: anyhow::Error) -> ActError {
    ActError::Other(sentence(&error))
}

/// Returns an error with its causes.
pub fn sentence(error: &anyhow::Error) -> String {
    format!("{error:#}")
}
