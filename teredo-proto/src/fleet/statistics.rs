//! What a relay counts of its fleet.

use crate::{
    relay::Learned,
    shared::{
        counts::{Counts, named},
        statistics::Traffic,
    },
};

named! {
    /// Why a datagram was dropped.
    DropReason {
        /// Not a datagram of a fleet (F-06).
        Malformed = "malformed",
        /// Of a version that this one does not know (F-06).
        Version = "version",
        /// Not from an address of a member (F-03).
        Stranger = "stranger",
        /// Signed with a key that this relay does not have (F-04).
        Key = "key",
        /// The tag is wrong (F-03).
        Tag = "tag",
        /// The sender's clock and this one differ too much (F-05).
        Clock = "clock",
        /// It came already, or is of an earlier run (F-05).
        Replay = "replay",
        /// Of a run that did not answer this relay yet (F-05).
        Run = "run",
        /// Of a relay that serves another endpoint or prefix (F-24).
        Service = "service",
        /// The sender sends too much (F-07).
        Rate = "rate",
        /// An answer to no request.
        Unexpected = "unexpected",
        /// More waits to be sent than anybody takes.
        Backlog = "backlog",
        /// The system did not take a datagram to another relay.
        Unsent = "unsent",
    }
}

/// A snapshot of what was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Datagrams that were accepted.
    pub received: Traffic,
    /// Datagrams that were sent.
    pub sent: Traffic,
    /// Datagrams dropped, by reason.
    pub dropped: Counts<DropReason>,
    /// Reports that arrived, by outcome.
    pub learned: Counts<Learned>,
    /// Reports that were told to all.
    pub told: u64,
    /// Tables that were received completely.
    pub transfers: u64,
    /// Relays that were given up during the transfer of their table (F-17).
    pub stalled: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::counts::assert_names;

    #[test]
    fn reasons_are_unique_and_in_kebab_case() {
        let names = |reasons: &[&'static str]| assert_names(reasons);
        names(
            &DropReason::ALL
                .iter()
                .map(|one| one.reason())
                .collect::<Vec<_>>(),
        );
        names(
            &Learned::ALL
                .iter()
                .map(|one| one.reason())
                .collect::<Vec<_>>(),
        );
    }
}
