//! The withdrawal of the relay: its route goes first, and it serves until routers have followed.

use std::time::Duration;

use teredo_common::time::Instant;
use tokio::sync::oneshot;

use super::{Node, clock};
use crate::{datapath::route::Table, metrics::Role, plan::Item};

/// The withdrawal of a relay that drains, or whose daemon is about to stop.
#[derive(Debug, Default)]
pub struct Withdrawal {
    /// Whether the daemon is about to stop.
    is_wanted: bool,
    /// The moment at which the route of a relay that is withdrawn had gone.
    pub since: Option<Instant>,
    /// Those that wait for that, and what each gets to know: the time for which the daemon has to go on.
    requesters: Vec<(oneshot::Sender<Duration>, Duration)>,
}

impl Node {
    /// Withdraws the relay, and lets the requester know when its route has gone.
    pub(super) fn withdraw_for(&mut self, requester: oneshot::Sender<Duration>) {
        let grace = self.withdraw();
        self.withdrawal.requesters.push((requester, grace));
        self.note_withdrawal();
    }

    /// Withdraws the route of the relay, and returns the time for which the daemon has to go on until
    /// others follow, once the route has gone.
    pub(super) fn withdraw(&mut self) -> Duration {
        self.withdrawal.is_wanted = true;
        self.upkeep.look_soon();
        match &self.config.relay {
            Some(relay) if self.is_announced() => Duration::from_millis(relay.grace.into()),
            _ => Duration::ZERO,
        }
    }

    /// Whether the relay is withdrawn on purpose, or about to be.
    pub(super) fn is_withdrawn(&self) -> bool {
        self.withdrawal.is_wanted || self.draining.contains_key(&Role::Relay)
    }

    /// Whether the route of the relay is where routing daemons read it.
    fn is_announced(&self) -> bool {
        self.upkeep.reconciler.placed().any(|item| {
            matches!(item, Item::Route { role: Role::Relay, route } if route.table == Table::Main)
        })
    }

    /// Notes when the route of a relay that is withdrawn has gone, and tells those that wait for it.
    pub(super) fn note_withdrawal(&mut self) {
        if !self.is_withdrawn() || self.is_announced() {
            self.withdrawal.since = None;
            return;
        }
        self.withdrawal.since.get_or_insert_with(clock::now);
        for (requester, grace) in self.withdrawal.requesters.drain(..) {
            // It may be gone.
            let _ = requester.send(grace);
        }
    }
}
