//! Solicitations of clients that have a key.

use std::time::Duration;

use super::harness::*;
use crate::{
    server::{Config, DropReason, Event, RegisteredClient, Service},
    testing::octets,
    wire::{
        authentication::{Algorithm, Key},
        encapsulation,
    },
};

const V17_MD5_SOLICITATION: &str = "00010510616c69636501b150b8fda6c659d0a7ef7255aa64dd\
    0123456789abcdef006000000000083afffe800000000000000000ffffffffffff\
    ff02000000000000000000000000000285007d3700000000";
const V17_ADVERTISEMENT: &str = "0000effff6fffffe 6000000000383aff \
    fe800000000000008000f227fefdfcfb fe800000000000000000ffffffffffff \
    8600954c 00000000 00000000 000007d0 03044040ffffffffffffffff00000000 \
    20010000010203040000000000000000 0501000000000500";

/// The key of the worked example.
fn alice(algorithm: Algorithm) -> RegisteredClient {
    client("alice", key(algorithm, 0x0b))
}

fn world_of(clients: Vec<RegisteredClient>, is_required: bool) -> World {
    World::with(|config: &mut Config| {
        config.clients = clients;
        config.require_authentication = is_required;
    })
}

/// Client, authentication value, nonce and confirmation of an answer.
fn answer(payload: &[u8]) -> (&[u8], &[u8], [u8; 8], u8) {
    let header = encapsulation::parse(payload)
        .unwrap()
        .authentication
        .unwrap();
    (
        header.client,
        header.value,
        header.nonce,
        header.confirmation,
    )
}

#[test]
fn s07_a03_a04_v17_the_worked_example_with_md5() {
    let mut world = world_of(vec![alice(Algorithm::HmacMd5)], true);
    let sent = world.receives(CLIENT, &octets(V17_MD5_SOLICITATION));
    let head = "00010510 616c696365 7b514d16b2b622514be9d12a47c41048 0123456789abcdef 00";
    let expected = octets(&format!("{head}{V17_ADVERTISEMENT}"));
    assert_eq!(expected.len(), 138);
    assert_eq!(sent, datagram(Primary, CLIENT, expected));
    assert_eq!(world.served(Service::AdvertisedSecure), 1);
    assert_eq!(world.events(), []);
}

#[test]
fn a06_v17_the_worked_example_with_sha1() {
    let mut world = world_of(vec![alice(Algorithm::HmacSha1)], true);
    let value = octets("9e1de28d28c2fa40ea91900dc74531828aa5b54a");
    let payload = with_header(b"alice", &value, NONCE, &solicitation(SOLICITOR));
    assert_eq!(payload.len(), 86);
    let head = "00010514 616c696365 e77aa0fe291f9e574905a3bb8ce7ea25d9cd8d77 0123456789abcdef 00";
    let expected = octets(&format!("{head}{V17_ADVERTISEMENT}"));
    assert_eq!(expected.len(), 142);
    assert_eq!(
        world.receives(CLIENT, &payload),
        datagram(Primary, CLIENT, expected)
    );
}

/// The client's key is tried before those it had.
#[test]
fn a08_v17_a_retired_key_is_answered_with_confirmation_1() {
    for (algorithm, solicited, answered) in [
        (
            Algorithm::HmacMd5,
            "01b150b8fda6c659d0a7ef7255aa64dd",
            "7d9f0ad0479b477601a0f0f4cdab8a34",
        ),
        (
            Algorithm::HmacSha1,
            "9e1de28d28c2fa40ea91900dc74531828aa5b54a",
            "c081ce8ed574add86e14518c31d8deff487e256a",
        ),
    ] {
        let mut alice = alice(algorithm);
        let old = std::mem::replace(&mut alice.key, key(Algorithm::HmacSha1, 0x33));
        alice.retired = vec![key(Algorithm::HmacMd5, 0x44), old];
        let mut world = world_of(vec![alice.clone()], true);
        let payload = with_header(
            b"alice",
            &octets(solicited),
            NONCE,
            &solicitation(SOLICITOR),
        );
        let (_, sent) = world.receives(CLIENT, &payload).unwrap();
        assert_eq!(
            answer(&sent),
            (&b"alice"[..], &octets(answered)[..], NONCE, 1)
        );
        let told = Event::RetiredKey {
            client: b"alice".to_vec(),
            mapped: endpoint(CLIENT),
        };
        assert_eq!(world.events(), [told]);

        let payload = signed("alice", &alice.key, NONCE, &solicitation(SOLICITOR));
        let (_, sent) = world.receives(CLIENT, &payload).unwrap();
        assert_eq!(answer(&sent).3, 0, "the new key");
        assert_eq!(world.events(), []);
    }
}

#[test]
fn a08_a_retired_key_is_told_of_once_in_a_while() {
    let mut alice = alice(Algorithm::HmacMd5);
    let old = std::mem::replace(&mut alice.key, key(Algorithm::HmacMd5, 1));
    alice.retired = vec![old.clone()];
    let mut world = world_of(vec![alice], false);
    let payload = signed("alice", &old, NONCE, &solicitation(SOLICITOR));
    for _ in 0..1000 {
        assert!(world.receives(CLIENT, &payload).is_some());
    }
    assert_eq!(world.events().len(), 1);
    world.pass(Duration::from_secs(3600));
    assert!(world.receives(CLIENT, &payload).is_some());
    assert_eq!(world.events().len(), 1);
}

/// The outer source of a solicitation is not authenticated: a host that passes it on appears as its
/// origin, as a NAT does.
#[test]
fn a10_the_outer_header_is_not_covered() {
    let alice = alice(Algorithm::HmacSha1);
    let mut world = world_of(vec![alice.clone()], true);
    let payload = signed("alice", &alice.key, NONCE, &solicitation(SOLICITOR));
    for from in [CLIENT, OTHER] {
        let (_, sent) = world.receives(from, &payload).unwrap();
        assert_eq!(
            encapsulation::parse(&sent).unwrap().origin,
            Some(endpoint(from))
        );
    }
}

/// What the client verifies is what was sent: the key, over nonce, confirmation, origin indication
/// and packet.
#[test]
fn a04_answers_verify() {
    for algorithm in [Algorithm::HmacMd5, Algorithm::HmacSha1] {
        let alice = alice(algorithm);
        let mut world = world_of(vec![alice.clone()], true);
        for nonce in [[0; 8], [0xff; 8], NONCE] {
            let payload = signed("alice", &alice.key, nonce, &solicitation(CONE_SOLICITOR));
            let (_, sent) = world.receives(CLIENT, &payload).unwrap();
            let parts = encapsulation::parse(&sent).unwrap();
            let header = parts.authentication.unwrap();
            assert_eq!(header.nonce, nonce);
            let covered = &sent[13 + 5 + header.value.len()..];
            assert_eq!(covered.len(), 8 + 96);
            assert!(alice.key.verify(&header, covered));
        }
    }
}

#[test]
fn a02_a03_nonce_alone_is_answered_with_the_nonce_alone() {
    for clients in [vec![], vec![alice(Algorithm::HmacMd5)]] {
        let mut world = world_of(clients, false);
        for nonce in [[0; 8], NONCE, [0xff; 8]] {
            let payload = with_header(&[], &[], nonce, &solicitation(SOLICITOR));
            let (_, sent) = world.receives(CLIENT, &payload).unwrap();
            assert_eq!(answer(&sent), (&[][..], &[][..], nonce, 0));
        }
    }
}

/// Whatever confirmation the client sends, the server sends its own.
#[test]
fn a03_the_confirmation_is_the_servers() {
    let mut world = World::new();
    let mut payload = with_nonce(&solicitation(SOLICITOR));
    payload[12] = 7;
    let (_, sent) = world.receives(CLIENT, &payload).unwrap();
    assert_eq!(answer(&sent).3, 0);
}

#[test]
fn s07_a01_required_authentication() {
    let mut world = world_of(vec![alice(Algorithm::HmacMd5)], true);
    let solicitation = solicitation(SOLICITOR);
    let stranger = key(Algorithm::HmacMd5, 9);
    world.drops(DropReason::AuthenticationRequired, CLIENT, &solicitation);
    world.drops(
        DropReason::AuthenticationRequired,
        CLIENT,
        &with_nonce(&solicitation),
    );
    let unknown = signed("bob", &stranger, NONCE, &solicitation);
    world.drops(DropReason::UnknownClient, CLIENT, &unknown);
    let wrong = signed("alice", &stranger, NONCE, &solicitation);
    world.drops(DropReason::AuthenticationFailed, CLIENT, &wrong);
    world.drops_at(Secondary, DropReason::AuthenticationFailed, CLIENT, &wrong);
    // Only solicitations are authenticated.
    assert!(
        world
            .receives(CLIENT, &bubble(&teredo(CLIENT), &teredo(OTHER)))
            .is_some()
    );
}

#[test]
fn a07_an_unknown_client_is_answered_without_proof_where_that_is_enough() {
    let mut world = world_of(vec![alice(Algorithm::HmacMd5)], false);
    let solicitation = solicitation(SOLICITOR);
    let stranger = key(Algorithm::HmacSha1, 9);
    for id in ["bob", "alic", "alicf", "alice\0", ""] {
        let (_, sent) = world
            .receives(CLIENT, &signed(id, &stranger, NONCE, &solicitation))
            .unwrap();
        assert_eq!(answer(&sent), (&[][..], &[][..], NONCE, 0), "{id}");
    }
    let (_, sent) = world
        .receives(CLIENT, &with_header(b"bob", &[], NONCE, &solicitation))
        .unwrap();
    assert_eq!(answer(&sent), (&[][..], &[][..], NONCE, 0));
    assert_eq!(world.served(Service::AdvertisedSecure), 0);
}

#[test]
fn a07_a_wrong_value_is_dropped_even_where_none_is_needed() {
    for is_required in [false, true] {
        let mut world = world_of(vec![alice(Algorithm::HmacMd5)], is_required);
        let solicitation = solicitation(SOLICITOR);
        let wrong = signed("alice", &key(Algorithm::HmacMd5, 9), NONCE, &solicitation);
        world.drops(DropReason::AuthenticationFailed, CLIENT, &wrong);
        let none = with_header(b"alice", &[], NONCE, &solicitation);
        world.drops(DropReason::AuthenticationFailed, CLIENT, &none);
    }
}

#[test]
fn a05_a06_the_value_has_the_length_of_the_keys_algorithm() {
    let solicitation = solicitation(SOLICITOR);
    let (md5, sha1) = (alice(Algorithm::HmacMd5), alice(Algorithm::HmacSha1));
    let mut world = world_of(vec![md5.clone()], true);
    let other = signed("alice", &sha1.key, NONCE, &solicitation);
    world.drops(DropReason::AuthenticationFailed, CLIENT, &other);
    let right = signed("alice", &md5.key, NONCE, &solicitation);
    let value = right[9..25].to_vec();
    for length in [0, 1, 12, 15] {
        let cut = with_header(b"alice", &value[..length], NONCE, &solicitation);
        world.drops(DropReason::AuthenticationFailed, CLIENT, &cut);
    }
    let long = with_header(
        b"alice",
        &[&value[..], &[0; 4]].concat(),
        NONCE,
        &solicitation,
    );
    world.drops(DropReason::AuthenticationFailed, CLIENT, &long);
    assert!(world.receives(CLIENT, &right).is_some());
}

#[test]
fn a05_identifications_are_opaque() {
    let key = key(Algorithm::HmacSha1, 5);
    let ids: [Vec<u8>; 5] = [
        vec![],
        vec![0],
        vec![0, 0],
        vec![0xff; 255],
        b"a\xffb".to_vec(),
    ];
    let clients = ids.iter().map(|id| RegisteredClient {
        id: id.clone(),
        ..client("", key.clone())
    });
    let mut world = world_of(clients.collect(), true);
    let solicitation = solicitation(SOLICITOR);
    for id in &ids {
        let mut value = [0; 20];
        key.sign(NONCE, 0, &solicitation, &mut value);
        let (_, sent) = world
            .receives(CLIENT, &with_header(id, &value, NONCE, &solicitation))
            .unwrap();
        assert_eq!(answer(&sent).0, id);
    }
    // Without identification and value there is only the nonce, which names no client.
    world.drops(
        DropReason::AuthenticationRequired,
        CLIENT,
        &with_nonce(&solicitation),
    );
}

#[test]
fn a05_every_client_has_its_own_key() {
    let key = |number: u8| key(Algorithm::HmacMd5, number);
    let name = |number: u8| format!("client-{number}");
    let clients = (0..50).map(|number| client(&name(number), key(number)));
    let mut world = world_of(clients.rev().collect(), true);
    let solicitation = solicitation(SOLICITOR);
    for number in 0..50 {
        let payload = signed(&name(number), &key(number), NONCE, &solicitation);
        let (_, sent) = world.receives(CLIENT, &payload).unwrap();
        assert_eq!(answer(&sent).0, name(number).as_bytes());
        let payload = signed(&name(number), &key(number + 1), NONCE, &solicitation);
        world.drops(DropReason::AuthenticationFailed, CLIENT, &payload);
    }
}

/// Of two clients with the same identification the first counts.
#[test]
fn a05_identifications_are_unique() {
    let (first, second) = (key(Algorithm::HmacMd5, 1), key(Algorithm::HmacMd5, 2));
    let clients = vec![
        client("alice", first.clone()),
        client("alice", second.clone()),
    ];
    let mut world = world_of(clients, true);
    let solicitation = solicitation(SOLICITOR);
    assert!(
        world
            .receives(CLIENT, &signed("alice", &first, NONCE, &solicitation))
            .is_some()
    );
    let payload = signed("alice", &second, NONCE, &solicitation);
    world.drops(DropReason::AuthenticationFailed, CLIENT, &payload);
}

/// Any bit of nonce, confirmation or packet; identification and trailers are not covered (A-10
/// asks for nothing more).
#[test]
fn a04_v17_flipped_bits_are_noticed() {
    for algorithm in [Algorithm::HmacMd5, Algorithm::HmacSha1] {
        let alice = alice(algorithm);
        let mut world = world_of(vec![alice.clone()], true);
        let payload = signed("alice", &alice.key, NONCE, &solicitation(SOLICITOR));
        let value = 4 + 5;
        for bit in value * 8..payload.len() * 8 {
            let mut flipped = payload.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                world.receives(CLIENT, &flipped),
                None,
                "{algorithm:?}, bit {bit}"
            );
        }
        let covered = (value..value + algorithm.value_length() + 9).len() as u64 * 8;
        assert!(world.dropped(DropReason::AuthenticationFailed) >= covered);
        let with_trailer = [&payload[..], &[1, 4, 1, 2, 3, 4]].concat();
        assert!(world.receives(CLIENT, &with_trailer).is_some());

        let id = RegisteredClient {
            id: b"somebody else".to_vec(),
            ..alice
        };
        let mut world = world_of(vec![id.clone()], true);
        let mut value = vec![0; algorithm.value_length()];
        id.key.sign(NONCE, 0, &solicitation(SOLICITOR), &mut value);
        let payload = with_header(&id.id, &value, NONCE, &solicitation(SOLICITOR));
        assert!(world.receives(CLIENT, &payload).is_some());
    }
}

/// A09: nothing that is printed shows a secret.
#[test]
fn a09_secrets_are_not_shown() {
    let secret = *b"correct horse ba";
    let key = Key::new(Algorithm::HmacMd5, &secret).unwrap();
    let world = world_of(vec![client("alice", key)], true);
    let shown = format!("{:?}", world.server);
    assert!(shown.contains("HmacMd5"));
    let decimal = format!("{:?}", &secret[..4]);
    assert!(!shown.contains("correct horse") && !shown.contains(decimal.trim_matches(['[', ']'])));
}
