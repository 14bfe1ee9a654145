//! The interval between maintenance solicitations (C-44), and its measurement with a secondary port,
//! so that the service port never has to lose its mapping for it (RFC 4380 section 5.2.7, C-52).

use std::time::Duration;

use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use teredo_common::{
    address::{Endpoint, RANDOM_FLAGS, TeredoAddress},
    time::Instant,
};

use super::{
    super::{
        Event, Identity, Nat, Refresh,
        shared::Shared,
        statistics::{Bubble, DropReason},
    },
    inquiry::Inquiry,
    solicitation::Advertised,
};
use crate::{
    ServerAddress,
    wire::{bubble, encapsulation::Encapsulation, ipv6::Header, router},
};

/// The interval until another is found.
const DEFAULT: Duration = Duration::from_secs(30);
/// The shortest interval that may be given (C-53).
const SHORTEST: Duration = Duration::from_secs(5);
/// The interval that is taken for too long without a trial.
const LONGEST: Duration = Duration::from_secs(120);
/// The interval that is tried first.
const FIRST_CANDIDATE: Duration = Duration::from_secs(60);
/// The time that a bubble may take through the server to the secondary port.
const BUBBLE_TIMEOUT: Duration = Duration::from_secs(2);
/// Bubbles until the mapping of the secondary port is taken for lost.
const BUBBLES: u8 = 4;
/// The least time between two solicitations of different reasons.
const GAP: Duration = Duration::from_secs(2);
/// Ports that are tried.
const MAX_PORTS: u8 = 8;
/// Unexpected packets at the secondary port until the measurement is given up.
const MAX_UNEXPECTED: u8 = 8;

/// The interval, and the measurement of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Interval {
    /// The measured interval.
    refresh: Option<Duration>,
    /// The identity whose mapping the interval is for.
    identity: Option<Identity>,
    measurement: Option<Measurement>,
}

/// A measurement under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Measurement {
    identity: Identity,
    step: Step,
    /// The secondary port, once it is open.
    port: u16,
    ports_tried: u8,
    /// The Teredo address of the secondary port.
    address: [u8; 16],
    unexpected: u8,
    /// The longest interval that is known to be good.
    refresh: Duration,
    /// The shortest interval that is known to be bad.
    longest: Duration,
    candidate: Duration,
}

/// The next thing that a measurement waits for.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Step {
    /// To open the secondary port.
    Closed(Instant),
    /// The answer of the primary address.
    Primary(Inquiry),
    /// The answer of the secondary address.
    Secondary(Inquiry),
    /// The time to solicit the primary address again.
    Rest(Instant),
    /// Its answer.
    Maintenance(Inquiry),
    /// The end of the candidate interval.
    Silence(Instant),
    /// A bubble, of which as many were sent; and when it is late.
    Bubble(u8, Instant),
}

/// The progress of a measurement.
enum Progress {
    Continues,
    /// It found [`Measurement::refresh`].
    Found,
    GivenUp,
}

impl Interval {
    /// The secondary port, while it is open.
    pub fn port(&self) -> Option<u16> {
        let measurement = self.measurement.as_ref()?;
        (!matches!(measurement.step, Step::Closed(_))).then_some(measurement.port)
    }

    /// The measured interval, if there is one.
    pub fn measured(&self) -> Option<Duration> {
        self.refresh
    }

    /// The time until the next maintenance: drawn anew each time (C-44).
    pub fn draw(&self, shared: &mut Shared) -> Duration {
        let refresh = match shared.config.refresh {
            Refresh::Fixed(interval) => interval.max(SHORTEST),
            Refresh::Auto => self.refresh.unwrap_or(DEFAULT),
        };
        shared.random.random_range(refresh * 3 / 4..=refresh)
    }

    /// Notes that the client is qualified. The measured interval remains good as long as the address
    /// is the same; otherwise another measurement begins.
    pub fn set_identity(&mut self, shared: &mut Shared, now: Instant, identity: Identity) {
        if (self.identity).is_some_and(|before| before.address == identity.address) {
            return;
        }
        self.reset(shared);
        self.identity = Some(identity);
        if shared.config.refresh == Refresh::Auto && !identity.tunnel {
            self.measurement = Some(Measurement {
                identity,
                step: Step::Closed(now + GAP),
                port: 0,
                ports_tried: 1,
                address: [0; 16],
                unexpected: 0,
                refresh: DEFAULT,
                longest: LONGEST,
                candidate: FIRST_CANDIDATE,
            });
        }
    }

    /// Forgets everything that was measured: the mapping or the network is another (C-52).
    pub fn reset(&mut self, shared: &mut Shared) {
        self.close(shared);
        self.refresh = None;
        self.identity = None;
    }

    fn close(&mut self, shared: &mut Shared) {
        if let Some(port) = self.port() {
            shared.close_port(port);
        }
        self.measurement = None;
    }

    /// Tries another port in place of one that could not be opened, up to [`MAX_PORTS`].
    pub fn handle_port_failure(&mut self, shared: &mut Shared, now: Instant, port: u16) {
        if self.port() != Some(port) {
            return;
        }
        let measurement = self.measurement.take();
        self.measurement = measurement.filter(|measurement| measurement.ports_tried < MAX_PORTS);
        if let Some(measurement) = &mut self.measurement {
            measurement.ports_tried += 1;
            measurement.open(shared, now);
        }
    }

    /// Handles a datagram that arrived at the secondary port.
    pub fn handle_datagram(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        from: Endpoint,
        parts: &Encapsulation<'_>,
    ) -> Result<(), DropReason> {
        let measurement = self.measurement.as_mut().ok_or(DropReason::Port)?;
        let handled = measurement.handle_datagram(shared, now, from, parts);
        let (progress, result) = match handled {
            Ok(progress) => (progress, Ok(())),
            Err(reason) => (measurement.on_unexpected(now), Err(reason)),
        };
        self.conclude(shared, progress);
        result
    }

    /// Does everything that is due.
    pub fn handle_timeout(&mut self, shared: &mut Shared, now: Instant) {
        if let Some(measurement) = &mut self.measurement {
            let progress = measurement.handle_timeout(shared, now);
            self.conclude(shared, progress);
        }
    }

    /// When [`Interval::handle_timeout`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.measurement.as_ref().map(Measurement::deadline)
    }

    /// Ends a measurement that does not continue.
    fn conclude(&mut self, shared: &mut Shared, progress: Progress) {
        match progress {
            Progress::Continues => return,
            Progress::GivenUp => {}
            Progress::Found => {
                self.refresh = self.measurement.as_ref().map(|found| found.refresh);
                if let Some(refresh) = self.refresh {
                    shared.emit(Event::RefreshFound(refresh));
                }
            }
        }
        self.close(shared);
    }
}

impl Measurement {
    fn deadline(&self) -> Instant {
        match &self.step {
            Step::Closed(at) | Step::Rest(at) | Step::Silence(at) | Step::Bubble(_, at) => *at,
            Step::Primary(inquiry) | Step::Secondary(inquiry) | Step::Maintenance(inquiry) => {
                inquiry.deadline()
            }
        }
    }

    /// Opens a port and qualifies it as the service port was.
    fn open(&mut self, shared: &mut Shared, now: Instant) {
        self.port = shared.open_port();
        self.step = Step::Primary(self.ask(shared, now, ServerAddress::Primary));
    }

    fn ask(&self, shared: &mut Shared, now: Instant, asked: ServerAddress) -> Inquiry {
        let cone = self.identity.nat == Nat::Cone;
        Inquiry::send(shared, now, self.port, self.identity.server, asked, cone)
    }

    fn handle_datagram(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        from: Endpoint,
        parts: &Encapsulation<'_>,
    ) -> Result<Progress, DropReason> {
        let header = Header::parse(parts.packet).map_err(|_| DropReason::Malformed)?;
        if router::is_advertisement(header, parts.packet) {
            return self.handle_advertisement(shared, now, from, parts);
        }
        let is_ours = header.is_bubble()
            && from == self.identity.server.primary()
            && header.source() == self.identity.address.octets()
            && header.destination() == self.address;
        let progress = match self.step {
            Step::Bubble(..) if is_ours => self.judge(shared, now, true),
            // The answer to one that was sent before.
            Step::Rest(_) | Step::Maintenance(_) if is_ours => Progress::Continues,
            _ => return Err(DropReason::Port),
        };
        shared.statistics.bubbles[Bubble::ReceivedInterval] += 1;
        Ok(progress)
    }

    fn handle_advertisement(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        from: Endpoint,
        parts: &Encapsulation<'_>,
    ) -> Result<Progress, DropReason> {
        let (Step::Primary(inquiry) | Step::Secondary(inquiry) | Step::Maintenance(inquiry)) =
            &self.step
        else {
            return Err(DropReason::AdvertisementNonce);
        };
        let advertised = inquiry.verify(&shared.config, from, parts)?;
        if advertised.tunnel.is_some() {
            return Err(DropReason::AdvertisementPrefix);
        }
        self.step = match self.step {
            // A NAT that is symmetric keeps the primary address's mapping by itself: the silence
            // begins with that address in any case.
            Step::Primary(_) if self.identity.nat != Nat::Cone => {
                Step::Secondary(self.ask(shared, now, ServerAddress::Secondary))
            }
            Step::Primary(_) | Step::Secondary(_) => Step::Rest(now + GAP),
            _ => {
                self.address = self.address_at(shared, &advertised);
                Step::Silence(now + self.candidate)
            }
        };
        Ok(Progress::Continues)
    }

    /// The Teredo address of the secondary port.
    fn address_at(&self, shared: &mut Shared, advertised: &Advertised) -> [u8; 16] {
        let fields = TeredoAddress {
            prefix: shared.config.prefix,
            server: self.identity.server.primary,
            flags: shared.random.random::<u16>() & RANDOM_FLAGS,
            mapped: advertised.mapped,
        };
        fields.encode().octets()
    }

    /// Begins the silence anew after a packet that may have kept the mapping alive (DEC-12).
    fn on_unexpected(&mut self, now: Instant) -> Progress {
        if matches!(self.step, Step::Silence(_)) {
            self.unexpected += 1;
            self.step = Step::Rest(now + GAP);
        }
        if self.unexpected > MAX_UNEXPECTED {
            return Progress::GivenUp;
        }
        Progress::Continues
    }

    fn handle_timeout(&mut self, shared: &mut Shared, now: Instant) -> Progress {
        if now < self.deadline() {
            return Progress::Continues;
        }
        match &mut self.step {
            Step::Closed(_) => self.open(shared, now),
            Step::Rest(_) => {
                self.step = Step::Maintenance(self.ask(shared, now, ServerAddress::Primary))
            }
            Step::Primary(inquiry) | Step::Secondary(inquiry) | Step::Maintenance(inquiry) => {
                if !inquiry.handle_timeout(shared, now) {
                    return Progress::GivenUp;
                }
            }
            Step::Silence(_) => self.send_bubble(shared, now, 1),
            Step::Bubble(BUBBLES.., _) => return self.judge(shared, now, false),
            &mut Step::Bubble(sent, _) => self.send_bubble(shared, now, sent + 1),
        }
        Progress::Continues
    }

    /// Sends a bubble from the service port to the secondary one, through the server: it comes
    /// back in if the NAT still has the mapping.
    fn send_bubble(&mut self, shared: &mut Shared, now: Instant, number: u8) {
        let bubble = bubble::build(&self.identity.address.octets(), &self.address);
        let (port, server) = (shared.config.port, self.identity.server.primary());
        shared.send(port, server, bubble.to_vec());
        shared.statistics.bubbles[Bubble::SentInterval] += 1;
        self.step = Step::Bubble(number, now + BUBBLE_TIMEOUT);
    }

    /// Chooses the next candidate, depending on whether the mapping lived through the last one. Ends
    /// after success as well as after failure (DEC-13).
    fn judge(&mut self, shared: &mut Shared, now: Instant, is_good: bool) -> Progress {
        if is_good {
            self.refresh = self.candidate;
        } else {
            self.longest = self.candidate;
        }
        if self.refresh * 4 >= self.longest * 3 {
            return Progress::Found;
        }
        let middle = (self.refresh + self.longest) / 2;
        self.candidate = if is_good {
            middle.min(self.refresh * 2)
        } else {
            middle
        };
        self.step = Step::Maintenance(self.ask(shared, now, ServerAddress::Primary));
        Progress::Continues
    }
}
