//! What the relay counts: every packet that ends here has a reason, every reason a name.

use crate::shared::{
    counts::{Counts, named},
    durations::Durations,
    statistics::{Traffic, Unreachable},
};

named! {
    /// Why a packet was dropped. `Decap` is from a client to a native host, `Encap` the other way.
    DropReason {
        /// The outer source is this host (L-01).
        DecapOwnSource = "decap-own-source",
        /// The outer source is not a global unicast IPv4 address, or its port is 0 (L-05).
        DecapSourceScope = "decap-source-scope",
        /// No Teredo encapsulation of an IPv6 packet (W-01, W-03, W-05).
        DecapMalformed = "decap-malformed",
        /// An authentication header or origin indication, which only servers send.
        DecapServerElement = "decap-server-element",
        /// A trailer forbids the packet (RFC 6081 section 4.1).
        DecapTrailer = "decap-trailer",
        /// Inner source and destination are the same (L-04).
        DecapSameAddresses = "decap-same-addresses",
        /// The inner source is not a Teredo address of this service.
        DecapSource = "decap-source",
        /// The outer source is not where the peer is, and the packet does not prove it.
        DecapMapping = "decap-mapping",
        /// Nobody sent anything to the inner source.
        DecapUnknownPeer = "decap-unknown-peer",
        /// A routing header other than that of Mobile IPv6 (L-11).
        DecapRoutingHeader = "decap-routing-header",
        /// The inner destination is a Teredo address.
        DecapDestinationTeredo = "decap-destination-teredo",
        /// The inner destination is not global unicast.
        DecapDestinationScope = "decap-destination-scope",
        /// The inner destination leads back to this host through 6to4 or ISATAP (L-07).
        DecapDestinationLoop = "decap-destination-loop",
        /// The inner destination is not served.
        DecapDestination = "decap-destination",
        /// Congestion was experienced, and the inner packet cannot say so (W-06).
        DecapCongestion = "decap-congestion",

        /// Not an IPv6 packet (W-03, W-05).
        EncapMalformed = "encap-malformed",
        /// A multicast packet of this host itself: the kernel announces its groups on the tunnel.
        EncapMulticast = "encap-multicast",
        /// The destination is not a Teredo address of this service.
        EncapNotTeredo = "encap-not-teredo",
        /// The source is not served, not global unicast, Teredo, or leads back to this host through
        /// 6to4 or ISATAP (R-08, L-07, L-10).
        EncapSource = "encap-source",
        /// A bubble: those are for the relay to send.
        EncapBubble = "encap-bubble",
        /// Larger than the tunnel's MTU.
        EncapTooBig = "encap-too-big",
        /// The endpoint in the destination is not global unicast, is this host, or has port 0
        ///
        EncapDestination = "encap-destination",
        /// The server in the destination is not global unicast, or is this host (L-06).
        EncapServer = "encap-server",
        /// The relay is being stopped and takes no new peers.
        EncapDraining = "encap-draining",
        /// The source, or a network of it, asks for too many new peers (L-12).
        EncapNewPeerRate = "encap-new-peer-rate",
        /// The peer left too many bubbles unanswered to be asked again now (P-09).
        EncapBubbleLimit = "encap-bubble-limit",
        /// Too many packets wait for the peer (P-07).
        EncapQueuePeer = "encap-queue-peer",
        /// Too many octets of the source wait (L-12).
        EncapQueueSource = "encap-queue-source",
        /// Too many octets wait (P-07).
        EncapQueueTotal = "encap-queue-total",
        /// The peer did not answer any bubble; one for each packet that waited (P-11).
        EncapNoAnswer = "encap-no-answer",
        /// Newer peers took the place of the one that the packet waited for (P-06).
        EncapEvicted = "encap-evicted",
        /// The peer's mapping is not proved, and too much was sent there already.
        EncapUnproved = "encap-unproved",
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
        /// Not sent to a peer's mapped endpoint, because of its rate (L-12).
        LimitedDirect = "limited-direct",
        /// Not sent to a peer's server at once, because of its pace: it waits for its turn (L-18).
        LimitedIndirect = "limited-indirect",
        /// Not sent to a peer's server again: too few packets wait for the answer (L-19).
        Withheld = "withheld",
        /// Accepted with a valid cookie: the answer to an indirect bubble.
        ReceivedCookie = "received-cookie",
        /// Accepted for its outer source.
        ReceivedDirect = "received-direct",
    }
}

named! {
    /// What happened to questions for the proof of a mapping.
    Question {
        /// Bubbles sent to a mapping.
        SentBubble = "sent-bubble",
        /// Echo requests sent to a mapping.
        SentEcho = "sent-echo",
        /// Not sent to a mapping, because of its rate.
        Limited = "limited",
        /// Answered with a bubble.
        AnsweredBubble = "answered-bubble",
        /// Answered with an echo reply.
        AnsweredEcho = "answered-echo",
        /// Proofs that became too old.
        Expired = "expired",
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
    /// Times that a mapping was proved.
    pub proved: u64,
    /// Times that a trusted peer was forgotten.
    pub forgotten: u64,
    /// Events that nobody took in time.
    pub events_lost: u64,
    /// Peers that are trusted now.
    pub trusted_peers: usize,
    /// Trusted peers whose mapping is proved now.
    pub proved_peers: usize,
    /// Peers that are known but not trusted now.
    pub untrusted_peers: usize,
    /// Packets that wait now.
    pub queue_packets: usize,
    /// Octets that wait now, with what it costs to keep them.
    pub queue_octets: usize,
    /// Bubbles that wait for their turn now (L-18).
    pub waiting_bubbles: usize,
    /// Times for which packets waited until their peer answered.
    pub waits: Durations,
    /// The same of the first packet to each peer that answered.
    pub first_waits: Durations,
    /// Times between a bubble and its answer.
    pub round_trips: Durations,
    /// Packets dropped, by reason.
    pub dropped: Counts<DropReason>,
    /// Bubbles, by kind.
    pub bubbles: Counts<Bubble>,
    /// Questions for the proof of a mapping, by kind.
    pub questions: Counts<Question>,
    /// Destination Unreachable messages, by outcome.
    pub unreachable: Counts<Unreachable>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::counts::assert_names;

    #[test]
    fn reasons_are_unique_and_in_kebab_case() {
        let reasons: Vec<_> = DropReason::ALL.iter().map(|one| one.reason()).collect();
        assert_names(&reasons);
        for reason in reasons {
            assert!(reason.starts_with("decap-") || reason.starts_with("encap-"));
        }
    }
}
