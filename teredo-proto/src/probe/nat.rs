//! The behaviour of the NAT, and whether the server serves clients as they need it.
//!
//! No question may change the answer to a later one, so each property has the sockets that it needs:
//!
//! - *Filtering*, first: the service socket asks the server's primary address for an answer from
//!   the secondary one. It has to be the service socket, which may have a forwarded port, and
//!   nothing may have gone to the secondary address before, from any socket, since some NATs filter
//!   for the whole host.
//! - *Mapping*, afterwards: another socket asks both addresses. The datagram that came unasked to
//!   the service socket may have left an entry in the NAT, as on Linux without an input filter, and
//!   that moves the port of the service socket's mapping towards the secondary address. The service
//!   socket follows only where the other one shows a dependent mapping, since a forwarded port may
//!   have a mapping of its own; elsewhere it would open the filter for a measurement that is soon
//!   repeated.
//! - *Bubbles* and *ports* use mappings towards the primary address alone, which every socket has
//!   sent to before anything comes from it.
//! - *Hairpinning* uses mappings towards the NAT's own address alone.

use std::{net::Ipv6Addr, time::Duration};

use teredo_common::{address::Endpoint, time::Instant};

use super::{
    Measurement, Transmit,
    attempt::{Attempt, Delays, Step},
    findings::{Findings, Reach},
    hairpinning::{Hairpinning, Opened, Party},
    outbox::Outbox,
    question::Question,
};
use crate::{
    ServerAddress,
    client::ServerEndpoints,
    nat::{Filtering, Mapping, Ports},
    wire::{encapsulation, ipv6::Header, router},
};

/// The service socket, and its question to the primary address.
const SERVICE: usize = 0;
/// The socket that bubbles go to, and its question to the primary address.
const PEER: usize = 1;
/// A third socket, and its question to the primary address.
const OTHER: usize = 2;
/// The question of the service socket to the primary address, for an answer from the other one.
const CONE: usize = 3;
/// The question of the peer's socket to the secondary address, once the former is decided.
const PEER_SECONDARY: usize = 4;
/// The same question of the service socket, if the mapping of the peer's socket is dependent.
const SERVICE_SECONDARY: usize = 5;
/// How long an indirect bubble is waited for.
const DELAYS: Delays = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(1),
];

/// A measurement of server and NAT, which takes one to five seconds.
#[derive(Debug)]
pub struct NatProbe {
    outbox: Outbox,
    local: [Endpoint; Self::SOCKETS],
    questions: Vec<Question>,
    is_hurried: bool,
    /// That of a client on the service socket.
    address: Option<Ipv6Addr>,
    indirect: Option<Indirect>,
    hairpinning: Option<Hairpinning>,
}

/// A bubble through the server.
#[derive(Debug)]
struct Indirect {
    attempt: Attempt,
    source: [u8; 16],
    destination: [u8; 16],
    arrived: bool,
}

impl NatProbe {
    /// Number of sockets that the measurement needs. The first has the client's service port.
    pub const SOCKETS: usize = 3;

    /// Starts a measurement with this server. `local` are the endpoints of the sockets on this host,
    /// `seed` comes from the operating system's random number generator.
    #[must_use]
    pub fn new(
        server: ServerEndpoints,
        local: [Endpoint; Self::SOCKETS],
        seed: [u8; 32],
        now: Instant,
    ) -> Self {
        let ask = |socket, cone| Question::new(now, socket, ServerAddress::Primary, cone);
        Self {
            outbox: Outbox::new(server, seed),
            local,
            questions: vec![
                ask(SERVICE, false),
                ask(PEER, false),
                ask(OTHER, false),
                ask(SERVICE, true),
            ],
            is_hurried: false,
            address: None,
            indirect: None,
            hairpinning: None,
        }
    }

    /// Returns the findings so far, which are complete once [`Measurement::poll_timeout`] returns
    /// `None`.
    #[must_use]
    pub fn findings(&self) -> Findings {
        let service = &self.questions[SERVICE];
        let pairs: Vec<_> = self.questions[..Self::SOCKETS]
            .iter()
            .zip(self.local)
            .filter_map(|(question, local)| Some((local.port(), question.mapped()?.port())))
            .collect();
        let mapping = self.mapping();
        Findings {
            server: self.outbox.server,
            primary: service.reach(),
            secondary: self.secondary(),
            local: self.local[SERVICE],
            mapped: service.mapped(),
            address: self.address,
            mtu: service.answer().map(|answer| answer.advertised.mtu),
            mapping,
            filtering: self.filtering(),
            ports: Ports::of(&pairs),
            hairpinning: self.has_hairpinning(mapping),
            bubbles: self.indirect.as_ref().map(|indirect| indirect.arrived),
        }
    }

    /// Whether the secondary address answers one of the sockets that ask it.
    fn secondary(&self) -> Reach {
        let reach = |question| self.questions.get(question).map(Question::reach);
        let reaches = [PEER_SECONDARY, SERVICE_SECONDARY].map(reach);
        let answer = reaches
            .into_iter()
            .flatten()
            .find(|reach| reach.is_answer());
        answer.or(reaches[0]).unwrap_or(Reach::Silent)
    }

    fn mapping(&self) -> Option<Mapping> {
        let peer = self.mapping_of(PEER, PEER_SECONDARY)?;
        let service = self.mapping_of(SERVICE, SERVICE_SECONDARY);
        Some(
            service
                .filter(|&own| own == Mapping::EndpointIndependent)
                .unwrap_or(peer),
        )
    }

    /// The mapping that two questions of one socket show.
    fn mapping_of(&self, by_primary: usize, by_secondary: usize) -> Option<Mapping> {
        let by_primary = self.questions[by_primary].mapped()?;
        let by_secondary = self.questions.get(by_secondary)?.mapped()?;
        Some(match by_primary == by_secondary {
            true => Mapping::EndpointIndependent,
            false => Mapping::Dependent,
        })
    }

    fn filtering(&self) -> Option<Filtering> {
        if self.questions[CONE].answer().is_some() {
            return Some(Filtering::EndpointIndependent);
        }
        // Where one of the server's addresses is silent anyway, silence proves nothing.
        self.questions[SERVICE].answer()?;
        if !self.secondary().is_answer() {
            return None;
        }
        Some(
            match self.hairpinning.as_ref().and_then(Hairpinning::told) {
                Some(Opened::Address) => Filtering::AddressDependent,
                Some(Opened::Endpoint) => Filtering::AddressAndPortDependent,
                Some(Opened::Nothing) | None => Filtering::Dependent,
            },
        )
    }

    /// A bubble that does not arrive proves something only where the mapped endpoint that the server
    /// told is also the one for other destinations.
    fn has_hairpinning(&self, mapping: Option<Mapping>) -> Option<bool> {
        let arrived = self.hairpinning.as_ref()?.has_arrived();
        (arrived || mapping == Some(Mapping::EndpointIndependent)).then_some(arrived)
    }

    /// Begins what has become possible.
    fn advance(&mut self, now: Instant) {
        let is_decided = |question: usize| self.questions[question].due().is_none();
        let mapped = |question: usize| self.questions[question].mapped();
        let is_time_for_secondary = is_decided(SERVICE) && is_decided(CONE);
        let are_asked = (0..Self::SOCKETS).all(is_decided);
        let (service, peer, other) = (mapped(SERVICE), mapped(PEER), mapped(OTHER));

        if let Some(answer) = self.questions[SERVICE].answer().copied()
            && !self.is_hurried
        {
            self.is_hurried = true;
            self.address = Some(self.outbox.teredo_address(answer.advertised.mapped));
            self.questions[CONE].hurry(now, answer.round_trip);
        }
        let ask = |socket| Question::new(now, socket, ServerAddress::Secondary, false);
        match self.questions.len() {
            PEER_SECONDARY if is_time_for_secondary => self.questions.push(ask(PEER)),
            SERVICE_SECONDARY if self.mapping() == Some(Mapping::Dependent) => {
                self.questions.push(ask(SERVICE));
            }
            _ => {}
        }
        if let (Some(from), Some(to)) = (service, peer)
            && are_asked
            && self.indirect.is_none()
        {
            self.exchange_bubbles(now, [from, to], other);
        }
    }

    fn exchange_bubbles(
        &mut self,
        now: Instant,
        [from, to]: [Endpoint; 2],
        other: Option<Endpoint>,
    ) {
        let outbox = &mut self.outbox;
        self.indirect = Some(Indirect {
            attempt: Attempt::new(DELAYS, now),
            source: outbox.teredo_address(from).octets(),
            destination: outbox.teredo_address(to).octets(),
            arrived: false,
        });
        // Without a NAT there is nothing that could bring them back.
        if from.address != self.local[SERVICE].address {
            let parties = [(SERVICE, from), (PEER, to)];
            let parties = parties.map(|(socket, mapped)| Party { socket, mapped });
            self.hairpinning = Some(Hairpinning::new(now, parties, other, outbox));
        }
    }
}

impl Measurement for NatProbe {
    fn handle_datagram(&mut self, now: Instant, socket: usize, from: Endpoint, payload: &[u8]) {
        let Ok(parts) = encapsulation::parse(payload) else {
            return;
        };
        let Ok(header) = Header::parse(parts.packet) else {
            return;
        };
        if router::is_advertisement(header, parts.packet) {
            for question in &mut self.questions {
                question.handle_advertisement(now, &self.outbox, socket, from, &parts);
            }
        } else if header.is_bubble() && from == self.outbox.server.primary() {
            if let Some(indirect) = &mut self.indirect
                && socket == PEER
                && (header.source(), header.destination())
                    == (indirect.source, indirect.destination)
            {
                indirect.arrived = true;
                indirect.attempt.end();
            }
        } else if header.is_bubble()
            && let Some(test) = &mut self.hairpinning
        {
            test.handle_bubble(socket, header);
        }
        self.advance(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        // What is begun by what has ended is done at once.
        for _ in 0..2 {
            let Self {
                questions, outbox, ..
            } = self;
            for question in questions {
                question.handle_timeout(now, outbox);
            }
            if let Some(indirect) = &mut self.indirect
                && indirect.attempt.step(now) == Step::Send
            {
                let to = outbox.server.primary();
                outbox.bubble(SERVICE, to, &indirect.source, &indirect.destination);
            }
            if let Some(test) = &mut self.hairpinning {
                test.handle_timeout(now, outbox);
            }
            self.advance(now);
        }
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.outbox.poll()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let indirect = self.indirect.as_ref();
        let others = [
            indirect.and_then(|indirect| indirect.attempt.due()),
            self.hairpinning.as_ref().and_then(Hairpinning::due),
        ];
        let questions = self.questions.iter().filter_map(Question::due);
        questions.chain(others.into_iter().flatten()).min()
    }
}
