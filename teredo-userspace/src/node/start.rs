//! The start of a node.

use std::{
    collections::BTreeMap,
    mem,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};

use super::{
    Estate, Node, Patience, calendar::Calendar, client::ClientRole, clock, fast_path::FastPath,
    host::ActError, parameters::random, rates::Rates, roles::Roles, suspend::SuspendClock,
    upkeep::Upkeep, withdrawal::Withdrawal,
};
use crate::{
    api::Handle,
    config::{Config, secrets::Secrets},
    datapath::{route::Routes, watch::Watch},
    host::Snapshot,
    ipfix::Exporter,
    metrics::{Role, Turns},
    plan::{self, Act, Announcement, Item, Own},
};

/// The most rounds in which the host is brought to the plan at the start. Each of them makes the next
/// possible: the roles, their interfaces, the fast path, the routes.
const ROUNDS: usize = 8;

pub async fn start(
    config: Config,
    secrets: Secrets,
    patience: Patience,
    estate: Estate,
) -> Result<Node> {
    config.node.udp_segmentation.apply();
    let watch = Watch::open().context("cannot watch the kernel's routing")?;
    let routes = Routes::open()?;
    let mut keeper = estate.into_keeper().context("cannot keep the state")?;
    let (handle, requests) = Handle::new();
    let client = match &config.client {
        Some(client) => {
            let mut role = ClientRole::new(
                client.clone(),
                &config.node,
                secrets.credentials,
                random()?,
                &mut keeper.inheritance,
            )?;
            role.tap.set_tap(handle.tap(Role::Client));
            // Addresses and routes that an earlier owner left go with that.
            if let Some(index) = role.tunnel.index()
                && !role.goes_on()
            {
                routes.take_down(index).await?;
            }
            Some(role)
        }
        None => None,
    };
    let mut node = Node {
        clients: secrets.clients,
        fleet: secrets.fleet,
        started: Instant::now(),
        roles: Roles::default(),
        client,
        calendar: Calendar::new(&config),
        fast_path: FastPath::new(keeper.inheritance.take_program(), keeper.store.is_some()),
        routes,
        watch,
        upkeep: Upkeep::new(plan::scope(&config, &Snapshot::default(), &Own::default())),
        suspend: SuspendClock::new(),
        rates: Rates::default(),
        states: BTreeMap::default(),
        turns: Turns::default(),
        evidence: Default::default(),
        draining: BTreeMap::default(),
        announcement: Announcement::default(),
        withdrawal: Withdrawal::default(),
        is_handed_over: false,
        keeper,
        replacement: None,
        requests,
        handle,
        exporter: Exporter::new(&config.node.ipfix),
        config,
    };
    node.resume();
    match node.set_up(patience).await {
        Ok(()) => {
            node.note_state();
            node.keep();
            Ok(node)
        }
        Err(error) => {
            node.abandon().await;
            Err(error)
        }
    }
}

impl Node {
    /// Goes on as the process before.
    fn resume(&mut self) {
        let Some(saved) = self.keeper.inheritance.state.daemon.take() else {
            return;
        };
        self.announcement = Announcement::restore(clock::now(), &saved.announcement);
        let roles = saved.draining.iter().filter_map(|name| Role::of_name(name));
        for role in roles {
            tracing::warn!("the {} still drains", role.name());
            self.draining.insert(role, Duration::ZERO);
        }
    }

    /// Brings the host to the plan, as far as it permits.
    ///
    /// # Errors
    ///
    /// When something cannot be had that waiting does not give: a port or an interface of another
    /// program, a permission, or a mode of the fast path that was asked for.
    async fn set_up(&mut self, patience: Patience) -> Result<()> {
        if self.config.fast_path().is_none() {
            self.fast_path.discard(&self.config.node.name)?;
        }
        for _ in 0..ROUNDS {
            self.update_scope();
            let read = Snapshot::read(&self.routes, &self.upkeep.scope);
            self.upkeep.snapshot = read.await?;
            let plan = self.plan();
            if self.make_roles(&plan)? {
                // Their interfaces are not in the snapshot yet.
                continue;
            }
            let outcomes = self.act(&plan).await;
            let is_held = outcomes.is_empty();
            for (act, outcome) in outcomes {
                self.judge(&act, outcome)?;
            }
            if is_held {
                break;
            }
        }
        self.reconcile(true).await;
        if patience == Patience::Fail {
            let mut conditions = self.upkeep.conditions().iter();
            let found = conditions.find(|one| plan::is_required(&self.config, one.condition.kind));
            if let Some(found) = found {
                return Err(anyhow!("{}", found.condition.text));
            }
        }
        Ok(())
    }

    /// Returns the failure of an act as an error, if a start fails with it.
    fn judge(&self, act: &Act, outcome: Result<(), ActError>) -> Result<()> {
        match (act, outcome) {
            (Act::Place(Item::Tunnel { .. }), Err(error)) => Err(anyhow!("{error}")),
            (_, Err(ActError::FastPath(error))) => {
                let mode = self.config.fast_path().map(|wanted| wanted.mode);
                match mode {
                    Some(mode) if error.is_fatal(mode) => Err(error.into()),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Undoes the changes that [`Self::set_up`] made before it failed. Interfaces and pins of an
    /// earlier run stay for the next start.
    async fn abandon(&mut self) {
        if let Err(error) = mem::take(&mut self.fast_path).abandon() {
            tracing::warn!("{error}");
        }
        self.restore_settings();
        let tunnels: Vec<_> = self.tunnels().collect();
        for (interface, is_taken_over) in tunnels {
            if !is_taken_over
                && !self.keeper.inherits()
                && let Err(error) = self.routes.remove_link(interface).await
            {
                tracing::warn!("{error}");
            }
        }
    }
}
