//! The data path of XDP against the server in userspace: its answers are those of the server, octet for
//! octet, and it drops what the server drops.

use teredo_common::{
    address::Endpoint,
    limiter::Rate,
    verdict::Action,
    wire::{ETHERNET_HEADER, ETHERTYPE_IPV4, SERVER_PORT},
};
use teredo_differential::{
    FastPath as _,
    host::HostPath,
    packet::{datagram, ethernet},
    site::{Port, ROUTER, Setup, WAN},
};
use teredo_proto::{
    Instant, Server, ServerAddress,
    server::{Buckets, Transmit},
};

use super::{
    START, STEPS, duration,
    scenery::{PRIMARY, SECONDARY},
    server,
};
use crate::bytes::Bytes;

/// Runs a history.
pub fn run(octets: &[u8]) {
    let mut bytes = Bytes::new(octets);
    let mut config = server::config(&mut bytes);
    // Each path has buckets of its own here.
    let plenty = Rate::new(10_000_000, 10_000_000);
    config.limits.source = plenty;
    config.limits.network = plenty;
    config.limits.total = plenty;
    let mut fast = HostPath::new(&Setup {
        relay: false,
        server: Some(config.clone()),
        one_interface: bytes.bit(),
        ..Setup::default()
    });
    let own = config.own_ipv4.iter().map(|address| address.octets());
    let own = own.chain([PRIMARY, SECONDARY].map(|address| address.octets()));
    let relay = config.relay.map(|relay| relay.address);
    fast.maps.set_own_ipv4(own.chain(relay));
    let server = Server::new(config, Buckets::new());
    let mut paths = Paths {
        server,
        fast,
        now: START,
    };
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        paths.step(&mut bytes);
    }
}

/// Both paths with the same configuration.
struct Paths {
    server: Server,
    fast: HostPath,
    now: Instant,
}

impl Paths {
    fn step(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.below(16) {
            0 => self.now += duration(bytes),
            1 if bytes.below(8) == 0 => {
                self.server.drain(self.now);
                self.fast.maps.set_draining(self.server.drain_end());
            }
            _ => self.arrive(bytes),
        }
    }

    /// A datagram comes in a frame.
    fn arrive(&mut self, bytes: &mut Bytes<'_>) {
        let from = bytes.endpoint();
        let [kind, place, change] = bytes.array();
        let to = match kind & 3 {
            0 => ServerAddress::Secondary,
            _ => ServerAddress::Primary,
        };
        let payload = server::datagram(bytes);
        let mut packet = datagram(from, endpoint(to), 0, &payload);
        if kind & 4 != 0 {
            packet[26..28].fill(0);
        }
        let mut frame = ethernet(WAN, ROUTER, ETHERTYPE_IPV4, &packet);
        if kind & 8 != 0 {
            frame.resize(frame.len().max(60), 0);
        }
        let is_spoiled = kind & 0xe0 == 0xe0;
        if let Some(octet) = frame.get_mut::<usize>(place.into()).filter(|_| is_spoiled) {
            *octet ^= change;
        }
        self.fast.set_clock(self.now);
        let outcome = self.fast.run(Port::Wan, &frame).expect("one verdict");
        self.now = self.fast.now();
        let verdict = outcome.verdict;
        if verdict.action() != Action::Forward {
            assert_eq!(outcome.frame, frame, "{verdict:?}: changed");
        }
        if is_spoiled {
            return;
        }
        let before = *self.server.statistics();
        let slow = self.server.handle_datagram(self.now, to, from, &payload);
        match verdict.action() {
            Action::Pass => {}
            Action::Drop => assert_eq!(slow, None, "{verdict:?}"),
            Action::Forward => {
                let Some(Transmit::Datagram { from, to, payload }) = slow else {
                    let after = *self.server.statistics();
                    let counts = before.dropped.iter().zip(after.dropped.iter());
                    let reason = counts
                        .into_iter()
                        .find(|((_, before), (_, after))| before != after);
                    panic!("{verdict:?}, but the server has dropped it: {reason:?}");
                };
                let packet = &outcome.frame[ETHERNET_HEADER..];
                let identification = u16::from_be_bytes([packet[4], packet[5]]);
                let expected = datagram(endpoint(from), to, identification, payload);
                assert_eq!(packet, expected, "{verdict:?}");
            }
        }
    }
}

const fn endpoint(address: ServerAddress) -> Endpoint {
    let ip = match address {
        ServerAddress::Primary => PRIMARY,
        ServerAddress::Secondary => SECONDARY,
    };
    Endpoint::new(ip, SERVER_PORT)
}
