//! How long the NAT keeps a mapping that is not used (RFC 4380 section 5.2.7).
//!
//! A client tries one idle time after the other on its secondary port. Here every idle time has a
//! socket of its own and all run at once, which tells the same in a fraction of the time: a socket
//! solicits twice, and after its idle time a bubble is sent to it through the server.

use std::{collections::VecDeque, time::Duration};

use teredo_common::{address::Endpoint, time::Instant};

use super::{
    Measurement, Transmit,
    attempt::{Attempt, Delays, Step},
    outbox::Outbox,
    question::Question,
};
use crate::{
    ServerAddress,
    client::ServerEndpoints,
    wire::{encapsulation, ipv6::Header, router},
};

/// Idle times that the measurement tries. From 30 seconds on they are all that a client can come to
/// (C-52); the shorter ones are for NATs that need a fixed interval.
pub const IDLE: [Duration; 9] = [
    Duration::from_secs(10),
    Duration::from_secs(15),
    Duration::from_secs(20),
    Duration::from_secs(30),
    Duration::from_millis(37_500),
    Duration::from_secs(45),
    Duration::from_secs(60),
    Duration::from_secs(75),
    Duration::from_secs(90),
];
/// The socket that bubbles are sent from.
const SENDER: usize = 0;
/// Between the first solicitations of two sockets: servers limit what one address may ask.
const GAP: Duration = Duration::from_millis(200);
/// Between the two solicitations of a socket. Linux keeps mappings that were in use for more than
/// two seconds longer than others; a client's is in use for longer.
const USE: Duration = Duration::from_millis(2_500);
/// How long a bubble is waited for.
const DELAYS: Delays = [Duration::from_secs(2); 3];

/// The result for one idle time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Idle time.
    pub idle: Duration,
    /// Whether the mapping was still there after it.
    pub kept: bool,
}

/// The lifetime of unused mappings, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// Longest idle time after which a mapping was still there.
    pub kept: Option<Duration>,
    /// Shortest idle time after which a mapping was gone.
    pub lost: Option<Duration>,
}

impl Lifetime {
    /// Returns the interval that a client would measure, which is at least the 30 seconds that it
    /// begins with.
    #[must_use]
    pub fn refresh(self) -> Duration {
        const SHORTEST: Duration = Duration::from_secs(30);
        self.kept.unwrap_or_default().max(SHORTEST)
    }
}

/// A measurement of the lifetime of unused mappings, which takes up to a minute and a half and a few
/// seconds.
#[derive(Debug)]
pub struct LifetimeProbe {
    outbox: Outbox,
    mark: [u8; 16],
    trials: Vec<Trial>,
    progress: VecDeque<Progress>,
}

/// One idle time and its socket.
#[derive(Debug)]
struct Trial {
    idle: Duration,
    socket: usize,
    question: Question,
    /// Whether the question is the second one.
    is_used: bool,
    /// The bubble to this address, when the question is answered.
    bubble: Option<(Attempt, [u8; 16])>,
    kept: Option<bool>,
}

impl LifetimeProbe {
    /// Number of sockets that the measurement needs; none of them may have been used before.
    pub const SOCKETS: usize = IDLE.len() + 1;

    /// Starts a measurement with this server. `seed` comes from the operating system's random number
    /// generator.
    #[must_use]
    pub fn new(server: ServerEndpoints, seed: [u8; 32], now: Instant) -> Self {
        let mut outbox = Outbox::new(server, seed);
        let mut start = now;
        let trials = IDLE.iter().zip(SENDER + 1..).map(|(&idle, socket)| {
            let question = Question::new(start, socket, ServerAddress::Primary, false);
            start += GAP;
            Trial {
                idle,
                socket,
                question,
                is_used: false,
                bubble: None,
                kept: None,
            }
        });
        Self {
            trials: trials.collect(),
            mark: outbox.mark(),
            outbox,
            progress: VecDeque::new(),
        }
    }

    /// Returns the next result.
    pub fn poll_event(&mut self) -> Option<Progress> {
        self.progress.pop_front()
    }

    /// Returns the lifetime as far as it is known: a mapping that is kept for a time is taken to be
    /// kept for shorter ones.
    #[must_use]
    pub fn lifetime(&self) -> Lifetime {
        let mut lifetime = Lifetime::default();
        for trial in &self.trials {
            match trial.kept {
                Some(true) => lifetime.kept = Some(trial.idle),
                Some(false) => {
                    lifetime.lost = Some(trial.idle);
                    break;
                }
                None => {}
            }
        }
        lifetime
    }

    fn decide(&mut self, decided: usize, kept: bool) {
        let trial = &mut self.trials[decided];
        trial.kept = Some(kept);
        trial.bubble = None;
        let idle = trial.idle;
        self.progress.push_back(Progress { idle, kept });
        if kept {
            // Shorter ones, whose bubbles were lost for another reason, are kept, too.
            for shorter in &mut self.trials[..decided] {
                shorter.kept = Some(true);
                shorter.bubble = None;
            }
        } else {
            self.trials.truncate(decided + 1);
        }
    }
}

impl Measurement for LifetimeProbe {
    fn handle_datagram(&mut self, now: Instant, socket: usize, from: Endpoint, payload: &[u8]) {
        let Ok(parts) = encapsulation::parse(payload) else {
            return;
        };
        let Ok(header) = Header::parse(parts.packet) else {
            return;
        };
        let position = |trial: &Trial| trial.socket == socket;
        let Some(number) = self.trials.iter().position(position) else {
            return;
        };
        let trial = &mut self.trials[number];
        if router::is_advertisement(header, parts.packet) {
            let question = &mut trial.question;
            question.handle_advertisement(now, &self.outbox, socket, from, &parts);
            if let Some(mapped) = question.mapped()
                && trial.bubble.is_none()
                && trial.kept.is_none()
            {
                if !trial.is_used {
                    trial.is_used = true;
                    *question = Question::new(now + USE, socket, ServerAddress::Primary, false);
                    return;
                }
                let address = self.outbox.teredo_address(mapped).octets();
                trial.bubble = Some((Attempt::new(DELAYS, now + trial.idle), address));
            }
        } else if header.is_bubble()
            && from == self.outbox.server.primary()
            && header.source() == self.mark
            && let Some((_, address)) = trial.bubble
            && header.destination() == address
        {
            self.decide(number, true);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        let mut lost = None;
        for (number, trial) in self.trials.iter_mut().enumerate() {
            trial.question.handle_timeout(now, &mut self.outbox);
            if let Some((attempt, address)) = &mut trial.bubble {
                match attempt.step(now) {
                    Step::Wait => {}
                    Step::Send => {
                        let to = self.outbox.server.primary();
                        self.outbox.bubble(SENDER, to, &self.mark, address);
                    }
                    Step::GiveUp => {
                        lost = Some(number);
                        break;
                    }
                }
            }
        }
        if let Some(number) = lost {
            self.decide(number, false);
        }
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.outbox.poll()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let due = |trial: &Trial| {
            let bubble = trial.bubble.as_ref();
            let bubble = bubble.and_then(|(attempt, _)| attempt.due());
            [trial.question.due(), bubble].into_iter().flatten().min()
        };
        self.trials.iter().filter_map(due).min()
    }
}
