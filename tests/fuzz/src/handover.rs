//! The state that one process hands over to the next: of machines after a history, as it is and with changed
//! octets, and any other octets.

use std::time::Duration;

use teredo::handover::{State, state::RelayState};
use teredo_proto::{
    Client, Instant, Relay, Server, ServerAddress,
    client::{self, ServerEndpoints},
    relay,
    server::{self, Buckets},
};

use crate::{
    bytes::Bytes,
    machines::{client as client_machine, relay as relay_machine, scenery},
};

/// The most steps of a history.
const STEPS: usize = 24;
/// The most calls of a machine that goes on.
const CALLS: usize = 500;
/// The most octets that are changed.
const CHANGES: usize = 4;

/// Lets machines go on from a state.
pub fn run(octets: &[u8]) {
    let mut bytes = Bytes::new(octets);
    match bytes.below(4) {
        0 => go_on(bytes.rest()),
        1 => {
            let steps = bytes.below(STEPS);
            let (relay, config, now) = relay_machine::after(&mut bytes, steps);
            let state = State {
                relay: Some(RelayState {
                    endpoint: scenery::RELAY.into(),
                    relay: relay.state(now),
                }),
                ..State::default()
            };
            let encoded = state.encode();
            let same = State::decode(&encoded).relay.expect("it was just encoded");
            // What is permitted now was permitted before, and there is room for it.
            let restored = Relay::restore(config, [1; 32], now, same.relay);
            assert_eq!(
                restored.statistics().queue_packets,
                relay.statistics().queue_packets
            );
            assert_eq!(restored.peers().count(), relay.peers().count());
            go_on(&change(encoded, &mut bytes));
        }
        _ => {
            let steps = bytes.below(STEPS);
            let (client, config, now) = client_machine::after(&mut bytes, steps);
            let state = State {
                client: Some(client.save(now)),
                ..State::default()
            };
            let encoded = state.encode();
            let same = State::decode(&encoded).client.expect("it was just encoded");
            let restored = Client::restore(config, [1; 32], now, same);
            assert_eq!(restored.identity(), client.identity());
            assert_eq!(restored.peers().count(), client.peers().count());
            go_on(&change(encoded, &mut bytes));
        }
    }
}

fn change(mut octets: Vec<u8>, bytes: &mut Bytes<'_>) -> Vec<u8> {
    for _ in 0..bytes.below(CHANGES + 1) {
        let place = usize::from(bytes.short()) % octets.len();
        octets[place] = bytes.octet();
    }
    if bytes.octet() == 255 {
        octets.truncate(usize::from(bytes.short()) % octets.len());
    }
    octets
}

/// Lets the machines go on from these octets, whatever they are.
fn go_on(octets: &[u8]) {
    let state = State::decode(octets);
    let now = Instant::from_nanos(1_000_000_000_000);
    if let Some(relay) = state.relay {
        let mut config = relay::Config::new(relay.endpoint.into());
        config.max_peers = 32;
        config.queue_total_bytes = 4096;
        let mut relay = Relay::restore(config, [1; 32], now, relay.relay);
        let statistics = relay.statistics();
        assert!(statistics.trusted_peers + statistics.untrusted_peers <= 32);
        assert!(statistics.queue_octets <= 4096);
        let mut now = now;
        for _ in 0..CALLS {
            while relay.poll_transmit().is_some() {}
            while relay.poll_event().is_some() {}
            let Some(due) = relay.poll_timeout() else {
                break;
            };
            now = now.max(due);
            relay.handle_timeout(now);
        }
        relay.handle_suspension(Duration::from_secs(60));
        let _ = relay.state(now);
    }
    if let Some(saved) = state.client {
        let servers = vec![ServerEndpoints::new(scenery::PRIMARY)];
        let config = client::Config::new(servers, saved.port());
        if saved.check(&config).is_err() {
            return;
        }
        let mut client = Client::restore(config, [1; 32], now, saved);
        let mut now = now;
        for _ in 0..CALLS {
            while client.poll_transmit().is_some() {}
            while client.poll_event().is_some() {}
            let Some(due) = client.poll_timeout() else {
                break;
            };
            now = now.max(due);
            client.handle_timeout(now);
        }
        client.handle_suspension(now, Duration::from_secs(60));
        let _ = client.save(now);
    }
    if let Some(saved) = state.server {
        let config = server::Config::new(scenery::PRIMARY, scenery::SECONDARY);
        let mut server = Server::new(config, Buckets::new());
        server.restore(&saved);
        server.handle_datagram(now, ServerAddress::Primary, scenery::RELAY, &[0; 48]);
        let _ = server.state(now);
    }
}
