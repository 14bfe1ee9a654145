//! The reasons for the fate of captured packets: one list for the taps, which give them, and for the selection, which
//! takes them from the operator.

use std::iter;

use teredo_common::{
    capture::point::{DROPPED, FORWARDED, RECEIVED, SENT},
    verdict::{Direction, Verdict},
};
use teredo_proto::{Count, Counts, Named, client, relay, server};

use crate::metrics::Role;

macro_rules! reasons {
    (
        of { $($(#[doc = $of_doc:literal])+ $of:ident($kind:ty),)+ }
        alone { $($(#[doc = $doc:literal])+ $alone:ident = $name:literal,)+ }
    ) => {
        /// The reason for the fate of a packet.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason {
            $($(#[doc = $of_doc])+ $of($kind),)+
            $($(#[doc = $doc])+ $alone,)+
        }

        impl Reason {
            /// Iterates over all reasons. Roles may have different ones of the same name.
            pub fn all() -> impl Iterator<Item = Self> {
                let all = iter::empty()$(.chain(<$kind>::ALL.iter().map(|&one| Self::$of(one))))+;
                all.chain([$(Self::$alone),+])
            }

            /// Returns the name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$of(one) => one.reason(),)+
                    $(Self::$alone => $name,)+
                }
            }
        }

        $(impl From<$kind> for Reason {
            fn from(one: $kind) -> Self {
                Self::$of(one)
            }
        })+
    };
}

reasons! {
    of {
        /// The verdict of the XDP program on a frame.
        Verdict(Verdict),
        /// The relay dropped the packet.
        Relay(relay::DropReason),
        /// The server dropped the packet.
        Server(server::DropReason),
        /// The server served the packet.
        Service(server::Service),
        /// The client dropped the packet.
        Client(client::DropReason),
    }
    alone {
        /// The packet became another one, which left at once.
        Forwarded = "forwarded",
        /// Nothing was dropped, and nothing left.
        Handled = "handled",
        /// The daemon sent the packet on its own account, or after it had to wait.
        Sent = "sent",
    }
}

impl Reason {
    /// Returns the first reason of which more was counted after a packet was handled than before.
    #[must_use]
    pub fn counted<T: Named + Into<Self>, C: Count>(
        before: &Counts<T, C>,
        after: &Counts<T, C>,
    ) -> Option<Self> {
        let mut counts = before.iter().zip(after.iter());
        let more = counts.find(|((_, before), (_, after))| before != after);
        more.map(|((one, _), _)| one.into())
    }

    /// Returns whether packets of this role have the reason.
    #[must_use]
    pub fn is_of(self, role: Role) -> bool {
        match self {
            Self::Verdict(verdict) => match verdict.direction() {
                Some(Direction::Decap | Direction::Encap) => role == Role::Relay,
                Some(Direction::Respond) => role == Role::Server,
                None => false,
            },
            Self::Relay(_) => role == Role::Relay,
            Self::Server(_) | Self::Service(_) => role == Role::Server,
            Self::Client(_) => role == Role::Client,
            Self::Forwarded | Self::Handled | Self::Sent => true,
        }
    }

    /// Returns the points of the daemon at which packets have the reason, each a bit.
    #[must_use]
    pub const fn points(self) -> u32 {
        match self {
            Self::Verdict(_) => 0,
            // An error may be the answer to a packet that is dropped.
            Self::Relay(_) | Self::Server(_) | Self::Service(_) | Self::Client(_) => {
                RECEIVED | DROPPED | FORWARDED
            }
            Self::Forwarded => RECEIVED | FORWARDED,
            Self::Handled => RECEIVED,
            Self::Sent => SENT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_name_a_place_and_a_role() {
        for reason in Reason::all() {
            assert!(!reason.name().is_empty(), "{reason:?}");
            let is_at_xdp = matches!(reason, Reason::Verdict(_));
            assert_eq!(reason.points() == 0, is_at_xdp, "{reason:?}");
            let is_of_some = Role::ALL.into_iter().any(|role| reason.is_of(role));
            assert!(is_at_xdp || is_of_some, "{reason:?}");
        }
    }

    #[test]
    fn the_reason_is_what_was_counted_since() {
        let before = Counts::<server::DropReason>::default();
        assert_eq!(Reason::counted(&before, &before), None);
        let mut after = before;
        after[server::DropReason::Draining] += 1;
        let expected = Reason::Server(server::DropReason::Draining);
        assert_eq!(Reason::counted(&before, &after), Some(expected));
    }
}
