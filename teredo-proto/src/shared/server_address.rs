//! The two addresses of a server.

use serde::{Deserialize, Serialize};

/// One of the two addresses of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerAddress {
    /// The primary address, which the Teredo addresses of the server's clients contain.
    Primary,
    /// The secondary address, which tells clients whether their NAT is symmetric.
    Secondary,
}

impl ServerAddress {
    /// Returns the other address of the server.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Primary => Self::Secondary,
            Self::Secondary => Self::Primary,
        }
    }
}
