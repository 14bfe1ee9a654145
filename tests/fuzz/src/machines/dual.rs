//! Histories of a server and a relay that share a port.

use teredo_common::address::{Endpoint, ServicePrefix};
use teredo_proto::{
    ServerAddress,
    dual::{Recipient, SharedPort},
};

use super::{START, STEPS, duration, relay, scenery::PRIMARY, server, world::World};
use crate::bytes::Bytes;

/// Runs a history.
pub fn run(octets: &[u8]) {
    let mut bytes = Bytes::new(octets);
    let mut both = Both {
        server: server::World::new(&mut bytes),
        relay: World::new(&mut bytes, START, Some(PRIMARY)),
        port: SharedPort::new(PRIMARY, 3544, vec![ServicePrefix::STANDARD]),
    };
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        both.step(&mut bytes);
        both.server.set_time(both.relay.now);
        both.hand_over();
        both.relay.check();
        both.server.check();
    }
    both.relay.end();
}

struct Both {
    server: server::World,
    relay: World,
    port: SharedPort,
}

impl Both {
    fn step(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.below(4) {
            0 | 1 => relay::step(&mut self.relay, bytes),
            2 => {
                let from = bytes.endpoint();
                let payload = bytes.payload();
                self.arrives(from, &payload);
            }
            _ => match bytes.below(4) {
                0 => self.server.set_native_reachable(bytes.bit()),
                1 => self.server.suspend(duration(bytes)),
                // A client answers.
                _ => {
                    let number = bytes.octet().into();
                    let peer = self.relay.cookies.iter().cycle().nth(number);
                    if let Some((&source, &destination)) = peer {
                        let from = teredo_common::address::embedded_mapping(&source);
                        let packet = bytes.packet(&source, &destination);
                        self.arrives(from, &packet);
                    }
                }
            },
        }
    }

    /// A datagram arrives at the port of both.
    fn arrives(&mut self, from: Endpoint, payload: &[u8]) {
        let now = self.relay.now;
        self.server.set_time(now);
        match self.port.recipient(&self.relay.relay, now, payload) {
            Recipient::Server => drop(self.server.arrives(ServerAddress::Primary, from, payload)),
            Recipient::Relay => {
                let forwarded = self.relay.arrives(from, 0, payload);
                let is_teredo = |packet: &Vec<u8>| {
                    super::world::is_teredo(packet[24..].first_chunk().expect("a destination"))
                };
                assert!(!forwarded.is_some_and(|packet| is_teredo(&packet)), "S-30");
            }
        }
    }

    /// The relay's bubbles go through the server, to the clients, never back.
    fn hand_over(&mut self) {
        for bubble in std::mem::take(&mut self.relay.for_server) {
            let sent = self.server.relay_sends(&bubble);
            if let Some((_, to, payload)) = sent {
                assert!(payload.ends_with(&bubble), "S-16");
                assert_ne!(to.ip(), PRIMARY, "L-02");
            }
        }
    }
}
