//! What the server remembers does not grow with what arrives (requirement S-02).

use allocation_counter::measure;
use teredo_common::{
    address::{Endpoint, TeredoAddress},
    time::Instant,
};
use teredo_proto::{
    ServerAddress,
    server::{Buckets, Config, DropReason, RegisteredClient, Server, Service, Transmit},
    wire::{
        authentication::{Algorithm, Key},
        bubble,
        encapsulation::write_authentication,
        router,
    },
};

const SOLICITATIONS: u32 = 1_000_000;
const SOURCES: u32 = 100_000;
/// Between two solicitations: 200,000 come in a second.
const GAP: u64 = 5_000;
/// What the server may hold altogether.
const BOUND: i64 = 4 << 20;

/// Where solicitations come from.
const SOLICITOR: [u8; 16] = [
    0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
];
const PRIMARY: [u8; 4] = [1, 2, 3, 4];
const SECONDARY: [u8; 4] = [1, 2, 3, 5];
const CLIENT: Endpoint = Endpoint {
    address: [9, 0, 0, 1],
    port: [16, 0],
};

fn solicitation() -> Vec<u8> {
    router::solicitation(&SOLICITOR).to_vec()
}

/// A solicitation with an authentication header whose value, if there is one, is wrong.
fn with_header(client: &[u8], value: usize) -> Vec<u8> {
    let mut payload = Vec::new();
    write_authentication(client, value, [7; 8], 0, &mut payload);
    payload.extend(solicitation());
    payload
}

/// The address of a client of this server.
fn teredo(mapped: Endpoint) -> [u8; 16] {
    TeredoAddress::new(PRIMARY.into(), mapped).encode().octets()
}

/// One of the forged sources, in as many networks; not the client's.
fn source(number: u32) -> Endpoint {
    let [_, b, c, d] = (number % SOURCES).wrapping_mul(2_654_435).to_be_bytes();
    Endpoint {
        address: [20 + (number % 80) as u8, b, c, d],
        port: [d, 1],
    }
}

fn server() -> Server {
    let mut config = Config::new(PRIMARY.into(), SECONDARY.into());
    config.limits.seed = 0x0123_4567_89ab_cdef;
    config.clients = vec![RegisteredClient {
        id: b"alice".to_vec(),
        key: Key::new(Algorithm::HmacMd5, &[1; 16]).expect("long enough"),
        retired: vec![],
        prefix: "2001:db8:1:2::/64".parse().ok(),
    }];
    Server::new(config, Buckets::new())
}

#[test]
fn s02_a_million_solicitations_from_a_hundred_thousand_sources() {
    let mut made = None;
    let held = measure(|| made = Some(server())).bytes_current;
    assert!(held < BOUND, "a server holds {held} octets");
    let mut server = made.expect("it was made");

    let payloads = [
        solicitation(),
        with_header(&[], 0),
        with_header(b"alice", 16),
        with_header(b"bob", 20),
        bubble::build(&teredo(CLIENT), &teredo(CLIENT)).to_vec(),
        bubble::build(&[0xfe; 16], &teredo(CLIENT)).to_vec(),
        vec![0; 60],
    ];
    let start = 1_000_000_000_000;
    let flood = measure(|| {
        for number in 0..SOLICITATIONS {
            let now = Instant::from_nanos(start + u64::from(number) * GAP);
            // Every eighth is something else.
            let payload = match number % 8 {
                0 => &payloads[number as usize / 8 % payloads.len()],
                _ => &payloads[0],
            };
            let (to, from) = (ServerAddress::Primary, source(number));
            server.handle_datagram(now, to, from, payload);
        }
    });
    assert_eq!(flood.count_total, 0, "allocations: {flood:?}");

    let statistics = server.statistics();
    let advertised = statistics.served[Service::Advertised].packets;
    assert!(
        advertised > u64::from(SOLICITATIONS) / 2,
        "{advertised} were answered"
    );
    assert!(statistics.dropped[DropReason::AuthenticationFailed] > 0);

    // A client that has not been there before is answered at its first attempt.
    let now = Instant::from_nanos(start + u64::from(SOLICITATIONS) * GAP);
    let to = ServerAddress::Primary;
    let sent = server.handle_datagram(now, to, CLIENT, &with_header(&[], 0));
    let is_answer =
        |sent| matches!(sent, Transmit::Datagram { from, to: CLIENT, .. } if from == to);
    assert!(sent.is_some_and(is_answer));
    assert_eq!(server.bindings().count(), 0);
}
