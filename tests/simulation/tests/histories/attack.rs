//! What others do who wish the clients ill. They may give any source address, and hear what is on
//! the wire, but neither know secrets that they have not heard, nor are they on the way.

use proptest::prelude::*;
use teredo_common::{
    address::{Endpoint, TeredoAddress},
    wire::SERVER_PORT,
};
use teredo_proto::wire::{bubble, trailer::Trailer};
use teredo_simulation::{NodeId, Realm, packet};

use super::Scene;

/// Addresses that are somebody's trap: one's own are [`Scene`]'s to choose.
const TRAPS: [[u8; 4]; 9] = [
    [127, 0, 0, 1],
    [10, 1, 2, 3],
    [192, 168, 1, 10],
    [192, 168, 2, 1],
    [224, 0, 0, 253],
    [255, 255, 255, 255],
    [0, 0, 0, 0],
    [169, 254, 1, 1],
    [8, 8, 8, 8],
];

/// Who it says it is.
#[derive(Clone, Copy, Debug)]
pub enum Guise {
    Server,
    Secondary,
    Peer(usize),
    Stranger,
}

/// What is sent to a client.
#[derive(Clone, Debug)]
pub enum Attack {
    /// Anything.
    Garbage {
        client: usize,
        guise: Guise,
        octets: Vec<u8>,
    },
    /// Something that was heard, from somebody else, a little changed.
    Replay {
        client: usize,
        guise: Guise,
        which: usize,
        change: Option<(usize, u8)>,
    },
    /// A bubble in a peer's name.
    Bubble {
        client: usize,
        guise: Guise,
        peer: usize,
        origin: Option<usize>,
        nonce: [u8; 4],
    },
    /// A bubble whose sender claims to be at a trap, and to be reachable at others.
    Trap {
        client: usize,
        guise: Guise,
        trap: usize,
        port: u16,
        also: usize,
    },
    /// A request in a peer's name.
    Data {
        client: usize,
        guise: Guise,
        peer: usize,
    },
    /// A packet in a peer's name for somebody else.
    Stray {
        client: usize,
        guise: Guise,
        peer: usize,
    },
    /// An answer to the last connectivity test that was heard, with wrong data.
    Pong {
        client: usize,
        guise: Guise,
        change: u8,
    },
    /// A packet of the host to an address that is a trap.
    Lure {
        client: usize,
        trap: usize,
        server: usize,
        port: u16,
    },
    /// A discovery bubble on the link, from anywhere.
    Discovery {
        client: usize,
        trap: usize,
        peer: usize,
    },
}

pub fn any_attack() -> impl Strategy<Value = Attack> {
    let guise = || {
        prop_oneof![
            2 => Just(Guise::Server),
            1 => Just(Guise::Secondary),
            2 => (0_usize..4).prop_map(Guise::Peer),
            1 => Just(Guise::Stranger),
        ]
    };
    let client = || 0_usize..3;
    let trap = || 0..TRAPS.len() + 2;
    let port = || prop_oneof![Just(0_u16), Just(SERVER_PORT), any::<u16>()];
    prop_oneof![
        1 => (client(), guise(), prop::collection::vec(any::<u8>(), 0..120))
            .prop_map(|(client, guise, octets)| Attack::Garbage { client, guise, octets }),
        4 => (client(), guise(), 0_usize..16, prop::option::of((any::<usize>(), any::<u8>())))
            .prop_map(|(client, guise, which, change)| {
                Attack::Replay { client, guise, which, change }
            }),
        3 => (client(), guise(), 0_usize..4, prop::option::of(trap()), any::<[u8; 4]>()).prop_map(
            |(client, guise, peer, origin, nonce)| {
                Attack::Bubble { client, guise, peer, origin, nonce }
            }
        ),
        3 => (client(), guise(), trap(), port(), trap()).prop_map(
            |(client, guise, trap, port, also)| Attack::Trap { client, guise, trap, port, also }
        ),
        2 => (client(), guise(), 0_usize..4)
            .prop_map(|(client, guise, peer)| Attack::Data { client, guise, peer }),
        1 => (client(), guise(), 0_usize..4)
            .prop_map(|(client, guise, peer)| Attack::Stray { client, guise, peer }),
        3 => (client(), guise(), 1_u8..)
            .prop_map(|(client, guise, change)| Attack::Pong { client, guise, change }),
        3 => (client(), trap(), trap(), port())
            .prop_map(|(client, trap, server, port)| Attack::Lure { client, trap, server, port }),
        1 => (client(), trap(), 0_usize..4)
            .prop_map(|(client, trap, peer)| Attack::Discovery { client, trap, peer }),
    ]
}

impl Attack {
    pub fn strike(self, scene: &mut Scene) {
        match self {
            Self::Garbage {
                client,
                guise,
                octets,
            } => {
                let client = scene.client(client);
                send(scene, client, guise, octets);
            }
            Self::Replay {
                client,
                guise,
                which,
                change,
            } => {
                let client = scene.client(client);
                let which = which % scene.world.overheard().len().max(1);
                let heard = scene.world.overheard().nth(which);
                let Some((_, _, mut payload)) = heard.cloned() else {
                    return;
                };
                if let Some((at, value)) = change {
                    let at = at % payload.len().max(1);
                    if let Some(octet) = payload.get_mut(at) {
                        *octet ^= value;
                    }
                }
                send(scene, client, guise, payload);
            }
            Self::Bubble {
                client,
                guise,
                peer,
                origin,
                nonce,
            } => {
                let client = scene.client(client);
                let (own, peer) = (address(scene, client), address(scene, scene.machine(peer)));
                let mut payload = match origin {
                    Some(trap) => trap_at(scene, client, trap, 4096)
                        .origin_indication()
                        .to_vec(),
                    None => Vec::new(),
                };
                payload.extend(bubble::build(&peer, &own));
                Trailer::Nonce(nonce).write(&mut payload);
                send(scene, client, guise, payload);
            }
            Self::Trap {
                client,
                guise,
                trap,
                port,
                also,
            } => {
                let client = scene.client(client);
                let at = trap_at(scene, client, trap, port);
                let also = trap_at(scene, client, also, port);
                let server = scene.world.server(scene.server).primary;
                let payload = trap_bubble(at, also, server.octets(), &address(scene, client));
                send(scene, client, guise, payload);
            }
            Self::Data {
                client,
                guise,
                peer,
            } => {
                let client = scene.client(client);
                let peer = scene.machine(peer);
                let addresses = scene.world.address(peer).zip(scene.world.address(client));
                if let Some((peer, own)) = addresses {
                    // No number that is anybody's.
                    let payload = packet::numbered(peer, own, false, u64::MAX - 1);
                    send(scene, client, guise, payload);
                }
            }
            Self::Stray {
                client,
                guise,
                peer,
            } => {
                let client = scene.client(client);
                let peer = address(scene, scene.machine(peer)).into();
                let elsewhere = teredo(Endpoint::new([9, 9, 9, 9].into(), 9), [9, 9, 9, 8]);
                let payload = packet::numbered(peer, elsewhere.into(), false, u64::MAX - 1);
                send(scene, client, guise, payload);
            }
            Self::Pong {
                client,
                guise,
                change,
            } => {
                let client = scene.client(client);
                let heard: Vec<_> = scene.world.overheard().cloned().collect();
                let mut heard = heard.iter().rev();
                if let Some(payload) = heard.find_map(|(.., one)| packet::pong(one, change)) {
                    send(scene, client, guise, payload);
                }
            }
            Self::Lure {
                client,
                trap,
                server,
                port,
            } => {
                let client = scene.client(client);
                let mapped = trap_at(scene, client, trap, port);
                let server = trap_at(scene, client, server, port).ip();
                scene
                    .world
                    .send_to(client, teredo(mapped, server.octets()).into());
            }
            Self::Discovery { client, trap, peer } => {
                let client = scene.client(client);
                let from = trap_at(scene, client, trap, 4096);
                let peer = address(scene, scene.machine(peer));
                let all_nodes = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
                let payload = bubble::build(&peer, &all_nodes).to_vec();
                let realm = scene.world.realm(client);
                if realm != Realm::INTERNET {
                    scene.world.inject_multicast(realm, from, payload);
                }
            }
        }
    }
}

/// A bubble with alternate addresses (RFC 6081 section 4.3) and a nonce.
fn trap_bubble(at: Endpoint, also: Endpoint, server: [u8; 4], own: &[u8; 16]) -> Vec<u8> {
    let mut payload = at.origin_indication().to_vec();
    payload.extend(bubble::build(&teredo(at, server), own));
    payload.extend([0x03, 14, 0, 0]);
    for endpoint in [at, also] {
        payload.extend(endpoint.address);
        payload.extend(endpoint.port);
    }
    Trailer::Nonce([1, 2, 3, 4]).write(&mut payload);
    payload
}

/// A trap, or one of the client's own endpoints.
fn trap_at(scene: &Scene, client: NodeId, trap: usize, port: u16) -> Endpoint {
    let node = scene.world.client(client);
    match TRAPS.get(trap) {
        Some(&address) => Endpoint::new(address.into(), port),
        None if trap == TRAPS.len() => node.endpoint(),
        None => node
            .client
            .identity()
            .map_or(node.endpoint(), |own| own.mapped),
    }
}

fn teredo(mapped: Endpoint, server: [u8; 4]) -> [u8; 16] {
    let fields = TeredoAddress {
        flags: 0x1234,
        ..TeredoAddress::new(server.into(), mapped)
    };
    fields.encode().octets()
}

/// Somebody's IPv6 address, while they have one.
fn address(scene: &Scene, node: NodeId) -> [u8; 16] {
    let address = scene.world.address(node);
    address.map_or([0x20; 16], |address| address.octets())
}

/// Sends to where the client's NAT has it.
fn send(scene: &mut Scene, client: NodeId, guise: Guise, payload: Vec<u8>) {
    let mapped = |client: NodeId| {
        let node = scene.world.client(client);
        node.client
            .identity()
            .map_or(node.endpoint(), |own| own.mapped)
    };
    let server = scene.world.server(scene.server);
    let from = match guise {
        Guise::Server => server.primary(),
        Guise::Secondary => server.secondary(),
        Guise::Peer(number) => mapped(scene.client(number)),
        Guise::Stranger => Endpoint::new([7, 7, 7, 7].into(), 7777),
    };
    let to = mapped(client);
    scene.world.inject(Realm::INTERNET, from, to, payload);
}
