//! The events for readers of the API.

use std::sync::Arc;

use super::{Node, host::configured};
use crate::{
    api::events::Event,
    condition::Transition,
    metrics::{Role, Snapshot},
};

impl Node {
    /// Publishes the statistics of this second, whose rates are not known yet.
    pub(super) fn publish_measurement(&mut self, mut snapshot: Snapshot) {
        self.publish_states();
        self.requests.publish(|| {
            snapshot.rates = self.rates.rates();
            Event::Status(Arc::new(snapshot))
        });
    }

    /// Publishes conditions that have begun and ended.
    pub(super) fn publish_conditions(&self, transition: Transition) {
        for condition in transition.begun {
            self.requests.publish(|| Event::ConditionBegan(condition));
        }
        for condition in transition.ended {
            self.requests.publish(|| Event::ConditionEnded(condition));
        }
    }

    /// Publishes states of roles that have changed.
    pub(super) fn publish_states(&mut self) {
        for role in configured(&self.config) {
            let state = self.state_of(role);
            if self.states.get(&role).is_none_or(|known| *known != state) {
                self.states.insert(role, state.clone());
                self.requests.publish(|| Event::RoleState(role, state));
            }
        }
    }

    fn state_of(&self, role: Role) -> String {
        let is_running = match role {
            Role::Relay => self.roles.relay.is_some(),
            Role::Server => self.roles.server.is_some(),
            Role::Client => {
                if let Some(client) = &self.client {
                    return client.status().state;
                }
                false
            }
        };
        let is_draining = self.draining.contains_key(&role);
        let state = match (is_running, is_draining) {
            (false, _) => "waiting",
            (true, false) => "running",
            (true, true) => "draining",
        };
        state.to_owned()
    }
}
