//! The state of a fleet's relay that outlives the process.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use teredo_common::time::Instant;

use super::{Clocks, Config, Fleet, Keys, member::SILENCE, window::Window};

/// The state of a fleet's relay, which the next process goes on from as the same run (F-20). The peers are in
/// the state of the relay itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    run: u64,
    /// When it was saved.
    saved: Instant,
    is_based: bool,
    has_joined: bool,
    others: Vec<SavedOther>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct SavedOther {
    address: SocketAddr,
    run: u64,
    /// The run of this relay towards it.
    #[serde(default)]
    own_run: u64,
    sequence: u64,
    window: Window,
}

impl Fleet {
    /// Returns the state.
    #[must_use]
    pub fn state(&self, now: Instant) -> State {
        let others = self.others.iter().map(|other| SavedOther {
            address: other.address,
            run: other.run,
            own_run: other.own_run,
            sequence: other.sequence,
            window: other.window.clone(),
        });
        State {
            run: self.run,
            saved: now,
            is_based: self.is_based,
            has_joined: self.has_joined,
            others: others.collect(),
        }
    }

    /// Creates the fleet's side of a relay that goes on from a state. `seed` is as for [`Fleet::new`]. Unless
    /// `config` has all members, those of the state are members until then.
    #[must_use]
    pub fn restore(
        config: Config,
        keys: Keys,
        seed: [u8; 32],
        clocks: Clocks,
        state: State,
    ) -> Self {
        let mut config = config;
        if !config.is_complete {
            let saved = state.others.iter().map(|saved| saved.address);
            config.members.extend(saved);
        }
        let mut fleet = Self::new(config, keys, seed, clocks);
        fleet.run = state.run;
        // Meanwhile, a little was told that did not arrive, and is told again.
        let is_recent = clocks.now.saturating_since(state.saved) < SILENCE;
        fleet.is_based = state.is_based && is_recent;
        fleet.has_joined = state.has_joined && is_recent;
        if !is_recent {
            return fleet;
        }
        for saved in state.others {
            let mut others = fleet.others.iter_mut();
            if let Some(other) = others.find(|other| other.address == saved.address) {
                other.run = saved.run;
                other.own_run = match saved.own_run {
                    0 => state.run,
                    own_run => own_run,
                };
                other.sequence = saved.sequence;
                other.window = saved.window;
                // The run ends, as before, if nothing comes.
                other.heard = clocks.now;
            }
        }
        fleet
    }
}
