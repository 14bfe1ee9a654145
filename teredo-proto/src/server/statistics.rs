//! What the server counts: every packet that comes is served or has a reason.

use crate::shared::{
    counts::{Counts, named},
    statistics::Traffic,
};

named! {
    /// What the server did for a packet.
    Service {
        /// S-17: a solicitation was answered, without or with the nonce alone.
        Advertised = "advertised",
        /// a solicitation was answered to a client that has a key.
        AdvertisedSecure = "advertised-secure",
        /// S-14: a bubble was forwarded to a client.
        BubbleForwarded = "bubble-forwarded",
        /// S-14: a bubble of the relay in the same process was forwarded to a client.
        RelayBubbleForwarded = "relay-bubble-forwarded",
        /// S-11: an echo request to the server was answered.
        EchoAnswered = "echo-answered",
        /// S-14: an echo request or reply was forwarded to a client.
        EchoForwarded = "echo-forwarded",
        /// S-13: a connectivity test left for native IPv6.
        EchoNative = "echo-native",
        /// T-04: a packet of a client of the tunnel service was accepted.
        TunnelReceived = "tunnel-received",
        /// T-04: a packet was sent to a client of the tunnel service.
        TunnelSent = "tunnel-sent",
    }
}

named! {
    /// Why the server dropped a packet.
    DropReason {
        /// S-04: no Teredo encapsulation of an IPv6 packet.
        Malformed = "malformed",
        /// L-01: the outer source is this host.
        OwnSource = "own-source",
        /// L-03: an origin indication, or authentication of anything but a solicitation.
        Element = "element",
        /// L-04: inner source and destination are the same.
        SameAddresses = "same-addresses",
        /// S-24: the outer source is not one that is served.
        AccessList = "access-list",
        /// S-05: neither bubble nor ICMPv6.
        Protocol = "protocol",
        /// DEC-7: ICMPv6, but neither solicitation nor echo.
        Icmpv6Type = "icmpv6-type",
        /// DEC-20: ICMPv6 of more octets than are let through.
        Icmpv6Size = "icmpv6-size",
        /// S-06: the outer source is not a global unicast IPv4 address, or its port is 0.
        SourceScope = "source-scope",
        /// S-22: something else than a solicitation came to the secondary address.
        SecondaryAddress = "secondary-address",
        /// S-07: a solicitation that is not from a link-local address to all routers.
        SolicitationAddress = "solicitation-address",
        /// S-21: a solicitation that is not valid.
        SolicitationInvalid = "solicitation-invalid",
        /// S-07: authentication is required, and there is none.
        AuthenticationRequired = "authentication-required",
        /// authentication is required, and the client is unknown.
        UnknownClient = "unknown-client",
        /// the authentication value is wrong.
        AuthenticationFailed = "authentication-failed",
        /// T-05: an old solicitation, repeated from another place.
        Replayed = "replayed",
        /// S-08: the outer source is not the endpoint in the inner source.
        SourceMapping = "source-mapping",
        /// S-10: neither source nor destination is a client of this server.
        NoClient = "no-client",
        /// S-09: the inner source cannot be the source of a packet from outside.
        Source = "source",
        /// L-07: the inner source leads back to this host through 6to4 or ISATAP.
        SourceLoop = "source-loop",
        /// S-11: something else than an echo request for the server itself.
        Local = "local",
        /// S-12: the inner destination is not global unicast.
        DestinationScope = "destination-scope",
        /// S-14, L-02: the endpoint in the inner destination is not global unicast, is this host,
        /// or has port 0.
        DestinationMapping = "destination-mapping",
        /// DEC-8: the inner destination is a client of another server.
        DestinationForeign = "destination-foreign",
        /// S-16: trailers that are too long.
        Trailers = "trailers",
        /// S-13: nothing but connectivity tests leaves for native IPv6.
        NotEcho = "not-echo",
        /// L-07: the inner destination leads back to this host through 6to4 or ISATAP.
        DestinationLoop = "destination-loop",
        /// S-13: the hop limit ends here.
        HopLimit = "hop-limit",
        /// S-25: this host may not send packets of Teredo clients into native IPv6.
        NoRoute = "no-route",
        /// S-27: the server is being stopped.
        Draining = "draining",
        /// S-23: too many packets because of one source address.
        SourceRate = "source-rate",
        /// S-23: too many packets because of one source network.
        NetworkRate = "network-rate",
        /// S-23: too many packets.
        TotalRate = "total-rate",

        /// T-04: the inner source is a client of the tunnel service that is not at the outer source.
        TunnelSource = "tunnel-source",
        /// T-04: not an IPv6 packet that may be sent to a client of the tunnel service.
        TunnelPacket = "tunnel-packet",
        /// T-04: the destination is not a client of the tunnel service.
        TunnelDestination = "tunnel-destination",
        /// T-04: the packet is larger than the tunnel's MTU.
        TunnelTooBig = "tunnel-too-big",
        /// T-04: the client of the tunnel service has not been heard of for long.
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
    use std::collections::HashSet;

    #[test]
    fn s26_names_are_unique_and_in_kebab_case() {
        let drops = DropReason::ALL.iter().map(|one| one.reason());
        let names: Vec<_> = Service::ALL
            .iter()
            .map(|one| one.reason())
            .chain(drops)
            .collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        let is_kebab = |one: char| one == '-' || one.is_ascii_lowercase() || one.is_ascii_digit();
        assert!(
            names.iter().all(|name| name.chars().all(is_kebab)),
            "{names:?}"
        );
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
