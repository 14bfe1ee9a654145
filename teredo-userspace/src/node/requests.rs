//! The answers to requests of the API.

use std::{net::SocketAddrV4, ops::Range};

use teredo_common::{
    address::{ServicePrefix, TeredoAddress},
    time::Instant,
};
use teredo_proto::{client, max_untrusted_peers, relay::PeerInfo};

use super::{Node, clock, handover::Replacement, host::configured};
use crate::{
    api::{
        Page, Request,
        filter::Filter,
        handle::PAGE,
        types::{Count, Peer, PeerState},
    },
    ipfix::WAITING_MAX,
    metrics::{
        DATAGRAM_NOT_TAKEN, DECAP_NOT_TAKEN, DECAP_OVERRUN, ENCAP_NOT_TAKEN, ENCAP_OVERRUN, Level,
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
            Request::Withdraw(reply) => self.withdraw_for(reply),
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
            xdp_peers: self.fast_path.peers(),
            ipfix_waiting: self.exporter.as_ref().map(|exporter| Level {
                value: exporter.waiting() as u64,
                limit: WAITING_MAX as u64,
            }),
            conditions: self.upkeep.conditions().iter().cloned().collect(),
            ..Snapshot::default()
        };
        let state = |role| RoleState {
            is_draining: self.draining.contains_key(&role),
            sunset: self.calendar.date(role),
        };
        // A role that waits for the host is one, too.
        let roles = configured(&self.config).into_iter();
        snapshot.roles.extend(roles.map(|role| (role, state(role))));
        snapshot.rates = self.rates.rates();
        if let Some(role) = &self.roles.relay {
            let endpoints = vec![role.endpoint()];
            snapshot.endpoints.insert(Role::Relay, endpoints);
            snapshot.add_relay(state(Role::Relay), &role.relay().statistics());
            snapshot.fleet = role.fleet_status();
            let ([decap, encap], failures) = (role.overrun(), role.failures());
            for (reason, packets) in [
                (DECAP_NOT_TAKEN, failures.decapsulated),
                (ENCAP_NOT_TAKEN, failures.encapsulated),
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
        if let Some((peers, octets)) = relay.or(client) {
            snapshot.peers_max = peers as u64;
            snapshot.untrusted_max = max_untrusted_peers(peers) as u64;
            snapshot.queue_bytes_max = octets as u64;
        }
        if let (Some(role), Some(section)) = (&self.roles.server, &self.config.server) {
            let endpoints = section
                .ipv4
                .map(|address| SocketAddrV4::new(address, section.port));
            snapshot.endpoints.insert(Role::Server, endpoints.into());
            let clients = section.clients.iter();
            snapshot.bindings_max = clients.filter(|client| client.prefix.is_some()).count() as u64;
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
    fn page(&self, cursor: u64, most: usize, filter: &Filter) -> Page {
        let now = clock::now();
        let accounting = self.counts_traffic();
        let admits =
            |address, mapped, is_trusted| filter.admits(address, mapped, state(is_trusted));
        // Last, since it takes a look at the map of the fast path.
        let is_wanted = |peer: &mut Peer| {
            peer.xdp = self.fast_path.has(&peer.address.octets());
            filter.admits_path(match peer.xdp {
                true => Path::Xdp,
                false => Path::Userspace,
            })
        };
        if let Some(role) = &self.roles.relay {
            let relay = role.relay();
            let peers_in = |slots| {
                let peers = relay.peers_in(slots);
                let peers = peers
                    .filter(|(_, peer)| admits(peer.address, peer.mapped.into(), peer.trusted));
                peers.map(|(slot, peer)| (slot, relay_peer(&peer, accounting, now)))
            };
            page_of(cursor, most, relay.slots(), peers_in, is_wanted)
        } else if let Some(role) = &self.client {
            let (client, prefix) = (&role.client, self.config.node.prefix);
            let peers_in = |slots| {
                let peers = client.peers_in(slots);
                let peers = peers
                    .filter(|(_, peer)| admits(peer.address, peer.mapped.into(), peer.trusted));
                peers.map(|(slot, peer)| (slot, client_peer(&peer, prefix, now)))
            };
            page_of(cursor, most, client.slots(), peers_in, is_wanted)
        } else {
            Page::default()
        }
    }
}

/// Returns the page of at most `most` peers that `is_wanted` admits, of a list with this many slots, some of them
/// free, that begins in slot `cursor`.
///
/// It covers so few slots, and asks about so few peers, that the time for it does not depend on the length of the
/// list. It ends before that only if it has `most` peers: one whose peers are not wanted takes the reader on as far
/// as any other.
fn page_of<I: Iterator<Item = (usize, Peer)>>(
    cursor: u64,
    most: usize,
    slots: usize,
    peers_in: impl FnOnce(Range<usize>) -> I,
    mut is_wanted: impl FnMut(&mut Peer) -> bool,
) -> Page {
    let start = usize::try_from(cursor).unwrap_or(usize::MAX);
    let end = start.saturating_add(PAGE_SLOTS);
    let mut next = end;
    let mut peers = Vec::new();
    for (number, (slot, mut peer)) in peers_in(start..end).enumerate() {
        if is_wanted(&mut peer) {
            peers.push(peer);
        }
        if peers.len() >= most || number + 1 >= PAGE {
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

    /// Reads all pages of at most `most` peers of a list in which every `step`th slot is used, and every `share`th
    /// peer is wanted. Returns the peers, the most slots that one page visited, and the number of pages.
    fn read(slots: usize, step: usize, share: usize, most: usize) -> (Vec<Peer>, usize, usize) {
        let (mut peers, mut visited_most, mut pages) = (Vec::new(), 0, 0);
        let mut cursor = Some(0);
        while let Some(start) = cursor {
            let (mut visited, mut asked) = (0, 0);
            let is_wanted = |peer: &mut Peer| {
                asked += 1;
                (peer.address.to_bits() as usize).is_multiple_of(step * share)
            };
            let peers_in = |range: Range<usize>| {
                let range = range.start..range.end.min(slots);
                visited = range.len();
                let used = range.filter(move |slot| slot % step == 0);
                used.map(|slot| (slot, peer(slot)))
            };
            let page = page_of(start, most, slots, peers_in, is_wanted);
            assert!(page.peers.len() <= most && asked <= PAGE);
            peers.extend(page.peers);
            visited_most = visited_most.max(visited);
            pages += 1;
            cursor = page.next;
        }
        (peers, visited_most, pages)
    }

    #[test]
    fn pages_have_every_peer_once_and_visit_few_slots() {
        for slots in [0, 1, PAGE, PAGE + 1, 100_000] {
            for step in [1, 3, 50_000] {
                for (share, most) in [(1, PAGE), (7, PAGE), (7, 3), (50_000, 1)] {
                    let (peers, visited, _) = read(slots, step, share, most);
                    let different: BTreeSet<_> = peers.iter().map(|peer| peer.address).collect();
                    assert_eq!(different.len(), peers.len());
                    assert_eq!(peers.len(), slots.div_ceil(step * share));
                    assert!(visited <= 16 * PAGE, "{visited}");
                }
            }
        }
    }

    #[test]
    fn a_search_takes_no_more_pages_than_a_list_of_all() {
        const PEERS: usize = 10_000;
        let all = PEERS.div_ceil(PAGE);
        for most in [1, 50, PAGE] {
            let (peers, _, pages) = read(PEERS, 1, PEERS, most);
            assert_eq!(peers.len(), 1);
            // The one that is wanted may end a page.
            assert!(pages <= all + 1, "{pages} of at most {most} peers");
        }
    }
}
