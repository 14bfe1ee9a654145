//! Something that is sent up to three times, until there is an answer.

use std::time::Duration;

use teredo_common::time::Instant;

/// How long is waited after each transmission.
pub type Delays = [Duration; 3];

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing yet, or nothing any more.
    Wait,
    /// It is to be sent.
    Send,
    /// The last wait was in vain.
    GiveUp,
}

/// How far it is.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    delays: Delays,
    sent: usize,
    due: Option<Instant>,
}

impl Attempt {
    /// An attempt that begins at `start`.
    pub const fn new(delays: Delays, start: Instant) -> Self {
        Self {
            delays,
            sent: 0,
            due: Some(start),
        }
    }

    /// When something is to be done; `None` after the end.
    pub const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What is to be done, which is taken for done.
    pub fn step(&mut self, now: Instant) -> Step {
        if self.due.is_none_or(|due| now < due) {
            return Step::Wait;
        }
        let delay = self.delays.get(self.sent);
        self.due = delay.map(|&delay| now + delay);
        self.sent += 1;
        match self.due {
            Some(_) => Step::Send,
            None => Step::GiveUp,
        }
    }

    /// There is no need to go on.
    pub fn end(&mut self) {
        self.due = None;
    }

    /// Waits no longer than `delay` after each transmission, from now on.
    pub fn hurry(&mut self, now: Instant, delay: Duration) {
        for one in &mut self.delays {
            *one = delay.min(*one);
        }
        if let Some(due) = &mut self.due {
            *due = (*due).min(now + delay);
        }
    }
}
