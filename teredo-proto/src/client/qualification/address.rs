//! The client's address, built from the server's advertisement (C-15, W-12, T-11).

use std::net::{Ipv4Addr, Ipv6Addr};

use rand::{RngExt as _, rngs::StdRng};
use serde::{Deserialize, Serialize};
use teredo_common::address::{CONE_FLAG, Endpoint, RANDOM_FLAGS, TeredoAddress};

use super::{
    super::{Config, Nat},
    solicitation::Advertised,
};

/// The random parts of the client's addresses, kept while they may be.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Addresses {
    /// The flags of the last Teredo address, with its server and endpoint (W-12).
    flags: Option<(Ipv4Addr, Endpoint, u16)>,
    /// The interface identifier in the tunnel service (T-11).
    identifier: Option<[u8; 8]>,
}

impl Addresses {
    /// Returns the address of a client of the server with this primary address.
    pub fn build(
        &mut self,
        config: &Config,
        random: &mut StdRng,
        server: Ipv4Addr,
        nat: Nat,
        advertised: &Advertised,
    ) -> Ipv6Addr {
        if let Some(prefix) = advertised.tunnel {
            let identifier = self.identifier.get_or_insert_with(|| random.random());
            let mut octets = [0; 16];
            octets[..8].copy_from_slice(&prefix);
            octets[8..].copy_from_slice(identifier);
            return octets.into();
        }
        let mapped = advertised.mapped;
        let flags = match (config.draft_flags, nat) {
            (true, Nat::Cone) => CONE_FLAG,
            (true, _) => 0,
            (false, _) => self.random_flags(random, server, mapped),
        };
        let fields = TeredoAddress {
            prefix: config.prefix,
            server,
            flags,
            mapped,
        };
        fields.encode()
    }

    fn random_flags(&mut self, random: &mut StdRng, server: Ipv4Addr, mapped: Endpoint) -> u16 {
        let (.., flags) = self
            .flags
            .filter(|&(of, at, _)| (of, at) == (server, mapped))
            .unwrap_or_else(|| (server, mapped, random.random::<u16>() & RANDOM_FLAGS));
        self.flags = Some((server, mapped, flags));
        flags
    }
}
