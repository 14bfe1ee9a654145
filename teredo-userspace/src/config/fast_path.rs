//! The fast path that the roles ask for. One program serves all roles.

use super::Config;
use crate::{datapath::xdp::AttachPolicy, metrics::Role};

/// The combined request of all roles that have a fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastPathRequest<'a> {
    /// The attach policy; never [`AttachPolicy::Off`].
    pub mode: AttachPolicy,
    /// Whether maps and links are pinned.
    pub pin: bool,
    /// The relay's interfaces, if it has a fast path; empty: those of the default routes.
    pub relay: Option<&'a [String]>,
    /// The server's interfaces, if it has a fast path; empty: those with the server's addresses.
    pub server: Option<&'a [String]>,
}

impl FastPathRequest<'_> {
    /// Returns the role that answers for the whole program.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.relay {
            Some(_) => Role::Relay,
            None => Role::Server,
        }
    }

    /// Returns the keys of [`Self::mode`], for messages.
    #[must_use]
    pub fn mode_keys(&self) -> &'static str {
        match (self.relay, self.server) {
            (Some(_), Some(_)) => "relay.xdp.mode and server.xdp.mode",
            (Some(_), None) => "relay.xdp.mode",
            _ => "server.xdp.mode",
        }
    }

    /// Returns the keys of [`Self::pin`], for messages.
    #[must_use]
    pub fn pin_keys(&self) -> &'static str {
        match (self.relay, self.server) {
            (Some(_), Some(_)) => "relay.xdp.pin and server.xdp.pin",
            (Some(_), None) => "relay.xdp.pin",
            _ => "server.xdp.pin",
        }
    }

    /// Returns the keys of the interfaces, for messages.
    #[must_use]
    pub fn interfaces_keys(&self) -> &'static str {
        match (self.relay, self.server) {
            (Some(_), Some(_)) => "relay.xdp.interfaces and server.xdp.interfaces",
            (Some(_), None) => "relay.xdp.interfaces",
            _ => "server.xdp.interfaces",
        }
    }

    /// Iterates over the interfaces that the roles name.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        let lists = [self.relay, self.server].into_iter().flatten();
        lists.flatten().map(String::as_str)
    }
}

impl Config {
    /// Returns the fast path that the roles ask for; `None` if no role has one.
    ///
    /// In an accepted file all roles with a fast path agree on mode and pins.
    #[must_use]
    pub fn fast_path(&self) -> Option<FastPathRequest<'_>> {
        let relay = self.relay.as_ref().map(|relay| &relay.xdp);
        let relay = relay.filter(|xdp| xdp.mode != AttachPolicy::Off);
        let server = self.server.as_ref().map(|server| &server.xdp);
        let server = server.filter(|xdp| xdp.mode != AttachPolicy::Off);
        let (mode, pin) = relay
            .map(|xdp| (xdp.mode, xdp.pin))
            .or_else(|| server.map(|xdp| (xdp.mode, xdp.pin)))?;
        Some(FastPathRequest {
            mode,
            pin,
            relay: relay.map(|xdp| &*xdp.interfaces),
            server: server.map(|xdp| &*xdp.interfaces),
        })
    }
}
