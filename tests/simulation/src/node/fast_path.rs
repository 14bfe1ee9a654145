//! The fast path of a relay: frames go through the data path of the XDP program first, with a table of
//! peers that the relay's events fill, as the daemon does.

use std::{collections::HashSet, net::Ipv6Addr, time::Duration};

use teredo_common::{
    address::Endpoint,
    maps::Settings,
    peers::Peer,
    time::Instant,
    wire::{ENCAPSULATION, ETHERNET_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_HEADER, MTU},
};
use teredo_datapath::{
    Addresses, Fate, Way,
    host::{Arrival, Cpu, Maps, Network, Outcome},
};
use teredo_differential::packet::{datagram, ethernet};
use teredo_proto::relay::{Config, Event, Relay};

/// The only interface.
const INTERFACE: u32 = 2;
const STATION: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The router of both families.
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Peers that the table has room for; the relay serves the others itself.
const PEERS: u32 = 64;
/// Time between two sweeps of the daemon.
const SWEEP: Duration = Duration::from_secs(1);

/// What happens to a packet in the fast path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fast<T> {
    /// It leaves, translated.
    Sent(T),
    /// It is left to the relay.
    Passed,
    /// Nobody gets it.
    Dropped,
}

/// The data path and its maps.
#[derive(Debug)]
pub struct FastPath {
    maps: Maps,
    cpu: Cpu,
    ways: Ways,
    /// Time of the last event.
    now: Instant,
    /// Time of the next sweep, if the table may have peers.
    sweep_at: Option<Instant>,
    /// Number of packets that the fast path has forwarded.
    pub forwarded: u64,
}

/// Every address is behind the router, except the machine's own.
#[derive(Debug)]
struct Ways {
    own: Ipv6Addr,
}

impl Network for Ways {
    fn look_up_ipv4(&self, _from: u32, _source: Endpoint, _destination: Endpoint) -> Option<Way> {
        Some(Way {
            interface: INTERFACE,
            mtu: 1500,
            addresses: Addresses::new(ROUTER, STATION),
            has_gateway: true,
        })
    }

    fn look_up_ipv6(&self, from: u32, _source: Ipv6Addr, destination: Ipv6Addr) -> Option<Way> {
        let nobody = Endpoint::default();
        (destination != self.own)
            .then(|| self.look_up_ipv4(from, nobody, nobody))
            .flatten()
    }
}

impl FastPath {
    /// Makes the fast path of a relay on a machine with this IPv6 address.
    pub(super) fn new(config: &Config, own: Ipv6Addr) -> Self {
        let settings = Settings {
            peer_lifetime: config.peer_lifetime.as_nanos() as u64,
            relay: config.endpoint,
            mtu: config.mtu.max(MTU),
            prefix: config.prefix,
            tunnel: INTERFACE + 1,
            flags: Settings::ALLOW_ZERO_CHECKSUM,
            interface_mask: 0,
            teredo: config.teredo,
        };
        let peers = PEERS.min(config.max_peers as u32);
        let mut maps = Maps::new(settings, peers, 0x5eed);
        if !config.served.contains(&ipnet::Ipv6Net::default()) {
            maps.serve(config.served.clone());
        }
        maps.set_own_ipv4(config.own_ipv4.iter().map(|address| address.octets()));
        maps.add_interface(INTERFACE, STATION);
        Self {
            maps,
            cpu: Cpu::default(),
            ways: Ways { own },
            now: Instant::ZERO,
            sweep_at: None,
            forwarded: 0,
        }
    }

    /// Receives a datagram: the IPv6 packet in it, if that is sent.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        from: Endpoint,
        to: Endpoint,
        payload: &[u8],
    ) -> Fast<Vec<u8>> {
        let packet = datagram(from, to, 0, payload);
        self.run(now, ETHERTYPE_IPV4, &packet)
            .map(|frame| frame[ETHERNET_HEADER..].to_vec())
    }

    /// Receives an IPv6 packet from the native internet: the datagram to a client, if that is sent.
    pub(super) fn route(&mut self, now: Instant, packet: &[u8]) -> Fast<(Endpoint, Vec<u8>)> {
        self.run(now, ETHERTYPE_IPV6, packet).map(|frame| {
            let packet = &frame[ETHERNET_HEADER..];
            let to = Endpoint {
                address: packet[16..20].try_into().expect("four octets"),
                port: packet[IPV4_HEADER + 2..IPV4_HEADER + 4]
                    .try_into()
                    .expect("two octets"),
            };
            (to, packet[ENCAPSULATION..].to_vec())
        })
    }

    fn run(&mut self, now: Instant, ethertype: u16, packet: &[u8]) -> Fast<Vec<u8>> {
        self.now = now;
        let frame = ethernet(STATION, ROUTER, ethertype, packet);
        let arrival = Arrival {
            frame: &frame,
            ingress: INTERFACE,
            now,
        };
        let Outcome {
            fate, frame: left, ..
        } = self.maps.run(&self.cpu, &self.ways, arrival);
        match fate {
            Fate::Pass => {
                assert_eq!(left, frame, "changed and passed");
                Fast::Passed
            }
            Fate::Drop => Fast::Dropped,
            Fate::Return | Fate::Redirect(_) => {
                self.forwarded += 1;
                Fast::Sent(left)
            }
        }
    }

    /// Applies an event of the relay to the table of peers.
    pub(super) fn apply(&mut self, now: Instant, event: &Event) {
        self.now = now;
        match *event {
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
                // A peer that finds no room is left to the relay.
                self.maps.insert(&address.octets(), &peer, now);
                self.sweep_at.get_or_insert(now + SWEEP);
            }
            Event::PeerForgotten { address } => self.maps.remove(&address.octets(), now),
        }
    }

    /// Returns the time of the next sweep.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.sweep_at
    }

    /// Copies stamps to the relay and reconciles the table with it, if it is time.
    pub(super) fn handle_timeout(&mut self, now: Instant, relay: &mut Relay) {
        if self.sweep_at.is_none_or(|at| now < at) {
            return;
        }
        self.now = now;
        let (mut present, mut unknown) = (HashSet::new(), Vec::new());
        self.maps.for_each_peer(now, |address, peer| {
            match relay.record_stamps(address, peer.last_received, peer.last_sent) {
                true => _ = present.insert(*address),
                false => unknown.push(*address),
            }
        });
        for address in unknown {
            self.maps.remove(&address, now);
        }
        for peer in relay.peers().filter(|peer| peer.proved) {
            let address = peer.address.octets();
            if !present.contains(&address) {
                let peer = Peer {
                    mapped: peer.mapped,
                    last_received: peer.last_received,
                    last_sent: peer.last_sent,
                };
                if !self.maps.insert(&address, &peer, now) {
                    break;
                }
                present.insert(address);
            }
        }
        self.sweep_at = (!present.is_empty()).then(|| now + SWEEP);
    }

    /// Calls `visit` with the address and the mapping of every peer that the table has.
    pub fn for_each_peer(&self, mut visit: impl FnMut(Ipv6Addr, Endpoint)) {
        self.maps.for_each_peer(self.now, |address, peer| {
            visit((*address).into(), peer.mapped)
        });
    }
}

impl<T> Fast<T> {
    fn map<U>(self, function: impl FnOnce(T) -> U) -> Fast<U> {
        match self {
            Self::Sent(value) => Fast::Sent(function(value)),
            Self::Passed => Fast::Passed,
            Self::Dropped => Fast::Dropped,
        }
    }
}
