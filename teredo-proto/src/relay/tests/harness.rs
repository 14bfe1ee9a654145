//! A relay in virtual time with a client, a server and a native host around it.

use std::time::Duration;

use teredo_common::{
    address::{Endpoint, TeredoAddress},
    scope::Ipv4Scope,
    time::Instant,
    wire::{ICMPV6, NO_NEXT_HEADER},
};

pub use crate::testing::{address, bubble, endpoint, ipv6, is_bubble, packet};
use crate::{
    relay::{Bubble, Config, DropReason, Event, Relay, Statistics, Transmit},
    shared::statistics::Unreachable,
    wire::{icmpv6, ipv6},
};

/// The relay of the test vectors.
pub const RELAY: &str = "5.6.7.8:3545";
/// The server in the clients' addresses.
pub const SERVER: &str = "1.2.3.4:3544";
/// The client's endpoint by default.
pub const CLIENT: &str = "9.0.0.1:4096";
/// The native host.
pub const HOST: &str = "2000::b";
/// The relay's own IPv6 address.
pub const OWN: &str = "2001:db8::1";

/// The Teredo address of a client at `mapped`, of `server`.
pub fn teredo_of(mapped: &str, server: &str, flags: u16) -> [u8; 16] {
    let fields = TeredoAddress::new(endpoint(server).ip(), endpoint(mapped));
    TeredoAddress { flags, ..fields }.encode().octets()
}

/// The Teredo address of a client at `mapped`.
pub fn teredo(mapped: &str) -> [u8; 16] {
    teredo_of(mapped, SERVER, 0)
}

/// A packet that pays for two bubbles, as the first one of TCP does.
pub fn first_packet(source: &[u8; 16], destination: &[u8; 16]) -> Vec<u8> {
    ipv6(6, 64, source, destination, &[0; 40])
}

/// Whether a payload is the relay's question, as a bubble.
fn is_question(payload: &[u8]) -> bool {
    payload[6] == NO_NEXT_HEADER && payload.get(40..42) == Some(&[4, 4])
}

/// The relay and its surroundings.
pub struct World {
    pub relay: Relay,
    pub now: Instant,
    /// All datagrams that were sent, oldest first, with their time.
    pub sent: Vec<(Instant, Endpoint, Vec<u8>)>,
    /// All IPv6 packets of the relay's own.
    pub own_packets: Vec<Vec<u8>>,
    /// All bubbles for the server in the same process.
    pub own_server: Vec<Vec<u8>>,
    pub events: Vec<Event>,
}

impl World {
    /// A relay with default settings.
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(endpoint(RELAY));
        config.ipv4_scope = Ipv4Scope::Strict;
        config.own_ipv6 = vec!["fe80::1".parse().unwrap(), OWN.parse().unwrap()];
        change(&mut config);
        let now = Instant::from_nanos(1_000_000_000_000);
        Self {
            relay: Relay::new(config, [42; 32]),
            now,
            sent: Vec::new(),
            own_packets: Vec::new(),
            own_server: Vec::new(),
            events: Vec::new(),
        }
    }

    /// The native host sends; the packet is either sent on at once or not.
    pub fn native_sends(&mut self, packet: &[u8]) -> bool {
        let mut buffer = packet.to_vec();
        let sent = self.relay.handle_ipv6(self.now, &mut buffer);
        let sent = sent.map(|(to, payload)| (self.now, to, payload.to_vec()));
        let is_sent = sent.is_some();
        self.sent.extend(sent);
        self.drain();
        is_sent
    }

    /// A datagram arrives. Returns the packet for the kernel.
    pub fn client_sends(&mut self, from: &str, payload: &[u8]) -> Option<Vec<u8>> {
        self.client_sends_marked(from, 0, payload)
    }

    pub fn client_sends_marked(&mut self, from: &str, ecn: u8, payload: &[u8]) -> Option<Vec<u8>> {
        let mut buffer = payload.to_vec();
        let packet = self
            .relay
            .handle_datagram(self.now, endpoint(from), ecn, &mut buffer);
        let packet = packet.map(|packet| packet.to_vec());
        self.drain();
        packet
    }

    /// Lets another process go on from the relay's state, as octets. The counters go on as well.
    pub fn restart(&mut self) {
        let octets = rmp_serde::to_vec_named(&self.relay.state(self.now)).unwrap();
        let state = rmp_serde::from_slice(&octets).unwrap();
        let before = self.relay.statistics;
        let config = self.relay.config.clone();
        self.relay = Relay::restore(config, [43; 32], self.now, state);
        let proved_peers = self.relay.statistics.proved_peers;
        assert_eq!(proved_peers, before.proved_peers);
        self.relay.statistics = before;
        self.drain();
    }

    /// Lets time pass, waking the relay whenever it wants to.
    pub fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(deadline) = self.relay.poll_timeout().filter(|&at| at <= end) {
            self.now = self.now.max(deadline);
            self.relay.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    fn drain(&mut self) {
        while let Some(transmit) = self.relay.poll_transmit() {
            match transmit {
                Transmit::Datagram { to, payload } => self.sent.push((self.now, to, payload)),
                Transmit::OwnServer { bubble } => self.own_server.push(bubble.into()),
                Transmit::Ipv6(packet) => self.own_packets.push(packet),
            }
        }
        self.events
            .extend(std::iter::from_fn(|| self.relay.poll_event()));
    }

    /// Returns and clears the datagrams sent so far that are no questions for a proof, without times.
    pub fn take_data(&mut self) -> Vec<(Endpoint, Vec<u8>)> {
        let mut sent = self.take_sent();
        sent.retain(|(_, payload)| payload[6] != NO_NEXT_HEADER || payload.len() == 40);
        sent
    }

    /// Returns and clears the datagrams sent so far, without times.
    pub fn take_sent(&mut self) -> Vec<(Endpoint, Vec<u8>)> {
        let sent = std::mem::take(&mut self.sent);
        sent.into_iter()
            .map(|(_, to, payload)| (to, payload))
            .collect()
    }

    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Returns the times and destinations of the bubbles sent.
    pub fn bubbles(&self) -> Vec<(Instant, Endpoint)> {
        let bubbles = self
            .sent
            .iter()
            .filter(|(_, _, payload)| is_bubble(payload));
        bubbles.map(|&(at, to, _)| (at, to)).collect()
    }

    /// The source of the last bubble: the cookie.
    pub fn cookie(&self) -> [u8; 16] {
        let mut bubbles = self.sent.iter().rev();
        let bubble = bubbles.find(|(_, _, payload)| is_bubble(payload));
        ipv6::Header::parse(&bubble.unwrap().2).unwrap().source()
    }

    pub fn statistics(&self) -> Statistics {
        self.relay.statistics()
    }

    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.statistics().dropped[reason]
    }

    pub fn counted(&self, kind: Bubble) -> u64 {
        self.statistics().bubbles[kind]
    }

    pub fn unreachable(&self, outcome: Unreachable) -> u64 {
        self.statistics().unreachable[outcome]
    }

    /// The source of the last bubble that was sent to `mapped` itself: the second cookie.
    pub fn question(&self, mapped: &str) -> [u8; 16] {
        let mut questions = self.sent.iter().rev();
        let bubble =
            questions.find(|(_, to, payload)| *to == endpoint(mapped) && is_question(payload));
        ipv6::Header::parse(&bubble.unwrap().2).unwrap().source()
    }

    /// Makes the client at `mapped` a trusted peer whose mapping is proved, and clears the datagrams
    /// of that.
    pub fn trust(&mut self, mapped: &str) -> [u8; 16] {
        let client = self.accept(mapped);
        self.prove(&client, mapped);
        self.take_sent();
        self.take_events();
        client
    }

    /// Lets a trusted client prove that it is at `mapped`.
    pub fn prove(&mut self, client: &[u8; 16], mapped: &str) {
        let mut sent = self.sent.iter().rev();
        let question = sent.find(|(_, to, payload)| {
            *to == endpoint(mapped) && (is_question(payload) || payload[6] == ICMPV6)
        });
        let question = question.unwrap().2.clone();
        let answer = match is_question(&question) {
            true => {
                let cookie = ipv6::Header::parse(&question).unwrap().source();
                bubble(client, &cookie)
            }
            false => {
                let mut answer = Vec::new();
                icmpv6::echo_reply(client, &question, &mut answer);
                answer
            }
        };
        self.client_sends(mapped, &answer);
        assert!(
            self.relay
                .peers()
                .any(|peer| peer.proved && peer.address.octets() == *client)
        );
    }

    /// Makes the client at `mapped` a trusted peer whose mapping is not proved.
    pub fn accept(&mut self, mapped: &str) -> [u8; 16] {
        let client = teredo(mapped);
        self.native_sends(&packet(&address(HOST), &client, 0));
        assert_eq!(
            self.client_sends(mapped, &bubble(&client, &address(HOST))),
            None
        );
        assert!(
            self.relay
                .peers()
                .any(|peer| peer.trusted && peer.address.octets() == client)
        );
        client
    }
}
