//! The moment at which a packet is decided about.

use teredo_common::{
    generations::{SILENCE, silence},
    peers::HORIZON,
    time::Instant,
};

use crate::environment::Environment;

/// The time, and how long the daemon has been silent.
#[derive(Clone, Copy)]
pub struct Moment {
    /// The time on the clock of all stamps.
    pub now: Instant,
    /// See [`teredo_common::generations::silence`].
    silence: u64,
}

impl Moment {
    /// Returns this moment.
    #[inline(always)]
    pub fn of(environment: &impl Environment) -> Self {
        let now = environment.now();
        Self {
            now,
            silence: silence(environment.heartbeat(), now).into(),
        }
    }

    /// Whether the daemon lives.
    #[inline(always)]
    pub fn is_kept(self) -> bool {
        self.silence <= SILENCE.into()
    }

    /// Whether stamps tell an age; see [`HORIZON`].
    #[inline(always)]
    pub fn has_ages(self) -> bool {
        self.silence <= HORIZON.into()
    }
}
