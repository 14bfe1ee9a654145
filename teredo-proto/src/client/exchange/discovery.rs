//! Local discovery (RFC 4380 section 5.2.8): clients on the same link find each other, and need no
//! NAT that supports hairpinning.

use std::{net::Ipv4Addr, time::Duration};

use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use teredo_common::{
    address::{Endpoint, embedded_mapping},
    time::Instant,
};

use super::{
    Exchange, Shared,
    contact::{Contact, Local},
};
use crate::{
    client::{
        Attached, Transmit,
        statistics::{Bubble, DropReason},
    },
    shared::peers::{GAP, PeerIndex, RoleState as _},
    wire::{bubble, encapsulation::Encapsulation, ipv6::Header},
};

/// The least and the most time between two unsolicited discovery bubbles.
const INTERVAL: [Duration; 2] = [Duration::from_secs(200), Duration::from_secs(300)];

/// The times of discovery bubbles.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Discovery {
    /// The time of the next one, while the client has an address.
    pub next: Option<Instant>,
    last: Instant,
}

impl Exchange {
    /// Starts to send discovery bubbles at intervals, beginning now, or stops it if the client has
    /// no Teredo address (C-60).
    pub(super) fn restart_discovery(&mut self, shared: &mut Shared, now: Instant) {
        let is_teredo = self.identity.is_some_and(|identity| !identity.tunnel);
        self.discovery = Discovery::default();
        if is_teredo && shared.config.local_discovery {
            self.discover(shared, now);
        }
    }

    /// Sends discovery bubbles if they are due.
    pub(super) fn handle_discovery_timeout(&mut self, shared: &mut Shared, now: Instant) {
        if self.discovery.next.is_some_and(|next| now >= next) {
            self.discover(shared, now);
        }
    }

    fn discover(&mut self, shared: &mut Shared, now: Instant) {
        let [least, most] = INTERVAL;
        self.discovery.next = Some(now + shared.random.random_range(least..=most));
        self.send_discovery(shared, now);
    }

    /// Sends a discovery bubble to every private network, unless that was done within two seconds.
    pub(super) fn send_discovery(&mut self, shared: &mut Shared, now: Instant) {
        let is_recent =
            self.discovery.last != Instant::ZERO && now.saturating_since(self.discovery.last) < GAP;
        if self.discovery.next.is_none() || is_recent {
            return;
        }
        self.discovery.last = now;
        let attached = shared.network.attached.iter();
        for attached in attached.filter(|attached| is_private(attached)) {
            shared.transmits.push_back(Transmit::Discovery {
                interface: attached.address,
                payload: bubble::build_discovery(&self.own).to_vec(),
            });
            shared.statistics.bubbles[Bubble::SentDiscovery] += 1;
        }
    }

    /// Handles a datagram that arrived at the discovery address on the interface with this address
    /// (C-31, C-61, C-62).
    pub fn handle_discovery(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        interface: Ipv4Addr,
        from: Endpoint,
        parts: &Encapsulation<'_>,
    ) -> Result<(), DropReason> {
        let identity = self.identity.ok_or(DropReason::NotQualified)?;
        if self.discovery.next.is_none() {
            return Err(DropReason::Discovery);
        }
        let header = Header::parse(parts.packet).map_err(|_| DropReason::Malformed)?;
        let source = header.source();
        let is_valid = header.is_bubble()
            && header.destination() == bubble::ALL_NODES
            && parts.origin.is_none()
            && parts.authentication.is_none()
            && shared.config.prefix.contains(&source)
            && source != self.own
            && embedded_mapping(&source).address == identity.mapped.address
            && self.may_be_peer(shared, &source);
        if !is_valid {
            return Err(DropReason::Discovery);
        }
        let mut attached = shared.network.attached.iter();
        let is_attached = attached.any(|network| {
            network.address == interface && is_private(network) && is_neighbor(network, from)
        });
        if !is_attached || shared.own_ipv4.contains(from.address) {
            return Err(DropReason::DiscoverySource);
        }
        let index = self.admit(shared, source)?;
        shared.statistics.bubbles[Bubble::ReceivedDiscovery] += 1;
        let peer = &mut self.peers[index];
        let is_new = peer.state.local(now) != Some(from);
        peer.state.local = Some(Local {
            endpoint: from,
            heard: now,
        });
        if !peer.is_trusted() {
            peer.last_received = now;
            self.peers.arm_removal(index);
        }
        if is_new {
            // Otherwise the new peer could not attribute the answer for minutes.
            self.send_discovery(shared, now);
        }
        let history = &self.peers[index].pending_mut().history;
        if history.check(now, Contact::PATIENCE).is_ok() && self.send_to_local(shared, now, index) {
            self.count_burst(now, index);
        }
        Ok(())
    }

    /// Sends bubbles to a peer on the same link, so that both know each other (C-51 case 3).
    /// Returns `false` if the peer is not on the link, or limits forbid it.
    pub(super) fn greet_local(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        index: PeerIndex,
    ) -> bool {
        if self.peers[index].state.local(now).is_none() {
            return false;
        }
        self.send_discovery(shared, now);
        self.send_to_local(shared, now, index)
    }

    /// Sends a bubble to the peer's endpoint on the same link. Returns whether one was sent.
    fn send_to_local(&mut self, shared: &mut Shared, now: Instant, index: PeerIndex) -> bool {
        let local = self.peers[index].state.local(now);
        let is_allowed =
            local.is_some_and(|to| is_on_link(shared, to) && self.limits.take_direct(to, now));
        if let Some(to) = local.filter(|_| is_allowed) {
            self.send_bubble(shared, shared.config.port, index, to);
        }
        is_allowed
    }
}

/// Whether an endpoint belongs to a neighbor on a private network.
pub fn is_on_link(shared: &Shared, endpoint: Endpoint) -> bool {
    let mut attached = shared.network.attached.iter();
    attached.any(|network| is_private(network) && is_neighbor(network, endpoint))
        && !shared.own_ipv4.contains(endpoint.address)
}

fn is_private(attached: &Attached) -> bool {
    attached.address.is_private() || attached.address.is_link_local()
}

/// Whether an endpoint is one of another host in the network: neither the network's own address
/// nor its broadcast address.
fn is_neighbor(attached: &Attached, endpoint: Endpoint) -> bool {
    let host_bits = u32::MAX
        .checked_shr(attached.prefix_length.into())
        .unwrap_or(0);
    let (own, other) = (attached.address.to_bits(), endpoint.ip().to_bits());
    let is_reserved = host_bits > 1 && [0, host_bits].contains(&(other & host_bits));
    own != other && (own ^ other) & !host_bits == 0 && !is_reserved && endpoint.port() != 0
}
