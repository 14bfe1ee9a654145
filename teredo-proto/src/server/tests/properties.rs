//! Anything at all arrives.

use proptest::prelude::*;
use teredo_common::{
    address::{Endpoint, ServicePrefix, TeredoAddress},
    scope::{Ipv4Scope, is_global_unicast},
    wire::{ALL_ROUTERS, ORIGIN_INDICATION_LENGTH},
};

use super::harness::*;
use crate::{
    ServerAddress,
    server::{DropReason, RegisteredClient, Server, Service},
    wire::{authentication::Algorithm, encapsulation, ipv6::Header},
};

/// The longest that an answer may be than what it answers: advertisement with origin indication and
/// MTU option less a solicitation.
const GROWTH: usize = 104 - 48;

const OWN: [&str; 3] = [PRIMARY, SECONDARY, "7.7.7.7"];

fn world() -> World {
    World::with(|config| {
        config.own_ipv4 = vec!["7.7.7.7".parse().unwrap()];
        config.forward_echo_reply = true;
        config.prefixes = vec![ServicePrefix::STANDARD, ServicePrefix::DRAFT];
    })
}

fn mapped() -> BoxedStrategy<String> {
    prop_oneof![
        4 => Just(CLIENT.to_owned()),
        4 => Just(OTHER.to_owned()),
        1 => prop::sample::select(&OWN[..]).prop_map(|own| format!("{own}:3544")),
        1 => Just("10.0.0.1:9".to_owned()),
        1 => Just("9.0.0.1:0".to_owned()),
        1 => any::<([u8; 4], u16)>()
            .prop_map(|(address, port)| Endpoint::new(address.into(), port).to_string()),
    ]
    .boxed()
}

fn address_of() -> BoxedStrategy<[u8; 16]> {
    let server = prop_oneof![5 => Just([1, 2, 3, 4]), 1 => any::<[u8; 4]>()];
    let prefix = prop::sample::select(&[ServicePrefix::STANDARD, ServicePrefix::DRAFT][..]);
    let teredo =
        (prefix, server, any::<u16>(), mapped()).prop_map(|(prefix, server, flags, at)| {
            let fields = TeredoAddress {
                prefix,
                server: server.into(),
                flags,
                mapped: endpoint(&at),
            };
            fields.encode().octets()
        });
    prop_oneof![
        6 => teredo,
        2 => Just(ALL_ROUTERS),
        1 => Just(address(SOLICITOR)),
        1 => Just(address(CONE_SOLICITOR)),
        1 => Just(address("fe80::8000:f227:fefd:fcfb")),
        1 => Just(address(HOST)),
        1 => Just(address("2002:102:304::1")),
        1 => any::<[u8; 16]>(),
    ]
    .boxed()
}

fn payload() -> BoxedStrategy<Vec<u8>> {
    let packet = prop_oneof![
        (address_of(), address_of())
            .prop_map(|(source, destination)| bubble(&source, &destination)),
        (
            prop::sample::select(&[128, 129, 133, 134, 1][..]),
            prop::sample::select(&[0, 1, 2, 64, 255][..]),
            address_of(),
            address_of(),
            prop::collection::vec(any::<u8>(), 4..100),
        )
            .prop_map(|(kind, hops, source, destination, body)| {
                icmpv6(kind, hops, &source, &destination, &body)
            }),
        (
            any::<u8>(),
            address_of(),
            address_of(),
            prop::collection::vec(any::<u8>(), 0..60)
        )
            .prop_map(|(next, source, destination, body)| {
                ipv6(next, 64, &source, &destination, &body)
            }),
        Just(solicitation(SOLICITOR)),
        Just(solicitation(CONE_SOLICITOR)),
    ]
    .boxed();
    let head = prop_oneof![
        6 => Just(vec![]),
        2 => any::<[u8; 8]>().prop_map(|nonce| with_header(&[], &[], nonce, &[])),
        1 => any::<([u8; 5], [u8; 16], [u8; 8])>()
            .prop_map(|(id, value, nonce)| with_header(&id, &value, nonce, &[])),
        1 => Just(endpoint(OTHER).origin_indication().to_vec()),
    ];
    let tail = prop_oneof![
        4 => Just(vec![]),
        1 => prop::collection::vec(any::<u8>(), 0..140),
    ];
    prop_oneof![
        9 => (head, packet, tail).prop_map(|parts| [parts.0, parts.1, parts.2].concat()),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ]
    .boxed()
}

fn to() -> impl Strategy<Value = ServerAddress> {
    prop_oneof![4 => Just(Primary), 1 => Just(Secondary)]
}

fn total(server: &Server) -> u64 {
    let statistics = server.statistics();
    let served = Service::ALL
        .iter()
        .map(|&one| statistics.served[one].packets);
    let dropped = DropReason::ALL.iter().map(|&one| statistics.dropped[one]);
    served.chain(dropped).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn s02_s12_s13_s14_l02_whatever_arrives(
        packets in prop::collection::vec((to(), mapped(), payload()), 1..20)
    ) {
        // Whatever came before, the answer is the same (S-02): here everything that comes after.
        let mut backwards = world();
        let mut answers: Vec<_> = packets
            .iter()
            .rev()
            .map(|(to, from, payload)| backwards.arrives(*to, from, payload))
            .collect();
        let mut world = world();
        for (number, (to, from, payload)) in packets.iter().enumerate() {
            let sent = world.arrives(*to, from, payload);
            prop_assert_eq!(total(&world.server), number as u64 + 1, "S-26: none is lost");
            prop_assert_eq!(Some(sent.clone()), answers.pop(), "S-02");
            let Some((output, octets)) = sent else {
                continue;
            };
            prop_assert!(octets.len() <= payload.len() + GROWTH);
            let source = endpoint(from);
            prop_assert!(Ipv4Scope::Strict.accepts(source.address), "S-06");
            prop_assert!(!OWN.contains(&source.ip().to_string().as_str()), "L-01");
            let parts = encapsulation::parse(&octets).unwrap();
            let header = Header::parse(parts.packet).unwrap();
            let destination = header.destination();
            match output {
                Output::Datagram { to, from } => {
                    prop_assert!(Ipv4Scope::Strict.accepts(to.address), "L-05");
                    prop_assert!(!OWN.contains(&to.ip().to_string().as_str()), "L-02");
                    prop_assert_ne!(to.port(), 0);
                    let is_own = destination[4..8] == [1, 2, 3, 4];
                    if is_global_unicast(&destination) && to != source {
                        prop_assert!(is_own, "DEC-8");
                        prop_assert_eq!(parts.origin, Some(source), "S-15");
                        prop_assert_eq!(from, Primary);
                    }
                    if parts.authentication.is_some() {
                        prop_assert_eq!(to, source, "L-03");
                    }
                }
                Output::Native => {
                    prop_assert!(is_global_unicast(&destination), "S-12");
                    prop_assert!(header.hop_limit() > 0, "S-13");
                    prop_assert_eq!(octets.len(), header.packet_length(), "S-13");
                    prop_assert!(matches!(parts.packet[40], 128 | 129), "S-13");
                }
                Output::Tunnel => prop_assert!(false, "nobody has one"),
            }
        }
    }

    #[test]
    fn s16_trailers_are_verbatim(trailers in prop::collection::vec(any::<u8>(), 0..=128)) {
        let mut world = World::new();
        let payload = [&bubble(&teredo(CLIENT), &teredo(OTHER))[..], &trailers].concat();
        let origin = endpoint(CLIENT).origin_indication();
        let expected = datagram(Primary, OTHER, [&origin[..], &payload].concat());
        prop_assert_eq!(world.receives(CLIENT, &payload), expected);
        prop_assert_eq!(origin.len(), ORIGIN_INDICATION_LENGTH);
    }

    #[test]
    fn t04_whatever_the_kernel_routes(
        octets in prop_oneof![payload(), prop::collection::vec(any::<u8>(), 0..200)]
    ) {
        let mut world = world();
        let sent = world.routed(&octets);
        prop_assert_eq!(sent, None);
        prop_assert_eq!(total(&world.server), 1);
        world.relay_sends(&octets);
        prop_assert_eq!(total(&world.server), 2);
    }

    /// A client of the tunnel service may send from where it is, with its own addresses, and gets
    /// what is sent to these; whatever else comes does not move it.
    #[test]
    fn t03_t04_the_tunnel_has_two_ends(
        from in mapped(),
        next_header: u8,
        is_inside: bool,
        others in (address_of(), address_of()),
        body in prop::collection::vec(any::<u8>(), 0..60),
        garbage in prop::collection::vec((mapped(), payload()), 0..5),
    ) {
        let inside = address("2001:db8:1:2:aaaa::1");
        let key = key(Algorithm::HmacSha1, 1);
        let mut world = World::with(|config| {
            config.clients = vec![RegisteredClient {
                prefix: "2001:db8:1:2::/64".parse().ok(),
                ..client("alice", key.clone())
            }];
        });
        let payload = signed("alice", &key, NONCE, &solicitation(SOLICITOR));
        prop_assert!(world.receives(CLIENT, &payload).is_some());
        for (from, payload) in garbage {
            world.receives(&from, &payload);
        }
        let bindings: Vec<_> = world.server.bindings().map(|one| one.mapped).collect();
        prop_assert_eq!(bindings, [endpoint(CLIENT)]);

        let source = if is_inside { inside } else { others.0 };
        let outgoing = ipv6(next_header, 9, &source, &others.1, &body);
        let sent = world.receives(&from, &outgoing);
        let is_tunnelled = matches!(sent, Some((Output::Tunnel, _)));
        let is_well_formed = next_header != 0 || !body.is_empty();
        let expected = is_inside
            && from == CLIENT
            && is_well_formed
            && is_global_unicast(&others.1)
            && others.1[..2] != [0x20, 0x02]
            && others.1 != inside;
        prop_assert_eq!(is_tunnelled, expected);

        let incoming = ipv6(next_header, 9, &address(HOST), &inside, &body);
        let expected = datagram(Primary, CLIENT, incoming.clone());
        prop_assert_eq!(world.routed(&incoming), expected.filter(|_| is_well_formed));
    }
}
