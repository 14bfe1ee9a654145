//! The data path of XDP against the relay in userspace: it forwards as the relay does, octet for octet,
//! drops what the relay drops, and leaves the other frames as they are.

use teredo_common::{
    address::{Endpoint, embedded_mapping},
    generations,
    maps::Settings,
    peers::Peer,
    verdict::Action,
    wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};
use teredo_differential::{
    FastPath as _, Outcome,
    host::HostPath,
    kernel,
    packet::{datagram, ethernet, fix_header_checksum},
    relay::contradicts,
    site::{HOST, LAN, Port, ROUTER, Setup, WAN},
};
use teredo_proto::relay::Event;

use super::{START, STEPS, relay, scenery::RELAY, world::World};
use crate::bytes::Bytes;

/// Runs a history.
pub fn run(octets: &[u8]) {
    let mut bytes = Bytes::new(octets);
    let world = World::new(&mut bytes, START, None);
    if world.config.host_specific {
        return;
    }
    let mut paths = Paths::new(world, bytes.octet());
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        paths.step(&mut bytes);
        paths.settle();
        paths.world.check();
    }
}

/// Both paths with the same peers.
struct Paths {
    world: World,
    fast: HostPath,
}

impl Paths {
    fn new(world: World, flags: u8) -> Self {
        let config = &world.config;
        let fast = HostPath::new(&Setup {
            flags: match flags & 3 {
                0 => 0,
                1 => Settings::ALWAYS_ZERO_CHECKSUM,
                _ => Settings::ALLOW_ZERO_CHECKSUM,
            },
            mtu: config.mtu,
            peer_lifetime: config.peer_lifetime.as_nanos() as u64,
            served: config.served.clone(),
            max_peers: config.max_peers as u32,
            ..Setup::default()
        });
        let mut paths = Self { world, fast };
        paths.settle();
        paths
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.below(8) {
            0 | 1 => relay::step(&mut self.world, bytes),
            2..=4 => self.client_sends(bytes),
            5 | 6 => self.native_sends(bytes),
            _ => self.daemon(bytes),
        }
    }

    /// The daemon's work: it takes the stamps over, or invalidates next hops.
    fn daemon(&mut self, bytes: &mut Bytes<'_>) {
        if bytes.bit() {
            let generation = generations::next(bytes.short().into());
            // No route of the site is longer, but for those of hosts on the link.
            let shared_bits = if bytes.bit() { 64 } else { 0 };
            let maps = &self.fast.maps;
            maps.set_generation(generation, shared_bits, self.world.now);
            return;
        }
        let mut stamps = Vec::new();
        self.fast
            .maps
            .for_each_peer(self.world.now, |address, peer| {
                stamps.push((*address, peer.last_received, peer.last_sent));
            });
        for (address, received, sent) in stamps {
            self.world.stamps(&address, received, sent);
        }
    }

    /// Brings what the relay decided into the maps.
    fn settle(&mut self) {
        let now = self.world.now;
        for event in std::mem::take(&mut self.world.told) {
            match event {
                Event::PeerTrusted {
                    address,
                    mapped,
                    last_received,
                    last_sent,
                } => {
                    let peer = Peer {
                        mapped,
                        last_received,
                        last_sent,
                    };
                    self.fast.maps.insert(&address.octets(), &peer, now);
                }
                Event::PeerForgotten { address } => self.fast.maps.remove(&address.octets(), now),
            }
        }
        let own = self.world.own_ipv4().map(|address| address.octets());
        self.fast.maps.set_own_ipv4(own.collect::<Vec<_>>());
    }

    fn arrive(&mut self, port: Port, frame: &[u8]) -> Outcome {
        self.fast.set_clock(self.world.now);
        let outcome = self.fast.run(port, frame).expect("one verdict");
        self.world.now = self.fast.now();
        if outcome.verdict.action() != Action::Forward {
            assert_eq!(outcome.frame, frame, "{:?}: changed", outcome.verdict);
        }
        outcome
    }

    /// A datagram comes in a frame, whole and with a right checksum, or in one that is not.
    fn client_sends(&mut self, bytes: &mut Bytes<'_>) {
        let number = bytes.octet().into();
        let known = self.world.fast.iter().cycle().nth(number);
        let (source, mapped) = match known {
            Some((&address, &mapped)) => (address, mapped),
            None => {
                let address = bytes.teredo();
                (address, embedded_mapping(&address))
            }
        };
        let [kind, tos] = bytes.array();
        let from = if kind & 7 == 7 {
            bytes.endpoint()
        } else {
            mapped
        };
        let destination = bytes.native();
        let packet = bytes.packet(&source, &destination);
        let payload = if kind & 8 == 0 {
            packet
        } else {
            bytes.wrap(&packet)
        };
        let mut packet = datagram(from, RELAY, kind.into(), &payload);
        packet[1] = if kind & 0x10 == 0 { 0 } else { tos };
        fix_header_checksum(&mut packet);
        if kind & 0x20 != 0 {
            packet[26..28].fill(0);
        }
        let mut frame = ethernet(WAN, ROUTER, ETHERTYPE_IPV4, &packet);
        if kind & 0x40 != 0 {
            // Padding.
            frame.resize(frame.len().max(60), 0);
        }
        if kind & 0x80 != 0 && self.spoil(Port::Wan, &mut frame, bytes) {
            return;
        }
        self.compare_decapsulation(from, packet[1] & 3, &payload, &frame);
    }

    fn compare_decapsulation(&mut self, from: Endpoint, ecn: u8, payload: &[u8], frame: &[u8]) {
        let outcome = self.arrive(Port::Wan, frame);
        let verdict = outcome.verdict;
        let slow = self.world.arrives(from, ecn, payload);
        match verdict.action() {
            Action::Forward => {
                let slow = slow.and_then(kernel::route);
                assert_eq!(kernel::ipv6(&outcome.frame), slow.as_deref(), "{verdict:?}");
                assert!(slow.is_some(), "{verdict:?}");
            }
            Action::Drop => assert_eq!(slow, None, "{verdict:?}"),
            Action::Pass => assert!(slow.is_none() || !contradicts(verdict), "{verdict:?}"),
        }
    }

    /// A native host sends a packet.
    fn native_sends(&mut self, bytes: &mut Bytes<'_>) {
        let number = bytes.octet().into();
        let known = self.world.fast.keys().cycle().nth(number).copied();
        let destination = known.unwrap_or_else(|| bytes.teredo());
        let [kind, class] = bytes.array();
        let source = bytes.native();
        let mut packet = bytes.packet(&source, &destination);
        if kind & 0x10 != 0 {
            packet[1] = class;
        }
        let mut frame = ethernet(LAN, HOST, ETHERTYPE_IPV6, &packet);
        if kind & 0x40 != 0 {
            frame.resize(frame.len().max(60), 0);
        }
        if kind & 0x80 != 0 && self.spoil(Port::Lan, &mut frame, bytes) {
            return;
        }
        let outcome = self.arrive(Port::Lan, &frame);
        let verdict = outcome.verdict;
        let slow = kernel::route(packet).and_then(|packet| self.world.native_sends(&packet));
        match verdict.action() {
            Action::Forward => {
                let (to, payload) = slow.expect("the relay forwards it");
                kernel::check_sent(&outcome.frame, to, &payload).expect("as the socket would");
            }
            Action::Drop => assert_eq!(slow, None, "{verdict:?}"),
            Action::Pass => assert!(slow.is_none() || !contradicts(verdict), "{verdict:?}"),
        }
    }

    /// Changes an octet of a frame or cuts it short; then the fast path alone gets it. Returns whether
    /// that was done.
    fn spoil(&mut self, port: Port, frame: &mut Vec<u8>, bytes: &mut Bytes<'_>) -> bool {
        let [place, change, cut] = bytes.array();
        if let Some(octet) = frame.get_mut(usize::from(place)) {
            *octet ^= change;
        }
        if cut > 0x80 {
            frame.truncate(usize::from(cut & 0x7f) + 14);
        }
        let outcome = self.arrive(port, frame);
        assert!(outcome.frame.len() >= 14);
        true
    }
}
