//! What the client counts: every packet that comes is taken or has a reason.

use crate::protocol::{
    named::named,
    statistics::{Bubble, Traffic, Unreachable},
};

named! {
    /// Why the client dropped a packet.
    DropReason {
        /// L-01: the outer source is this host.
        OwnSource = "own-source",
        /// L-05: the outer source has port 0 or is no address of a host.
        SourceScope = "source-scope",
        /// W-01, W-03, W-05: no Teredo encapsulation of an IPv6 packet.
        Malformed = "malformed",
        /// L-04: inner source and destination are the same.
        SameAddresses = "same-addresses",
        /// The client is not qualified.
        NotQualified = "not-qualified",
        /// The port is not open, or not for such a packet.
        Port = "port",
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

/// What the client counted since it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Solicitations sent, from whatever port.
    pub solicitations: u64,
    /// Events that nobody took in time.
    pub events_lost: u64,
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
            trusted_peers: 0,
            untrusted_peers: 0,
            queue_packets: 0,
            queue_octets: 0,
            qualified: 0,
            solicitations: 0,
            events_lost: 0,
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
