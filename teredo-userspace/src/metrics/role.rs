//! The roles of a daemon, as statistics name them.

use crate::sunset::Date;

/// A role of a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Forwards between Teredo clients and native IPv6.
    Relay,
    /// Gives Teredo clients their addresses and introduces them to each other.
    Server,
    /// Connects this host to the IPv6 internet through Teredo.
    Client,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Relay, Self::Server, Self::Client];

    /// The name in statistics and in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Server => "server",
            Self::Client => "client",
        }
    }

    /// Returns the role with this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let mut roles = Self::ALL.into_iter();
        roles.find(|role| role.name() == name)
    }

    /// The label in statistics.
    #[must_use]
    pub const fn label(self) -> (&'static str, &'static str) {
        ("role", self.name())
    }
}

/// The state of a running role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoleState {
    /// Whether it no longer accepts new peers or clients.
    pub is_draining: bool,
    /// The date on which it ends.
    pub sunset: Option<Date>,
}
