//! Histories of the measurements.

use std::time::Duration;

use teredo_common::{address::Endpoint, wire::SERVER_PORT};
use teredo_proto::{
    Instant, Server, ServerAddress,
    client::ServerEndpoints,
    probe::{LifetimeProbe, Measurement, NatProbe, Transmit},
    server::{self, Buckets},
};

use super::{
    START, STEPS, duration,
    scenery::{PRIMARY, SECONDARY},
};
use crate::bytes::Bytes;

/// Datagrams of one measurement at most.
const DATAGRAMS: usize = 200;
/// The time that one takes at most.
const LONGEST: Duration = Duration::from_secs(150);

/// Runs one of the measurements.
pub fn run(octets: &[u8]) {
    let mut bytes = Bytes::new(octets);
    let endpoints = ServerEndpoints::new(PRIMARY);
    if bytes.bit() {
        let mut probe = LifetimeProbe::new(endpoints, [7; 32], START);
        World::default().run(&mut probe, LifetimeProbe::SOCKETS, &mut bytes);
        while let Some(progress) = probe.poll_event() {
            assert!(progress.idle <= Duration::from_secs(120));
        }
        let lifetime = probe.lifetime();
        if let (Some(kept), Some(lost)) = (lifetime.kept, lifetime.lost) {
            assert!(kept < lost, "{lifetime:?}");
        }
        assert!(lifetime.refresh() >= Duration::from_secs(30));
    } else {
        let local = [bytes.endpoint(), bytes.endpoint(), bytes.endpoint()];
        let mut probe = NatProbe::new(endpoints, local, [7; 32], START);
        World::default().run(&mut probe, NatProbe::SOCKETS, &mut bytes);
        let findings = probe.findings();
        assert_eq!(findings.local, local[0]);
        assert_eq!(findings.mapped.is_some(), findings.primary.is_answer());
        let behaviour = findings.behaviour();
        assert_eq!(findings.kind(), behaviour.kind());
        assert!(!behaviour.type_name().is_empty());
        assert!(!findings.works() || findings.is_global() == Some(true));
    }
}

/// The internet around a measurement.
#[derive(Default)]
struct World {
    sent: Vec<Transmit>,
    /// Endpoints that the server said are this host's own.
    mapped: Vec<Endpoint>,
}

impl World {
    fn run(&mut self, probe: &mut impl Measurement, sockets: usize, bytes: &mut Bytes<'_>) {
        let mut now = START;
        let config = server::Config::new(PRIMARY, SECONDARY);
        let mut server = Server::new(config, Buckets::new());
        self.drain(probe, sockets);
        for _ in 0..STEPS {
            if bytes.is_empty() {
                break;
            }
            match bytes.below(8) {
                0..=3 => self.answer(probe, &mut server, now, bytes),
                // A bubble comes back, or through the server.
                4 => {
                    let (number, socket) = (bytes.octet().into(), bytes.below(sockets));
                    let from = bytes.endpoint();
                    if let Some(sent) = self.sent.iter().cycle().nth(number) {
                        let payload = sent.payload.clone();
                        probe.handle_datagram(now, socket, from, &payload);
                    }
                }
                5 => {
                    let (socket, from) = (bytes.below(sockets), bytes.endpoint());
                    let payload = bytes.payload();
                    probe.handle_datagram(now, socket, from, &payload);
                }
                _ => self.pass(probe, sockets, &mut now, duration(bytes)),
            }
            self.drain(probe, sockets);
        }
        self.pass(probe, sockets, &mut now, LONGEST);
        assert_eq!(probe.poll_timeout(), None, "it ends");
    }

    /// The server answers, and sees any mapped endpoint.
    fn answer(
        &mut self,
        probe: &mut impl Measurement,
        server: &mut Server,
        now: Instant,
        bytes: &mut Bytes<'_>,
    ) {
        let number = bytes.octet().into();
        let mapped = bytes.endpoint();
        let Some(sent) = self.sent.iter().cycle().nth(number) else {
            return;
        };
        let to = match sent.to.ip() == PRIMARY {
            true => ServerAddress::Primary,
            false => ServerAddress::Secondary,
        };
        let answer = server.handle_datagram(now, to, mapped, &sent.payload);
        if let Some(server::Transmit::Datagram { from, payload, .. }) = answer {
            let ip = match from {
                ServerAddress::Primary => PRIMARY,
                ServerAddress::Secondary => SECONDARY,
            };
            let from = Endpoint::new(ip, SERVER_PORT);
            self.mapped.push(mapped);
            let socket = sent.socket;
            probe.handle_datagram(now, socket, from, payload);
        }
    }

    fn pass(
        &mut self,
        probe: &mut impl Measurement,
        sockets: usize,
        now: &mut Instant,
        duration: Duration,
    ) {
        super::pass(
            probe,
            now,
            duration,
            |probe| probe.poll_timeout(),
            |probe, now| {
                probe.handle_timeout(now);
                self.drain(probe, sockets);
            },
        );
    }

    /// Datagrams go to the server and to the host's own mapped endpoints, and nowhere else.
    fn drain(&mut self, probe: &mut impl Measurement, sockets: usize) {
        while let Some(transmit) = probe.poll_transmit() {
            assert!(transmit.socket < sockets);
            let to = transmit.to;
            let is_server = [PRIMARY, SECONDARY].contains(&to.ip()) && to.port() == SERVER_PORT;
            assert!(is_server || self.mapped.contains(&to), "{to}");
            self.sent.push(transmit);
            assert!(self.sent.len() <= DATAGRAMS, "it floods");
        }
    }
}
