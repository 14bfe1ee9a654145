//! The kinds of conditions that each role can have, so that each has a value while it is not true.

use std::collections::BTreeSet;

use super::{Role, Snapshot};
use crate::condition::Kind;

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 20] = [
        Self::AddressMissing,
        Self::Socket,
        Self::Tunnel,
        Self::TunnelAddress,
        Self::Route,
        Self::RouteDiverted,
        Self::Setting,
        Self::InterfaceMissing,
        Self::FastPathOff,
        Self::FastPathDrops,
        Self::MapFull,
        Self::Firewall,
        Self::NoNativeRoute,
        Self::NameUnknown,
        Self::ServerSilent,
        Self::SecondarySilent,
        Self::SymmetricNat,
        Self::NoNetwork,
        Self::Resources,
        Self::Contested,
    ];

    /// Returns whether a role can have a condition of this kind.
    #[must_use]
    pub const fn concerns(self, role: Role) -> bool {
        match self {
            Self::Socket
            | Self::Tunnel
            | Self::Setting
            | Self::Firewall
            | Self::Resources
            | Self::Contested => true,
            // A server has routes for its tunnel service.
            Self::Route | Self::RouteDiverted => true,
            Self::NoNetwork => !matches!(role, Role::Server),
            Self::AddressMissing
            | Self::InterfaceMissing
            | Self::FastPathOff
            | Self::FastPathDrops
            | Self::MapFull => !matches!(role, Role::Client),
            Self::NoNativeRoute => matches!(role, Role::Server),
            Self::TunnelAddress
            | Self::NameUnknown
            | Self::ServerSilent
            | Self::SecondarySilent
            | Self::SymmetricNat => matches!(role, Role::Client),
        }
    }
}

/// Returns every kind that the running roles can have, with whether it is true.
pub fn values(snapshot: &Snapshot) -> impl Iterator<Item = (Kind, Role, bool)> {
    let conditions = snapshot.conditions.iter();
    let present: BTreeSet<_> = conditions
        .map(|lasting| (lasting.condition.role, lasting.condition.kind))
        .collect();
    let possible = snapshot.roles.keys().flat_map(|&role| {
        let kinds = Kind::ALL.into_iter();
        kinds
            .filter(move |kind| kind.concerns(role))
            .map(move |kind| (role, kind))
    });
    let all: BTreeSet<_> = possible.chain(present.iter().copied()).collect();
    all.into_iter()
        .map(move |(role, kind)| (kind, role, present.contains(&(role, kind))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_and_a_role() {
        let names: BTreeSet<_> = Kind::ALL.into_iter().map(Kind::name).collect();
        assert_eq!(names.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            let mut roles = [Role::Relay, Role::Server, Role::Client].into_iter();
            assert!(roles.any(|role| kind.concerns(role)), "{kind:?}");
        }
    }
}
