//! The server beside a relay on the same port.

use teredo_common::{address::Endpoint, wire::UDP};

use super::harness::*;
use crate::{
    dual::{Recipient, SharedPort},
    relay::{self, Relay, Transmit},
    server::DropReason,
};

const PORT: u16 = 3544;

/// Server and relay as the node joins them.
struct Dual {
    world: World,
    relay: Relay,
    port: SharedPort,
}

/// What became of a datagram.
#[derive(Debug, PartialEq)]
enum Outcome {
    Server(Sent),
    Relay(Option<Vec<u8>>),
}

fn own() -> Endpoint {
    Endpoint::new(PRIMARY.parse().unwrap(), PORT)
}

impl Dual {
    fn new() -> Self {
        let world = World::with(|config| config.relay = Some(own()));
        let mut config = relay::Config::new(own());
        config.own_server = Some(own().ip());
        config.own_ipv4 = vec![own().ip()];
        let prefixes = vec![config.prefix];
        Self {
            relay: Relay::new(config, [42; 32]),
            port: SharedPort::new(own().ip(), PORT, prefixes),
            world,
        }
    }

    fn arrives(&mut self, from: &str, payload: &[u8]) -> Outcome {
        let now = self.world.now;
        match self.port.recipient(&self.relay, now, payload) {
            Recipient::Server => Outcome::Server(self.world.receives(from, payload)),
            Recipient::Relay => {
                let mut payload = payload.to_vec();
                let packet = (self.relay).handle_datagram(now, endpoint(from), 0, &mut payload);
                Outcome::Relay(packet.map(|packet| packet.to_vec()))
            }
        }
    }
}

/// Nothing that the server deals with makes a peer of anybody, and only peers get more through
/// than the server would let.
#[test]
fn s31_the_server_path_makes_no_peers() {
    let mut dual = Dual::new();
    let (client, host) = (teredo(CLIENT), address(HOST));
    let data = ipv6(UDP, 64, &client, &host, &[0xab; 20]);
    let served = [
        solicitation(SOLICITOR),
        with_nonce(&solicitation(CONE_SOLICITOR)),
        bubble(&client, &teredo(OTHER)),
        bubble(&address("fe80::1"), &teredo(OTHER)),
        echo(&client, &host),
        echo(&client, &address("ff02::2")),
    ];
    for payload in &served {
        let outcome = dual.arrives(CLIENT, payload);
        assert!(matches!(outcome, Outcome::Server(Some(_))), "{outcome:?}");
    }
    assert_eq!(dual.arrives(CLIENT, &data), Outcome::Server(None));
    assert_eq!(dual.world.dropped(DropReason::Protocol), 1, "rule 2");
    assert_eq!(dual.relay.peers().count(), 0);
    assert_eq!(dual.relay.statistics().trusted, 0);

    // The native host sends to the client: the relay's bubble goes out through the server, and its
    // answer makes the client a peer.
    let mut answer = ipv6(UDP, 63, &host, &client, &[0xcd; 20]);
    assert_eq!(dual.relay.handle_ipv6(dual.world.now, &mut answer), None);
    let Some(Transmit::OwnServer { bubble: indirect }) = dual.relay.poll_transmit() else {
        panic!("no bubble")
    };
    let (_, sent) = dual.world.relay_sends(&indirect).unwrap();
    assert_eq!(sent[8..], indirect);
    let cookie = *indirect[8..].first_chunk().unwrap();
    assert_eq!(
        dual.arrives(CLIENT, &bubble(&client, &cookie)),
        Outcome::Relay(None)
    );
    assert_eq!(dual.relay.statistics().trusted, 1);

    // From now on its packets pass, from where it is alone.
    assert_eq!(
        dual.arrives(CLIENT, &data),
        Outcome::Relay(Some(data.clone()))
    );
    assert_eq!(dual.arrives(OTHER, &data), Outcome::Relay(None));
    let dropped = relay::DropReason::DecapMapping;
    assert_eq!(dual.relay.statistics().dropped[dropped], 1);
    for payload in &served[..4] {
        let outcome = dual.arrives(CLIENT, payload);
        assert!(matches!(outcome, Outcome::Server(Some(_))), "{outcome:?}");
    }
}
