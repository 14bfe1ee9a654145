//! What the server counts: every packet that comes is served or has a reason.

use crate::shared::{
    counts::{Counts, named},
    statistics::Traffic,
};

named! {
    /// What the server did for a packet.
    Service {
        /// A solicitation was answered, without or with the nonce alone (S-17).
        Advertised = "advertised",
        /// A solicitation was answered to a client that has a key.
        AdvertisedSecure = "advertised-secure",
        /// A bubble was forwarded to a client (S-14).
        BubbleForwarded = "bubble-forwarded",
        /// A bubble of the relay in the same process was forwarded to a client (S-14).
        RelayBubbleForwarded = "relay-bubble-forwarded",
        /// An echo request to the server was answered (S-11).
        EchoAnswered = "echo-answered",
        /// An echo request or reply was forwarded to a client (S-14).
        EchoForwarded = "echo-forwarded",
        /// A connectivity test left for native IPv6 (S-13).
        EchoNative = "echo-native",
        /// A packet of a client of the tunnel service was accepted (T-04).
        TunnelReceived = "tunnel-received",
        /// A packet was sent to a client of the tunnel service (T-04).
        TunnelSent = "tunnel-sent",
    }
}

named! {
    /// Why the server dropped a packet.
    DropReason {
        /// No Teredo encapsulation of an IPv6 packet (S-04).
        Malformed = "malformed",
        /// The outer source is this host (L-01).
        OwnSource = "own-source",
        /// An origin indication, or authentication of anything but a solicitation (L-03).
        Element = "element",
        /// Inner source and destination are the same (L-04).
        SameAddresses = "same-addresses",
        /// The outer source is not one that is served (S-24).
        AccessList = "access-list",
        /// Neither bubble nor ICMPv6 (S-05).
        Protocol = "protocol",
        /// ICMPv6, but neither solicitation nor echo (DEC-7).
        Icmpv6Type = "icmpv6-type",
        /// ICMPv6 of more octets than are let through (DEC-20).
        Icmpv6Size = "icmpv6-size",
        /// The outer source is not a global unicast IPv4 address, or its port is 0 (S-06).
        SourceScope = "source-scope",
        /// Something else than a solicitation came to the secondary address (S-22).
        SecondaryAddress = "secondary-address",
        /// A solicitation that is not from a link-local address to all routers (S-07).
        SolicitationAddress = "solicitation-address",
        /// A solicitation that is not valid (S-21).
        SolicitationInvalid = "solicitation-invalid",
        /// Authentication is required, and there is none (S-07).
        AuthenticationRequired = "authentication-required",
        /// Authentication is required, and the client is unknown.
        UnknownClient = "unknown-client",
        /// The authentication value is wrong.
        AuthenticationFailed = "authentication-failed",
        /// An old solicitation, repeated from another place (T-05).
        Replayed = "replayed",
        /// The outer source is not the endpoint in the inner source (S-08).
        SourceMapping = "source-mapping",
        /// Neither source nor destination is a client of this server (S-10).
        NoClient = "no-client",
        /// The inner source cannot be the source of a packet from outside (S-09).
        Source = "source",
        /// The inner source leads back to this host through 6to4 or ISATAP (L-07).
        SourceLoop = "source-loop",
        /// Something else than an echo request for the server itself (S-11).
        Local = "local",
        /// The inner destination is not global unicast, or an address of a Teredo service that is not
        /// served (S-12, S-13).
        DestinationScope = "destination-scope",
        /// The endpoint in the inner destination is not global unicast, is this host, or has port 0
        /// (S-14, L-02).
        DestinationMapping = "destination-mapping",
        /// The inner destination is a client of another server (DEC-8).
        DestinationForeign = "destination-foreign",
        /// Trailers that are too long (S-16).
        Trailers = "trailers",
        /// Nothing but connectivity tests leaves for native IPv6 (S-13).
        NotEcho = "not-echo",
        /// The inner destination leads back to this host through 6to4 or ISATAP (L-07).
        DestinationLoop = "destination-loop",
        /// The hop limit ends here (S-13).
        HopLimit = "hop-limit",
        /// This host may not send packets of Teredo clients into native IPv6 (S-25).
        NoRoute = "no-route",
        /// The server is being stopped (S-27).
        Draining = "draining",
        /// Too many packets because of one source address (S-23).
        SourceRate = "source-rate",
        /// Too many packets because of one source network (S-23).
        NetworkRate = "network-rate",
        /// Too many packets (S-23).
        TotalRate = "total-rate",

        /// The inner source is a client of the tunnel service that is not at the outer source
        /// (T-04).
        TunnelSource = "tunnel-source",
        /// Not an IPv6 packet that may be sent to a client of the tunnel service (T-04).
        TunnelPacket = "tunnel-packet",
        /// The destination is not a client of the tunnel service (T-04).
        TunnelDestination = "tunnel-destination",
        /// The packet is larger than the tunnel's MTU (T-04).
        TunnelTooBig = "tunnel-too-big",
        /// The client of the tunnel service has not been heard of for long (T-04).
        TunnelUnreachable = "tunnel-unreachable",
    }
}

/// What the server counted since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Destination Unreachable messages sent about clients of the tunnel service.
    pub unreachable_sent: u64,
    /// Events that nobody took in time.
    pub events_lost: u64,
    /// Packets that the server did something for, and the octets sent because of them: as UDP
    /// payload or, for what leaves as IPv6, as IPv6 packet.
    pub served: Counts<Service, Traffic>,
    /// Packets dropped, by reason.
    pub dropped: Counts<DropReason>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::counts::assert_names;

    #[test]
    fn s26_names_are_unique_and_in_kebab_case() {
        let drops = DropReason::ALL.iter().map(|one| one.reason());
        let services = Service::ALL.iter().map(|one| one.reason());
        assert_names(&services.chain(drops).collect::<Vec<_>>());
    }

    #[test]
    fn s26_every_reason_has_its_own_count() {
        let mut statistics = Statistics::default();
        for (index, &reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason as usize, index);
            (0..=index).for_each(|_| statistics.dropped[reason] += 1);
        }
        for (index, &service) in Service::ALL.iter().enumerate() {
            assert_eq!(service as usize, index);
            (0..=index).for_each(|_| statistics.served[service].add(10));
        }
        for (index, &reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(statistics.dropped[reason], index as u64 + 1);
        }
        for (index, &service) in Service::ALL.iter().enumerate() {
            let count = index as u64 + 1;
            assert_eq!(statistics.served[service].packets, count);
            assert_eq!(statistics.served[service].octets, 10 * count);
        }
    }
}
