//! The roles that a daemon runs, as statistics tell them apart.

use crate::sunset::Date;

/// What a daemon is for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Between Teredo clients and native IPv6.
    Relay,
    /// Between Teredo clients that do not know each other yet.
    Server,
    /// A host that reaches the IPv6 internet and others of its kind by Teredo.
    Client,
}

impl Role {
    /// The name in statistics and in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Server => "server",
            Self::Client => "client",
        }
    }

    /// The label in statistics.
    #[must_use]
    pub const fn label(self) -> (&'static str, &'static str) {
        ("role", self.name())
    }
}

/// How a role that runs is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoleState {
    /// Whether it takes no new peers or clients any more.
    pub is_draining: bool,
    /// The day on which it ends.
    pub sunset: Option<Date>,
}
