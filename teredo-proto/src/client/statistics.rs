//! What the client counts: every packet that comes is taken or has a reason.

use crate::shared::{
    counts::{Counts, named},
    durations::Durations,
    statistics::{Traffic, Unreachable},
};

named! {
    /// Why the client dropped a packet.
    DropReason {
        /// The outer source is this host (L-01).
        OwnSource = "own-source",
        /// The outer source has port 0 or is no address of a host (L-05).
        SourceScope = "source-scope",
        /// Congestion was experienced, and the inner packet cannot say so (W-06).
        Congestion = "congestion",
        /// No Teredo encapsulation of an IPv6 packet (W-01, W-03, W-05).
        Malformed = "malformed",
        /// Inner source and destination are the same (L-04).
        SameAddresses = "same-addresses",
        /// The client is not qualified.
        NotQualified = "not-qualified",
        /// The port is not open, or not for such a packet.
        Port = "port",
        /// The inner destination is not the client's address (C-32, L-08).
        Destination = "destination",
        /// A trailer forbids the packet (RFC 6081 section 4.1).
        Trailer = "trailer",
        /// Not from the server, whose tunnel is used (T-11).
        Tunnel = "tunnel",
        /// An authentication header or origin indication that is not from the server.
        ServerElement = "server-element",
        /// The inner source is no address of another host (C-18), or one of another Teredo service (C-41).
        Source = "source",
        /// A routing header other than that of Mobile IPv6 (L-11).
        RoutingHeader = "routing-header",
        /// A bubble of a relay without origin indication (C-34).
        NoOrigin = "no-origin",
        /// The answer to a bubble would go where nothing may be sent (C-34, L-02, L-05).
        BubbleTarget = "bubble-target",
        /// A relay's direct bubble, which has no use.
        RelayBubble = "relay-bubble",
        /// The outer source is not where the peer is, and nothing proves it (C-39, C-40, X-14).
        Mapping = "mapping",
        /// No discovery bubble of another client behind the same NAT (C-31, C-61).
        Discovery = "discovery",
        /// A discovery bubble from elsewhere than the network that it came by (C-61).
        DiscoverySource = "discovery-source",
        /// A host that nothing was sent to, from elsewhere than a relay that is known (C-41).
        Unsolicited = "unsolicited",
        /// Held, and the host proved to be elsewhere (C-41).
        HeldElsewhere = "held-elsewhere",
        /// Held, and the host did not answer the test (C-41).
        NoAnswer = "no-answer",
        /// Packets wait for all untrusted peers that there is room for (P-06).
        TooManyPeers = "too-many-peers",
        /// Too many packets of the host are held (P-07).
        QueuePeer = "queue-peer",
        /// Too many octets are held (P-07).
        QueueTotal = "queue-total",
        /// The peer that the packet waited for is no peer any more (P-06, C-45).
        Evicted = "evicted",

        /// What the host sent is no IPv6 packet (W-03, W-05).
        HostMalformed = "host-malformed",
        /// The client is not qualified (C-50).
        HostNotQualified = "host-not-qualified",
        /// The source is not the client's address (C-50).
        HostSource = "host-source",
        /// Larger than the tunnel's MTU.
        HostTooBig = "host-too-big",
        /// The destination is a multicast address (C-50).
        HostMulticast = "host-multicast",
        /// A bubble: those are for the client to send.
        HostBubble = "host-bubble",
        /// The destination is no address of another host, or names an endpoint or server that
        /// nothing may be sent to (C-51, L-02, L-06).
        HostDestination = "host-destination",
        /// The peer left too many bubbles unanswered (P-09).
        HostBubbleLimit = "host-bubble-limit",
        /// Too many packets wait for the peer (P-07).
        HostQueuePeer = "host-queue-peer",
        /// Too many octets wait (P-07).
        HostQueueTotal = "host-queue-total",
        /// The peer did not answer; one for each packet that waited (P-11).
        HostNoAnswer = "host-no-answer",

        /// An advertisement that is not from the expected address of the server (C-11, C-12).
        AdvertisementSource = "advertisement-source",
        /// An advertisement that answers no solicitation that is outstanding.
        AdvertisementNonce = "advertisement-nonce",
        /// An advertisement without the proof that its sender has the key.
        AdvertisementAuthentication = "advertisement-authentication",
        /// An advertisement that neighbor discovery does not allow, or for another address (C-11).
        AdvertisementInvalid = "advertisement-invalid",
        /// An advertisement whose origin indication is missing or not global unicast (C-11, C-13).
        AdvertisementOrigin = "advertisement-origin",
        /// An advertisement without the one prefix that the client may use (C-11, T-11).
        AdvertisementPrefix = "advertisement-prefix",
    }
}

named! {
    /// What happened to bubbles.
    Bubble {
        /// Sent to where a peer is or claims to be.
        SentDirect = "sent-direct",
        /// Sent to a peer's server.
        SentIndirect = "sent-indirect",
        /// Sent to the link.
        SentDiscovery = "sent-discovery",
        /// Sent to itself through its server, to measure how long the NAT keeps mappings (C-52).
        SentInterval = "sent-interval",
        /// Not sent directly (P-09, L-12).
        LimitedDirect = "limited-direct",
        /// Not sent to a peer's server (L-06), or not at once, because of its pace (L-18).
        LimitedIndirect = "limited-indirect",
        /// Accepted from a peer.
        ReceivedDirect = "received-direct",
        /// Accepted from a peer by the own server.
        ReceivedIndirect = "received-indirect",
        /// Accepted from a relay by the own server.
        ReceivedRelay = "received-relay",
        /// Accepted from the link.
        ReceivedDiscovery = "received-discovery",
        /// Accepted from itself through its server: the NAT has kept the mapping.
        ReceivedInterval = "received-interval",
    }
}

named! {
    /// What happened to connectivity tests (C-55).
    Test {
        /// Sent.
        Sent = "sent",
        /// Not sent (C-58), or not at once, because of the server's pace (L-18).
        Limited = "limited",
        /// Answered.
        Answered = "answered",
    }
}

/// What the client counted since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Taken from the tunnel and given to the host.
    pub decapsulated: Traffic,
    /// Sent by the host into the tunnel; those that waited count when they are sent.
    pub encapsulated: Traffic,
    /// Packets that waited for an answer, until now.
    pub queued: u64,
    /// Peers that are trusted now.
    pub trusted_peers: usize,
    /// Peers that are known but not trusted now.
    pub untrusted_peers: usize,
    /// Packets that wait now.
    pub queue_packets: usize,
    /// Octets that wait now, with what it costs to keep them.
    pub queue_octets: usize,
    /// Times that the client was qualified with a new address.
    pub qualified: u64,
    /// Solicitations sent to qualify, to keep the mapping and to measure the interval.
    pub solicitations: u64,
    /// Events that nobody took in time.
    pub events_lost: u64,
    /// Times for which packets waited until their peer answered.
    pub waits: Durations,
    /// The same of the first packet to each peer that answered.
    pub first_waits: Durations,
    /// Times between a bubble and its answer.
    pub round_trips: Durations,
    /// Times from the first solicitation without an address to the address.
    pub qualifications: Durations,
    /// Packets dropped, by reason.
    pub dropped: Counts<DropReason>,
    /// Bubbles, by kind.
    pub bubbles: Counts<Bubble>,
    /// Connectivity tests, by outcome.
    pub tests: Counts<Test>,
    /// Destination Unreachable messages, by outcome.
    pub unreachable: Counts<Unreachable>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::counts::assert_names;

    #[test]
    fn reasons_are_unique_and_in_kebab_case() {
        let drops = DropReason::ALL.iter().map(|one| one.reason());
        let bubbles = Bubble::ALL.iter().map(|one| one.reason());
        let tests = Test::ALL.iter().map(|one| one.reason());
        assert_names(&drops.collect::<Vec<_>>());
        assert_names(&bubbles.collect::<Vec<_>>());
        assert_names(&tests.collect::<Vec<_>>());
    }
}
