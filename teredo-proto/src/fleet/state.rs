//! The state of a fleet's relay that outlives the process.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{Clocks, Config, Fleet, Keys, window::Window};

/// The state of a fleet's relay, which the next process goes on from as the same run (F-20). The peers are in
/// the state of the relay itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    run: u64,
    is_based: bool,
    has_joined: bool,
    others: Vec<SavedOther>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct SavedOther {
    address: SocketAddr,
    run: u64,
    sequence: u64,
    window: Window,
}

impl Fleet {
    /// Returns the state.
    #[must_use]
    pub fn state(&self) -> State {
        let others = self.others.iter().map(|other| SavedOther {
            address: other.address,
            run: other.run,
            sequence: other.sequence,
            window: other.window.clone(),
        });
        State {
            run: self.run,
            is_based: self.is_based,
            has_joined: self.has_joined,
            others: others.collect(),
        }
    }

    /// Creates the fleet's side of a relay that goes on from a state. `seed` is as for [`Fleet::new`].
    #[must_use]
    pub fn restore(
        config: Config,
        keys: Keys,
        seed: [u8; 32],
        clocks: Clocks,
        state: State,
    ) -> Self {
        let mut fleet = Self::new(config, keys, seed, clocks);
        fleet.run = state.run;
        fleet.is_based = state.is_based;
        fleet.has_joined = state.has_joined;
        for saved in state.others {
            let mut others = fleet.others.iter_mut();
            if let Some(other) = others.find(|other| other.address == saved.address) {
                other.run = saved.run;
                other.sequence = saved.sequence;
                other.window = saved.window;
            }
        }
        fleet
    }
}
