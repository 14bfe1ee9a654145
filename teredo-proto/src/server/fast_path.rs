//! The constants with which the XDP program answers as this server would.

use teredo_common::respond::{Advertisement, PREFIXES, ServerConstants, chunk};

use super::{Config, advertisement};

impl Config {
    /// Returns the constants of the XDP program. `one_interface` tells whether packets to both
    /// addresses arrive by the same interface.
    #[must_use]
    pub fn fast_path(&self, one_interface: bool) -> ServerConstants {
        let mut packet = Vec::new();
        advertisement(self).write(&[0; 16], &mut packet);
        let mut prefixes = [self.prefixes.first().copied().unwrap_or_default(); PREFIXES];
        for (to, from) in prefixes.iter_mut().zip(&self.prefixes) {
            *to = *from;
        }
        let has_tunnel = self.clients.iter().any(|client| client.prefix.is_some());
        let flags = [
            (ServerConstants::ONE_INTERFACE, one_interface),
            (
                ServerConstants::REQUIRES_AUTHENTICATION,
                self.require_authentication,
            ),
            (ServerConstants::ALLOWS_SOME, !self.allow.is_empty()),
            (ServerConstants::FORWARDS_FOREIGN, self.forward_foreign),
            (ServerConstants::TUNNEL, has_tunnel),
            (
                ServerConstants::MORE_PREFIXES,
                self.prefixes.len() > PREFIXES,
            ),
        ];
        ServerConstants {
            limits: self.limits,
            chunk: chunk(self.limits.total),
            advertisement: Advertisement::new(&packet),
            prefixes,
            primary: self.primary.octets(),
            secondary: self.secondary.octets(),
            port: self.port.to_be_bytes(),
            scope: ServerConstants::scope_number(self.ipv4_scope),
            icmpv6_payload: u8::try_from(self.icmpv6_payload).unwrap_or(u8::MAX),
            flags: flags
                .iter()
                .filter(|(_, is_set)| *is_set)
                .fold(0, |sum, (flag, _)| sum | flag),
        }
    }
}
