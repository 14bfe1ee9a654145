//! Symmetric NATs with a port mapping protocol (RFC 6081 section 5.3.4): both sides are reached at
//! the endpoints in their addresses, not at the sources of their packets.

use teredo_common::address::{Endpoint, embedded_mapping};

use super::super::{Exchange, Shared};
use crate::{client::Nat, shared::peers::PeerIndex};

impl Exchange {
    /// Returns the destination of packets to a peer whose packets come from `mapped`.
    pub(in super::super) fn destination(
        &self,
        shared: &Shared,
        index: PeerIndex,
        mapped: Endpoint,
    ) -> Endpoint {
        let address = &self.peers[index].address;
        let embedded = embedded_mapping(address);
        let is_mapped = self
            .identity
            .is_some_and(|own| own.nat == Nat::Symmetric && own.upnp);
        // One that is near is no symmetric peer.
        let is_symmetric = shared.config.prefix.contains(address)
            && mapped != embedded
            && self.may_reach(shared, mapped);
        if shared.config.extensions.symmetric && is_mapped && is_symmetric {
            embedded
        } else {
            mapped
        }
    }
}
