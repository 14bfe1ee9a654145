//! The kinds of conditions.

use super::Severity;
use crate::metrics::Role;

/// Defines the kinds: each with its name, its severity, and the roles that can have it.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal, $severity:ident, [$($role:ident),+];)+) => {
        /// The kind of a condition. Its name is stable, for scripts and alerts.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $($(#[$doc])* $kind,)+
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$kind),+];

            /// Returns the name in kebab case.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)+
                }
            }

            /// Returns the severity.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self {
                    $(Self::$kind => Severity::$severity,)+
                }
            }

            /// Returns whether a role can have a condition of this kind.
            #[must_use]
            pub const fn concerns(self, role: Role) -> bool {
                match self {
                    $(Self::$kind => matches!(role, $(Role::$role)|+),)+
                }
            }
        }
    };
}

kinds! {
    /// The host does not have the IPv4 address of the role, or no route that implies it.
    AddressMissing = "address-missing", Down, [Relay, Server];
    /// The role's socket cannot be opened.
    Socket = "socket", Down, [Relay, Server, Client];
    /// The TUN interface is missing or down, and cannot be restored.
    Tunnel = "tunnel", Down, [Relay, Server, Client];
    /// An address of the tunnel is missing, and cannot be restored.
    TunnelAddress = "tunnel-address", Down, [Client];
    /// A route is missing, and cannot be restored.
    Route = "route", Down, [Relay, Server, Client];
    /// The kernel has another way for the packets of the role.
    RouteDiverted = "route-diverted", Down, [Relay, Server, Client];
    /// The relay was withdrawn so often that it has to wait before it is announced.
    RouteDamped = "route-damped", Degraded, [Relay];
    /// A setting of the kernel is not as the role needs it, and cannot be restored.
    Setting = "setting", Down, [Relay, Server, Client];
    /// A configured interface does not exist, or is down.
    InterfaceMissing = "interface-missing", Degraded, [Relay, Server];
    /// The XDP program is not attached.
    FastPathOff = "fast-path-off", Degraded, [Relay, Server];
    /// The driver drops frames that the XDP program sends.
    FastPathDrops = "fast-path-drops", Degraded, [Relay, Server];
    /// A map of the XDP program has no room.
    MapFull = "map-full", Degraded, [Relay, Server];
    /// A firewall of this host drops the role's packets.
    Firewall = "firewall", Down, [Relay, Server, Client];
    /// The relay lacks peers of its fleet, or does not hear or reach a relay of it.
    FleetOutOfStep = "fleet-out-of-step", Degraded, [Relay];
    /// There is no route for the Teredo prefix, so connectivity tests are not forwarded.
    NoNativeRoute = "no-native-route", Degraded, [Server];
    /// A server's name cannot be looked up.
    NameUnknown = "name-unknown", Degraded, [Client];
    /// No server answers.
    ServerSilent = "server-silent", Down, [Client];
    /// Only the server's secondary address does not answer.
    SecondarySilent = "secondary-silent", Down, [Client];
    /// The NAT is symmetric and the client does not traverse it.
    SymmetricNat = "symmetric-nat", Down, [Client];
    /// The host has no way to the IPv4 internet.
    NoNetwork = "no-network", Down, [Relay, Client];
    /// The process has no file descriptors or memory left for a look at the host.
    Resources = "resources", Degraded, [Relay, Server, Client];
    /// Reports of traffic do not reach the collector.
    CollectorUnreachable = "collector-unreachable", Degraded, [Relay, Server, Client];
    /// Somebody removes again and again what the daemon restores.
    Contested = "contested", Degraded, [Relay, Server, Client];
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
    }
}
