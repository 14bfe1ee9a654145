//! The behaviour of a NAT in the terms of RFC 4787, and its type in the terms of game consoles.
//!
//! A measurement of [`probe`](crate::probe) and a qualified client describe a NAT in these words.

use std::fmt;

use crate::client::{Identity, Nat};

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
    /// Returns how these internal ports, which are not close to each other, are mapped.
    pub(crate) fn of(pairs: &[(u16, u16)]) -> Option<Self> {
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

/// The behaviour of a NAT as far as it is known. `None` stands for an unknown property.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// Mapping behaviour.
    pub mapping: Option<Mapping>,
    /// Filtering behaviour of the NAT, or of a firewall.
    pub filtering: Option<Filtering>,
    /// Port assignment.
    pub ports: Option<Ports>,
}

impl Behaviour {
    /// Returns the kind of the NAT in the terms of game consoles, if mapping and filtering are
    /// known.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        let is_open = self.filtering? == Filtering::EndpointIndependent;
        Some(match (self.mapping?, is_open) {
            (Mapping::EndpointIndependent, true) => Kind::Open,
            (Mapping::EndpointIndependent, false) | (Mapping::Dependent, true) => Kind::Moderate,
            (Mapping::Dependent, false) => Kind::Strict,
        })
    }

    /// Returns the consoles' word for the NAT, or those that come into question where the filtering
    /// is not known.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match (self.kind(), self.mapping) {
            (Some(kind), _) => kind.name(),
            (None, Some(Mapping::EndpointIndependent)) => "open or moderate",
            (None, Some(Mapping::Dependent)) => "moderate or strict",
            (None, None) => "not known",
        }
    }
}

/// Everything that is known: "type moderate, mapping endpoint-independent, ports preserved".
impl fmt::Display for Behaviour {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "type {}", self.type_name())?;
        for (property, value) in [
            ("mapping", self.mapping.map(Mapping::name)),
            ("filtering", self.filtering.map(Filtering::name)),
            ("ports", self.ports.map(Ports::name)),
        ] {
            if let Some(value) = value {
                write!(formatter, ", {property} {value}")?;
            }
        }
        Ok(())
    }
}

/// The behaviour as far as qualification shows it. A client that looks for no cone NAT knows the
/// filtering only at a port that the gateway forwards, and a client of the tunnel service does not
/// measure anything.
impl From<&Identity> for Behaviour {
    fn from(identity: &Identity) -> Self {
        if identity.tunnel {
            return Self::default();
        }
        let (mapping, is_open) = match identity.nat {
            Nat::Cone => (Mapping::EndpointIndependent, true),
            Nat::Restricted => (Mapping::EndpointIndependent, identity.upnp),
            Nat::Symmetric => (Mapping::Dependent, identity.upnp),
        };
        Self {
            mapping: Some(mapping),
            filtering: is_open.then_some(Filtering::EndpointIndependent),
            ports: Some(match identity.port_preserving {
                true => Ports::Preserved,
                false => Ports::Other,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use teredo_common::address::Endpoint;

    use super::*;
    use crate::client::ServerEndpoints;

    fn identity(nat: Nat) -> Identity {
        let mapped = Endpoint::new([9, 0, 0, 1].into(), 4096);
        Identity {
            address: Ipv6Addr::LOCALHOST,
            mapped,
            server: ServerEndpoints::new([1, 2, 3, 4].into()),
            nat,
            port_preserving: true,
            port_mapping: None,
            upnp: false,
            mtu: 1280,
            tunnel: false,
        }
    }

    #[test]
    fn a_client_claims_what_qualification_shows() {
        for (nat, upnp, text) in [
            (
                Nat::Restricted,
                false,
                "type open or moderate, mapping endpoint-independent, ports preserved",
            ),
            (
                Nat::Cone,
                false,
                "type open, mapping endpoint-independent, filtering endpoint-independent, ports \
                 preserved",
            ),
            (
                Nat::Restricted,
                true,
                "type open, mapping endpoint-independent, filtering endpoint-independent, ports \
                 preserved",
            ),
            (
                Nat::Symmetric,
                false,
                "type moderate or strict, mapping address-dependent or address and port-dependent, \
                 ports preserved",
            ),
            (
                Nat::Symmetric,
                true,
                "type moderate, mapping address-dependent or address and port-dependent, filtering \
                 endpoint-independent, ports preserved",
            ),
        ] {
            let identity = Identity {
                upnp,
                ..identity(nat)
            };
            assert_eq!(Behaviour::from(&identity).to_string(), text);
        }
        let tunnel = Identity {
            tunnel: true,
            ..identity(Nat::Restricted)
        };
        assert_eq!(Behaviour::from(&tunnel).to_string(), "type not known");
        let other_port = Identity {
            port_preserving: false,
            ..identity(Nat::Restricted)
        };
        let ports = Behaviour::from(&other_port).ports;
        assert_eq!(ports, Some(Ports::Other));
    }

    #[test]
    fn the_type_is_that_of_mapping_and_filtering() {
        let (independent, dependent) = (Mapping::EndpointIndependent, Mapping::Dependent);
        let (all, some) = (Filtering::EndpointIndependent, Filtering::Dependent);
        for (mapping, filtering, name) in [
            (Some(independent), Some(all), "open"),
            (Some(independent), Some(some), "moderate"),
            (Some(independent), None, "open or moderate"),
            (Some(dependent), Some(all), "moderate"),
            (Some(dependent), Some(some), "strict"),
            (Some(dependent), None, "moderate or strict"),
            (None, Some(all), "not known"),
            (None, None, "not known"),
        ] {
            let behaviour = Behaviour {
                mapping,
                filtering,
                ports: None,
            };
            assert_eq!(behaviour.type_name(), name, "{behaviour:?}");
        }
    }
}
