//! What an observer of a client sees, and the rules for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use teredo_common::{
    address::Endpoint,
    scope::Ipv4Scope,
    wire::{ICMPV6, ROUTER_SOLICITATION, SERVER_PORT},
};
use teredo_proto::{
    Instant,
    client::{Config, Identity},
    wire::{
        encapsulation,
        ipv6::Header,
        trailer::{self, Trailer},
    },
};

use super::{INSIDE, Nonces, PORT, SILENT, server_endpoints};

/// Datagrams that one event may cause: a queue that empties, and bubbles from several ports.
const AT_ONCE: usize = 40;
/// Solicitations from the service port within a minute: one to each address of the server for each
/// start, which are two seconds apart (C-46).
const A_MINUTE: usize = 2 * 31;
/// Solicitations from other ports within a minute: those of echo tests have the pace of bubbles to one
/// server (L-18).
const ELSEWHERE: usize = 8 * 61 + 8;

/// A datagram: the local port, its destination and payload.
pub type Sent = (u16, Endpoint, Vec<u8>);

/// What is known of a client from outside.
pub struct Observer {
    is_lab: bool,
    /// Ports that are open besides the service port.
    ports: BTreeSet<u16>,
    /// Those that could not be opened, while datagrams that were to leave there are still to come.
    failed: BTreeSet<u16>,
    /// Endpoints that something came from, or that a peer said it has.
    mentioned: BTreeSet<Endpoint>,
    /// The last solicitations, oldest first.
    solicitations: Vec<Sent>,
    /// When the client asked, and whether from the service port.
    asked_at: Vec<(Instant, bool)>,
    /// The last connectivity test.
    pub test: Option<Vec<u8>>,
    /// The last nonce to each peer.
    pub nonces: Nonces,
    caused: usize,
}

impl Observer {
    pub fn new(config: &Config) -> Self {
        Self {
            is_lab: config.ipv4_scope == Ipv4Scope::Lab,
            ports: BTreeSet::new(),
            failed: BTreeSet::new(),
            mentioned: BTreeSet::new(),
            solicitations: Vec::new(),
            asked_at: Vec::new(),
            test: None,
            nonces: BTreeMap::new(),
            caused: 0,
        }
    }

    /// Returns one of the last solicitations.
    pub fn solicitation(&self, number: usize) -> Option<&Sent> {
        self.solicitations.iter().rev().cycle().nth(number)
    }

    /// Returns a local port, the service port or another that is open.
    pub fn port(&self, number: usize) -> u16 {
        let mut ports = self.ports.iter().copied();
        ports.nth(number % 4).unwrap_or(PORT)
    }

    /// Something new happens.
    pub const fn cause(&mut self) {
        self.caused = 0;
    }

    /// A datagram comes from an endpoint, and names others.
    pub fn mention(&mut self, from: Endpoint, payload: &[u8]) {
        self.cause();
        self.mentioned.insert(from);
        let Ok(parts) = encapsulation::parse(payload) else {
            return;
        };
        for trailer in trailer::parse(parts.trailers) {
            if let Ok(Trailer::AlternateAddresses(list)) = trailer {
                self.mentioned.extend(list.endpoints());
            }
        }
    }

    /// The client sends a datagram.
    pub fn sent(
        &mut self,
        now: Instant,
        identity: Option<&Identity>,
        from: u16,
        to: Endpoint,
        payload: &[u8],
    ) {
        self.caused += 1;
        assert!(self.caused <= AT_ONCE, "amplification");
        let is_open = from == PORT || self.ports.contains(&from);
        assert!(is_open || self.failed.contains(&from), "{from} is not open");
        assert_ne!(to.port(), 0);
        assert!(Ipv4Scope::Lab.accepts(to.address), "{to}: L-05");
        assert_ne!(to.ip(), INSIDE, "L-02");
        let is_global = Ipv4Scope::Strict.accepts(to.address);
        assert!(
            is_global || self.is_lab || self.mentioned.contains(&to),
            "{to}: L-05, X-53"
        );
        let parts = encapsulation::parse(payload).expect("a Teredo payload");
        let header = Header::parse(parts.packet).expect("a packet");
        let is_solicitation =
            header.next_header() == ICMPV6 && parts.packet[40] == ROUTER_SOLICITATION;
        if is_solicitation {
            self.solicited(now, (from, to, payload.to_vec()));
            return;
        }
        let identity = identity.expect("nothing else without an address");
        assert_ne!(to, identity.mapped, "L-02");
        assert_eq!(header.source()[..4], identity.address.octets()[..4], "L-08");
        if header.is_bubble() {
            for trailer in trailer::parse(parts.trailers) {
                if let Ok(Trailer::Nonce(nonce)) = trailer {
                    self.nonces.insert(header.destination(), nonce);
                }
            }
        } else if header.next_header() == ICMPV6 {
            self.test = Some(payload.to_vec());
        }
    }

    fn solicited(&mut self, now: Instant, sent: Sent) {
        let is_server = server_endpoints().contains(&sent.1)
            || sent.1 == Endpoint::new(SILENT, SERVER_PORT)
            || sent.1 == Endpoint::new(Ipv4Addr::from_bits(SILENT.to_bits() + 1), SERVER_PORT);
        assert!(is_server, "{}: C-01", sent.1);
        let is_own = sent.0 == PORT;
        self.solicitations.push(sent);
        if self.solicitations.len() > 8 {
            self.solicitations.remove(0);
        }
        let minute = Duration::from_secs(60);
        self.asked_at.push((now, is_own));
        self.asked_at
            .retain(|&(at, _)| now.saturating_since(at) < minute);
        let own = self.asked_at.iter().filter(|(_, is_own)| *is_own).count();
        assert!(own <= A_MINUTE, "C-46");
        assert!(self.asked_at.len() - own <= ELSEWHERE, "L-18");
    }

    /// The host gets a packet.
    pub fn delivered(&self, identity: Option<&Identity>, packet: &[u8]) {
        let header = Header::parse(packet).expect("a packet");
        assert_eq!(header.packet_length(), packet.len());
        let Some(identity) = identity else { return };
        assert!(identity.tunnel || !header.is_bubble(), "C-32");
        let own = identity.address.octets();
        assert_eq!(header.destination(), own, "L-08");
        assert_ne!(header.source(), own, "L-04");
    }

    pub fn opened(&mut self, port: u16) {
        assert_ne!(port, 0);
        assert!(
            port != PORT && self.ports.insert(port),
            "{port} is open already"
        );
    }

    pub fn closed(&mut self, port: u16) {
        let was_open = self.ports.remove(&port);
        assert!(
            was_open || self.failed.contains(&port),
            "{port} is not open"
        );
    }

    /// Another process goes on, and opens them anew.
    pub fn close_ports(&mut self) {
        self.ports.clear();
    }

    /// A port could not be opened.
    pub fn failed(&mut self, port: u16) {
        self.ports.remove(&port);
        self.failed.insert(port);
    }

    /// Everything that was to be sent is sent.
    pub fn flushed(&mut self) {
        self.failed.clear();
    }

    /// Checks that no more ports are open than each peer may have, and the second one of the client.
    pub fn check_ports(&self, peers: usize) {
        let own = usize::from(peers > 0);
        assert!(self.ports.len() <= peers + own, "too many ports");
    }
}
