//! What was found out, in the words of RFC 4787.

use std::{net::Ipv6Addr, time::Duration};

use teredo_common::{address::Endpoint, scope::Ipv4Scope};

use crate::client::{DropReason, Server};

/// What became of a question to one address of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It answers, after so long a time.
    Answers(Duration),
    /// It does not answer.
    Silent,
    /// It answers what a client does not accept.
    Rejected(DropReason),
}

impl Reach {
    /// Whether there is an answer that a client accepts.
    #[must_use]
    pub const fn is_answer(self) -> bool {
        matches!(self, Self::Answers(_))
    }
}

/// Which external endpoint a NAT gives to packets of one internal endpoint (RFC 4787 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// The same for all destinations.
    EndpointIndependent,
    /// Another for each destination address, perhaps for each port of it: a server with one port
    /// cannot tell these apart.
    Dependent,
}

impl Mapping {
    /// The words of RFC 4787.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EndpointIndependent => "endpoint-independent",
            Self::Dependent => "address-dependent or address and port-dependent",
        }
    }
}

/// Which packets a NAT lets in to a mapped endpoint (RFC 4787 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtering {
    /// All.
    EndpointIndependent,
    /// Those from addresses that were sent to.
    AddressDependent,
    /// Those from endpoints that were sent to.
    AddressAndPortDependent,
    /// Not all; which of the other two it is could not be told.
    Dependent,
}

impl Filtering {
    /// The words of RFC 4787.
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

/// How a NAT chooses external ports (RFC 4787 section 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// They are the internal ones.
    Preserved,
    /// They are close to each other while the internal ones are not.
    Sequential,
    /// No rule was seen.
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

    /// A word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Preserved => "preserved",
            Self::Sequential => "sequential",
            Self::Other => "no pattern seen",
        }
    }
}

/// What game consoles call the kind of a NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Everybody reaches this host.
    Open,
    /// Who was sent to does.
    Moderate,
    /// Who was sent to does, and nobody can be told where to send to.
    Strict,
}

impl Kind {
    /// The consoles' word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Moderate => "moderate",
            Self::Strict => "strict",
        }
    }
}

/// What was found out. `None`: it could not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Findings {
    /// The server.
    pub server: Server,
    /// Its primary address.
    pub primary: Reach,
    /// Its secondary address.
    pub secondary: Reach,
    /// The service socket, as this host knows it.
    pub local: Endpoint,
    /// The service socket, as the server's primary address sees it.
    pub mapped: Option<Endpoint>,
    /// The address that a client would have.
    pub address: Option<Ipv6Addr>,
    /// The server's MTU, in octets.
    pub mtu: Option<u16>,
    /// How the NAT maps.
    pub mapping: Option<Mapping>,
    /// What the NAT, or a firewall, lets in.
    pub filtering: Option<Filtering>,
    /// How the NAT chooses ports.
    pub ports: Option<Ports>,
    /// Whether hosts behind the NAT reach each other by their mapped endpoints. `None` without a
    /// NAT, and where the test proves nothing.
    pub hairpinning: Option<bool>,
    /// Whether the server forwards bubbles, without which nobody finds a client.
    pub bubbles: Option<bool>,
}

impl Findings {
    /// Whether there is a NAT: the server sees another endpoint than this host.
    #[must_use]
    pub fn is_behind_nat(&self) -> Option<bool> {
        Some(self.mapped? != self.local)
    }

    /// Whether the mapped address is one that other hosts can send to (C-13).
    #[must_use]
    pub fn is_global(&self) -> Option<bool> {
        Some(Ipv4Scope::Strict.accepts(self.mapped?.address))
    }

    /// What consoles call it.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        let is_open = self.filtering? == Filtering::EndpointIndependent;
        Some(match (self.mapping?, is_open) {
            (Mapping::EndpointIndependent, true) => Kind::Open,
            (Mapping::EndpointIndependent, false) | (Mapping::Dependent, true) => Kind::Moderate,
            (Mapping::Dependent, false) => Kind::Strict,
        })
    }

    /// Whether a client would work.
    #[must_use]
    pub fn works(&self) -> bool {
        self.primary.is_answer()
            && self.secondary.is_answer()
            && self.is_global() == Some(true)
            && self.bubbles == Some(true)
    }
}
