//! The NATs by the names of RFC 3489 and RFC 6081.

use std::time::Duration;

use super::{Behaviour, Dependence, Pooling, Ports};

/// A kind of NAT (RFC 6081 section 2), or another middlebox between a host and the internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// No NAT: the host has a public address.
    Public,
    /// A stateful firewall, without NAT.
    Firewall,
    /// Endpoint-independent mapping and filtering.
    Cone,
    /// Endpoint-independent mapping, address-dependent filtering.
    AddressRestricted,
    /// Endpoint-independent mapping, address- and port-dependent filtering.
    PortRestricted,
    /// A Linux router with `masquerade` that drops unsolicited packets: a mapping for each remote
    /// endpoint, all with the internal port as far as possible, so that it passes for
    /// port-restricted.
    LinuxFiltered,
    /// The same without an input filter: an unsolicited packet leaves an entry, which moves the port
    /// of a later mapping towards its sender.
    LinuxUnfiltered,
    /// Endpoint-independent mapping, address- and port-dependent filtering, with UPnP.
    UpnpPortRestricted,
    /// Address- and port-dependent mapping and filtering, with UPnP.
    UpnpPortSymmetric,
    /// The same without UPnP; the external port equals the internal one while that is free.
    PortPreservingSymmetric,
    /// The same; external ports are assigned in sequence.
    SequentialSymmetric,
    /// The same; external ports are random.
    PortSymmetric,
    /// The same; the external addresses differ as well.
    AddressSymmetric,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 13] = [
        Self::Public,
        Self::Firewall,
        Self::Cone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::LinuxFiltered,
        Self::LinuxUnfiltered,
        Self::UpnpPortRestricted,
        Self::UpnpPortSymmetric,
        Self::PortPreservingSymmetric,
        Self::SequentialSymmetric,
        Self::PortSymmetric,
        Self::AddressSymmetric,
    ];

    /// The name of the kind.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "Public address",
            Self::Firewall => "Stateful firewall",
            Self::Cone => "Cone",
            Self::AddressRestricted => "Address-restricted",
            Self::PortRestricted => "Port-restricted",
            Self::LinuxFiltered => "Linux with a filter",
            Self::LinuxUnfiltered => "Linux without a filter",
            Self::UpnpPortRestricted => "UPnP port-restricted",
            Self::UpnpPortSymmetric => "UPnP port-symmetric",
            Self::PortPreservingSymmetric => "Port-preserving symmetric",
            Self::SequentialSymmetric => "Sequential symmetric",
            Self::PortSymmetric => "Port-symmetric",
            Self::AddressSymmetric => "Address-symmetric",
        }
    }

    /// Whether the mapping depends on the destination even when nothing else is in its way.
    #[must_use]
    pub const fn is_symmetric(self) -> bool {
        matches!(
            self,
            Self::UpnpPortSymmetric
                | Self::PortPreservingSymmetric
                | Self::SequentialSymmetric
                | Self::PortSymmetric
                | Self::AddressSymmetric
        )
    }

    /// Whether clients behind this NAT can have ports mapped.
    #[must_use]
    pub const fn has_upnp(self) -> bool {
        matches!(self, Self::UpnpPortRestricted | Self::UpnpPortSymmetric)
    }

    /// Number of external addresses.
    #[must_use]
    pub const fn addresses(self) -> usize {
        match self {
            Self::Public | Self::Firewall => 0,
            Self::AddressSymmetric => 16,
            _ => 1,
        }
    }

    /// The behaviour of such a NAT: mappings live for two minutes after the last packet from
    /// inside, and there is no hairpinning. The kind leaves open how a NAT that is not symmetric
    /// chooses ports: `variant` decides.
    #[must_use]
    pub fn behaviour(self, variant: u64) -> Behaviour {
        let (mapping, filtering) = match self {
            Self::Public | Self::Cone => (Dependence::Independent, Dependence::Independent),
            Self::AddressRestricted => (Dependence::Independent, Dependence::Address),
            Self::Firewall | Self::PortRestricted | Self::UpnpPortRestricted => {
                (Dependence::Independent, Dependence::AddressAndPort)
            }
            _ => (Dependence::AddressAndPort, Dependence::AddressAndPort),
        };
        let ports = match self {
            Self::PortPreservingSymmetric => Ports::Preserving,
            Self::SequentialSymmetric => Ports::Sequential,
            Self::LinuxFiltered | Self::LinuxUnfiltered => Ports::Overloading,
            _ if self.is_symmetric() => Ports::Random,
            _ => [Ports::Preserving, Ports::Sequential, Ports::Random][variant as usize % 3],
        };
        Behaviour {
            mapping,
            filtering,
            ports,
            pooling: if self == Self::AddressSymmetric {
                Pooling::Arbitrary
            } else {
                Pooling::Paired
            },
            lifetime: Duration::from_secs(120),
            inbound_refresh: false,
            hairpinning: false,
            firewall: self == Self::Firewall,
            tracks_unsolicited: self == Self::LinuxUnfiltered,
        }
    }
}
