//! What the relay counts: every packet that ends here has a reason, every reason a name.

use crate::shared::{
    counts::{Counts, named},
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// Packets dropped, by reason.
    pub dropped: Counts<DropReason>,
    /// Bubbles, by kind.
    pub bubbles: Counts<Bubble>,
    /// Destination Unreachable messages, by outcome.
    pub unreachable: Counts<Unreachable>,
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
}
