//! The findings of a measurement, in the terms of RFC 4787.

use std::{net::Ipv6Addr, time::Duration};

use teredo_common::{address::Endpoint, scope::Ipv4Scope};

use crate::client::{DropReason, ServerEndpoints};

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

/// The mapping behaviour of a NAT: the external endpoint that it gives to packets of one internal
/// endpoint (RFC 4787 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// The same for all destinations.
    EndpointIndependent,
    /// Another for each destination address, perhaps for each port of it: a server with one port
    /// cannot tell these apart.
    Dependent,
}

impl Mapping {
    /// Returns the term of RFC 4787.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EndpointIndependent => "endpoint-independent",
            Self::Dependent => "address-dependent or address and port-dependent",
        }
    }
}

/// The filtering behaviour of a NAT: the packets that it lets in to a mapped endpoint (RFC 4787
/// section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtering {
    /// All packets.
    EndpointIndependent,
    /// Packets from addresses that were sent to.
    AddressDependent,
    /// Packets from endpoints that were sent to.
    AddressAndPortDependent,
    /// One of the latter two, which the measurement could not tell apart.
    Dependent,
}

impl Filtering {
    /// Returns the term of RFC 4787.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
            Self::AddressAndPortDependent => "address and port-dependent",
            Self::Dependent => "address-dependent or address and port-dependent",
        }
    }
}

/// The port assignment of a NAT (RFC 4787 section 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// External ports are the internal ones.
    Preserved,
    /// External ports are close to each other while the internal ones are not.
    Sequential,
    /// There is no pattern.
    Other,
}

impl Ports {
    /// How several internal ports, which are not close to each other, are mapped.
    pub(super) fn of(pairs: &[(u16, u16)]) -> Option<Self> {
        /// The widest range of consecutive ports, others may get some in between.
        const CLOSE: u16 = 16;
        let range = |of: fn(&(u16, u16)) -> u16| {
            let ports = || pairs.iter().map(of);
            Some(ports().max()? - ports().min()?)
        };
        let (local, mapped) = (range(|pair| pair.0)?, range(|pair| pair.1)?);
        Some(if pairs.iter().all(|(local, mapped)| local == mapped) {
            Self::Preserved
        } else if pairs.len() > 1 && mapped <= CLOSE && local > 2 * CLOSE {
            Self::Sequential
        } else {
            Self::Other
        })
    }

    /// Returns a word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Preserved => "preserved",
            Self::Sequential => "sequential",
            Self::Other => "no pattern seen",
        }
    }
}

/// The kind of a NAT in the terms of game consoles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any host reaches this one.
    Open,
    /// Hosts that were sent to reach this one.
    Moderate,
    /// Hosts that were sent to reach this one, and others cannot be told an endpoint to send to.
    Strict,
}

impl Kind {
    /// Returns the consoles' word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Moderate => "moderate",
            Self::Strict => "strict",
        }
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

    /// Returns the kind of the NAT in the terms of game consoles.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        let is_open = self.filtering? == Filtering::EndpointIndependent;
        Some(match (self.mapping?, is_open) {
            (Mapping::EndpointIndependent, true) => Kind::Open,
            (Mapping::EndpointIndependent, false) | (Mapping::Dependent, true) => Kind::Moderate,
            (Mapping::Dependent, false) => Kind::Strict,
        })
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
