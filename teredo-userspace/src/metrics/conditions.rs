//! The values of the kinds of conditions, also of those that are not true.

use std::collections::BTreeSet;

use super::{Role, Snapshot};
use crate::condition::Kind;

/// Returns every kind that the running roles can have, with whether it is true.
pub fn values(snapshot: &Snapshot) -> impl Iterator<Item = (Kind, Role, bool)> {
    let conditions = snapshot.conditions.iter();
    let present: BTreeSet<_> = conditions
        .map(|lasting| (lasting.condition.role, lasting.condition.kind))
        .collect();
    let possible = snapshot.roles.keys().flat_map(|&role| {
        let kinds = Kind::ALL.iter().copied();
        kinds
            .filter(move |kind| kind.concerns(role))
            .map(move |kind| (role, kind))
    });
    let all: BTreeSet<_> = possible.chain(present.iter().copied()).collect();
    all.into_iter()
        .map(move |(role, kind)| (kind, role, present.contains(&(role, kind))))
}
