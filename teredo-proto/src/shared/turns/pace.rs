//! The pace of packets through one server, which is found by trial.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use teredo_common::{
    limiter::{self, Rate},
    time::Instant,
};

/// The time over which answers are compared with what was sent. A packet that is not answered within
/// two seconds is sent again.
pub(super) const TRIAL: Duration = Duration::from_secs(3);
/// The time after a trial that failed until there is another one.
const HOLD: Duration = Duration::from_secs(300);
/// The time for which an answer makes a server a known one.
const KNOWN: Duration = Duration::from_secs(3600);
/// Silence after which a pace that was found by trial is forgotten.
pub(super) const IDLE: Duration = Duration::from_secs(60);

/// The limits of a pace, in packets a second. As many as in two seconds may leave at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Pace towards a server of which nothing is known, at least 1.
    pub first: u32,
    /// Upper bound on the pace towards a server that answers. If it is not above
    /// [`Pace::first`], nothing is tried.
    pub most: u32,
    /// Pace towards all servers of a /24 together, at least 1. As many as in one second may leave at
    /// once.
    pub network: u32,
    /// Pace towards all servers together, at least 4. As many as in one second may leave at once. A
    /// quarter is for servers that did not answer within the last hour.
    pub total: u32,
}

impl Pace {
    /// Below the limits of a server of this project at its defaults (S-23): 10 a second, 20 at once.
    /// The rest is for packets that the network delays, and then delivers together.
    pub const DEFAULT: Self = Self {
        first: 9,
        most: 500,
        network: 1_000,
        total: 20_000,
    };
}

/// The part of a pace that one of several relays has.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The pace of all of them together.
    pub whole: Pace,
    /// Number of relays, at least 1.
    pub relays: u32,
}

impl Part {
    /// Returns the part of a rate of `per_second` packets a second, and `burst` of them at once. One packet is
    /// always allowed at once; a part of less than one a second is one in several seconds (F-23).
    pub const fn rate(self, per_second: u32, burst: u32) -> Rate {
        Rate::new(per_second, burst).divided_by(self.relays)
    }
}

/// The pace towards one server.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Server {
    /// A bucket of [`limiter`].
    bucket: u64,
    /// Packets a second, of all relays that share the pace; 0 stands for [`Pace::first`].
    pace: u32,
    /// The start of the trial.
    since: Instant,
    /// Packets of the trial.
    sent: u32,
    /// Answers that came during the trial.
    answered: u32,
    /// No other pace is tried before this.
    held_until: Instant,
    /// When the last answer came; [`Instant::ZERO`] if none did.
    last_answer: Instant,
}

impl Server {
    fn rate(&self, part: Part) -> Rate {
        let per_second = self.pace.max(part.whole.first);
        part.rate(per_second, per_second.saturating_mul(2))
    }

    /// Whether anything is known about the server.
    pub fn is_used(&self) -> bool {
        self.bucket != 0 || self.last_answer != Instant::ZERO
    }

    /// Takes a token for a packet. Returns `false` if there is none.
    pub fn take(&mut self, part: Part, now: Instant) -> bool {
        self.adjust(part, now);
        let taken = limiter::take(self.bucket, self.rate(part), now);
        self.bucket = taken.unwrap_or(self.bucket);
        self.sent = self.sent.saturating_add(taken.is_some().into());
        taken.is_some()
    }

    /// When [`Server::take`] has a token.
    pub fn free_at(&self, part: Part) -> Instant {
        Instant::from_nanos(self.bucket.saturating_sub(self.rate(part).tolerance))
    }

    /// Records an answer.
    pub fn answered(&mut self, now: Instant) {
        self.answered = self.answered.saturating_add(1);
        self.last_answer = now;
    }

    /// Whether there was an answer lately.
    pub fn is_known(&self, now: Instant) -> bool {
        self.last_answer != Instant::ZERO && now.saturating_since(self.last_answer) < KNOWN
    }

    /// Ends a trial. A server that answers at least three quarters of nearly as many packets as were
    /// permitted gets twice as many; one that does not gets no more than any other.
    fn adjust(&mut self, part: Part, now: Instant) {
        let pace = part.whole;
        let duration = now.saturating_since(self.since);
        if duration < TRIAL {
            return;
        }
        let current = self.pace.max(pace.first);
        let permitted = u64::from(current) * TRIAL.as_secs();
        let sent = u64::from(self.sent) * u64::from(part.relays);
        let is_busy = duration < 2 * TRIAL && sent * 4 >= permitted * 3;
        let is_answered = u64::from(self.answered) * 4 >= u64::from(self.sent) * 3;
        if duration >= IDLE {
            self.pace = pace.first;
        } else if !is_answered && current > pace.first {
            self.pace = pace.first;
            self.held_until = now + HOLD;
        } else if is_busy && is_answered && now >= self.held_until {
            self.pace = current.saturating_mul(2).min(pace.most.max(pace.first));
        }
        self.since = now;
        self.sent = 0;
        self.answered = 0;
    }
}
