//! Echo tests (RFC 6081 section 5.5).

use std::time::Duration;

use teredo_common::address::Endpoint;

use super::harness::{PEER, SERVER, World, bubble, endpoint, own, peer};
use crate::{
    protocol::{
        client::{
            Nat, Server, Transmit,
            exchange::extensions::sequential::{ATTEMPTS, EchoTest},
            statistics::DropReason,
        },
        server,
    },
    wire::encapsulation,
};

/// The local port of the test.
const FRESH: u16 = 60000;

/// A test under way, what it sent, and the server.
struct Case {
    world: World,
    test: EchoTest,
    sent: Vec<(Endpoint, Vec<u8>)>,
    server: server::Server,
}

impl Case {
    fn new() -> Self {
        let mut world = World::behind(Nat::Symmetric, |_| ());
        let server = Server::new(endpoint(SERVER).ip());
        let now = world.now;
        let direct = bubble(&peer(), &own(), &[]);
        let test = EchoTest::start(
            &mut world.shared,
            now,
            server,
            FRESH,
            1,
            endpoint(PEER),
            direct,
        );
        let sent = std::mem::take(&mut world.shared.transmits)
            .into_iter()
            .map(|transmit| match transmit {
                Transmit::Datagram { from, to, payload } if from == FRESH => (to, payload),
                other => panic!("{other:?}"),
            })
            .collect();
        let config = server::Config::new(server.primary, server.secondary);
        let server = server::Server::new(config, server::Buckets::new(), now);
        Self {
            world,
            test,
            sent,
            server,
        }
    }

    /// The server's answer to one of the datagrams, which left the NAT from this port.
    fn answer(&mut self, index: usize, port: u16) -> (Endpoint, Vec<u8>) {
        let (to, payload) = &self.sent[index];
        let at = if *to == endpoint(SERVER) {
            server::ServerAddress::Primary
        } else {
            server::ServerAddress::Secondary
        };
        let mapped = Endpoint::new([9, 0, 0, 1].into(), port);
        let mut output = Vec::new();
        self.server
            .handle_datagram(self.world.now, at, mapped, payload, &mut output)
            .expect("the server answers");
        (*to, output)
    }

    fn take(&mut self, (from, payload): &(Endpoint, Vec<u8>)) -> Result<Option<u16>, DropReason> {
        let parts = encapsulation::parse(payload).unwrap();
        self.test
            .handle_advertisement(&self.world.shared.config, *from, &parts)
    }
}

#[test]
fn x40_a_solicitation_the_bubble_and_a_solicitation_back_to_back() {
    let case = Case::new();
    let server = Server::new(endpoint(SERVER).ip());
    let destinations: Vec<Endpoint> = case.sent.iter().map(|(to, _)| *to).collect();
    let expected = [server.primary(), endpoint(PEER), server.secondary()];
    assert_eq!(destinations, expected);
    assert_eq!(case.sent[1].1, bubble(&peer(), &own(), &[]));
    assert_eq!(case.test.port(), FRESH);
    let nonce = |index: usize| {
        let parts = encapsulation::parse(&case.sent[index].1).unwrap();
        parts.authentication.unwrap().nonce
    };
    assert_ne!(nonce(0), nonce(2));
}

#[test]
fn x40_dec16_the_port_is_the_midpoint_rounded_down() {
    for (lower, upper, expected) in [
        (4096, 4098, 4097),
        (4096, 4097, 4096),
        (65533, 65535, 65534),
        (4098, 4096, 4097),
        (50000, 60000, 55000),
    ] {
        // In whatever order the answers come.
        for order in [[0, 2], [2, 0]] {
            let mut case = Case::new();
            let [first, second] =
                order.map(|index| case.answer(index, if index == 0 { lower } else { upper }));
            assert_eq!(case.take(&first), Ok(None));
            assert_eq!(case.take(&first), Ok(None), "once more");
            assert_eq!(case.take(&second), Ok(Some(expected)));
        }
    }
}

#[test]
fn x40_only_answers_to_the_own_solicitations_count() {
    let mut case = Case::new();
    let (from, good) = case.answer(0, 4096);
    let mut forged = good.clone();
    forged[4] ^= 1;
    assert_eq!(
        case.take(&(from, forged)),
        Err(DropReason::AdvertisementNonce)
    );
    // The one address cannot answer for the other.
    let secondary = Server::new(endpoint(SERVER).ip()).secondary();
    assert!(case.take(&(secondary, good.clone())).is_err());
    assert_eq!(case.take(&(from, good)), Ok(None));
}

#[test]
fn x41_one_second_and_then_two() {
    let case = Case::new();
    assert_eq!(case.test.attempt(), 1);
    assert_eq!(
        case.test.deadline(),
        case.world.now + Duration::from_secs(1)
    );
    let mut world = case.world;
    let (now, server) = (world.now, Server::new(endpoint(SERVER).ip()));
    let direct = bubble(&peer(), &own(), &[]);
    let second = EchoTest::start(
        &mut world.shared,
        now,
        server,
        FRESH,
        ATTEMPTS,
        endpoint(PEER),
        direct,
    );
    assert_eq!(second.deadline(), now + Duration::from_secs(2));
}
