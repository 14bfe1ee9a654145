//! What the API is told.

use teredo_common::time::Instant;

use super::{Node, clock};
use crate::{
    api::{
        Page, Request,
        handle::PAGE,
        types::{Peer, PeerState},
    },
    metrics::{DECAP_NOT_TAKEN, ENCAP_NOT_TAKEN, Snapshot},
    protocol::relay::PeerInfo,
};

impl Node {
    pub(super) fn answer(&mut self, request: Request) {
        // Who does not wait any more needs no answer.
        match request {
            Request::Numbers(reply) => drop(reply.send(self.snapshot())),
            Request::Peers { cursor, reply } => drop(reply.send(self.page(cursor))),
        }
    }

    fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot {
            name: self.config.node.name.clone(),
            uptime: self.started.elapsed(),
            xdp: self.fast_path.attachments().to_vec(),
            xdp_refused: self.fast_path.refused(),
            ..Snapshot::default()
        };
        snapshot.add_relay(&self.relay.statistics());
        snapshot.add_dropped(DECAP_NOT_TAKEN, self.losses.decapsulated);
        snapshot.add_dropped(ENCAP_NOT_TAKEN, self.losses.encapsulated);
        snapshot.add_verdicts(&self.fast_path.counters());
        snapshot
    }

    fn page(&mut self, cursor: u64) -> Page {
        let now = clock::now();
        let start = usize::try_from(cursor).unwrap_or(usize::MAX);
        let mut rest = self.relay.peers().skip(start);
        let peers: Vec<_> = rest
            .by_ref()
            .take(PAGE)
            .map(|peer| Peer {
                xdp: self.fast_path.has(&peer.address.octets()),
                ..describe(&peer, now)
            })
            .collect();
        let next = rest.next().is_some().then_some(cursor + PAGE as u64);
        Page { peers, next }
    }
}

fn describe(peer: &PeerInfo, now: Instant) -> Peer {
    let since =
        |then: Instant| (then != Instant::ZERO).then(|| now.saturating_since(then).as_secs_f64());
    Peer {
        address: peer.address,
        mapped: peer.mapped.into(),
        state: if peer.trusted {
            PeerState::Trusted
        } else {
            PeerState::Untrusted
        },
        symmetric: peer.symmetric,
        last_received_seconds: since(peer.last_received),
        last_sent_seconds: since(peer.last_sent),
        xdp: false,
    }
}
