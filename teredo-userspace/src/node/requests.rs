//! The answers to requests of the API.

use std::net::SocketAddrV4;

use teredo_common::{
    address::{ServicePrefix, TeredoAddress},
    time::Instant,
};
use teredo_proto::{client, relay::PeerInfo};

use super::{Node, clock, host::configured};
use crate::{
    api::{
        Page, Request,
        handle::PAGE,
        types::{Peer, PeerState},
    },
    metrics::{
        DATAGRAM_NOT_TAKEN, DECAP_NOT_TAKEN, ENCAP_NOT_TAKEN, NATIVE_NOT_TAKEN, OVERRUN, Role,
        RoleState, Snapshot, TUNNEL_NOT_TAKEN,
    },
};

impl Node {
    pub(super) fn handle_request(&mut self, request: Request) {
        // The requester may be gone; a failed send is fine.
        match request {
            Request::Snapshot(reply) => drop(reply.send(self.snapshot())),
            Request::Peers { cursor, reply } => drop(reply.send(self.page(cursor))),
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
    }

    fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot {
            name: self.config.node.name.clone(),
            uptime: self.started.elapsed(),
            time: clock::now(),
            xdp: self.fast_path.attachments().to_vec(),
            xdp_refused: self.fast_path.refused(),
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
            for (reason, packets) in [
                (DECAP_NOT_TAKEN, role.failures.decapsulated),
                (ENCAP_NOT_TAKEN, role.failures.encapsulated),
            ] {
                snapshot.add_dropped(Role::Relay, reason, packets);
            }
        }
        let relay = self.config.relay.as_ref().map(|relay| relay.max_peers);
        let client = self.config.client.as_ref().map(|client| client.max_peers);
        snapshot.peers_max = relay.or(client).unwrap_or(0) as u64;
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
            for (reason, packets) in [
                (DECAP_NOT_TAKEN, role.failures.decapsulated),
                (ENCAP_NOT_TAKEN, role.failures.encapsulated),
            ] {
                snapshot.add_dropped(Role::Client, reason, packets);
            }
        }
        snapshot.add_verdicts(&self.fast_path.counters());
        snapshot
    }

    fn page(&mut self, cursor: u64) -> Page {
        let now = clock::now();
        let start = usize::try_from(cursor).unwrap_or(usize::MAX);
        let relay = self.roles.relay.iter().flat_map(|role| role.relay.peers());
        let relay = relay.map(|peer| relay_peer(&peer, now));
        let prefix = self.config.node.prefix;
        let client = self.client.iter().flat_map(|role| role.client.peers());
        let client = client.map(|peer| client_peer(&peer, prefix, now));
        let mut rest = relay.chain(client).skip(start);
        let peers: Vec<_> = rest
            .by_ref()
            .take(PAGE)
            .map(|peer| Peer {
                xdp: self.fast_path.has(&peer.address.octets()),
                ..peer
            })
            .collect();
        let next = rest.next().is_some().then_some(cursor + PAGE as u64);
        Page { peers, next }
    }
}

/// Describes the peer of a relay.
fn relay_peer(peer: &PeerInfo, now: Instant) -> Peer {
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
    }
}

/// Describes the peer of a client: another client, or a native host behind its relay.
fn client_peer(peer: &client::PeerInfo, prefix: ServicePrefix, now: Instant) -> Peer {
    let teredo = TeredoAddress::decode(peer.address, prefix);
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
