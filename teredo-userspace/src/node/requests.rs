//! The answers to requests of the API.

use std::{net::SocketAddrV4, ops::Range};

use teredo_common::{
    address::{ServicePrefix, TeredoAddress},
    time::Instant,
};
use teredo_proto::{client, relay::PeerInfo};

use super::{Node, clock, handover::Replacement, host::configured};
use crate::{
    api::{
        Page, Request,
        filter::Filter,
        handle::PAGE,
        types::{Count, Peer, PeerState},
    },
    metrics::{
        DATAGRAM_NOT_TAKEN, DECAP_NOT_TAKEN, DECAP_OVERRUN, ENCAP_NOT_TAKEN, ENCAP_OVERRUN,
        NATIVE_NOT_TAKEN, OVERRUN, Path, Role, RoleState, Snapshot, TUNNEL_NOT_TAKEN,
    },
};

/// Slots of the list of peers that one page covers.
const PAGE_SLOTS: usize = 16 * PAGE;

impl Node {
    pub(super) fn handle_request(&mut self, request: Request) {
        // The requester may be gone; a failed send is fine.
        match request {
            Request::Snapshot(reply) => drop(reply.send(self.snapshot())),
            Request::Peers {
                cursor,
                most,
                filter,
                reply,
            } => drop(reply.send(self.page(cursor, most, &filter))),
            Request::Explain { question, reply } => {
                drop(reply.send(Box::new(self.facts(&question))))
            }
            Request::Replace(reply) => self.replacement = Some(Replacement(reply)),
            Request::Withdraw(reply) => drop(reply.send(self.withdraw())),
            Request::CaptureParts(reply) => drop(reply.send(self.fast_path.shared())),
            Request::BeginCapture {
                program,
                over,
                reply,
            } => drop(reply.send(self.fast_path.begin_capture(&program, over))),
            Request::Drain(reply) => {
                self.drain();
                let _ = reply.send(());
            }
        }
    }

    /// Measures the traffic since the last call. To be called about once a second.
    pub(super) fn measure(&mut self) {
        let snapshot = self.snapshot();
        self.rates.measure(snapshot.time, &snapshot);
        self.publish_measurement(snapshot);
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot {
            name: self.config.node.name.clone(),
            uptime: self.started.elapsed(),
            turns: self.turns,
            time: clock::now(),
            xdp: self.fast_path.attachments().to_vec(),
            xdp_refused: self.fast_path.refused(),
            xdp_dropped: self.fast_path.dropped(),
            conditions: self.upkeep.conditions().iter().cloned().collect(),
            ..Snapshot::default()
        };
        let state = |role| RoleState {
            is_draining: self.draining.contains(&role),
            sunset: self.calendar.date(role),
        };
        // A role that waits for the host is one, too.
        let roles = configured(&self.config).into_iter();
        snapshot.roles.extend(roles.map(|role| (role, state(role))));
        snapshot.rates = self.rates.rates();
        if let Some(role) = &self.roles.relay {
            let endpoints = vec![role.endpoint()];
            snapshot.endpoints.insert(Role::Relay, endpoints);
            snapshot.add_relay(state(Role::Relay), &role.relay.statistics());
            snapshot.fleet = role.fleet_status();
            let [decap, encap] = role.overrun();
            for (reason, packets) in [
                (DECAP_NOT_TAKEN, role.failures.decapsulated),
                (ENCAP_NOT_TAKEN, role.failures.encapsulated),
                (DECAP_OVERRUN, decap),
                (ENCAP_OVERRUN, encap),
            ] {
                snapshot.add_dropped(Role::Relay, reason, packets);
            }
        }
        let relay = self.config.relay.as_ref();
        let relay = relay.map(|relay| (relay.max_peers, relay.queue_total_bytes));
        let client = self.config.client.as_ref();
        let client = client.map(|client| (client.max_peers, client.queue_total_bytes));
        let (peers, octets) = relay.or(client).unwrap_or_default();
        snapshot.peers_max = peers as u64;
        snapshot.queue_bytes_max = octets as u64;
        if let (Some(role), Some(section)) = (&self.roles.server, &self.config.server) {
            let endpoints = section
                .ipv4
                .map(|address| SocketAddrV4::new(address, section.port));
            snapshot.endpoints.insert(Role::Server, endpoints.into());
            let server = role.protocol();
            snapshot.add_server(
                state(Role::Server),
                server.statistics(),
                server.bindings().count(),
            );
            let failures = role.failures();
            for (reason, packets) in [
                (OVERRUN, role.overrun()),
                (DATAGRAM_NOT_TAKEN, failures.datagrams),
                (NATIVE_NOT_TAKEN, failures.native),
                (TUNNEL_NOT_TAKEN, failures.tunnel),
            ] {
                snapshot.add_dropped(Role::Server, reason, packets);
            }
        }
        if let Some(role) = &self.client {
            snapshot.add_client(role.status(), &role.client);
            let [decap, encap] = role.overrun();
            for (reason, packets) in [
                (DECAP_NOT_TAKEN, role.failures.decapsulated),
                (ENCAP_NOT_TAKEN, role.failures.encapsulated),
                (DECAP_OVERRUN, decap),
                (ENCAP_OVERRUN, encap),
            ] {
                snapshot.add_dropped(Role::Client, reason, packets);
            }
        }
        snapshot.add_verdicts(&self.fast_path.counters());
        snapshot
    }

    /// Whether the relay counts the traffic of its peers.
    pub(super) fn counts_traffic(&self) -> bool {
        let relay = self.config.relay.as_ref();
        relay.is_some_and(|relay| relay.accounting)
    }

    /// Returns a page of the list of peers. A node has a relay or a client, never both.
    fn page(&mut self, cursor: u64, most: usize, filter: &Filter) -> Page {
        let now = clock::now();
        let accounting = self.counts_traffic();
        let mut page = if let Some(role) = &self.roles.relay {
            let relay = &role.relay;
            page_of(cursor, most, relay.slots(), |slots| {
                let peers = relay.peers_in(slots).filter(|(_, peer)| {
                    filter.admits(peer.address, peer.mapped.into(), state(peer.trusted))
                });
                peers.map(|(slot, peer)| (slot, relay_peer(&peer, accounting, now)))
            })
        } else if let Some(role) = &self.client {
            let (client, prefix) = (&role.client, self.config.node.prefix);
            page_of(cursor, most, client.slots(), |slots| {
                let peers = client.peers_in(slots).filter(|(_, peer)| {
                    filter.admits(peer.address, peer.mapped.into(), state(peer.trusted))
                });
                peers.map(|(slot, peer)| (slot, client_peer(&peer, prefix, now)))
            })
        } else {
            Page::default()
        };
        for peer in &mut page.peers {
            peer.xdp = self.fast_path.has(&peer.address.octets());
        }
        // Last, since it takes a look at the map of the fast path.
        page.peers.retain(|peer| {
            filter.admits_path(match peer.xdp {
                true => Path::Xdp,
                false => Path::Userspace,
            })
        });
        page
    }
}

/// Returns the page of at most `most` peers, of a list with this many slots, some of them free, that begins in
/// slot `cursor`. It covers so few slots that the time for it does not depend on the length of the list.
fn page_of<I: Iterator<Item = (usize, Peer)>>(
    cursor: u64,
    most: usize,
    slots: usize,
    peers_in: impl FnOnce(Range<usize>) -> I,
) -> Page {
    let start = usize::try_from(cursor).unwrap_or(usize::MAX);
    let end = start.saturating_add(PAGE_SLOTS);
    let mut next = end;
    let mut peers = Vec::new();
    for (slot, peer) in peers_in(start..end) {
        peers.push(peer);
        if peers.len() >= most.min(PAGE) {
            next = slot + 1;
            break;
        }
    }
    let next = (next < slots).then_some(next as u64);
    Page { peers, next }
}

/// Describes the peer of a relay. `accounting` tells whether its traffic is counted.
pub(super) fn relay_peer(peer: &PeerInfo, accounting: bool, now: Instant) -> Peer {
    let (packets, bytes) = Count::of(peer.traffic);
    Peer {
        address: peer.address,
        mapped: peer.mapped.into(),
        state: state(peer.trusted),
        symmetric: peer.symmetric,
        proved: peer.proved,
        last_received_seconds: since(peer.last_received, now),
        last_sent_seconds: since(peer.last_sent, now),
        local: false,
        xdp: false,
        packets: accounting.then_some(packets),
        bytes: accounting.then_some(bytes),
    }
}

/// Describes the peer of a client: another client, or a native host behind its relay.
pub(super) fn client_peer(peer: &client::PeerInfo, prefix: ServicePrefix, now: Instant) -> Peer {
    let teredo = TeredoAddress::decode(peer.address, prefix);
    let (packets, bytes) = Count::of(peer.traffic);
    let is_elsewhere = teredo.is_some_and(|teredo| teredo.mapped != peer.mapped);
    Peer {
        address: peer.address,
        mapped: peer.mapped.into(),
        state: state(peer.trusted),
        symmetric: is_elsewhere && !peer.local,
        proved: false,
        last_received_seconds: since(peer.last_received, now),
        last_sent_seconds: since(peer.last_sent, now),
        local: peer.local,
        xdp: false,
        packets: Some(packets),
        bytes: Some(bytes),
    }
}

const fn state(is_trusted: bool) -> PeerState {
    if is_trusted {
        PeerState::Trusted
    } else {
        PeerState::Untrusted
    }
}

/// Returns the seconds since `then`; `None` if that is zero, which stands for never.
fn since(then: Instant, now: Instant) -> Option<f64> {
    (then != Instant::ZERO).then(|| now.saturating_since(then).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn peer(slot: usize) -> Peer {
        Peer {
            address: (slot as u128).into(),
            mapped: SocketAddrV4::new([9, 9, 9, 9].into(), 1),
            state: PeerState::Trusted,
            proved: true,
            symmetric: false,
            last_received_seconds: None,
            last_sent_seconds: None,
            local: false,
            xdp: false,
            packets: Some(Count::default()),
            bytes: Some(Count::default()),
        }
    }

    /// Reads all pages of a list in which every `step`th slot is used. Returns the peers, and the most slots
    /// that one page visited.
    fn read(slots: usize, step: usize) -> (Vec<Peer>, usize) {
        let (mut peers, mut most) = (Vec::new(), 0);
        let mut cursor = Some(0);
        while let Some(start) = cursor {
            let mut visited = 0;
            let page = page_of(start, PAGE, slots, |range| {
                let range = range.start..range.end.min(slots);
                let visited = &mut visited;
                range
                    .inspect(|_| *visited += 1)
                    .filter(move |slot| slot % step == 0)
                    .map(|slot| (slot, peer(slot)))
            });
            assert!(page.peers.len() <= PAGE);
            peers.extend(page.peers);
            most = most.max(visited);
            cursor = page.next;
        }
        (peers, most)
    }

    #[test]
    fn pages_have_every_peer_once_and_visit_few_slots() {
        for slots in [0, 1, PAGE, PAGE + 1, 100_000] {
            for step in [1, 3, 50_000] {
                let (peers, most) = read(slots, step);
                let different: BTreeSet<_> = peers.iter().map(|peer| peer.address).collect();
                assert_eq!(different.len(), peers.len());
                assert_eq!(peers.len(), slots.div_ceil(step));
                assert!(most <= 16 * PAGE, "{most}");
            }
        }
    }
}
