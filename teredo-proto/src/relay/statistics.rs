//! What the relay counts: every packet that ends here has a reason, every reason a name.

use crate::shared::{
    named::named,
    statistics::{Traffic, Unreachable},
};

named! {
    /// Why a packet was dropped. `Decap` is from a client to a native host, `Encap` the other way.
    DropReason {
        /// L-01: the outer source is this host.
        DecapOwnSource = "decap-own-source",
        /// L-05: the outer source is not a global unicast IPv4 address, or its port is 0.
        DecapSourceScope = "decap-source-scope",
        /// W-01, W-03, W-05: no Teredo encapsulation of an IPv6 packet.
        DecapMalformed = "decap-malformed",
        /// an authentication header or origin indication, which only servers send.
        DecapServerElement = "decap-server-element",
        /// A trailer forbids the packet (RFC 6081 section 4.1).
        DecapTrailer = "decap-trailer",
        /// L-04: inner source and destination are the same.
        DecapSameAddresses = "decap-same-addresses",
        /// the inner source is not a Teredo address of this service.
        DecapSource = "decap-source",
        /// the outer source is not where the peer is, and the packet does not prove it.
        DecapMapping = "decap-mapping",
        /// nobody sent anything to the inner source.
        DecapUnknownPeer = "decap-unknown-peer",
        /// trust needs a bubble with a cookie first.
        DecapStrictTrust = "decap-strict-trust",
        /// L-11: a routing header other than that of Mobile IPv6.
        DecapRoutingHeader = "decap-routing-header",
        /// the inner destination is a Teredo address.
        DecapDestinationTeredo = "decap-destination-teredo",
        /// the inner destination is not global unicast.
        DecapDestinationScope = "decap-destination-scope",
        /// L-07: the inner destination leads back to this host through 6to4 or ISATAP.
        DecapDestinationLoop = "decap-destination-loop",
        /// the inner destination is not served.
        DecapDestination = "decap-destination",
        /// W-06: congestion was experienced, and the inner packet cannot say so.
        DecapCongestion = "decap-congestion",

        /// W-03, W-05: not an IPv6 packet.
        EncapMalformed = "encap-malformed",
        /// the destination is not a Teredo address of this service.
        EncapNotTeredo = "encap-not-teredo",
        /// R-08, L-07, L-10: the source is not served, not global unicast, Teredo, or leads back to
        /// this host through 6to4 or ISATAP.
        EncapSource = "encap-source",
        /// A bubble: those are for the relay to send.
        EncapBubble = "encap-bubble",
        /// larger than the tunnel's MTU.
        EncapTooBig = "encap-too-big",
        /// the endpoint in the destination is not global unicast, is this host, or has port 0.
        EncapDestination = "encap-destination",
        /// L-06: the server in the destination is not global unicast, or is this host.
        EncapServer = "encap-server",
        /// the relay is being stopped and takes no new peers.
        EncapDraining = "encap-draining",
        /// L-12: the source asks for too many new peers.
        EncapNewPeerRate = "encap-new-peer-rate",
        /// P-09: the peer left too many bubbles unanswered.
        EncapBubbleLimit = "encap-bubble-limit",
        /// P-07: too many packets wait for the peer.
        EncapQueuePeer = "encap-queue-peer",
        /// L-12: too many octets of the source wait.
        EncapQueueSource = "encap-queue-source",
        /// P-07: too many octets wait.
        EncapQueueTotal = "encap-queue-total",
        /// P-11: the peer did not answer any bubble; one for each packet that waited.
        EncapNoAnswer = "encap-no-answer",
        /// P-06: newer peers took the place of the one that the packet waited for.
        EncapEvicted = "encap-evicted",
        /// More packets wait to be sent than anybody takes.
        EncapBacklog = "encap-backlog",
    }
}

named! {
    /// What happened to bubbles.
    Bubble {
        /// Sent to a peer's mapped endpoint.
        SentDirect = "sent-direct",
        /// Sent to a peer's server.
        SentIndirect = "sent-indirect",
        /// L-12: not sent to a peer's mapped endpoint, because of its rate.
        LimitedDirect = "limited-direct",
        /// L-12: not sent to a peer's server, because of its rate.
        LimitedIndirect = "limited-indirect",
        /// Accepted with a valid cookie: the answer to an indirect bubble.
        ReceivedCookie = "received-cookie",
        /// Accepted for its outer source.
        ReceivedDirect = "received-direct",
    }
}

/// A snapshot of what the relay counted since it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Forwarded from clients to native hosts.
    pub decapsulated: Traffic,
    /// Forwarded from native hosts to clients; those that waited count when they are sent.
    pub encapsulated: Traffic,
    /// Packets that waited for an answer, until now.
    pub queued: u64,
    /// Times that a peer became trusted.
    pub trusted: u64,
    /// Times that a trusted peer was forgotten.
    pub forgotten: u64,
    /// Events that nobody took in time.
    pub events_lost: u64,
    /// Peers that are trusted now.
    pub trusted_peers: usize,
    /// Peers that are known but not trusted now.
    pub untrusted_peers: usize,
    /// Packets that wait now.
    pub queue_packets: usize,
    /// Octets that wait now, with what it costs to keep them.
    pub queue_octets: usize,
    dropped: [u64; DropReason::COUNT],
    bubbles: [u64; Bubble::COUNT],
    unreachable: [u64; Unreachable::COUNT],
}

impl Default for Statistics {
    fn default() -> Self {
        Self {
            decapsulated: Traffic::default(),
            encapsulated: Traffic::default(),
            queued: 0,
            trusted: 0,
            forgotten: 0,
            events_lost: 0,
            trusted_peers: 0,
            untrusted_peers: 0,
            queue_packets: 0,
            queue_octets: 0,
            dropped: [0; DropReason::COUNT],
            bubbles: [0; Bubble::COUNT],
            unreachable: [0; Unreachable::COUNT],
        }
    }
}

impl Statistics {
    /// Packets dropped for this reason.
    pub const fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Bubbles of this kind.
    pub const fn bubbles(&self, kind: Bubble) -> u64 {
        self.bubbles[kind as usize]
    }

    /// Destination Unreachable messages with this outcome.
    pub const fn unreachable(&self, outcome: Unreachable) -> u64 {
        self.unreachable[outcome as usize]
    }

    pub(super) fn count_drop(&mut self, reason: DropReason) {
        self.dropped[reason as usize] += 1;
    }

    pub(super) fn count_bubble(&mut self, kind: Bubble) {
        self.bubbles[kind as usize] += 1;
    }

    pub(super) fn count_unreachable(&mut self, outcome: Unreachable) {
        self.unreachable[outcome as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn reasons_are_unique_and_in_kebab_case() {
        let reasons: Vec<_> = DropReason::ALL.iter().map(|one| one.reason()).collect();
        assert_eq!(
            reasons.iter().collect::<HashSet<_>>().len(),
            DropReason::ALL.len()
        );
        for reason in reasons {
            assert!(reason.starts_with("decap-") || reason.starts_with("encap-"));
            assert!(
                reason
                    .chars()
                    .all(|one| one == '-' || one.is_ascii_lowercase())
            );
        }
    }

    #[test]
    fn every_reason_has_its_own_count() {
        let mut statistics = Statistics::default();
        for (index, &reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason as usize, index);
            (0..=index).for_each(|_| statistics.count_drop(reason));
        }
        for (index, &reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(statistics.dropped(reason), index as u64 + 1);
        }
    }
}
