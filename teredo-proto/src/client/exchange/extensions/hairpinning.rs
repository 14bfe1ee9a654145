//! Support for peers behind the same NAT (RFC 6081 section 5.6): bubbles carry the other endpoints
//! at which the client may be reached.

use teredo_common::{
    address::{Endpoint, embedded_mapping},
    scope::Ipv4Scope,
    time::Instant,
};

use super::super::{Exchange, Shared};
use crate::{
    shared::peers::PeerIndex,
    wire::trailer::{AlternateAddresses, write_alternate_addresses},
};

/// Maximum number of alternate addresses that are tried for one peer.
const MAX: usize = 4;

impl Exchange {
    /// Appends the other endpoints of this client: its own first, then that of a port mapping
    /// inside of nested NATs.
    pub(in super::super) fn write_alternates(
        &self,
        shared: &Shared,
        now: Instant,
        index: PeerIndex,
        payload: &mut Vec<u8>,
    ) {
        let extensions = shared.config.extensions;
        let is_usable = self.peers.is_usable(now, index);
        if !extensions.symmetric || !extensions.hairpinning || is_usable {
            return;
        }
        let source = shared.network.source;
        let own = source.map(|source| Endpoint::new(source, shared.config.port));
        let mapped = self.identity.and_then(|identity| identity.port_mapping);
        let endpoints: Vec<Endpoint> = own.into_iter().chain(mapped).collect();
        write_alternate_addresses(&endpoints, payload);
    }

    /// Records the other endpoints of a peer behind the same NAT.
    pub(in super::super) fn record_alternates(
        &mut self,
        shared: &Shared,
        index: PeerIndex,
        list: Option<AlternateAddresses<'_>>,
    ) {
        let endpoints = list.into_iter().flat_map(AlternateAddresses::endpoints);
        let alternates: Vec<Endpoint> = endpoints
            .filter(|&endpoint| self.may_be_alternate(shared, index, endpoint))
            .take(MAX)
            .collect();
        self.peers[index].state.alternates = alternates;
    }

    /// Whether a peer may be reached at an endpoint that is not global: only one that is behind the
    /// same NAT, so that no other sender steers bubbles into private networks.
    pub(in super::super) fn may_be_alternate(
        &self,
        shared: &Shared,
        index: PeerIndex,
        endpoint: Endpoint,
    ) -> bool {
        let extensions = shared.config.extensions;
        let embedded = embedded_mapping(&self.peers[index].address);
        let is_same_nat = |own: Endpoint| own.address == embedded.address && own != endpoint;
        let is_broadcast = shared.network.attached.iter().any(|attached| {
            let host = u32::MAX
                .checked_shr(attached.prefix_length.into())
                .unwrap_or(0);
            host > 1 && attached.address.to_bits() | host == endpoint.ip().to_bits()
        });
        extensions.symmetric
            && extensions.hairpinning
            && self.identity.is_some_and(|own| is_same_nat(own.mapped))
            && endpoint.port() != 0
            && Ipv4Scope::Lab.accepts(endpoint.address)
            && !shared.own_ipv4.contains(endpoint.address)
            && !is_broadcast
    }
}
