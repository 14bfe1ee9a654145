//! The XDP program's decisions about a frame. Each has a counter, so that no frame is uncounted.

/// The fate of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The frame leaves, translated or as an answer, through any interface.
    Forward,
    /// The kernel gets the frame unchanged.
    Pass,
    /// The frame is dropped.
    Drop,
}

/// The part of the program that decided about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// IPv4 to IPv6: client to native host.
    Decap,
    /// IPv6 to IPv4: native host to client.
    Encap,
    /// The server answers by itself: solicitations and bubbles.
    Respond,
}

macro_rules! verdicts {
    ($($(#[doc = $doc:literal])+ $name:ident = $direction:expr, $action:ident, $reason:literal;)+) => {
        /// The outcome for one frame. The number indexes [`crate::maps::COUNTERS`].
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Verdict {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Verdict {
            /// Every verdict, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Returns the fate of the frame.
            #[inline(always)]
            pub const fn action(self) -> Action {
                match self { $(Self::$name => Action::$action,)+ }
            }

            /// Returns the part that decided; `None` for frames that no part looks at.
            pub const fn direction(self) -> Option<Direction> {
                match self { $(Self::$name => $direction,)+ }
            }

            /// Returns the name in statistics.
            pub const fn reason(self) -> &'static str {
                match self { $(Self::$name => $reason,)+ }
            }
        }
    };
}

impl Verdict {
    /// Whether the daemon may get the frame: the program passes it to the kernel, and looked at it
    /// for more than its addresses. Fragments are, although the first of them tells the port.
    #[inline(always)]
    pub const fn is_for_daemon(self) -> bool {
        matches!(self.action(), Action::Pass)
            && !matches!(
                self,
                Self::NotIp
                    | Self::Tagged
                    | Self::OtherStation
                    | Self::NoRelay
                    | Self::EncapNotOurs
            )
    }
}

const NEITHER: Option<Direction> = None;
const DECAP: Option<Direction> = Some(Direction::Decap);
const ENCAP: Option<Direction> = Some(Direction::Encap);
const RESPOND: Option<Direction> = Some(Direction::Respond);

verdicts! {
    /// Neither IPv4 nor IPv6 directly after the Ethernet header, or too short for one.
    NotIp = NEITHER, Pass, "not-ip";
    /// The frame has VLAN tags, and not those of a VLAN interface that is served.
    Tagged = NEITHER, Pass, "tagged";
    /// The frame is addressed to another station.
    OtherStation = NEITHER, Pass, "other-station";
    /// IPv6, and there is no relay.
    NoRelay = NEITHER, Pass, "no-relay";

    /// D1: decapsulated and sent.
    DecapForwarded = DECAP, Forward, "decap-forwarded";
    /// D1-02: version is not 4, or the header has options.
    DecapIpv4Options = DECAP, Pass, "decap-ipv4-options";
    /// D1-02: time to live is zero.
    DecapTimeToLive = DECAP, Pass, "decap-time-to-live";
    /// D1-03: a fragment, or the reserved bit is set.
    DecapFragment = DECAP, Pass, "decap-fragment";
    /// D1-04: not UDP to the relay's address and service port, or from port 0.
    DecapNotOurs = DECAP, Pass, "decap-not-ours";
    /// D1-02: the IPv4 header checksum is wrong.
    DecapHeaderChecksum = DECAP, Drop, "decap-header-checksum";
    /// D1-05: the lengths do not fit each other, or there is no room for an IPv6 header.
    DecapLength = DECAP, Pass, "decap-length";
    /// D1-06: the outer header carries congestion notification.
    DecapCongestion = DECAP, Pass, "decap-congestion";
    /// D1-07: the outer source is the relay itself.
    DecapOwnSource = DECAP, Drop, "decap-own-source";
    /// D1-08: authentication header, origin indication or something else that is not IPv6.
    DecapNotIpv6 = DECAP, Pass, "decap-not-ipv6";
    /// D1-09: trailers follow the IPv6 packet, or it is cut short.
    DecapTrailers = DECAP, Pass, "decap-trailers";
    /// D1-10: a bubble, or no payload.
    DecapBubble = DECAP, Pass, "decap-bubble";
    /// D1-10: an echo reply as long as an answer to the relay's question.
    DecapAnswer = DECAP, Pass, "decap-answer";
    /// D1-11: extension headers that only the kernel or the daemon can judge.
    DecapExtensionHeader = DECAP, Pass, "decap-extension-header";
    /// D1-12: the inner source is not a Teredo address of this service.
    DecapSource = DECAP, Pass, "decap-source";
    /// D1-13: no entry for the inner source.
    DecapUnknownPeer = DECAP, Pass, "decap-unknown-peer";
    /// D1-13: the entry is not trusted or not fresh.
    DecapStalePeer = DECAP, Pass, "decap-stale-peer";
    /// D1-14: the outer source is not the peer's mapping.
    DecapMapping = DECAP, Pass, "decap-mapping";
    /// D1-15: the inner destination is not served, not global unicast, Teredo, or embeds an own
    /// IPv4 address.
    DecapDestination = DECAP, Pass, "decap-destination";
    /// D1-16: the inner hop limit is 1 or 0.
    DecapHopLimit = DECAP, Pass, "decap-hop-limit";
    /// D1-17: the outer checksum is not zero, not proved by the headers, and not right over all octets.
    DecapChecksum = DECAP, Pass, "decap-checksum";
    /// D1-18: the packet is larger than the MTU of the way out.
    DecapTooBig = DECAP, Pass, "decap-too-big";
    /// D1-18: no route, no neighbour, a local destination, or an interface that is not ours.
    DecapNextHop = DECAP, Pass, "decap-next-hop";
    /// The kernel refused to cut the frame to its new size after a first cut. Never seen; the frame
    /// is no longer what arrived.
    DecapAborted = DECAP, Drop, "decap-aborted";
    /// Nothing speaks for the packet, and such packets have used up their budget (L-20).
    DecapOtherLimit = DECAP, Drop, "decap-other-limit";
    /// From the endpoint in its address, and such packets have used up their budget (L-20).
    DecapClaimLimit = DECAP, Drop, "decap-claim-limit";
    /// The answer to a bubble, and answers have used up their budget (L-20).
    DecapCookieLimit = DECAP, Drop, "decap-cookie-limit";
    /// From a peer in the map, for the daemon, and such packets have used up their budget (L-20).
    DecapPeerLimit = DECAP, Drop, "decap-peer-limit";
    /// A fragment, or with IPv4 options, and such packets have used up their budget (L-20).
    DecapFragmentLimit = DECAP, Drop, "decap-fragment-limit";

    /// D2: encapsulated and sent.
    EncapForwarded = ENCAP, Forward, "encap-forwarded";
    /// D2-01: version is not 6, or the packet is longer than the frame.
    EncapLength = ENCAP, Pass, "encap-length";
    /// D2-02: the destination is not a Teredo address of this service.
    EncapNotOurs = ENCAP, Pass, "encap-not-ours";
    /// D2-03: the source is not served, not global unicast, Teredo, or embeds an own IPv4 address.
    EncapSource = ENCAP, Pass, "encap-source";
    /// D2-04: a bubble, or no payload.
    EncapBubble = ENCAP, Pass, "encap-bubble";
    /// D2-04: extension headers that only the kernel or the daemon can judge.
    EncapExtensionHeader = ENCAP, Pass, "encap-extension-header";
    /// D2-05: no entry for the destination.
    EncapUnknownPeer = ENCAP, Pass, "encap-unknown-peer";
    /// D2-05: the entry is not trusted or not fresh.
    EncapStalePeer = ENCAP, Pass, "encap-stale-peer";
    /// D2-06: the hop limit is 1 or 0.
    EncapHopLimit = ENCAP, Pass, "encap-hop-limit";
    /// D2-07: larger than the tunnel's MTU, or than the way out allows.
    EncapTooBig = ENCAP, Pass, "encap-too-big";
    /// D2-11: the inner checksum is left to a network card. D2-09: no checksum shortcut, and a zero
    /// checksum is not allowed.
    EncapChecksum = ENCAP, Pass, "encap-checksum";
    /// D2-10: no route, no neighbour, or an interface that is not ours.
    EncapNextHop = ENCAP, Pass, "encap-next-hop";
    /// D2-10: no room in front of the frame.
    EncapHeadroom = ENCAP, Pass, "encap-headroom";
    /// See [`Verdict::DecapAborted`].
    EncapAborted = ENCAP, Drop, "encap-aborted";
    /// To a peer that is not in the map, and such packets have used up their budget (L-20).
    EncapNewPeerLimit = ENCAP, Drop, "encap-new-peer-limit";
    /// To a peer in the map, for the daemon, and such packets have used up their budget (L-20).
    EncapPeerLimit = ENCAP, Drop, "encap-peer-limit";

    /// A solicitation was answered with an advertisement.
    RespondAdvertised = RESPOND, Forward, "respond-advertised";
    /// A bubble was forwarded to its client.
    RespondForwarded = RESPOND, Forward, "respond-forwarded";
    /// Not UDP to one of the server's addresses and its port, or with options, or a fragment; and
    /// there is no relay that could be its destination.
    RespondNotOurs = RESPOND, Pass, "respond-not-ours";
    /// Time to live or the source port is zero.
    RespondHeader = RESPOND, Pass, "respond-header";
    /// The IPv4 header checksum is wrong.
    RespondHeaderChecksum = RESPOND, Drop, "respond-header-checksum";
    /// The lengths of IPv4, UDP and the frame do not fit each other.
    RespondLength = RESPOND, Pass, "respond-length";
    /// The outer source is an address of this host (L-01).
    RespondOwnSource = RESPOND, Drop, "respond-own-source";
    /// The outer source is not global unicast (S-06, S-20).
    RespondSourceScope = RESPOND, Drop, "respond-source-scope";
    /// The server does not serve the outer source (S-24).
    RespondNotAllowed = RESPOND, Drop, "respond-not-allowed";
    /// Not an IPv6 packet of the right length, with an authentication header in front or not (S-04).
    RespondMalformed = RESPOND, Drop, "respond-malformed";
    /// Authentication with a client identifier or value, or the server requires it.
    RespondAuthentication = RESPOND, Pass, "respond-authentication";
    /// Origin indication, or an authentication header in front of anything but ICMPv6 (L-03).
    RespondUnexpectedHeader = RESPOND, Drop, "respond-unexpected-header";
    /// Neither ICMPv6 nor a bubble (S-05).
    RespondNotService = RESPOND, Drop, "respond-not-service";
    /// ICMPv6 that is not a solicitation of one of the usual forms.
    RespondIcmpv6 = RESPOND, Pass, "respond-icmpv6";
    /// A solicitation with hop limit, code, options or checksum that are not valid (S-21).
    RespondInvalidSolicitation = RESPOND, Drop, "respond-invalid-solicitation";
    /// A solicitation, while the server is draining; a bubble, when it has drained (S-27).
    RespondDraining = RESPOND, Drop, "respond-draining";
    /// The answer has to leave from the other address, which is on another interface (S-18).
    RespondCone = RESPOND, Pass, "respond-cone";
    /// The outer UDP checksum is wrong, or not finished by a sender on this host.
    RespondChecksum = RESPOND, Pass, "respond-checksum";
    /// Anything but a solicitation, to the secondary address (S-22).
    RespondSecondary = RESPOND, Drop, "respond-secondary";
    /// A bubble with trailers.
    RespondTrailers = RESPOND, Pass, "respond-trailers";
    /// The inner source is the inner destination (L-04).
    RespondSameAddress = RESPOND, Drop, "respond-same-address";
    /// A bubble whose inner source does not match its outer source (S-08, S-10).
    RespondSourceMismatch = RESPOND, Drop, "respond-source-mismatch";
    /// A bubble from an inner source that is not unicast (S-10).
    RespondSource = RESPOND, Drop, "respond-source";
    /// A bubble to an address that is not Teredo (S-12, S-13).
    RespondDestination = RESPOND, Drop, "respond-destination";
    /// A bubble for a client of another server (S-09, DEC-8).
    RespondForeign = RESPOND, Drop, "respond-foreign";
    /// A bubble for a client whose endpoint is not global unicast, or this host's (S-14).
    RespondMapping = RESPOND, Drop, "respond-mapping";
    /// A bubble that only the daemon can judge: it has a tunnel service, forwards for clients of
    /// other servers, has many prefixes, or its relay shares the port.
    RespondDaemon = RESPOND, Pass, "respond-daemon";
    /// The rate limit of the source address is exhausted (S-23).
    RespondSourceLimit = RESPOND, Drop, "respond-source-limit";
    /// The rate limit of the source's network is exhausted (S-23).
    RespondNetworkLimit = RESPOND, Drop, "respond-network-limit";
    /// The global rate limit is exhausted (S-23).
    RespondTotalLimit = RESPOND, Drop, "respond-total-limit";
    /// For the daemon's server, and such packets have used up their budget (L-20).
    RespondDaemonLimit = RESPOND, Drop, "respond-daemon-limit";
    /// No route, no neighbour, too small an MTU, or an interface that is not ours.
    RespondNextHop = RESPOND, Pass, "respond-next-hop";
    /// No room in front of the frame.
    RespondHeadroom = RESPOND, Pass, "respond-headroom";
    /// See [`Verdict::DecapAborted`].
    RespondAborted = RESPOND, Drop, "respond-aborted";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn numbers_are_indices_and_names_are_unique() {
        for (index, &verdict) in Verdict::ALL.iter().enumerate() {
            assert_eq!(verdict as usize, index);
        }
        let names: HashSet<_> = Verdict::ALL
            .iter()
            .map(|verdict| verdict.reason())
            .collect();
        assert_eq!(names.len(), Verdict::ALL.len());
    }

    #[test]
    fn names_say_the_direction() {
        for &verdict in Verdict::ALL {
            let expected = match verdict.direction() {
                Some(Direction::Decap) => verdict.reason().starts_with("decap-"),
                Some(Direction::Encap) => verdict.reason().starts_with("encap-"),
                Some(Direction::Respond) => verdict.reason().starts_with("respond-"),
                None => true,
            };
            assert!(expected, "{verdict:?}");
        }
    }
}
