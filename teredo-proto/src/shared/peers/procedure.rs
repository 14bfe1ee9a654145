//! Asking a peer until it answers (P-09 to P-11).

use std::time::Duration;

use rand::{Rng, RngExt as _};
use serde::{Deserialize, Serialize};
use teredo_common::time::Instant;

use super::{
    history::{GAP, Refused},
    peer::RoleState,
    queue::{Budget, Full, Queue},
    table::{PeerIndex, Peers},
};
use crate::shared::{party::Party, turns::Turn};

/// Bursts of one procedure: the first and three repetitions.
const ATTEMPTS: u8 = 4;
/// A burst is repeated after [`GAP`] and up to this: at exactly two seconds, a receiver that counts
/// them too might refuse its answer.
const JITTER: Duration = Duration::from_millis(250);

/// The repetition of bursts until an answer comes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Procedure {
    /// Bursts so far.
    attempts: u8,
    /// When to repeat or give up.
    next: Instant,
    /// The turn that the next burst waits for (L-18).
    turn: Option<u64>,
    /// The party that caused the procedure.
    party: Party,
}

impl Procedure {
    /// Makes the burst that waits for a turn due, so that it asks for another one. Returns whether there
    /// is such a burst.
    pub(super) fn forget_turn(&mut self, now: Instant) -> bool {
        let waits = self.turn.take().is_some();
        if waits {
            self.next = now;
        }
        waits
    }
}

/// The next step of a procedure.
#[derive(Debug)]
pub enum Step {
    /// Nothing is due yet.
    Wait,
    /// Another burst is to be sent, after this many, or [`Peers::wait_for_turn`] is to be called.
    Burst(u8),
    /// No answer came. These packets waited for it, and have to be taken out of the budget.
    GiveUp(Queue),
}

/// Why a packet does not wait for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotQueued {
    /// The peer left too many bubbles unanswered to be asked again (P-09).
    Exhausted,
    /// A queue is full.
    Full(Full),
}

/// A random time by which a burst is put off, up to 250 ms.
fn jitter(random: &mut impl Rng) -> Duration {
    random.random_range(Duration::ZERO..=JITTER)
}

impl<State: RoleState> Peers<State> {
    /// Starts a procedure because of `party`. Its first [`Peers::next_step`] is due now.
    pub fn start_procedure(&mut self, now: Instant, index: PeerIndex, party: Party) {
        self[index].pending_mut().procedure = Some(Procedure {
            attempts: 0,
            next: now,
            turn: None,
            party,
        });
    }

    /// Puts the burst that is to be sent off until the turn that `wait` returns for the procedure's
    /// party (L-18).
    pub fn wait_for_turn(&mut self, index: PeerIndex, wait: impl FnOnce(Party) -> u64) {
        if let Some(procedure) = &mut self[index].pending_mut().procedure {
            procedure.turn = Some(wait(procedure.party));
            procedure.attempts = procedure.attempts.saturating_sub(1);
        }
    }

    /// Whether a peer still waits for a turn.
    pub fn is_waiting(&self, turn: Turn) -> bool {
        self.find_waiting(turn).is_some()
    }

    /// Returns the peer whose turn has come. Its [`Peers::next_step`] is due now.
    pub fn take_turn(&mut self, now: Instant, turn: Turn) -> Option<PeerIndex> {
        let index = self.find_waiting(turn)?;
        let procedure = self[index].pending.as_mut()?.procedure.as_mut()?;
        procedure.turn = None;
        procedure.next = now;
        Some(index)
    }

    fn find_waiting(&self, turn: Turn) -> Option<PeerIndex> {
        let index = self.find(&turn.peer)?;
        let procedure = self[index].pending.as_ref()?.procedure.as_ref()?;
        (procedure.turn == Some(turn.number)).then_some(index)
    }

    /// Decides upon the next step of a procedure, and sets the deadline of the one after it.
    pub fn next_step(&mut self, now: Instant, index: PeerIndex, random: &mut impl Rng) -> Step {
        let pending = self[index].pending_mut();
        let Some(procedure) = &mut pending.procedure else {
            return Step::Wait;
        };
        let mut step = Step::Wait;
        if procedure.turn.is_none() && now >= procedure.next {
            match pending.history.check(now, State::PATIENCE) {
                Err(Refused::TooSoon(at)) => procedure.next = at + jitter(random),
                Ok(()) if procedure.attempts < ATTEMPTS => {
                    step = Step::Burst(procedure.attempts);
                    procedure.attempts += 1;
                    procedure.next = now + GAP + jitter(random);
                }
                Ok(()) | Err(Refused::Exhausted) => {
                    return Step::GiveUp(self.give_up(now, index));
                }
            }
        }
        if procedure.turn.is_none() {
            let next = procedure.next;
            self.arm(index, next);
        }
        if self[index].is_trusted() {
            self.arm_trusted(now, index);
        }
        step
    }

    /// Ends a procedure without an answer (P-11). The entry stays until its bubbles are forgotten,
    /// for the limit to hold.
    fn give_up(&mut self, now: Instant, index: PeerIndex) -> Queue {
        let pending = self[index].pending_mut();
        pending.procedure = None;
        let queue = std::mem::take(&mut pending.queue);
        if self[index].is_trusted() {
            self.arm_trusted(now, index);
        } else {
            self.arm_removal(index);
        }
        queue
    }

    /// Puts off the next burst: the last one ended only now.
    pub fn prolong_burst(&mut self, now: Instant, index: PeerIndex, random: &mut impl Rng) {
        let pending = self[index].pending_mut();
        pending.history.ended(now);
        if let Some(procedure) = &mut pending.procedure {
            procedure.next = procedure.next.max(now + GAP + jitter(random));
        }
    }

    /// Lets a packet wait for a peer that is not usable. Unless [`NotQueued::Exhausted`] is the
    /// reason against it, the peer is to be asked then if it is not asked already.
    ///
    /// # Errors
    ///
    /// The reason why the packet does not wait.
    pub fn enqueue(
        &mut self,
        queues: &mut Budget,
        now: Instant,
        index: PeerIndex,
        packet: &[u8],
    ) -> Result<(), NotQueued> {
        let pending = self[index].pending_mut();
        let is_exhausted = pending.history.check(now, State::PATIENCE) == Err(Refused::Exhausted);
        if is_exhausted && pending.procedure.is_none() {
            self.arm_removal(index);
            return Err(NotQueued::Exhausted);
        }
        let pushed = queues.push(now, &mut pending.queue, packet);
        self.touch(index);
        pushed.map_err(NotQueued::Full)
    }
}
