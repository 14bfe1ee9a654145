//! The findings of a measurement, in the terms of RFC 4787.

use std::{net::Ipv6Addr, time::Duration};

use teredo_common::{address::Endpoint, scope::Ipv4Scope};

use crate::{
    client::{DropReason, ServerEndpoints},
    nat::{Behaviour, Filtering, Kind, Mapping, Ports},
};

/// Whether one address of the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It answers, with this round-trip time.
    Answers(Duration),
    /// It does not answer.
    Silent,
    /// Its answers are ones that a client drops, for this reason.
    Rejected(DropReason),
}

impl Reach {
    /// Returns `true` if there is an answer that a client accepts.
    #[must_use]
    pub const fn is_answer(self) -> bool {
        matches!(self, Self::Answers(_))
    }
}

/// The findings of a [`NatProbe`]. `None` stands for something that could not be found out.
///
/// [`NatProbe`]: super::NatProbe
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Findings {
    /// Server of the measurement.
    pub server: ServerEndpoints,
    /// Whether its primary address answers.
    pub primary: Reach,
    /// Whether its secondary address answers.
    pub secondary: Reach,
    /// Endpoint of the service socket on this host.
    pub local: Endpoint,
    /// Endpoint of the service socket as the server's primary address sees it.
    pub mapped: Option<Endpoint>,
    /// Teredo address that a client would have, but for its random flags.
    pub address: Option<Ipv6Addr>,
    /// MTU that the server advertises, in octets.
    pub mtu: Option<u16>,
    /// Mapping behaviour of the NAT.
    pub mapping: Option<Mapping>,
    /// Filtering behaviour of the NAT, or of a firewall.
    pub filtering: Option<Filtering>,
    /// Port assignment of the NAT.
    pub ports: Option<Ports>,
    /// Whether hosts behind the NAT reach each other by their mapped endpoints. `None` without a
    /// NAT, and where the test proves nothing.
    pub hairpinning: Option<bool>,
    /// Whether the server forwards bubbles, without which nobody finds a client.
    pub bubbles: Option<bool>,
}

impl Findings {
    /// Returns whether there is a NAT: the server sees another endpoint than this host.
    #[must_use]
    pub fn is_behind_nat(&self) -> Option<bool> {
        Some(self.mapped? != self.local)
    }

    /// Returns whether the mapped address is one that other hosts can send to (C-13).
    #[must_use]
    pub fn is_global(&self) -> Option<bool> {
        Some(Ipv4Scope::Strict.accepts(self.mapped?.address))
    }

    /// Returns the behaviour of the NAT.
    #[must_use]
    pub const fn behaviour(&self) -> Behaviour {
        Behaviour {
            mapping: self.mapping,
            filtering: self.filtering,
            ports: self.ports,
        }
    }

    /// Returns the kind of the NAT in the terms of game consoles.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        self.behaviour().kind()
    }

    /// Returns `true` if a client would work.
    #[must_use]
    pub fn works(&self) -> bool {
        self.primary.is_answer()
            && self.secondary.is_answer()
            && self.is_global() == Some(true)
            && self.bubbles == Some(true)
    }
}
