//! What the client counts: every packet that comes is taken or has a reason.

use crate::shared::{
    counts::{Counts, named},
    statistics::{Traffic, Unreachable},
};

named! {
    /// Why the client dropped a packet.
    DropReason {
        /// L-01: the outer source is this host.
        OwnSource = "own-source",
        /// L-05: the outer source has port 0 or is no address of a host.
        SourceScope = "source-scope",
        /// W-06: congestion was experienced, and the inner packet cannot say so.
        Congestion = "congestion",
        /// W-01, W-03, W-05: no Teredo encapsulation of an IPv6 packet.
        Malformed = "malformed",
        /// L-04: inner source and destination are the same.
        SameAddresses = "same-addresses",
        /// The client is not qualified.
        NotQualified = "not-qualified",
        /// The port is not open, or not for such a packet.
        Port = "port",
        /// C-32, L-08: the inner destination is not the client's address.
        Destination = "destination",
        /// A trailer forbids the packet (RFC 6081 section 4.1).
        Trailer = "trailer",
        /// T-11: not from the server, whose tunnel is used.
        Tunnel = "tunnel",
        /// An authentication header or origin indication that is not from the server.
        ServerElement = "server-element",
        /// C-18: the inner source is no address of another host.
        Source = "source",
        /// L-11: a routing header other than that of Mobile IPv6.
        RoutingHeader = "routing-header",
        /// C-34: a bubble of a relay without origin indication.
        NoOrigin = "no-origin",
        /// C-34, L-02, L-05: the answer to a bubble would go where nothing may be sent.
        BubbleTarget = "bubble-target",
        /// A relay's direct bubble, which has no use.
        RelayBubble = "relay-bubble",
        /// C-39, C-40, X-14: the outer source is not where the peer is, and nothing proves it.
        Mapping = "mapping",
        /// C-31, C-61: no discovery bubble of another client behind the same NAT.
        Discovery = "discovery",
        /// C-61: a discovery bubble from elsewhere than the network that it came by.
        DiscoverySource = "discovery-source",
        /// C-41: a host that nothing was sent to, from elsewhere than a relay that is known.
        Unsolicited = "unsolicited",
        /// C-41: held, and the host proved to be elsewhere.
        HeldElsewhere = "held-elsewhere",
        /// C-41: held, and the host did not answer the test.
        NoAnswer = "no-answer",
        /// P-06: packets wait for all untrusted peers that there is room for.
        TooManyPeers = "too-many-peers",
        /// P-07: too many packets of the host are held.
        QueuePeer = "queue-peer",
        /// P-07: too many octets are held.
        QueueTotal = "queue-total",
        /// P-06, C-45: the peer that the packet waited for is no peer any more.
        Evicted = "evicted",

        /// W-03, W-05: what the host sent is no IPv6 packet.
        HostMalformed = "host-malformed",
        /// C-50: the client is not qualified.
        HostNotQualified = "host-not-qualified",
        /// C-50: the source is not the client's address.
        HostSource = "host-source",
        /// Larger than the tunnel's MTU.
        HostTooBig = "host-too-big",
        /// C-50: the destination is a multicast address.
        HostMulticast = "host-multicast",
        /// A bubble: those are for the client to send.
        HostBubble = "host-bubble",
        /// C-51, L-02, L-06: the destination is no address of another host, or names an endpoint or
        /// server that nothing may be sent to.
        HostDestination = "host-destination",
        /// P-09: the peer left too many bubbles unanswered.
        HostBubbleLimit = "host-bubble-limit",
        /// P-07: too many packets wait for the peer.
        HostQueuePeer = "host-queue-peer",
        /// P-07: too many octets wait.
        HostQueueTotal = "host-queue-total",
        /// P-11: the peer did not answer; one for each packet that waited.
        HostNoAnswer = "host-no-answer",

        /// C-11, C-12: an advertisement that is not from the expected address of the server.
        AdvertisementSource = "advertisement-source",
        /// an advertisement that answers no solicitation that is outstanding.
        AdvertisementNonce = "advertisement-nonce",
        /// an advertisement without the proof that its sender has the key.
        AdvertisementAuthentication = "advertisement-authentication",
        /// C-11: an advertisement that neighbor discovery does not allow, or for another address.
        AdvertisementInvalid = "advertisement-invalid",
        /// C-11, C-13: an advertisement whose origin indication is missing or not global unicast.
        AdvertisementOrigin = "advertisement-origin",
        /// C-11, T-11: an advertisement without the one prefix that the client may use.
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
        /// P-09, L-12: not sent directly.
        LimitedDirect = "limited-direct",
        /// L-06, L-12: not sent to a peer's server.
        LimitedIndirect = "limited-indirect",
        /// Accepted from a peer.
        ReceivedDirect = "received-direct",
        /// Accepted from a peer by the own server.
        ReceivedIndirect = "received-indirect",
        /// Accepted from a relay by the own server.
        ReceivedRelay = "received-relay",
        /// Accepted from the link.
        ReceivedDiscovery = "received-discovery",
    }
}

named! {
    /// What happened to connectivity tests (C-55).
    Test {
        /// Sent.
        Sent = "sent",
        /// C-58: not sent, because of the rate.
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
    use std::collections::HashSet;

    #[test]
    fn reasons_are_unique_and_in_kebab_case() {
        let drops = DropReason::ALL.iter().map(|one| one.reason());
        let bubbles = Bubble::ALL.iter().map(|one| one.reason());
        let tests = Test::ALL.iter().map(|one| one.reason());
        for group in [
            drops.collect::<Vec<_>>(),
            bubbles.collect(),
            tests.collect(),
        ] {
            assert_eq!(group.iter().collect::<HashSet<_>>().len(), group.len());
            let mut octets = group.iter().flat_map(|one| one.bytes());
            assert!(octets.all(|one| one == b'-' || one.is_ascii_lowercase()));
        }
    }
}
